// Decoders on bytes that no writer made: noise, noise behind a valid magic, and pages whose fields
// are noise but whose check holds, so that nothing but the plausibility checks stands in between.
// None may trap, and what passes must lie within what a page can say.

import Testing

@testable import SegmentFormat

@Suite struct GarbageTests {
    private static let rounds = 100_000

    private struct Place {
        var context: PageContext
        var page: UInt32
    }

    /// Values at the edges of fields, as often as plain noise.
    private func field(_ numbers: inout Numbers) -> UInt64 {
        let edges: [UInt64] = [
            0, 1, 2, 63, 64, 65, 511, 512, 513, 4031, 4032, 4095, 4096, 4097, 65535, 1 << 20,
            UInt64(UInt32.max), 1 << 63, (1 << 63) - 1, UInt64.max - 1, UInt64.max,
        ]
        return numbers.below(2) == 0 ? edges[numbers.below(edges.count)] : numbers.next()
    }

    /// Everything that takes one page, tried on it; how many took it.
    private func decodeAll(_ raw: UnsafeRawBufferPointer, _ place: Place) -> Int {
        let context = place.context
        var taken = 0
        func note(_ error: FormatError?) { taken += error == nil ? 1 : 0 }
        note(
            failure { () throws(FormatError) in
                try SegmentHeader.decode(
                    raw, secret: context.secret, store: context.store, segment: context.segment)
            })
        note(
            failure { () throws(FormatError) in
                try SegmentTrailer.decode(raw, context: context, page: place.page)
            })
        note(
            failure { () throws(FormatError) in
                let records = try readPage(raw, context, place.page)
                for record in records { expectSane(record) }
            })
        note(
            failure { () throws(FormatError) in
                try CheckpointHeader.decode(raw, secret: context.secret, store: context.store)
            })
        note(
            failure { () throws(FormatError) in
                try CheckpointHeader.decodeSegments(
                    raw, secret: context.secret, store: context.store)
            })
        note(
            failure { () throws(FormatError) in
                try CheckpointEnd.decode(raw, secret: context.secret, store: context.store)
            })
        note(failure { () throws(FormatError) in try Manifest.decode(copy: raw) })
        _ = SegmentTrailer.peekGeneration(raw)
        return taken
    }

    private func expectSane(_ record: Record) {
        let descriptor = record.descriptor
        if !(1...512).contains(record.key.count) || record.parent.count > 512
            || descriptor.version == 0 || descriptor.version >= 1 << 63
            || (descriptor.hasValue
                && (descriptor.length == 0 || descriptor.length > 64 << 20
                    || UInt64(descriptor.storedPages) * 4096 < UInt64(descriptor.length)))
        {
            Issue.record("took \(descriptor)")
        }
    }

    private static let magics = [
        FormatConstants.segmentMagic, FormatConstants.descriptorMagic,
        FormatConstants.trailerMagic, FormatConstants.manifestMagic,
        FormatConstants.checkpointMagic, FormatConstants.chunkMagic, FormatConstants.endMagic,
    ]

    @Test func noise() {
        var numbers = Numbers(60)
        let pool = Buffer(1 << 20)
        let page = Buffer()
        numbers.fill(pool.bytes)
        let place = Place(context: numbers.context(), page: 7)
        var taken = 0
        for round in 0..<Self.rounds {
            let from = numbers.below(pool.bytes.count - 4096)
            page.bytes.copyMemory(
                from: UnsafeRawBufferPointer(rebasing: pool.raw[from..<(from + 4096)]))
            if round % 8 != 0 { page.bytes.put(Self.magics[round % 7], 0) }
            taken += decodeAll(page.raw, place)
        }
        #expect(taken == 0)
    }

    private func seed(_ magic: UInt32, _ place: Place) -> UInt64 {
        let context = place.context
        switch magic {
        case FormatConstants.descriptorMagic, FormatConstants.trailerMagic:
            return context.seed(magic, page: place.page)
        case FormatConstants.endMagic:
            return PageSeed.make(
                context.secret, kind: magic, store: context.store, segment: 0, generation: 0,
                page: 1)
        case FormatConstants.checkpointMagic:
            return PageSeed.make(
                context.secret, kind: magic, store: context.store, segment: 0, generation: 0,
                page: 0)
        default:
            return PageSeed.make(
                context.secret, kind: magic, store: context.store, segment: context.segment,
                generation: 0, page: 0)
        }
    }

