// Exporting and importing: what comes out of one store goes into another with its bytes, versions,
// shards, parents and expiries; a stream with a wrong byte in it puts nothing from there on.

import BlockIO
import LogStore
import SegmentFormat
import SimulatedDisk
import Testing

@testable import StoreTools

extension ToolWorld {
    func export(_ name: String, now: UInt32? = nil) throws -> (bytes: [UInt8], ExportReport) {
        try closed { store in
            guard
                case .one(let space) = NamespaceChoice.find(
                    name, among: Array(store.namespaces.values))
            else { throw StreamError(kind: .notAnExport, offset: 0, text: "no \(name)") }
            let stream = MemoryStream()
            let report = try Exporter.run(
                store, space, to: stream, now: now ?? clock.wallSeconds)
            return (stream.bytes, report)
        }
    }

    func takeIn(
        _ bytes: [UInt8], rewinds: Bool = true, dryRun: Bool = false
    ) throws -> ImportReport {
        let stream = MemoryStream(bytes)
        stream.canRewind = rewinds
        var options = ImportOptions(entropy: (5, 6, 7, 8))
        options.dryRun = dryRun
        options.bytesInFlight = 1 << 20
        return try Importer.run(
            directories, from: stream, driver: newDriver(seed: 21), clock: clock, options: options)
    }

    /// The stream's error, if that is what an import ends with.
    func streamError(_ bytes: [UInt8], rewinds: Bool = true) -> StreamError? {
        do {
            _ = try takeIn(bytes, rewinds: rewinds)
            return nil
        } catch let ExportReader.Failure.stream(error) {
            return error
        } catch {
            Issue.record("\(error)")
            return nil
        }
    }

    /// Live keys, sorted.
    func keys() throws -> [String] {
        try closed { store in
            let catalog = try Catalog(store)
            var keys: [String] = []
            for info in catalog.segments {
                try catalog.visit(info) { view in
                    if catalog.isLive(view, info.id) {
                        keys.append(String(decoding: view.key, as: UTF8.self))
                    }
                }
            }
            return keys.sorted()
        }
    }

    func record(_ key: String) throws -> ListedRecord {
        try closed { store in
            let records = try Catalog(store).records(ofKey: Array(key.utf8))
            return try #require(records.first { $0.isLive })
        }
    }

    /// An empty store, closed.
    static func empty(
        directories: [String] = ["/store"], mode: StoreMode = .store
    ) throws -> ToolWorld {
        let world = ToolWorld(directories: directories, segments: 14, mode: mode, entropy: 9)
        try world.open()
        world.close()
        return world
    }
}

@Suite struct ExportTests {
    @Test(arguments: ["packed", "aligned"])
    func roundTrip(name: String) throws {
        let (source, made) = Fixture.shared.world()
        let expected = try #require(made[name])
        let (bytes, report) = try source.export("model=\(name)")
        #expect(report.blocks == UInt64(expected.count) && report.leftOut.isEmpty)
        let target = try ToolWorld.empty()
        let first = try target.takeIn(bytes)
        #expect(first.put == UInt64(expected.count) && first.refused == 0 && first.newVersions == 0)
        #expect(first.madeNamespace)
        let again = try target.takeIn(bytes, rewinds: false)
        #expect(again.put == 0 && again.present == UInt64(expected.count) && again.refused == 0)
        #expect(!again.madeNamespace && again.namespace == first.namespace)
        let verified = try target.verify()
        #expect(verified.isClean, "\(verified.findings.map(\.line))")

        let key = try #require(expected.keys.filter { $0.hasSuffix("5") }.sorted().first)
        let (before, after) = (try source.record(key), try target.record(key))
        #expect(before.version == after.version && before.checksum == after.checksum)
        #expect(before.parent == after.parent && before.shards == after.shards)

        try target.open()
        let space = try target.namespace(name, aligned: name == "aligned")
        for put in expected.values {
            let (answer, value) = try target.get(put.key, space, put.value.count)
            #expect(answer.status == .hit && value == put.value, "\(put.key)")
            #expect(answer.version == put.version && answer.shardCount == put.shards.count)
        }
        // The counter has moved past what came.
        let fresh = try target.put("fresh", space, [1, 2, 3])
        #expect(fresh.version > expected.values.map(\.version).max() ?? 0)
        target.close()
    }

    @Test func expiryGoesAlong() throws {
        let source = ToolWorld()
        try source.open()
        let space = try source.namespace("ttl")
        try source.put("short", space, payload("short", 3000), timeToLive: 50)
        try source.put("long", space, payload("long", 3000), timeToLive: 100_000)
        try source.put("forever", space, payload("forever", 3000))
        source.close()
        let before = try source.record("long")
        let now = source.clock.wallSeconds
        #expect(before.expiry > now)
        let (all, _) = try source.export("ttl")
        let target = try ToolWorld.empty()
        #expect(try target.takeIn(all).put == 3)
        #expect(try target.record("long").expiry == before.expiry)
        #expect(try target.record("forever").expiry == 0)
        // What is past its time does not go out.
        let (later, report) = try source.export("ttl", now: now + 1000)
        #expect(report.blocks == 2 && report.expired == 1)
        let other = try ToolWorld.empty()
        #expect(try other.takeIn(later).put == 2)
    }

    @Test func severalMembers() throws {
        let source = ToolWorld(directories: ["/a/store", "/b/store"])
        let made = try source.fill(blocks: 60)
        #expect(try source.verify().isClean)
        let (bytes, report) = try source.export("packed")
        #expect(report.blocks == UInt64(made["packed"]?.count ?? 0))
        let target = try ToolWorld.empty(directories: ["/b/other", "/a/other"])
        #expect(try target.takeIn(bytes).put == report.blocks)
        #expect(try target.verify().isClean)
    }

