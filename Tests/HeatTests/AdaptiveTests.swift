// AdaptiveTests: what the adaptive policy is for, each with LRU beside it on the same accesses.

import Staging
import Testing

@testable import Heat

@Suite struct AdaptiveTests {
    /// The same accesses to both; their shares of hits.
    private func compare(
        capacity: Int, _ accesses: [(block: Int, outlook: Outlook?)]
    ) -> (adaptive: Double, lru: Double) {
        let caches = [
            PolicyCache(AdaptivePolicy(), capacity: capacity),
            PolicyCache(LRUPolicy(), capacity: capacity),
        ]
        for access in accesses {
            caches[0].use(access.block, outlook: access.outlook)
            caches[1].use(access.block)
        }
        return (
            Double(caches[0].hits) / Double(accesses.count),
            Double(caches[1].hits) / Double(accesses.count)
        )
    }

    /// Chains of 8 to 40 blocks that come again after some others, tail first, or never.
    private func sessions(
        seed: UInt64, returning: Double, away: Int, count: Int
    ) -> [(block: Int, goesOn: Bool)] {
        var random = Random(seed)
        var due: [Int: [(first: Int, length: Int)]] = [:]
        var result: [(Int, Bool)] = []
        var next = 0
        for turn in 0..<count {
            var chains = due.removeValue(forKey: turn) ?? []
            if chains.isEmpty {
                chains = [(next * 1000, 8 + random.below(32))]
                next += 1
            }
            for chain in chains {
                let goesOn = random.chance(returning)
                for place in (0..<chain.length).reversed() {
                    result.append((chain.first + place, goesOn))
                }
                if goesOn {
                    let later = turn + 1 + random.below(2 * away)
                    due[later, default: []].append((chain.first, min(900, chain.length + 4)))
                }
            }
        }
        return result
    }

    @Test(arguments: [(0.3, 5), (0.3, 40), (0.9, 5), (0.9, 20), (0.97, 60)])
    func neverFarBelowLRUOnSessions(_ returning: Double, _ away: Int) {
        for capacity in [64, 600] {
            let trace = sessions(seed: 7, returning: returning, away: away, count: 2000)
            let shares = compare(capacity: capacity, trace.map { ($0.block, nil) })
            #expect(shares.adaptive >= shares.lru - 0.005, "\(returning) \(away) \(capacity)")
        }
    }

    /// Blocks that come once pass by those that return.
    @Test func resistsScans() {
        var random = Random(8)
        var scan = 1_000_000
        var accesses: [(block: Int, outlook: Outlook?)] = []
        for _ in 0..<20_000 {
            accesses.append((random.below(300), nil))
            for _ in 0..<3 {
                accesses.append((scan, nil))
                scan += 1
            }
        }
        let shares = compare(capacity: 320, accesses)
        #expect(shares.lru < 0.06)
        #expect(shares.adaptive > 0.2, "of .25 that can be had")
    }

    @Test func rightHintsHelpAndWrongOnesDoNotHurt() {
        let trace = sessions(seed: 9, returning: 0.4, away: 40, count: 3000)
        func hinted(_ wrong: Double) -> Double {
            var random = Random(10)
            let accesses = trace.map { access in
                let says = random.chance(wrong) ? !access.goesOn : access.goesOn
                return (block: access.block, outlook: says ? Outlook.returns : .ends)
            }
            return compare(capacity: 500, accesses).adaptive
        }
        let plain = compare(capacity: 500, trace.map { ($0.block, nil) })
        let (right, chance, lies) = (hinted(0), hinted(0.5), hinted(1))
        #expect(right > plain.adaptive + 0.05)
        #expect(chance > plain.lru - 0.01)
        // Who always lies tells the truth to whoever learns what his words are worth.
        #expect(lies > plain.lru - 0.01)
    }

    /// What was foretold moves a resident, never drops it.
    @Test func aHintOnlyReorders() {
        let policy = AdaptivePolicy()
        policy.resize(capacity: 8)
        for slot in 0..<Int32(8) {
            policy.inserted(slot, Arrival(key: key(Int(slot)), bytes: 1))
            policy.foretold(slot, .ends)
        }
        #expect(Set(walk(policy)) == Set(0..<8))
    }

