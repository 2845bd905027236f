// The format held against files made once from fixed values: what is written is what they hold, and
// what they hold is read as those values. A change of the format shows here before a store shows
// it.
//
// HEARTH_WRITE_GOLDEN=1 writes them anew.

import Glibc
import Testing

@testable import SegmentFormat

@Suite struct GoldenTests {
    private static let secret = SecretKey(k0: 0x0706_0504_0302_0100, k1: 0x0f0e_0d0c_0b0a_0908)
    private static let store = Identity128(hi: 0x1111_1111_1111_1111, lo: 0x2222_2222_2222_2222)
    private static let device = Identity128(hi: 0x3333_3333_3333_3333, lo: 0x4444_4444_4444_4444)
    private static let context = PageContext(
        secret: secret, store: store, segment: 0x8005, generation: 42)

    private static func path(_ name: String) -> String {
        let file = #filePath
        let folder = file[..<(file.lastIndex(of: "/") ?? file.endIndex)]
        return folder + "/Golden/" + name + ".bin"
    }

    private static func read(_ name: String) -> [UInt8]? { contents(path(name)) }

    private static func contents(_ path: String) -> [UInt8]? {
        guard let file = fopen(path, "rb") else { return nil }
        defer { fclose(file) }
        var made = [UInt8](repeating: 0, count: 1 << 17)
        let count = fread(&made, 1, made.count, file)
        return Array(made[..<count])
    }

    /// Compares with the file, or writes it when asked to.
    private func check(_ name: String, _ bytes: some Collection<UInt8>) throws {
        if getenv("HEARTH_WRITE_GOLDEN") != nil {
            let file = try #require(fopen(Self.path(name), "wb"))
            let copy = Array(bytes)
            #expect(fwrite(copy, 1, copy.count, file) == copy.count)
            fclose(file)
        }
        let golden = try #require(Self.read(name), "no \(name).bin")
        #expect(golden.count == bytes.count)
        let first = zip(golden, bytes).enumerated().first { $0.element.0 != $0.element.1 }
        #expect(first == nil, "\(name).bin differs at byte \(first?.offset ?? -1)")
    }

    /// The file's bytes in front of zeros.
    private func load(_ name: String, bytes: Int) throws -> Buffer {
        let golden = try #require(Self.read(name), "no \(name).bin")
        let buffer = Buffer(bytes)
        buffer.bytes.copyBytes(from: golden)
        return buffer
    }

