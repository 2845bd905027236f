// Recycling: what lay in a segment counts until the header of its next life is durable, since a
// crash before that brings it back.

import SegmentFormat
import SimulatedDisk
import Testing

@testable import LogStore

@Suite struct RecyclingTests {
    private static let three = ["/a", "/b", "/c"]

    /// Ten blocks on the third member, all deleted; their tombstones are on the first and second.
    private func deletedOnTheThird() throws -> (World, UInt16) {
        let world = try World(
            World.configuration(
                directories: Self.three, segments: 8, mode: .store, staging: 0))
        let space = world.namespace()
        world.store.log.stripeDevice = 2
        world.store.log.stripeBytes = 0
        for number in 0..<10 {
            #expect(world.put("key-\(number)", space, revision: 0, length: 40_000) == .stored)
            let entry = try #require(world.entry("key-\(number)", space))
            try #require(SegmentTable.device(entry.place.segment) == 2)
        }
        world.seal(.fresh)
        world.flush()
        for number in 0..<10 { #expect(world.remove("key-\(number)", space) == .deleted) }
        #expect(world.recordSegments.map { SegmentTable.device($0) } == [0, 1])
        return (world, space)
    }

    /// The segment of the deleted blocks is being given its next life when the tombstones' turn
    /// comes; `hung`: its device takes no more writes. A crash at any moment: no key comes back.
    @Test(arguments: [false, true]) func tombstonesOutliveTheHeaderOnItsWay(hung: Bool) throws {
        for turns in stride(from: 0, through: hung ? 120 : 60, by: 6) {
            for keep in [CrashKeep.none, .random(seed: UInt64(turns))] {
                let (world, space) = try deletedOnTheThird()
                let log = world.store.log
                log.beginRewriting()
                for _ in 0..<200 where log.reclaimers[2].phase != .writingHeader {
                    if !log.pump() { world.pause(1_000) }
                }
                #expect(log.reclaimers[2].phase == .writingHeader)
                if hung { world.machine.hang("/c") }
                for stream in log.streams.indices where log.streams[stream].isRecords {
                    log.closeSegment(stream)
                }
                for _ in 0..<turns {
                    if !log.pump() { world.pause(100_000) }
                }
                try world.crash(keep)
                for number in 0..<10 {
                    let answer = world.get("key-\(number)", space, length: 40_000).0
                    #expect(answer.status == .miss, "key-\(number) is back after \(turns) turns")
                }
                world.checkAccounts()
            }
        }
    }

    // MARK: What is still on disk

    /// A victim that has to be left still has what was evicted from it: a delete of that holds.
    @Test func whatWasEvictedFromALeftVictimCanBeDeleted() throws {
        let world = try World(World.configuration(staging: 0))
        let space = world.namespace()
        for number in 0..<200 {
            #expect(world.put("key-\(number)", space, revision: 0, length: 40_000) == .stored)
        }
        world.flush()
        let log = world.store.log
        // All are made, and then the oldest is emptied.
        let there = (0..<200).filter { world.entry("key-\($0)", space) != nil }
        log.wantReclaim = true
        for _ in 0..<5000 where log.reclaimers[0].phase != .reading {
            log.wantReclaim = true
            if !log.pump() { world.pause(1_000) }
        }
        log.wantReclaim = false
        // Somebody reads on, so that it is not given up before it is seen to have failed.
        let victim = log.reclaimers[0].segment
        log.segments[victim].readers += 1
        for _ in 0..<5000 where log.reclaimers[0].phase != .settling {
            if !log.pump() { world.pause(1_000) }
        }
        #expect(log.reclaimers[0].phase == .settling)
        log.reclaimers[0].failed = true
        log.segments[victim].readers -= 1
        for _ in 0..<20 where log.reclaimers[0].phase != .idle { log.pump() }
        #expect(log.segments[victim].state == .sealed)
        let gone = there.filter { world.entry("key-\($0)", space) == nil }
        try #require(gone.count > 10)
        for number in gone.prefix(5) {
            #expect(world.remove("key-\(number)", space) == .notFound)
        }
        world.kill()
        try world.open()
        for number in gone.prefix(5) {
            let reason = world.missed("key-\(number)", space, revision: 0, length: 40_000)
            #expect(reason == .neverPut, "key-\(number) is back")
        }
        world.checkAccounts()
    }

    // MARK: What a process left behind

    /// The process ends, the machine goes on, and then it ends too: what is called durable in
    /// between is there.
    @Test func whatAProcessWroteIsFlushedBeforeItCounts() throws {
        let world = try World(World.configuration(staging: 0))
        let space = world.namespace()
        #expect(world.put("a", space, revision: 0, length: 9000) == .stored)
        world.store.shutdown()
        try world.open()
        let again = world.put("a", space, revision: 0, length: 9000, durability: .durable)
        #expect(again == .alreadyPresent)
        try world.crash(.none)
        #expect(world.missed("a", space, revision: 0, length: 9000) == nil)
        world.checkAccounts()
    }

    /// A durable block was moved, the process ended before the copy was flushed: the source stays
    /// until it is.
    @Test func theSourceOfAMoveOutlivesTheProcess() throws {
        let world = try World(World.configuration(mode: .store, staging: 0))
        let space = world.namespace()
        #expect(
            world.put("a", space, revision: 0, length: 9000, durability: .durable) == .stored)
        world.seal(.fresh)
        world.flush()
        try world.rewrite("a", space)
        world.store.shutdown()
        try world.open()
        world.store.log.beginRewriting()
        world.settle()
        #expect(world.store.log.statistics.reclaimedSegments == 1)
        try world.crash(.none)
        #expect(world.missed("a", space, revision: 0, length: 9000) == nil)
        world.checkAccounts()
    }
}