    /// A key that the target has deleted since: under its old version the tombstone would kill it.
    @Test func aDeletedKeyComesBackToStay() throws {
        let source = ToolWorld()
        try source.open()
        let from = try source.namespace("model")
        let old = try source.put("key", from, payload("key", 9000), shards: [4000, 5000])
        source.close()
        let (bytes, _) = try source.export("model")
        let target = ToolWorld(entropy: 4)
        try target.open()
        let space = try target.namespace("model")
        for number in 0..<5 { try target.put("other-\(number)", space, [UInt8(number)]) }
        try target.put("key", space, payload("key", 9000), shards: [4000, 5000])
        #expect(try target.remove("key", space) == .deleted)
        target.close()
        let report = try target.takeIn(bytes)
        #expect(report.put == 1 && report.newVersions == 1)
        #expect(try target.record("key").version > old.version)
        // Both checkpoints lost: everything is replayed, tombstones too.
        for name in ["checkpoint-0", "checkpoint-1"] {
            for byte in [0, 4096] { target.machine.flipBit("/store", name, offset: byte, bit: 0) }
        }
        try target.open()
        let (answer, value) = try target.get("key", try target.namespace("model"), 9000)
        #expect(answer.status == .hit && value == payload("key", 9000))
        target.close()
    }

    @Test func conflictsAreRefused() throws {
        let (source, made) = Fixture.shared.world()
        let (bytes, report) = try source.export("packed")
        let target = try ToolWorld.empty()
        try target.open()
        let space = try target.namespace("packed")
        let key = try #require(made["packed"]?.keys.sorted().first)
        try target.put(key, space, [1, 2, 3])
        target.close()
        let taken = try target.takeIn(bytes)
        #expect(taken.conflicts == 1 && taken.put == report.blocks - 1)
        #expect(try target.verify().isClean)
    }

    // MARK: Bad streams

    @Test func anyWrongByteIsFound() throws {
        let source = ToolWorld()
        try source.open()
        let space = try source.namespace("small", aligned: true)
        for number in 0..<12 {
            let length = 200 + 37 * number
            try source.put(
                "key-\(number)", space, payload("key-\(number)", length),
                shards: number % 3 == 0 ? [100, UInt32(length - 100)] : nil)
        }
        source.close()
        let (bytes, _) = try source.export("small")
        let empty = try ToolWorld.empty()
        var dice = Dice(state: 31)
        for _ in 0..<60 {
            var bad = bytes
            bad[dice.next(bad.count)] ^= UInt8(1 << dice.next(8))
            // All of a file is read first: the store is not even opened.
            let epoch = try empty.closed { $0.manifest.epoch }
            #expect(empty.streamError(bad) != nil)
            #expect(try empty.closed { $0.manifest.epoch } == epoch)
        }
        for cut in stride(from: 0, to: bytes.count, by: 97) {
            let error = try #require(empty.streamError(Array(bytes[..<cut])))
            #expect([.cutShort, .notAnExport].contains(error.kind))
        }
        #expect(empty.streamError(bytes + [0])?.kind == .damaged)
        #expect(empty.streamError(Array("not an export".utf8))?.kind == .notAnExport)
        #expect(try empty.keys().isEmpty)
    }

    @Test func nothingIsPutFromTheBadRecordOn() throws {
        let source = ToolWorld()
        try source.open()
        let space = try source.namespace("small")
        for number in 0..<10 {
            try source.put("key-\(number)", space, payload("key-\(number)", 500))
        }
        source.close()
        let (bytes, _) = try source.export("small")
        // Where each record begins.
        var starts: [Int] = []
        let magic: [UInt8] = [0x48, 0x58, 0x52, 0x43]
        for at in 0..<(bytes.count - 4) where Array(bytes[at..<(at + 4)]) == magic {
            starts.append(at)
        }
        #expect(starts.count == 10)
        for (number, at) in [(0, 40), (4, 10), (4, 300), (9, 90)] {
            let target = try ToolWorld.empty()
            var bad = bytes
            bad[starts[number] + at] ^= 4
            #expect(target.streamError(bad, rewinds: false)?.kind == .damaged)
            #expect(try target.keys() == (0..<number).map { "key-\($0)" })
            #expect(try target.verify().isClean)
        }
    }

    @Test func damagedBlocksAreLeftOut() throws {
        let (source, made) = Fixture.shared.world()
        let key = try #require(
            made["packed"]?.values.filter { $0.shards.count == 1 }.map(\.key).sorted().first)
        let place = try source.record(key)
        let name = StoreFiles.segment(SegmentTable.local(place.segment))
        source.machine.flipBit("/store", name, offset: Int(place.page) * 4096, bit: 0)
        let (bytes, report) = try source.export("packed")
        #expect(report.leftOut.count == 1)
        #expect(report.leftOut.first?.keys.first?.bytes == Array(key.utf8))
        let target = try ToolWorld.empty()
        let taken = try target.takeIn(bytes)
        #expect(taken.leftOut == 1 && taken.put == report.blocks)
        #expect(try !target.keys().contains(key))
    }

    @Test func aDryRunChangesNothing() throws {
        let (source, _) = Fixture.shared.world()
        let (bytes, report) = try source.export("aligned")
        let target = try ToolWorld.empty()
        let epoch = try target.closed { $0.manifest.epoch }
        #expect(try target.takeIn(bytes, dryRun: true).records == report.blocks)
        #expect(try target.closed { $0.manifest.epoch } == epoch)
    }
}
