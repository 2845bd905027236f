// Demand reads beside a writer, in virtual time: how long a get waits when groups are being written
// all the while, and what the writer keeps of its rate.

import BlockIO
import Glibc
import SimulatedDisk
import Staging
import Testing

@testable import LogStore

@Suite struct PriorityTests {
    private static let length = 64 << 10
    private static let readers = 4
    private static let writers = 32
    private static let keys = 256
    private static let span: UInt64 = 400_000_000

    private struct Shares {
        var p99: UInt64 = 0
        var gets = 0
        var puts = 0
    }

    /// A closed loop of gets and one of puts over the same time.
    private final class Load {
        let world: World
        let space: UInt16
        let memory: UnsafeMutableRawPointer
        let pieces: UnsafeMutablePointer<Piece>
        let names: [[UInt8]]
        var gets: [UInt64: (slot: Int, begun: UInt64)] = [:]
        var puts: [UInt64: Int] = [:]
        var random = SplitMix64(seed: 7)
        var nextFresh = 0

        init(_ world: World, _ space: UInt16) {
            self.world = world
            self.space = space
            let count = readers + writers
            memory = .allocate(byteCount: count * length, alignment: 4096)
            memset(memory, 7, count * length)
            pieces = .allocate(capacity: count)
            for slot in 0..<count {
                (pieces + slot).initialize(
                    to: Piece(
                        region: .process,
                        offset: UInt64(UInt(bitPattern: memory + slot * length)),
                        length: UInt64(length)))
            }
            names = (0..<100_000).map { Array("key-\($0)".utf8) }
        }

        deinit {
            memory.deallocate()
            pieces.deallocate()
        }

        func get(_ slot: Int) {
            let token = world.token()
            submit(.get, names[random.below(keys)], slot, token)
            gets[token] = (slot, world.clock.monotonic)
        }

        func put(_ slot: Int) {
            let token = world.token()
            nextFresh += 1
            submit(.put, names[keys + nextFresh % (names.count - keys)], slot, token)
            puts[token] = slot
        }

        private func submit(
            _ kind: StoreOperationKind, _ name: [UInt8], _ slot: Int, _ token: UInt64
        ) {
            name.withUnsafeBytes { key in
                var operation = StoreOperation(
                    kind: kind, token: token, namespaceSlot: space, key: key)
                operation.pieces = UnsafePointer(pieces + slot)
                operation.pieceCount = 1
                operation.mode = .direct
                operation.durability = .written
                if kind == .put { operation.length = UInt32(length) }
                #expect(world.store.submit(operation))
            }
        }

        func run(reading: Bool, writing: Bool, dumping: Bool = false) -> Shares {
            let begin = world.clock.monotonic
            let warm = begin + span / 4
            let end = begin + span
            var shares = Shares()
            var waits: [UInt64] = []
            if reading { for slot in 0..<readers { get(slot) } }
            if writing { for slot in 0..<writers { put(readers + slot) } }
            while !gets.isEmpty || !puts.isEmpty {
                if !world.store.pump() {
                    world.driver.wait(until: world.clock.monotonic + 1_000_000)
                }
                let now = world.clock.monotonic
                if dumping, now < end, world.store.log.checkpointer.phase == .idle {
                    world.store.checkpoint(token: 1 << 50)
                }
                for (token, answer) in world.sink.answers {
                    if let (slot, begun) = gets.removeValue(forKey: token) {
                        #expect(answer.status == .hit)
                        if begun >= warm {
                            waits.append(now - begun)
                            shares.gets += 1
                        }
                        if now < end { get(slot) }
                    } else if let slot = puts.removeValue(forKey: token) {
                        #expect(answer.status == .stored)
                        if now >= warm && now < end { shares.puts += 1 }
                        if now < end { put(slot) }
                    }
                }
                world.sink.answers.removeAll(keepingCapacity: true)
            }
            waits.sort()
            if !waits.isEmpty { shares.p99 = waits[waits.count * 99 / 100] }
            world.settle()
            return shares
        }
    }

    /// One run on a new store, with groups paced or not.
    private func shares(
        paced: Int, reading: Bool, writing: Bool, dumping: Bool = false
    ) throws -> Shares {
        try load(paced: paced).run(reading: reading, writing: writing, dumping: dumping)
    }

    private func load(paced: Int) throws -> Load {
        var configuration = World.configuration(segments: 40, staging: 0)
        configuration.log.groupBytes = 1 << 20
        configuration.log.pacedWrites = paced
        configuration.log.indexEntries = 1 << 14
        let world = try World(configuration, latency: .nvme)
        let space = world.namespace()
        let value = [UInt8](repeating: 1, count: Self.length)
        // Pinned, so that the writer's evictions leave what is read.
        for key in 0..<Self.keys {
            #expect(world.put("key-\(key)", space, value).status == .stored)
            let pinned = world.run(.pin, "key-\(key)", space) {
                $0.deadline = world.clock.monotonic + 3_600_000_000_000
            }
            #expect(pinned.status == .done)
        }
        return Load(world, space)
    }

    /// Dumps, one after the other, have the device when nobody else wants it.
    @Test func demandBesideCheckpoints() throws {
        let alone = try shares(paced: 3, reading: true, writing: false)
        let both = try shares(paced: 3, reading: true, writing: false, dumping: true)
        let unpaced = try shares(paced: 0, reading: true, writing: false, dumping: true)
        print(
            "demand p99: alone \(alone.p99 / 1000) µs, beside checkpoints \(both.p99 / 1000) µs, "
                + "unpaced \(unpaced.p99 / 1000) µs")
        #expect(Double(both.p99) <= 1.3 * Double(alone.p99))
        #expect(both.p99 < unpaced.p99)
    }

