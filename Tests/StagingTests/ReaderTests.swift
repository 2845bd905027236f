// ReaderTests: other threads and another process read while the owner churns. Every word of a block
// follows from its key and version, so one wrong byte is seen.

import BlockIO
import Glibc
import Synchronization
import Testing

@testable import Staging

@_silgen_name("fork") private func forkProcess() -> Int32

/// What readers count; shared by threads.
private final class Tally: Sendable {
    let stop = Atomic<Bool>(false)
    let wrong = Atomic<Int>(0)
    let pinned = Atomic<Int>(0)
    let copied = Atomic<Int>(0)
    let missed = Atomic<Int>(0)
}

private let keys = 24
private let maxBytes = 12 * 4096

/// Puts, replaces, touches and removes at random; version counts up.
private func churn(_ arena: StagingArena, _ random: inout Random, _ version: inout UInt64) {
    version += 1
    let number = random.below(keys)
    switch random.below(8) {
    case 0: if let (slot, _) = arena.find(key(number)) { arena.remove(slot) }
    case 1:
        if let (slot, _) = arena.find(key(number)) {
            var changed = arena.info(slot)
            changed.expiry = UInt32(truncatingIfNeeded: version) | 1 << 31
            changed.checksum = changed.expiry
            arena.setInfo(slot, changed)
        }
    default:
        let bytes = 8 * (1 + random.below(maxBytes / 8))
        var facts = info(version, bytes: bytes, expiry: UInt32(version) | 1 << 31)
        facts.checksum = facts.expiry
        arena.put(key(number), facts, dirty: false)
    }
}

/// Puts one of two keys where the other lies, writing one word a cache line, and lets it be a
/// while.
private func swap(_ arena: StagingArena, _ random: inout Random, _ version: inout UInt64) {
    version += 1
    let next = key(Int(version % 2))
    guard
        case .slot(let slot) = arena.reserve(next, info: info(version, bytes: maxBytes, expiry: 0))
    else { return }
    var facts = arena.info(slot)
    facts.checksum = 0
    arena.setInfo(slot, facts)
    for piece in arena.pieces(slot) {
        let words = arena.pointer(piece).assumingMemoryBound(to: UInt64.self)
        for at in stride(from: 0, to: Int(piece.length) / 8, by: 8) {
            words[at] = contentWord(next, version, at)
        }
    }
    arena.publish(slot, dirty: false)
    let until = now() + Double(random.below(20)) * 1e-6
    while now() < until {}
}

/// One attempt by copy; nil for a miss, else whether all was right.
@inline(__always)
private func copyOnce(
    _ reader: ResidentReader, _ key: StagingKey, _ memory: UnsafeMutableRawPointer
)
    -> Bool?
{
    var info = ResidentInfo(version: 0, length: 0, storedBytes: 0)
    guard
        let count = reader.copy(key, now: 1, into: memory, capacity: maxBytes, info: &info)
    else { return nil }
    // A word of each cache line, so that more attempts are made.
    let words = memory.assumingMemoryBound(to: UInt64.self)
    for at in stride(from: 0, to: count / 8, by: 8)
    where words[at] != contentWord(key, info.version, at) { return false }
    return count == Int(info.storedBytes) && info.checksum == info.expiry
}

private func pinOnce(_ reader: ResidentReader, _ key: StagingKey, lease: Bool) -> Bool? {
    guard let block = reader.pin(key, now: 1, lease: lease) else { return nil }
    var right = block.info.checksum == block.info.expiry
    var at = 0
    // Twice, so that the memory has time to be taken away.
    for _ in 0..<2 {
        at = 0
        reader.forEachRun(block) { offset, length in
            right =
                right && holds(reader.arenaBase + offset, length, key, block.info.version, at / 8)
            at += length
        }
    }
    right = right && at == Int(block.info.storedBytes)
    reader.unpin(block)
    return right
}

private func read(_ reader: ResidentReader, _ seed: UInt64, _ tally: Tally) {
    var random = Random(seed)
    let memory = UnsafeMutableRawPointer.allocate(byteCount: maxBytes, alignment: 64)
    defer { memory.deallocate() }
    while !tally.stop.load(ordering: .relaxed) {
        let wanted = key(random.below(keys))
        let pins = random.below(2) == 0
        let right =
            pins
            ? pinOnce(reader, wanted, lease: random.below(2) == 0)
            : copyOnce(reader, wanted, memory)
        tally.add(right, pins: pins)
    }
}

extension Tally {
    fileprivate func add(_ right: Bool?, pins: Bool) {
        switch right {
        case .none: missed.wrappingAdd(1, ordering: .relaxed)
        case .some(false): wrong.wrappingAdd(1, ordering: .relaxed)
        case .some(true):
            if pins {
                pinned.wrappingAdd(1, ordering: .relaxed)
            } else {
                copied.wrappingAdd(1, ordering: .relaxed)
            }
        }
    }
}

@Suite(.serialized) struct ReaderTests {
    @Test func fourThreadsNeverSeeAWrongByte() throws {
        let arena = try makeArena(slabs: 128, residents: 20)
        let tally = Tally()
        let reader = arena.reader
        let threads = (0..<4).map { seed in
            startThread { read(reader, UInt64(seed) + 100, tally) }
        }
        var random = Random(42)
        var version: UInt64 = 0
        let limit = now() + 2
        while now() < limit { for _ in 0..<100 { churn(arena, &random, &version) } }
        tally.stop.store(true, ordering: .relaxed)
        for thread in threads { pthread_join(thread, nil) }
        #expect(tally.wrong.load(ordering: .relaxed) == 0)
        #expect(tally.pinned.load(ordering: .relaxed) > 100)
        #expect(tally.copied.load(ordering: .relaxed) > 100)
        #expect(version > 1000 && arena.evictions > 100)
        arena.collect()
        #expect(arena.pinnedSlabs == 0 && arena.leasedSlabs == 0 && arena.statistics.deferred == 0)
        for number in 0..<keys {
            if let (slot, _) = arena.find(key(number)) {
                #expect(isIntact(arena, slot))
                arena.remove(slot)
            }
        }
        #expect(arena.freeSlabs == 128 && arena.residentCount == 0)
    }

