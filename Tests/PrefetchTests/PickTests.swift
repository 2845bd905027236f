// PickTests: scores of picked parts beside a plain model, the threshold that follows what is
// missed, and the clock of layers.

import Testing

@testable import Prefetch

@Suite struct PickTests {
    private struct Random {
        var state: UInt64
        mutating func below(_ limit: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int((state >> 33) % UInt64(limit))
        }
    }

    @Test func scoresAreThoseOfAPlainModel() {
        var table = PickTable(entries: 4096, budget: 1)
        defer { table.deallocate() }
        var random = Random(state: 3)
        var model = [Double](repeating: 0, count: 200)
        for step in 1..<400 {
            for number in model.indices { model[number] *= Double(PickTable.decay) }
            for number in Set((0..<20).map { _ in random.below(200) }) {
                model[number] += 1 - Double(PickTable.decay)
                table.picked(UInt64(number + 1) &* 0x1234_5678_9ABC_DEF1, step: UInt32(step))
            }
            for number in model.indices {
                let score = table.score(
                    UInt64(number + 1) &* 0x1234_5678_9ABC_DEF1, step: UInt32(step))
                #expect(abs(Double(score) - model[number]) < 1e-3)
            }
        }
    }

    @Test func asMuchIsBroughtAsIsMissed() {
        for budget in [0.5, 1.0, 2.0] {
            var table = PickTable(entries: 4096, budget: budget)
            defer { table.deallocate() }
            var random = Random(state: 4)
            var (brought, missed) = (0, 0)
            for step in 0..<3000 {
                for _ in 0..<10 {
                    // Small numbers are picked more often than large ones.
                    let number = random.below(1 + random.below(500))
                    table.picked(UInt64(number + 1), step: UInt32(step))
                }
                for _ in 0..<60 {
                    let tag = UInt64(random.below(500) + 1)
                    guard table.isWorth(tag, step: UInt32(step), ahead: 1) else { continue }
                    table.brought()
                    if step >= 1000 { brought += 1 }
                }
                for _ in 0..<8 {
                    table.missed()
                    if step >= 1000 { missed += 1 }
                }
            }
            let ratio = Double(brought) / Double(missed)
            #expect(ratio > 0.9 * budget && ratio < 1.1 * budget, "\(ratio) for \(budget)")
        }
    }

    @Test func aFloodKeepsToTheTable() {
        var table = PickTable(entries: 64, budget: 1)
        defer { table.deallocate() }
        for number in 0..<10_000 {
            table.picked(UInt64(number) &* 0x9E37_79B9_7F4A_7C15, step: UInt32(number / 10))
        }
        #expect(table.score(9999 &* 0x9E37_79B9_7F4A_7C15, step: 1000) > 0)
        #expect(table.threshold > 0)
    }

    @Test func theClockTellsLayersAndTheirTime() {
        var clock = LayerClock()
        defer { clock.deallocate() }
        #expect(clock.progress(7, step: 1, layer: 0, now: 1000) == nil)
        #expect(clock.progress(7, step: 1, layer: 0, now: 1500) == nil)
        #expect(clock.progress(7, step: 1, layer: 1, now: 2500) == 0)
        #expect(clock.layerTime == 1000)
        #expect(clock.distance(7, step: 1, layer: 5) == 4)
        #expect(clock.distance(7, step: 2, layer: 5) == 1)
        #expect(clock.distance(8, step: 1, layer: 5) == 1)
        #expect(clock.distance(7, step: 1, layer: .max) == 64)
        // The next step, and a pause: neither is a layer's time.
        #expect(clock.progress(7, step: 2, layer: 0, now: 9_000_000_000) == 1)
        #expect(clock.progress(7, step: 2, layer: 1, now: 19_000_000_000) == 0)
        #expect(clock.layerTime == 1000)
        clock.forget(7)
        #expect(clock.progress(7, step: 2, layer: 3, now: 19_000_001_000) == nil)
        for request in 0..<10_000 {
            _ = clock.progress(UInt64(request), step: .max, layer: .max, now: .max)
        }
    }
}
