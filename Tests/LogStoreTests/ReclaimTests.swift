// ReclaimTests: what outlives its segment and what does not, what that costs, and that nothing is
// lost on the way: reinsertion in cache mode, compaction in store mode, the plan between them.

import BlockIO
import SegmentFormat
import Staging
import Testing

@testable import LogStore
@testable import SimulatedDisk

@Suite struct ReclaimTests {
    /// Fifteen pages, which put one at a time have a page of descriptors each: 1.08 written for
    /// each byte before anything is written again.
    private static let length = 61_440

    private func configuration(
        segments: Int = 12, mode: StoreMode = .cache, writeAmplification: Double = 1.35
    ) -> StagedConfiguration {
        var made = World.configuration(segments: segments, mode: mode, staging: 0)
        made.log.writeAmplification = writeAmplification
        return made
    }

    /// Writes fresh keys of `turns` times the capacity, reading the hot ones all the while;
    /// returns how many hot keys are still there at the end.
    private func churn(_ world: World, _ space: UInt16, hot: Int, turns: Int) -> Int {
        for number in 0..<hot {
            #expect(world.put("hot-\(number)", space, revision: 0, length: Self.length) == .stored)
        }
        let fresh = turns * Int(world.configuration.log.capacityBytes) / Self.length
        for number in 0..<fresh {
            let status = world.put("cold-\(number)", space, revision: 0, length: Self.length)
            #expect(status == .stored)
            let key = "hot-\(number % hot)"
            _ = world.missed(key, space, revision: 0, length: Self.length)
        }
        return (0..<hot).reduce(0) { count, number in
            let reason = world.missed("hot-\(number)", space, revision: 0, length: Self.length)
            return reason == nil ? count + 1 : count
        }
    }

    @Test func whatIsAskedForOutlivesItsSegment() throws {
        let world = try World(configuration())
        let space = world.namespace()
        let kept = churn(world, space, hot: 20, turns: 4)
        let log = world.store.log.statistics
        #expect(kept == 20)
        #expect(log.reinsertedBlocks >= 20 && log.evictedBlocks > 1000)
        #expect(log.writeAmplification <= 1.35, "\(log.writeAmplification)")
        #expect(log.checkFailures == 0)
        world.checkAccounts()
        world.kill()
        try world.open()
        let again = (0..<20).filter { number in
            world.missed("hot-\(number)", space, revision: 0, length: Self.length) == nil
        }
        #expect(again.count == 20)
        world.checkAccounts()
    }

    @Test func withoutABudgetEverythingGoesInTurn() throws {
        let world = try World(configuration(writeAmplification: 1))
        let space = world.namespace()
        #expect(churn(world, space, hot: 30, turns: 2) == 0)
        #expect(world.store.log.statistics.reinsertedBlocks == 0)
        #expect(world.missed("hot-1", space, revision: 0, length: Self.length) == .evicted)
        #expect(world.missed("never", space, revision: 0, length: Self.length) == .neverPut)
        world.checkAccounts()
    }

    /// A cache: put on a miss, some keys far more often. More is asked for than the bound lets
    /// through.
    @Test func theBoundHolds() throws {
        let world = try World(configuration(writeAmplification: 1.2))
        let space = world.namespace()
        var random = SplitMix(3)
        var hits = 0
        for number in 0..<8000 {
            let isHot = random.below(2) == 0
            let key = isHot ? "hot-\(random.below(200))" : "cold-\(number)"
            if world.missed(key, space, revision: 0, length: Self.length) == nil {
                hits += 1
            } else {
                #expect(world.put(key, space, revision: 0, length: Self.length) == .stored)
            }
        }
        let log = world.store.log.statistics
        #expect(log.writeAmplification <= 1.2, "\(log.writeAmplification)")
        #expect(log.writeAmplification > 1.18, "the budget is used: \(log.writeAmplification)")
        #expect(log.reinsertedBlocks > 200 && log.evictedBlocks > 2000 && hits > 2000, "\(hits)")
        world.checkAccounts()
    }

