// ModelTests: the ghosts against a dictionary and arrays, the return model against what is known
// of distributions, and the verdicts on writes.

import Staging
import Testing

@testable import Heat

@Suite struct ModelTests {
    @Test func ghostsFollowADictionary() {
        var list = GhostList(capacity: 40, queues: 2)
        var model: [[UInt64]] = [[], []]
        var tags: [UInt64: UInt32] = [:]
        var random = Random(1)
        for step in 0..<3000 {
            // Few homes, so that searches run into each other.
            let key = UInt64(random.below(90)) << 40
            let queue = random.below(2)
            switch random.below(5) {
            case 0:
                let known = list.remove(key)
                #expect((known?.tag) == tags[key], "step \(step)")
                model[0].removeAll { $0 == key }
                model[1].removeAll { $0 == key }
                tags[key] = nil
            case 1:
                list.dropOldest(queue)
                if !model[queue].isEmpty { tags[model[queue].removeFirst()] = nil }
            default:
                model[0].removeAll { $0 == key }
                model[1].removeAll { $0 == key }
                tags[key] = nil
                list.push(key, to: queue, time: UInt64(step), tag: UInt32(step))
                if model[0].count + model[1].count == 40, !model[queue].isEmpty {
                    tags[model[queue].removeFirst()] = nil
                }
                if model[0].count + model[1].count < 40 {
                    model[queue].append(key)
                    tags[key] = UInt32(step)
                }
            }
            #expect(list.count(0) == model[0].count && list.count(1) == model[1].count)
            for number in 0..<90 {
                let key = UInt64(number) << 40
                #expect(list.find(key)?.tag == tags[key], "step \(step)")
            }
        }
    }

    /// Blocks that return at a constant rate are worth that rate at any age.
    @Test func aConstantHazardIsItsWorth() {
        let model = ReturnModel(classes: 2)
        for bin in 1..<14 {
            let time = Float(1 << (bin - 1)) * 1000
            let age = UInt64(1) << UInt64(bin - 1)
            for _ in 0..<Int(time / 100) { model.returned(0, age: age) }
            model.waited(0, age: age, for: time)
        }
        model.learn()
        for age: UInt64 in [8, 64, 700] {
            #expect(abs(model.worth(0, age: age) - 0.01) < 0.004)
            #expect(abs(model.chance(0, age: age, within: 100) - 0.63) < 0.1)
        }
    }

    /// Blocks that all return after about 1,000 are worth waiting for, and more so the nearer it
    /// is; once past it they are worth nothing. Those of the other class never return.
    @Test func whatReturnsLateIsWorthWaitingFor() {
        let model = ReturnModel(classes: 2)
        for _ in 0..<5000 { model.returned(0, age: 1000) }
        for bin in 1..<20 {
            let age = UInt64(1) << UInt64(bin - 1)
            // Everybody waits through all bins up to that of 1,000, half of that one on average.
            let time = bin < 10 ? Float(age) * 5000 : bin == 10 ? 5000 * 488 : 10
            model.waited(0, age: age, for: time)
            model.waited(1, age: age, for: Float(age) * 5000)
        }
        model.learn()
        let worths = [1, 16, 256, 600].map { model.worth(0, age: $0) }
        #expect(worths == worths.sorted() && worths[0] > 5e-4)
        #expect(model.worth(0, age: 100) > 50 * model.worth(1, age: 100))
        // Within an octave returns are taken to be spread evenly in time, so one e-fold of the
        // blocks counts as left at its end.
        #expect(model.chance(0, age: 1, within: 2000) > 0.6)
        #expect(model.chance(1, age: 1, within: 2000) < 0.1)
        #expect(model.age(of: 0..<2, share: 0.5) == 1023)
    }

    @Test func theModelFollowsAChange() {
        let model = ReturnModel(classes: 2)
        func live(_ good: Int, _ rounds: Int) {
            for _ in 0..<rounds {
                for _ in 0..<50 { model.returned(good, age: 40) }
                model.waited(good, age: 40, for: 2000)
                model.waited(1 - good, age: 40, for: 2000)
                model.learn()
            }
        }
        // At ages that nobody was seen at, either class is worth what the mean of both is.
        live(0, 100)
        #expect(model.worth(0, age: 40) > 2 * model.worth(1, age: 40))
        live(1, 1500)
        #expect(model.worth(1, age: 40) > 2 * model.worth(0, age: 40))
    }

    // MARK: Writes

    @Test func verdictsOnWrites() {
        func verdict(
            _ admission: WriteAdmission, uses: UInt32 = 1, _ outlook: Outlook = .unknown,
            partial: Bool = false, leaving: Bool = false, hash: UInt64 = 0
        ) -> AdmissionVerdict {
            admission.verdict(
                keyHash: hash, uses: uses, outlook: outlook, isPartial: partial,
                isLeaving: leaving)
        }
        let insert = WriteAdmission()
        #expect(verdict(insert) == .write && verdict(insert, .returns) == .write)
        #expect(verdict(insert, .ends) == .later && verdict(insert, uses: 2, .ends) == .write)
        #expect(verdict(insert, uses: 9, partial: true) == .partial)
        let eviction = WriteAdmission(moment: .eviction)
        #expect(verdict(eviction) == .later && verdict(eviction, leaving: true) == .write)
        #expect(verdict(eviction, .ends, leaving: true) == .later)
        #expect(verdict(eviction, uses: 3) == .later)
        let second = WriteAdmission(moment: .secondTouch)
        #expect(verdict(second, .returns) == .later && verdict(second, uses: 2) == .write)
        let none = WriteAdmission(share: 0)
        #expect(verdict(none) == .overShare)
        #expect(verdict(insert, hash: .max) == .write)
    }

    /// A smaller share admits part of what a larger one does, and about as much as it says.
    @Test func sharesAreNested() {
        var random = Random(4)
        var counts = [0, 0]
        for _ in 0..<20_000 {
            let hash = random.next()
            let admitted = [13_107, 39_321].map { share in
                WriteAdmission(share: share).verdict(
                    keyHash: hash, uses: 1, outlook: .unknown, isPartial: false, isLeaving: false)
                    == .write
            }
            #expect(!admitted[0] || admitted[1])
            for place in 0..<2 where admitted[place] { counts[place] += 1 }
        }
        #expect(3800...4200 ~= counts[0] && 11_700...12_300 ~= counts[1])
    }
}
