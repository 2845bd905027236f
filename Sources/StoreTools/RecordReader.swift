// RecordReader: gives out every record of a segment: by footer where a whole one is there, else
// group by group. The same walks as recovery's, so that what is told is what an opening would find.
//
// Records are given out only after the whole footer has verified, so that none is told twice.

import BlockIO
import LogStore
import SegmentFormat

package final class RecordReader {
    private let store: ClosedStore
    private var buffer = PageBuffer(bytes: 1 << 20)
    /// Descriptor pages that verified, and footer pages among them.
    package private(set) var descriptorPages: UInt64 = 0
    package private(set) var footerPages: UInt64 = 0

    private static let scanBytes = 1 << 20

    package init(store: ClosedStore) { self.store = store }

    /// Visits the records of a segment; `info` learns what the walk found out. Nothing is visited
    /// of a segment that has no life.
    package func read(
        _ info: inout SegmentInfo, findings: inout [Finding],
        visit: (RecordView) -> Void
    ) throws(StoreError) {
        guard let life = info.life, life.generation != 0 else { return }
        let file = try store.file(info.id)
        info.records = 0
        info.killers = 0
        info.usedFooter = false
        if let footer = life.footer {
            if readFooter(file, info, footer, &findings) {
                info.usedFooter = true
                info.writtenPages = Int(store.segmentPages)
                info.metaPages = Int(life.trailer?.metaPages ?? 1)
                visitFooter(&info, footer, visit)
                judge(info, &findings)
                return
            }
        }
        scan(file, &info, end: life.footer?.first ?? store.segmentPages, &findings, visit)
        if life.trailer == nil {
            info.state = info.records == 0 && info.writtenPages <= 1 ? .clean : .open
        } else {
            info.writtenPages = Int(store.segmentPages)
        }
    }

    private func finding(
        _ structure: Finding.Structure, _ info: SegmentInfo, page: UInt32, pages: UInt32 = 1,
        _ text: String
    ) -> Finding {
        Finding(
            structure, path: store.path(info.id), offset: ClosedStore.offset(page: page),
            length: ClosedStore.offset(page: pages), text, segment: info.id,
            generation: info.generation)
    }

    private func note(_ view: RecordView, _ info: inout SegmentInfo) {
        info.records += 1
        if !view.descriptor.hasValue { info.killers += 1 }
        info.minVersion = min(info.minVersion, view.descriptor.version)
        info.maxVersion = max(info.maxVersion, view.descriptor.version)
    }

    // MARK: Footers

    /// Reads the footer into the buffer; true when all of it verifies.
    private func readFooter(
        _ file: FileID, _ info: SegmentInfo, _ footer: (first: UInt32, pages: UInt32),
        _ findings: inout [Finding]
    ) -> Bool {
        let bytes = Int(footer.pages) * FormatConstants.pageBytes
        if buffer.count < bytes { buffer = PageBuffer(bytes: bytes) }
        var whole = true
        let errno = store.io.read(
            file, offset: ClosedStore.offset(page: footer.first), into: buffer.base, length: bytes)
        let context = store.context(info.id, generation: info.generation)
        for number in 0..<footer.pages {
            let page = footer.first + number
            if errno != 0 {
                let own = store.io.read(
                    file, offset: ClosedStore.offset(page: page),
                    into: buffer.base + Int(number) * FormatConstants.pageBytes,
                    length: FormatConstants.pageBytes)
                if own != 0 {
                    whole = false
                    findings.append(
                        finding(.footer, info, page: page, "cannot be read, errno \(own)"))
                    continue
                }
            }
            let reader = try? DescriptorPageReader(
                page: buffer.page(Int(number)), context: context, pageNumber: page)
            if let reader, reader.header.kind == .footer {
                footerPages += 1
            } else {
                whole = false
                findings.append(finding(.footer, info, page: page, "does not verify"))
            }
        }
        return whole
    }

    private func visitFooter(
        _ info: inout SegmentInfo, _ footer: (first: UInt32, pages: UInt32),
        _ visit: (RecordView) -> Void
    ) {
        let context = store.context(info.id, generation: info.generation)
        for number in 0..<footer.pages {
            guard
                var reader = try? DescriptorPageReader(
                    page: buffer.page(Int(number)), context: context,
                    pageNumber: footer.first + number)
            else { continue }
            while let view = reader.next() {
                note(view, &info)
                visit(view)
            }
        }
    }

    /// Whether the trailer tells of the records what they tell themselves.
    private func judge(_ info: SegmentInfo, _ findings: inout [Finding]) {
        guard let trailer = info.life?.trailer, info.records > 0 else { return }
        let page = store.segmentPages - 1
        if Int(trailer.recordCount) != info.records {
            findings.append(
                finding(
                    .trailer, info, page: page,
                    "tells \(trailer.recordCount) records, the footer has \(info.records)"))
        }
        if trailer.minVersion > info.minVersion || trailer.maxVersion < info.maxVersion {
            findings.append(
                finding(
                    .trailer, info, page: page,
                    "tells versions \(trailer.minVersion) to \(trailer.maxVersion), the footer "
                        + "has \(info.minVersion) to \(info.maxVersion)"))
        }
    }

    // MARK: Groups

    private func scan(
        _ file: FileID, _ info: inout SegmentInfo, end: UInt32, _ findings: inout [Finding],
        _ visit: (RecordView) -> Void
    ) {
        let context = store.context(info.id, generation: info.generation)
        var scan = SegmentScan(segment: info.id, endPage: end)
        var strays: [UInt32] = []
        var made = info
        var pages = 0
        var lastPage = UInt32.max
        while true {
            let through = scan.advance(
                memory: buffer.base, capacity: Self.scanBytes, context: context,
                stray: { page, number in
                    if Self.isDamaged(page, context, number) { strays.append(number) }
                },
                visit: { view, header in
                    if header.page != lastPage {
                        lastPage = header.page
                        pages += 1
                    }
                    made.stream = StreamKind(rawValue: header.stream) ?? made.stream
                    note(view, &made)
                    visit(view)
                    return true
                })
            if through { break }
            guard let wanted = scan.wanted else { break }
            let errno = store.io.read(
                file, offset: ClosedStore.offset(page: wanted.first), into: buffer.base,
                length: Int(wanted.count) * FormatConstants.pageBytes)
            if errno != 0, wanted.count == 1 {
                findings.append(
                    finding(
                        .descriptor, made, page: wanted.first, "cannot be read, errno \(errno)"))
            }
            scan.arrived(errno: errno)
        }
        for page in strays {
            findings.append(
                finding(
                    .descriptor, made, page: page,
                    "does not verify; what it tells is lost to whoever has no footer"))
        }
        descriptorPages += UInt64(pages)
        info = made
        info.writtenPages = Int(scan.groupsEnd)
        info.metaPages = 1 + pages
    }

    /// Whether a page that is no descriptor page was one of this life.
    static func isDamaged(
        _ page: UnsafeRawBufferPointer, _ context: PageContext, _ number: UInt32
    ) -> Bool {
        DescriptorPageReader.claims(page, generation: context.generation, pageNumber: number)
            || DescriptorPageReader.isSpoilt(page, context: context, pageNumber: number)
    }
}
