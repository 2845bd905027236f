// What a store does for its callers, on the simulated disk without faults.

import LogStore
import SimulatedDisk
import Staging
import Testing

@Suite struct StoreTests {
    @Test(arguments: [GetMode.direct, .cached, .lease])
    func putAndGet(mode: GetMode) throws {
        let world = try World()
        let space = world.namespace()
        for (number, length) in [1, 100, 4096, 4097, 40_000, 65_536].enumerated() {
            let key = "key-\(number)"
            let value = payload(key, revision: 0, length: length)
            #expect(world.put(key, space, value).status == .stored)
            let (answer, bytes) = world.get(key, space, length: length, mode: mode)
            #expect(answer.status == .hit)
            #expect(answer.length == UInt32(length))
            if mode != .lease { #expect(bytes == value) }
            if answer.lease >= 0 { world.store.endLease(answer.lease) }
        }
        #expect(world.driver.violations.isEmpty)
    }

    @Test func survivesClosing() throws {
        let world = try World()
        let space = world.namespace()
        for number in 0..<50 {
            let key = "key-\(number)"
            #expect(
                world.put(key, space, payload(key, revision: 0, length: 20_000 + number)).status
                    == .stored)
        }
        world.close()
        try world.open()
        let again = world.namespace()
        #expect(again == space)
        for number in 0..<50 {
            let key = "key-\(number)"
            let (answer, bytes) = world.get(key, again, length: 20_000 + number)
            #expect(answer.status == .hit, "\(key): \(answer)")
            #expect(bytes == payload(key, revision: 0, length: 20_000 + number))
        }
    }

