// What is overtaken on its way: a put by the purge of its namespace, a failing read by the block's
// next version, and the flush of a moved block by what would give up its source.

import SegmentFormat
import SimulatedDisk
import Staging
import Testing

@testable import LogStore

@Suite struct OvertakingTests {
    private static let length = 9000

    private func buffer() -> UnsafeMutableRawBufferPointer {
        .allocate(byteCount: 12_288, alignment: 4096)
    }

    private func slice(_ bytes: UnsafeMutableRawBufferPointer) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: bytes[..<Self.length])
    }

    /// The put's write is under way when its namespace is purged: it is not stored, and nothing of
    /// it is in the index.
    @Test func aPutThatAPurgeOvertakesIsNotPublished() throws {
        let world = try World(World.configuration(staging: 0))
        let space = world.namespace()
        let bytes = buffer()
        defer { bytes.deallocate() }
        bytes.copyBytes(from: payload("a", revision: 0, length: Self.length))
        let put = try world.begin(.put, "a", space, bytes: slice(bytes))
        let log = world.store.log
        while !log.streams.contains(where: { $0.groupsInFlight > 0 }) { world.store.pump() }
        let purged = world.control { world.store.purge(token: $0, namespaceSlot: space) }
        #expect(purged.status == .done)
        #expect(world.sink.answers[put]?.status == .invalid)
        #expect(log.index.count == 0)
        world.checkAccounts()
    }

    /// A block is found damaged, twice, and has been replaced meanwhile: the new copy stays.
    @Test func aFailingReadLeavesTheCopyThatHasTakenThePlace() throws {
        let world = try World(
            World.configuration(directories: ["/a", "/b"], staging: 0))
        let machine = world.machine
        let space = world.namespace()
        let log = world.store.log
        log.stripeDevice = 1
        log.stripeBytes = 0
        #expect(world.put("a", space, revision: 0, length: Self.length) == .stored)
        world.flush()
        world.flip(try world.place("a", space))
        machine.setLatencyMultiplier("/b", 20)
        let (old, new) = (buffer(), buffer())
        defer {
            old.deallocate()
            new.deallocate()
        }
        let get = try world.begin(.get, "a", space, bytes: slice(old)) { $0.mode = .direct }
        while log.statistics.readRetries == 0 {
            if !world.store.pump() { world.pause(1_000) }
        }
        log.stripeDevice = 0
        log.stripeBytes = 0
        new.copyBytes(from: payload("a", revision: 1, length: Self.length))
        let put = try world.begin(.put, "a", space, bytes: slice(new)) {
            $0.replace = true
            $0.durability = .written
        }
        // Published; its records, of which one goes to the slow member, take longer.
        while world.entry("a", space).map({ SegmentTable.device($0.place.segment) }) != 0 {
            if !world.store.pump() { world.pause(1_000) }
        }
        #expect(world.sink.answers[get] == nil, "its second read is still under way")
        world.settle()
        #expect(world.sink.answers[put]?.status == .stored)
        #expect(world.sink.answers[get]?.status == .miss)
        #expect(world.missed("a", space, revision: 1, length: Self.length) == nil)
        world.checkAccounts()
    }

    /// A segment is clean: what was moved out of it outlives a crash at that moment.
    @Test func aVictimIsGivenUpOnceItsBlocksAreFlushedElsewhere() throws {
        let world = try World(World.configuration(mode: .store, staging: 0))
        let space = world.namespace()
        #expect(world.put("a", space, revision: 0, length: Self.length) == .stored)
        world.seal(.fresh)
        world.flush()
        let log = world.store.log
        let source = try #require(world.entry("a", space)).place.segment
        log.startVictim(0, source)
        while log.segments[source].state != .clean {
            if !world.store.pump() { world.pause(1_000) }
        }
        #expect(log.statistics.reinsertedBlocks == 1)
        try world.crash(.none)
        #expect(world.missed("a", space, revision: 0, length: Self.length) == nil)
        world.checkAccounts()
    }
}
