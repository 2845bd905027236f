// Heat: what the log asks for when it decides which blocks outlive their segment. Behind the
// protocol lies, until something above the log knows better, a count in the index itself.
//
// Invariants: heat is advice; a wrong one costs a block its place, never its bytes. Owner thread.

import SegmentFormat

/// Who knows which blocks are asked for.
package protocol HeatSource: AnyObject {
    /// A block was read, or put although it was there.
    func touched(_ fingerprint: Fingerprint)
    /// How much a block is asked for: 0 (nobody came) to 15. Blocks of more heat stay longer.
    func heat(of fingerprint: Fingerprint, _ entry: IndexEntry) -> UInt8
    /// Time passes as bytes are written: `admittedBytes` is all value bytes admitted since open.
    /// Called from each turn of the log; does a bounded piece of work.
    func age(admittedBytes: UInt64)
}

/// A saturating count of four bits in each index entry, saved with it in checkpoints. A hand goes
/// round the index and halves every count once for each `halfLifeBytes` admitted, so a count is
/// what came in the last few of these, the latest weighing most.
package final class IndexHeat: HeatSource {
    private let index: BlockIndex
    /// Value bytes admitted in which a count halves.
    private let halfLifeBytes: UInt64
    private var hand = 0
    /// Buckets that the hand has passed since open.
    private var passed: UInt64 = 0
    private static let stepBuckets = 4096

    package init(index: BlockIndex, halfLifeBytes: UInt64) {
        self.index = index
        self.halfLifeBytes = max(1, halfLifeBytes)
    }

    package func touched(_ fingerprint: Fingerprint) { index.warm(fingerprint) }

    package func heat(of fingerprint: Fingerprint, _ entry: IndexEntry) -> UInt8 { entry.heat }

    package func age(admittedBytes: UInt64) {
        let rounds = Double(admittedBytes) / Double(halfLifeBytes)
        let due = UInt64(rounds * Double(index.bucketCount))
        guard due > passed else { return }
        let count = Int(min(due - passed, UInt64(Self.stepBuckets)))
        hand = index.cool(from: hand, buckets: count)
        passed += UInt64(count)
    }
}