    @Test func header() throws {
        var header = SegmentHeader()
        header.store = Self.store
        header.device = Self.device
        header.segment = 0x8005
        header.generation = 42
        header.segmentBytes = 256 << 20
        header.state = 1
        header.versionBase = 0x0102_0304_0506
        header.createdWallSeconds = 0x6500_0000
        let page = Buffer()
        header.encode(into: page.bytes, secret: Self.secret)
        try check("header", page.raw)
        let read = try load("header", bytes: 4096)
        #expect(
            try SegmentHeader.decode(
                read.raw, secret: Self.secret, store: Self.store, segment: 0x8005) == header)
    }

    @Test func trailer() throws {
        var trailer = SegmentTrailer()
        trailer.generation = 42
        trailer.recordCount = 3
        trailer.footerFirstPage = 65534
        trailer.footerPages = 1
        trailer.minVersion = 1000
        trailer.maxVersion = 1002
        trailer.minValueVersion = 1000
        trailer.sealedWallSeconds = 0x6500_0001
        trailer.livePagesAtSeal = 2
        trailer.metaPages = 4
        let page = Buffer()
        trailer.encode(into: page.bytes, context: Self.context, page: 65535)
        try check("trailer", page.raw)
        let read = try load("trailer", bytes: 4096)
        #expect(
            try SegmentTrailer.decode(read.raw, context: Self.context, page: 65535) == trailer)
    }

    private static var records: [Record] {
        var value = Record()
        value.key = Array("block-key-1".utf8)
        value.parent = Array("block-key-0".utf8)
        value.descriptor.version = 1000
        value.descriptor.namespaceInstance = 7
        value.descriptor.length = 5000
        value.descriptor.storedPages = 2
        value.descriptor.checksum = 0xC0FF_EE01
        value.descriptor.expiry = 0x6600_0000
        value.descriptor.flags = [.hasParent]
        value.descriptor.rawLength = 5000
        var sharded = Record()
        sharded.key = Array("block-key-2".utf8)
        sharded.descriptor.version = 1001
        sharded.descriptor.namespaceInstance = 7
        sharded.descriptor.page = 2
        sharded.descriptor.length = 16384
        sharded.descriptor.storedPages = 5
        sharded.descriptor.checksum = 0xC0FF_EE02
        sharded.descriptor.shardCount = 3
        sharded.descriptor.flags = [.aligned]
        sharded.descriptor.rawLength = 16384
        var dead = Record()
        dead.key = Array("k".utf8)
        dead.descriptor.version = 1002
        dead.descriptor.namespaceInstance = 7
        dead.descriptor.flags = [.tombstone]
        return [value, sharded, dead].map { record in
            var made = record
            made.descriptor.keyLength = UInt16(record.key.count)
            made.descriptor.parentLength = UInt16(record.parent.count)
            return made
        }
    }

    @Test func descriptorPage() throws {
        let page = Buffer()
        var writer = DescriptorPageWriter(memory: try #require(page.bytes.baseAddress), pages: 1)
        for record in Self.records {
            let took = record.key.withUnsafeBytes { key in
                record.parent.withUnsafeBytes {
                    writer.append(record.descriptor, key: key, parent: $0)
                }
            }
            #expect(took)
        }
        let pages = writer.seal(
            kind: .group, context: Self.context, firstPage: 1, groupFirstPage: 1, groupPages: 8,
            groupSequence: 9, valueBase: 2)
        #expect(pages == 1)
        try check("descriptor", page.raw)
        let read = try load("descriptor", bytes: 4096)
        let expected = Self.records.map { record in
            var moved = record
            if record.descriptor.hasValue { moved.descriptor.page += 2 }
            return moved
        }
        #expect(try readPage(read.raw, Self.context, 1) == expected)
    }

    private static var manifest: Manifest {
        var made = Manifest()
        made.store = store
        made.secret = secret
        made.epoch = 5
        made.membershipEpoch = 2
        made.segmentBytes = 256 << 20
        made.maxBlockBytes = 4 << 20
        made.capacityBytes = 100 << 30
        made.thisDevice = 1
        made.generationLimit = 1025
        made.versionLimit = 1 << 20
        made.nextNamespaceInstance = 8
        made.wallSecondsFloor = 0x6500_0002
        made.devices = [
            DeviceRecord(id: device, index: 0, state: 0, segmentCount: 200, membershipEpoch: 2),
            DeviceRecord(
                id: Identity128(hi: 5, lo: 6), index: 1, state: 1, segmentCount: 199,
                membershipEpoch: 1),
        ]
        let fields = [("model", "llama-3-8b"), ("dtype", "bf16")]
        var namespace = NamespaceRecord(
            instance: 7, fingerprint: NamespaceRecord.fingerprint(fields: fields), state: 0,
            aligned: true, ttlSeconds: 3600, capBytes: 1 << 30, fields: fields)
        namespace.slot = 3
        namespace.createdVersion = 999
        made.namespaces = [namespace]
        return made
    }

    @Test func manifest() throws {
        let copy = Buffer(Manifest.copyBytes)
        try Self.manifest.encode(into: copy.bytes)
        // 192 of fields, 2 devices of 40, a namespace of 72 + (4 + 5 + 10) + (4 + 5 + 4) up to 8.
        let used = 192 + 80 + 104
        try check("manifest", copy.raw[..<used])
        #expect(copy.raw[used...].allSatisfy { $0 == 0 })
        let file = try load("manifest", bytes: Manifest.copyBytes)
        let read = try Manifest.decode(copy: file.raw)
        #expect(read.store == Self.store)
        #expect(read.secret == Self.secret)
        #expect(read.epoch == 5)
        #expect(read.membershipEpoch == 2)
        #expect(read.segmentBytes == 256 << 20)
        #expect(read.maxBlockBytes == 4 << 20)
        #expect(read.capacityBytes == 100 << 30)
        #expect(read.thisDevice == 1)
        #expect(read.generationLimit == 1025)
        #expect(read.versionLimit == 1 << 20)
        #expect(read.nextNamespaceInstance == 8)
        #expect(read.wallSecondsFloor == 0x6500_0002)
        #expect(!read.cleanClose)
        #expect(read.devices == Self.manifest.devices)
        #expect(read.namespaces.count == 1)
        let namespace = try #require(read.namespaces.first)
        #expect(namespace.instance == 7)
        #expect(namespace.slot == 3)
        #expect(namespace.aligned)
        #expect(namespace.ttlSeconds == 3600)
        #expect(namespace.capBytes == 1 << 30)
        #expect(namespace.createdVersion == 999)
        #expect(namespace.fields.map { $0.0 } == ["model", "dtype"])
        #expect(namespace.fields.map { $0.1 } == ["llama-3-8b", "bf16"])
        #expect(
            namespace.fingerprint == NamespaceRecord.fingerprint(fields: namespace.fields))
    }

    @Test func checkpoint() throws {
        var header = CheckpointHeader()
        header.store = Self.store
        header.sequence = 3
        header.beganVersion = 1002
        header.beganWall = 0x6500_0003
        header.segmentCount = 2
        var sealed = CheckpointSegment()
        sealed.segment = 0x8005
        sealed.state = 3
        sealed.generation = 42
        sealed.writtenPages = 65536
        sealed.livePages = 7
        sealed.minVersion = 1000
        sealed.maxVersion = 1002
        sealed.minValueVersion = 1000
        sealed.metaPages = 4
        var empty = CheckpointSegment()
        empty.segment = 0x8006
        empty.minVersion = UInt64.max
        empty.minValueVersion = UInt64.max
        let file = Buffer(12288)
        header.encode(into: file.bytes, segments: [sealed, empty], secret: Self.secret)
        var end = CheckpointEnd()
        end.sequence = 3
        end.chunkCount = 1
        end.entryCount = 2
        end.encode(into: file.page(1), secret: Self.secret, store: Self.store)
        try check("checkpoint", file.raw)
        let read = try load("checkpoint", bytes: 12288)
        #expect(
            try CheckpointHeader.decode(read.raw(0), secret: Self.secret, store: Self.store)
                == header)
        #expect(
            try CheckpointHeader.decodeSegments(read.raw, secret: Self.secret, store: Self.store)
                == [sealed, empty])
        #expect(
            try CheckpointEnd.decode(read.raw(1), secret: Self.secret, store: Self.store) == end)
    }

    @Test func chunk() throws {
        let chunk = Buffer(CheckpointChunk.chunkBytes)
        for at in 0..<80 { chunk.bytes[64 + at] = UInt8(at) }
        CheckpointChunk.seal(
            chunk.bytes, secret: Self.secret, store: Self.store, sequence: 3, index: 0, entries: 2)
        try check("chunk", chunk.raw[..<144])
        #expect(chunk.raw[144...].allSatisfy { $0 == 0 })
        let read = try load("chunk", bytes: CheckpointChunk.chunkBytes)
        #expect(
            try CheckpointChunk.open(
                read.raw, secret: Self.secret, store: Self.store, sequence: 3, index: 0) == 2)
        #expect(Array(read.raw[64..<144]) == Array(0..<80))
    }

    /// The dumps in docs/FORMAT.md are those of the files.
    @Test(arguments: ["header", "trailer", "descriptor", "manifest", "checkpoint", "chunk"])
    func theDocumentShowsTheFile(name: String) throws {
        let here = #filePath
        let root = here[..<(here.firstRange(of: "/Tests/")?.lowerBound ?? here.endIndex)]
        let text = try #require(Self.contents(root + "/docs/FORMAT.md"))
        let lines = Set(text.split(separator: 10).map { String(decoding: $0, as: UTF8.self) })
        let golden = try #require(Self.read(name))
        var shown = 0
        for at in stride(from: 0, to: golden.count, by: 16) {
            let row = golden[at..<min(at + 16, golden.count)]
            if row.allSatisfy({ $0 == 0 }) { continue }
            var columns = row.map { hex([$0]) }
            if columns.count > 8 { columns.insert("", at: 8) }
            let offset = hex([24, 16, 8, 0].map { UInt8(truncatingIfNeeded: at >> $0) })
            let wanted = offset + "  " + columns.joined(separator: " ")
            #expect(lines.contains { $0.hasPrefix(wanted) }, "\(name): \(wanted)")
            shown += 1
        }
        #expect(shown > 4)
    }
}
