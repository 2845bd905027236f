// WriteShare: how many requests of groups a device has under way while it is read, so that a writer
// keeps half of the rate it has alone. That rate is measured while nobody reads; beside readers
// more requests go out, step by step, while the writer has less than half of it, and fewer where
// it has more.
//
// Invariants: beside readers only spans count in which the device had as much to write as it may
// all the while, so a writer that asks for less than its share does not get its readers longer
// queues; until a rate alone is known the limit stays at its least.

struct WriteShare {
    /// Most requests under way. On the virtual disk of ARCHITECTURE.md, whose queue has no room for
    /// more of them beside readers, a writer has half of its rate with ten or eleven.
    static let most = 11
    /// The share aimed at; in between the limit stays.
    static let aim = 0.51...0.56
    /// The least a span takes, nanoseconds, and the least completions in it.
    static let span: UInt64 = 20_000_000
    static let completions = 16
    /// A writer that pauses for longer, nanoseconds, is not measured alone over it.
    static let pause: UInt64 = 2_000_000
    /// Spans that the rate alone is the mean of: a second. Over less it is a burst's.
    static let memory = 50.0

    let least: Int
    /// Requests that groups may have under way while the device is read.
    private(set) var limit: Int
    /// Bytes a second that groups have while nobody reads, 0 while unknown.
    private(set) var alone: Double = 0

    /// Spans measured alone, up to `memory`.
    private var spans = 0.0
    private var isPaced = false
    private var begin: UInt64 = 0
    private var last: UInt64 = 0
    private var bytes: UInt64 = 0
    private var ended = 0

    init(least: Int) {
        self.least = least
        limit = least
    }

    /// A request of a group has brought `bytes` to the device. `isFull` tells whether as much as
    /// may be is under way there after it.
    mutating func wrote(_ bytes: UInt64, now: UInt64, isPaced: Bool, isFull: Bool) {
        let goesOn = isPaced ? isFull : now < last + Self.pause
        last = now
        guard goesOn, isPaced == self.isPaced, begin > 0 else {
            self.isPaced = isPaced
            restart(now)
            return
        }
        self.bytes += bytes
        ended += 1
        guard now >= begin + Self.span, ended >= Self.completions else { return }
        let rate = Double(self.bytes) * 1e9 / Double(now - begin)
        if isPaced {
            adjust(rate)
        } else {
            spans = min(spans + 1, Self.memory)
            alone += (rate - alone) / spans
        }
        restart(now)
    }

    private mutating func adjust(_ rate: Double) {
        guard alone > 0 else { return }
        if rate < Self.aim.lowerBound * alone {
            limit = min(max(Self.most, least), limit + 1)
        } else if rate > Self.aim.upperBound * alone {
            limit = max(least, limit - 1)
        }
    }

    private mutating func restart(_ now: UInt64) {
        begin = now
        bytes = 0
        ended = 0
    }
}
