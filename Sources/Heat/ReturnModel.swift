// ReturnModel: what was learnt of when blocks come back. Blocks are in classes; for each class and
// age (time since the last use, in bins of one octave) it holds how many came back at that age, and
// how much block-time was spent at it. The quotient is the hazard: the chance of a return per block
// and unit of time. `worth` of a class at an age is the most hits a unit of memory-time that
// keeping a block of it for any while can give (the index of Gittins), so a class whose blocks
// return late, but surely, is worth waiting for.
//
// Time is whatever its owner counts; ages below one unit are in bin 0. Block-time is sampled by the
// owner: blocks that are still waiting count as such, so that the model is not one of those alone
// that did return. Both sums decay alike, by which the model follows the workload.
//
// Invariants: no allocation after `init`; an event costs one addition; `learn` costs
// classes in use x bins, and belongs to many events.

import Glibc
import SegmentFormat

struct ReturnModel: ~Copyable {
    static let bins = 40
    /// Observed returns that the mean of all classes weighs as much as, in each bin.
    private static let priorReturns: Float = 10
    /// What is left of the sums after each `learn`.
    private static let decay: Float = 0.995
    /// Where so little of a class is left waiting the look ahead ends.
    private static let negligible: Float = 1e-3

    let classes: Int
    private let returns: UnsafeMutablePointer<Float>
    private let waiting: UnsafeMutablePointer<Float>
    private let worths: UnsafeMutablePointer<Float>
    private let hazards: UnsafeMutablePointer<Float>
    private let used: UnsafeMutablePointer<Bool>

    init(classes: Int) {
        self.classes = classes
        let count = classes * Self.bins
        returns = .allocate(capacity: count)
        waiting = .allocate(capacity: count)
        worths = .allocate(capacity: count)
        hazards = .allocate(capacity: count)
        used = .allocate(capacity: classes)
        returns.initialize(repeating: 0, count: count)
        waiting.initialize(repeating: 0, count: count)
        hazards.initialize(repeating: 0, count: count)
        used.initialize(repeating: false, count: classes)
        worths.initialize(repeating: 0, count: count)
        // Until something is known the more recent is worth more: plain recency.
        for place in 0..<count {
            worths[place] = exp2f(-Float(place % Self.bins))
            hazards[place] = worths[place]
        }
    }

    deinit {
        returns.deallocate()
        waiting.deallocate()
        worths.deallocate()
        hazards.deallocate()
        used.deallocate()
    }

    var bytes: Int { Self.bytes(classes: classes) }

    static func bytes(classes: Int) -> Int { classes * (bins * 16 + 1) }

    /// The bin of an age: 0 for less than 1, else one more than its whole binary logarithm.
    @inline(__always)
    static func bin(_ age: UInt64) -> Int { min(64 - age.leadingZeroBitCount, bins - 1) }

    private static func width(_ bin: Int) -> Float { bin == 0 ? 1 : exp2f(Float(bin - 1)) }

    /// A block of the class was used again at that age.
    @inline(__always)
    func returned(_ kind: Int, age: UInt64) {
        returns[kind * Self.bins + Self.bin(age)] += 1
        used[kind] = true
    }

    /// A block of the class was found waiting at that age; it stands for so much block-time.
    @inline(__always)
    func waited(_ kind: Int, age: UInt64, for time: Float) {
        waiting[kind * Self.bins + Self.bin(age)] += time
        used[kind] = true
    }

    @inline(__always)
    func worth(_ kind: Int, age: UInt64) -> Float { worths[kind * Self.bins + Self.bin(age)] }

    /// Draws the conclusions from what was observed.
    func learn() {
        withUnsafeTemporaryAllocation(of: Float.self, capacity: Self.bins) { mean in
            pool(mean)
            var unknown = -1
            for kind in 0..<classes {
                if !used[kind], unknown >= 0 {
                    copy(unknown, to: kind)
                    continue
                }
                conclude(kind, mean)
                guard used[kind] else {
                    unknown = kind
                    continue
                }
                for place in (kind * Self.bins)..<((kind + 1) * Self.bins) {
                    returns[place] *= Self.decay
                    waiting[place] *= Self.decay
                }
            }
        }
    }

    /// Classes of which nothing is known are all alike.
    private func copy(_ kind: Int, to other: Int) {
        let (from, to) = (kind * Self.bins, other * Self.bins)
        (hazards + to).update(from: hazards + from, count: Self.bins)
        (worths + to).update(from: worths + from, count: Self.bins)
    }

