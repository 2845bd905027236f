// SegmentLife: which life a segment is in, by its first and its last page. The header says so, or
// the copy of it on the last page, which the trailer replaces when the segment is sealed.

package struct SegmentLife: Sendable {
    /// The header on the first page.
    package let header: SegmentHeader?
    /// Its copy on the last page.
    package let copy: SegmentHeader?
    /// The trailer, if it is of this life.
    package let trailer: SegmentTrailer?
    /// 0 when nothing in the segment can be read.
    package let generation: UInt64
    private let segmentPages: UInt32

    package init(
        first: UnsafeRawBufferPointer, last: UnsafeRawBufferPointer, secret: SecretKey,
        store: Identity128, segment: UInt32, segmentPages: UInt32
    ) {
        header = try? SegmentHeader.decode(first, secret: secret, store: store, segment: segment)
        copy = try? SegmentHeader.decode(last, secret: secret, store: store, segment: segment)
        self.segmentPages = segmentPages
        let known = header ?? copy
        let claimed = known?.generation ?? SegmentTrailer.peekGeneration(last) ?? 0
        let context = PageContext(
            secret: secret, store: store, segment: segment, generation: claimed)
        trailer =
            claimed == 0
            ? nil
            : try? SegmentTrailer.decode(last, context: context, page: segmentPages &- 1)
        generation = known != nil || trailer != nil ? claimed : 0
    }

    /// The footer's pages, where the trailer tells any that can be.
    package var footer: (first: UInt32, pages: UInt32)? {
        guard let trailer, trailer.footerPages > 0, trailer.footerFirstPage > 0,
            UInt64(trailer.footerFirstPage) + UInt64(trailer.footerPages) < UInt64(segmentPages)
        else { return nil }
        return (trailer.footerFirstPage, trailer.footerPages)
    }
}
