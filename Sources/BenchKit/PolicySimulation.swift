// PolicySimulation: plays a trace against a replacement policy alone: the very class that staging
// uses, with blocks of one size and no store. A hit counts for the prefix when all blocks before it
// hit, as known when the request comes; then the request's blocks are used tail first, so that the
// head of the chain is the most recent.

import Heat
import Staging

/// What can be simulated: the store's policies, and Belady's, which knows the future.
package enum PolicyChoice: String, CaseIterable, Sendable {
    case adaptive
    case lru
    case arc
    case s3fifo
    case fifo
    case belady

    var kind: ReplacementKind? { ReplacementKind(rawValue: rawValue) }
}

package struct PolicyResult: Equatable, Sendable {
    package var blockHits = 0
    package var prefixHits = 0
    package var insertions = 0
    package init() {}
}

package struct PolicySimulation {
    private let trace: TraceTable
    private let capacity: Int
    /// For each request whether its session is said to go on; nil: nothing is said.
    private let foretold: [Bool]?

    package init(_ trace: TraceTable, capacity: Int, foretold: [Bool]? = nil) {
        self.trace = trace
        self.capacity = max(1, capacity)
        self.foretold = foretold
    }

    package func run(_ choice: PolicyChoice) -> PolicyResult {
        choice.kind.map { run($0.makePolicy()) } ?? runBelady()
    }

    package static func key(_ block: Int32) -> StagingKey {
        StagingKey(hi: UInt64(block), lo: scrambled(UInt64(block)))
    }

    package func run(_ policy: any ReplacementPolicy) -> PolicyResult {
        var result = PolicyResult()
        policy.resize(capacity: capacity)
        var slots = [Int32](repeating: -1, count: trace.unique)
        var held = [Int32](repeating: -1, count: capacity)
        var count = 0
        for request in 0..<trace.requests {
            let range = trace.accesses(of: request)
            countHits(range, &result) { slots[Int($0)] >= 0 }
            for access in range.reversed() {
                let block = trace.blocks[access]
                var slot = slots[Int(block)]
                if slot >= 0 {
                    policy.touched(slot)
                } else {
                    slot = Int32(count)
                    if count == capacity {
                        policy.expects(Self.key(block))
                        guard let victim = policy.victim(after: nil) else { continue }
                        policy.removed(victim)
                        slots[Int(held[Int(victim)])] = -1
                        slot = victim
                    } else {
                        count += 1
                    }
                    policy.inserted(slot, Arrival(key: Self.key(block), bytes: 1))
                    slots[Int(block)] = slot
                    held[Int(slot)] = block
                    result.insertions += 1
                }
                if let foretold { policy.foretold(slot, foretold[request] ? .returns : .ends) }
            }
        }
        return result
    }

    @inline(__always)
    private func countHits(
        _ range: Range<Int>, _ result: inout PolicyResult, _ isHeld: (Int32) -> Bool
    ) {
        var isPrefix = true
        for access in range {
            let hit = isHeld(trace.blocks[access])
            result.blockHits += hit ? 1 : 0
            isPrefix = isPrefix && hit
            result.prefixHits += isPrefix ? 1 : 0
        }
    }

    // MARK: Belady

    /// What is read again last leaves first; of one request the deeper block. A block that would
    /// be the next to leave does not come in.
    private func runBelady() -> PolicyResult {
        var result = PolicyResult()
        var isHeld = [Bool](repeating: false, count: trace.unique)
        var wanted = [UInt64](repeating: 0, count: trace.unique)
        var heap = FurthestHeap()
        var count = 0
        for request in 0..<trace.requests {
            let range = trace.accesses(of: request)
            countHits(range, &result) { isHeld[Int($0)] }
            for access in range.reversed() {
                let block = trace.blocks[access]
                let next =
                    UInt64(trace.nextRequest[access]) << 24 + UInt64(access - range.lowerBound)
                wanted[Int(block)] = next
                heap.push(next, block)
                guard !isHeld[Int(block)] else { continue }
                isHeld[Int(block)] = true
                result.insertions += 1
                count += 1
                while count > capacity, let (time, victim) = heap.pop() {
                    // Entries of earlier uses are passed over.
                    guard isHeld[Int(victim)], wanted[Int(victim)] == time else { continue }
                    isHeld[Int(victim)] = false
                    count -= 1
                    if victim == block { result.insertions -= 1 }
                }
            }
        }
        return result
    }
}

/// A binary heap of the largest time.
struct FurthestHeap {
    private var entries: [(time: UInt64, block: Int32)] = []

    mutating func push(_ time: UInt64, _ block: Int32) {
        var place = entries.count
        entries.append((time, block))
        while place > 0 {
            let parent = (place - 1) / 2
            if entries[parent].time >= time { break }
            entries[place] = entries[parent]
            place = parent
        }
        entries[place] = (time, block)
    }

    mutating func pop() -> (time: UInt64, block: Int32)? {
        guard let top = entries.first, let last = entries.popLast() else { return nil }
        guard !entries.isEmpty else { return top }
        var place = 0
        while true {
            var child = 2 * place + 1
            guard child < entries.count else { break }
            if child + 1 < entries.count, entries[child + 1].time > entries[child].time {
                child += 1
            }
            if entries[child].time <= last.time { break }
            entries[place] = entries[child]
            place = child
        }
        entries[place] = last
        return top
    }
}
