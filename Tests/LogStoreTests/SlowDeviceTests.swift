// One of two devices is a hundred times slower than it was, then hangs, then is back: what callers
// with a deadline wait, what the other device keeps of its rate, and that nothing else waits for
// ever: flushes, deletes, checkpoints, namespaces.

import BlockIO
import Glibc
import LogStore
import SegmentFormat
import SimulatedDisk
import Staging
import Testing

@Suite struct SlowDeviceTests {
    private static let length = 64 << 10
    private static let keys = 320
    private static let millisecond: UInt64 = 1_000_000
    private static let patience = 20 * millisecond
    private static let pair = ["/a", "/b"]

    /// Ten times slower than a fast drive, so that a second is fewer operations.
    private static let drive = LatencyModel(
        read: .uniform(600_000, 1_200_000), write: .uniform(150_000, 600_000),
        sync: .uniform(2_000_000, 10_000_000), metadata: .uniform(200_000, 2_000_000),
        bytesPerSecond: 600_000_000, channels: 64)

    private func twoDevices(
        segments: Int = 40, latency: LatencyModel = drive, staging: Int = 0
    ) throws -> (World, UInt16) {
        var configuration = World.configuration(
            directories: Self.pair, segments: segments, staging: staging)
        configuration.log.groupBytes = 1 << 20
        configuration.log.indexEntries = 1 << 14
        configuration.log.operations = 1024
        let world = try World(configuration, latency: latency)
        return (world, world.namespace())
    }

    /// What a stretch of time brought.
    private struct Shares {
        var first = 0
        var second = 0
        var puts = 0
        var timedOut = 0
        var misses = 0
        /// How long after its deadline the latest answer came.
        var late: UInt64 = 0
    }

    private enum Work { case first, second, put }

    /// Closed loops: readers of either device, and writers; every operation has a deadline.
    private final class Load {
        let world: World
        let space: UInt16
        let memory: UnsafeMutableRawPointer
        let pieces: UnsafeMutablePointer<Piece>
        var free: [Int]
        var homes: [[Int]] = [[], []]
        var waiting: [UInt64: (work: Work, slot: Int, key: Int, deadline: UInt64)] = [:]
        var held: [UInt64: Int] = [:]
        var random = SplitMix64(seed: 11)
        var nextFresh = 0
        /// Readers that were told of a miss, which takes no time: they ask again with the others.
        var resting = 0
        static let slots = 1024

        init(_ world: World, _ space: UInt16) {
            self.world = world
            self.space = space
            memory = .allocate(byteCount: Self.slots * length, alignment: 4096)
            pieces = .allocate(capacity: Self.slots)
            for slot in 0..<Self.slots {
                let address = UInt(bitPattern: memory + slot * length)
                (pieces + slot).initialize(
                    to: Piece(
                        region: .process, offset: UInt64(address), length: UInt64(length)))
            }
            free = Array(0..<Self.slots)
        }

        deinit {
            memory.deallocate()
            pieces.deallocate()
        }

        static func name(_ key: Int) -> [UInt8] { Array("key-\(key)".utf8) }
        static func value(_ key: Int) -> UInt8 { UInt8(truncatingIfNeeded: key &* 7 &+ 1) }

        func start(_ work: Work) {
            guard let slot = free.popLast() else {
                Issue.record("no memory left that is not the device's")
                return
            }
            var key = 0
            switch work {
            case .first: key = homes[0][random.below(homes[0].count)]
            case .second: key = homes[1][random.below(homes[1].count)]
            case .put:
                nextFresh += 1
                key = keys + nextFresh
            }
            let token = world.token()
            let deadline = world.clock.monotonic + patience
            let at = memory + slot * length
            memset(at, work == .put ? Int32(Self.value(key)) : 0, length)
            waiting[token] = (work, slot, key, deadline)
            Self.name(key).withUnsafeBytes { name in
                var operation = StoreOperation(
                    kind: work == .put ? .put : .get, token: token, namespaceSlot: space, key: name)
                operation.pieces = UnsafePointer(pieces + slot)
                operation.pieceCount = 1
                operation.mode = .direct
                operation.durability = .written
                operation.deadline = deadline
                if work == .put { operation.length = UInt32(length) }
                #expect(world.store.submit(operation))
            }
        }

