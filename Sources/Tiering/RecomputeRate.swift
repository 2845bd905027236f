// RecomputeRate: how fast the engine computes, learnt from what it tells, or else from how fast it
// puts new blocks. The second can only be too low while the engine has little to do, so the fastest
// second of the last ten minutes or so counts.
//
// Invariants: constant memory, no allocation.

package struct RecomputeRate: Sendable {
    private struct Space: Sendable {
        var slot: UInt16 = 0
        var window: UInt64 = 0
        var last: UInt64 = 0
        var count = 0
        var epoch: UInt64 = 0
        var seconds = 0
        /// Blocks a second, in this stretch of time and in the one before.
        var fastest = 0.0
        var before = 0.0
    }

    private static let windowNanoseconds: UInt64 = 1_000_000_000
    private static let epochNanoseconds: UInt64 = 600_000_000_000
    /// Windows of which a stretch must have seen that many before it replaces the one before.
    private static let enough = 8

    /// Nanoseconds a token as told, 0 for nothing told.
    private var told = 0.0
    private var spaces: InlineArray<64, Space> = .init(repeating: Space())

    package init() {}

    /// The engine has computed so many tokens in so long.
    package mutating func computed(tokens: UInt64, nanoseconds: UInt64) {
        guard tokens > 0, nanoseconds > 0 else { return }
        let one = Double(nanoseconds) / Double(tokens)
        told = told == 0 ? one : told + (one - told) / 16
    }

    /// A new block was put.
    package mutating func stored(_ slot: UInt16, now: UInt64) {
        let place = Int(slot & 63)
        if spaces[place].slot != slot || spaces[place].window == 0 {
            spaces[place] = Space()
            spaces[place].slot = slot
            spaces[place].window = max(now, 1)
            spaces[place].epoch = now
        }
        if now >= spaces[place].window + Self.windowNanoseconds { close(place, now) }
        spaces[place].count += 1
        spaces[place].last = now
    }

    private mutating func close(_ place: Int, _ now: UInt64) {
        let life = max(Self.windowNanoseconds, spaces[place].last &- spaces[place].window)
        let rate = Double(spaces[place].count) * 1e9 / Double(life)
        spaces[place].fastest = max(spaces[place].fastest, rate)
        spaces[place].seconds += 1
        spaces[place].window = now
        spaces[place].count = 0
        if now >= spaces[place].epoch + Self.epochNanoseconds,
            spaces[place].seconds >= Self.enough
        {
            spaces[place].before = spaces[place].fastest
            spaces[place].fastest = 0
            spaces[place].seconds = 0
            spaces[place].epoch = now
        }
    }

    /// Nanoseconds a token as told, 0 if nothing was.
    package var tokenNanoseconds: Double { told }

    /// Nanoseconds a block of the namespace takes, by what was put; 0 if nothing is known.
    package func blockNanoseconds(_ slot: UInt16) -> Double {
        let space = spaces[Int(slot & 63)]
        let rate = max(space.fastest, space.before)
        return space.slot == slot && rate > 0 ? 1e9 / rate : 0
    }
}
