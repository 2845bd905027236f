#define _GNU_SOURCE
#include "CPlatform.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef F_SET_RW_HINT
#define F_SET_RW_HINT 1036
#endif
#ifndef F_OFD_SETLK
#define F_OFD_SETLK 37
#endif

int hearth_memfd(const char *name, int huge) { return memfd_create(name, huge ? MFD_HUGETLB : 0); }

int hearth_madvise_huge(void *address, size_t length) {
    char setting[128] = {0};
    int fd = open("/sys/kernel/mm/transparent_hugepage/shmem_enabled", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t count = read(fd, setting, sizeof setting - 1);
    close(fd);
    if (count <= 0 || strstr(setting, "[never]") || strstr(setting, "[deny]")) return -1;
    return madvise(address, length, MADV_HUGEPAGE);
}

int hearth_open_directory(int directory, const char *path) {
    return openat(directory < 0 ? AT_FDCWD : directory, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int hearth_open_file(int directory, const char *name, int how, int direct) {
    int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW;
    if (how >= 1) flags |= O_CREAT;
    if (how >= 2) flags |= O_EXCL;
    if (direct) flags |= O_DIRECT;
    return openat(directory, name, flags, 0600);
}

int hearth_direct_alignment(int fd, uint32_t *memory, uint32_t *offset) {
#ifdef STATX_DIOALIGN
    struct statx found;
    memset(&found, 0, sizeof found);
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &found) != 0) return -1;
    if (!(found.stx_mask & STATX_DIOALIGN)) return -1;
    if (found.stx_dio_mem_align == 0 || found.stx_dio_offset_align == 0) return 0;
    *memory = found.stx_dio_mem_align;
    *offset = found.stx_dio_offset_align;
    return 1;
#else
    (void)fd; (void)memory; (void)offset;
    return -1;
#endif
}

int hearth_in_memory(int fd) {
    struct statfs found;
    if (fstatfs(fd, &found) != 0) return 0;
    unsigned long type = (unsigned long)found.f_type & 0xffffffffUL;
    return type == 0x01021994UL || type == 0x858458f6UL || type == 0x958458f6UL;
}

int hearth_lock_file(int fd) {
    struct flock lock;
    memset(&lock, 0, sizeof lock);
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0) return 0;
    if (errno == EACCES) errno = EAGAIN;
    if (errno == EAGAIN) return -1;
    return flock(fd, LOCK_EX | LOCK_NB);
}

void hearth_unlock_file(int fd) {
    struct flock lock;
    memset(&lock, 0, sizeof lock);
    lock.l_type = F_UNLCK;
    lock.l_whence = SEEK_SET;
    fcntl(fd, F_OFD_SETLK, &lock);
    flock(fd, LOCK_UN);
}

int hearth_lock_held(int fd) {
    struct flock lock;
    memset(&lock, 0, sizeof lock);
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    if (fcntl(fd, F_OFD_GETLK, &lock) != 0) return -1;
    return lock.l_type != F_UNLCK;
}

int hearth_eventfd(int nonblocking) {
    return eventfd(0, EFD_CLOEXEC | (nonblocking ? EFD_NONBLOCK : 0));
}

int hearth_fallocate(int fd, int punch, int64_t offset, int64_t length) {
    return fallocate(fd, punch ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : 0, offset, length);
}

int hearth_write_hint(int fd, int hint) {
    uint64_t value = (uint64_t)hint;
    return fcntl(fd, F_SET_RW_HINT, &value);
}

int64_t hearth_directory_entries(int directory, char *names, int64_t capacity) {
    // A new description: reading moves the position of a duplicated one.
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -1;
    DIR *stream = fdopendir(fd);
    if (!stream) {
        close(fd);
        return -1;
    }
    int64_t needed = 0;
    struct dirent *entry;
    for (errno = 0; (entry = readdir(stream)) != NULL; errno = 0) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        int64_t length = (int64_t)strlen(entry->d_name) + 1;
        if (needed + length <= capacity) memcpy(names + needed, entry->d_name, (size_t)length);
        needed += length;
    }
    int failed = errno;
    closedir(stream);
    errno = failed;
    return failed ? -1 : needed;
}

char *hearth_thread_text(void) {
    static _Thread_local char text[HEARTH_THREAD_TEXT];
    return text;
}

int *hearth_thread_number(void) {
    static _Thread_local int number;
    return &number;
}

// Written only in a child that has one thread.
static volatile uint32_t forks;
static pthread_once_t forks_counted = PTHREAD_ONCE_INIT;

static void count_fork(void) { forks = forks + 1; }
static void begin_counting_forks(void) { pthread_atfork(NULL, NULL, count_fork); }

uint32_t hearth_fork_epoch(void) {
    pthread_once(&forks_counted, begin_counting_forks);
    return forks;
}
