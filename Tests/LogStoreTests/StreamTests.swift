// Streams of fresh blocks: namespaces write to segments of their own, so that what leaves together
// lies together; a crash leaves each where it was; and where there is no room for many, one takes
// what another has left.

import SegmentFormat
import SimulatedDisk
import Staging
import Testing

@testable import LogStore

@Suite struct StreamTests {
    private static let length = 40_000

    private func world(
        streams: Int, segments: Int, mode: StoreMode, directories: [String] = ["/store"]
    ) throws -> World {
        var configuration = World.configuration(
            directories: directories, segments: segments, mode: mode, staging: 0)
        configuration.log.freshStreams = streams
        configuration.log.segmentsPerStream = 2
        return try World(configuration)
    }

    private func put(_ world: World, _ number: Int, _ space: UInt16) -> Status {
        world.put("key-\(number)", space, revision: 0, length: Self.length)
    }

    /// Namespaces by the segments that their blocks lie in.
    private func tenants(_ world: World, _ spaces: [UInt16], keys: Int) -> [UInt32: Set<UInt16>] {
        var found: [UInt32: Set<UInt16>] = [:]
        for space in spaces {
            for number in 0..<keys {
                guard let entry = world.entry("key-\(number)", space) else { continue }
                found[entry.place.segment, default: []].insert(space)
            }
        }
        return found
    }

    /// A purged namespace leaves whole segments: nothing of the other has to go for its room. With
    /// one stream each segment is half of either, and much of the other goes with it.
    @Test func aPurgeGivesWholeSegments() throws {
        var lost: [Int] = []
        for streams in [1, 4] {
            let world = try world(streams: streams, segments: 24, mode: .cache)
            let kept = world.namespace("kept")
            let passing = world.namespace("passing")
            for number in 0..<560 {
                #expect(put(world, number, kept) == .stored)
                #expect(put(world, number, passing) == .stored)
            }
            let shared = tenants(world, [kept, passing], keys: 560).values.filter { $0.count > 1 }
            #expect(shared.isEmpty == (streams > 1))
            let purged = world.control { world.store.purge(token: $0, namespaceSlot: passing) }
            #expect(purged.status == .done)
            world.settle()
            for number in 560..<960 { #expect(put(world, number, kept) == .stored) }
            lost.append((0..<560).filter { world.entry("key-\($0)", kept) == nil }.count)
            for number in 0..<960 where world.entry("key-\(number)", kept) != nil {
                let reason = world.missed("key-\(number)", kept, revision: 0, length: Self.length)
                #expect(reason == nil, "key-\(number)")
            }
            world.checkAccounts()
        }
        #expect(lost[1] == 0 && lost[0] > 50, "\(lost)")
        print("blocks of 560 lost beside a purge: one stream \(lost[0]), four \(lost[1])")
    }

    /// Each stream goes on in the segment that was its own, also on two devices.
    @Test(arguments: [["/store"], ["/a", "/b"]])
    func aCrashLeavesTheStreamsApart(directories: [String]) throws {
        let world = try world(
            streams: 3, segments: 16, mode: .cache, directories: directories)
        let spaces = ["a", "b", "c"].map { world.namespace($0) }
        for number in 0..<20 {
            for space in spaces { #expect(put(world, number, space) == .stored) }
        }
        world.flush()
        let before = tenants(world, spaces, keys: 20)
        #expect(before.values.allSatisfy { $0.count == 1 })
        try world.crash(.all)
        for number in 20..<40 {
            for space in spaces { #expect(put(world, number, space) == .stored) }
        }
        let after = tenants(world, spaces, keys: 40)
        #expect(after.values.allSatisfy { $0.count == 1 })
        if directories.count == 1 { #expect(after == before, "a crash costs no segment") }
        for space in spaces {
            for number in 0..<40 {
                let reason = world.missed("key-\(number)", space, revision: 0, length: Self.length)
                #expect(reason == nil, "key-\(number) of \(space)")
            }
        }
        world.checkAccounts()
    }

    /// In store mode a put is not refused for want of a segment of its own while another stream's
    /// has room: as many fit as with one stream, but for what each segment's end loses.
    @Test func aFullStoreUsesWhatOthersHaveLeft() throws {
        var stored: [Int] = []
        for streams in [1, 4] {
            let world = try world(streams: streams, segments: 16, mode: .store)
            let spaces = ["a", "b", "c", "d"].map { world.namespace($0) }
            for space in spaces { #expect(put(world, 0, space) == .stored) }
            var count = 1
            while put(world, count, spaces[1]) == .stored { count += 1 }
            stored.append(count)
            for number in 0..<count {
                let reason = world.missed(
                    "key-\(number)", spaces[1], revision: 0, length: Self.length)
                #expect(reason == nil, "key-\(number)")
            }
            for space in spaces {
                let reason = world.missed("key-0", space, revision: 0, length: Self.length)
                #expect(reason == nil, "key-0 of \(space)")
            }
            world.checkAccounts()
            world.close()
            try world.open()
            #expect(world.missed("key-0", spaces[3], revision: 0, length: Self.length) == nil)
        }
        #expect(stored[1] > stored[0] / 100 * 98, "\(stored)")
    }

    /// One namespace writes a little and then nothing; another is replaced in without end. What the
    /// first one's open segment holds keeps no records for ever: they would fill the store.
    @Test func anIdleStreamHoldsNoRecords() throws {
        var configuration = World.configuration(
            segments: 24, mode: .store, staging: 0, block: 4 << 10)
        configuration.log.segmentsPerStream = 2
        let world = try World(configuration)
        let idle = world.namespace("idle")
        let busy = world.namespace("busy")
        func put(_ number: Int, _ space: UInt16) -> Status {
            world.put("key-\(number)", space, revision: 0, length: 3000, replace: true)
        }
        for number in 0..<5 { #expect(put(number, idle) == .stored) }
        let home = try #require(world.entry("key-0", idle)).place.segment
        let keys = 1200
        for number in 0..<keys { #expect(put(number, busy) == .stored) }
        #expect(world.store.log.segments[home].state == .open)
        var random = SplitMix64(seed: 5)
        for turn in 0..<(10 * keys) {
            try #require(
                put(random.below(keys), busy) == .stored,
                "turn \(turn): \(world.store.log.diagnosis)")
        }
        #expect(world.entry("key-0", idle)?.place.segment != home)
        for number in 0..<5 {
            let reason = world.missed("key-\(number)", idle, revision: 0, length: 3000)
            #expect(reason == nil, "key-\(number)")
        }
        world.checkAccounts()
    }
}
