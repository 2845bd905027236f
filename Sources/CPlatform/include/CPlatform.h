// CPlatform: the few Linux calls and constants that Swift's Glibc module does not import.
#ifndef HEARTH_CPLATFORM_H
#define HEARTH_CPLATFORM_H
#include <features.h>
#include <stddef.h>

/// memfd_create, close-on-exec off so that a child can inherit it; `huge` asks for MFD_HUGETLB.
int hearth_memfd(const char *name, int huge);

/// 0 when the kernel backs shared memory with huge pages on MADV_HUGEPAGE ("advise", "always" or
/// "within_size" in shmem_enabled) and took the advice; -1 otherwise.
int hearth_madvise_huge(void *address, size_t length);

#endif
