// ArenaTests: what the arena promises, one promise a test.

import BlockIO
import Testing

@testable import Staging

/// An LRU that counts how often a victim is asked for.
final class CountingPolicy: ReplacementPolicy {
    let inner = LRUPolicy()
    var asked = 0
    func resize(capacity: Int) { inner.resize(capacity: capacity) }
    func inserted(_ slot: Int32, _ arrival: Arrival) { inner.inserted(slot, arrival) }
    func touched(_ slot: Int32, continues: Bool) { inner.touched(slot, continues: continues) }
    func removed(_ slot: Int32) { inner.removed(slot) }
    func demoted(_ slot: Int32) { inner.demoted(slot) }
    func victim(after slot: Int32?) -> Int32? {
        asked += 1
        return inner.victim(after: slot)
    }
}

@Suite struct ArenaTests {
    @Test func fullIsSaidAtOnceAndEvictsNothing() throws {
        let policy = CountingPolicy()
        let arena = try makeArena(slabs: 64, residents: 64, policy: policy)
        let slots = (0..<64).compactMap { arena.put(key($0), info(1, bytes: 4096), dirty: true) }
        #expect(slots.count == 64)
        #expect(arena.reserve(key(100), info: info(1, bytes: 4096)) == .full)
        #expect(policy.asked == 0, "all dirty is known without a walk")
        for slot in slots {
            arena.markClean(slot)
            arena.pin(slot)
        }
        #expect(arena.reserve(key(100), info: info(1, bytes: 4096)) == .full)
        #expect(policy.asked <= 65, "a walk sees each resident once")
        arena.unpin(slots[40])
        #expect(arena.reserve(key(100), info: info(1, bytes: 8192)) == .full)
        #expect(arena.state(slots[40]) == .clean, "what cannot succeed evicts nothing")
        guard case .slot = arena.reserve(key(100), info: info(1, bytes: 4096)) else {
            Issue.record("one slab could be had")
            return
        }
        #expect(arena.find(key(40)) == nil)
        #expect(arena.statistics.refusedFull == 3)
        #expect(arena.reserve(key(101), info: info(1, bytes: 65 * 4096)) == .tooLarge)
    }

    @Test func dirtyIsNeverEvicted() throws {
        let arena = try makeArena(slabs: 32, residents: 32)
        for number in 0..<16 { arena.put(key(number), info(1, bytes: 4096), dirty: true) }
        for number in 100..<2000 {
            #expect(arena.put(key(number), info(1, bytes: 4096)) != nil)
        }
        for number in 0..<16 {
            let found = try #require(arena.find(key(number)))
            #expect(found.state == .dirty && isIntact(arena, found.slot))
            arena.markClean(found.slot)
        }
        // Clean now, and the coldest: they leave first, oldest first.
        arena.put(key(5000), info(1, bytes: 4096))
        #expect(arena.find(key(0)) == nil && arena.find(key(1)) != nil)
    }

    @Test func pinsHoldEvictionAndDeferTheFree() throws {
        let arena = try makeArena(slabs: 4, residents: 8)
        let slot = try #require(arena.put(key(1), info(1, bytes: 2 * 4096)))
        let reader = arena.reader
        let block = try #require(reader.pin(key(1), now: 1))
        #expect(arena.pinnedSlabs == 2)
        for number in 2..<20 { arena.put(key(number), info(1, bytes: 4096)) }
        #expect(arena.find(key(1))?.slot == slot)
        arena.remove(slot)
        #expect(arena.find(key(1)) == nil && !reader.contains(key(1), now: 1))
        #expect(reader.pin(key(1), now: 1) == nil)
        #expect(arena.state(slot) == .condemned && arena.statistics.deferred == 1)
        #expect(arena.reserve(key(30), info: info(1, bytes: 3 * 4096)) == .full)
        var intact = true
        var at = 0
        reader.forEachRun(block) { offset, length in
            intact = intact && holds(reader.arenaBase + offset, length, key(1), 1, at / 8)
            at += length
        }
        #expect(intact && at == 2 * 4096)
        reader.unpin(block)
        #expect(arena.freeSlabs == 0, "freed by the owner only")
        arena.collect()
        #expect(arena.freeSlabs == 2 && arena.statistics.deferred == 0)
        #expect(arena.put(key(30), info(1, bytes: 3 * 4096)) != nil)
    }

