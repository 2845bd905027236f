// Copies of one version: reclaim writes a block anew before it gives up the source, and a crash may
// find both, either of them torn, beside a newer version that is torn too.

import BlockIO
import SegmentFormat
import SimulatedDisk
import Staging
import Testing

@testable import LogStore

@Suite struct MovedCopyTests {
    private static let length = 9000

    /// Three records of a key, of which one is whole: a version at two places, and a replace that
    /// was cut short. `sealed`: the copy is met before the replace, else behind it.
    @Test(arguments: [false, true], [false, true])
    func theWholeCopyIsServed(sealed: Bool, sourceIsTorn: Bool) throws {
        let world = try World(World.configuration(staging: 0))
        let space = world.namespace()
        #expect(world.put("a", space, revision: 0, length: Self.length) == .stored)
        world.flush()
        let source = try world.place("a", space)
        try world.rewrite("a", space)
        world.flush()
        let copy = try world.place("a", space)
        // The next version goes to a segment of a later life than the copy's.
        if sealed { world.seal(.fresh) }
        #expect(world.put("a", space, revision: 1, length: Self.length, replace: true) == .stored)
        world.flip(try world.place("a", space))
        world.flip(sourceIsTorn ? source : copy)
        loseRecords(world)
        world.kill()
        try world.open()
        #expect(world.missed("a", space, revision: 0, length: Self.length) == nil)
        #expect(world.store.log.statistics.recovery.contested == 1)
        world.checkAccounts()
        world.close()
        try world.open()
        #expect(world.missed("a", space, revision: 0, length: Self.length) == nil)
        world.checkAccounts()
    }

    /// A crash took the records of a replace, and recovery found the new value whole. It is guarded
    /// anew: when its own record is damaged later, the older value does not come back.
    @Test(arguments: [false, true])
    func whatRecoveryDecidedOnIsGuarded(closed: Bool) throws {
        let world = try World(World.configuration(staging: 0))
        let space = world.namespace()
        #expect(world.put("a", space, revision: 0, length: Self.length) == .stored)
        world.flush()
        #expect(world.put("a", space, revision: 1, length: Self.length, replace: true) == .stored)
        loseRecords(world)
        world.kill()
        try world.open()
        #expect(world.missed("a", space, revision: 1, length: Self.length) == nil)
        #expect(world.store.log.statistics.recovery.guardedAgain == 1)
        if closed {
            world.close()
            try world.open()
        }
        let place = try #require(world.entry("a", space)).place
        world.flush()
        world.flip(world.place(segment: place.segment, page: Int(place.page) - 1))
        world.kill()
        let machine = world.machine
        for name in machine.fileNames("/store") where name.hasPrefix("checkpoint") {
            for page in 0..<(machine.fileSize("/store", name) ?? 0) / 4096 {
                machine.flipBit("/store", name, offset: page * 4096 + 100, bit: 1)
            }
        }
        try world.open()
        #expect(world.get("a", space, length: Self.length).0.status == .miss)
        world.checkAccounts()
    }

