// Verifier: checks everything that a closed store has on disk: manifests, headers, trailers,
// footers, descriptor pages, checkpoints, each entry of the newest one against the log, and each
// value and shard. One thread reads, front to back and in large requests; others check.
//
// Two walks: the first reads what tells of blocks (and finds out which of them live), the second
// all values, with the descriptor pages between them. Nothing is written.
//
// What does not verify is damage if a block that lives, or a structure, is concerned. A dead block
// (deleted, replaced, purged, erased) may be anything: such are counted, and no damage.

import BlockIO
import LogStore
import SegmentFormat

package struct VerifyOptions: Sendable {
    /// Threads that check, besides the one that reads; 0 checks on that one.
    package var threads = 2
    /// Bytes read at once, unless a block is larger.
    package var stretchBytes = 8 << 20
    package init() {}
}

package struct VerifyReport: Sendable {
    package var findings: [Finding] = []
    package var segments = 0
    package var manifestCopies = 0
    package var descriptorPages: UInt64 = 0
    package var footerPages: UInt64 = 0
    package var records: UInt64 = 0
    package var checkpointChunks: UInt64 = 0
    package var checkpointEntries: UInt64 = 0
    /// Blocks that live, their value bytes, and those that were found whole.
    package var blocks: UInt64 = 0
    package var valueBytes: UInt64 = 0
    package var wholeBlocks: UInt64 = 0
    package var shards: UInt64 = 0
    /// Blocks that are dead, and those of them that do not verify.
    package var deadBlocks: UInt64 = 0
    package var deadDamaged: UInt64 = 0
    package var bytesRead: UInt64 = 0

    package var damage: [Finding] { findings.filter { $0.severity == .damage } }
    package var notes: [Finding] { findings.filter { $0.severity == .note } }
    package var isClean: Bool { damage.isEmpty }
}

