// PolicyTests: what every policy promises the arena, and each policy against a plain model of it.

import Staging
import Testing

@testable import Heat

@Suite struct PolicyTests {
    /// Random calls: every walk meets each held slot once and nobody else, what was demoted last
    /// comes first, and nothing that is not held disturbs.
    @Test(arguments: ReplacementKind.allCases)
    func aWalkMeetsEverySlotOnce(_ kind: ReplacementKind) {
        let policy = kind.makePolicy()
        policy.resize(capacity: 24)
        var held: Set<Int32> = []
        var random = Random(11)
        for step in 0..<6000 {
            let slot = Int32(random.below(24))
            switch random.below(8) {
            case 0...2 where !held.contains(slot):
                let number = random.below(60)
                policy.expects(key(number))
                policy.inserted(
                    slot,
                    Arrival(
                        key: key(100 * Int(slot) + number), bytes: 1 + number,
                        namespaceSlot: UInt16(number % 20), isPrefetched: number % 7 == 0,
                        continues: number % 3 == 0))
                held.insert(slot)
            case 3:
                policy.removed(slot)
                held.remove(slot)
            case 4:
                policy.demoted(slot)
                if held.contains(slot) { #expect(policy.victim(after: nil) == slot) }
            case 5: policy.foretold(slot, Outlook.allCases[random.below(3)])
            default: policy.touched(slot, continues: random.below(2) == 0)
            }
            let order = walk(policy)
            #expect(order.count == held.count && Set(order) == held, "\(kind) step \(step)")
        }
        #expect(policy.memoryBytes > 0 && policy.memoryBytes < 1 << 20)
    }

    /// The walk goes on rightly when what it has given leaves meanwhile, as the arena does.
    @Test(arguments: ReplacementKind.allCases)
    func victimsLeaveDuringTheWalk(_ kind: ReplacementKind) {
        let policy = kind.makePolicy()
        policy.resize(capacity: 40)
        for slot in 0..<Int32(40) {
            policy.inserted(slot, Arrival(key: key(Int(slot)), bytes: 1))
            if slot % 3 == 0 { policy.touched(slot) }
        }
        var seen: [Int32] = []
        var candidate = policy.victim(after: nil)
        while let victim = candidate {
            seen.append(victim)
            candidate = policy.victim(after: victim)
            if victim % 2 == 0 { policy.removed(victim) }
        }
        #expect(Set(seen) == Set(0..<40) && seen.count == 40)
        #expect(Set(walk(policy)) == Set((0..<40).filter { $0 % 2 == 1 }))
    }

    @Test func firstInFirstOut() {
        let cache = PolicyCache(FIFOPolicy(), capacity: 10)
        var model: [Int] = []
        var random = Random(3)
        for _ in 0..<4000 {
            let block = random.below(25)
            let expected = model.contains(block) || model.count < 10 ? nil : model.removeFirst()
            if !model.contains(block) { model.append(block) }
            #expect(cache.use(block) == expected)
        }
    }

    @Test func adaptiveReplacementAsPublished() {
        let cache = PolicyCache(ARCPolicy(), capacity: 16)
        var model = PlainARC(16)
        var random = Random(5)
        for step in 0..<12_000 {
            // Phases: few blocks often, then a scan, then a loop a little too long.
            let block: Int
            switch step / 500 % 3 {
            case 0: block = random.below(12) * random.below(3)
            case 1: block = 1000 + step
            default: block = 100 + step % 20
            }
            #expect(cache.use(block) == model.use(block), "step \(step)")
            if step % 97 == 0 { #expect(Set(cache.slots.keys) == Set(model.once + model.often)) }
        }
        #expect(model.bothWays, "the target moved up and down")
    }

    @Test func threeQueuesAsPublished() {
        let cache = PolicyCache(S3FIFOPolicy(), capacity: 100)
        var model = PlainS3FIFO(100)
        var random = Random(6)
        for step in 0..<30_000 {
            // What is asked for often changes every 500 steps.
            let hot = 100_000 + step / 500 * 100 + random.below(10) * random.below(10)
            let block = step % 4 == 0 ? 1000 + step : hot
            #expect(cache.use(block) == model.use(block), "step \(step)")
        }
        #expect(model.promotions > 100, "\(model.promotions)")
        #expect(model.ghostReturns > 100, "\(model.ghostReturns)")
    }
}

/// ARC over arrays, newest last.
private struct PlainARC {
    let size: Int
    var once: [Int] = []
    var often: [Int] = []
    var onceGhosts: [Int] = []
    var oftenGhosts: [Int] = []
    var target = 0.0
    var moves: Set<Bool> = []
    var bothWays: Bool { moves.count == 2 }

    init(_ size: Int) { self.size = size }

    mutating func use(_ block: Int) -> Int? {
        if once.contains(block) || often.contains(block) {
            once.removeAll { $0 == block }
            often.removeAll { $0 == block }
            often.append(block)
            return nil
        }
        var gone: Int?
        if onceGhosts.contains(block) {
            let (b1, b2) = (Double(onceGhosts.count), Double(oftenGhosts.count))
            target = min(Double(size), target + (b1 >= b2 ? 1 : b2 / b1))
            moves.insert(true)
            gone = replace(false)
            onceGhosts.removeAll { $0 == block }
            often.append(block)
        } else if oftenGhosts.contains(block) {
            let (b1, b2) = (Double(onceGhosts.count), Double(oftenGhosts.count))
            target = max(0, target - (b2 >= b1 ? 1 : b1 / b2))
            moves.insert(false)
            gone = replace(true)
            oftenGhosts.removeAll { $0 == block }
            often.append(block)
        } else {
            if once.count + onceGhosts.count >= size {
                if once.count < size {
                    onceGhosts.removeFirst()
                    if once.count + often.count >= size { gone = replace(false) }
                } else {
                    gone = once.removeFirst()
                }
            } else if once.count + often.count >= size {
                if once.count + often.count + onceGhosts.count + oftenGhosts.count >= 2 * size {
                    oftenGhosts.removeFirst()
                }
                gone = replace(false)
            }
            once.append(block)
        }
        return gone
    }

    private mutating func replace(_ wasOften: Bool) -> Int? {
        guard once.count + often.count >= size else { return nil }
        let isOver =
            Double(once.count) > target || wasOften && !once.isEmpty && once.count == Int(target)
        if !once.isEmpty, isOver || often.isEmpty {
            onceGhosts.append(once.removeFirst())
            return onceGhosts.last
        }
        oftenGhosts.append(often.removeFirst())
        return oftenGhosts.last
    }
}

/// S3-FIFO over arrays, newest last.
private struct PlainS3FIFO {
    let size: Int
    var small: [Int] = []
    var main: [Int] = []
    var ghosts: [Int] = []
    var uses: [Int: Int] = [:]
    var promotions = 0
    var ghostReturns = 0

    init(_ size: Int) { self.size = size }

    mutating func use(_ block: Int) -> Int? {
        if small.contains(block) || main.contains(block) {
            uses[block] = min(3, uses[block, default: 0] + 1)
            return nil
        }
        var gone: Int?
        while small.count + main.count >= size, gone == nil { gone = evict() }
        uses[block] = 0
        if let place = ghosts.firstIndex(of: block) {
            ghosts.remove(at: place)
            ghostReturns += 1
            main.append(block)
        } else {
            small.append(block)
        }
        return gone
    }

    private mutating func evict() -> Int? {
        if small.count >= size / 10 || main.isEmpty, !small.isEmpty {
            let block = small.removeFirst()
            if uses[block, default: 0] > 1 {
                uses[block] = 0
                promotions += 1
                main.append(block)
                return nil
            }
            ghosts.append(block)
            if ghosts.count > size - size / 10 { ghosts.removeFirst() }
            return block
        }
        let block = main.removeFirst()
        guard uses[block, default: 0] > 0 else { return block }
        uses[block, default: 0] -= 1
        main.append(block)
        return nil
    }
}
