// ResidentReader: finds, pins and copies residents from any thread and, over inherited or received
// descriptors, from any process. It takes no lock, makes no system call and waits for nobody: each
// loop is bounded, and a lost race is a miss. `pin` writes to the table; `copy`, `contains` and
// `look` only read it, so that a process that may be killed at any time, or has it mapped
// read-only, uses those.

import BlockIO
import Synchronization

/// A pinned resident: its bytes stay where they are until `unpin`, given back exactly once.
package struct PinnedBlock: Sendable {
    package let info: ResidentInfo
    package let slot: ResidentSlot
    package let isLease: Bool
    let generation: UInt32
    let firstSlab: Int32
}

/// A resident as somebody who passes by sees it.
package struct ResidentSight: Sendable {
    package let info: ResidentInfo
    package let state: ResidentState
    /// Readers that copy from it now, and leases that are held on it.
    package let pins: Int
    package let leases: Int
}

package struct ResidentReader: @unchecked Sendable {
    // Unchecked: the two mappings are kept alive by `keepers` (or by whoever opened them, for the
    // reader's life), are never moved, and are read by atomic words under the table's protocol;
    // slab bytes are only trusted while pinned or after the generation was found unchanged.

    private let table: ResidentTable
    package let arenaBase: UnsafeRawPointer
    private let keepers: (table: SharedMapping, arena: SharedMapping)?

    /// Attempts to pin or copy a block that moves under the reader before it is called a miss.
    private static let attempts = 8

    init(table: ResidentTable, keepers: (table: SharedMapping, arena: SharedMapping)) {
        self.table = table
        self.keepers = keepers
        arenaBase = UnsafeRawPointer(keepers.arena.base)
    }

    /// Opens the two mappings of another process's arena; nil when they are not a table and its
    /// arena. The caller keeps them mapped for the reader's life.
    package init?(
        table base: UnsafeMutableRawPointer, length: Int, arena: UnsafeRawPointer, arenaLength: Int
    ) {
        guard let table = ResidentTable(opening: base, length: length, arenaLength: arenaLength)
        else { return nil }
        self.table = table
        arenaBase = arena
        keepers = nil
    }

    package func contains(_ key: StagingKey, now: UInt32) -> Bool {
        for _ in 0..<Self.attempts {
            guard let (slot, word) = visible(key) else { return false }
            let info = table.info(slot)
            if isCurrent(slot, word) {
                guard let info else { return false }
                return !info.isExpired(now)
            }
        }
        return false
    }

    /// What the table says of the key's resident at one moment; nil when it has none.
    package func look(_ key: StagingKey) -> ResidentSight? {
        for _ in 0..<Self.attempts {
            guard let (slot, word) = visible(key) else { return nil }
            let info = table.info(slot)
            guard isCurrent(slot, word), let info else { continue }
            return ResidentSight(
                info: info, state: ResidentTable.state(word),
                pins: Int(ResidentTable.pins(word)), leases: Int(ResidentTable.leases(word)))
        }
        return nil
    }

    // MARK: Pins

    /// Pins the key's resident. A lease, which may be held for long, counts against the share of
    /// the slabs that leases may hold and is refused beyond it; a plain pin is for a copy.
    package func pin(_ key: StagingKey, now: UInt32, lease: Bool = false) -> PinnedBlock? {
        for _ in 0..<Self.attempts {
            guard let (slot, word) = visible(key) else { return nil }
            switch table.tryPin(slot, word, lease: lease) {
            case .refused: return nil
            case .lost: continue
            case .pinned:
                // Pinned, the slot can be read at leisure, but for an owner changing its info.
                guard let info = table.info(slot), !info.isExpired(now) else {
                    table.unpin(slot, ResidentTable.generation(word), lease: lease)
                    return nil
                }
                return PinnedBlock(
                    info: info, slot: ResidentSlot(slot), isLease: lease,
                    generation: ResidentTable.generation(word), firstSlab: table.firstSlab(slot))
            }
        }
        return nil
    }

    package func unpin(_ block: PinnedBlock) {
        table.unpin(block.slot.index, block.generation, lease: block.isLease)
    }

    /// Calls the body with each run of adjacent slabs that holds the block, in the stored image's
    /// order; offsets are bytes from `arenaBase`, the lengths add up to the stored bytes.
    @inline(__always)
    package func forEachRun(_ block: PinnedBlock, _ body: (_ offset: Int, _ length: Int) -> Void) {
        table.forEachRun(first: block.firstSlab, bytes: Int(block.info.storedBytes), body)
    }

    // MARK: Copies

    /// Copies the stored image, or a range of it, without a pin, then looks whether the block
    /// stayed all the while; otherwise tries again, or misses. On nil the destination is undefined
    /// (but never written beyond its capacity). With `expectedVersion`, any other version is a
    /// miss. Returns the bytes copied.
    package func copy(
        _ key: StagingKey, now: UInt32, range: Range<Int>? = nil,
        into destination: UnsafeMutableRawPointer, capacity: Int, expectedVersion: UInt64? = nil,
        info result: inout ResidentInfo
    ) -> Int? {
        for _ in 0..<Self.attempts {
            guard let (slot, word) = visible(key) else { return nil }
            guard let info = table.info(slot) else { return nil }
            let first = table.firstSlab(slot)
            guard isCurrent(slot, word) else { continue }
            let stored = Int(info.storedBytes)
            let range = range ?? 0..<stored
            guard !info.isExpired(now), range.lowerBound >= 0, range.upperBound <= stored,
                range.count <= capacity, expectedVersion ?? info.version == info.version
            else { return nil }
            var done = 0
            table.forEachRun(first: first, bytes: stored) { offset, length in
                let run = UnsafeRawBufferPointer(start: arenaBase + offset, count: length)
                copyPart(run, done: done, range, destination)
                done += length
            }
            guard isCurrent(slot, word) else { continue }
            result = info
            return range.count
        }
        return nil
    }

    package func copy(
        _ key: StagingKey, now: UInt32, range: Range<Int>? = nil,
        into destination: UnsafeMutableRawPointer, capacity: Int, expectedVersion: UInt64? = nil
    ) -> Int? {
        var info = ResidentInfo(version: 0, length: 0, storedBytes: 0)
        return copy(
            key, now: now, range: range, into: destination, capacity: capacity,
            expectedVersion: expectedVersion, info: &info)
    }
}

extension ResidentReader {
    /// The key's slot and the word under which it was seen visible and holding the key.
    @inline(__always)
    private func visible(_ key: StagingKey) -> (slot: Int32, word: UInt64)? {
        for _ in 0..<Self.attempts {
            guard let (_, slot) = table.lookup(key) else { return nil }
            let word = table.word(slot).pointee.load(ordering: .acquiring)
            let isSame = table.key(slot) == key
            // The key was read under this word if the word is still the slot's generation, which
            // whoever uses the pair checks after this fence.
            atomicMemoryFence(ordering: .acquiring)
            switch ResidentTable.state(word) {
            case .dirty, .clean: if isSame { return (slot, word) }
            case .filling: if isSame { return nil }
            case .empty, .condemned: break
            }
        }
        return nil
    }

    /// Whether the slot is still in the life in which the word was read.
    @inline(__always)
    private func isCurrent(_ slot: Int32, _ word: UInt64) -> Bool {
        atomicMemoryFence(ordering: .acquiring)
        let now = table.word(slot).pointee.load(ordering: .relaxed)
        return ResidentTable.generation(now) == ResidentTable.generation(word)
    }
}