    /// Whole pages of every kind with a few fields overwritten, sealed again.
    @Test func sealedNonsense() {
        var numbers = Numbers(61)
        let page = Buffer()
        let place = Place(context: numbers.context(), page: 7)
        let context = place.context
        let kinds = [
            FormatConstants.segmentMagic, FormatConstants.descriptorMagic,
            FormatConstants.trailerMagic, FormatConstants.checkpointMagic,
            FormatConstants.endMagic,
        ]
        var taken = 0
        var refused = 0
        for round in 0..<Self.rounds {
            let magic = kinds[round % kinds.count]
            if round % 3 == 0 {
                page.bytes.zero()
                for at in stride(from: 16, to: 160, by: 8) { page.bytes.put(field(&numbers), at) }
            } else {
                plain(magic, &numbers, page, context)
            }
            for _ in 0..<(1 + numbers.below(3)) { smudge(page.bytes, &numbers) }
            page.bytes.put(magic, 0)
            page.bytes.seal(seed(magic, place), at: 8)
            let count = decodeAll(page.raw, place)
            taken += count
            if count == 0 { refused += 1 }
        }
        // Both ways out were walked many times.
        #expect(taken > 1000)
        #expect(refused > 1000)
    }

    private func smudge(_ page: UnsafeMutableRawBufferPointer, _ numbers: inout Numbers) {
        let at = 16 + numbers.below(numbers.below(4) == 0 ? 4000 : 140)
        let value = field(&numbers)
        switch numbers.below(4) {
        case 0: page.put(UInt8(truncatingIfNeeded: value), at)
        case 1: page.put(UInt16(truncatingIfNeeded: value), at & ~1)
        case 2: page.put(UInt32(truncatingIfNeeded: value), at & ~3)
        default: page.put(value, at & ~7)
        }
    }

    private func plain(
        _ magic: UInt32, _ numbers: inout Numbers, _ page: Buffer, _ context: PageContext
    ) {
        switch magic {
        case FormatConstants.descriptorMagic:
            _ = writePage(
                &numbers, into: page, context: context, pages: 1, first: 7,
                count: 1 + numbers.below(6))
        case FormatConstants.trailerMagic:
            numbers.trailer(context.generation).encode(
                into: page.bytes, context: context, page: 7)
        case FormatConstants.endMagic:
            var end = CheckpointEnd()
            end.sequence = numbers.counter()
            end.encode(into: page.bytes, secret: context.secret, store: context.store)
        case FormatConstants.checkpointMagic:
            let file = Buffer(8192)
            var header = numbers.checkpoint(segments: 0)
            header.store = context.store
            header.encode(into: file.bytes, segments: [], secret: context.secret)
            page.bytes.copyMemory(from: file.raw(0))
        default:
            var header = numbers.header()
            header.store = context.store
            header.segment = context.segment
            header.encode(into: page.bytes, secret: context.secret)
        }
    }

    /// Offset, value, bytes.
    private static let pageFields: [(Int, UInt64, Int)] = [
        (32, 8, 4), (36, 6, 4), (36, 0xFFFF_FFFF, 4), (40, 0, 4),
        (44, 1, 2), (44, 65535, 2), (46, 0, 2), (48, 0, 2), (48, 65535, 2), (50, 63, 2),
        (50, 4096, 2), (50, 4097, 2), (50, 65535, 2), (6, 0, 1), (6, 3, 1),
    ]

    /// Offset, value, bytes.
    private static let recordFields: [(Int, UInt64, Int)] = [
        (0, 0, 8), (0, 1 << 63, 8), (0, UInt64.max, 8), (20, 0, 4),
        (20, (64 << 20) + 1, 4), (20, 0xFFFF_FFFF, 4), (24, 0, 4), (24, 1, 4), (36, 4096, 2),
        (36, 65535, 2), (40, 0, 2), (40, 513, 2), (40, 65535, 2), (42, 513, 2), (42, 65535, 2),
        (44, 1, 1),
    ]

