// How long a block stays in staging, from what leaves it: at a steady rate as long as the bytes
// take to leave, of a burst only its share of the last seconds, and for ever where nothing leaves.

import Testing

@testable import Prefetch

@Suite struct StagingTurnoverTests {
    private static let second: UInt64 = 1_000_000_000
    private static let bytes = 1 << 30

    /// So many seconds in which so many bytes leave in each, after what was before.
    private func observe(
        _ turnover: inout StagingTurnover, _ total: inout UInt64, _ now: inout UInt64,
        seconds: Int, rate: UInt64
    ) {
        for _ in 0..<seconds {
            total += rate
            now += Self.second
            turnover.observe(evicted: total, now: now)
        }
    }

    @Test func whereNothingLeavesBlocksStayForEver() {
        var turnover = StagingTurnover()
        #expect(turnover.stay(bytes: Self.bytes) == StagingTurnover.longest)
        var (total, now): (UInt64, UInt64) = (0, 1_000_000 * Self.second)
        observe(&turnover, &total, &now, seconds: 100, rate: 0)
        #expect(turnover.stay(bytes: Self.bytes) == StagingTurnover.longest)
        #expect(turnover.stay(bytes: 0) == 0)
    }

    @Test func atASteadyRateAsLongAsItsBytesTake() {
        var turnover = StagingTurnover()
        var (total, now): (UInt64, UInt64) = (0, 1_000_000 * Self.second)
        observe(&turnover, &total, &now, seconds: 200, rate: 1 << 26)
        let stay = Double(turnover.stay(bytes: Self.bytes)) / 1e9
        #expect(stay > 15.9 && stay < 16.1, "a GiB at 64 MiB a second")
        // Half as much room, half as long; and it is forgotten in a minute or two.
        let half = Double(turnover.stay(bytes: Self.bytes / 2)) / 1e9
        #expect(half > 7.9 && half < 8.1)
        observe(&turnover, &total, &now, seconds: 200, rate: 0)
        #expect(turnover.stay(bytes: Self.bytes) > 10_000 * Self.second)
    }

    @Test func aBurstCountsForItsShare() {
        var turnover = StagingTurnover()
        var (total, now): (UInt64, UInt64) = (0, 1_000_000 * Self.second)
        observe(&turnover, &total, &now, seconds: 100, rate: 0)
        observe(&turnover, &total, &now, seconds: 1, rate: UInt64(Self.bytes))
        let stay = Double(turnover.stay(bytes: Self.bytes)) / 1e9
        #expect(stay > 15 && stay < 17, "a GiB in one second of the last sixteen")
    }

    @Test func looksInTheSameSecondAreOne() {
        var (often, seldom) = (StagingTurnover(), StagingTurnover())
        var now = 1_000_000 * Self.second
        var total: UInt64 = 0
        for turn in 1...40_000 {
            now += Self.second / 1000
            total += 1 << 16
            often.observe(evicted: total, now: now)
            if turn % 1000 == 0 { seldom.observe(evicted: total, now: now) }
        }
        let pair = (often.stay(bytes: Self.bytes), seldom.stay(bytes: Self.bytes))
        #expect(pair.0 > pair.1 - pair.1 / 10 && pair.0 < pair.1 + pair.1 / 10)
    }
}
