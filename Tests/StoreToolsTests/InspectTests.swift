// Inspecting: the JSON is JSON, its parts add up to the capacity, and it tells what the store
// itself would tell; opening refuses with the right error; purging takes a namespace and nothing
// else.

import Foundation
import LogStore
import SegmentFormat
import SimulatedDisk
import Testing

@testable import SegmentFormat
@testable import StoreTools

extension ToolWorld {
    func summary() throws -> StoreSummary {
        try closed { StoreSummary(try Catalog($0), now: clock.wallSeconds) }
    }

    fileprivate func purge(_ name: String) throws -> PurgeReport {
        try Purger.purge(
            directories, driver: newDriver(seed: 3), clock: clock, holder: "the test",
            entropy: (1, 2, 3, 4)
        ) { records in
            if case .one(let found) = NamespaceChoice.find(name, among: records) { return found }
            return nil
        }
    }

    fileprivate func erase() throws -> PurgeReport {
        var report = PurgeReport()
        try closed { try Purger.erase($0, report: &report) }
        return report
    }

    /// Whether some file of the store holds these bytes.
    fileprivate func holds(_ bytes: [UInt8]) -> Bool {
        for directory in directories {
            for name in machine.fileNames(directory) where name.hasPrefix("segment-") {
                let size = machine.fileSize(directory, name) ?? 0
                let all = Data(machine.contents(directory, name, offset: 0, length: size) ?? [])
                if all.range(of: Data(bytes)) != nil { return true }
            }
        }
        return false
    }
}

@Suite struct InspectTests {
    private func parse(_ text: JSONText) throws -> [String: Any] {
        let parsed = try JSONSerialization.jsonObject(with: Data(text.description.utf8))
        return try #require(parsed as? [String: Any])
    }

    private func expectSum(_ world: ToolWorld) throws {
        let summary = try world.summary()
        let made = try parse(summary.json(segments: true, namespaces: false))
        let space = try #require(made["space"] as? [String: UInt64])
        #expect(space.values.reduce(0, +) == made["capacity_bytes"] as? UInt64)
        #expect(summary.space.sum == summary.space.capacity)
        let segments = try #require(made["segments"] as? [[String: Any]])
        #expect(segments.count == summary.segments.count)
    }

    @Test func theSumIsTheCapacity() throws {
        try expectSum(try ToolWorld.empty())
        try expectSum(Fixture.shared.world().world)
        let two = ToolWorld(directories: ["/a/s", "/b/s"])
        try two.fill(blocks: 30)
        try expectSum(two)
        let crashed = ToolWorld()
        try crashed.open()
        let space = try crashed.namespace("x")
        for number in 0..<30 { try crashed.put("\(number)", space, payload("x", 30_000)) }
        crashed.crash(.random(seed: 5))
        try expectSum(crashed)
    }

