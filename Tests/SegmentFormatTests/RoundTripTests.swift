// Every structure comes back from its bytes as it went in, with random content.

import Testing

@testable import SegmentFormat

@Suite struct RoundTripTests {
    @Test func headers() throws {
        var numbers = Numbers(20)
        let buffer = Buffer()
        for _ in 0..<500 {
            numbers.fill(buffer.bytes)
            let header = numbers.header()
            let secret = numbers.secret()
            header.encode(into: buffer.bytes, secret: secret)
            let read = try SegmentHeader.decode(
                buffer.raw, secret: secret, store: header.store, segment: header.segment)
            #expect(read == header)
            #expect(buffer.raw[112...].allSatisfy { $0 == 0 })
        }
    }

    @Test func trailers() throws {
        var numbers = Numbers(21)
        let buffer = Buffer()
        for _ in 0..<500 {
            numbers.fill(buffer.bytes)
            let context = numbers.context()
            let trailer = numbers.trailer(context.generation)
            let page = UInt32(numbers.below(1 << 20))
            trailer.encode(into: buffer.bytes, context: context, page: page)
            #expect(SegmentTrailer.peekGeneration(buffer.raw) == context.generation)
            #expect(
                try SegmentTrailer.decode(buffer.raw, context: context, page: page) == trailer)
            #expect(buffer.raw[72...].allSatisfy { $0 == 0 })
        }
    }

    @Test(arguments: [DescriptorPageKind.group, .footer])
    func descriptorPages(kind: DescriptorPageKind) throws {
        var numbers = Numbers(UInt64(22 + kind.rawValue))
        let buffer = Buffer(4 * 4096)
        for round in 0..<200 {
            numbers.fill(buffer.bytes)
            let context = numbers.context()
            let first = UInt32(1 + numbers.below(1000))
            let base = round % 2 == 0 ? 0 : UInt32(1 + numbers.below(1000))
            let (records, pages) = writePage(
                &numbers, into: buffer, context: context, pages: 4, first: first,
                count: 1 + numbers.below(60), kind: kind, valueBase: base)
            var read: [Record] = []
            for page in 0..<pages {
                let number = first + UInt32(page)
                let reader = try DescriptorPageReader(
                    page: buffer.raw(page), context: context, pageNumber: number)
                #expect(reader.header.kind == kind)
                #expect(reader.header.page == number)
                #expect(reader.header.groupFirstPage == first)
                #expect(reader.header.groupPages == 104)
                #expect(reader.header.descriptorIndex == UInt16(page))
                #expect(reader.header.descriptorPages == UInt16(pages))
                #expect(reader.header.groupSequence == 77)
                #expect(reader.header.generation == context.generation)
                #expect(buffer.raw(page)[Int(reader.header.usedBytes)...].allSatisfy { $0 == 0 })
                let found = try readPage(buffer.raw(page), context, number)
                #expect(found.count == Int(reader.header.recordCount))
                read += found
            }
            let expected = records.map { record in
                var moved = record
                if record.descriptor.hasValue { moved.descriptor.page += base }
                return moved
            }
            #expect(read == expected)
        }
    }

    private func expectSame(_ one: Manifest, _ other: Manifest) {
        #expect(one.store == other.store)
        #expect(one.secret == other.secret)
        #expect(one.epoch == other.epoch)
        #expect(one.membershipEpoch == other.membershipEpoch)
        #expect(one.mode == other.mode)
        #expect(one.segmentBytes == other.segmentBytes)
        #expect(one.maxBlockBytes == other.maxBlockBytes)
        #expect(one.capacityBytes == other.capacityBytes)
        #expect(one.thisDevice == other.thisDevice)
        #expect(one.devices == other.devices)
        #expect(one.generationLimit == other.generationLimit)
        #expect(one.versionLimit == other.versionLimit)
        #expect(one.nextNamespaceInstance == other.nextNamespaceInstance)
        #expect(one.wallSecondsFloor == other.wallSecondsFloor)
        #expect(one.cleanClose == other.cleanClose)
        #expect(one.readOnlyFormat == other.readOnlyFormat)
        #expect(one.namespaces.count == other.namespaces.count)
        for (left, right) in zip(one.namespaces, other.namespaces) {
            #expect(left.instance == right.instance)
            #expect(left.fingerprint == right.fingerprint)
            #expect(left.state == right.state)
            #expect(left.slot == right.slot)
            #expect(left.createdVersion == right.createdVersion)
            #expect(left.aligned == right.aligned)
            #expect(left.ttlSeconds == right.ttlSeconds)
            #expect(left.capBytes == right.capBytes)
            #expect(left.fields.map { $0.0 } == right.fields.map { $0.0 })
            #expect(left.fields.map { $0.1 } == right.fields.map { $0.1 })
        }
    }

    @Test func manifests() throws {
        var numbers = Numbers(24)
        let buffer = Buffer(Manifest.copyBytes)
        for (devices, namespaces) in [(0, 0), (1, 0), (1, 1), (2, 5), (32, 40), (3, 1000)] {
            numbers.fill(buffer.bytes)
            let manifest = numbers.manifest(devices: devices, namespaces: namespaces)
            #expect(manifest.fits)
            try manifest.encode(into: buffer.bytes)
            expectSame(try Manifest.decode(copy: buffer.raw), manifest)
        }
    }

    @Test func aManifestThatDoesNotFitIsRefused() {
        var numbers = Numbers(25)
        let buffer = Buffer(Manifest.copyBytes)
        var manifest = numbers.manifest(devices: 1, namespaces: 4096)
        #expect(!manifest.fits)
        #expect(
            failure { () throws(FormatError) in try manifest.encode(into: buffer.bytes) }
                == .tooLarge)
        manifest.namespaces = [numbers.namespace(0)]
        let long = String(repeating: "x", count: 4097)
        manifest.namespaces[0].fields = [(long, "")]
        #expect(!manifest.fits)
        manifest.namespaces[0].fields = [("", long)]
        #expect(!manifest.fits)
        manifest.namespaces[0].fields = [(String(long.dropLast()), String(long.dropLast()))]
        #expect(manifest.fits)
        manifest.namespaces[0].fields = (0..<65).map { ("\($0)", "") }
        #expect(!manifest.fits)
    }

    @Test func theNewestWholeCopyWins() throws {
        var numbers = Numbers(26)
        let size = Manifest.copyBytes
        let file = Buffer(Manifest.copies * size)
        func copy(_ number: Int) -> UnsafeMutableRawBufferPointer {
            UnsafeMutableRawBufferPointer(
                rebasing: file.bytes[(number * size)..<((number + 1) * size)])
        }
        #expect(
            failure { () throws(FormatError) in try Manifest.newest(in: file.raw) } == .notHearth)
        var manifest = numbers.manifest(devices: 2, namespaces: 2)
        for epoch in UInt64(10)...11 {
            manifest.epoch = epoch
            for place in Manifest.places(of: epoch) { try manifest.encode(into: copy(place)) }
        }
        let (older, newer) = (Manifest.places(of: 10), Manifest.places(of: 11))
        #expect(Set(older + newer) == Set(0..<Manifest.copies))
        #expect(try Manifest.newest(in: file.raw).epoch == 11)
        // One copy of the newest epoch is enough; with neither, the epoch before counts.
        copy(newer[0])[500] ^= 1
        #expect(try Manifest.newest(in: file.raw).epoch == 11)
        copy(newer[1])[0] ^= 1
        #expect(try Manifest.newest(in: file.raw).epoch == 10)
        copy(older[0])[200] ^= 1
        #expect(try Manifest.newest(in: file.raw).epoch == 10)
        copy(older[1])[8] ^= 1
        #expect(failure { () throws(FormatError) in try Manifest.newest(in: file.raw) } == .damaged)
        // A file cut short has the copies that it has.
        manifest.epoch = 12
        try manifest.encode(into: copy(0))
        let short = UnsafeRawBufferPointer(rebasing: file.raw[..<(size + 100)])
        #expect(try Manifest.newest(in: short).epoch == 12)
    }

    @Test func featureWords() throws {
        var numbers = Numbers(27)
        let file = Buffer(Manifest.copies * Manifest.copyBytes)
        let copy = UnsafeMutableRawBufferPointer(rebasing: file.bytes[..<Manifest.copyBytes])
        let manifest = numbers.manifest(devices: 1, namespaces: 1)
        func with(_ word: UInt64, _ at: Int) throws {
            try manifest.encode(into: copy)
            copy.put(word, at)
            copy.seal(0x4865_6172_7468_4D61, at: 8)
        }
        try with(1 << 9, 24)
        #expect(try !Manifest.newest(in: file.raw).readOnlyFormat)
        try with(1 << 9, 32)
        #expect(try Manifest.newest(in: file.raw).readOnlyFormat)
        try with(1 | 1 << 9, 40)
        #expect(
            failure { () throws(FormatError) in try Manifest.newest(in: file.raw) }
                == .newerFormat(word: 1 << 9))
        let page = Buffer()
        let header = numbers.header()
        let secret = numbers.secret()
        header.encode(into: page.bytes, secret: secret)
        page.bytes.put(UInt64(3), 104)
        page.bytes.seal(
            PageSeed.make(
                secret, kind: FormatConstants.segmentMagic, store: header.store,
                segment: header.segment, generation: 0, page: 0), at: 8)
        #expect(
            failure { () throws(FormatError) in
                try SegmentHeader.decode(
                    page.raw, secret: secret, store: header.store, segment: header.segment)
            } == .newerFormat(word: 2))
    }

    @Test(arguments: [0, 1, 73, 74, 500]) func checkpointHeaders(count: Int) throws {
        var numbers = Numbers(UInt64(28 + count))
        let header = numbers.checkpoint(segments: count)
        let segments = (0..<count).map { _ in numbers.checkpointSegment() }
        let secret = numbers.secret()
        let buffer = Buffer(Int(CheckpointHeader.dataOffset(segments: count)))
        #expect(buffer.bytes.count == 8192 + (count * 56 + 4095) / 4096 * 4096)
        header.encode(into: buffer.bytes, segments: segments, secret: secret)
        #expect(
            try CheckpointHeader.decode(buffer.raw(0), secret: secret, store: header.store)
                == header)
        let read = try CheckpointHeader.decodeSegments(
            buffer.raw, secret: secret, store: header.store)
        #expect(read == segments)
        // The end page is written later and must not disturb header or table.
        numbers.fill(buffer.page(1))
        #expect(
            try CheckpointHeader.decodeSegments(buffer.raw, secret: secret, store: header.store)
                == segments)
    }

    @Test func checkpointEnds() throws {
        var numbers = Numbers(29)
        let buffer = Buffer()
        for _ in 0..<500 {
            var end = CheckpointEnd()
            end.sequence = numbers.counter()
            end.chunkCount = numbers.word32()
            end.entryCount = numbers.next()
            let secret = numbers.secret()
            let store = numbers.identity()
            numbers.fill(buffer.bytes)
            end.encode(into: buffer.bytes, secret: secret, store: store)
            #expect(try CheckpointEnd.decode(buffer.raw, secret: secret, store: store) == end)
        }
    }

    @Test func checkpointChunks() throws {
        var numbers = Numbers(30)
        let buffer = Buffer(CheckpointChunk.chunkBytes)
        #expect(CheckpointChunk.entriesPerChunk == 26212)
        for entries in [0, 1, 7, 26211, 26212] {
            numbers.fill(buffer.bytes)
            let used = CheckpointChunk.payloadOffset + entries * 40
            let payload = Array(buffer.raw[CheckpointChunk.payloadOffset..<used])
            let secret = numbers.secret()
            let store = numbers.identity()
            CheckpointChunk.seal(
                buffer.bytes, secret: secret, store: store, sequence: 5, index: 6,
                entries: UInt32(entries))
            #expect(
                try CheckpointChunk.open(
                    buffer.raw, secret: secret, store: store, sequence: 5, index: 6)
                    == UInt32(entries))
            #expect(Array(buffer.raw[CheckpointChunk.payloadOffset..<used]) == payload)
        }
    }

    @Test func fingerprintsOfFields() {
        let fields = [("model", "llama"), ("dtype", "bf16"), ("layers", "80")]
        let made = NamespaceRecord.fingerprint(fields: fields)
        #expect(made == NamespaceRecord.fingerprint(fields: fields.reversed()))
        #expect(made != NamespaceRecord.fingerprint(fields: Array(fields.dropLast())))
        // Where a name ends counts.
        #expect(
            NamespaceRecord.fingerprint(fields: [("ab", "c")])
                != NamespaceRecord.fingerprint(fields: [("a", "bc")]))
        // The same text to Unicode, other bytes: told apart, and in whatever order the same.
        let composed = ("\u{E9}", "1")
        let decomposed = ("e\u{301}", "1")
        #expect(composed.0 == decomposed.0)
        #expect(
            NamespaceRecord.fingerprint(fields: [composed])
                != NamespaceRecord.fingerprint(fields: [decomposed]))
        #expect(
            NamespaceRecord.fingerprint(fields: [composed, decomposed])
                == NamespaceRecord.fingerprint(fields: [decomposed, composed]))
    }
}
