// MonotonicCondition: a condition variable whose bounds are of the monotonic clock, so that no step
// of the wall clock cuts a wait short or draws it out. It has a place of its own in memory, which
// its owner gives back by `destroy()` when nobody waits any more. The mutex is the owner's.

import Glibc

package struct MonotonicCondition {
    private let place: UnsafeMutablePointer<pthread_cond_t>

    package init() {
        place = .allocate(capacity: 1)
        place.initialize(to: pthread_cond_t())
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(place, &attributes)
        pthread_condattr_destroy(&attributes)
    }

    package func destroy() {
        pthread_cond_destroy(place)
        place.deallocate()
    }

    package func signal() { pthread_cond_signal(place) }

    package func broadcast() { pthread_cond_broadcast(place) }

    package func wait(_ mutex: UnsafeMutablePointer<pthread_mutex_t>) {
        pthread_cond_wait(place, mutex)
    }

    /// Waits until told or until the monotonic time in nanoseconds; false when that has come.
    package func wait(
        _ mutex: UnsafeMutablePointer<pthread_mutex_t>, until nanoseconds: UInt64
    ) -> Bool {
        // What no clock reaches, and `timespec` may not hold, is a wait without end.
        guard nanoseconds <= UInt64(Int64.max) else {
            wait(mutex)
            return true
        }
        var bound = timespec(
            tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
        return pthread_cond_timedwait(place, mutex, &bound) != ETIMEDOUT
    }
}
