// Versions far apart: the index keeps the low half of a version, the segment's lowest gives the
// rest, so versions more than 2^31 apart never share a segment, whatever is imported together.

import SegmentFormat
import Testing

@testable import LogStore

@Suite struct VersionSpanTests {
    private static let far: UInt64 = 1 << 32

    private func check(_ world: World, _ space: UInt16, _ blocks: [VersionedBlock]) {
        for block in blocks {
            let (answer, bytes) = world.get(block.key, space, length: block.length)
            #expect(answer.status == .hit, "\(block.key): \(answer)")
            #expect(answer.version == block.version, "\(block.key)")
            let right = payload(block.key, revision: block.revision, length: block.length)
            #expect(bytes == right, "\(block.key)")
        }
        world.store.log.segments.forEach { id in
            let segment = world.store.log.segments[id]
            guard segment.recordCount > 0, segment.minVersion != UInt64.max else { return }
            #expect(segment.maxVersion - segment.minVersion < 1 << 31, "segment \(id)")
        }
        world.checkAccounts()
    }

    /// Put into one group at once, in an order that goes up and down; every second key has the low
    /// half of the one before. They keep their versions over a kill, a close and a checkpoint.
    @Test(arguments: [false, true]) func importedVersionsFarApart(checkpoint: Bool) throws {
        let world = try World(World.configuration(segments: 24, mode: .store, staging: 0))
        let space = world.namespace()
        #expect(world.put("own", space, revision: 0, length: 500) == .stored)
        let own = world.get("own", space, length: 500).0.version
        let low = own + 1000
        var blocks: [VersionedBlock] = []
        for (number, round) in [0, 1, 0, 3, 2, 4].enumerated() {
            blocks.append(
                VersionedBlock(
                    key: "key-\(number)",
                    version: low + UInt64(round) * Self.far + UInt64(number / 2), length: 6000))
        }
        // Within 2^31 of the first, but not of each other.
        let middle = 8 * Self.far
        for (number, offset) in [0, 3 << 29, -(3 << 29)].enumerated() {
            blocks.append(
                VersionedBlock(
                    key: "middle-\(number)", version: UInt64(Int64(middle) + Int64(offset)),
                    length: 3000))
        }
        for outcome in world.importBlocks(blocks, space) { #expect(outcome.status == .stored) }
        check(world, space, blocks)
        if checkpoint { world.checkpoint() }
        world.kill()
        try world.open()
        check(world, space, blocks)
        world.close()
        try world.open()
        check(world, space, blocks)
        // Counting goes on above, and a delete kills what it is to kill.
        #expect(world.remove("key-1", space) == .deleted)
        let answer = world.put("key-1", space, payload("key-1", revision: 4, length: 700))
        #expect(answer.status == .stored && answer.version > middle)
        blocks.remove(at: 1)
        world.kill()
        try world.open()
        check(world, space, blocks)
        #expect(world.missed("key-1", space, revision: 4, length: 700) == nil)
    }

    /// A dump may have a block that was moved, after its table was made, into a segment of higher
    /// versions.
    @Test func versionsAroundTheOnesKnown() {
        func around(_ version: UInt64, _ base: UInt64) -> UInt64 {
            LogStore.versionAround(low: UInt32(truncatingIfNeeded: version), base: base)
        }
        for base in [5, 1 << 31, 1 << 32, 7 << 32 | 0xFFFF_FFFE] as [UInt64] {
            for distance in [0, 1, 77, 1 << 30, (1 << 31) - 1] as [UInt64] {
                #expect(around(base + distance, base) == base + distance)
                if base > distance { #expect(around(base - distance, base) == base - distance) }
            }
        }
        #expect(around(77, UInt64.max) == 77)
    }
}
