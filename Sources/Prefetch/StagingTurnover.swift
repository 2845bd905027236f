// StagingTurnover: for how long a block stays in staging until others have taken its place, from
// what has left it for want of room in the last sixteen seconds or so. Whoever is brought earlier
// than a share of that before it is needed takes the place of what would have been used meanwhile.

struct StagingTurnover {
    /// Seconds that the mean is taken over, and the least nanoseconds between two looks.
    private static let memory = 16.0
    private static let period: UInt64 = 1_000_000_000

    /// Bytes a second that leave.
    private var leaving = 0.0
    private var counted: UInt64 = 0
    private var evicted: UInt64 = 0

    /// `evicted`: bytes that have left so far; monotonic nanoseconds.
    mutating func observe(evicted total: UInt64, now: UInt64) {
        guard now >= counted &+ Self.period else { return }
        let seconds = Double(now &- counted) * 1e-9
        let rate = Double(total &- evicted) / seconds
        leaving += (rate - leaving) * min(1, seconds / Self.memory)
        (counted, evicted) = (now, total)
    }

    /// Nanoseconds that a block stays in a staging of so many bytes, at most `longest`, which is
    /// for ever.
    func stay(bytes: Int) -> UInt64 {
        UInt64(min(Double(Self.longest), Double(bytes) / max(1, leaving) * 1e9))
    }

    static let longest: UInt64 = 1 << 52
}