    @Test func itTellsWhatTheStoreTells() throws {
        let (world, made) = Fixture.shared.world()
        let summary = try world.summary()
        #expect(summary.blocks == UInt64(made.values.map(\.count).reduce(0, +)))
        #expect(
            Set(summary.spaces.map(\.name)) == [
                "model=packed dtype=bf16", "model=aligned dtype=bf16",
            ])
        for space in summary.spaces {
            let own = made[space.record.aligned ? "aligned" : "packed"]?.values
            #expect(space.bytes == UInt64(own?.map(\.value.count).reduce(0, +) ?? 0))
        }
        #expect(summary.checkpoints.filter(\.isUsed).count == 1)
        try world.open()
        let store = try #require(world.store)
        #expect(store.log.space.live == summary.space.live)
        #expect(store.log.index.count == Int(summary.blocks))
        for info in summary.segments where info.liveBlocks > 0 {
            #expect(Int(store.log.segments[info.id].liveBlocks) == info.liveBlocks)
            #expect(Int(store.log.segments[info.id].livePages) == info.livePages)
        }
        world.close()
    }

    @Test func textAndPage() throws {
        let world = Fixture.shared.world().world
        let summary = try world.summary()
        #expect(summary.text.contains("cache mode"))
        #expect(summary.segmentText().split(separator: "\n").count == summary.segments.count + 1)
        let page = SegmentMap.html(summary)
        #expect(page.hasPrefix("<!DOCTYPE html>") && page.hasSuffix("</html>\n"))
        #expect(page.components(separatedBy: "<rect").count == 2 * summary.segments.count + 1)
        #expect(!page.contains("http") && !page.contains("<script"))
        let records = try world.closed { store in
            let catalog = try Catalog(store)
            let info = try #require(catalog.segments.first { $0.liveBlocks > 0 })
            return try catalog.records(ofSegment: info)
        }
        #expect(!records.isEmpty && ListedRecord.table(records).contains("block-"))
        for record in records { _ = try parse(record.json) }
    }

    @Test func keysAsText() throws {
        #expect(KeyText.of(Array("block-1".utf8)) == "block-1")
        #expect(KeyText.of([0, 255]) == "0x00ff")
        for bytes in [[UInt8(1), 2], Array("0x12".utf8), Array("plain".utf8), [0x20]] {
            #expect(KeyText.bytes(KeyText.of(bytes)) == bytes)
        }
        #expect(KeyText.bytes("0x1") == nil && KeyText.bytes("0xzz") == nil)
    }

    // MARK: Refusals

    @Test func refusals() throws {
        let (world, _) = Fixture.shared.world()
        #expect(world.refusal(["/nowhere"])?.kind == .missing)
        #expect(world.refusal(["/store", "/store"])?.kind == .configuration)
        #expect(world.refusal(["/store", "/store/"])?.kind == .configuration)
        let driver = world.newDriver(seed: 77)
        _ = try driver.openDirectory("/none", create: true)
        #expect(world.refusal(["/none"])?.kind == .notAStore)
        try world.open()
        let locked = try #require(world.refusal())
        #expect(locked.kind == .locked && locked.advice.contains("the world"))
        world.close()
        #expect(world.refusal() == nil)
        let foreign = ToolWorld(directories: ["/other"], entropy: 50, machine: world.machine)
        try foreign.open()
        foreign.close()
        #expect(world.refusal(["/store", "/other"])?.kind == .otherStore)
    }

    @Test func aMemberIsMissing() throws {
        let world = ToolWorld(directories: ["/a/s", "/b/s"])
        try world.fill(blocks: 30)
        #expect(world.refusal(["/a/s"])?.kind == .missing)
        #expect(world.refusal(["/b/s", "/a/s"]) == nil)
        let alone = try world.closed(["/a/s"], allowAbsent: true) { try Verifier.run($0) }
        #expect(alone.isClean && alone.blocks > 0, "\(alone.findings.map(\.line))")
    }

    @Test func aNewerFormat() throws {
        let (world, _) = Fixture.shared.world()
        let driver = world.newDriver(seed: 8)
        let directory = try driver.openDirectory("/store", create: false)
        let file = try driver.open(directory, "manifest", .existing)
        let io = OfflineIO(driver: driver, clock: world.clock)
        let buffer = PageBuffer(bytes: Manifest.copyBytes)
        #expect(io.read(file, offset: 0, into: buffer.base, length: buffer.count) == 0)
        let bytes = UnsafeMutableRawBufferPointer(start: buffer.base, count: buffer.count)
        bytes.put(UInt64(1 | 1 << 40), 40)
        bytes.seal(0x4865_6172_7468_4D61, at: 8)
        #expect(
            io.end(io.begin(.write, file, offset: 0, buffer.base, length: buffer.count)) == 0)
        driver.close(file)
        driver.close(directory)
        #expect(world.refusal()?.kind == .newerFormat)
    }

    @Test func noManifestIsLeft() throws {
        let (world, _) = Fixture.shared.world()
        for copy in 0..<Manifest.copies {
            world.machine.flipBit("/store", "manifest", offset: copy * Manifest.copyBytes, bit: 1)
        }
        #expect(world.refusal()?.kind == .damaged)
    }

    // MARK: Purging

    @Test func purgingTakesOneNamespace() throws {
        let (world, made) = Fixture.shared.world()
        let report = try world.purge("aligned")
        #expect(report.purged && report.blocks == UInt64(made["aligned"]?.count ?? 0))
        let after = try world.verify()
        #expect(after.isClean && after.blocks == UInt64(made["packed"]?.count ?? 0))
        try world.open()
        let (kept, gone) = (
            try world.namespace("packed"), try world.namespace("aligned", aligned: true)
        )
        for put in made["packed"]?.values ?? [:].values {
            #expect(try world.get(put.key, kept, put.value.count).0.status == .hit)
        }
        for put in made["aligned"]?.values ?? [:].values {
            #expect(try world.get(put.key, gone, put.value.count).0.status == .miss)
        }
        world.close()
        #expect(try !world.purge("no such").purged)
    }

    @Test func erasingLeavesNoValue() throws {
        let (world, made) = Fixture.shared.world()
        let all = try #require(made["packed"]).values.filter { $0.value.count >= 64 }
        let probes = all.prefix(12).map { Array($0.value[..<48]) }
        #expect(probes.allSatisfy { world.holds($0) })
        _ = try world.purge("packed")
        #expect(probes.contains { world.holds($0) })
        let report = try world.erase()
        #expect(report.erasedBytes > 0 && report.skippedSegments == 0)
        #expect(!probes.contains { world.holds($0) })
        let after = try world.verify()
        #expect(after.isClean && after.wholeBlocks == UInt64(made["aligned"]?.count ?? 0))
        try expectSum(world)
        // The store goes on as before, and takes its segments into new lives.
        try world.open()
        let space = try world.namespace("next")
        for number in 0..<120 {
            let answer = try world.put("n-\(number)", space, payload("n-\(number)", 60_000))
            #expect(answer.status == .stored)
        }
        world.close()
        #expect(try world.verify().isClean)
    }
}
