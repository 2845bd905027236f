// WearBudget: how much of what is put may be written, so that all bytes written, the store's own
// among them, keep to so many a day. An account gains the budget by the second and pays for every
// byte that is written; what it holds is spent over the next minute, so that what a quiet night
// has left is used by day. What is decided is a share of the keys, by their hash: ranks of one
// model come to the same blocks, and a smaller share is part of a larger one.
//
// Invariants: constant memory, no allocation; the account never holds more than a day's budget;
// with the account overdrawn by a two hundredth of it nothing is written.

package struct WearBudget: Sendable {
    package static let day: UInt32 = 86_400
    /// Seconds over which what the account holds is spent: not so long that a short burst cannot
    /// use what the hours before it have left.
    private static let spread = 60.0
    /// Seconds after which what was asked for counts for a third: while it grows, while it falls.
    private static let rising = 20.0
    private static let falling = 300.0
    private static let steps = 256.0

    package let bytesPerDay: UInt64
    /// Bytes that may be written; negative: more were than may.
    package private(set) var balance: Double
    /// Share of the keys that may be written, in 1/65536.
    package private(set) var share: UInt32 = 1 << 16
    /// Wall time up to which the account is.
    package private(set) var seconds: UInt32
    private var written: UInt64
    private var asked: UInt64 = 0
    private var admitted: UInt64
    /// Value bytes a second that were asked to be written.
    private var demand = 0.0
    /// Bytes written for each value byte admitted.
    private var amplification = 1.05

    /// `balance` as of `balanceSeconds`, as an earlier run has left it; 0 seconds: there was none,
    /// and the account begins empty, so that the first day keeps to the budget as any other.
    package init(
        bytesPerDay: UInt64, balance: Int64, balanceSeconds: UInt32, now: UInt32,
        written: UInt64 = 0, admitted: UInt64 = 0
    ) {
        self.bytesPerDay = max(1, bytesPerDay)
        let whole = Double(self.bytesPerDay)
        self.balance =
            balanceSeconds == 0 ? 0 : min(whole, max(-whole, Double(balance)))
        seconds = balanceSeconds == 0 || balanceSeconds > now ? now : balanceSeconds
        self.written = written
        self.admitted = admitted
    }

    private var perSecond: Double { Double(bytesPerDay) / Double(Self.day) }

    /// A put of so many value bytes wanted to be written.
    @inline(__always)
    package mutating func asked(_ bytes: UInt32) { asked &+= UInt64(bytes) }

    /// `written` is all bytes written since open, `admitted` the value bytes among them. Whether a
    /// second has gone by.
    @discardableResult
    package mutating func observe(written: UInt64, admitted: UInt64, now: UInt32) -> Bool {
        guard now > seconds else { return false }
        let passed = Double(now - seconds)
        seconds = now
        let bytes = Double(written &- self.written)
        balance = min(balance + perSecond * passed - bytes, Double(bytesPerDay))
        balance = max(balance, -Double(bytesPerDay))
        weigh(bytes, Double(admitted &- self.admitted))
        (self.written, self.admitted) = (written, admitted)
        let rate = Double(asked) / passed
        asked = 0
        let memory = rate > demand ? Self.rising : Self.falling
        demand += (rate - demand) * min(1, passed / memory)
        share = decided
        return true
    }

    /// Values are written some time after they were admitted: only sums tell.
    private mutating func weigh(_ bytes: Double, _ values: Double) {
        let whole = 0.05 * Double(bytesPerDay) / 24
        sums.bytes += bytes
        sums.values += values
        guard sums.values >= whole, sums.values > 0 else { return }
        amplification = min(16, max(1, sums.bytes / sums.values))
        sums.bytes /= 2
        sums.values /= 2
    }

    private var sums: (bytes: Double, values: Double) = (0, 0)

    private var decided: UInt32 {
        if balance < -Double(bytesPerDay) / 200 { return 0 }
        let allowed = perSecond + balance / Self.spread
        let wanted = demand * amplification
        if wanted <= allowed { return 1 << 16 }
        guard allowed > 0 else { return 0 }
        // In steps, so that ranks whose figures differ a little mostly come to the same.
        let step = (allowed / wanted * Self.steps).rounded(.down)
        return UInt32(step) * (1 << 16) / UInt32(Self.steps)
    }
}
