// What was deleted and replaced while a member was out: its records lie on the members that were
// left, and once the member is back on two again, so that the store may next be opened without
// either.

import BlockIO
import SegmentFormat
import SimulatedDisk
import Staging
import Testing

@testable import LogStore

@Suite struct SpreadTests {
    private static let pair = ["/a", "/b"]
    private static let length = 40_000
    private static let count = 60

    private struct Outage {
        var world: World
        var space: UInt16
        let deleted = 0..<10
        let replaced = 10..<20
        let kept = 20..<SpreadTests.count
    }

    /// Sixty blocks on one member. While it is out, ten are deleted and ten replaced; then it is
    /// there again, and the store was killed.
    private func outage(
        of lost: Int, absent: Bool, mode: StoreMode, sealed: Bool = false
    ) throws -> Outage {
        let world = try World(
            World.configuration(directories: Self.pair, mode: mode, staging: 0))
        let machine = world.machine
        let made = Outage(world: world, space: world.namespace())
        world.store.log.stripeDevice = lost
        world.store.log.stripeBytes = 0
        for number in 0..<Self.count {
            #expect(put(made, number, revision: 0) == .stored)
            // Several segments: the errors of one alone do not take the device with it.
            if number % 10 == 9 { world.seal(.fresh) }
        }
        world.flush()
        if absent {
            world.close()
            machine.detach(Self.pair[lost])
            try world.open()
        } else {
            machine.detach(Self.pair[lost])
            for number in made.kept { _ = world.get("key-\(number)", made.space, length: 40_000) }
            #expect([.suspect, .out].contains(world.store.log.devices[lost].state))
        }
        for number in made.deleted {
            let status = world.remove("key-\(number)", made.space)
            #expect(status == (absent ? .notFound : .deleted))
        }
        for number in made.replaced { #expect(put(made, number, revision: 1) == .stored) }
        #expect(!world.store.log.recordsAreSpread)
        let members = Set(world.recordSegments.map { SegmentTable.device($0) })
        #expect(members.contains(1 - lost))
        if sealed {
            world.seal(.recordsA)
            world.seal(.recordsB)
        }
        world.flush()
        world.kill()
        machine.attach(Self.pair[lost])
        return made
    }

    private func put(_ made: Outage, _ number: Int, revision: Int) -> Status {
        made.world.put(
            "key-\(number)", made.space, revision: revision, length: Self.length, replace: true)
    }

    /// `alone`: opened without the member that was there all the time.
    private func check(_ made: Outage, alone: Bool, absent: Bool, _ what: String = "") {
        let world = made.world
        for number in made.deleted {
            let answer = world.get("key-\(number)", made.space, length: Self.length).0
            #expect(answer.status == .miss, "key-\(number) is back \(what)")
        }
        for number in made.replaced where !(alone && absent) {
            let (answer, bytes) = world.get("key-\(number)", made.space, length: Self.length)
            if alone {
                #expect(answer.status == .miss, "an old key-\(number) is back \(what)")
            } else {
                let right = payload("key-\(number)", revision: 1, length: Self.length)
                #expect(answer.status == .hit && bytes == right, "key-\(number) \(what)")
            }
        }
        for number in made.kept {
            let reason = world.missed("key-\(number)", made.space, revision: 0, length: 40_000)
            #expect(reason == nil, "key-\(number) \(what)")
        }
        world.checkAccounts()
    }

    /// The other one may be away when the store has been open with both. (What was put anew while
    /// the member was absent at the opening had no version to supersede, as far as was known.)
    @Test(arguments: [0, 1], [false, true])
    func aDeleteWithoutAMemberHoldsWithoutTheOther(lost: Int, absent: Bool) throws {
        for mode in [StoreMode.store, .cache] where mode == .store || !absent {
            for sealed in [false, true] {
                let made = try outage(of: lost, absent: absent, mode: mode, sealed: sealed)
                let world = made.world
                try world.open()
                #expect(world.store.log.recordsAreSpread, "\(world.store.log.diagnosis)")
                #expect(world.store.log.statistics.carriedRecords >= 10)
                check(made, alone: false, absent: absent)
                world.kill()
                world.machine.detach(Self.pair[1 - lost])
                try world.open()
                check(made, alone: true, absent: absent)
                world.close()
                world.machine.attach(Self.pair[1 - lost])
                try world.open()
                #expect(world.store.log.recordsAreSpread)
                for number in made.deleted {
                    let answer = world.get("key-\(number)", made.space, length: Self.length).0
                    #expect(answer.status == .miss, "key-\(number) is back")
                }
                world.checkAccounts()
            }
        }
    }

    /// With three members both copies may lie on the third: they go to the two that have their
    /// turn now, and the third may be away.
    @Test func bothCopiesOnAThirdMemberAreSpread() throws {
        let three = ["/a", "/b", "/c"]
        let world = try World(
            World.configuration(directories: three, mode: .store, staging: 0))
        let machine = world.machine
        let space = world.namespace()
        world.store.log.stripeDevice = 0
        for number in 0..<20 {
            #expect(world.put("key-\(number)", space, revision: 0, length: 40_000) == .stored)
        }
        world.flush()
        world.close()
        for directory in ["/a", "/b"] { machine.detach(directory) }
        try world.open()
        for number in 0..<10 { #expect(world.remove("key-\(number)", space) == .notFound) }
        #expect(Set(world.recordSegments.map { SegmentTable.device($0) }) == [2])
        world.close()
        for directory in ["/a", "/b"] { machine.attach(directory) }
        try world.open()
        // One copy of each has to go, at least.
        #expect((10...20).contains(world.store.log.statistics.carriedRecords))
        #expect(world.store.log.recordsAreSpread)
        world.flush()
        world.kill()
        machine.detach("/c")
        try world.open()
        for number in 0..<20 {
            let answer = world.get("key-\(number)", space, length: 40_000).0
            #expect((answer.status == .miss) == (number < 10), "key-\(number)")
        }
        world.checkAccounts()
        world.close()
        machine.attach("/c")
        try world.open()
        world.settle()
        #expect(world.store.log.recordsAreSpread)
        let carried = world.store.log.statistics.carriedRecords
        world.close()
        try world.open()
        #expect(world.store.log.statistics.carriedRecords <= carried, "it comes to an end")
    }

    /// What is wanted and cannot be done yet is looked at again although the owner sleeps.
    @Test func spreadingWakesTheOwner() throws {
        let world = try World(
            World.configuration(directories: Self.pair, mode: .store, staging: 0))
        #expect(world.store.nextDeadline == UInt64.max)
        world.store.log.spreading.isWanted = true
        world.store.log.spreading.lookAt = world.clock.monotonic + 1_000_000_000
        #expect(world.store.nextDeadline == world.clock.monotonic + 1_000_000_000)
        world.pause(1_000_000_000)
        world.settle()
        #expect(world.store.nextDeadline == UInt64.max)
    }

    /// A crash at any moment of it takes no record away, and the next opening ends it. What is
    /// spread already is not written again.
    @Test(arguments: [0, 1]) func aCrashWhileRecordsAreSpread(lost: Int) throws {
        let made = try outage(of: lost, absent: false, mode: .store)
        let world = made.world
        let before = Self.pair.map { world.machine.snapshot($0) }
        var turns = 0
        var spread = false
        while !spread, turns < 400 {
            for (directory, snapshot) in zip(Self.pair, before) {
                world.machine.restore(directory, snapshot)
            }
            world.driver = SimulatedDriver(
                machine: world.machine, regions: RegionTable(), clock: world.clock, seed: 3)
            world.store = try StagedStore.open(
                world.configuration, driver: world.driver, clock: world.clock)
            world.store.sink = world.sink
            for _ in 0..<turns {
                if !world.store.pump() { world.pause(10_000) }
            }
            spread = world.store.log.recordsAreSpread
            try world.crash(turns % 2 == 0 ? .none : .random(seed: UInt64(turns)))
            #expect(world.store.log.recordsAreSpread, "after \(turns) turns")
            check(made, alone: false, absent: false, "after \(turns) turns")
            world.kill()
            world.machine.detach(Self.pair[1 - lost])
            try world.open()
            check(made, alone: true, absent: false, "after \(turns) turns")
            world.kill()
            turns += 7
        }
        #expect(spread)
        for (directory, snapshot) in zip(Self.pair, before) {
            world.machine.restore(directory, snapshot)
        }
        try world.open()
        let carried = world.store.log.statistics.carriedRecords
        #expect(carried >= 20 && carried <= 40)
        world.close()
        try world.open()
        #expect(world.store.log.statistics.carriedRecords == 0)
        #expect(world.store.log.recordsAreSpread)
    }
}
