// FlushLosses: which versions a failed flush may have taken. A put that was answered as `written`
// and not flushed yet cannot be failed any more; whoever asks for it to be durable is told instead.
//
// Invariants: a caller that names a version among the lost ones is told whenever it asks; of each
// loss somebody is told at least once, also by a flush of everything; the number of ranges is
// bounded, and joining two never makes a lost version look durable.

struct FlushLosses {
    private struct Loss {
        var low: UInt64
        var high: UInt64
        var isTold = false
    }

    private static let most = 16
    private var losses: [Loss] = []

    init() { losses.reserveCapacity(Self.most + 1) }

    mutating func note(_ low: UInt64, through high: UInt64) {
        guard low <= high else { return }
        losses.append(Loss(low: low, high: high))
        guard losses.count > Self.most else { return }
        losses[0].low = min(losses[0].low, losses[1].low)
        losses[0].high = max(losses[0].high, losses[1].high)
        losses[0].isTold = losses[0].isTold && losses[1].isTold
        losses.remove(at: 1)
    }

    /// Whether a flush through this version has to fail. `named`: by a version that was handed out,
    /// not "everything so far".
    mutating func tell(through version: UInt64, named: Bool) -> Bool {
        var concerns = false
        for index in losses.indices where losses[index].low <= version {
            if !losses[index].isTold || named && version <= losses[index].high { concerns = true }
            losses[index].isTold = true
        }
        return concerns
    }
}
