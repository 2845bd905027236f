// Listing tells every block of a namespace once, wherever it lies: in slabs alone, in an open
// segment, in sealed ones; after deletes, replaces, eviction and restarts; and, of blocks that stay
// as they are, while others come and go.

import BlockIO
import LogStore
import SegmentFormat
import SimulatedDisk
import Staging
import Testing

/// One block as a listing told it.
private struct Told: Hashable {
    var key: String
    var length: UInt32
    var version: UInt64
    var shards: Int
}

extension Harness {
    /// One call of the listing.
    fileprivate func part(
        _ space: UInt16, _ place: ListPlace, room: Int, keyRoom: Int = 1 << 20
    ) -> (told: [Told], next: ListPlace) {
        let list = BlockList(
            namespaceSlot: space, instance: store.log.namespaces.instance(space), from: place,
            room: room, keyRoom: keyRoom)
        let token = token()
        store.list(token: token, list)
        settle()
        #expect(sink.outcomes[token]?.status == .done)
        let told = list.blocks.map { block in
            Told(
                key: String(
                    decoding: list.keys[block.keyOffset..<(block.keyOffset + block.keyLength)],
                    as: UTF8.self),
                length: block.length, version: block.version, shards: block.shardCount)
        }
        return (told, list.place)
    }

    /// All of it, in parts.
    fileprivate func list(
        _ space: UInt16, room: Int = 1000, keyRoom: Int = 1 << 20,
        between: () -> Void = {}
    ) -> [Told] {
        var all: [Told] = []
        var cursor: UInt64 = 0
        for _ in 0..<100_000 {
            guard let place = ListPlace(cursor: cursor) else { break }
            let (told, next) = part(space, place, room: room, keyRoom: keyRoom)
            all += told
            cursor = next.cursor
            if cursor == 0 { return all }
            between()
        }
        Issue.record("the listing does not end")
        return all
    }

    fileprivate func expect(
        _ told: [Told], are expected: [String: Told],
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        #expect(told.count == expected.count, sourceLocation: sourceLocation)
        #expect(Set(told) == Set(expected.values), sourceLocation: sourceLocation)
    }

    /// Puts and notes what a listing is to tell.
    fileprivate func put(
        _ keys: Range<Int>, _ space: UInt16, into: inout [String: Told], length: Int = 5000,
        replace: Bool = false
    ) {
        for number in keys {
            let key = "key-\(number)"
            let answer = put(
                key, space, payload(key, revision: 0, length: length + number), replace: replace)
            #expect(answer.status == .stored, "\(key): \(answer)")
            into[key] = Told(
                key: key, length: UInt32(length + number), version: answer.version, shards: 1)
        }
    }
}

@Suite(.serialized) struct ListTests {
    @Test(arguments: [1, 2, 7, 1000])
    func tellsEachBlockOnce(room: Int) throws {
        let world = try World()
        let space = world.namespace()
        let other = world.namespace("other")
        var expected: [String: Told] = [:]
        world.put(0..<60, space, into: &expected)
        var others: [String: Told] = [:]
        world.put(30..<40, other, into: &others)
        world.expect(world.list(space, room: room), are: expected)
        world.expect(world.list(other, room: room), are: others)
        // Keys with little room for them.
        world.expect(world.list(space, room: 1000, keyRoom: 512), are: expected)
    }

    @Test func deletesReplacesAndShards() throws {
        let world = try World()
        let space = world.namespace()
        var expected: [String: Told] = [:]
        world.put(0..<40, space, into: &expected)
        for number in stride(from: 0, to: 40, by: 4) {
            #expect(world.run(.delete, "key-\(number)", space).status == .deleted)
            expected["key-\(number)"] = nil
        }
        world.put(5..<8, space, into: &expected, length: 9000, replace: true)
        let sharded = world.put(
            "sharded", space, payload("sharded", revision: 0, length: 12_000),
            shards: [4000, 3000, 5000])
        expected["sharded"] = Told(
            key: "sharded", length: 12_000, version: sharded.version, shards: 3)
        world.expect(world.list(space, room: 3), are: expected)
        #expect(world.list(world.namespace("empty")).isEmpty)
    }

    @Test func emptyAfterAPurge() throws {
        let world = try World()
        let space = world.namespace()
        var expected: [String: Told] = [:]
        world.put(0..<20, space, into: &expected)
        let instance = world.store.log.namespaces.instance(space)
        let token = world.token()
        world.store.purge(token: token, namespaceSlot: space)
        world.settle()
        let list = BlockList(
            namespaceSlot: space, instance: instance, from: .memory(operation: 0), room: 100,
            keyRoom: 1 << 16)
        world.store.list(token: world.token(), list)
        world.settle()
        #expect(list.blocks.isEmpty && list.place == .end)
    }

    /// More than the store holds: what is told is what is there.
    @Test(arguments: [0, 4 << 20])
    func afterEvictionAndRestarts(staging: Int) throws {
        let world = try World(World.configuration(segments: 10, staging: staging))
        let space = world.namespace()
        var expected: [String: Told] = [:]
        world.put(0..<900, space, into: &expected, length: 30_000)
        func live() -> [String: Told] {
            expected.filter { world.run(.contains, $0.key, space).status == .hit }
        }
        let there = live()
        #expect(there.count < 900 && there.count > 100, "the store evicts")
        world.expect(world.list(space, room: 37), are: there)

        world.close()
        try world.open()
        world.expect(world.list(space, room: 1000), are: live())
        world.put(2000..<2010, space, into: &expected)
        try world.crash(.all)
        let after = live()
        #expect(after["key-2009"] != nil)
        world.expect(world.list(space, room: 5), are: after)
    }

