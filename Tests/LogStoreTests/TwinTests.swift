// Records that have lost their second copy: their twins lay on a member that was struck or came
// back empty, or there was no room for them but beside each other. They get two copies on two
// members again, so that the store may be opened without either.

import SegmentFormat
import SimulatedDisk
import Staging
import Testing

@testable import LogStore

@Suite struct TwinTests {
    private static let length = 40_000

    private func put(_ world: World, _ space: UInt16, _ numbers: Range<Int>) {
        for number in numbers {
            let status = world.put("key-\(number)", space, revision: 0, length: Self.length)
            #expect(status == .stored)
        }
    }

    private func expectDeleted(_ world: World, _ space: UInt16, of count: Int, _ deleted: Int) {
        for number in 0..<count {
            let answer = world.get("key-\(number)", space, length: Self.length).0
            #expect((answer.status == .miss) == (number < deleted), "key-\(number)")
        }
        world.checkAccounts()
    }

    /// Twenty blocks on the third of three members; the records of ten deletes on the first two, of
    /// which the second goes for good, with its copies, or comes back to a cache and starts empty.
    @Test(arguments: [StoreMode.store, .cache])
    func theTwinsOfAMemberThatIsGoneAreWrittenAgain(mode: StoreMode) throws {
        let three = ["/a", "/b", "/c"]
        let world = try World(
            World.configuration(directories: three, mode: mode, staging: 0))
        let machine = world.machine
        let space = world.namespace()
        world.store.log.stripeDevice = 2
        world.store.log.stripeBytes = 0
        put(world, space, 0..<20)
        let segment = try #require(world.entry("key-0", space)).place.segment
        #expect(SegmentTable.device(segment) == 2)
        world.flush()
        for number in 0..<10 { #expect(world.remove("key-\(number)", space) == .deleted) }
        #expect(world.recordSegments.map { SegmentTable.device($0) } == [0, 1])
        world.close()
        machine.detach("/b")
        try world.open()
        if mode == .store {
            #expect(world.control { world.store.strike(token: $0, device: 1) }.status == .done)
        } else {
            world.close()
            machine.attach("/b")
            try world.open()
            #expect(world.store.log.statistics.damage.emptiedDevices == 1)
        }
        world.pause(1_000_000_000)
        world.settle()
        #expect(world.store.log.recordsAreSpread, "\(world.store.log.diagnosis)")
        #expect(world.store.log.statistics.carriedRecords >= 10)
        world.flush()
        world.kill()
        machine.detach("/a")
        try world.open()
        expectDeleted(world, space, of: 20, 10)
        world.close()
        machine.attach("/a")
        try world.open()
        world.settle()
        let carried = world.store.log.statistics.carriedRecords
        world.close()
        try world.open()
        #expect(world.store.log.statistics.carriedRecords <= carried, "it comes to an end")
        expectDeleted(world, space, of: 20, 10)
    }

    /// The same, and a crash before anything of it was done: it is found out at the opening.
    @Test func aCrashAfterAMemberIsStruck() throws {
        let three = ["/a", "/b", "/c"]
        let world = try World(
            World.configuration(directories: three, mode: .store, staging: 0))
        let machine = world.machine
        let space = world.namespace()
        world.store.log.stripeDevice = 2
        world.store.log.stripeBytes = 0
        put(world, space, 0..<20)
        world.flush()
        for number in 0..<10 { #expect(world.remove("key-\(number)", space) == .deleted) }
        world.close()
        machine.detach("/b")
        try world.open()
        let token = world.token()
        world.store.strike(token: token, device: 1)
        while world.sink.outcomes[token] == nil {
            if !world.store.pump() { world.pause(10_000) }
        }
        try world.crash(.none)
        #expect(world.store.log.recordsAreSpread, "\(world.store.log.diagnosis)")
        world.flush()
        world.kill()
        machine.detach("/a")
        try world.open()
        expectDeleted(world, space, of: 20, 10)
    }

    /// No segment of the first member can be had, until what is returned is called.
    private func withhold(_ log: LogStore) -> () -> Void {
        let clean = log.reclaimers[0].clean
        let next = log.reclaimers[0].nextLocal
        log.reclaimers[0].clean.removeAll()
        log.reclaimers[0].nextLocal = log.segments.counts[0]
        var held: [UInt32] = []
        log.segments.forEach { id in
            guard SegmentTable.device(id) == 0, log.segments[id].state == .sealed else { return }
            log.segments[id].holdsContested = true
            held.append(id)
        }
        return {
            log.reclaimers[0].clean = clean
            log.reclaimers[0].nextLocal = next
            for id in held { log.segments[id].holdsContested = false }
        }
    }

    /// Where there is one member only nothing is to be spread, and nobody is woken for it.
    @Test func oneMemberHasNothingToSpread() throws {
        let world = try World(World.configuration(mode: .store, staging: 0))
        let space = world.namespace()
        put(world, space, 0..<20)
        world.seal(.fresh)
        #expect(world.remove("key-0", space) == .deleted)
        world.seal(.recordsA)
        let giveBack = withhold(world.store.log)
        for number in 1..<10 { #expect(world.remove("key-\(number)", space) == .deleted) }
        #expect(world.store.log.statistics.recordsTogether >= 9)
        #expect(world.store.log.recordsAreSpread)
        #expect(world.store.nextDeadline == UInt64.max)
        giveBack()
        world.settle()
        world.checkAccounts()
    }

    /// The first member has no segment left for its copies: they go beside their twins, which is
    /// not told as two members, and is mended once there is room.
    @Test func copiesThatFoundNoRoomAreSpreadLater() throws {
        let pair = ["/a", "/b"]
        let world = try World(
            World.configuration(directories: pair, mode: .store, staging: 0))
        let machine = world.machine
        let space = world.namespace()
        world.store.log.stripeDevice = 0
        world.store.log.stripeBytes = 0
        put(world, space, 0..<20)
        world.seal(.fresh)
        #expect(world.remove("key-0", space) == .deleted)
        world.seal(.recordsA)
        let log = world.store.log
        let giveBack = withhold(log)
        for number in 1..<10 { #expect(world.remove("key-\(number)", space) == .deleted) }
        #expect(log.statistics.recordsTogether >= 9)
        #expect(!log.recordsAreSpread)
        giveBack()
        world.pause(2_000_000_000)
        world.settle()
        #expect(log.recordsAreSpread, "\(log.diagnosis)")
        world.flush()
        world.kill()
        machine.detach("/b")
        try world.open()
        expectDeleted(world, space, of: 20, 10)
    }
}
