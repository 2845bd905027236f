// PickTable: how often each part was picked lately, and whether a part that the layer before
// makes likely is worth bringing. Scores decay by step; a part is worth it if its score is at
// least a threshold, which follows what was brought and what was missed, so that about as much is
// brought as is missed (times a budget), whatever picks are like.
//
// A table of fixed size by hash, in which newer ones overwrite what has decayed further.

package struct PickTable {
    private struct Pick {
        var tag: UInt64 = 0
        var score: Float = 0
        var step: UInt32 = 0
    }

    /// What is left of a score after a step.
    static let decay: Float = 0.9
    /// How much one part more, brought or missed, moves the threshold.
    private static let rate: Float = 0.0025
    private static let bounds: (least: Float, most: Float) = (1e-6, 1)
    private static let ways = 4

    private let picks: UnsafeMutablePointer<Pick>
    private let sets: Int
    private let budget: Float
    package private(set) var threshold: Float = 0.1
    /// Powers of the decay, so that none is computed.
    private let powers: UnsafeMutablePointer<Float>
    private static let longestPower = 128

    package init(entries: Int, budget: Double) {
        sets = max(1, entries / Self.ways)
        picks = .allocate(capacity: sets * Self.ways)
        picks.initialize(repeating: Pick(), count: sets * Self.ways)
        powers = .allocate(capacity: Self.longestPower)
        var power: Float = 1
        for index in 0..<Self.longestPower {
            (powers + index).initialize(to: power)
            power *= Self.decay
        }
        self.budget = Float(budget)
    }

    package func deallocate() {
        picks.deallocate()
        powers.deallocate()
    }

    package static func memoryBytes(entries: Int) -> Int {
        max(1, entries / ways) * ways * MemoryLayout<Pick>.stride + longestPower * 4
    }

    private func decayed(_ pick: Pick, _ step: UInt32) -> Float {
        let steps = Int(step &- pick.step)
        return steps < Self.longestPower ? pick.score * powers[steps] : 0
    }

    private func first(_ tag: UInt64) -> Int {
        Int((tag &* 0x9E37_79B9_7F4A_7C15).multipliedFullWidth(by: UInt64(sets)).high) * Self.ways
    }

    /// The part was picked in that step.
    package mutating func picked(_ tag: UInt64, step: UInt32) {
        let first = first(tag)
        var (place, least) = (first, Float.infinity)
        for index in first..<(first + Self.ways) {
            if picks[index].tag == tag {
                picks[index].score = decayed(picks[index], step) + 1 - Self.decay
                picks[index].step = step
                return
            }
            let score = decayed(picks[index], step)
            if score < least { (place, least) = (index, score) }
        }
        picks[place] = Pick(tag: tag, score: 1 - Self.decay, step: step)
    }

    package func score(_ tag: UInt64, step: UInt32) -> Float {
        let first = first(tag)
        for index in first..<(first + Self.ways) where picks[index].tag == tag {
            return decayed(picks[index], step)
        }
        return 0
    }

    /// Whether a part is worth bringing so many layers ahead.
    package func isWorth(_ tag: UInt64, step: UInt32, ahead: Int) -> Bool {
        var score = score(tag, step: step)
        // Picks of layers further apart have less to do with each other.
        for _ in 1..<max(1, ahead) { score *= 0.6 }
        return score >= threshold
    }

    package mutating func brought() {
        threshold = min(Self.bounds.most, threshold * (1 + Self.rate))
    }

    package mutating func missed() {
        threshold = max(Self.bounds.least, threshold * (1 - Self.rate * budget))
    }
}
