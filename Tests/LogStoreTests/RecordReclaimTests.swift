// What is carried out of a segment of records before it is written over: all that a value somewhere
// may still need, also one on a member that is away, and nothing is given up for a copy that could
// not be written.

import SegmentFormat
import SimulatedDisk
import Staging
import Testing

@testable import LogStore

@Suite struct RecordReclaimTests {
    private static let length = 40_000
    private static let deleted = 0..<10
    private static let kept = 10..<20

    /// Twenty blocks on one member, of which ten are deleted; the records of that are in two sealed
    /// segments.
    private func world(_ directories: [String], valuesOn device: Int) throws -> (World, UInt16) {
        let world = try World(
            World.configuration(directories: directories, mode: .store, staging: 0))
        let space = world.namespace()
        world.store.log.stripeDevice = device
        world.store.log.stripeBytes = 0
        for number in 0..<20 {
            let status = world.put("key-\(number)", space, revision: 0, length: Self.length)
            #expect(status == .stored)
        }
        world.seal(.fresh)
        for number in Self.deleted { #expect(world.remove("key-\(number)", space) == .deleted) }
        world.seal(.recordsA)
        world.seal(.recordsB)
        world.flush()
        return (world, space)
    }

    private func recordSegments(_ world: World) -> [UInt32] {
        let log = world.store.log
        var found: [UInt32] = []
        log.segments.forEach { id in
            if log.segments[id].state == .sealed, log.recordKind(id) != nil { found.append(id) }
        }
        return found
    }

    /// Empties a segment as if it had been chosen, and brings the store to rest.
    private func empty(_ world: World, _ segment: UInt32, _ between: (LogStore) -> Void = { _ in })
    {
        let log = world.store.log
        log.startVictim(SegmentTable.device(segment), segment)
        between(log)
        world.settle()
    }

    private func check(_ world: World, _ space: UInt16) {
        for number in Self.deleted {
            let answer = world.get("key-\(number)", space, length: Self.length).0
            #expect(answer.status == .miss, "key-\(number) is back")
        }
        for number in Self.kept {
            let reason = world.missed("key-\(number)", space, revision: 0, length: Self.length)
            #expect(reason == nil, "key-\(number)")
        }
        world.checkAccounts()
    }

    /// Nobody knows what the member holds: all records stay, and hold when it comes back.
    @Test func recordsOutliveTheirSegmentsWhileAMemberIsAway() throws {
        let (world, space) = try world(["/a", "/b", "/c"], valuesOn: 2)
        let segments = recordSegments(world)
        #expect(segments.map { SegmentTable.device($0) } == [0, 1])
        world.close()
        world.machine.detach("/c")
        try world.open()
        for segment in segments {
            empty(world, segment)
            #expect(world.store.log.segments[segment].state != .sealed)
        }
        #expect(world.store.log.statistics.carriedRecords >= 2 * UInt64(Self.deleted.count))
        world.close()
        world.machine.attach("/c")
        try world.open()
        check(world, space)
    }

    /// The device refuses what is carried on: the victims keep what they have, whether it is the
    /// write that fails or the flush.
    @Test(arguments: [FaultKind.ioError, .syncError])
    func aSegmentStaysWhenItsRecordsCannotBeWritten(kind: FaultKind) throws {
        let (world, space) = try world(["/store"], valuesOn: 0)
        let segments = recordSegments(world)
        #expect(segments.count == 2)
        var faults = FaultPlan.none
        faults[kind] = 1
        world.store.shutdown()
        try world.reopen(faults, enabled: false)
        world.settle()
        for segment in segments {
            empty(world, segment) { log in
                // The read of the footer is under way; what follows from it fails.
                log.pump()
                world.driver.faultsEnabled = true
                for _ in 0..<10_000 where log.reclaimers[0].pending == 0 {
                    if !log.pump() { world.pause(1_000) }
                }
                for _ in 0..<10_000 where log.reclaimers[0].pending > 0 {
                    if !log.pump() { world.pause(1_000) }
                }
                world.driver.faultsEnabled = false
            }
            #expect(world.store.log.segments[segment].state == .sealed)
        }
        #expect(kind == .syncError || world.store.log.statistics.writeErrors > 0)
        try world.crash(.none)
        check(world, space)
    }
}
