// CMeasure: what hearth-bench has to count inside itself: calls of the allocator, and the time
// spent in the value checksum. Linked into the benchmark only, where its definitions stand in for
// those of the C library and of ISA-L and hand on to them.
#ifndef HEARTH_CMEASURE_H
#define HEARTH_CMEASURE_H
#include <features.h>
#include <stdint.h>

/// Whether allocations can be counted (not under a sanitizer, which has an allocator of its own).
int hearth_counts_allocations(void);

/// Allocations made by the calling thread so far.
uint64_t hearth_thread_allocations(void);

/// Allocations made by the whole process so far.
uint64_t hearth_process_allocations(void);

/// Whether the time in the checksum is taken from now on (it costs two clock readings a call).
void hearth_time_checksums(int on);

/// Nanoseconds of processor time spent in checksums, in all threads, and bytes summed.
uint64_t hearth_checksum_nanoseconds(void);
uint64_t hearth_checksum_bytes(void);

#endif