        /// Lets the loops turn for so long; or to their end, which is when all have their answer.
        func run(_ span: UInt64, goOn: Bool = true) -> Shares {
            let end = goOn ? world.clock.monotonic + span : UInt64.max
            var shares = Shares()
            while goOn ? world.clock.monotonic < end : !waiting.isEmpty {
                if !world.store.pump() {
                    world.driver.wait(until: min(world.store.nextDeadline, end))
                }
                let now = world.clock.monotonic
                for token in world.sink.releases {
                    if let slot = held.removeValue(forKey: token) { free.append(slot) }
                }
                world.sink.releases.removeAll()
                let answers = world.sink.answers
                world.sink.answers.removeAll(keepingCapacity: true)
                for (token, answer) in answers {
                    guard let ended = waiting.removeValue(forKey: token) else { continue }
                    take(answer, ended.work, ended.slot, ended.key, &shares)
                    if now > ended.deadline { shares.late = max(shares.late, now - ended.deadline) }
                    if answer.memoryInUse {
                        held[token] = ended.slot
                    } else {
                        free.append(ended.slot)
                    }
                    guard goOn else { continue }
                    if answer.status == .miss {
                        resting += 1
                    } else {
                        start(ended.work)
                        while resting > 0 {
                            resting -= 1
                            start(.second)
                        }
                    }
                }
            }
            return shares
        }

        private func take(
            _ answer: StoreAnswer, _ work: Work, _ slot: Int, _ key: Int, _ shares: inout Shares
        ) {
            switch answer.status {
            case .hit:
                if work == .first { shares.first += 1 } else { shares.second += 1 }
                let bytes = UnsafeRawPointer(memory + slot * length)
                // The first byte is right and each is the one before it.
                let isRight =
                    bytes.load(as: UInt8.self) == Self.value(key)
                    && memcmp(bytes, bytes + 1, length - 1) == 0
                #expect(isRight, "key-\(key)")
            case .stored: shares.puts += 1
            case .timedOut: shares.timedOut += 1
            case .miss:
                #expect(work == .second && answer.reason == .deviceOut)
                shares.misses += 1
            case .throttled: break
            default: Issue.record("\(work) of key-\(key): \(answer)")
            }
        }
    }

    /// A store with pinned blocks on both devices, which the readers ask for.
    private func load(_ world: World, _ space: UInt16) throws -> Load {
        let load = Load(world, space)
        for key in 0..<Self.keys {
            let value = [UInt8](repeating: Load.value(key), count: Self.length)
            #expect(world.put("key-\(key)", space, value).status == .stored)
            let pinned = world.run(.pin, "key-\(key)", space) {
                $0.deadline = world.clock.monotonic + 3_600_000_000_000
            }
            #expect(pinned.status == .done)
            let entry = try #require(world.entry("key-\(key)", space))
            load.homes[SegmentTable.device(entry.place.segment)].append(key)
        }
        #expect(load.homes.allSatisfy { $0.count > 50 })
        return load
    }