    /// Two replaces in a row that a crash cut short: what was before them is durable.
    @Test func theOldestOutlivesTwoTornReplaces() throws {
        let world = try World(World.configuration(staging: 0))
        let space = world.namespace()
        #expect(
            world.put("a", space, revision: 0, length: Self.length, durability: .durable)
                == .stored)
        for revision in 1...3 {
            let status = world.put(
                "a", space, revision: revision, length: Self.length, replace: true)
            #expect(status == .stored)
            world.flip(try world.place("a", space))
            loseRecords(world)
            world.kill()
            try world.open()
            #expect(world.missed("a", space, revision: 0, length: Self.length) == nil)
            #expect(
                world.store.log.statistics.recovery.contestedLost == UInt64(revision))
            world.checkAccounts()
        }
    }

    /// As if a crash had come before they were written.
    private func loseRecords(_ world: World) {
        for segment in world.recordSegments {
            for page in world.descriptorPages(segment, .group) {
                world.flip(world.place(segment: segment, page: page))
            }
        }
    }

    /// With all of them torn nothing is served, and the key can be put again.
    @Test func withoutAWholeCopyItIsAMiss() throws {
        let world = try World(World.configuration(staging: 0))
        let space = world.namespace()
        #expect(world.put("a", space, revision: 0, length: Self.length) == .stored)
        world.flip(try world.place("a", space))
        world.flush()
        let source = try world.place("a", space)
        try world.rewrite("a", space)
        try world.rewrite("a", space)
        #expect(try world.place("a", space).name != source.name)
        world.kill()
        try world.open()
        #expect(world.store.log.statistics.recovery.contestedLost == 2)
        #expect(world.missed("a", space, revision: 0, length: Self.length) == .failedCheck)
        #expect(world.put("a", space, revision: 1, length: Self.length) == .stored)
        world.kill()
        try world.open()
        #expect(world.missed("a", space, revision: 1, length: Self.length) == nil)
        world.checkAccounts()
    }

    /// A put compares its shards with the table of the copy that is there. If that cannot be read,
    /// and the block has been moved meanwhile, the copy where it lies now is not to blame.
    @Test func atTheOldPlaceNothingIsLearntOfTheNewOne() throws {
        let world = try World(World.configuration(staging: 0))
        let space = world.namespace()
        let shards: [UInt32] = [4096, 5000]
        let value = payload("s", revision: 0, length: 9096)
        #expect(world.put("s", space, value, shards: shards).status == .stored)
        world.kill()
        try world.open()
        let key = world.fingerprint("s", space)
        let before = try #require(world.entry("s", space))
        let place = try world.place("s", space)
        try world.rewrite("s", space)
        let after = try #require(world.entry("s", space))
        let log = world.store.log
        #expect(log.publish(key, before))
        world.machine.breakPages(
            place.directory, place.name, offset: (place.page + 2) * pageBytes, length: 1)
        var copy = value
        let token = world.token()
        let keyBytes = Array("s".utf8)
        copy.withUnsafeMutableBytes { bytes in
            keyBytes.withUnsafeBytes { keyBuffer in
                shards.withUnsafeBufferPointer { lengths in
                    var piece = Piece(
                        region: .process, offset: UInt64(UInt(bitPattern: bytes.baseAddress)),
                        length: UInt64(bytes.count))
                    withUnsafePointer(to: &piece) { pieces in
                        var operation = StoreOperation(
                            kind: .put, token: token, namespaceSlot: space, key: keyBuffer)
                        operation.pieces = pieces
                        operation.pieceCount = 1
                        operation.length = UInt32(bytes.count)
                        operation.shardLengths = lengths.baseAddress
                        operation.shardCount = lengths.count
                        #expect(world.store.submit(operation))
                        // The table is being read where the block was; now it has been moved.
                        world.store.pump()
                        #expect(log.publish(key, after))
                        world.settle()
                    }
                }
            }
        }
        #expect(log.statistics.tableReads >= 3)
        #expect(world.sink.answers[token]?.status == .alreadyPresent)
        #expect(world.entry("s", space)?.isDamaged == false)
        #expect(world.get("s", space, length: value.count).1 == value)
        world.checkAccounts()
    }

    /// A dump that tells where a block was moved to must not count before that place is flushed:
    /// the moved block lies on a slow member, the dump on a fast one.
    @Test func aCheckpointWaitsForTheBlocksThatItTellsOf() throws {
        let machine = SimulatedMachine()
        machine.addDevice("/a")
        machine.addDevice("/b")
        machine.setLatencyMultiplier("/b", 300)
        let world = try World(
            World.configuration(directories: ["/a", "/b"], mode: .store, staging: 0),
            machine: machine)
        let space = world.namespace()
        let log = world.store.log
        log.stripeDevice = 1
        log.stripeBytes = 0
        #expect(world.put("a", space, revision: 0, length: Self.length) == .stored)
        world.seal(.fresh)
        world.flush()
        let source = try #require(world.entry("a", space)).place.segment
        try #require(SegmentTable.device(source) == 1)
        log.startVictim(1, source)
        while log.statistics.reinsertedBlocks == 0 {
            if !world.store.pump() { world.pause(10_000) }
        }
        let moved = try #require(world.entry("a", space))
        #expect(!log.isDurable(moved) && moved.place.segment != source)
        let token = world.token()
        world.store.checkpoint(token: token)
        while world.sink.outcomes[token] == nil, !log.isDurable(moved) {
            if !world.store.pump() { world.pause(10_000) }
        }
        try world.crash(.none)
        #expect(world.missed("a", space, revision: 0, length: Self.length) == nil)
        world.checkAccounts()
    }
}
