// Verifying: a store as its owner left it is clean, whatever was done to it before; and any byte
// that matters, turned over, is found: in the right structure, at the right place.

import LogStore
import SegmentFormat
import SimulatedDisk
import Testing

@testable import StoreTools

@Suite struct VerifyTests {
    @Test(arguments: [0, 2])
    func aClosedStoreIsClean(threads: Int) throws {
        let (world, made) = Fixture.shared.world()
        let report = try world.verify(threads: threads)
        #expect(report.findings.isEmpty, "\(report.findings.map(\.line))")
        let blocks = made.values.flatMap(\.values)
        #expect(report.blocks == UInt64(blocks.count))
        #expect(report.wholeBlocks == report.blocks)
        #expect(report.valueBytes == UInt64(blocks.map(\.value.count).reduce(0, +)))
        #expect(report.shards == UInt64(blocks.map(\.shards.count).reduce(0, +)))
        #expect(report.deadBlocks > 0 && report.deadDamaged == 0)
        #expect(report.footerPages > 0 && report.descriptorPages > 10)
        #expect(report.checkpointEntries == report.blocks)
    }

    @Test func aHundredDamages() throws {
        let world = Fixture.shared.world().world
        let map = try SiteMap(world)
        #expect(
            Set(map.structures) == [
                .manifest, .header, .trailer, .footer, .descriptor, .value, .shardTable, .shard,
                .checkpoint,
            ])
        #expect(try plant(world, map, rounds: 12, seed: 77) >= 100)
        #expect(try world.verify().isClean)
    }

    /// Killed, so that there is no checkpoint: the log alone says what lives.
    @Test func damagesWithoutACheckpoint() throws {
        let world = ToolWorld()
        try world.fill(blocks: 70, closes: false)
        world.crash(.all)
        #expect(try world.verify().isClean)
        let map = try SiteMap(world)
        #expect(!map.structures.contains(.checkpoint))
        #expect(try plant(world, map, rounds: 3, seed: 8) >= 20)
    }

    /// Turns one bit of each structure over, round by round, and looks that it is found; how many.
    private func plant(
        _ world: ToolWorld, _ map: SiteMap, rounds: Int, seed: UInt64
    ) throws -> Int {
        var dice = Dice(state: seed)
        var planted = 0
        for round in 0..<rounds {
            for structure in map.structures {
                let site = try map.site(structure, &dice)
                let bit = dice.next(8)
                let flipped = world.machine.flipBit(
                    site.directory, site.file, offset: site.offset, bit: bit)
                #expect(flipped)
                let report = try world.verify()
                let hit = report.damage.contains { site.isTold(by: $0) }
                #expect(
                    hit,
                    """
                    round \(round), \(structure.rawValue) in \(site.file) at \(site.offset), \
                    bit \(bit): \(report.findings.map(\.line))
                    """)
                planted += 1
                world.machine.flipBit(site.directory, site.file, offset: site.offset, bit: bit)
            }
        }
        return planted
    }

    @Test func aDamagedValueTellsItsKey() throws {
        let world = Fixture.shared.world().world
        let map = try SiteMap(world)
        var dice = Dice(state: 4)
        for structure in [Finding.Structure.value, .shard, .shardTable] {
            let site = try map.site(structure, &dice)
            world.machine.flipBit(site.directory, site.file, offset: site.offset, bit: 1)
            let report = try world.verify()
            world.machine.flipBit(site.directory, site.file, offset: site.offset, bit: 1)
            #expect(report.damage.count == 1)
            let key = try #require(report.damage.first?.keys.first)
            #expect(String(decoding: key.bytes, as: UTF8.self).hasPrefix("block-"))
            #expect(report.wholeBlocks == report.blocks - 1)
        }
    }

    /// Entries of a checkpoint that verifies, and tells what the log does not.
    @Test(arguments: [0, 8, 24, 36])
    func anEntryThatIsNotTrue(byte: Int) throws {
        let world = Fixture.shared.world().world
        let (path, sequence, offset) = try world.closed { store in
            let dump = try #require(try Catalog(store).dump)
            let header = try #require(dump.header)
            return (
                dump.path, header.sequence,
                CheckpointHeader.dataOffset(segments: Int(header.segmentCount))
            )
        }
        let driver = world.newDriver(seed: 2)
        let io = OfflineIO(driver: driver, clock: world.clock)
        let directory = try driver.openDirectory("/store", create: false)
        let name = try #require(path.split(separator: "/").last.map(String.init))
        let file = try driver.open(directory, name, .existing)
        let buffer = PageBuffer(bytes: CheckpointChunk.chunkBytes)
        let bytes = UnsafeMutableRawBufferPointer(start: buffer.base, count: buffer.count)
        #expect(io.read(file, offset: offset, into: buffer.base, length: buffer.count) == 0)
        let (secret, id) = try world.closed { ($0.manifest.secret, $0.manifest.store) }
        let entries = try CheckpointChunk.open(
            buffer.bytes, secret: secret, store: id, sequence: sequence, index: 0)
        bytes[CheckpointChunk.payloadOffset + 40 * 5 + byte] ^= 64
        CheckpointChunk.seal(
            bytes, secret: secret, store: id, sequence: sequence, index: 0, entries: entries)
        #expect(
            io.end(io.begin(.write, file, offset: offset, buffer.base, length: buffer.count)) == 0)
        driver.close(file)
        driver.close(directory)
        let report = try world.verify()
        #expect(
            report.damage.contains { $0.structure == .index && $0.path == path },
            "\(report.findings.map(\.line))")
        // Repaired, the index says what the log does: nothing was lost by it.
        let repaired = try world.repair()
        #expect(repaired.after.isClean && repaired.lost.isEmpty)
        let made = Fixture.shared.world().made
        #expect(repaired.after.blocks == UInt64(made.values.map(\.count).reduce(0, +)))
        try world.expectServed(KnownStore(made: made), "byte \(byte)")
    }

    /// The low half of a version is told by its segment's lowest, which may be from before an old
    /// block was moved there: what seems further above than a segment spans is of the round before.
    @Test func versionsOfMovedBlocks() {
        let round: UInt64 = 1 << 32
        var base = 7 * round + 100
        func version(_ low: UInt32) -> UInt64 {
            LogStore.versionOnLoad(low: low, base: &base, began: 9 * round + 50)
        }
        #expect(version(200) == 7 * round + 200 && base == 7 * round + 100)
        #expect(version(0xFFFF_0000) == 6 * round + 0xFFFF_0000)
        #expect(base == 6 * round + 0xFFFF_0000)
        #expect(version(200) == 7 * round + 200)
        // In a segment that had none the first is near what the store had come to.
        for (low, full) in [(60, 9 * round + 60), (40, 9 * round + 40), (.max, 9 * round - 1)]
            as [(UInt32, UInt64)]
        {
            base = UInt64.max
            #expect(version(low) == full && base == full)
            #expect(version(low &+ 5) == full + 5 && base == full, "and the next one near that")
        }
    }

    @Test func pagesThatCannotBeRead() throws {
        let world = Fixture.shared.world().world
        let map = try SiteMap(world)
        var dice = Dice(state: 9)
        for structure in map.structures {
            let copy = ToolWorld(machine: world.machine.copy())
            let site = try map.site(structure, &dice)
            copy.machine.breakPages(site.directory, site.file, offset: site.offset, length: 1)
            let report = try copy.verify()
            #expect(
                report.damage.contains {
                    $0.path == site.path && $0.text.contains("errno")
                }, "\(structure): \(report.findings.map(\.line))")
        }
    }

    /// What a crash leaves, an opening puts right; after closing again, nothing is wrong.
    @Test(arguments: 0..<12)
    func afterACrash(seed: Int) throws {
        let world = ToolWorld()
        try world.open()
        let space = try world.namespace("crash")
        var dice = Dice(state: UInt64(seed))
        for number in 0..<(20 + dice.next(60)) {
            try world.put(
                "k-\(number % 40)", space, payload("k-\(number)", 1 + dice.next(50_000)),
                replace: number >= 40)
            if number % 9 == 8 { _ = try world.remove("k-\(number % 40)", space) }
        }
        world.crash(.random(seed: UInt64(seed)))
        _ = try world.verify()
        try world.open()
        world.close()
        let report = try world.verify()
        #expect(report.isClean, "\(report.findings.map(\.line))")
    }

    @Test func evictionAndReuse() throws {
        let world = ToolWorld(segments: 9)
        for round in 0..<3 {
            try world.open()
            let space = try world.namespace("cache")
            for number in 0..<150 {
                try world.put(
                    "r\(round)-\(number)", space, payload("r\(round)-\(number)", 60_000))
            }
            world.close()
            let report = try world.verify()
            #expect(report.isClean, "\(report.findings.map(\.line))")
            #expect(report.blocks > 100)
        }
    }
}