package final class Verifier {
    package typealias Progress = (_ done: UInt64, _ of: UInt64) -> Void

    private let store: ClosedStore
    private let options: VerifyOptions
    private let progress: Progress
    private let catalog: Catalog
    private let pool: CheckPool
    private var report = VerifyReport()
    private var walks: [SegmentWalk] = []
    private var reading: [(tag: UInt64, job: CheckJob)] = []
    private var inFlight = 0
    private var spare: [PageBuffer] = []
    private var doneBytes: UInt64 = 0
    private var allBytes: UInt64 = 0

    /// What is known of a segment while its stretches are being checked.
    private struct SegmentWalk {
        var info: SegmentInfo
        /// Records of the footer that no group has told yet; nil where groups told them.
        var expected: [RecordMark: Int]?
        var left = 0
        /// First page behind the last value.
        var valuesEnd: UInt32 = 1
        var keys: [RecordMark: Finding.Key] = [:]
    }

    /// Verifies the store; `progress` is told bytes.
    package static func run(
        _ store: ClosedStore, _ options: VerifyOptions = VerifyOptions(),
        progress: @escaping Progress = { _, _ in }
    ) throws(StoreError) -> VerifyReport {
        try examine(store, options, progress: progress).report
    }

    /// The same, with what was found out about who lives.
    package static func examine(
        _ store: ClosedStore, _ options: VerifyOptions, progress: @escaping Progress
    ) throws(StoreError) -> (report: VerifyReport, catalog: Catalog) {
        let verifier = try Verifier(store, options, progress)
        defer { verifier.pool.stop() }
        return (try verifier.run(), verifier.catalog)
    }

    private init(
        _ store: ClosedStore, _ options: VerifyOptions, _ progress: @escaping Progress
    ) throws(StoreError) {
        self.store = store
        self.options = options
        self.progress = progress
        // How much there is to read is only known afterwards.
        catalog = try Catalog(store) { _, _ in progress(store.io.bytesRead, 0) }
        pool = CheckPool(threads: options.threads)
    }

    private func run() throws(StoreError) -> VerifyReport {
        report.findings = catalog.findings
        report.segments = catalog.segments.count
        for case let member? in store.members { report.manifestCopies += member.copies.count }
        report.records = catalog.counts.records
        report.footerPages = catalog.counts.footerPages
        report.descriptorPages = catalog.counts.descriptorPages
        report.checkpointChunks = catalog.counts.chunks
        report.checkpointEntries = catalog.counts.entries
        report.findings += try catalog.settleContested()
        allBytes = catalog.segments.reduce(0) {
            $0 + UInt64($1.writtenPages) * UInt64(FormatConstants.pageBytes)
        }
        for info in catalog.segments where info.generation != 0 { try walk(info) }
        while inFlight > 0 { try step() }
        progress(allBytes, allBytes)
        report.findings.sort(by: Finding.precedes)
        report.bytesRead = store.io.bytesRead
        return report
    }

    // MARK: Planning a segment

    private func walk(_ listed: SegmentInfo) throws(StoreError) {
        let reader = RecordReader(store: store)
        var info = listed
        var images: [PlannedImage] = []
        var walk = SegmentWalk(info: listed)
        if listed.usedFooter { walk.expected = [:] }
        // What is wrong with these pages was told when they were read first.
        var told: [Finding] = []
        try reader.read(&info, findings: &told) { view in
            if listed.usedFooter {
                let mark = RecordMark(view.descriptor)
                walk.expected?[mark, default: 0] += 1
                walk.keys[mark] = Finding.Key(
                    namespace: view.descriptor.namespaceInstance, bytes: Array(view.key),
                    version: view.descriptor.version)
            }
            if let image = plan(view, listed) { images.append(image) }
        }
        images.sort { $0.page < $1.page }
        walk.valuesEnd = images.last.map(\.end) ?? 1
        let number = walks.count
        walks.append(walk)
        let jobs = cut(images, number, listed)
        walks[number].left = jobs.count
        for job in jobs {
            while inFlight >= options.threads + 3 { try step() }
            try begin(job)
        }
        if jobs.isEmpty { try finish(number) }
    }

    private func plan(_ view: RecordView, _ info: SegmentInfo) -> PlannedImage? {
        let found = view.descriptor
        guard found.hasValue else { return nil }
        let isLive = catalog.isLive(view, info.id)
        let last = UInt64(found.page) + UInt64(found.storedPages)
        // Of a purged namespace the fingerprint is not known, so nothing can be checked.
        guard let space = store.namespaces[found.namespaceInstance], found.page > 0,
            last < UInt64(store.segmentPages)
        else {
            if !isLive { report.deadBlocks += 1 }
            return nil
        }
        if isLive {
            report.blocks += 1
            report.valueBytes += UInt64(found.length)
            report.shards += UInt64(found.shardCount) + 1
        } else {
            report.deadBlocks += 1
        }
        return PlannedImage(
            page: found.page, pages: found.storedPages, length: found.length,
            shardCount: Int(found.shardCount) + 1, checksum: found.checksum,
            aligned: space.aligned,
            identity: Checksum.identitySeed(
                namespace: space.fingerprint, key: view.key,
                versionLow: UInt32(truncatingIfNeeded: found.version)), isLive: isLive,
            namespace: found.namespaceInstance, version: found.version, key: Array(view.key))
    }

    /// Cuts a segment into stretches, each of whole values. Where the footer told of the records,
    /// the pages between are read too: they hold the groups' own descriptors.
    private func cut(
        _ images: [PlannedImage], _ number: Int, _ info: SegmentInfo
    ) -> [CheckJob] {
        let most = UInt32(max(1, options.stretchBytes / FormatConstants.pageBytes))
        let context = store.context(info.id, generation: info.generation)
        var jobs: [CheckJob] = []
        var first: UInt32 = 1
        var end: UInt32 = 1
        var held: [PlannedImage] = []
        func close() {
            if end > first {
                jobs.append(
                    CheckJob(
                        number: number, firstPage: first, pages: end - first, images: held,
                        context: context, checksGaps: info.usedFooter))
            }
            held = []
            first = end
        }
        for image in images {
            if image.page < first {
                // Two values claim the same pages: this one is read once more, by itself.
                first = image.page
                end = image.page
            }
            if image.end - first > most { close() }
            if !info.usedFooter && held.isEmpty { first = image.page }
            // A gap is at most some descriptor pages, unless writing went on behind a torn group.
            while info.usedFooter, image.page > end, image.page - end > most {
                end += most
                close()
            }
            held.append(image)
            end = max(end, image.end)
        }
        close()
        return jobs
    }

    // MARK: Reading and checking

    private func begin(_ job: CheckJob) throws(StoreError) {
        let bytes = Int(job.pages) * FormatConstants.pageBytes
        let place = spare.firstIndex { $0.count >= bytes }
        let buffer =
            place.map { spare.remove(at: $0) }
            ?? PageBuffer(bytes: max(bytes, options.stretchBytes))
        job.buffer = buffer
        let info = walks[job.number].info
        let tag = store.io.begin(
            .read, try store.file(info.id), offset: ClosedStore.offset(page: job.firstPage),
            buffer.base, length: bytes)
        reading.append((tag, job))
        inFlight += 1
    }

    /// Waits for the read that was begun first, or for a check, and goes on with what is done.
    private func step() throws(StoreError) {
        if !reading.isEmpty {
            let (tag, job) = reading.removeFirst()
            let errno = store.io.end(tag)
            if errno != 0 { try readParts(job) }
            pool.submit(job)
        }
        for job in pool.take(wait: reading.isEmpty) { try ended(job) }
    }

    /// A stretch that could not be read as one: each value and each page by itself.
    private func readParts(_ job: CheckJob) throws(StoreError) {
        guard let buffer = job.buffer else { return }
        let file = try store.file(walks[job.number].info.id)
        func read(_ page: UInt32, _ pages: UInt32) -> Int32 {
            store.io.read(
                file, offset: ClosedStore.offset(page: page),
                into: buffer.base + Int(page - job.firstPage) * FormatConstants.pageBytes,
                length: Int(pages) * FormatConstants.pageBytes)
        }
        var page = job.firstPage
        for number in job.images.indices {
            let image = job.images[number]
            if job.checksGaps {
                while page < image.page {
                    let errno = read(page, 1)
                    if errno != 0 { job.unreadGaps.append((page, errno)) }
                    page += 1
                }
            }
            job.images[number].errno = read(image.page, image.pages)
            page = max(page, image.end)
        }
    }

    private func ended(_ job: CheckJob) throws(StoreError) {
        if let buffer = job.buffer { spare.append(buffer) }
        job.buffer = nil
        inFlight -= 1
        let info = walks[job.number].info
        report.descriptorPages += job.descriptorPages
        var bad: UInt64 = 0
        for image in job.images where image.errno != 0 {
            bad += note(image, info, .value, "cannot be read, errno \(image.errno)")
        }
        for (place, damage) in job.damage {
            let image = job.images[place]
            switch damage {
            case .value: bad += note(image, info, .value, "does not verify")
            case .table: bad += note(image, info, .shardTable, "does not verify")
            case .cutShort: bad += note(image, info, .value, "is longer than its place")
            case .shards(let numbers):
                let list = numbers.prefix(16).map { String($0) }.joined(separator: ", ")
                bad += note(
                    image, info, .shard,
                    "\(numbers.count) of \(image.shardCount) shards do not verify: \(list)"
                        + (numbers.count > 16 ? ", …" : ""))
            }
        }
        report.wholeBlocks += UInt64(job.images.count { $0.isLive }) - bad
        for (page, errno) in job.unreadGaps {
            report.findings.append(stray(info, page, "cannot be read, errno \(errno)"))
        }
        for page in job.strays { report.findings.append(stray(info, page, "does not verify")) }
        tell(job.marks, job.number)
        doneBytes += ClosedStore.offset(page: job.pages)
        progress(min(doneBytes, allBytes), allBytes)
        walks[job.number].left -= 1
        if walks[job.number].left == 0 { try finish(job.number) }
    }

    private func tell(_ marks: [RecordMark], _ number: Int) {
        guard walks[number].expected != nil else { return }
        for mark in marks {
            let left = (walks[number].expected?[mark] ?? 0) - 1
            walks[number].expected?[mark] = left > 0 ? left : nil
        }
    }

    private func stray(_ info: SegmentInfo, _ page: UInt32, _ text: String) -> Finding {
        Finding(
            .descriptor, path: store.path(info.id), offset: ClosedStore.offset(page: page),
            length: UInt64(FormatConstants.pageBytes), text, segment: info.id,
            generation: info.generation)
    }

    /// A value that does not verify; 1 if it is one that lives.
    private func note(
        _ image: PlannedImage, _ info: SegmentInfo, _ structure: Finding.Structure, _ text: String
    ) -> UInt64 {
        guard image.isLive else {
            report.deadDamaged += 1
            return 0
        }
        var finding = Finding(
            structure, path: store.path(info.id), offset: ClosedStore.offset(page: image.page),
            length: ClosedStore.offset(page: image.pages), text, segment: info.id,
            generation: info.generation)
        finding.add(
            Finding.Key(namespace: image.namespace, bytes: image.key, version: image.version))
        report.findings.append(finding)
        return 1
    }

    // MARK: The end of a segment

    /// All values of a segment have been checked. Groups of records alone lie behind the last
    /// value, perhaps; what the footer tells and no group has told is missing.
    private func finish(_ number: Int) throws(StoreError) {
        defer { walks[number].keys = [:] }
        guard walks[number].expected?.isEmpty == false else { return }
        try readTail(number)
        guard let expected = walks[number].expected, !expected.isEmpty else { return }
        let info = walks[number].info
        let first = expected.keys.filter { $0.page > 0 }.map(\.page).min()
        var finding = stray(
            info, first.map { $0 - 1 } ?? walks[number].valuesEnd,
            "\(expected.count) records of the footer stand in no group: the pages that told of "
                + "them do not verify")
        finding.length = 0
        for mark in expected.keys.sorted(by: { $0.version < $1.version }) {
            if let key = walks[number].keys[mark] { finding.add(key) }
        }
        report.findings.append(finding)
    }

    private func readTail(_ number: Int) throws(StoreError) {
        let info = walks[number].info
        guard let footer = info.life?.footer else { return }
        let window: UInt32 = 256
        let buffer = PageBuffer(bytes: Int(window) * FormatConstants.pageBytes)
        let file = try store.file(info.id)
        var page = walks[number].valuesEnd
        while page < footer.first, walks[number].expected?.isEmpty == false {
            let count = min(window, footer.first - page)
            let job = CheckJob(
                number: number, firstPage: page, pages: count, images: [],
                context: store.context(info.id, generation: info.generation), checksGaps: true)
            job.buffer = buffer
            let errno = store.io.read(
                file, offset: ClosedStore.offset(page: page), into: buffer.base,
                length: Int(count) * FormatConstants.pageBytes)
            if errno != 0 {
                for gap in page..<(page + count) {
                    let own = store.io.read(
                        file, offset: ClosedStore.offset(page: gap),
                        into: buffer.base + Int(gap - page) * FormatConstants.pageBytes,
                        length: FormatConstants.pageBytes)
                    if own != 0 { job.unreadGaps.append((gap, own)) }
                }
            }
            job.run()
            report.descriptorPages += job.descriptorPages
            for stray in job.strays {
                report.findings.append(self.stray(info, stray, "does not verify"))
            }
            for (gap, own) in job.unreadGaps {
                report.findings.append(stray(info, gap, "cannot be read, errno \(own)"))
            }
            tell(job.marks, number)
            page += count
        }
    }
}
