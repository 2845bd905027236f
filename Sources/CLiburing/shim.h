// features.h first: liburing.h sets _XOPEN_SOURCE, and a later Glibc import would see another
// fd_set.
#include <features.h>
#include <liburing.h>
