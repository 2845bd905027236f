// Unwritten: volatile puts that stay in memory alone, what becomes of them, and the copies that
// puts of blocks on disk leave.

import BlockIO
import LogStore
import SimulatedDisk
import Staging
import Testing
import Tiering

/// Counts the losses that are told, by version.
private final class Losses: StoreSink {
    var answers: [UInt64: StoreAnswer] = [:]
    var outcomes: [UInt64: Outcome] = [:]
    var lost: [UInt64] = []
    func answered(_ answer: StoreAnswer) { answers[answer.token] = answer }
    func released(_ token: UInt64) {}
    func controlled(_ outcome: Outcome) { outcomes[outcome.token] = outcome }
    func happened(_ event: StoreEvent) {
        if case .volatileLost(let version, _) = event { lost.append(version) }
    }
}

/// Lets through what is put once more, or nothing.
private final class Refusal: WriteGate {
    let again: Bool
    init(again: Bool) { self.again = again }
    func admits(keyHash: UInt64, bytes: UInt32, again: Bool) -> Bool { self.again && again }
}

@Suite struct UnwrittenTests {
    private static let block = 20_000

    private func volatilePut(
        _ world: TieredWorld, _ key: String, _ space: UInt16, revision: Int = 0,
        _ change: (inout StoreOperation) -> Void = { _ in }
    ) -> StoreAnswer {
        var value = payload(key, revision: revision, length: Self.block)
        return value.withUnsafeMutableBytes {
            world.run(.put, key, space, bytes: $0) {
                $0.durability = .volatile
                change(&$0)
            }
        }
    }

    @Test func whatIsNotWrittenIsReadWhileItIsThereAndToldWhenItGoes() throws {
        let world = try TieredWorld(TieredWorld.configuration(staging: 1 << 20))
        let space = world.namespace()
        world.store.staged.dirtyLimit = 0
        let first = volatilePut(world, "a", space)
        #expect(first.status == .stored && first.version > 0)
        world.settle()
        #expect(world.store.staged.log.index.count == 0)
        let (answer, bytes) = world.get("a", space, length: Self.block)
        #expect(answer.status == .hit && bytes == payload("a", length: Self.block))
        // Put again it is there already, or in conflict; it is written when somebody asks for that.
        #expect(volatilePut(world, "a", space).status == .alreadyPresent)
        let shorter = volatilePut(world, "a", space) { $0.length = 100 }
        #expect(shorter.status == .conflict)
        #expect(world.store.staged.statistics.volatileLost == 0)
        let written = world.put("a", space, payload("a", length: Self.block))
        #expect(written.status == .stored && written.version > first.version)
        world.settle()
        #expect(world.store.staged.log.index.count == 1)
        // What was in memory alone has made way for what is written: that counts.
        #expect(world.store.staged.statistics.volatileLost == 1)
        #expect(world.store.staged.statistics.unwrittenPuts == 1)
    }

    @Test func eachEvictedOneIsToldOnce() throws {
        let world = try TieredWorld(TieredWorld.configuration(staging: 1 << 20))
        let losses = Losses()
        let space = world.namespace()
        world.store.staged.dirtyLimit = 0
        var versions: [UInt64] = []
        for number in 0..<40 {  // 16 of them fit
            versions.append(volatilePut(world, "k\(number)", space).version)
        }
        world.store.sink = losses
        var value = payload("last", length: Self.block)
        value.withUnsafeMutableBytes { bytes in
            let piece = UnsafeMutablePointer<Piece>.allocate(capacity: 1)
            defer { piece.deallocate() }
            piece.initialize(
                to: Piece(
                    region: .process, offset: UInt64(UInt(bitPattern: bytes.baseAddress)),
                    length: UInt64(bytes.count)))
            world.submit(.put, Array("last".utf8), space, piece) { $0.durability = .volatile }
            world.settle()
        }
        #expect(losses.lost.count == 1 && versions.contains(losses.lost.first ?? 0))
        world.store.sink = world.sink
        let gone = world.store.staged.statistics.volatileLost
        #expect(gone == 41 - 16)
        var hits = 0
        for number in 0..<40 {
            let (answer, bytes) = world.get("k\(number)", space, length: Self.block)
            guard answer.status == .hit else { continue }
            hits += 1
            #expect(bytes == payload("k\(number)", length: Self.block))
        }
        #expect(hits + 1 == 16)
        #expect(world.store.staged.arena?.statistics.unwritten == 16)
        // Deleted and purged ones are not lost.
        _ = world.run(.delete, "last", space)
        world.emptyStaging(space)
        #expect(world.store.staged.statistics.volatileLost == gone)
        #expect(world.store.staged.arena?.statistics.unwritten == 0)
    }