    /// Fields that a scan goes by must hold before it goes by them.
    @Test(arguments: Self.pageFields) func impossiblePageFields(at: Int, value: UInt64, bytes: Int)
    {
        var numbers = Numbers(62)
        let page = Buffer()
        let place = Place(context: numbers.context(), page: 7)
        _ = writePage(&numbers, into: page, context: place.context, pages: 1, first: 7, count: 2)
        switch bytes {
        case 1: page.bytes.put(UInt8(value), at)
        case 2: page.bytes.put(UInt16(value), at)
        default: page.bytes.put(UInt32(value), at)
        }
        page.bytes.seal(seed(FormatConstants.descriptorMagic, place), at: 8)
        #expect(
            failure { () throws(FormatError) in try readPage(page.raw, place.context, 7) } != nil)
    }

    /// A record's fields that no block can have, each in a page that verifies.
    @Test(arguments: Self.recordFields) func impossibleRecordFields(
        at: Int, value: UInt64, bytes: Int
    ) throws {
        var numbers = Numbers(63)
        let page = Buffer()
        let place = Place(context: numbers.context(), page: 7)
        var descriptor = Descriptor()
        descriptor.version = 1
        descriptor.length = 8192
        descriptor.storedPages = 2
        descriptor.keyLength = 8
        let key = numbers.bytes(8)
        var writer = DescriptorPageWriter(memory: try #require(page.bytes.baseAddress), pages: 1)
        let took = key.withUnsafeBytes {
            writer.append(
                descriptor, key: $0, parent: UnsafeRawBufferPointer(start: nil, count: 0))
        }
        #expect(took)
        _ = writer.seal(
            kind: .group, context: place.context, firstPage: 7, groupFirstPage: 7, groupPages: 3,
            groupSequence: 1, valueBase: 0)
        #expect(try readPage(page.raw, place.context, 7).count == 1)
        switch bytes {
        case 1: page.bytes.put(UInt8(value), 64 + at)
        case 2: page.bytes.put(UInt16(value), 64 + at)
        case 4: page.bytes.put(UInt32(value), 64 + at)
        default: page.bytes.put(value, 64 + at)
        }
        page.bytes.seal(seed(FormatConstants.descriptorMagic, place), at: 8)
        #expect(
            failure { () throws(FormatError) in try readPage(page.raw, place.context, 7) }
                == .damaged)
    }

    @Test func sealedNonsenseManifests() throws {
        var numbers = Numbers(64)
        let copy = Buffer(Manifest.copyBytes)
        var taken = 0
        var refused = 0
        for round in 0..<3000 {
            if round % 20 == 0 {
                try numbers.manifest(devices: 1 + numbers.below(4), namespaces: numbers.below(6))
                    .encode(into: copy.bytes)
            }
            let saved = Array(copy.raw[..<2048])
            for _ in 0..<(1 + numbers.below(3)) {
                let at = 16 + numbers.below(numbers.below(2) == 0 ? 180 : 1000)
                let value = field(&numbers)
                if numbers.below(2) == 0 {
                    copy.bytes.put(UInt32(truncatingIfNeeded: value), at & ~3)
                } else {
                    copy.bytes.put(value, at & ~7)
                }
            }
            copy.bytes.seal(0x4865_6172_7468_4D61, at: 8)
            if let made = try? Manifest.decode(copy: copy.raw) {
                taken += 1
                #expect(made.devices.count <= 32 && made.namespaces.count <= 4096)
                #expect(made.epoch < 1 << 63 && made.generationLimit < 1 << 63)
                #expect(made.versionLimit < 1 << 63 && made.nextNamespaceInstance < 1 << 63)
            } else {
                refused += 1
            }
            copy.bytes.copyBytes(from: saved)
        }
        #expect(taken > 100)
        #expect(refused > 100)
    }

    @Test func sealedNonsenseChunks() {
        var numbers = Numbers(65)
        let chunk = Buffer(CheckpointChunk.chunkBytes)
        numbers.fill(chunk.bytes)
        let secret = numbers.secret()
        let store = numbers.identity()
        let seed = PageSeed.make(
            secret, kind: FormatConstants.chunkMagic, store: store, segment: 0, generation: 5,
            page: 6)
        for (at, value) in [
            (28, UInt64(26213)), (28, UInt64(UInt32.max)), (24, 7), (16, 4), (16, UInt64.max),
        ] {
            CheckpointChunk.seal(
                chunk.bytes, secret: secret, store: store, sequence: 5, index: 6, entries: 26212)
            if at == 16 {
                chunk.bytes.put(value, at)
            } else {
                chunk.bytes.put(UInt32(value), at)
            }
            chunk.bytes.seal(seed, at: 8)
            #expect(
                failure { () throws(FormatError) in
                    try CheckpointChunk.open(
                        chunk.raw, secret: secret, store: store, sequence: 5, index: 6)
                } == .wrongPlace)
        }
    }

    @Test func sealedNonsenseTables() {
        var numbers = Numbers(66)
        let header = numbers.checkpoint(segments: 3)
        let secret = numbers.secret()
        let file = Buffer(Int(CheckpointHeader.dataOffset(segments: 3)))
        func verdict(_ change: (inout CheckpointSegment) -> Void) -> FormatError? {
            var segments = (0..<3).map { _ in numbers.checkpointSegment() }
            change(&segments[1])
            header.encode(into: file.bytes, segments: segments, secret: secret)
            return failure { () throws(FormatError) in
                try CheckpointHeader.decodeSegments(
                    file.raw, secret: secret, store: header.store)
            }
        }
        #expect(verdict { _ in } == nil)
        #expect(verdict { $0.minVersion = UInt64.max } == nil)
        #expect(verdict { $0.minVersion = 1 << 63 } == .damaged)
        #expect(verdict { $0.maxVersion = 1 << 63 } == .damaged)
        #expect(verdict { $0.maxVersion = UInt64.max } == .damaged)
        #expect(verdict { $0.generation = UInt64.max } == .damaged)
    }
}
