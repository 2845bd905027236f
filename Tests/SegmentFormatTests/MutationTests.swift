// A bit of every byte flipped, and everything that a page is bound to changed: nothing passes.

import Testing

@testable import SegmentFormat

@Suite struct MutationTests {
    @Test func everyByteOfAHeader() {
        var numbers = Numbers(40)
        let page = Buffer()
        let header = numbers.header()
        let secret = numbers.secret()
        header.encode(into: page.bytes, secret: secret)
        expectEveryFlipFails(page.bytes, 0..<4096) { () throws(FormatError) in
            try SegmentHeader.decode(
                page.raw, secret: secret, store: header.store, segment: header.segment)
        }
        var other = header.store
        other.lo ^= 1
        let wrong = SecretKey(k0: secret.k0, k1: secret.k1 ^ 1)
        for (secret, store, segment) in [
            (wrong, header.store, header.segment), (secret, other, header.segment),
            (secret, header.store, header.segment ^ 1),
        ] {
            #expect(
                failure { () throws(FormatError) in
                    try SegmentHeader.decode(
                        page.raw, secret: secret, store: store, segment: segment)
                } == .damaged)
        }
        let short = UnsafeRawBufferPointer(rebasing: page.raw[..<4095])
        #expect(
            failure { () throws(FormatError) in
                try SegmentHeader.decode(
                    short, secret: secret, store: header.store, segment: header.segment)
            } == .notHearth)
    }

    /// Contexts that differ from this one in a single respect.
    private func neighbours(_ context: PageContext) -> [PageContext] {
        var made = [PageContext](repeating: context, count: 5)
        made[0].secret.k0 ^= 1 << 63
        made[1].store.hi ^= 1
        made[2].segment ^= 1 << 19
        made[3].generation += 1
        made[4].generation -= 1
        return made
    }

    @Test func everyByteOfATrailer() {
        var numbers = Numbers(41)
        let page = Buffer()
        let context = numbers.context()
        let trailer = numbers.trailer(context.generation)
        trailer.encode(into: page.bytes, context: context, page: 65535)
        expectEveryFlipFails(page.bytes, 0..<4096) { () throws(FormatError) in
            try SegmentTrailer.decode(page.raw, context: context, page: 65535)
        }
        for other in neighbours(context) {
            #expect(
                failure { () throws(FormatError) in
                    try SegmentTrailer.decode(page.raw, context: other, page: 65535)
                } == .damaged)
        }
        #expect(
            failure { () throws(FormatError) in
                try SegmentTrailer.decode(page.raw, context: context, page: 65534)
            } == .damaged)
    }

    @Test(arguments: [DescriptorPageKind.group, .footer])
    func everyByteOfADescriptorPage(kind: DescriptorPageKind) {
        var numbers = Numbers(42)
        let page = Buffer()
        let context = numbers.context()
        _ = writePage(
            &numbers, into: page, context: context, pages: 1, first: 9, count: 4, kind: kind,
            valueBase: 10)
        expectEveryFlipFails(page.bytes, 0..<4096) { () throws(FormatError) in
            try readPage(page.raw, context, 9)
        }
        for other in neighbours(context) {
            #expect(
                failure { () throws(FormatError) in try readPage(page.raw, other, 9) } == .damaged)
        }
        for number in [UInt32(8), 10, 0] {
            #expect(
                failure { () throws(FormatError) in try readPage(page.raw, context, number) }
                    == .damaged)
        }
    }

    @Test func everyByteOfAManifestCopy() throws {
        var numbers = Numbers(43)
        let copy = Buffer(Manifest.copyBytes)
        let manifest = numbers.manifest(devices: 3, namespaces: 6)
        try manifest.encode(into: copy.bytes)
        let used = try #require(copy.raw.lastIndex { $0 != 0 }) + 8
        expectEveryFlipFails(copy.bytes, 0..<used) { () throws(FormatError) in
            try Manifest.decode(copy: copy.raw)
        }
        let tail = (0..<600).map { _ in used + numbers.below(copy.raw.count - used) }
        expectEveryFlipFails(copy.bytes, tail + [copy.raw.count - 1]) { () throws(FormatError) in
            try Manifest.decode(copy: copy.raw)
        }
    }

    @Test func everyByteOfACheckpointHeaderAndTable() {
        var numbers = Numbers(44)
        let header = numbers.checkpoint(segments: 20)
        let segments = (0..<20).map { _ in numbers.checkpointSegment() }
        let secret = numbers.secret()
        let file = Buffer(Int(CheckpointHeader.dataOffset(segments: 20)))
        header.encode(into: file.bytes, segments: segments, secret: secret)
        expectEveryFlipFails(file.bytes, 0..<4096) { () throws(FormatError) in
            try CheckpointHeader.decode(file.raw(0), secret: secret, store: header.store)
        }
        let places = Array(0..<4096) + Array(8192..<file.bytes.count)
        expectEveryFlipFails(file.bytes, places) { () throws(FormatError) in
            try CheckpointHeader.decodeSegments(file.raw, secret: secret, store: header.store)
        }
        // Another store or secret, and a file cut short or with too much.
        let wrong = SecretKey(k0: secret.k0 ^ 1, k1: secret.k1)
        let stranger = Identity128(hi: header.store.hi, lo: ~header.store.lo)
        for (secret, store) in [(wrong, header.store), (secret, stranger)] {
            #expect(
                failure { () throws(FormatError) in
                    try CheckpointHeader.decode(file.raw(0), secret: secret, store: store)
                } == .damaged)
        }
        for count in [0, 4096, 8191, 8192] {
            let short = UnsafeRawBufferPointer(rebasing: file.raw[..<count])
            #expect(
                failure { () throws(FormatError) in
                    try CheckpointHeader.decodeSegments(
                        short, secret: secret, store: header.store)
                } == .damaged)
        }
    }

    @Test func everyUsedByteOfAChunk() {
        var numbers = Numbers(45)
        let chunk = Buffer(CheckpointChunk.chunkBytes)
        numbers.fill(chunk.bytes)
        let secret = numbers.secret()
        let store = numbers.identity()
        CheckpointChunk.seal(
            chunk.bytes, secret: secret, store: store, sequence: 9, index: 3, entries: 10)
        let tail = (0..<300).map { _ in 464 + numbers.below(chunk.bytes.count - 464) }
        expectEveryFlipFails(chunk.bytes, Array(0..<464) + tail) { () throws(FormatError) in
            try CheckpointChunk.open(
                chunk.raw, secret: secret, store: store, sequence: 9, index: 3)
        }
        let wrong = SecretKey(k0: secret.k0, k1: ~secret.k1)
        let stranger = Identity128(hi: 0, lo: store.lo)
        for (secret, store, sequence, index) in [
            (wrong, store, UInt64(9), UInt32(3)), (secret, stranger, 9, 3), (secret, store, 8, 3),
            (secret, store, 9, 2),
        ] {
            #expect(
                failure { () throws(FormatError) in
                    try CheckpointChunk.open(
                        chunk.raw, secret: secret, store: store, sequence: sequence, index: index)
                } == .damaged)
        }
    }

    @Test func everyByteOfAnEnd() {
        var numbers = Numbers(46)
        let page = Buffer()
        var end = CheckpointEnd()
        end.sequence = 9
        end.chunkCount = 3
        end.entryCount = 70000
        let secret = numbers.secret()
        let store = numbers.identity()
        end.encode(into: page.bytes, secret: secret, store: store)
        expectEveryFlipFails(page.bytes, 0..<4096) { () throws(FormatError) in
            try CheckpointEnd.decode(page.raw, secret: secret, store: store)
        }
        #expect(
            failure { () throws(FormatError) in
                try CheckpointEnd.decode(
                    page.raw, secret: secret, store: Identity128(hi: store.lo, lo: store.hi))
            } == .damaged)
    }

    /// A page of one kind does not pass for another, whatever its magic says.
    @Test func kindsAreNotInterchangeable() {
        var numbers = Numbers(47)
        let page = Buffer()
        let context = numbers.context()
        _ = writePage(&numbers, into: page, context: context, pages: 1, first: 9, count: 3)
        page.bytes.put(FormatConstants.trailerMagic, 0)
        #expect(
            failure { () throws(FormatError) in
                try SegmentTrailer.decode(page.raw, context: context, page: 9)
            } == .damaged)
        page.bytes.put(FormatConstants.segmentMagic, 0)
        #expect(
            failure { () throws(FormatError) in
                try SegmentHeader.decode(
                    page.raw, secret: context.secret, store: context.store,
                    segment: context.segment)
            } == .damaged)
    }
}
