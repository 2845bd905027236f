// SegmentHeader: says which life (generation) a segment is in. It is written to the segment's first
// page and again to its last, and flushed, before anything else is written in that life; the copy
// on the last page stays until the trailer replaces it when the segment is sealed.

package struct SegmentHeader: Equatable, Sendable {
    package var store = Identity128(hi: 0, lo: 0)
    package var device = Identity128(hi: 0, lo: 0)
    package var segment: UInt32 = 0
    package var generation: UInt64 = 0
    package var segmentBytes: UInt64 = 0
    package var stream: UInt8 = 0
    package var state: UInt8 = 0
    package var versionBase: UInt64 = 0
    package var createdWallSeconds: UInt32 = 0

    package init() {}

    private static let checkOffset = 8

    private static func seed(
        _ secret: SecretKey, _ store: Identity128, _ segment: UInt32
    ) -> UInt64 {
        PageSeed.make(
            secret, kind: FormatConstants.segmentMagic, store: store, segment: segment,
            generation: 0, page: 0)
    }

    package func encode(into page: UnsafeMutableRawBufferPointer, secret: SecretKey) {
        page.zero()
        page.put(FormatConstants.segmentMagic, 0)
        page.put(FormatConstants.version, 4)
        page.put(generation, 16)
        page.put(store, 24)
        page.put(device, 40)
        page.put(segment, 56)
        page.put(createdWallSeconds, 60)
        page.put(segmentBytes, 64)
        page.put(versionBase, 72)
        page.put(stream, 80)
        page.put(state, 81)
        page.put(FormatConstants.compatible, 88)
        page.put(FormatConstants.readOnlyCompatible, 96)
        page.put(FormatConstants.incompatible, 104)
        page.seal(Self.seed(secret, store, segment), at: Self.checkOffset)
    }

    package static func decode(
        _ page: UnsafeRawBufferPointer, secret: SecretKey, store: Identity128, segment: UInt32
    ) throws(FormatError) -> SegmentHeader {
        guard page.count == FormatConstants.pageBytes,
            page.u32(0) == FormatConstants.segmentMagic
        else { throw .notHearth }
        guard page.verifies(seed(secret, store, segment), at: checkOffset) else { throw .damaged }
        let unknown = page.u64(104) & ~FormatConstants.incompatible
        if unknown != 0 { throw .newerFormat(word: unknown) }
        var header = SegmentHeader()
        header.generation = page.u64(16)
        header.store = page.identity(24)
        header.device = page.identity(40)
        header.segment = page.u32(56)
        header.createdWallSeconds = page.u32(60)
        header.segmentBytes = page.u64(64)
        header.versionBase = page.u64(72)
        header.stream = page.u8(80)
        header.state = page.u8(81)
        guard header.store == store, header.segment == segment, header.generation > 0 else {
            throw .wrongPlace
        }
        guard header.generation < FormatConstants.counterLimit,
            header.versionBase < FormatConstants.counterLimit
        else { throw .damaged }
        return header
    }
}

/// Binds a page to its place: store, segment and life.
package struct PageContext: Sendable {
    package var secret: SecretKey
    package var store: Identity128
    package var segment: UInt32
    package var generation: UInt64

    package init(secret: SecretKey, store: Identity128, segment: UInt32, generation: UInt64) {
        self.secret = secret
        self.store = store
        self.segment = segment
        self.generation = generation
    }

    func seed(_ kind: UInt32, page: UInt32) -> UInt64 {
        PageSeed.make(
            secret, kind: kind, store: store, segment: segment, generation: generation, page: page)
    }
}

/// SegmentTrailer: the last page of a sealed segment; says where its footer is.
package struct SegmentTrailer: Equatable, Sendable {
    package var generation: UInt64 = 0
    package var recordCount: UInt32 = 0
    package var footerFirstPage: UInt32 = 0
    package var footerPages: UInt32 = 0
    package var minVersion: UInt64 = 0
    package var maxVersion: UInt64 = 0
    /// The lowest version of a record with a value; all ones for none.
    package var minValueVersion: UInt64 = UInt64.max
    package var sealedWallSeconds: UInt32 = 0
    package var livePagesAtSeal: UInt32 = 0
    package var metaPages: UInt32 = 0
    /// The stream that wrote the segment, by the store's numbers.
    package var stream: UInt8 = 0

    package init() {}

    private static let checkOffset = 8

    package func encode(
        into memory: UnsafeMutableRawBufferPointer, context: PageContext, page: UInt32
    ) {
        memory.zero()
        memory.put(FormatConstants.trailerMagic, 0)
        memory.put(FormatConstants.version, 4)
        memory.put(generation, 16)
        memory.put(recordCount, 24)
        memory.put(footerFirstPage, 28)
        memory.put(footerPages, 32)
        memory.put(sealedWallSeconds, 36)
        memory.put(minVersion, 40)
        memory.put(maxVersion, 48)
        memory.put(minValueVersion, 56)
        memory.put(livePagesAtSeal, 64)
        memory.put(metaPages, 68)
        memory.put(stream, 72)
        memory.seal(
            context.seed(FormatConstants.trailerMagic, page: page), at: Self.checkOffset)
    }

    /// The generation that a trailer claims, to be believed only if it decodes under it.
    package static func peekGeneration(_ page: UnsafeRawBufferPointer) -> UInt64? {
        guard page.count == FormatConstants.pageBytes,
            page.u32(0) == FormatConstants.trailerMagic
        else { return nil }
        let generation = page.u64(16)
        return generation == 0 ? nil : generation
    }

    package static func decode(
        _ memory: UnsafeRawBufferPointer, context: PageContext, page: UInt32
    ) throws(FormatError) -> SegmentTrailer {
        guard memory.count == FormatConstants.pageBytes,
            memory.u32(0) == FormatConstants.trailerMagic
        else { throw .notHearth }
        guard
            memory.verifies(
                context.seed(FormatConstants.trailerMagic, page: page), at: checkOffset)
        else { throw .damaged }
        var trailer = SegmentTrailer()
        trailer.generation = memory.u64(16)
        trailer.recordCount = memory.u32(24)
        trailer.footerFirstPage = memory.u32(28)
        trailer.footerPages = memory.u32(32)
        trailer.sealedWallSeconds = memory.u32(36)
        trailer.minVersion = memory.u64(40)
        trailer.maxVersion = memory.u64(48)
        trailer.minValueVersion = memory.u64(56)
        trailer.livePagesAtSeal = memory.u32(64)
        trailer.metaPages = memory.u32(68)
        trailer.stream = memory.u8(72)
        guard trailer.generation == context.generation else { throw .wrongPlace }
        // All ones stands for "no record".
        guard trailer.maxVersion < FormatConstants.counterLimit,
            trailer.minVersion < FormatConstants.counterLimit
                || trailer.minVersion == UInt64.max
        else { throw .damaged }
        return trailer
    }
}
