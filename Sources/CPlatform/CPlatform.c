#define _GNU_SOURCE
#include "CPlatform.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

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
