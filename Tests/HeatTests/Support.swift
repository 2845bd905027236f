// Support: seeded chance, keys, and a cache of one-slot blocks over any policy.

import Staging

@testable import Heat

struct Random {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
    mutating func chance(_ share: Double) -> Bool { Double(next() >> 11) * 0x1p-53 < share }
}

func key(_ number: Int) -> StagingKey {
    var random = Random(UInt64(number))
    return StagingKey(hi: UInt64(number), lo: random.next())
}

/// The candidates of a whole walk, coldest first.
func walk(_ policy: any ReplacementPolicy) -> [Int32] {
    var order: [Int32] = []
    while let next = policy.victim(after: order.last) { order.append(next) }
    return order
}

/// A cache of `capacity` blocks that does what its policy says.
final class PolicyCache {
    let policy: any ReplacementPolicy
    let capacity: Int
    private(set) var slots: [Int: Int32] = [:]
    /// By slot.
    private var blocks: [Int]
    private var free: [Int32]
    private(set) var hits = 0
    private(set) var accesses = 0

    init(_ policy: any ReplacementPolicy, capacity: Int) {
        self.policy = policy
        self.capacity = capacity
        blocks = Array(repeating: -1, count: capacity)
        free = (0..<Int32(capacity)).reversed()
        policy.resize(capacity: capacity)
    }

    /// Uses a block; returns what had to go for it.
    @discardableResult
    func use(
        _ block: Int, namespace: UInt16 = 0, continues: Bool = false, outlook: Outlook? = nil
    ) -> Int? {
        accesses += 1
        var gone: Int?
        if let slot = slots[block] {
            hits += 1
            policy.touched(slot, continues: continues)
        } else {
            if free.isEmpty { gone = evict(for: block) }
            if let slot = free.popLast() {
                slots[block] = slot
                blocks[Int(slot)] = block
                policy.inserted(
                    slot,
                    Arrival(
                        key: key(block), bytes: 1, namespaceSlot: namespace, continues: continues))
            }
        }
        if let outlook, let slot = slots[block] { policy.foretold(slot, outlook) }
        return gone
    }

    private func evict(for block: Int) -> Int? {
        policy.expects(key(block))
        guard let victim = policy.victim(after: nil) else { return nil }
        let gone = blocks[Int(victim)]
        policy.removed(victim)
        slots[gone] = nil
        free.append(victim)
        return gone
    }
}
