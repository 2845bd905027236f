// JobPlan: which block a job touches next, and how. One pass covers every block of the size once:
// in order, or in a random order that is new each pass (fio's random map). A job that is time based
// goes on with the next pass. Where the target takes fresh keys, writes never come back to one, and
// a mix reads uniformly among the keys that should still be present: the latest `units` of those
// laid out and those whose write has completed.

package struct JobPlan {
    package struct Step: Equatable {
        package var direction: BenchDirection
        package var key: UInt64
    }

    private let pattern: AccessPattern
    private let readMix: UInt64
    private let units: UInt64
    private let endless: Bool
    private let fresh: Bool
    private let freshBase: UInt64
    private let seed: UInt64
    private var random: SeededGenerator
    private var order: Permutation
    private var pass: UInt64 = 0
    private var position: UInt64 = 0
    private var readPosition: UInt64 = 0
    private var writesIssued: UInt64 = 0
    private var writesDone: UInt64 = 0
    private var doneAhead: Set<UInt64> = []

    package init(
        pattern: AccessPattern, readMix: UInt64, units: UInt64, endless: Bool, fresh: Bool,
        freshBase: UInt64, seed: UInt64
    ) {
        self.pattern = pattern
        self.readMix = readMix
        self.units = units
        self.endless = endless
        self.fresh = fresh
        self.freshBase = freshBase
        self.seed = seed
        random = SeededGenerator(seed: scrambled(seed))
        order = Permutation(count: units, seed: seed)
    }

    /// The latest writes, at most one pass of them, as numbers for `writtenKey`.
    package var writtenLately: Range<UInt64> {
        writesIssued - min(units, writesIssued)..<writesIssued
    }

    /// The key that a write job's write of this number went to.
    package func writtenKey(_ number: UInt64) -> UInt64 {
        let (pass, place) = number.quotientAndRemainder(dividingBy: max(1, units))
        let base = fresh ? freshBase + pass * units : 0
        return base + (pattern.isRandom ? order(ofPass: pass)[place] : place)
    }

    private func order(ofPass pass: UInt64) -> Permutation {
        Permutation(count: units, seed: pass == 0 ? seed : seed &+ scrambled(pass))
    }

    /// The next step; nil when the last pass is over.
    package mutating func next() -> Step? {
        if position == units {
            guard endless, units > 0 else { return nil }
            pass += 1
            position = 0
            order = order(ofPass: pass)
        }
        let place = pattern.isRandom ? order[position] : position
        position += 1
        guard pattern.isMix else {
            guard pattern.writes else { return Step(direction: .read, key: place) }
            writesIssued += 1
            let base = fresh ? freshBase + pass * units : 0
            return Step(direction: .write, key: base + place)
        }
        if random.below(100) < readMix {
            guard fresh else { return Step(direction: .read, key: place) }
            return Step(direction: .read, key: presentKey())
        }
        defer { writesIssued += 1 }
        return Step(direction: .write, key: fresh ? freshBase + writesIssued : place)
    }

    private mutating func presentKey() -> UInt64 {
        let offset: UInt64
        if pattern.isRandom {
            offset = random.below(units)
        } else {
            offset = readPosition % units
            readPosition += 1
        }
        let number = writesDone + offset
        return number < units ? number : freshBase + number - units
    }

    /// Tells of a completed write.
    package mutating func completed(_ key: UInt64) {
        guard fresh, pattern.isMix else { return }
        let number = key - freshBase
        guard number == writesDone else {
            doneAhead.insert(number)
            return
        }
        writesDone += 1
        while doneAhead.remove(writesDone) != nil { writesDone += 1 }
    }
}
