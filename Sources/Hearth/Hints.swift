// Hints: what an engine tells of the future. They are counted by kind now; predictors will use
// them. Any thread.

import Staging
import Synchronization

final class HintCounter: Sendable {
    private struct Counts {
        var taken = [UInt64](repeating: 0, count: HintKind.allCases.count)
        var keys: UInt64 = 0
        var refused: UInt64 = 0
    }

    private let counts = Mutex(Counts())

    func note(_ kinds: [HintKind], keys: Int, refused: Int) {
        counts.withLock { counts in
            for kind in kinds { counts.taken[Int(kind.rawValue)] += 1 }
            counts.keys += UInt64(keys)
            counts.refused += UInt64(refused)
        }
    }

    var statistics: Statistics.Hints {
        counts.withLock { counts in
            var made = Statistics.Hints()
            for kind in HintKind.allCases where counts.taken[Int(kind.rawValue)] > 0 {
                made.byKind["\(kind)"] = counts.taken[Int(kind.rawValue)]
            }
            made.keys = counts.keys
            made.refused = counts.refused
            return made
        }
    }
}

extension Store {
    /// Counts hints that were taken, the keys that came with them, and how many were refused.
    package func noteHints(_ kinds: [HintKind], keys: Int, refused: Int) {
        shared.hints.note(kinds, keys: keys, refused: refused)
    }
}
