// CPlatform: the few Linux calls and constants that Swift's Glibc module does not import.
#ifndef HEARTH_CPLATFORM_H
#define HEARTH_CPLATFORM_H
#include <features.h>
#include <stddef.h>
#include <stdint.h>

/// Starts bringing the cache line at this address nearer; any address may be given.
static inline void hearth_prefetch(const void *address) { __builtin_prefetch(address, 0, 3); }

/// memfd_create, close-on-exec off so that a child can inherit it; `huge` asks for MFD_HUGETLB.
int hearth_memfd(const char *name, int huge);

/// 0 when the kernel backs shared memory with huge pages on MADV_HUGEPAGE ("advise", "always" or
/// "within_size" in shmem_enabled) and took the advice; -1 otherwise.
int hearth_madvise_huge(void *address, size_t length);

/// Opens a directory, close-on-exec. A descriptor, or -1 with errno.
int hearth_open_directory(int directory, const char *path);

/// Opens a file read-write, close-on-exec, links not followed, mode 0600. `how`: 0 existing,
/// 1 create, 2 create exclusively. `direct` asks for O_DIRECT. A descriptor, or -1 with errno.
int hearth_open_file(int directory, const char *name, int how, int direct);

/// What the file says of direct I/O (STATX_DIOALIGN): 1 and both alignments in bytes, 0 when it
/// refuses direct I/O, -1 when it (or the kernel) does not tell.
int hearth_direct_alignment(int fd, uint32_t *memory, uint32_t *offset);

/// 1 when the file lives in memory (tmpfs, ramfs, hugetlbfs), where direct I/O means nothing.
int hearth_in_memory(int fd);

/// Takes an exclusive lock that belongs to the open file description (OFD, else flock), without
/// waiting. 0, or -1 with errno EAGAIN when another open has it.
int hearth_lock_file(int fd);

/// Gives the lock up at once, also where a forked child still has the description open.
void hearth_unlock_file(int fd);

/// 1 when another open has the file's lock, 0 when none has, -1 with errno when that cannot be
/// told. Takes nothing.
int hearth_lock_held(int fd);

/// A counter for waking, close-on-exec; `nonblocking` as asked.
int hearth_eventfd(int nonblocking);

/// Allocates the range, or punches a hole in it and keeps the size. 0, or -1 with errno.
int hearth_fallocate(int fd, int punch, int64_t offset, int64_t length);

/// Tells the kernel how long the file's data will live (F_SET_RW_HINT; 0 not set ... 5 extreme).
int hearth_write_hint(int fd, int hint);

/// The entry names of an open directory, each NUL-terminated, one after the other: bytes needed,
/// of which at most `capacity` were written, or -1 with errno.
int64_t hearth_directory_entries(int directory, char *names, int64_t capacity);

/// This thread's own line of text, of HEARTH_THREAD_TEXT bytes, all zero to begin with.
#define HEARTH_THREAD_TEXT 1024
char *hearth_thread_text(void);

/// A number of this thread's own, 0 to begin with.
int *hearth_thread_number(void);

/// How many forks lie between this process and the one that loaded the code. The first call makes
/// later forks count.
uint32_t hearth_fork_epoch(void);

#endif
