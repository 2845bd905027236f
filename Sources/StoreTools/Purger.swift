// Purger: retires a namespace durably, and, if asked, erases what its blocks have left on disk.
//
// What erasing guarantees: every byte of a segment that is no descriptor page, header, footer or
// trailer, and does not belong to a value of a namespace that lives, is given back to the file
// system by punching holes, and reads as zeros from then on. That takes in the values of purged
// namespaces, of deleted and replaced blocks, and what earlier lives of a segment left in its
// unwritten parts. What it does not: keys stay in descriptor pages until their segment has a new
// life; segments with damage in them are left as they are, and counted; nothing is said of the
// device's own cells, of snapshots, or of members that are away.

import BlockIO
import Glibc
import LogStore
import SegmentFormat

package struct PurgeReport: Sendable {
    package var instance: UInt64 = 0
    package var blocks: UInt64 = 0
    package var valueBytes: UInt64 = 0
    package var purged = false
    package var erasedBytes: UInt64 = 0
    /// Segments left as they are, since something in them is damaged.
    package var skippedSegments = 0
    package init() {}
}

package enum Purger {
    /// Retires the namespace that the choice names. `chosen` finds it among the live ones.
    package static func purge(
        _ directories: [String], allowAbsent: Bool = false, driver: any BlockDriver,
        clock: any Clock, holder: String, entropy: (UInt64, UInt64, UInt64, UInt64),
        chosen: ([NamespaceRecord]) -> NamespaceRecord?
    ) throws(StoreError) -> PurgeReport {
        var report = PurgeReport()
        let closed = try ClosedStore.open(
            directories, allowAbsent: allowAbsent, driver: driver, clock: clock, holder: holder)
        let records = closed.namespaces.values.sorted { $0.instance < $1.instance }
        guard let record = chosen(records) else {
            closed.close()
            return report
        }
        let manifest = closed.manifest
        let paths = closed.members.compactMap { $0?.path }
        let blocks: Int
        do throws(StoreError) {
            let catalog = try Catalog(closed)
            blocks = catalog.blocks.count
            for block in catalog.blocks.values where block.slot == record.slot {
                report.blocks += 1
                report.valueBytes += UInt64(block.length)
            }
            closed.close()
        } catch {
            closed.close()
            throw error
        }
        report.instance = record.instance
        let store = try PumpedStore(
            manifest, paths, blocks: blocks, driver: driver, clock: clock, holder: holder,
            entropy: entropy)
        try store.demand("purge") { $0.purge(token: $1, record.slot) }
        report.purged = true
        while !store.log.isIdle { store.pump() }
        try store.close()
        return report
    }

    /// Punches holes where nothing lies that is still needed, and allocates them anew.
    package static func erase(
        _ store: ClosedStore, report: inout PurgeReport,
        progress: Verifier.Progress = { _, _ in }
    ) throws(StoreError) {
        let catalog = try Catalog(store)
        // Where something is damaged it is not sure what is dead.
        let damaged = Set(
            catalog.findings.filter { $0.severity == .damage }.compactMap(\.segment))
        let buffer = PageBuffer(bytes: window * FormatConstants.pageBytes)
        for (number, info) in catalog.segments.enumerated() {
            progress(UInt64(number), UInt64(catalog.segments.count))
            guard info.generation != 0, !damaged.contains(info.id) else {
                report.skippedSegments += 1
                continue
            }
            let kept = try needed(catalog, info, buffer)
            let file = try store.file(info.id)
            let holes = holes(between: kept, pages: store.segmentPages)
            for range in holes {
                try punch(store, info, file, range)
                report.erasedBytes += UInt64(range.count * FormatConstants.pageBytes)
            }
            guard !holes.isEmpty else { continue }
            let errno = store.io.end(store.io.begin(.sync, file, offset: 0, length: 0))
            guard errno == 0 else {
                throw failure(
                    store, info, errno, "Whether the bytes are gone from the device is not known.")
            }
        }
    }

    /// A hole reads as zeros; allocated again, it still does, and the segment keeps its space.
    private static func punch(
        _ store: ClosedStore, _ info: SegmentInfo, _ file: FileID, _ range: Range<Int>
    ) throws(StoreError) {
        let offset = ClosedStore.offset(page: UInt32(range.lowerBound))
        let length = range.count * FormatConstants.pageBytes
        let errno = store.io.end(
            store.io.begin(.punchHole, file, offset: offset, length: length))
        guard errno == 0 else {
            throw failure(
                store, info, errno,
                "The file system punches no holes here: what was purged stays on disk until its "
                    + "segments are recycled.")
        }
        let again = store.io.end(store.io.begin(.allocate, file, offset: offset, length: length))
        guard again == 0 else {
            throw failure(
                store, info, again,
                "The segment's space could not be allocated again after erasing: free some in the "
                    + "file system and run it once more.")
        }
    }

    private static func failure(
        _ store: ClosedStore, _ info: SegmentInfo, _ errno: Int32, _ advice: String
    ) -> StoreError {
        StoreError(
            errno == ENOSPC ? .noSpace : .input, operation: "erase", subject: store.path(info.id),
            errno: errno, advice: advice)
    }

    /// Pages read at once.
    private static let window = 256

    /// Ranges of pages that stay: first and last page, footer, descriptor pages, and values that
    /// live, or may.
    private static func needed(
        _ catalog: Catalog, _ info: SegmentInfo, _ buffer: PageBuffer
    ) throws(StoreError) -> [Range<Int>] {
        let store = catalog.store
        let pages = Int(store.segmentPages)
        var kept: [Range<Int>] = [0..<1, (pages - 1)..<pages]
        if let footer = info.life?.footer {
            kept.append(Int(footer.first)..<Int(footer.first + footer.pages))
        }
        var values: [Range<Int>] = []
        try catalog.visit(info) { view in
            guard view.descriptor.hasValue else { return }
            let first = min(pages, Int(view.descriptor.page))
            let range = first..<min(pages, first + Int(view.descriptor.storedPages))
            values.append(range)
            if catalog.mayLive(view, info.id) { kept.append(range) }
        }
        // Nothing was written in this life.
        if info.records > 0 { kept += try descriptors(store, info, outside: values, buffer) }
        return kept
    }

    /// The descriptor pages of a segment: they lie outside of its values.
    private static func descriptors(
        _ store: ClosedStore, _ info: SegmentInfo, outside values: [Range<Int>],
        _ buffer: PageBuffer
    ) throws(StoreError) -> [Range<Int>] {
        let file = try store.file(info.id)
        let context = store.context(info.id, generation: info.generation)
        let end = Int(info.life?.footer?.first ?? store.segmentPages - 1)
        var found: [Range<Int>] = []
        for gap in holes(between: values + [0..<1], pages: UInt32(end)) {
            var page = gap.lowerBound
            while page < gap.upperBound {
                let count = min(window, gap.upperBound - page)
                let errno = store.io.read(
                    file, offset: ClosedStore.offset(page: UInt32(page)), into: buffer.base,
                    length: count * FormatConstants.pageBytes)
                for number in 0..<count {
                    let bytes = buffer.page(number)
                    // What cannot be read is left as it is.
                    if errno != 0
                        || (try? DescriptorPageReader(
                            page: bytes, context: context, pageNumber: UInt32(page + number)))
                            != nil
                    {
                        found.append((page + number)..<(page + number + 1))
                    }
                }
                page += count
            }
        }
        return found
    }

    /// What lies between the ranges, from page 0 to `pages`.
    static func holes(between ranges: [Range<Int>], pages: UInt32) -> [Range<Int>] {
        var holes: [Range<Int>] = []
        var next = 0
        for range in ranges.sorted(by: { $0.lowerBound < $1.lowerBound }) {
            let first = min(range.lowerBound, Int(pages))
            if first > next { holes.append(next..<first) }
            next = max(next, range.upperBound)
        }
        if next < Int(pages) { holes.append(next..<Int(pages)) }
        return holes
    }
}
