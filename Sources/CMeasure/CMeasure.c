#define _GNU_SOURCE
#include "CMeasure.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HEARTH_SANITIZED 1
#endif
#endif

// MARK: Allocations

#if defined(__GLIBC__) && !defined(HEARTH_SANITIZED)
#define HEARTH_COUNTS 1

static _Thread_local uint64_t thread_allocations;
static _Atomic uint64_t process_allocations;

// glibc's own names for the same functions, which a definition of ours does not hide.
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static inline void count(void) {
    thread_allocations += 1;
    atomic_fetch_add_explicit(&process_allocations, 1, memory_order_relaxed);
}

void *malloc(size_t size) {
    count();
    return __libc_malloc(size);
}

void *calloc(size_t number, size_t size) {
    count();
    return __libc_calloc(number, size);
}

void *realloc(void *old, size_t size) {
    count();
    return __libc_realloc(old, size);
}

void *memalign(size_t alignment, size_t size) {
    count();
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    count();
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **result, size_t alignment, size_t size) {
    if (alignment % sizeof(void *) != 0 || alignment == 0 || (alignment & (alignment - 1)) != 0) {
        return EINVAL;
    }
    count();
    void *memory = __libc_memalign(alignment, size);
    if (memory == NULL) return ENOMEM;
    *result = memory;
    return 0;
}

void free(void *memory) { __libc_free(memory); }
#endif

int hearth_counts_allocations(void) {
#ifdef HEARTH_COUNTS
    return 1;
#else
    return 0;
#endif
}

uint64_t hearth_thread_allocations(void) {
#ifdef HEARTH_COUNTS
    return thread_allocations;
#else
    return 0;
#endif
}

uint64_t hearth_process_allocations(void) {
#ifdef HEARTH_COUNTS
    return atomic_load_explicit(&process_allocations, memory_order_relaxed);
#else
    return 0;
#endif
}

// MARK: Checksums

typedef unsigned int (*checksum_function)(unsigned char *, int, unsigned int);

static _Atomic(checksum_function) library_checksum;
static _Atomic int timing;
static _Atomic uint64_t nanoseconds;
static _Atomic uint64_t bytes;

static checksum_function library(void) {
    checksum_function found = atomic_load_explicit(&library_checksum, memory_order_relaxed);
    if (found == NULL) {
        found = (checksum_function)dlsym(RTLD_NEXT, "crc32_iscsi");
        if (found == NULL) abort();
        atomic_store_explicit(&library_checksum, found, memory_order_relaxed);
    }
    return found;
}

static uint64_t thread_time(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

unsigned int crc32_iscsi(unsigned char *buffer, int length, unsigned int seed) {
    // Keys and headers are too small to be worth a clock reading.
    if (!atomic_load_explicit(&timing, memory_order_relaxed) || length < 4096) {
        return library()(buffer, length, seed);
    }
    uint64_t start = thread_time();
    unsigned int sum = library()(buffer, length, seed);
    atomic_fetch_add_explicit(&nanoseconds, thread_time() - start, memory_order_relaxed);
    atomic_fetch_add_explicit(&bytes, (uint64_t)length, memory_order_relaxed);
    return sum;
}

void hearth_time_checksums(int on) { atomic_store(&timing, on); }
uint64_t hearth_checksum_nanoseconds(void) { return atomic_load(&nanoseconds); }
uint64_t hearth_checksum_bytes(void) { return atomic_load(&bytes); }
