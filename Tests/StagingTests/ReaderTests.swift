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
private let maxBytes = 3 * 4096

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
    return count == Int(info.storedBytes) && info.checksum == info.expiry
        && holds(memory, count, key, info.version, 0)
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
        let arena = try makeArena(slabs: 32, residents: 20)
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
        #expect(arena.freeSlabs == 32 && arena.residentCount == 0)
    }

    @Test func aStayingKeyIsAlwaysFoundWhileOthersMove() throws {
        // Keys that stay among keys that come and go, in a table kept nearly full.
        let arena = try makeArena(slabs: 64, residents: 64)
        for number in 0..<16 { arena.put(key(number), info(1, bytes: 4096), dirty: true) }
        let tally = Tally()
        let reader = arena.reader
        let threads = (0..<2).map { seed in
            startThread {
                var random = Random(UInt64(seed))
                while !tally.stop.load(ordering: .relaxed) {
                    let found = reader.contains(key(random.below(16)), now: 1)
                    tally.add(found ? true : nil, pins: true)
                }
            }
        }
        var random = Random(9)
        let limit = now() + 1
        while now() < limit {
            for _ in 0..<100 {
                arena.put(key(100 + random.below(100_000)), info(2, bytes: 4096))
            }
        }
        tally.stop.store(true, ordering: .relaxed)
        for thread in threads { pthread_join(thread, nil) }
        // A miss is allowed when eight lookups in a row met a move: it must stay a rarity.
        let found = tally.pinned.load(ordering: .relaxed)
        #expect(found > 1000)
        #expect(tally.missed.load(ordering: .relaxed) <= found / 1000)
    }

    @Test func aForkedProcessCopiesWithoutAWrongByte() throws {
        let arena = try makeArena(slabs: 32, residents: 20)
        var random = Random(77)
        var version: UInt64 = 0
        for _ in 0..<200 { churn(arena, &random, &version) }
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
        for number in 0..<keys { _ = copyOnce(reader, key(number), memory) }
        var childRandom = Random(5)
        let end = now() + 1.5
        let child = forkProcess()
        if child == 0 {
            var good = 0
            while now() < end {
                let result = copyOnce(reader, key(childRandom.below(keys)), memory)
                if result == false { _exit(1) }
                if result == true { good += 1 }
            }
            _exit(good > 1000 ? 0 : 2)
        }
        try #require(child > 0)
        while now() < end { for _ in 0..<100 { churn(arena, &random, &version) } }
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