    @Test func aDeletedOneStaysDeletedAndAReplacedOneIsTheNewOne() throws {
        let world = try TieredWorld(TieredWorld.configuration(staging: 1 << 20))
        let space = world.namespace()
        world.store.staged.dirtyLimit = 0
        _ = volatilePut(world, "a", space)
        _ = world.run(.delete, "a", space)
        #expect(world.get("a", space, length: Self.block).0.status == .miss)
        _ = volatilePut(world, "b", space)
        let replaced = volatilePut(world, "b", space, revision: 1) { $0.replace = true }
        #expect(replaced.status == .stored)
        world.settle()
        #expect(
            world.get("b", space, length: Self.block).1
                == payload("b", revision: 1, length: Self.block))
        // A replacement is written, lest an older one on disk come back.
        #expect(world.store.staged.log.index.count == 1)
    }

    @Test func whatIsInMemoryAloneWhenTheStoreClosesIsToldAsLost() throws {
        let world = try TieredWorld(TieredWorld.configuration(staging: 1 << 20))
        let losses = Losses()
        let space = world.namespace()
        world.store.staged.dirtyLimit = 0
        let versions = (0..<3).map { volatilePut(world, "k\($0)", space).version }
        world.store.sink = losses
        world.store.beginClose()
        #expect(losses.lost.sorted() == versions.sorted())
        #expect(world.store.staged.statistics.volatileLost == 3)
        world.emptyStaging(space)
        #expect(losses.lost.count == 3, "each once")
        world.store.sink = world.sink
    }

    @Test func aDeviceThatIsBehindDoesNotHoldStaging() throws {
        // 20 KB take 100 ms to write; 1 MiB of staging, half of which may wait.
        var slow = LatencyModel.constant(100_000, bytesPerSecond: 1 << 30)
        slow.writeBytesPerSecond = 200_000
        var configuration = TieredWorld.configuration(staging: 1 << 20)
        configuration.staged.log.groupBytes = 64 << 10
        configuration.overload = .staysInMemory
        let world = try TieredWorld(configuration, latency: slow)
        let space = world.namespace()
        let begun = world.clock.monotonic
        for number in 0..<200 {
            #expect(volatilePut(world, "k\(number)", space).status == .stored)
            #expect(world.store.staged.arena?.dirtyBytes ?? 0 <= (1 << 20) / 2 + 24_576)
        }
        let staged = world.store.staged.statistics
        // All but what was written meanwhile, ten a second, and what may wait.
        let seconds = Double(world.clock.monotonic - begun) / 1e9
        #expect(Double(staged.unwrittenPuts) > 200 - 10 * seconds - 30)
        #expect(staged.unwrittenPuts > 100 && staged.throttledPuts == 0)
        // The newest are there.
        for number in 195..<200 {
            let (answer, bytes) = world.get("k\(number)", space, length: Self.block)
            #expect(answer.status == .hit && bytes == payload("k\(number)", length: Self.block))
        }
        world.settle()
    }

    // MARK: Older copies

    /// Two devices, of which the second has been silent for so long that it is not read any more;
    /// and a key whose block it has.
    private func oneAway() throws -> (TieredWorld, UInt16, String) {
        let machine = SimulatedMachine()
        for directory in ["/a", "/b"] { machine.addDevice(directory) }
        var configuration = TieredWorld.configuration(segments: 24)
        configuration.staged.log.directories = ["/a/store", "/b/store"]
        let world = try TieredWorld(configuration, machine: machine)
        let space = world.namespace()
        let log = world.store.staged.log
        var there: [String] = []
        for number in 0..<900 where there.count < 2 {
            let key = "k\(number)"
            world.put(key, space, payload(key, length: Self.block))
            let entry = Array(key.utf8).withUnsafeBytes {
                log.lookup(log.fingerprint(space, $0)).entry
            }
            if let entry, SegmentTable.device(entry.place.segment) == 1 { there.append(key) }
        }
        let (key, other) = (try #require(there.first), try #require(there.last))
        #expect(key != other)
        world.settle()
        world.emptyStaging(space)
        machine.hang("/b/store")
        // Somebody waits for it, in memory that stays.
        let memory = UnsafeMutableRawPointer.allocate(byteCount: 1 << 16, alignment: 4096)
        let piece = UnsafeMutablePointer<Piece>.allocate(capacity: 1)
        piece.initialize(
            to: Piece(
                region: .process, offset: UInt64(UInt(bitPattern: memory)),
                length: UInt64(Self.block)))
        world.submit(.get, Array(other.utf8), space, piece) { $0.mode = .direct }
        world.pass(3 * Self.second)
        #expect(log.devices[1].state == .suspect)
        let missed = world.get(key, space, length: Self.block).0
        #expect(missed.status == .miss && missed.reason == .deviceOut)
        return (world, space, key)
    }

    private static let second: UInt64 = 1_000_000_000

    /// A block in memory alone says nothing to a device: one put over a copy that cannot be read
    /// now is written, or the copy would come back with its device once the newer one has expired.
    @Test(arguments: [false, true])
    func aCopyOnADeviceThatWasAwayDoesNotComeBack(gated: Bool) throws {
        let (world, space, key) = try oneAway()
        let gate = Refusal(again: true)
        world.store.staged.dirtyLimit = 0
        if gated { world.store.staged.gate = gate }
        let newer = volatilePut(world, key, space, revision: 1) { $0.timeToLive = 20 }
        #expect(newer.status == .stored)
        #expect(
            world.get(key, space, length: Self.block).1
                == payload(key, revision: 1, length: Self.block))
        world.machine.release("/b/store")
        world.pass(8 * Self.second)
        #expect(world.store.staged.log.devices[1].state == .healthy)
        let (there, bytes) = world.get(key, space, length: Self.block)
        #expect(there.status == .hit && there.version == newer.version)
        #expect(bytes == payload(key, revision: 1, length: Self.block))
        world.pass(15 * Self.second)
        #expect(world.store.staged.statistics.volatileLost == 0)
        #expect(world.get(key, space, length: Self.block).0.status == .miss)
        let again = volatilePut(world, key, space, revision: 2) { $0.length = 100 }
        #expect(again.status == .stored)
        world.store.staged.gate = nil
    }

    /// What the gate does not let through is not put at all then.
    @Test func whatIsNotAdmittedTakesNothingsPlace() throws {
        let (world, space, key) = try oneAway()
        let gate = Refusal(again: false)
        world.store.staged.gate = gate
        #expect(volatilePut(world, key, space, revision: 1).status == .notAdmitted)
        #expect(volatilePut(world, "new", space).status == .stored)
        #expect(world.store.staged.statistics.unwrittenPuts == 1)
        world.machine.release("/b/store")
        world.pass(8 * Self.second)
        let (answer, bytes) = world.get(key, space, length: Self.block)
        #expect(answer.status == .hit && bytes == payload(key, length: Self.block))
        world.store.staged.gate = nil
    }

    /// Callers look into the shared index, which has what lies on the device.
    @Test func aPrefixEndsAtABlockOnADeviceThatIsNotRead() throws {
        let (world, space, _) = try oneAway()
        func present() -> Int {
            world.store.judge.decide(
                PrefixAsk(tokensPerBlock: 16), namespaceSlot: space, keys: 3,
                now: world.clock.monotonic
            ) { PrefixBlock(bytes: 4096, device: $0 == 0 ? 0 : 1) }.present
        }
        #expect(present() == 1)
        world.machine.release("/b/store")
        world.pass(8 * Self.second)
        #expect(present() == 3)
    }

    /// A block that expires while it waits for its write has taken the place of the older one all
    /// the same.
    @Test func whatExpiresBeforeItIsWrittenUncoversNothing() throws {
        let world = try TieredWorld()
        let space = world.namespace()
        world.put("a", space, payload("a", length: Self.block))
        world.settle()
        world.machine.hang("/store")
        let newer = volatilePut(world, "a", space, revision: 1) {
            $0.replace = true
            $0.timeToLive = 1
        }
        #expect(newer.status == .stored)
        world.pass(3 * Self.second)
        let memory = UnsafeMutableRawPointer.allocate(byteCount: 1 << 16, alignment: 4096)
        let piece = UnsafeMutablePointer<Piece>.allocate(capacity: 1)
        piece.initialize(
            to: Piece(
                region: .process, offset: UInt64(UInt(bitPattern: memory)),
                length: UInt64(Self.block)))
        let token = world.submit(.get, Array("a".utf8), space, piece) { $0.mode = .direct }
        world.machine.release("/store")
        world.settle()
        #expect(world.sink.answers[token]?.status == .miss)
        memory.deallocate()
        piece.deallocate()
    }

    /// What expires while it waits for its write is no more there for a put than for a get.
    @Test func whatExpiresBeforeItIsWrittenIsPutAnew() throws {
        let world = try TieredWorld()
        let space = world.namespace()
        world.machine.hang("/store")
        let first = volatilePut(world, "a", space, revision: 0) { $0.timeToLive = 1 }
        #expect(first.status == .stored)
        #expect(volatilePut(world, "a", space, revision: 0).status == .alreadyPresent)
        world.pass(3 * Self.second)
        let key = Array("a".utf8)
        let value = payload("a", revision: 1, length: Self.block)
        let memory = UnsafeMutableRawBufferPointer.allocate(
            byteCount: Self.block, alignment: 4096)
        memory.copyBytes(from: value)
        let piece = UnsafeMutablePointer<Piece>.allocate(capacity: 1)
        piece.initialize(
            to: Piece(
                region: .process, offset: UInt64(UInt(bitPattern: memory.baseAddress)),
                length: UInt64(Self.block)))
        let token = world.submit(.put, key, space, piece) {
            $0.length = UInt32(Self.block)
            $0.durability = .volatile
        }
        world.machine.release("/store")
        world.settle()
        let second = try #require(world.sink.answers[token])
        #expect(second.status == .stored && second.version > first.version)
        let (found, bytes) = world.get("a", space, length: Self.block)
        #expect(found.status == .hit && bytes == value)
        memory.deallocate()
        piece.deallocate()
    }

    // MARK: Copies

    @Test func aBlockOnDiskThatIsPutAgainIsInMemoryAfterwards() throws {
        let world = try TieredWorld()
        let space = world.namespace()
        let value = payload("a", length: Self.block)
        let first = world.put("a", space, value)
        world.settle()
        world.emptyStaging(space)
        #expect(!world.isResident("a", space))
        let again = world.put("a", space, value)
        #expect(again.status == .alreadyPresent && again.version == first.version)
        #expect(world.isResident("a", space))
        let reads = world.store.staged.log.statistics.readBytes
        let (answer, bytes) = world.get("a", space, length: Self.block, mode: .cached)
        #expect(answer.status == .hit && bytes == value && answer.version == first.version)
        #expect(world.store.staged.log.statistics.readBytes == reads)
        #expect(world.store.staged.statistics.copiesKept == 1)
    }

    /// The key's first value stands: other bytes of the same length are no copy of it.
    @Test func otherBytesUnderTheKeyAreNotKept() throws {
        let world = try TieredWorld()
        let space = world.namespace()
        let value = payload("a", length: Self.block)
        world.put("a", space, value)
        world.settle()
        world.emptyStaging(space)
        #expect(
            world.put("a", space, payload("a", revision: 1, length: Self.block)).status
                == .alreadyPresent)
        #expect(!world.isResident("a", space))
        #expect(world.get("a", space, length: Self.block, mode: .cached).1 == value)
        #expect(world.store.staged.statistics.copiesKept == 0)
    }

    @Test func withoutReadCopiesNoneIsKept() throws {
        let world = try TieredWorld(TieredWorld.configuration(inclusive: false))
        let space = world.namespace()
        world.put("a", space, payload("a", length: Self.block))
        world.settle()
        world.emptyStaging(space)
        world.put("a", space, payload("a", length: Self.block))
        #expect(!world.isResident("a", space))
    }

    // MARK: The backlog

    @Test func whatMayWaitFollowsWhatIsWritten() {
        var backlog = WriteBacklog(longest: 2, floor: 1000, ceiling: 100_000)
        #expect(backlog.limit == 6250)
        var now: UInt64 = 1_000_000_000
        var total: UInt64 = 0
        for _ in 0..<40 {  // 10,000 bytes a second
            backlog.observe(total: total, waiting: 5000, now: now)
            now += 100_000_000
            total += 1000
        }
        #expect(abs(backlog.limit - 20_000) < 200)
        // A copy that takes longer to read than to compute is worth less memory.
        for (gain, share) in [(0, 1), (1e6, 1), (0.25, 1), (0.125, 0.5), (1e-9, 0)] {
            backlog.readingGain = gain
            #expect(abs(Double(backlog.limit) - max(1000, 20_000 * share)) < 200, "\(gain)")
        }
        backlog.readingGain = 0
        // Idle time tells nothing.
        backlog.observe(total: total, waiting: 0, now: now)
        now += 100_000_000_000
        backlog.observe(total: total, waiting: 5000, now: now)
        #expect(abs(backlog.limit - 20_000) < 200)
        for _ in 0..<8000 {  // 10 bytes a second
            backlog.observe(total: total, waiting: 5000, now: now)
            now += 100_000_000
            total += 1
        }
        #expect(backlog.limit == 1000)
        // A burst that was gone at the next look was written at least so fast.
        backlog.observe(total: total, waiting: 0, now: now)
        backlog.observe(total: total, waiting: 30_000, now: now + 1_000_000)
        backlog.observe(total: total + 30_000, waiting: 0, now: now + 2_000_000)
        #expect(backlog.limit == backlog.ceiling)
    }
}