    /// A footer page that is damaged, or cannot be read, costs nothing: the groups tell as well.
    @Test(arguments: [false, true])
    func damagedFooters(unreadable: Bool) throws {
        // Small blocks, so that a footer has several pages.
        let world = try World(World.configuration(segments: 12, staging: 0))
        let space = world.namespace()
        var expected: [String: Told] = [:]
        world.put(0..<900, space, into: &expected, length: 600)
        let segment = try #require(
            world.segment(.sealed) { $0.footerPages > 3 && $0.liveBlocks > 100 })
        let footer = Int(world.store.log.segments[segment].footerFirstPage)
        let place = world.place(segment: segment, page: footer + 1)
        if unreadable {
            world.machine.breakPages(
                place.directory, place.name, offset: place.page * pageBytes, length: pageBytes)
        } else {
            world.flip(place)
        }
        for room in [13, 1000] { world.expect(world.list(space, room: room), are: expected) }
        let seen = world.store.log.statistics
        #expect((unreadable ? seen.readErrors : seen.damagedPages) > 0, "it was met")
    }

    /// A volatile block whose write has not begun is told from memory.
    @Test func blocksInSlabsAlone() throws {
        let world = try World()
        let space = world.namespace()
        var expected: [String: Told] = [:]
        world.put(0..<10, space, into: &expected)
        var value = payload("staged", revision: 0, length: 7000)
        let key = Array("staged".utf8)
        let token = world.token()
        value.withUnsafeMutableBytes { bytes in
            key.withUnsafeBytes { keyBytes in
                withUnsafeTemporaryAllocation(of: Piece.self, capacity: 1) { piece in
                    piece.initializeElement(
                        at: 0,
                        to: Piece(
                            region: .process,
                            offset: UInt64(UInt(bitPattern: bytes.baseAddress)),
                            length: UInt64(bytes.count)))
                    var operation = StoreOperation(
                        kind: .put, token: token, namespaceSlot: space, key: keyBytes)
                    operation.pieces = UnsafePointer(piece.baseAddress)
                    operation.pieceCount = 1
                    operation.length = UInt32(bytes.count)
                    operation.durability = .volatile
                    #expect(world.store.submit(operation))
                }
            }
        }
        let answer = try #require(world.sink.answers[token], "a volatile put is answered at once")
        #expect(answer.status == .stored)
        let list = BlockList(
            namespaceSlot: space, instance: world.store.log.namespaces.instance(space),
            from: .memory(operation: 0), room: 1, keyRoom: 512)
        world.store.list(token: world.token(), list)
        // No pump between: it is on no device.
        #expect(world.store.log.lookup(world.store.log.fingerprint(space, Array(key))).entry == nil)
        world.settle()
        #expect(list.blocks.count == 1)
        #expect(list.keys == key)
        #expect(list.blocks.first?.version == answer.version)
        // Written meanwhile, it is told once more from the device, and the others once.
        let rest = world.list(space)
        expected["staged"] = Told(key: "staged", length: 7000, version: answer.version, shards: 1)
        world.expect(rest, are: expected)
    }

    /// Blocks that stay are told once, while others are put, replaced and deleted between parts.
    @Test func blocksThatStayWhileOthersMove() throws {
        let world = try World(World.configuration(segments: 30))
        let space = world.namespace()
        var stay: [String: Told] = [:]
        world.put(0..<200, space, into: &stay)
        var moving: [String: Told] = [:]
        world.put(1000..<1050, space, into: &moving)
        var step = 0
        let told = world.list(space, room: 9) {
            // Enough to seal the open segment and go on in others.
            world.put(
                1000..<1006, space, into: &moving, length: 30_000 + step, replace: true)
            _ = world.run(.delete, "key-\(1010 + step % 30)", space)
            step += 1
        }
        let kept = told.filter { stay[$0.key] != nil }
        world.expect(kept, are: stay)
        #expect(step > 20)
    }

    @Test func cursorsThatNobodyGaveAreRefused() throws {
        #expect(ListPlace(cursor: 1) == nil)
        #expect(ListPlace(cursor: 1 << 61) == nil)
        #expect(ListPlace(cursor: UInt64.max) == nil)
        #expect(ListPlace(cursor: 1 << 62 | 1 << 41) == nil)
        for place in [
            ListPlace.memory(operation: 77), .segment(0, page: 0),
            .segment(0xF_FFFF, page: 0xF_FFFF),
        ] {
            #expect(ListPlace(cursor: place.cursor) == place)
            #expect(place.cursor != 0)
        }
        // A place in no segment ends the listing; it does not trap.
        let world = try World()
        let space = world.namespace()
        var expected: [String: Told] = [:]
        world.put(0..<5, space, into: &expected)
        #expect(world.part(space, .segment(0xF_FFFF, page: 3), room: 10).next == .end)
        #expect(world.part(space, .memory(operation: 1 << 31), room: 10).told.count == 5)
    }
}

extension LogStore {
    fileprivate func fingerprint(_ space: UInt16, _ key: [UInt8]) -> Fingerprint {
        key.withUnsafeBytes { fingerprint(space, $0) }
    }
}
