// Readers on other threads and in another process while the owner changes the index: a key that is
// always there is never missed, and no entry is ever seen torn.

import Glibc
import LogStore
import Synchronization
import Testing

@_silgen_name("fork") private func forkProcess() -> Int32

@Suite(.serialized) struct IndexConcurrencyTests {
    private static let capacity = 3000
    private static let residents = 2500
    private static let churning = 1100

    /// What the owner does in each round: a churn key comes, another goes, a resident changes.
    private static func mutate(
        _ index: BlockIndex, _ random: inout SplitMix, rounds: Int, refused: inout Int
    ) {
        for _ in 0..<rounds {
            let coming = keyFingerprint(residents + random.below(churning))
            let version = UInt32(truncatingIfNeeded: random.next())
            if index.insert(coming, derivedEntry(coming, version)) == .full { refused += 1 }
            _ = index.remove(keyFingerprint(residents + random.below(churning)))
            let resident = keyFingerprint(random.below(residents))
            _ = index.update(resident, derivedEntry(resident, version))
        }
    }

    private static func filled() throws -> BlockIndex {
        let index = try BlockIndex(capacity: capacity)
        for key in 0..<residents {
            let fingerprint = keyFingerprint(key)
            #expect(index.insert(fingerprint, derivedEntry(fingerprint, 0)) == .inserted)
        }
        return index
    }

    /// Looks keys up until `count` lookups; bit 0: a resident was missing, 1: torn, 2: unknown.
    private static func check(
        _ reader: IndexReader, seed: UInt64, lookups: Int, churnSeen: inout Int
    ) -> Int32 {
        var random = SplitMix(seed)
        var faults: Int32 = 0
        var done = 0
        while done < lookups {
            let key = random.below(residents + churning)
            let fingerprint = keyFingerprint(key)
            switch reader.lookup(fingerprint) {
            case .found(let entry):
                if entry != derivedEntry(fingerprint, entry.versionLow) { faults |= 2 }
                if key >= residents { churnSeen += 1 }
            case .absent:
                if key < residents { faults |= 1 }
            case .unknown:
                faults |= 4
            }
            done += 1
        }
        return faults
    }

    /// The batch form: residents only must all be there.
    private static func checkBatch(
        _ reader: IndexReader, seed: UInt64, keys: UnsafeMutableBufferPointer<Fingerprint>,
        answers: UnsafeMutablePointer<Bool>
    ) -> Int32 {
        var random = SplitMix(seed)
        var slot = 0
        while slot < keys.count {
            keys[slot] = keyFingerprint(random.below(residents))
            slot += 1
        }
        reader.contains(UnsafeBufferPointer(keys), now: 1, into: answers)
        slot = 0
        var faults: Int32 = 0
        while slot < keys.count {
            if !answers[slot] { faults |= 8 }
            slot += 1
        }
        return faults
    }

    private final class Tally: Sendable {
        let faults = Atomic<Int32>(0)
        let lookups = Atomic<Int>(0)
        let churnSeen = Atomic<Int>(0)
        let stop = Atomic<Bool>(false)
    }

    @Test(arguments: [11, 12] as [UInt64])
    func readersSeeWholeEntriesAndMissNothing(seed: UInt64) throws {
        let index = try Self.filled()
        let reader = index.reader
        let tally = Tally()
        let join = startThreads(4) { number in
            var round = seed &* 1000 &+ UInt64(number)
            let keys = UnsafeMutableBufferPointer<Fingerprint>.allocate(capacity: 100)
            keys.initialize(repeating: Fingerprint(hi: 0, lo: 0))
            let answers = UnsafeMutablePointer<Bool>.allocate(capacity: 100)
            answers.initialize(repeating: false, count: 100)
            defer {
                keys.deallocate()
                answers.deallocate()
            }
            while !tally.stop.load(ordering: .relaxed) {
                round &+= 4
                var churnSeen = 0
                var faults = Self.check(
                    reader, seed: round, lookups: 200, churnSeen: &churnSeen)
                faults |= Self.checkBatch(reader, seed: round, keys: keys, answers: answers)
                _ = tally.faults.bitwiseOr(faults, ordering: .relaxed)
                tally.lookups.add(300, ordering: .relaxed)
                tally.churnSeen.add(churnSeen, ordering: .relaxed)
            }
        }
        var random = SplitMix(seed)
        var refused = 0
        let start = testNanoseconds()
        while testNanoseconds() - start < 2_000_000_000 {
            Self.mutate(index, &random, rounds: 100, refused: &refused)
        }
        tally.stop.store(true, ordering: .relaxed)
        join()
        #expect(tally.faults.load(ordering: .relaxed) == 0, "bits: missing, torn, unknown, batch")
        #expect(tally.lookups.load(ordering: .relaxed) > 5_000)
        #expect(tally.churnSeen.load(ordering: .relaxed) > 500)
        #expect(index.moves > 1000)
        print(
            "index threads:", tally.lookups.load(ordering: .relaxed), "lookups,", index.moves,
            "moves,", refused, "refused")
    }

