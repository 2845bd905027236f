// Discarding: recycled segments are forgotten at the set rate and keep their room; what a device
// gives for what it forgot is never seen, also after crashes; and a file system that has no holes,
// or does not give the room back, costs no more than that.

import BlockIO
import SegmentFormat
import SimulatedDisk
import Staging
import Testing

@testable import LogStore

@Suite struct DiscardTests {
    private static let length = 60_000
    private static let second: UInt64 = 1_000_000_000
    private static let much: UInt64 = 1 << 40

    private func open(
        rate: UInt64 = much, mode: StoreMode = .cache, noise: Bool = false
    ) throws -> (World, UInt16) {
        // Deletes one by one take a page each: a store of few segments would be full of them.
        var configuration = World.configuration(
            segments: mode == .store ? 28 : 12, mode: mode, staging: 0)
        configuration.log.discardBytesPerSecond = rate
        var plan = FaultPlan.none
        plan.holesAreNoise = noise
        // Holes take long there, so that writes come while one is made.
        var latency = LatencyModel.constant(100_000)
        if noise { latency.metadata = .constant(20_000_000) }
        let world = try World(configuration, faults: plan, latency: latency)
        return (world, world.namespace())
    }

    private func put(_ world: World, _ space: UInt16, _ numbers: Range<Int>) {
        for number in numbers {
            #expect(
                world.put("key-\(number)", space, revision: 0, length: Self.length) == .stored)
        }
    }

    private func wait(_ world: World, _ nanoseconds: UInt64) {
        let end = world.clock.monotonic + nanoseconds
        while world.clock.monotonic < end {
            if !world.store.pump() { world.driver.wait(until: min(world.store.nextDeadline, end)) }
        }
        world.settle()
    }

    /// Clean segments that had a life before: their files, and whether that has been forgotten.
    private func clean(_ world: World) -> [(name: String, isForgotten: Bool)] {
        var found: [(String, Bool)] = []
        world.store.log.segments.forEach { id in
            let segment = world.store.log.segments[id]
            guard segment.state == .clean else { return }
            found.append(
                (StoreFiles.segment(SegmentTable.local(id)), segment.discardPage == 0))
        }
        return found
    }

    /// Not even when it is the segment whose turn it would be.
    @Test func whatIsBeingForgottenIsNotWrittenTo() throws {
        let (world, space) = try open(noise: true)
        let log = world.store.log
        let bytes = UnsafeMutableRawBufferPointer.allocate(
            byteCount: Self.length, alignment: 4096)
        defer { bytes.deallocate() }
        var number = 0
        func putOne() throws {
            number += 1
            bytes.copyBytes(from: payload("key-\(number)", revision: 0, length: Self.length))
            let token = try world.begin(.put, "key-\(number)", space, bytes: bytes) { _ in }
            while world.sink.answers[token] == nil {
                if !world.store.pump() { world.pause(1_000) }
            }
            #expect(world.sink.answers[token]?.status == .stored)
        }
        while !log.discard.isUnderWay { try putOne() }
        let held = log.discard.segment
        log.reclaimers[0].clean.removeAll { $0 == held }
        log.reclaimers[0].clean.insert(held, at: 0)
        for stream in log.streams.indices where log.streams[stream].kind == .fresh {
            log.closeSegment(stream)
        }
        try putOne()
        #expect(log.discard.holds(held), "it takes longer than a put")
        #expect(world.entry("key-\(number)", space)?.place.segment != held)
        world.settle()
        let reason = world.missed("key-\(number)", space, revision: 0, length: Self.length)
        #expect(reason == nil)
        world.checkAccounts()
    }

    @Test func whatLayInRecycledSegmentsIsForgottenAndTheRoomIsKept() throws {
        let (world, space) = try open()
        put(world, space, 0..<1200)
        wait(world, Self.second)
        let log = world.store.log
        #expect(log.statistics.reclaimedSegments > 5)
        let pages = UInt64(log.segmentPages) - 2
        // All but those that were taken before their turn came.
        let forgotten = log.statistics.discardedBytes / (pages * UInt64(pageBytes))
        #expect(forgotten > 3 && forgotten <= log.statistics.reclaimedSegments)
        #expect(log.statistics.discardErrors == 0)
        let segments = clean(world)
        #expect(!segments.isEmpty && segments.allSatisfy(\.isForgotten))
        for segment in segments {
            #expect(world.machine.storedPages("/store", segment.name) == 2, "the headers stay")
        }
        #expect(world.store.nextDeadline == UInt64.max, "it sleeps")
        // The room is the store's still: nothing has been given back.
        let room = world.machine.availableBytes("/store")
        let before = log.statistics.discardedBytes
        put(world, space, 1200..<1600)
        wait(world, Self.second)
        #expect(log.statistics.discardedBytes > before)
        #expect(world.machine.availableBytes("/store") == room)
        var hits = 0
        for number in 0..<1600
        where world.missed("key-\(number)", space, revision: 0, length: Self.length) == nil {
            hits += 1
        }
        #expect(hits > 250)
        world.checkAccounts()
    }

    @Test func withoutARateNothingIsDiscarded() throws {
        let (world, space) = try open(rate: 0)
        put(world, space, 0..<1000)
        wait(world, Self.second)
        #expect(world.store.log.statistics.reclaimedSegments > 3)
        #expect(world.store.log.statistics.discardedBytes == 0)
    }

    @Test func itKeepsToItsRate() throws {
        let rate: UInt64 = 1 << 20
        let (world, space) = try open(rate: rate)
        put(world, space, 0..<1000)
        let start = world.store.log.statistics.discardedBytes
        let began = world.clock.monotonic
        for number in 1000..<1400 {
            put(world, space, number..<(number + 1))
            wait(world, Self.second / 10)
        }
        let seconds = Double(world.clock.monotonic - began) / 1e9
        let bytes = world.store.log.statistics.discardedBytes - start
        let stretch = UInt64(world.store.log.segmentPages) * UInt64(pageBytes)
        #expect(bytes > 0 && bytes <= UInt64(seconds * Double(rate)) + stretch)
    }

    /// Every block that was durable is there after each crash, whatever the holes hold.
    @Test(arguments: [1, 2] as [UInt64])
    func whatADeviceGivesForWhatItForgotIsNotSeen(seed: UInt64) throws {
        let (world, space) = try open(mode: .store, noise: true)
        var alive: Set<String> = []
        var deleted: Set<String> = []
        var discarded: UInt64 = 0
        for round in 0..<10 {
            for number in 0..<120 {
                let key = "\(round)-\(number)"
                let status = world.put(
                    key, space, revision: 0, length: Self.length, durability: .durable)
                #expect(status == .stored)
                alive.insert(key)
            }
            for key in alive where !key.hasPrefix("\(round)-") && !key.hasSuffix("7") {
                #expect(world.run(.delete, key, space).status == .deleted)
                alive.remove(key)
                deleted.insert(key)
            }
            wait(world, Self.second / 2)
            discarded += world.store.log.statistics.discardedBytes
            try world.crash(.random(seed: seed &* 100 &+ UInt64(round)))
            for key in alive {
                let reason = world.missed(key, space, revision: 0, length: Self.length)
                #expect(reason == nil, "\(key)")
            }
            for key in deleted where round % 3 == 2 {
                #expect(
                    world.missed(key, space, revision: 0, length: Self.length) != nil, "\(key)")
            }
        }
        #expect(discarded > 10 << 20)
        world.checkAccounts()
    }

    /// Somebody else takes the room between the hole and the allocation.
    @Test func aSegmentWithoutItsRoomTakesNoWrites() throws {
        let (world, space) = try open(rate: 1)
        put(world, space, 0..<900)
        wait(world, 1000)
        let log = world.store.log
        #expect(log.statistics.quarantinedSegments == 0)
        world.machine.setCapacity("/store", bytes: 1 << 40)
        let used = (1 << 40) - world.machine.availableBytes("/store")
        world.machine.setCapacity("/store", bytes: used - UInt64(pageBytes))
        // The first stretch was the rate's for days.
        let errors = log.statistics.discardErrors
        put(world, space, 900..<1400)
        for _ in 0..<200 where log.statistics.discardErrors == errors {
            wait(world, 100_000 * Self.second)
        }
        #expect(log.statistics.discardErrors == 1 && log.statistics.quarantinedSegments == 1)
        put(world, space, 1400..<1800)
        wait(world, 1_000_000 * Self.second)
        #expect(log.statistics.discardErrors == 1, "it is not tried again")
        for number in 1700..<1800 {
            #expect(
                world.missed("key-\(number)", space, revision: 0, length: Self.length) == nil)
        }
        world.checkAccounts()
    }
}