    @Test func leasesHoldAQuarterAtMost() throws {
        let arena = try makeArena(slabs: 40, residents: 40)
        let slots = (0..<20).compactMap { arena.put(key($0), info(1, bytes: 2 * 4096)) }
        let reader = arena.reader
        #expect(arena.leaseLimitSlabs == 10)
        for slot in slots[0..<3] { #expect(arena.pinLease(slot)) }
        let fourth = try #require(reader.pin(key(3), now: 1, lease: true))
        #expect(reader.pin(key(4), now: 1, lease: true) != nil)
        #expect(arena.leasedSlabs == 10)
        #expect(!arena.pinLease(slots[5]))
        #expect(reader.pin(key(6), now: 1, lease: true) == nil)
        #expect(arena.pinLease(slots[3]), "a resident's slabs count once")
        let plain = try #require(reader.pin(key(6), now: 1), "a plain pin is not a lease")
        #expect(arena.leasedSlabs == 10 && arena.statistics.refusedLeases == 1)
        reader.unpin(fourth)
        #expect(!arena.pinLease(slots[5]))
        arena.unpinLease(slots[3])
        #expect(arena.leasedSlabs == 8)
        #expect(arena.pinLease(slots[5]))
        reader.unpin(plain)
        arena.remove(slots[5])
        #expect(arena.leasedSlabs == 10, "held until given back, removed or not")
        arena.unpinLease(slots[5])
        #expect(arena.leasedSlabs == 8 && arena.state(slots[5]) == .empty)
    }

    @Test func aReplacementTakesOverInOneStep() throws {
        let arena = try makeArena(slabs: 8, residents: 8)
        let reader = arena.reader
        let old = try #require(arena.put(key(1), info(1, bytes: 4096), dirty: true))
        guard case .slot(let new) = arena.reserve(key(1), info: info(2, bytes: 8192)) else {
            Issue.record("no slot for a replacement")
            return
        }
        #expect(arena.find(key(1))?.slot == old && arena.replacement(old) == new)
        #expect(arena.reserve(key(1), info: info(3, bytes: 4096)) == .filling(new))
        fill(arena, new)
        // The old one is being written out: its memory must stay.
        arena.pin(old)
        arena.publish(new, dirty: true)
        #expect(arena.find(key(1))?.slot == new && arena.state(old) == .condemned)
        #expect(isIntact(arena, old) && isIntact(arena, new))
        arena.markClean(old)
        arena.unpin(old)
        #expect(arena.state(old) == .empty && arena.dirtyBytes == 8192)
        let copied = try #require(reader.pin(key(1), now: 1))
        #expect(copied.info.version == 2)
        reader.unpin(copied)
        // One that fails leaves the visible one; one whose elder was evicted stands alone.
        guard case .slot(let failed) = arena.reserve(key(1), info: info(4, bytes: 4096)) else {
            return
        }
        arena.remove(failed)
        #expect(arena.find(key(1))?.slot == new && arena.replacement(new) == nil)
        guard case .slot(let last) = arena.reserve(key(1), info: info(5, bytes: 4096)) else {
            return
        }
        arena.remove(new)
        #expect(!reader.contains(key(1), now: 1))
        #expect(arena.find(key(1))?.slot == last && arena.find(key(1))?.state == .filling)
        fill(arena, last)
        arena.publish(last, dirty: false)
        #expect(reader.contains(key(1), now: 1) && arena.residentCount == 1)
    }

    @Test func aSlotGetsANewGenerationWithEachLife() throws {
        let arena = try makeArena(slabs: 2, residents: 1)
        var seen: Set<UInt32> = []
        let memory = UnsafeMutableRawPointer.allocate(byteCount: 8192, alignment: 64)
        defer { memory.deallocate() }
        for version in 1...100 {
            let slot = try #require(arena.put(key(version % 2), info(UInt64(version), bytes: 8192)))
            #expect(slot.index == 0)
            #expect(seen.insert(arena.generation(slot)).inserted)
            let reader = arena.reader
            #expect(
                reader.copy(
                    key(version % 2), now: 1, into: memory, capacity: 8192,
                    expectedVersion: UInt64(version)) == 8192)
            #expect(
                reader.copy(
                    key(version % 2), now: 1, into: memory, capacity: 8192,
                    expectedVersion: UInt64(version) + 1) == nil)
            #expect(!reader.contains(key(version % 2 + 1), now: 1))
        }
    }

    @Test func piecesResolveThroughTheRegionTable() throws {
        let regions = RegionTable()
        let arena = try makeArena(slabs: 6, residents: 8, regions: regions)
        let entry = try #require(regions[arena.region])
        #expect(entry.kind == .shared && entry.base == arena.sharedArena.base)
        #expect(entry.descriptor == arena.sharedArena.descriptor)
        #expect(arena.memoryBytes > arena.sharedArena.length)
        // Every other slab free, so that the next block comes in pieces.
        for number in 0..<6 { arena.put(key(number), info(1, bytes: 4096)) }
        for number in [0, 2, 4] { arena.remove(try #require(arena.find(key(number))).slot) }
        let slot = try #require(arena.put(key(9), info(1, bytes: 2 * 4096 + 8)))
        let pieces = arena.pieces(slot)
        #expect(pieces.count == 3 && arena.statistics.scattered == 1)
        var total = 0
        for piece in pieces {
            #expect(regions.contains(piece))
            let pointer = try #require(regions.pointer(piece))
            #expect(pointer == arena.pointer(piece))
            #expect(holds(pointer, Int(piece.length), key(9), 1, total / 8))
            total += Int(piece.length)
        }
        #expect(total == 2 * 4096 + 8)
        var runs: [Piece] = []
        let reader = arena.reader
        let block = try #require(reader.pin(key(9), now: 1))
        reader.forEachRun(block) { offset, length in
            runs.append(Piece(region: arena.region, offset: UInt64(offset), length: UInt64(length)))
        }
        #expect(runs == Array(pieces))
        reader.unpin(block)
        // A range across pieces.
        var part = [UInt64](repeating: 0, count: 512)
        #expect(
            reader.copy(key(9), now: 1, range: 2048..<6144, into: &part, capacity: 4096) == 4096)
        #expect(part == (0..<512).map { contentWord(key(9), 1, 256 + $0) })
        #expect(reader.copy(key(9), now: 1, range: 8000..<8208, into: &part, capacity: 4096) == nil)
        #expect(reader.copy(key(9), now: 1, into: &part, capacity: 4096) == nil)
    }

    @Test func theRegionGoesWithTheArena() throws {
        let regions = RegionTable()
        var arena: StagingArena? = try makeArena(slabs: 4, residents: 4, regions: regions)
        let id = try #require(arena).region
        arena?.put(key(1), info(1, bytes: 4096))
        let reader = try #require(arena).reader
        arena = nil
        #expect(regions[id] == nil)
        #expect(reader.contains(key(1), now: 1), "a reader keeps the memory")
    }

    @Test func expiryAndNamespace() throws {
        let arena = try makeArena(slabs: 8, residents: 8)
        let reader = arena.reader
        let slot = try #require(arena.put(key(1), info(1, bytes: 4096, expiry: 100, namespace: 3)))
        arena.put(key(2), info(1, bytes: 4096, namespace: 4))
        let held = arena.reserve(key(3), info: info(1, bytes: 4096, namespace: 3))
        #expect(reader.contains(key(1), now: 99) && !reader.contains(key(1), now: 100))
        #expect(reader.pin(key(1), now: 100) == nil && arena.pinnedSlabs == 0)
        var changed = arena.info(slot)
        changed.expiry = 0
        arena.setInfo(slot, changed)
        #expect(reader.contains(key(1), now: 100) && arena.info(slot) == changed)
        #expect(arena.removeAll(namespaceSlot: 3) == 1)
        #expect(!reader.contains(key(1), now: 1) && reader.contains(key(2), now: 1))
        guard case .slot(let filling) = held else { return }
        #expect(arena.state(filling) == .filling)
    }

    @Test func scatteredBlocksKeepManyPieces() throws {
        let arena = try makeArena(slabs: 400, residents: 400)
        var random = Random(5)
        var version: UInt64 = 0
        for _ in 0..<300 {
            for _ in 0..<20 {
                version += 1
                let number = random.below(600)
                if let (slot, _) = arena.find(key(number)) { arena.remove(slot) }
                arena.put(key(number), info(version, bytes: 4096 * (1 + random.below(2))))
            }
            version += 1
            let slot = try #require(arena.put(key(9999), info(version, bytes: 100 * 4096)))
            #expect(isIntact(arena, slot))
            #expect(arena.reader.contains(key(9999), now: 1))
        }
        #expect(arena.statistics.scattered > 50)
    }

    @Test func aForeignTableIsRefused() throws {
        let arena = try makeArena(slabs: 8, residents: 8)
        let (table, slabs) = (arena.sharedTable, arena.sharedArena)
        #expect(
            ResidentReader(
                table: table.base, length: table.length, arena: slabs.base,
                arenaLength: slabs.length) != nil)
        #expect(
            ResidentReader(
                table: table.base, length: table.length, arena: slabs.base,
                arenaLength: 8 * 4096 - 1
            ) == nil)
        #expect(
            ResidentReader(
                table: table.base, length: 4096 + 64, arena: slabs.base, arenaLength: slabs.length)
                == nil)
        for field in [0, 8, 16, 24, 32] {
            let kept = table.base.load(fromByteOffset: field, as: UInt64.self)
            for wrong: UInt64 in [0, 1 << 39, .max] {
                table.base.storeBytes(of: wrong, toByteOffset: field, as: UInt64.self)
                #expect(
                    ResidentReader(
                        table: table.base, length: table.length, arena: slabs.base,
                        arenaLength: slabs.length) == nil, "field \(field) = \(wrong)")
            }
            table.base.storeBytes(of: kept, toByteOffset: field, as: UInt64.self)
        }
    }
}
