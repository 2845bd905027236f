// Another process reads the store's index and slabs while the owner writes, replaces, evicts and
// reclaims. It has nothing but the two memfds' mappings, and may make no system call: it runs under
// strict seccomp, which kills at the first one.

import BlockIO
import Glibc
import LogStore
import Staging
import Synchronization
import Testing

@_silgen_name("fork") private func forkProcess() -> Int32
@_silgen_name("prctl") private func control(
    _ option: Int32, _ a: UInt, _ b: UInt, _ c: UInt, _ d: UInt
) -> Int32

@Suite(.serialized) struct SharedReaderTests {
    private static let keys = 200
    private static let words = 2500
    private static let length = words * 8
    private static let finished: UInt64 = 0xD0E

    /// Every word follows from key, revision and place; the first is the revision.
    @inline(__always)
    private static func word(_ key: Int, _ revision: UInt64, _ at: Int) -> UInt64 {
        if at == 0 { return revision }
        return SplitMix.mix(revision &* 1_000_003 &+ UInt64(key) &* 7919 &+ UInt64(at))
    }

    private static func value(_ key: Int, _ revision: UInt64) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: length) { bytes, count in
            let memory = UnsafeMutableRawBufferPointer(bytes)
            for at in 0..<words {
                memory.storeBytes(
                    of: word(key, revision, at), toByteOffset: 8 * at, as: UInt64.self)
            }
            count = length
        }
    }

    /// What the child counts, in memory that both share.
    private struct Tally {
        let words: UnsafeMutablePointer<Atomic<UInt64>>
        /// 0 stop, 1 entries found, 2 blocks copied, 3 wrong entries, 4 wrong bytes, 5 finished.
        subscript(_ index: Int) -> UInt64 {
            get { words[index].load(ordering: .acquiring) }
            nonmutating set { words[index].store(newValue, ordering: .releasing) }
        }
    }

    private struct Reading {
        let index: IndexReader
        let slabs: ResidentReader
        let fingerprints: UnsafeMutablePointer<Fingerprint>
        let memory: UnsafeMutableRawPointer
        let tally: Tally
        let segments: Int

        func lookAt(_ key: Int) {
            let fingerprint = fingerprints[key]
            if case .found(let entry) = index.lookup(fingerprint) {
                let right =
                    entry.length == UInt32(SharedReaderTests.length) && entry.shardCount == 1
                    && Int(entry.place.segment) < segments && entry.place.page > 0
                tally[right ? 1 : 3] = tally[right ? 1 : 3] &+ 1
            }
            let name = StagingKey(hi: fingerprint.hi, lo: fingerprint.lo)
            let capacity = 32 << 10
            guard slabs.copy(name, now: 1, into: memory, capacity: capacity) != nil else { return }
            let found = memory.assumingMemoryBound(to: UInt64.self)
            let revision = found[0]
            var right = true
            var at = 0
            while at < SharedReaderTests.words {
                if found[at] != SharedReaderTests.word(key, revision, at) { right = false }
                at += 1
            }
            tally[right ? 2 : 4] = tally[right ? 2 : 4] &+ 1
        }

        func run(rounds: Int) {
            var key = 0
            var done = 0
            while done < rounds, tally[0] == 0 {
                lookAt(key)
                key = key &+ 1 == SharedReaderTests.keys ? 0 : key &+ 1
                done += 1
            }
        }
    }

    /// Maps what the child inherited, read-only, and reads until told to stop. Does not return.
    private static func child(_ world: World, _ reading: Reading) -> Never {
        let index = world.store.log.index.mapping
        guard let arena = world.store.arena,
            let indexMap = map(index), let tableMap = map(arena.sharedTable),
            let slabMap = map(arena.sharedArena),
            let indexReader = IndexReader(base: indexMap, length: index.length),
            let slabReader = ResidentReader(
                table: tableMap, length: arena.sharedTable.length, arena: slabMap,
                arenaLength: arena.sharedArena.length)
        else { _exit(3) }
        let mine = Reading(
            index: indexReader, slabs: slabReader, fingerprints: reading.fingerprints,
            memory: reading.memory, tally: reading.tally, segments: reading.segments)
        // PR_SET_SECCOMP, SECCOMP_MODE_STRICT: from here on only read, write and exit.
        if control(22, 1, 0, 0, 0) != 0 { _exit(4) }
        mine.run(rounds: Int.max)
        mine.tally[5] = finished
        while true {}
    }

    private static func map(_ mapping: SharedMapping) -> UnsafeMutableRawPointer? {
        let address = mmap(nil, mapping.length, PROT_READ, MAP_SHARED, mapping.descriptor, 0)
        return address == UnsafeMutableRawPointer(bitPattern: -1) ? nil : address
    }

    /// One child's life while the owner works; whether it lived to the end without a system call.
    private func attempt(_ world: World, _ space: UInt16, _ revision: inout UInt64) throws -> Bool {
        let shared = try #require(
            mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))
        defer { munmap(shared, 4096) }
        let tally = Tally(words: shared.assumingMemoryBound(to: Atomic<UInt64>.self))
        let fingerprints = UnsafeMutablePointer<Fingerprint>.allocate(capacity: Self.keys)
        let memory = UnsafeMutableRawPointer.allocate(byteCount: 32 << 10, alignment: 64)
        defer {
            fingerprints.deallocate()
            memory.deallocate()
        }
        for key in 0..<Self.keys {
            fingerprints.advanced(by: key).initialize(to: world.fingerprint("key-\(key)", space))
        }
        let arena = try #require(world.store.arena)
        let reading = Reading(
            index: world.store.log.index.reader, slabs: arena.reader, fingerprints: fingerprints,
            memory: memory, tally: tally,
            segments: world.store.log.segments.counts.reduce(0, +))
        // Once here first: after the fork nothing may be allocated or made.
        reading.run(rounds: 2 * Self.keys)
        let before = (tally[1], tally[2])
        #expect(before.0 > 0 && before.1 > 0)
        let process = forkProcess()
        if process == 0 { Self.child(world, reading) }
        try #require(process > 0)
        var random = SplitMix(revision)
        // Until something was reclaimed, however slow the machine is.
        let end = testNanoseconds() + 1_500_000_000
        let latest = end + 60_000_000_000
        while testNanoseconds() < end
            || world.store.log.statistics.evictedBlocks == 0 && testNanoseconds() < latest
        {
            revision += 1
            let key = random.below(Self.keys)
            let answer = world.put(
                "key-\(key)", space, Self.value(key, revision), replace: revision % 3 == 0)
            #expect(answer.status != .failed && answer.status != .invalid)
            if revision % 5 == 0 { _ = world.remove("key-\(random.below(Self.keys))", space) }
            if revision % 2 == 0 {
                _ = world.put(
                    "other-\(revision)", space, revision: 0, length: 60_000)
            }
        }
        tally[0] = 1
        var status: Int32 = 0
        let limit = testNanoseconds() + 10_000_000_000
        var ended = false
        while tally[5] != Self.finished, !ended, testNanoseconds() < limit {
            ended = waitpid(process, &status, WNOHANG) == process
            usleep(1000)
        }
        if !ended {
            kill(process, SIGKILL)
            waitpid(process, &status, 0)
        }
        #expect(tally[3] == 0, "torn or foreign entries")
        #expect(tally[4] == 0, "wrong bytes")
        guard tally[5] == Self.finished else {
            print("shared readers: child ended with status \(status)")
            return false
        }
        #expect(tally[1] > before.0 + 1000 && tally[2] > before.1 + 100, "it has seen something")
        print("shared readers: \(tally[1]) entries, \(tally[2]) blocks, revision \(revision)")
        return true
    }

    @Test func anotherProcessReadsIndexAndSlabsWithoutASystemCall() throws {
        let world = try World(World.configuration(segments: 10, staging: 2 << 20))
        let space = world.namespace()
        var revision: UInt64 = 0
        for key in 0..<Self.keys {
            revision += 1
            #expect(world.put("key-\(key)", space, Self.value(key, revision)).status == .stored)
        }
        // A writer that is put off its core in the middle of a change makes a reader sleep, which
        // costs the child its life: once or twice on a busy machine, not every time.
        var lived = false
        for _ in 0..<5 where !lived { lived = try attempt(world, space, &revision) }
        #expect(lived)
        #expect(world.store.log.statistics.reclaimedSegments > 0, "the owner has reclaimed")
        #expect(world.store.log.statistics.evictedBlocks > 0)
        #expect((world.store.arena?.evictions ?? 0) > 0)
        world.checkAccounts()
    }
}
