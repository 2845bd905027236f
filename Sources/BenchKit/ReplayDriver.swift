// ReplayDriver: plays a trace against a store as an engine would use it. For each request: the
// longest prefix that is present, a get of those blocks with every byte checked, a put of the rest,
// and a touch of all of them tail first, so that a chain's head stays longest. The bytes of a block
// follow from its id, so what comes back needs no copy to be judged.

import Glibc
import Synchronization

/// What a replay counts.
package struct ReplayCounters: Equatable, Sendable {
    package var requests: UInt64 = 0
    package var blockAccesses: UInt64 = 0
    package var hitsDRAM: UInt64 = 0
    package var hitsSSD: UInt64 = 0
    package var misses: UInt64 = 0
    /// Hits with a byte that is not the payload's.
    package var wrong: UInt64 = 0
    /// Blocks of usable prefixes: hits with nothing missing before them.
    package var prefixHits: UInt64 = 0
    package var stored: UInt64 = 0
    /// Puts that found the block present.
    package var present: UInt64 = 0
    /// Puts that the store did not complete.
    package var refused: UInt64 = 0
    package var readBytes: UInt64 = 0
    package var writtenBytes: UInt64 = 0

    package init() {}

    package var prefixHitRatio: Double {
        blockAccesses == 0 ? 0 : Double(prefixHits) / Double(blockAccesses)
    }

    /// The share of hits that DRAM served.
    package var dramShare: Double {
        let hits = hitsDRAM + hitsSSD
        return hits == 0 ? 0 : Double(hitsDRAM) / Double(hits)
    }
}

/// The result of looking up all keys of a put log.
package struct LogCheck: Equatable, Sendable {
    package var keys: UInt64 = 0
    package var hits: UInt64 = 0
    package var wrong: UInt64 = 0
    package init() {}
    package var share: Double { keys == 0 ? 1 : Double(hits) / Double(keys) }
}

/// Set by SIGINT or SIGTERM: a replay ends after the request it is at.
package let replayInterrupted = Atomic<Bool>(false)

package struct ReplayDriver {
    /// Of every payload of a replay.
    package static let namespace = stableHash("replay")

    private let store: any ReplayStore
    private let blockBytes: Int
    private let log: PutLog?
    package private(set) var counters = ReplayCounters()
    private var outcomes: [ReplayOutcome] = []
    private var reversed: [UInt64] = []

    package init(store: any ReplayStore, blockBytes: Int, log: PutLog? = nil) {
        self.store = store
        self.blockBytes = blockBytes
        self.log = log
    }

    package mutating func play(_ request: borrowing TraceRequest) throws(BenchError) {
        let blocks = request.blocks
        counters.requests += 1
        counters.blockAccesses += UInt64(blocks.count)
        guard !blocks.isEmpty else { return }
        let prefix = min(blocks.count, try store.longestPrefix(blocks))
        let usable = try get(blocks[..<prefix])
        counters.prefixHits += UInt64(usable)
        try put(blocks, from: usable)
        reversed.removeAll(keepingCapacity: true)
        reversed.append(contentsOf: blocks.reversed())
        try store.touch(reversed)
        counters.misses = counters.blockAccesses - counters.hitsDRAM - counters.hitsSSD
    }

    /// Gets and checks; how many from the first on are hits with the right bytes.
    private mutating func get(_ blocks: ArraySlice<UInt64>) throws(BenchError) -> Int {
        guard !blocks.isEmpty else { return 0 }
        outcomes.removeAll(keepingCapacity: true)
        outcomes.append(contentsOf: repeatElement(.miss, count: blocks.count))
        var wrong: UInt64 = 0
        var firstWrong = blocks.count
        let size = blockBytes
        try store.get(blocks, outcomes: &outcomes) { place, bytes in
            if Self.isWrong(bytes, block: blocks[blocks.startIndex + place], size: size) {
                wrong += 1
                firstWrong = min(firstWrong, place)
            }
        }
        counters.wrong += wrong
        for outcome in outcomes where outcome != .miss {
            if outcome == .hitDRAM { counters.hitsDRAM += 1 } else { counters.hitsSSD += 1 }
            counters.readBytes += UInt64(blockBytes)
        }
        return min(firstWrong, outcomes.firstIndex(of: .miss) ?? blocks.count)
    }

    private static func isWrong(
        _ bytes: UnsafeRawBufferPointer, block: UInt64, size: Int
    ) -> Bool {
        bytes.count != size
            || Payload.firstMismatch(bytes, namespace: namespace, key: block, revision: 0) != nil
    }

    private mutating func put(_ blocks: [UInt64], from first: Int) throws(BenchError) {
        guard first < blocks.count else { return }
        let missing = blocks[first...]
        var stored: UInt64 = 0
        var present: UInt64 = 0
        let log = log
        try store.put(
            missing, parent: first > 0 ? blocks[first - 1] : nil,
            fill: { place, bytes in
                Payload.fill(
                    bytes, namespace: Self.namespace, key: missing[first + place], revision: 0)
            },
            completed: { (place, isNew) throws(BenchError) in
                if isNew { stored += 1 } else { present += 1 }
                if let log { try log.append(missing[first + place]) }
            })
        counters.stored += stored
        counters.present += present
        counters.refused += UInt64(missing.count) - stored - present
        counters.writtenBytes += stored * UInt64(blockBytes)
    }

    /// Looks up every key of a put log and checks what comes back.
    package func check(
        log keys: [UInt64], progress: (UInt64) -> Void = { _ in }
    ) throws(BenchError) -> LogCheck {
        var result = LogCheck()
        var outcomes: [ReplayOutcome] = []
        let size = blockBytes
        for start in stride(from: 0, to: keys.count, by: 64) {
            let batch = keys[start..<min(start + 64, keys.count)]
            outcomes = .init(repeating: .miss, count: batch.count)
            var wrong: UInt64 = 0
            try store.get(batch, outcomes: &outcomes) { place, bytes in
                if Self.isWrong(bytes, block: batch[start + place], size: size) { wrong += 1 }
            }
            result.keys += UInt64(batch.count)
            result.hits += UInt64(outcomes.count { $0 != .miss })
            result.wrong += wrong
            progress(result.keys)
        }
        return result
    }
}