    @Test func durableSurvivesLosingEverythingElse() throws {
        let world = try World()
        let space = world.namespace()
        for number in 0..<20 {
            let key = "key-\(number)"
            #expect(
                world.put(
                    key, space, payload(key, revision: 0, length: 30_000), durability: .durable
                ).status == .stored)
        }
        try world.crash(.none)
        for number in 0..<20 {
            let key = "key-\(number)"
            let (answer, bytes) = world.get(key, space, length: 30_000)
            #expect(answer.status == .hit, "\(key): \(answer)")
            #expect(bytes == payload(key, revision: 0, length: 30_000))
        }
    }

    @Test func deletedStaysDeleted() throws {
        let world = try World()
        let space = world.namespace()
        let value = payload("a", revision: 0, length: 5000)
        #expect(world.put("a", space, value, durability: .durable).status == .stored)
        #expect(world.run(.delete, "a", space).status == .deleted)
        #expect(world.get("a", space, length: 5000).0.status == .miss)
        try world.crash(.none)
        #expect(world.get("a", space, length: 5000).0.status == .miss)
        #expect(world.put("a", space, value, durability: .durable).status == .stored)
        try world.crash(.all)
        #expect(world.get("a", space, length: 5000).0.status == .hit)
    }

    @Test func replaceAndConflict() throws {
        let world = try World()
        let space = world.namespace()
        let first = payload("a", revision: 0, length: 5000)
        let second = payload("a", revision: 1, length: 7000)
        #expect(world.put("a", space, first).status == .stored)
        #expect(world.put("a", space, first).status == .alreadyPresent)
        #expect(world.put("a", space, second).status == .conflict)
        #expect(
            world.put("a", space, second, replace: true, durability: .durable).status == .stored)
        let (answer, bytes) = world.get("a", space, length: 7000)
        #expect(answer.status == .hit)
        #expect(bytes == second)
        try world.crash(.none)
        #expect(world.get("a", space, length: 7000).1 == second)
    }

    @Test func evictsOldestInCacheMode() throws {
        let world = try World(World.configuration(segments: 10, staging: 0))
        let space = world.namespace()
        let length = 60_000
        for number in 0..<1200 {
            let key = "key-\(number)"
            #expect(
                world.put(key, space, payload(key, revision: 0, length: length)).status == .stored)
        }
        #expect(world.store.log.statistics.evictedBlocks > 0)
        var hits = 0
        for number in 0..<1200 {
            let key = "key-\(number)"
            let (answer, bytes) = world.get(key, space, length: length)
            if answer.status == .hit {
                hits += 1
                #expect(bytes == payload(key, revision: 0, length: length))
            }
        }
        #expect(hits > 100)
        #expect(world.get("key-1199", space, length: length).0.status == .hit)
        world.close()
        try world.open()
        #expect(world.get("key-1199", space, length: length).0.status == .hit)
    }

    /// Clean segments are taken in the order in which they were made, after a restart as well: the
    /// oldest goes by its generation, so what is written into one left behind would go at once.
    @Test func evictsOldestOverRestarts() throws {
        var configuration = World.configuration(segments: 12, staging: 0)
        configuration.log.cleanSegments = 3
        let world = try World(configuration)
        let space = world.namespace()
        let length = 60_000
        var written = 0
        var evicted: UInt64 = 0
        for session in 0..<24 {
            for _ in 0..<40 + session {
                #expect(
                    world.put("key-\(written)", space, revision: 0, length: length) == .stored)
                written += 1
            }
            let gone = (max(0, written - 60)..<written).filter {
                world.entry("key-\($0)", space) == nil
            }
            #expect(gone.isEmpty, "session \(session): of the newest 60 \(gone.count) are gone")
            evicted += world.store.log.statistics.evictedBlocks
            if session % 2 == 0 { world.close() } else { world.kill() }
            try world.open()
        }
        #expect(evicted > 100)
    }

    @Test func refusesInStoreMode() throws {
        let world = try World(World.configuration(segments: 8, mode: .store, staging: 0))
        let space = world.namespace()
        var stored = 0
        var refused = 0
        for number in 0..<600 {
            let key = "key-\(number)"
            let answer = world.put(key, space, payload(key, revision: 0, length: 60_000))
            if answer.status == .stored { stored += 1 }
            if answer.status == .noSpace { refused += 1 }
        }
        #expect(stored > 50 && refused > 50 && stored + refused == 600)
        #expect(world.run(.delete, "key-0", space).status == .deleted)
        #expect(world.get("key-1", space, length: 60_000).0.status == .hit)
    }

    @Test(arguments: [false, true]) func shards(aligned: Bool) throws {
        let world = try World()
        let space = world.namespace(aligned: aligned)
        let lengths: [UInt32] = [4096, 100, 8192, 5000]
        let total = Int(lengths.reduce(0, +))
        let value = payload("s", revision: 0, length: total)
        #expect(world.put("s", space, value, shards: lengths).status == .stored)
        try world.crash(.all)
        #expect(world.put("s", space, value, shards: lengths).status == .alreadyPresent)
        #expect(
            world.put("s", space, value, shards: [100, 4096, 8192, 5000]).status == .conflict)
        for mode in [GetMode.direct, .cached] {
            #expect(world.get("s", space, length: total, mode: mode).1 == value)
            var start = 0
            for shard in 0..<4 {
                let length = Int(lengths[shard])
                let (answer, bytes) = world.get("s", space, length: length, mode: mode) {
                    $0.firstShard = shard
                    $0.shardCount = 1
                }
                #expect(answer.status == .hit)
                #expect(bytes == Array(value[start..<(start + length)]), "shard \(shard)")
                start += length
            }
            let (answer, bytes) = world.get("s", space, length: 6000, mode: mode) {
                $0.byteOffset = 4000
                $0.byteCount = 6000
            }
            #expect(answer.status == .hit)
            #expect(bytes == Array(value[4000..<10_000]))
        }
    }

    /// Tombstones of which none can go as long as an old block stays where it is: deletes go on, as
    /// many as would have filled the store three times over, and when they end, the store comes to
    /// rest and does not write tombstones anew in the hope of room.
    @Test func deletesBesideAnOldBlockGoOnAndComeToRest() throws {
        let world = try World(World.configuration(segments: 8, mode: .store, staging: 0))
        let space = world.namespace()
        #expect(world.put("old", space, revision: 0, length: 4096) == .stored)
        for number in 0..<4000 {
            let key = "key-\(number)"
            try #require(world.put(key, space, revision: 0, length: 100) == .stored)
            try #require(world.remove(key, space) == .deleted)
        }
        let before = world.store.log.statistics.carriedRecords
        world.pause(60_000_000_000)
        world.settle()
        #expect(world.store.log.statistics.carriedRecords < before + 4000)
        #expect(world.missed("old", space, revision: 0, length: 4096) == nil)
        world.checkAccounts()
    }

    @Test func aStoreThatBecameReadOnlyAnswersForACheckpoint() throws {
        let world = try World()
        world.store.log.readOnly = true
        #expect(world.control { world.store.checkpoint(token: $0) }.status == .readOnly)
    }
}
