// What was learnt of returns, taken over by a policy, or by a table of sessions, that has seen
// nothing.

import SegmentFormat
import Staging
import Testing

@testable import Heat

@Suite struct LearntTests {
    /// Two namespaces: blocks of the first come back after a while, of the second never.
    private func taught() -> AdaptivePolicy {
        let policy = AdaptivePolicy()
        let cache = PolicyCache(policy, capacity: 64)
        for round in 0..<4000 {
            cache.use(round % 40, namespace: 3)
            cache.use(1_000_000 + round, namespace: 7)
        }
        return policy
    }

    /// Holds blocks of both by turns, the second's more recent, and tells whose leaves first.
    private func leavesFirst(
        _ policy: AdaptivePolicy, _ first: UInt16, _ second: UInt16
    ) -> UInt16 {
        for slot in 0..<Int32(16) {
            let namespace = slot < 8 ? first : second
            policy.inserted(
                slot,
                Arrival(key: key(Int(slot) + 77), bytes: 4096, namespaceSlot: namespace))
        }
        return walk(policy).first.map { $0 < 8 ? first : second } ?? .max
    }

    private func recalled(_ learnt: LearntBlocks) -> AdaptivePolicy {
        let policy = AdaptivePolicy()
        policy.resize(capacity: 64)
        policy.recall(learnt)
        return policy
    }

    @Test func aPolicyThatRecallsKnowsWhoReturns() {
        let learnt = taught().learnt
        #expect(learnt.groups.map(\.slot) == [3, 7] && learnt.classes.count >= 2)
        // By recency alone the older ones leave.
        let fresh = AdaptivePolicy()
        fresh.resize(capacity: 64)
        #expect(leavesFirst(fresh, 3, 7) == 3)
        #expect(leavesFirst(recalled(learnt), 3, 7) == 7)
        #expect(recalled(learnt).halfLife(namespaceSlot: 3) > 0)
    }

    @Test func aNamespaceThatMovedTakesItsClassesAlong() {
        var learnt = taught().learnt
        // The first is gone, the second has the first's slot.
        learnt.groups = learnt.groups.filter { $0.slot == 7 }.map { (3, $0.group) }
        let policy = recalled(learnt)
        #expect(policy.learnt.groups.map(\.slot) == [3])
        #expect(policy.learnt.groups.map(\.group) == [0])
        #expect(policy.halfLife(namespaceSlot: 3) == 0, "what never came back has no half-life")
        #expect(policy.learnt.classes.count < learnt.classes.count)
        // Others get groups of their own.
        policy.inserted(0, Arrival(key: key(1), bytes: 4096, namespaceSlot: 9))
        #expect(policy.learnt.groups.map(\.group) == [0, 1])
    }

    @Test func nonsenseIsPassedOver() {
        var learnt = taught().learnt
        let sums = [Float](repeating: .greatestFiniteMagnitude, count: 2 * ReturnModel.bins)
        learnt.groups += [(1, 16), (2, 255)]
        learnt.classes = [
            LearntReturns.Class(number: 0, sums: sums),
            LearntReturns.Class(number: 3, sums: []),
            LearntReturns.Class(number: .max, sums: sums),
        ]
        let policy = recalled(learnt)
        #expect(Set(walkAfter(policy)) == Set(0..<16))
        let numbers = policy.learnt.classes.map { Int($0.number) }
        #expect(numbers.first == 0 && numbers.allSatisfy { $0 < 256 })
        #expect(policy.learnt.classes.allSatisfy { $0.sums.allSatisfy(\.isFinite) })
        // A policy that already knows something keeps to that.
        let busy = taught()
        let before = busy.learnt
        busy.recall(learnt)
        #expect(busy.learnt == before)
        for kind in [ReplacementKind.lru, .arc, .s3fifo, .fifo] {
            let other = kind.makePolicy()
            other.resize(capacity: 4)
            other.recall(learnt)
            #expect(other.learnt == LearntBlocks())
        }
    }

    private func walkAfter(_ policy: AdaptivePolicy) -> [Int32] {
        _ = leavesFirst(policy, 3, 7)
        return walk(policy)
    }

    @Test func sessionsAreExpectedAtOnce() {
        let second: UInt64 = 1_000_000_000
        var old = SessionReturns()
        let kind = SessionReturns.kind(.toolPending, turns: 2)
        for round in 0..<320 {
            let age = UInt64(3 + round % 7) * second
            old.waited(kind, from: 0, to: age)
            old.returned(kind, age: age)
            old.heldTold(round % 4 == 0)
        }
        var new = SessionReturns()
        #expect(new.chance(kind, age: 0, within: 20 * second) == 0)
        new.recall(old.learnt, returns: old.returns, trust: old.trust)
        let (was, now) = (
            old.chance(kind, age: 0, within: 20 * second),
            new.chance(kind, age: 0, within: 20 * second)
        )
        #expect(was > 0.8 && abs(was - now) < 0.02)
        #expect(new.returns == 320 && new.trust == old.trust)
        // Once is enough; and nothing is known of nothing.
        new.recall(old.learnt, returns: 1 << 40, trust: 0)
        #expect(new.returns == 320)
        var none = SessionReturns()
        none.recall([], returns: 99, trust: 0)
        #expect(none.chance(kind, age: 0, within: 20 * second) == 0 && none.trust == 0.75)
    }
}
