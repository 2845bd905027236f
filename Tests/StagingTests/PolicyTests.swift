// PolicyTests: LRU order against an array, chains, and the touch queue.

import Glibc
import Synchronization
import Testing

@testable import Staging

@Suite struct PolicyTests {
    private func order(_ policy: LRUPolicy) -> [Int32] {
        var result: [Int32] = []
        while let next = policy.victim(after: result.last) { result.append(next) }
        return result
    }

    @Test func orderFollowsAnArray() {
        let policy = LRUPolicy()
        policy.resize(capacity: 20)
        var model: [Int32] = []
        var latest: Int32?
        var random = Random(1)
        for _ in 0..<5000 {
            let slot = Int32(random.below(20))
            let held = model.contains(slot)
            if slot == latest { latest = nil }
            switch random.below(6) {
            case 0 where !held:
                policy.inserted(slot, Arrival(key: key(Int(slot)), bytes: 1))
                model.append(slot)
                latest = slot
            case 1:
                policy.removed(slot)
                model.removeAll { $0 == slot }
            case 2:
                policy.demoted(slot)
                if held { model = [slot] + model.filter { $0 != slot } }
            case 3:
                policy.touched(slot, continues: true)
                guard held else { break }
                model.removeAll { $0 == slot }
                let place = latest.flatMap { model.firstIndex(of: $0) } ?? model.count
                model.insert(slot, at: place)
                latest = slot
            default:
                policy.touched(slot)
                guard held else { break }
                model = model.filter { $0 != slot } + [slot]
                latest = slot
            }
            #expect(order(policy) == model)
        }
    }

    @Test func aChainsHeadEndsMostRecent() {
        let policy = LRUPolicy()
        policy.resize(capacity: 8)
        for slot in 0..<Int32(8) { policy.inserted(slot, Arrival(key: key(Int(slot)), bytes: 1)) }
        let chain: [Int32] = [1, 3, 5]
        chain.withUnsafeBufferPointer { policy.touchChain($0) }
        #expect(order(policy) == [0, 2, 4, 6, 7, 5, 3, 1])
        // The same, told head first by who knows only that they follow each other.
        for slot in [2, 4, 6] as [Int32] { policy.touched(slot, continues: slot != 2) }
        #expect(order(policy) == [0, 7, 5, 3, 1, 6, 4, 2])
        for slot in [0, 5, 6] as [Int32] { policy.reordered(slot, continues: slot != 0) }
        #expect(order(policy) == [7, 3, 1, 4, 2, 6, 5, 0])
    }

    @Test func touchesKeepTheirOrderAndTheirBound() {
        let queue = TouchQueue(bound: 10)
        var buffer = queue.makeBuffer()
        for number in 0..<12 { #expect(queue.push(key(number)) == (number < 10)) }
        #expect(queue.dropped == 2)
        queue.drain(into: &buffer)
        #expect(buffer == (0..<10).map(key))
        let batch = (0..<7).map(key)
        #expect(batch.withUnsafeBufferPointer { queue.push($0) } == 7)
        #expect(batch.withUnsafeBufferPointer { queue.push($0) } == 3)
        #expect(queue.dropped == 6)
        queue.drain(into: &buffer)
        #expect(buffer == (batch + batch[0..<3]))
        queue.drain(into: &buffer)
        #expect(buffer.isEmpty && queue.count == 0)
    }

    @Test func touchesOfManyThreadsAllArriveInEachThreadsOrder() {
        let queue = TouchQueue(bound: 1 << 16)
        let threads = (0..<4).map { thread in
            startThread {
                for number in 0..<5000 {
                    queue.push(StagingKey(hi: UInt64(thread), lo: UInt64(number)))
                }
            }
        }
        var buffer = queue.makeBuffer()
        var next = [UInt64](repeating: 0, count: 4)
        var ordered = true
        let limit = now() + 30
        while next.reduce(0, +) < 20_000 && now() < limit {
            queue.drain(into: &buffer)
            for touch in buffer {
                ordered = ordered && next[Int(touch.hi)] == touch.lo
                next[Int(touch.hi)] = touch.lo + 1
            }
        }
        for thread in threads { pthread_join(thread, nil) }
        #expect(ordered && next == [5000, 5000, 5000, 5000] && queue.dropped == 0)
    }
}
