// The scrubber: what has rotted is found without being asked for, and nothing else is; it keeps to
// its rate, lets others go first, goes beside reclaim, and goes on where it was.

import LogStore
import SegmentFormat
import SimulatedDisk
import Staging
import Testing

@Suite struct ScrubTests {
    private static let length = 20_000
    private static let count = 400
    private static let second: UInt64 = 1_000_000_000

    /// 400 blocks in some sealed segments and an open one; staging off, so that gets read the disk.
    private func filled(
        rate: UInt64 = 400 << 20, mode: StoreMode = .cache, faults: FaultPlan = .none
    ) throws -> (World, UInt16) {
        var configuration = World.configuration(mode: mode, staging: 0)
        configuration.log.scrubBytesPerSecond = rate
        let world = try World(configuration, faults: faults)
        world.driver.faultsEnabled = false
        let space = world.namespace()
        for number in 0..<Self.count {
            #expect(
                world.put("key-\(number)", space, revision: 0, length: Self.length) == .stored)
        }
        world.flush()
        return (world, space)
    }

    private func wait(_ world: World, _ nanoseconds: UInt64) {
        let end = world.clock.monotonic + nanoseconds
        while world.clock.monotonic < end {
            if !world.store.pump() { world.driver.wait(until: min(world.store.nextDeadline, end)) }
        }
        world.settle()
    }

    /// Until everything has been gone through from here on.
    private func waitForPass(_ world: World) {
        let passes = world.store.log.statistics.scrub.passes
        for _ in 0..<1000 where world.store.log.statistics.scrub.passes < passes + 2 {
            wait(world, Self.second / 20)
        }
        #expect(world.store.log.statistics.scrub.passes >= passes + 2)
    }

    private func rot(_ world: World) -> [StoreEvent] {
        world.sink.events.filter { if case .rotFound = $0 { true } else { false } }
    }

    private func misses(_ world: World, _ space: UInt16) -> [Int: MissReason] {
        var found: [Int: MissReason] = [:]
        for number in 0..<Self.count {
            found[number] = world.missed("key-\(number)", space, revision: 0, length: Self.length)
        }
        return found
    }

    /// Keys whose blocks lie in sealed segments.
    private func sealed(_ world: World, _ space: UInt16) -> [Int] {
        (0..<Self.count).filter { number in
            world.entry("key-\(number)", space).map {
                world.store.log.segments[$0.place.segment].state == .sealed
            } ?? false
        }
    }

    @Test func aStoreThatIsWellIsLeftAsItIs() throws {
        let (world, space) = try filled()
        let keys = sealed(world, space)
        try #require(keys.count > 100)
        waitForPass(world)
        let scrub = world.store.log.statistics.scrub
        #expect(scrub.blocks >= UInt64(keys.count) && scrub.segments >= 3)
        #expect(scrub.damagedBlocks == 0 && scrub.damagedPages == 0)
        #expect(rot(world).isEmpty && misses(world, space).isEmpty)
        #expect(world.store.log.statistics.readRetries == 0)
        world.checkAccounts()
    }

    @Test func withoutARateNothingIsRead() throws {
        let (world, _) = try filled(rate: 0)
        wait(world, 10 * Self.second)
        #expect(world.store.log.statistics.scrub == ScrubStatistics())
        #expect(world.store.nextDeadline == UInt64.max, "it sleeps")
    }

    @Test func rottenValuesAreTakenOut() throws {
        let (world, space) = try filled()
        let keys = sealed(world, space)
        let rotten = [keys[3], keys[77], keys[78]]
        for (bit, number) in rotten.enumerated() {
            world.flip(
                try world.place("key-\(number)", space), byte: [0, 9999, Self.length - 1][bit])
        }
        waitForPass(world)
        let log = world.store.log.statistics
        #expect(log.scrub.damagedBlocks == 3 && log.scrub.damagedPages == 0)
        #expect(log.quarantinedBlocks == 3 && rot(world).count == 3)
        let lost = misses(world, space)
        #expect(Set(lost.keys) == Set(rotten), "\(lost)")
        #expect(lost.values.allSatisfy { $0 == .quarantined })
        world.checkAccounts()
        // Found once, not at each pass; and it can be put again.
        waitForPass(world)
        #expect(world.store.log.statistics.scrub.damagedBlocks == 3)
        for number in rotten {
            #expect(
                world.put("key-\(number)", space, revision: 0, length: Self.length) == .stored)
        }
        #expect(misses(world, space).isEmpty)
    }

    @Test func aPageThatCannotBeReadIsRot() throws {
        let (world, space) = try filled()
        let keys = sealed(world, space)
        let place = try world.place("key-\(keys[5])", space)
        world.machine.breakPages(
            place.directory, place.name, offset: (place.page + 1) * pageBytes, length: 1)
        waitForPass(world)
        #expect(world.store.log.statistics.scrub.damagedBlocks == 1)
        #expect(misses(world, space) == [keys[5]: .quarantined])
    }

    @Test func oneShardOfManyIsMarked() throws {
        var configuration = World.configuration(staging: 0)
        configuration.log.scrubBytesPerSecond = 400 << 20
        let world = try World(configuration)
        let space = world.namespace()
        let shards: [UInt32] = [8192, 4096, 12_288, 5000]
        let length = shards.reduce(0) { $0 + Int($1) }
        let value = payload("many", revision: 0, length: length)
        #expect(
            world.put("many", space, Array(value.prefix(length)), shards: shards).status == .stored)
        let place = try world.place("many", space)
        world.seal(.fresh)
        let entry = try #require(world.entry("many", space))
        try #require(world.store.log.segments[entry.place.segment].state == .sealed)
        world.flip(place, byte: 9000)
        waitForPass(world)
        #expect(world.store.log.statistics.scrub.damagedBlocks == 1)
        #expect(world.entry("many", space)?.isDamaged == true, "the others may be read")
        world.checkAccounts()
    }

    @Test(arguments: [DescriptorPageKind.footer, .group])
    func rotInDescriptorsLosesNothing(kind: DescriptorPageKind) throws {
        let (world, space) = try filled()
        let segment = try #require(world.segment(.sealed))
        let pages = world.descriptorPages(segment, kind)
        world.flip(world.place(segment: segment, page: try #require(pages.first)))
        waitForPass(world)
        let scrub = world.store.log.statistics.scrub
        #expect(scrub.damagedPages >= 1 && scrub.damagedBlocks == 0, "\(scrub)")
        #expect(!rot(world).isEmpty)
        #expect(misses(world, space).isEmpty)
        // Rot in a value of that segment is found all the same.
        let keys = sealed(world, space).filter {
            world.entry("key-\($0)", space)?.place.segment == segment
        }
        let last = try #require(keys.last)
        world.flip(try world.place("key-\(last)", space))
        waitForPass(world)
        #expect(world.store.log.statistics.scrub.damagedBlocks == 1)
        #expect(misses(world, space) == [last: .quarantined])
        world.checkAccounts()
    }

    /// The pass that finds a footer rotten goes on by the groups of that segment.
    @Test func rotBehindARottenFooterIsFoundAtOnce() throws {
        let (world, space) = try filled()
        let segment = try #require(world.segment(.sealed))
        let keys = sealed(world, space).filter {
            world.entry("key-\($0)", space)?.place.segment == segment
        }
        let last = try #require(keys.last)
        let pages = world.descriptorPages(segment, .footer)
        world.flip(world.place(segment: segment, page: try #require(pages.first)))
        world.flip(try world.place("key-\(last)", space))
        let log = world.store.log
        for _ in 0..<200_000 where log.statistics.scrub.damagedPages == 0 {
            if !world.store.pump() { world.driver.wait(until: world.store.nextDeadline) }
        }
        #expect(log.statistics.scrub.damagedPages > 0)
        let passes = log.statistics.scrub.passes
        for _ in 0..<200_000 where log.statistics.scrub.passes == passes {
            if !world.store.pump() { world.driver.wait(until: world.store.nextDeadline) }
        }
        #expect(log.statistics.scrub.damagedBlocks == 1)
        world.settle()
        #expect(misses(world, space) == [last: .quarantined])
    }

    @Test(arguments: [true, false])
    func rotInHeaderOrTrailerIsTold(isHeader: Bool) throws {
        let (world, space) = try filled()
        let segment = try #require(world.segment(.sealed))
        let page = isHeader ? 0 : Int(world.store.log.segmentPages) - 1
        world.flip(world.place(segment: segment, page: page), byte: 20)
        waitForPass(world)
        #expect(world.store.log.statistics.scrub.damagedPages >= 1)
        #expect(world.store.log.statistics.scrub.damagedBlocks == 0)
        #expect(misses(world, space).isEmpty)
    }

    /// Recovery has told of it; nothing lies in it until it has a new life.
    @Test func aSegmentWithoutALifeIsLeft() throws {
        let (world, _) = try filled()
        let segment = try #require(world.segment(.sealed))
        let ends = [0, Int(world.store.log.segmentPages) - 1].map {
            world.place(segment: segment, page: $0)
        }
        world.close()
        for end in ends { world.flip(end, byte: 20) }
        try world.open()
        try #require(world.store.log.segments[segment].state == .sealed)
        try #require(world.store.log.segments[segment].generation == 0)
        waitForPass(world)
        #expect(world.store.log.statistics.recovery.damagedSegments == 1)
        #expect(world.store.log.statistics.scrub.damagedPages == 0)
        #expect(rot(world).isEmpty)
        world.checkAccounts()
    }

    @Test func aReadThatWentAstrayIsNoRot() throws {
        var plan = FaultPlan.none
        plan[.misdirectedRead] = 0.01
        plan[.staleRead] = 0.01
        let (world, space) = try filled(faults: plan)
        world.driver.faultsEnabled = true
        waitForPass(world)
        world.driver.faultsEnabled = false
        let log = world.store.log.statistics
        #expect(log.readRetries > 5, "\(log.readRetries)")
        // Twice in a row is rare, and may be.
        #expect(log.scrub.damagedBlocks <= 1, "\(log.scrub)")
        #expect(misses(world, space).count == Int(log.scrub.damagedBlocks))
    }

    @Test func theRateIsKept() throws {
        let rate: UInt64 = 1 << 20
        let (world, _) = try filled(rate: rate)
        let before = world.store.log.statistics.scrub.bytes
        wait(world, 20 * Self.second)
        let read = world.store.log.statistics.scrub.bytes - before
        #expect(read <= 20 * rate + UInt64(64 << 10) && read >= 19 * rate, "\(read)")
    }

    /// Blocks are moved, evicted, deleted and replaced while they are read.
    @Test(arguments: [StoreMode.cache, .store])
    func besideReclaim(mode: StoreMode) throws {
        let (world, space) = try filled(rate: 1 << 30, mode: mode)
        var random = SplitMix64(seed: 5)
        var revisions: [Int: Int] = [:]
        for turn in 0..<3000 {
            let number = random.below(mode == .cache ? 2000 : 300)
            let revision = turn + 1
            let status = world.put(
                "key-\(number)", space, revision: revision, length: Self.length, replace: true)
            if status == .stored { revisions[number] = revision }
            if turn % 7 == 0 { _ = world.remove("key-\(random.below(300))", space) }
        }
        waitForPass(world)
        let log = world.store.log.statistics
        #expect(log.reclaimedSegments > 10 && log.scrub.blocks > 100, "\(log.scrub)")
        #expect(log.scrub.damagedBlocks == 0 && log.scrub.damagedPages == 0)
        #expect(log.quarantinedBlocks == 0)
        for (number, revision) in revisions {
            _ = world.missed("key-\(number)", space, revision: revision, length: Self.length)
        }
        world.checkAccounts()
        #expect(world.driver.violations.isEmpty)
    }

    @Test func itGoesOnWhereItWas() throws {
        let (world, _) = try filled(rate: 1 << 20)
        for _ in 0..<400 where world.store.log.statistics.scrub.segments == 0 {
            wait(world, Self.second / 10)
        }
        let before = world.store.log.statistics.scrub
        #expect(before.segments == 1 && before.passes == 0, "\(before)")
        world.close()
        try world.open()
        var sealed = 0
        world.store.log.segments.forEach { id in
            if world.store.log.segments[id].state == .sealed { sealed += 1 }
        }
        try #require(sealed >= 2)
        for _ in 0..<400 where world.store.log.statistics.scrub.passes == 0 {
            wait(world, Self.second / 10)
        }
        // The rest of the pass, and no more.
        let after = world.store.log.statistics.scrub
        #expect(after.passes == 1 && after.segments == UInt64(sealed - 1), "\(after)")
    }

    @Test func itStopsForClosing() throws {
        let (world, _) = try filled(rate: 1 << 30)
        wait(world, Self.second / 10)
        world.close()
        #expect(world.driver.inFlight == 0)
        try world.open()
        world.checkAccounts()
    }
}