    @Test(arguments: [0, 1])
    func aHundredTimesSlowerThenHung(slow: Int) throws {
        // Room for all puts that are measured: rewriting what is pinned takes turns of its own.
        let (world, space) = try twoDevices(segments: 320)
        let load = try load(world, space)
        let log = world.store.log
        // The readers called first ask the device that stays well.
        if slow == 0 { load.homes.reverse() }
        for _ in 0..<4 {
            load.start(.first)
            load.start(.second)
        }
        for _ in 0..<8 { load.start(.put) }
        _ = load.run(100 * Self.millisecond)
        let span = 400 * Self.millisecond
        let well = load.run(span)
        #expect(well.timedOut == 0 && well.misses == 0 && well.late == 0)
        #expect(log.devices.allSatisfy { $0.state == .healthy })

        world.machine.setLatencyMultiplier(Self.pair[slow], 100)
        let slower = load.run(span)
        #expect(log.devices[slow].state == .slow && log.devices[1 - slow].state == .healthy)
        world.machine.hang(Self.pair[slow])
        let hung = load.run(span)
        let silent = load.run(3 * span)
        #expect(log.devices[slow].state == .suspect && log.devices[1 - slow].state == .healthy)
        for (name, shares, times) in [
            ("100 x slower", slower, 1), ("hung", hung, 1), ("silent", silent, 3),
        ] {
            let gets = Double(shares.first) / Double(times * well.first)
            let puts = Double(shares.puts) / Double(times * well.puts)
            print(
                "\(name): the other device's gets x \(gets), all puts x \(puts), "
                    + "timed out \(shares.timedOut), misses \(shares.misses), "
                    + "late \(shares.late / 1000) µs")
            #expect(gets >= 0.9, "\(name)")
            // Half of them went to the other device before.
            #expect(2 * puts >= 0.9, "\(name)")
            #expect(shares.late <= 10 * Self.millisecond, "\(name)")
        }
        #expect(slower.timedOut > 0 || slower.second < well.second)
        #expect(hung.timedOut > 0 && silent.misses > 0)

        // Back: probes are answered, then demand.
        world.machine.setLatencyMultiplier(Self.pair[slow], 1)
        world.machine.release(Self.pair[slow])
        _ = load.run(6 * span)
        #expect(log.devices.allSatisfy { $0.state == .healthy })
        let again = load.run(span)
        #expect(Double(again.second) >= 0.9 * Double(well.second))
        // What its failed flush has thrown in doubt is not written to before the next opening.
        #expect(Double(again.puts) >= 0.5 * Double(well.puts))
        _ = load.run(0, goOn: false)
        world.settle()
        #expect(load.held.keys.allSatisfy { world.sink.releases.contains($0) })
        world.checkAccounts()
    }

    /// Submits without waiting: an operation over bytes that stay where they are.
    private func begin(
        _ world: World, _ kind: StoreOperationKind, _ key: String, _ space: UInt16,
        _ bytes: UnsafeMutableRawBufferPointer? = nil,
        _ change: (inout StoreOperation) -> Void = { _ in }
    ) -> UInt64 {
        let token = world.token()
        let piece = UnsafeMutablePointer<Piece>.allocate(capacity: 1)
        defer { if bytes == nil { piece.deallocate() } }
        piece.initialize(
            to: Piece(
                region: .process, offset: UInt64(UInt(bitPattern: bytes?.baseAddress)),
                length: UInt64(bytes?.count ?? 0)))
        Array(key.utf8).withUnsafeBytes { name in
            var operation = StoreOperation(
                kind: kind, token: token, namespaceSlot: space, key: name)
            operation.durability = .durable
            operation.mode = .direct
            if let bytes {
                operation.pieces = UnsafePointer(piece)
                operation.pieceCount = 1
                operation.length = UInt32(bytes.count)
            }
            change(&operation)
            #expect(world.store.submit(operation))
        }
        return token
    }

    private func wait(_ world: World, _ nanoseconds: UInt64) {
        let end = world.clock.monotonic + nanoseconds
        while world.clock.monotonic < end {
            if !world.store.pump() { world.driver.wait(until: min(world.store.nextDeadline, end)) }
        }
    }

