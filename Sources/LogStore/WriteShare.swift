// WriteShare: how many requests of groups a device has under way while it is read, so that a writer
// keeps half of the rate it has alone. That rate is measured while nobody reads; beside readers
// more requests go out while the writer has less than half of it, and fewer where it has more: by
// as much as it has too little or too much.
//
// Invariants: beside readers only spans count in which the device had as much to write as it may
// all the while, so a writer that asks for less than its share does not get its readers longer
// queues; until a rate alone is known the limit stays at its least.

struct WriteShare {
    /// Most requests under way, for devices that cannot give a writer its share. On the virtual
    /// disk of ARCHITECTURE.md it has half of its rate with ten to fifteen, by the hour.
    static let most = 16
    /// The share aimed at.
    static let aim = 0.54
    /// Requests that a span adds for the whole of the rate alone that it lacks: a fifth of one for
    /// a tenth. Spans differ by a fifth for no cause; a whole request for each would be a walk at
    /// random, and what the reads wait for is its upper end.
    static let gain = 2.0
    /// The least a span takes, nanoseconds, and the least completions in it.
    static let span: UInt64 = 20_000_000
    static let completions = 16
    /// A writer that pauses for longer, nanoseconds, is not measured alone over it.
    static let pause: UInt64 = 2_000_000
    /// Spans that the rate alone is the mean of: a second. Over less it is a burst's.
    static let memory = 50.0

    let least: Int
    /// Requests that groups may have under way while the device is read.
    var limit: Int { Int(level.rounded()) }
    private var level: Double
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
        level = Double(least)
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
        let next = level + Self.gain * (Self.aim - rate / alone)
        level = min(max(next, Double(least)), Double(max(Self.most, least)))
    }

    private mutating func restart(_ now: UInt64) {
        begin = now
        bytes = 0
        ended = 0
    }
}