    @Test func demandBesideAWriter() throws {
        let alone = try shares(paced: 3, reading: true, writing: false)
        let writer = try shares(paced: 3, reading: false, writing: true)
        let both = try shares(paced: 3, reading: true, writing: true)
        let unpaced = try shares(paced: 0, reading: true, writing: true)
        let wait = Double(both.p99) / Double(alone.p99)
        let kept = Double(both.puts) / Double(writer.puts)
        print(
            "demand p99: alone \(alone.p99 / 1000) µs, beside a writer \(both.p99 / 1000) µs "
                + "(x \(wait)), unpaced \(unpaced.p99 / 1000) µs; the writer keeps \(kept), "
                + "\(both.puts) of \(writer.puts) puts, "
                + "unpaced \(Double(unpaced.puts) / Double(writer.puts))")
        #expect(wait <= 2)
        #expect(kept >= 0.5)
        #expect(both.p99 < unpaced.p99)
    }

    /// A store that has seen its writer alone lets it have half of that rate beside readers, though
    /// it begins with less; one that has not keeps the least.
    @Test func theWriterComesToHalfOfItsRate() throws {
        let load = try load(paced: 1)
        let unknown = load.run(reading: true, writing: true)
        #expect(load.world.store.log.pacers[0].share.limit == 1)
        let writer = load.run(reading: false, writing: true)
        #expect(load.world.store.log.pacers[0].share.alone > 0)
        let alone = load.run(reading: true, writing: false)
        let both = load.run(reading: true, writing: true)
        let kept = Double(both.puts) / Double(writer.puts)
        let least = Double(unknown.puts) / Double(writer.puts)
        let wait = Double(both.p99) / Double(alone.p99)
        print(
            "the writer keeps \(least) with one request, \(kept) with "
                + "\(load.world.store.log.pacers[0].share.limit), gets wait x \(wait)")
        #expect(least < 0.4)
        #expect(kept >= 0.45 && kept <= 0.7)
        #expect(wait <= 2)
    }

    /// A writer that asks for little does not get its readers longer queues.
    @Test func aWriterThatAsksForLittleGetsNoMore() {
        var share = WriteShare(least: 3)
        var now: UInt64 = 1
        func write(_ nanoseconds: UInt64, times: Int, isPaced: Bool, isFull: Bool = true) {
            for _ in 0..<times {
                now += nanoseconds
                share.wrote(128 << 10, now: now, isPaced: isPaced, isFull: isFull)
            }
        }
        // One gigabyte a second alone; beside readers a quarter, but with pauses.
        write(131_072, times: 2000, isPaced: false)
        #expect(share.alone > 0.99e9 && share.alone < 1.01e9)
        for _ in 0..<100 {
            write(524_288, times: 30, isPaced: true)
            write(10_000_000, times: 1, isPaced: true, isFull: false)
        }
        #expect(share.limit == 3)
        // Without pauses it gets more, up to the most, and none of it stays where it has enough.
        write(524_288, times: 2000, isPaced: true)
        #expect(share.limit == WriteShare.most)
        write(100_000, times: 10_000, isPaced: true)
        #expect(share.limit == 3)
    }

    /// Spans that differ for no cause do not move the limit about: reads would wait for the most of
    /// it.
    @Test func spansThatDifferForNoCauseMoveLittle() {
        var share = WriteShare(least: 3)
        var now: UInt64 = 1
        func write(_ nanoseconds: UInt64, times: Int, isPaced: Bool) {
            for _ in 0..<times {
                now += nanoseconds
                share.wrote(128 << 10, now: now, isPaced: isPaced, isFull: true)
            }
        }
        write(131_072, times: 2000, isPaced: false)
        // A quarter of the rate, until the limit is in the middle.
        for _ in 0..<2000 where share.limit < 8 { write(524_288, times: 1, isPaced: true) }
        let before = share.limit
        #expect(before == 8)
        // Three spans of a third and three of three quarters are the share on average.
        for _ in 0..<50 {
            write(393_216, times: 159, isPaced: true)
            #expect(abs(share.limit - before) <= 2, "\(before) became \(share.limit)")
            write(174_763, times: 357, isPaced: true)
            #expect(abs(share.limit - before) <= 2, "\(before) became \(share.limit)")
        }
    }

    /// Records do not queue behind values that give way to reads: a delete takes no longer.
    @Test func aDeleteBesidePacedValues() throws {
        func deleteTime(_ puts: Int) throws -> UInt64 {
            let world = try World(World.configuration(segments: 40, staging: 0))
            let space = world.namespace()
            #expect(world.put("key", space, revision: 0, length: 5000) == .stored)
            world.flush()
            let bytes = UnsafeMutableRawBufferPointer.allocate(
                byteCount: Self.length, alignment: 4096)
            defer { bytes.deallocate() }
            bytes.initializeMemory(as: UInt8.self, repeating: 9)
            world.store.log.demandBegan(0)
            for number in 0..<puts {
                try world.begin(.put, "put-\(number)", space, bytes: bytes)
            }
            world.store.pump()
            #expect(world.store.log.pacers[0].queue.isEmpty == (puts == 0))
            let begun = world.clock.monotonic
            let token = try world.begin(.delete, "key", space, bytes: bytes)
            while world.sink.answers[token] == nil {
                if !world.store.pump() { world.pause(10_000_000) }
            }
            let time = world.clock.monotonic - begun
            #expect(world.sink.answers[token]?.status == .deleted)
            world.store.log.demandEnded(0)
            world.settle()
            return time
        }
        let alone = try deleteTime(0)
        let beside = try deleteTime(100)
        #expect(beside <= 2 * alone, "\(beside / 1000) µs, alone \(alone / 1000) µs")
    }
}