    /// Runs the body on two threads while the owner works here for a second.
    private func race(owner: () -> Void, reader: @escaping @Sendable () -> Bool?) -> Tally {
        let tally = Tally()
        let threads = (0..<2).map { _ in
            startThread {
                while !tally.stop.load(ordering: .relaxed) { tally.add(reader(), pins: true) }
            }
        }
        let limit = now() + 1
        while now() < limit { for _ in 0..<100 { owner() } }
        tally.stop.store(true, ordering: .relaxed)
        for thread in threads { pthread_join(thread, nil) }
        return tally
    }

    /// A bare table in a mapping of its own.
    private func makeTable() throws -> (table: ResidentTable, memory: SharedMapping) {
        let memory = try SharedMapping(
            name: "table", length: ResidentTable.bytes(capacity: 8, slabCount: 8), huge: false)
        let table = ResidentTable(
            creating: memory.base, capacity: 8, slabCount: 8, slabBytes: 4096, leaseLimit: 2)
        return (table, memory)
    }

    @Test func aMovingKeyIsAlwaysFound() throws {
        let (table, memory) = try makeTable()
        let home = Int(ResidentTable.tag(key(0))) & table.bucketMask
        let other = try #require(
            (1...1000).first { Int(ResidentTable.tag(key($0))) & table.bucketMask == home })
        table.setKey(0, key(0))
        table.setKey(1, key(other))
        table.insert(key(other), 1)
        table.insert(key(0), 0)
        nonisolated(unsafe) let shared = table
        let tally = race {
            // [other][0] -> [0] -> [0][other] -> [0][other][0] -> [other][0]
            table.delete(bucket: home)
            table.insert(key(other), 1)
            table.insert(key(0), 0)
            table.delete(bucket: home)
        } reader: {
            shared.lookup(key(0))?.slot == 0 ? true : nil
        }
        #expect(tally.pinned.load(ordering: .relaxed) > 10_000)
        // Only eight lookups in a row that each met a move may miss.
        #expect(tally.missed.load(ordering: .relaxed) <= 2)
        withExtendedLifetime(memory) {}
    }

    @Test func infoIsReadWhole() throws {
        let (table, memory) = try makeTable()
        var version: UInt64 = 0
        @Sendable func facts(_ version: UInt64) -> ResidentInfo {
            let low = UInt32(truncatingIfNeeded: version)
            return ResidentInfo(
                version: version, length: low, storedBytes: low,
                shardCount: UInt16(truncatingIfNeeded: version), aligned: version & 1 == 1,
                checksum: low, expiry: low, namespaceSlot: UInt16(truncatingIfNeeded: version))
        }
        table.setInfo(3, facts(0))
        nonisolated(unsafe) let shared = table
        let tally = race {
            version += 1
            table.setInfo(3, facts(version))
        } reader: {
            shared.info(3).map { $0 == facts($0.version) }
        }
        #expect(tally.wrong.load(ordering: .relaxed) == 0)
        #expect(tally.pinned.load(ordering: .relaxed) > 10_000)
        withExtendedLifetime(memory) {}
    }

    @Test func aForkedProcessCopiesWithoutAWrongByte() throws {
        // Room for one block, so that each put overwrites what the child may be copying.
        let arena = try makeArena(slabs: 12, residents: 4)
        var random = Random(77)
        var version: UInt64 = 0
        swap(arena, &random, &version)
        let (table, slabs) = (arena.sharedTable, arena.sharedArena)
        // Mapped anew and read-only, as an attached process would.
        let tableMap = try #require(
            mmap(nil, table.length, PROT_READ, MAP_SHARED, table.descriptor, 0)
                as UnsafeMutableRawPointer?)
        let slabMap = try #require(
            mmap(nil, slabs.length, PROT_READ, MAP_SHARED, slabs.descriptor, 0)
                as UnsafeMutableRawPointer?)
        let reader = try #require(
            ResidentReader(
                table: tableMap, length: table.length, arena: slabMap,
                arenaLength: slabs.length))
        let memory = UnsafeMutableRawPointer.allocate(byteCount: maxBytes, alignment: 64)
        defer { memory.deallocate() }
        // Once here, so that the child, which has only this thread, initializes nothing.
        for number in 0..<2 { _ = copyOnce(reader, key(number), memory) }
        var childRandom = Random(5)
        let end = now() + 1.5
        let child = forkProcess()
        if child == 0 {
            var good = 0
            while now() < end {
                let result = copyOnce(reader, key(childRandom.below(2)), memory)
                if result == false { _exit(1) }
                if result == true { good += 1 }
            }
            _exit(good > 20 ? 0 : 2)  // a sanitizer is slow
        }
        try #require(child > 0)
        while now() < end { swap(arena, &random, &version) }
        var status: Int32 = -1
        var ended = false
        while !ended && now() < end + 20 {
            ended = waitpid(child, &status, WNOHANG) == child
            if !ended { usleep(10_000) }
        }
        if !ended {
            kill(child, SIGKILL)
            waitpid(child, &status, 0)
        }
        #expect(ended && status == 0, "wait status \(status); 256: wrong bytes, 512: too few")
        #expect(version > 1000)
        munmap(tableMap, table.length)
        munmap(slabMap, slabs.length)
    }
}