    /// The child's work: maps the descriptor anew, then looks up until the parent says stop.
    private static func childMain(_ descriptor: Int32, _ length: Int, once: Bool) -> Int32 {
        let address = mmap(nil, length, PROT_READ, MAP_SHARED, descriptor, 0)
        guard let address, address != UnsafeMutableRawPointer(bitPattern: -1) else { return 64 }
        guard let reader = IndexReader(base: address, length: length) else { return 32 }
        var faults: Int32 = 0
        var rounds = 0
        var seed: UInt64 = 77
        var churnSeen = 0
        while rounds < 200_000 {
            seed &+= 1
            faults |= check(reader, seed: seed, lookups: 100, churnSeen: &churnSeen)
            rounds += 1
            if once || reader.storeWord(0).pointee.load(ordering: .acquiring) == 1 { break }
        }
        if !once && (rounds < 10 || churnSeen < 10) { faults |= 16 }
        munmap(address, length)
        return faults
    }

    @Test func aForkedProcessReadsTheInheritedMapping() throws {
        let index = try Self.filled()
        let (descriptor, length) = (index.mapping.descriptor, index.mapping.length)
        // Once here first, so that the child finds all metadata made: after fork it must not
        // allocate.
        #expect(Self.childMain(descriptor, length, once: true) == 0)
        let child = forkProcess()
        if child == 0 {
            _exit(Self.childMain(descriptor, length, once: false))
        }
        try #require(child > 0)
        var random = SplitMix(5)
        var refused = 0
        let start = testNanoseconds()
        while testNanoseconds() - start < 2_000_000_000 {
            Self.mutate(index, &random, rounds: 100, refused: &refused)
        }
        index.storeWord(0).pointee.store(1, ordering: .releasing)
        var status: Int32 = -1
        #expect(waitpid(child, &status, 0) == child)
        #expect(status & 0x7F == 0, "ended by a signal")
        #expect(status >> 8 & 0xFF == 0, "bits: missing, torn, unknown, batch, idle, header, map")
        #expect(index.moves > 1000)
    }

    @Test func aWriterThatDiedInTheMiddleMakesAMissNotAHang() throws {
        let index = try Self.filled()
        let reader = index.reader
        // What a writer leaves that dies within a change: an odd sequence. All of them here.
        let locks = (index.mapping.base + 8192).assumingMemoryBound(to: Atomic<UInt32>.self)
        for lock in 0..<4096 { locks[lock].add(1, ordering: .relaxed) }
        let start = testNanoseconds()
        #expect(reader.lookup(keyFingerprint(1)) == .unknown)
        #expect(reader.find(keyFingerprint(1)) == nil)
        let keys = (0..<1000).map { keyFingerprint($0) }
        var answers = [Bool](repeating: true, count: 1000)
        keys.withUnsafeBufferPointer { keys in
            answers.withUnsafeMutableBufferPointer { into in
                reader.contains(keys, now: 1, into: into.baseAddress!)
            }
        }
        #expect(answers.allSatisfy { !$0 })
        let seconds = Double(testNanoseconds() - start) / 1e9
        #expect(seconds < 60, "three waits")
        for lock in 0..<4096 { locks[lock].add(1, ordering: .relaxed) }
        #expect(reader.find(keyFingerprint(1)) == derivedEntry(keyFingerprint(1), 0))
    }

    @Test func aForeignMappingIsRefused() throws {
        let index = try Self.filled()
        let base = UnsafeRawPointer(index.mapping.base)
        let length = index.mapping.length
        #expect(IndexReader(base: base, length: length) != nil)
        #expect(IndexReader(base: base, length: 4096) == nil)
        #expect(IndexReader(base: base, length: length / 2) == nil)
        #expect(IndexReader(base: base + 8, length: length - 8) == nil)
        let header = index.mapping.base.assumingMemoryBound(to: UInt64.self)
        for word in 0..<3 {
            let kept = header[word]
            for garbage in [0, 1, kept ^ 1 << 40, UInt64.max] {
                header[word] = garbage
                #expect(IndexReader(base: base, length: length) == nil)
            }
            header[word] = kept
        }
        let reader = try #require(IndexReader(base: base, length: length))
        #expect(reader.find(keyFingerprint(3)) == derivedEntry(keyFingerprint(3), 0))
        index.storeWord(511).pointee.store(42, ordering: .relaxed)
        #expect(reader.storeWord(511).pointee.load(ordering: .relaxed) == 42)
        #expect(reader.find(keyFingerprint(3)) == derivedEntry(keyFingerprint(3), 0))
    }
}
