// ModelReplayStore: a store in memory for the replay's tests: an LRU of slabs before a device that
// holds everything, and knobs for what a bad store would do.

@testable import BenchKit

final class ModelReplayStore: ReplayStore {
    private struct Node {
        var previous: Int
        var next: Int
        var block: UInt64
    }
    private let slabs: Int
    private let blockBytes: Int
    private var device: [UInt64: [UInt8]] = [:]
    /// Node 0 is the ring's anchor; its next is the most recent.
    private var nodes = [Node(previous: 0, next: 0, block: 0)]
    private var resident: [UInt64: Int] = [:]
    private var unused: [Int] = []
    private(set) var closed = false
    /// Blocks whose bytes come back with one bit wrong.
    var damaged: Set<UInt64> = []
    /// Blocks that are claimed by a lookup and then miss.
    var vanishing: Set<UInt64> = []
    /// Puts of these are not completed.
    var refused: Set<UInt64> = []

    init(slabs: Int, blockBytes: Int) {
        self.slabs = slabs
        self.blockBytes = blockBytes
    }

    private func unlink(_ index: Int) {
        nodes[nodes[index].previous].next = nodes[index].next
        nodes[nodes[index].next].previous = nodes[index].previous
    }

    private func makeRecent(_ block: UInt64) {
        let index: Int
        if let known = resident[block] {
            index = known
            unlink(index)
        } else if resident.count >= slabs {
            index = nodes[0].previous
            unlink(index)
            resident[nodes[index].block] = nil
        } else {
            index = unused.popLast() ?? nodes.count
            if index == nodes.count { nodes.append(nodes[0]) }
        }
        resident[block] = index
        nodes[index] = Node(previous: 0, next: nodes[0].next, block: block)
        nodes[nodes[0].next].previous = index
        nodes[0].next = index
    }

    func longestPrefix(_ blocks: [UInt64]) -> Int {
        blocks.firstIndex { device[$0] == nil } ?? blocks.count
    }

    func get(
        _ blocks: ArraySlice<UInt64>, outcomes: inout [ReplayOutcome],
        check: (Int, UnsafeRawBufferPointer) -> Void
    ) {
        for (place, block) in blocks.enumerated() {
            guard device[block] != nil, !vanishing.contains(block) else { continue }
            outcomes[place] = resident[block] != nil ? .hitDRAM : .hitSSD
        }
        for (place, block) in blocks.enumerated() where outcomes[place] != .miss {
            guard var value = device[block] else { continue }
            if damaged.contains(block) { value[value.count / 2] ^= 4 }
            value.withUnsafeBytes { check(place, $0) }
            makeRecent(block)
        }
    }

    func put(
        _ blocks: ArraySlice<UInt64>, parent: UInt64?,
        fill: (Int, UnsafeMutableRawBufferPointer) -> Void,
        completed: (Int, Bool) throws(BenchError) -> Void
    ) throws(BenchError) {
        for (place, block) in blocks.enumerated() where !refused.contains(block) {
            let isNew = device[block] == nil
            if isNew {
                var value = [UInt8](repeating: 0, count: blockBytes)
                value.withUnsafeMutableBytes { fill(place, $0) }
                device[block] = value
                makeRecent(block)
            }
            try completed(place, isNew)
        }
    }

    func touch(_ blocks: [UInt64]) {
        for block in blocks where resident[block] != nil { makeRecent(block) }
    }

    var deviceBytesWritten: UInt64 { UInt64(device.count * blockBytes) }
    var footprint: [String] { ["model: nothing"] }
    var statistics: JSONValue { .object([("resident", .integer(Int64(resident.count)))]) }
    func close() { closed = true }
}
