// SegmentScan: walks the groups of one segment by their descriptor pages, for segments that have no
// readable footer: open at a crash, or damaged. A page that is no descriptor page of this segment's
// life is stepped over page by page, so that neither a lost group nor a bad sector hides what lies
// behind it; a value cannot pass for a descriptor page, since a page's check is keyed by the
// store's secret, the segment, the generation and the page number.
//
// It does no I/O: it says which pages it wants, is told that they are in memory, and goes on.

import SegmentFormat

package struct SegmentScan {
    package let segment: UInt32
    package let endPage: UInt32
    /// The next page to look at.
    package private(set) var position: UInt32 = 1
    /// First page behind the last group found.
    package private(set) var groupsEnd: UInt32 = 1
    package private(set) var damagedPages = 0
    /// Pages that say that they are descriptor pages of this life and place, but do not verify.
    package private(set) var rottenPages = 0
    /// What has to be read next.
    package private(set) var wanted: (first: UInt32, count: UInt32)?

    private var windowFirst: UInt32 = 0
    private var windowCount: UInt32 = 0
    /// Up to this page, pages are read one by one: a larger read failed.
    private var singleUntil: UInt32 = 0
    private var record = 0
    private var arrivedErrno: Int32 = 0

    /// `from` is the first page of a group.
    package init(segment: UInt32, endPage: UInt32, from: UInt32 = 1) {
        self.segment = segment
        self.endPage = endPage
        position = from
    }

    /// The wanted pages have been read (or not).
    package mutating func arrived(errno: Int32) {
        guard let wanted else { return }
        self.wanted = nil
        if errno == 0 {
            windowFirst = wanted.first
            windowCount = wanted.count
        } else if wanted.count > 1 {
            singleUntil = wanted.first + wanted.count
        } else {
            damagedPages += 1
            position = wanted.first + 1
        }
    }

    /// Goes on as far as the pages in memory reach. `visit` may refuse a record for now: the scan
    /// comes back to it. `stray` is shown each page that is no descriptor page of this life. True:
    /// the segment is through.
    package mutating func advance(
        memory: UnsafeMutableRawPointer, capacity: Int, context: PageContext,
        stray: ((UnsafeRawBufferPointer, UInt32) -> Void)? = nil,
        visit: (RecordView, DescriptorPageHeader) -> Bool
    ) -> Bool {
        let pageBytes = FormatConstants.pageBytes
        while position < endPage {
            guard position >= windowFirst, position < windowFirst + windowCount else {
                let most = position < singleUntil ? 1 : UInt32(capacity / pageBytes)
                wanted = (position, min(most, endPage - position))
                return false
            }
            let page = UnsafeRawBufferPointer(
                start: memory + Int(position - windowFirst) * pageBytes, count: pageBytes)
            let read =
                DescriptorPageReader.looksLike(page)
                ? try? DescriptorPageReader(page: page, context: context, pageNumber: position)
                : nil
            guard var reader = read, reader.header.kind == .group else {
                if read == nil,
                    DescriptorPageReader.claims(
                        page, generation: context.generation, pageNumber: position)
                {
                    rottenPages += 1
                }
                if read == nil { stray?(page, position) }
                position += 1
                continue
            }
            var number = 0
            while let view = reader.next() {
                if number >= record {
                    guard visit(view, reader.header) else { return false }
                    record = number + 1
                }
                number += 1
            }
            record = 0
            step(over: reader.header)
        }
        return true
    }

    private mutating func step(over header: DescriptorPageHeader) {
        let (end, overflow) = header.groupFirstPage.addingReportingOverflow(header.groupPages)
        if overflow || end > endPage || end <= position {
            position += 1
            return
        }
        groupsEnd = max(groupsEnd, end)
        let isLast = header.descriptorIndex + 1 >= header.descriptorPages
        position = isLast ? end : position + 1
    }
}