    /// The hazard of all classes together by age; what a bin has too little of, it takes from the
    /// one before.
    private func pool(_ mean: UnsafeMutableBufferPointer<Float>) {
        var (allReturns, allWaiting): (Float, Float) = (0, 0)
        for bin in 0..<Self.bins {
            var (came, waited): (Float, Float) = (0, 0)
            for kind in 0..<classes where used[kind] {
                came += returns[kind * Self.bins + bin]
                waited += waiting[kind * Self.bins + bin]
            }
            allReturns += came
            allWaiting += waited
            mean[bin] = came
            hazards[bin] = waited
        }
        // The first class's hazards were only borrowed: `conclude` makes them anew.
        var before = allWaiting > 0 && allReturns > 0 ? allReturns / allWaiting : 1
        for bin in 0..<Self.bins {
            before =
                (mean[bin] + Self.priorReturns)
                / (hazards[bin] + Self.priorReturns / max(before, .leastNormalMagnitude))
            before = max(before, .leastNormalMagnitude)
            mean[bin] = before
        }
    }

    private func conclude(_ kind: Int, _ mean: UnsafeMutableBufferPointer<Float>) {
        let base = kind * Self.bins
        guard used[kind] else {
            // Nothing known of it: as the mean.
            for bin in 0..<Self.bins { hazards[base + bin] = mean[bin] }
            lookAhead(base)
            return
        }
        for bin in 0..<Self.bins {
            let hazard =
                (returns[base + bin] + Self.priorReturns)
                / (waiting[base + bin] + Self.priorReturns / mean[bin])
            hazards[base + bin] = max(hazard, .leastNormalMagnitude)
        }
        lookAhead(base)
    }

    /// For each age the best quotient of expected returns and expected time, over all whiles.
    private func lookAhead(_ base: Int) {
        withUnsafeTemporaryAllocation(of: Float.self, capacity: Self.bins) { stay in
            for bin in 0..<Self.bins {
                stay[bin] = expf(-hazards[base + bin] * Self.width(bin))
            }
            for start in 0..<Self.bins {
                var (left, gained, spent, best): (Float, Float, Float, Float) = (1, 0, 0, 0)
                for bin in start..<(Self.bins - 1) {
                    let came = left * (1 - stay[bin])
                    gained += came
                    // Where hardly any return, all of them wait for the whole bin.
                    let hazard = hazards[base + bin]
                    spent += came > left * 1e-4 ? came / hazard : left * Self.width(bin)
                    left *= stay[bin]
                    best = max(best, gained / spent)
                    if left < Self.negligible { break }
                }
                worths[base + start] = max(best, start == Self.bins - 1 ? hazards[base + start] : 0)
            }
        }
    }

    // MARK: Over restarts

    /// What was observed of the classes in use.
    var learnt: [LearntReturns.Class] {
        var made: [LearntReturns.Class] = []
        for kind in 0..<classes where used[kind] {
            var sums: [Float] = []
            sums.reserveCapacity(2 * Self.bins)
            for place in (kind * Self.bins)..<((kind + 1) * Self.bins) {
                sums.append(min(returns[place], .greatestFiniteMagnitude))
                sums.append(min(waiting[place], .greatestFiniteMagnitude))
            }
            made.append(LearntReturns.Class(number: UInt16(kind), sums: sums))
        }
        return made
    }

    /// Takes over what was observed of a class; a `kind` that there is not, or other bins, are
    /// passed over. `learn` draws the conclusions.
    func recall(_ known: LearntReturns.Class, as kind: Int) {
        guard kind >= 0, kind < classes, known.sums.count == 2 * Self.bins else { return }
        for bin in 0..<Self.bins {
            returns[kind * Self.bins + bin] += known.sums[2 * bin]
            waiting[kind * Self.bins + bin] += known.sums[2 * bin + 1]
        }
        used[kind] = true
    }

    /// The chance that a block of the class that has waited for `age` returns within `time`.
    func chance(_ kind: Int, age: UInt64, within time: UInt64) -> Float {
        var left: Float = 1
        var from = age
        let end = age.addingReportingOverflow(time).overflow ? UInt64.max : age + time
        while from < end {
            let bin = Self.bin(from)
            let edge = bin == Self.bins - 1 ? UInt64.max : UInt64(1) << UInt64(bin)
            let until = min(end, edge)
            left *= expf(-hazards[kind * Self.bins + bin] * Float(until - from))
            if left < Self.negligible { break }
            from = until
        }
        return 1 - left
    }

    /// The age by which `share` of the returns of the classes have come, 0 if none came.
    func age(of classes: Range<Int>, share: Float) -> UInt64 {
        var total: Float = 0
        for kind in classes {
            for bin in 0..<Self.bins { total += returns[kind * Self.bins + bin] }
        }
        guard total > 0 else { return 0 }
        var sum: Float = 0
        for bin in 0..<Self.bins {
            for kind in classes { sum += returns[kind * Self.bins + bin] }
            if sum >= share * total { return bin == 0 ? 1 : UInt64(1) << UInt64(bin) - 1 }
        }
        return UInt64(1) << UInt64(Self.bins - 2)
    }
}
