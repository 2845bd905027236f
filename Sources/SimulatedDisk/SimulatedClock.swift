// SimulatedClock: virtual time. It moves only when a driver waits or a test moves it, never back,
// so that a seed replays a run to the nanosecond.

import BlockIO
import Synchronization

/// Starts at one second; any thread may read it, the pump moves it.
package final class SimulatedClock: Clock, Sendable {
    package static let start: UInt64 = 1_000_000_000
    package static let wallBase: UInt64 = 1_700_000_000

    private let now = Atomic<UInt64>(SimulatedClock.start)
    private let jump = Atomic<Int64>(0)

    package init() {}

    package var monotonic: UInt64 { now.load(ordering: .acquiring) }

    package var wallSeconds: UInt32 {
        let steady = Self.wallBase + monotonic / 1_000_000_000
        let moved = Int64(clamping: steady).addingReportingOverflow(wallJump)
        return UInt32(clamping: moved.overflow ? Int64.max : moved.partialValue)
    }

    /// Seconds by which the wall clock was set off its course; the monotonic time does not notice.
    package var wallJump: Int64 {
        get { jump.load(ordering: .acquiring) }
        set { jump.store(newValue, ordering: .releasing) }
    }

    /// Moves time to `time`; an earlier one is ignored.
    package func advance(to time: UInt64) {
        _ = now.max(time, ordering: .acquiringAndReleasing)
    }

    package func advance(by nanoseconds: UInt64) {
        let sum = monotonic.addingReportingOverflow(nanoseconds)
        advance(to: sum.overflow ? UInt64.max : sum.partialValue)
    }
}