    @Test func aChainsTailLeavesBeforeItsHead() {
        let policy = AdaptivePolicy()
        policy.resize(capacity: 12)
        // Told head first, each as what continues the one before.
        for slot in 0..<Int32(6) {
            policy.inserted(
                slot, Arrival(key: key(Int(slot)), bytes: 1, continues: slot % 3 != 0))
        }
        #expect(walk(policy) == [2, 1, 0, 5, 4, 3])
        for slot in 0..<Int32(3) { policy.touched(slot, continues: slot > 0) }
        let order = walk(policy)
        #expect(order.filter { $0 < 3 } == [2, 1, 0] && order.filter { $0 >= 3 } == [5, 4, 3])
    }

    /// Read when a request began, put when it ended, and then told in order: the head, which was
    /// used first, leaves last, and what was learnt is what it was.
    @Test func aRequestsEndRestoresTheOrderAndTeachesNothing() {
        let policy = AdaptivePolicy()
        policy.resize(capacity: 12)
        for slot in 0..<Int32(3) {
            policy.inserted(slot, Arrival(key: key(Int(slot)), bytes: 1))
        }
        for slot in 3..<Int32(6) {
            policy.inserted(slot, Arrival(key: key(Int(slot)), bytes: 1))
        }
        policy.demoted(2)
        let before = policy.halfLife(namespaceSlot: 0)
        for slot in [0, 1, 2, 4, 5] as [Int32] { policy.reordered(slot, continues: slot > 0) }
        // What was handed up stays the first to leave, and who is not in the chain is older.
        #expect(walk(policy) == [2, 3, 5, 4, 1, 0])
        #expect(policy.halfLife(namespaceSlot: 0) == before)
        policy.reordered(9, continues: false)
        #expect(walk(policy) == [2, 3, 5, 4, 1, 0])
    }

    @Test func whatIsOverItsQuotaLeavesFirst() {
        let policy = AdaptivePolicy()
        policy.resize(capacity: 30)
        policy.setShare(namespaceSlot: 2, weight: 1, quotaBytes: 500)
        for slot in 0..<Int32(10) {
            policy.inserted(slot, Arrival(key: key(Int(slot)), bytes: 100, namespaceSlot: 1))
        }
        for slot in 10..<Int32(20) {
            policy.inserted(slot, Arrival(key: key(Int(slot)), bytes: 100, namespaceSlot: 2))
        }
        var gone: [Int32] = []
        while gone.count < 6, let victim = policy.victim(after: nil) {
            gone.append(victim)
            policy.removed(victim)
        }
        // Five are over; then the oldest of all.
        #expect(gone == [10, 11, 12, 13, 14, 0])
    }

    @Test func aHeavierNamespaceStaysLonger() {
        let cache = PolicyCache(AdaptivePolicy(), capacity: 200)
        cache.policy.setShare(namespaceSlot: 1, weight: 8, quotaBytes: .max)
        var random = Random(12)
        var hits = [0, 0]
        for _ in 0..<40_000 {
            let namespace = random.below(2)
            let before = cache.hits
            cache.use(namespace * 1000 + random.below(300), namespace: UInt16(namespace))
            hits[namespace] += cache.hits - before
        }
        #expect(hits[1] > hits[0] * 3 / 2)
    }

    @Test func theHalfLifeIsLearntByNamespace() {
        let policy = AdaptivePolicy()
        let cache = PolicyCache(policy, capacity: 4000)
        #expect(policy.halfLife(namespaceSlot: 1) == 0)
        for step in 0..<40_000 {
            // One namespace comes back after 64 uses, the other after some 4096.
            cache.use(step % 32, namespace: 1)
            cache.use(10_000 + step % 2048, namespace: 2)
        }
        let (short, long) = (
            policy.halfLife(namespaceSlot: 1), policy.halfLife(namespaceSlot: 2)
        )
        #expect(64...127 ~= short && 4096...8191 ~= long)
    }
}
