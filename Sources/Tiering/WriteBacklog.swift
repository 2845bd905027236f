// WriteBacklog: how much may wait to be written. Blocks that wait can not leave staging; where
// more come than the devices take, those that wait would hold all of it, and with it the blocks
// that are read again. So no more may wait than the devices write in some seconds, by what they
// have been seen to write while something waited all the time; and less where blocks are computed
// far sooner than they are read: a copy on a device is worth little there, and the memory that
// waits for it as much as ever.
//
// Invariants: constant memory, no allocation; the limit is never below `floor` and never above
// `ceiling`.

package struct WriteBacklog: Sendable {
    /// How long what waits may take, seconds.
    package let longest: Double
    package let floor: Int
    package let ceiling: Int
    /// Bytes a second, 0 for not measured.
    package private(set) var bytesPerSecond = 0.0
    private var since: UInt64 = 0
    private var written: UInt64 = 0

    /// A window is at least so long, and has seen so many bytes.
    private static let window: UInt64 = 50_000_000

    package init(longest: Double, floor: Int, ceiling: Int) {
        self.longest = longest
        self.floor = floor
        self.ceiling = max(floor, ceiling)
    }

    /// How many times longer a block takes to compute than to read, 0: not known. Down to a fourth
    /// it is worth the whole wait.
    package var readingGain = 0.0

    /// `total` is all bytes written so far, `waiting` those that wait.
    package mutating func observe(total: UInt64, waiting: Int, now: UInt64) {
        if waiting == 0 || since == 0 {
            // Nothing to do for a while tells nothing of what the devices could, but that what came
            // before took no longer than until now.
            if since > 0, now > since {
                let atLeast = Double(total - written) * 1e9 / Double(now - since)
                bytesPerSecond = max(bytesPerSecond, atLeast)
            }
            since = waiting == 0 ? 0 : now
            written = total
            return
        }
        guard now >= since + Self.window, total - written >= UInt64(floor / 4) else { return }
        let rate = Double(total - written) * 1e9 / Double(now - since)
        bytesPerSecond = bytesPerSecond == 0 ? rate : bytesPerSecond + (rate - bytesPerSecond) / 4
        since = now
        written = total
    }

    /// Bytes that may wait.
    package var limit: Int {
        // Until something was measured, some: what waits for a slow device waits long, and what is
        // not written of a first burst is lost although the device may be fast.
        guard bytesPerSecond > 0 else { return max(floor, ceiling / 16) }
        let share = readingGain > 0 ? min(1, 4 * readingGain) : 1
        return min(ceiling, max(floor, Int(min(bytesPerSecond * longest * share, 1e15))))
    }
}