    @Test func damagedBlocksAreNotCarriedOn() throws {
        let world = try World(configuration())
        let space = world.namespace()
        for number in 0..<8 {
            #expect(world.put("hot-\(number)", space, revision: 0, length: Self.length) == .stored)
            for _ in 0..<3 {
                #expect(
                    world.missed("hot-\(number)", space, revision: 0, length: Self.length) == nil)
            }
        }
        world.flip(try world.place("hot-3", space))
        let fresh = 2 * Int(world.configuration.log.capacityBytes) / Self.length
        for number in 0..<fresh {
            #expect(
                world.put("cold-\(number)", space, revision: 0, length: Self.length) == .stored)
            for hot in 0..<8 where hot != 3 && number % 8 == hot {
                _ = world.missed("hot-\(hot)", space, revision: 0, length: Self.length)
            }
        }
        for number in 0..<8 {
            let reason = world.missed("hot-\(number)", space, revision: 0, length: Self.length)
            if number == 3 {
                #expect(reason == .quarantined || reason == .evicted)
            } else {
                #expect(reason == nil, "hot-\(number)")
            }
        }
        #expect(world.store.log.statistics.checkFailures >= 2)
        world.checkAccounts()
    }

    /// The oldest segment has a pinned block whose record is lost, so it can be neither moved nor
    /// evicted: it stays, and nobody waits for the next look at it while others can be emptied.
    @Test func aVictimThatHasToStayHoldsNobodyUp() throws {
        let world = try World(World.configuration(segments: 8, staging: 0))
        let space = world.namespace()
        #expect(world.put("pinned", space, revision: 0, length: Self.length) == .stored)
        let place = try world.place("pinned", space)
        let segment = try #require(world.entry("pinned", space)).place.segment
        let log = world.store.log
        let pinned = world.run(.pin, "pinned", space) {
            $0.deadline = world.clock.monotonic + 3_600_000_000_000
        }
        #expect(pinned.status == .done)
        world.seal(.fresh)
        world.settle()
        for page in [place.page - 1, Int(log.segments[segment].footerFirstPage)] {
            let offset = page * 4096 + 100
            #expect(world.machine.flipBit(place.directory, place.name, offset: offset, bit: 3))
        }
        let fresh = 3 * Int(world.configuration.log.capacityBytes) / Self.length
        for number in 0..<fresh {
            let before = world.clock.monotonic
            let status = world.put("cold-\(number)", space, revision: 0, length: Self.length)
            #expect(status == .stored, "\(number)")
            #expect(world.clock.monotonic - before < 500_000_000, "\(number)")
        }
        #expect(log.segments[segment].holdsForgotten && log.segments[segment].liveBlocks == 1)
        #expect(world.missed("pinned", space, revision: 0, length: Self.length) == nil)
        world.checkAccounts()
    }

    /// A deleted key that was moved before stays deleted, and its tombstone is not needed for ever.
    @Test func tombstonesGoAlthoughOldBlocksStay() throws {
        let world = try World(configuration())
        let space = world.namespace()
        for number in 0..<20 {
            #expect(world.put("hot-\(number)", space, revision: 0, length: Self.length) == .stored)
        }
        let fresh = 6 * Int(world.configuration.log.capacityBytes) / Self.length
        var deleted = 0
        for number in 0..<fresh {
            let key = "cold-\(number)"
            #expect(world.put(key, space, revision: 0, length: Self.length) == .stored)
            _ = world.missed("hot-\(number % 20)", space, revision: 0, length: Self.length)
            if number % 2 == 0 {
                #expect(world.remove(key, space) == .deleted)
                deleted += 1
            }
        }
        let log = world.store.log.statistics
        #expect(deleted > 1000 && log.reinsertedBlocks >= 20)
        #expect(log.carriedRecords < UInt64(4 * deleted), "\(log.carriedRecords) of \(deleted)")
        for number in 0..<20 {
            #expect(
                world.missed("hot-\(number)", space, revision: 0, length: Self.length) == nil)
        }
        world.kill()
        try world.open()
        for number in stride(from: 0, to: fresh, by: 2) {
            let reason = world.missed("cold-\(number)", space, revision: 0, length: Self.length)
            #expect(reason != nil, "cold-\(number) is back")
        }
        world.checkAccounts()
    }

    // MARK: Store mode

    /// Nine tenths live, replaced at random: the dead space is found again, and nothing is lost.
    @Test(arguments: [false, true]) func aFullStoreIsCompacted(small: Bool) throws {
        let world = try World(configuration(segments: 16, mode: .store))
        let space = world.namespace()
        let length = small ? 5000 : Self.length
        var revisions: [Int] = []
        while world.put("key-\(revisions.count)", space, revision: 0, length: length) == .stored {
            revisions.append(0)
        }
        world.settle()
        let full = revisions.count
        // Of sixteen segments four or five are kept for records and moves, a large share.
        let left = small ? full * 6 / 10 : full * 8 / 10
        for number in left..<full {
            #expect(world.remove("key-\(number)", space) == .deleted)
        }
        revisions.removeLast(full - left)
        var random = SplitMix(7)
        for _ in 0..<(3 * full) {
            let number = Int(random.next() % UInt64(revisions.count))
            let status = world.put(
                "key-\(number)", space, revision: revisions[number] + 1, length: length,
                replace: true)
            #expect(status == .stored, "\(status): \(world.store.log.diagnosis)")
            if status == .stored { revisions[number] += 1 } else { break }
        }
        let log = world.store.log.statistics
        #expect(log.reinsertedBlocks > 0 && log.evictedBlocks == 0)
        for number in revisions.indices {
            #expect(
                world.missed(
                    "key-\(number)", space, revision: revisions[number], length: length) == nil)
        }
        world.checkAccounts()
        world.kill()
        try world.open()
        for number in revisions.indices {
            #expect(
                world.missed(
                    "key-\(number)", space, revision: revisions[number], length: length) == nil)
        }
        world.checkAccounts()
    }

    @Test func heatOutlivesClosing() throws {
        let world = try World(configuration())
        let space = world.namespace()
        #expect(world.put("hot", space, revision: 0, length: 4096) == .stored)
        for _ in 0..<5 { _ = world.missed("hot", space, revision: 0, length: 4096) }
        #expect(world.entry("hot", space)?.heat == 5)
        world.checkpoint()
        world.close()
        try world.open()
        #expect(world.entry("hot", space)?.heat == 5)
        #expect(world.missed("hot", space, revision: 0, length: 4096) == nil)
    }

    // MARK: The plan

    @Test func thePlanKeepsTheHottestAndHeadsFirst() {
        var plan = ReclaimPlan(records: 100)
        defer { plan.deallocate() }
        func key(_ number: Int) -> Fingerprint {
            var random = SplitMix(UInt64(number))
            return Fingerprint(hi: random.next(), lo: random.next())
        }
        // A chain of ten of heat 3, and five of heat 9 that stand alone; ten pages each.
        for number in 0..<10 {
            plan.add(key(number), parent: number > 0 ? key(number - 1) : nil, heat: 3, pages: 10)
        }
        for number in 10..<15 { plan.add(key(number), parent: nil, heat: 9, pages: 10) }
        plan.add(key(20), parent: nil, heat: 0, pages: 10)
        plan.decide(budget: 80)
        var kept: [Int] = []
        for number in 0..<21 {
            let heat: UInt8 = number < 10 ? 3 : number < 15 ? 9 : 0
            if plan.keeps(key(number), heat: heat, pages: 10) { kept.append(number) }
        }
        #expect(kept == [0, 1, 2, 10, 11, 12, 13, 14])
        #expect(plan.left == 0)
        plan.begin()
        let unseen = plan.keeps(key(10), heat: 9, pages: 1)
        #expect(!unseen, "nothing of a victim not looked at")
    }

    @Test func heatSaturatesAndFades() throws {
        let index = try BlockIndex(capacity: 5000)
        let heat = IndexHeat(index: index, halfLifeBytes: 1000)
        let key = Fingerprint(hi: 5, lo: 77)
        let entry = IndexEntry(
            place: Place(segment: 1, page: 1), length: 10, namespaceSlot: 0, versionLow: 1,
            checksum: 1)
        #expect(index.insert(key, entry) == .inserted)
        for _ in 0..<40 { heat.touched(key) }
        #expect(index.find(key)?.heat == 15)
        #expect(entry.isSameBlock(as: index.find(key)))
        heat.age(admittedBytes: 1000)
        #expect(index.find(key)?.heat == 7)
        heat.age(admittedBytes: 1100)
        heat.age(admittedBytes: 2000)
        #expect(index.find(key)?.heat == 3)
        heat.touched(Fingerprint(hi: 9, lo: 9))
        #expect(index.count == 1)
    }

    /// A directory whose sync keeps failing is not worked on without a pause.
    @Test func makingSegmentsPausesAfterAFailedSync() throws {
        let world = try World(configuration())
        var faults = FaultPlan.none
        faults[.syncError] = 1
        world.store.shutdown()
        try world.reopen(faults, enabled: false)
        world.settle()
        let log = world.store.log
        world.driver.faultsEnabled = true
        let begun = world.clock.monotonic
        while world.clock.monotonic < begun + 50_000_000 {
            log.wantReclaim = true
            if !world.store.pump() { world.pause(1_000_000) }
        }
        #expect(log.statistics.flushErrors >= 1 && log.statistics.flushErrors <= 2)
        #expect(log.devices[0].state == .healthy)
        #expect(world.store.nextDeadline < world.clock.monotonic + 1_000_000_000)
        world.driver.faultsEnabled = false
        let made = log.reclaimers[0].nextLocal
        for _ in 0..<2000 where log.reclaimers[0].nextLocal <= made {
            log.wantReclaim = true
            if !world.store.pump() { world.pause(1_000_000) }
        }
        #expect(log.reclaimers[0].nextLocal > made, "it goes on")
        world.settle()
    }
}
