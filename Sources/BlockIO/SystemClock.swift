// SystemClock: the host's time. Monotonic time does not count suspension; wall seconds saturate at
// the ends of 32 bits instead of wrapping.

import Glibc

package final class SystemClock: Clock, Sendable {
    package init() {}

    package var monotonic: UInt64 { Self.now() }

    package var wallSeconds: UInt32 {
        var time = timespec()
        // A few milliseconds late, and a fifth of the cost: it is read at each lookup.
        clock_gettime(CLOCK_REALTIME_COARSE, &time)
        return UInt32(clamping: time.tv_sec)
    }

    /// CLOCK_MONOTONIC in nanoseconds.
    @inline(__always)
    static func now() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(truncatingIfNeeded: time.tv_sec) &* 1_000_000_000
            &+ UInt64(truncatingIfNeeded: time.tv_nsec)
    }
}