    /// Nobody sets a deadline here: durable puts, deletes, flushes, namespaces and checkpoints end
    /// all the same, what they promised holds after a crash, and the store can be closed.
    @Test(arguments: [0, 1], [false, true])
    func aHungDeviceHoldsUpNothingElse(hung: Int, closes: Bool) throws {
        let (world, space) = try twoDevices(segments: 12, latency: .constant(100_000))
        for number in 0..<200 {
            #expect(world.put("key-\(number)", space, revision: 0, length: 50_000) == .stored)
        }
        world.flush()
        let here = (0..<200).filter { number in
            world.entry("key-\(number)", space).map {
                SegmentTable.device($0.place.segment) != hung
            } ?? false
        }
        let there = (0..<200).filter { !here.contains($0) }
        try #require(here.count > 20 && there.count > 20)
        world.machine.hang(Self.pair[hung])
        var deletes: [Int: UInt64] = [:]
        for number in here[..<5] + there[..<5] {
            deletes[number] = begin(world, .delete, "key-\(number)", space)
        }
        var puts: [Int: UInt64] = [:]
        for number in 0..<40 {
            let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 3000, alignment: 4096)
            bytes.copyBytes(from: payload("new-\(number)", revision: 0, length: 3000).prefix(3000))
            puts[number] = begin(world, .put, "new-\(number)", space, bytes)
        }
        let open = world.token()
        world.store.openNamespace(
            token: open, fields: [("model", "another")], aligned: false, timeToLive: 0, capBytes: 0)
        let flush = world.token()
        world.store.flush(token: flush, through: UInt64.max >> 1)
        let checkpoint = world.token()
        world.store.checkpoint(token: checkpoint)
        let second: UInt64 = 1_000_000_000
        wait(world, 4 * second)
        #expect(world.store.log.devices[hung].state == .suspect)
        for (number, token) in deletes {
            #expect(world.sink.answers[token]?.status == .deleted, "key-\(number)")
        }
        let stored = puts.filter { world.sink.answers[$1]?.status == .stored }
        let failed = puts.filter { world.sink.answers[$1]?.status == .failed }
        // What was written there and not flushed may fail, and says so.
        #expect(stored.count + failed.count == 40 && stored.count >= 1, "\(stored.count)")
        #expect(world.sink.outcomes[open]?.status == .done)
        #expect(world.sink.outcomes[flush] != nil && world.sink.outcomes[checkpoint] != nil)
        // From now on all is as with one device.
        let later = world.token()
        world.store.flush(token: later, through: UInt64.max >> 1)
        world.store.checkpoint(token: later + (1 << 32))
        wait(world, second)
        #expect(world.sink.outcomes[later]?.status == .done)
        #expect(world.sink.outcomes[later + (1 << 32)]?.status == .done)
        #expect(!world.store.log.recordsAreSpread, "both copies are on the one that answers")
        if closes {
            #expect(world.store.isIdleBesideSilent && !world.store.isIdle)
            world.store.leaveSilent()
            #expect(world.store.log.leavesRequests)
            world.store.shutdown()
        }
        world.machine.release(Self.pair[hung])
        try world.crash(.none)
        for number in 0..<200 {
            let reason = world.missed("key-\(number)", space, revision: 0, length: 50_000)
            #expect((reason != nil) == (deletes[number] != nil), "key-\(number)")
        }
        for number in stored.keys {
            let reason = world.missed("new-\(number)", space, revision: 0, length: 3000)
            #expect(reason == nil, "new-\(number)")
        }
        world.checkAccounts()
        // With both members there the records are carried on to the second.
        wait(world, 10 * second)
        #expect(world.store.log.recordsAreSpread)
    }

    /// A put of a block whose older copy lies on a device that is away is written even where puts
    /// stay in memory alone: expired there, it would let the older one be seen again.
    @Test func memoryAloneHidesNoOlderCopy() throws {
        let (world, space) = try twoDevices(
            segments: 12, latency: .constant(100_000), staging: 4 << 20)
        for number in 0..<200 {
            #expect(world.put("key-\(number)", space, revision: 0, length: 50_000) == .stored)
        }
        let there = (0..<200).filter { number in
            world.entry("key-\(number)", space).map {
                SegmentTable.device($0.place.segment) == 1
            } ?? false
        }
        try #require(there.count > 20)
        _ = world.store.arena?.removeAll(namespaceSlot: space)
        world.machine.hang(Self.pair[1])
        let memory = (0..<2).map { _ in
            UnsafeMutableRawBufferPointer.allocate(byteCount: 50_000, alignment: 4096)
        }
        _ = begin(world, .get, "key-\(there[1])", space, memory[0])
        let second: UInt64 = 1_000_000_000
        wait(world, 3 * second)
        #expect(world.store.log.devices[1].state == .suspect)
        world.store.dirtyLimit = 0
        let key = "key-\(there[0])"
        memory[1].copyBytes(from: payload(key, revision: 1, length: 50_000))
        let put = begin(world, .put, key, space, memory[1]) {
            $0.durability = .volatile
            $0.timeToLive = 20
        }
        wait(world, second)
        #expect(world.sink.answers[put]?.status == .stored)
        world.machine.release(Self.pair[1])
        wait(world, 8 * second)
        #expect(world.store.log.devices[1].state == .healthy)
        #expect(world.missed(key, space, revision: 1, length: 50_000) == nil)
        wait(world, 15 * second)
        #expect(world.store.statistics.volatileLost == 0)
        #expect(world.missed(key, space, revision: 0, length: 50_000) != nil)
        memory.forEach { $0.deallocate() }
    }
}
