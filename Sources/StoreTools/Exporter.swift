// Exporter: a namespace's live blocks, in the order in which they lie on disk, as a checked stream.
// Each is read and every checksum of it made again before it goes out; one that is not whole is
// left out and told, never passed on.

import BlockIO
import LogStore
import SegmentFormat

package struct ExportReport: Sendable {
    package var blocks: UInt64 = 0
    package var valueBytes: UInt64 = 0
    package var expired: UInt64 = 0
    /// Keys that were left out because they are not whole.
    package var leftOut: [Finding] = []
}

package final class Exporter {
    /// One block that is to go out.
    private struct Wanted {
        var descriptor: Descriptor
        var key: [UInt8]
        var parent: [UInt8]
    }

    private let catalog: Catalog
    private let store: ClosedStore
    private let space: NamespaceRecord
    private let sink: any ByteSink
    private let now: UInt32
    private let progress: Verifier.Progress
    private var report = ExportReport()
    private var end = ExportEnd()
    private var announced: UInt64 = 0

    private static let readAhead = 8

    /// Writes the namespace to `sink`. `now`: unix seconds, for blocks past their expiry.
    package static func run(
        _ store: ClosedStore, _ space: NamespaceRecord, to sink: any ByteSink, now: UInt32,
        progress: @escaping Verifier.Progress = { _, _ in }
    ) throws(StoreError) -> ExportReport {
        let catalog = try Catalog(store)
        _ = try catalog.settleContested()
        let exporter = Exporter(catalog, space, sink, now, progress)
        try exporter.run()
        return exporter.report
    }

    private init(
        _ catalog: Catalog, _ space: NamespaceRecord, _ sink: any ByteSink, _ now: UInt32,
        _ progress: @escaping Verifier.Progress
    ) {
        self.catalog = catalog
        store = catalog.store
        self.space = space
        self.sink = sink
        self.now = max(now, store.manifest.wallSecondsFloor)
        self.progress = progress
    }

    private func run() throws(StoreError) {
        var header = ExportHeader(namespace: space)
        header.store = store.manifest.store
        header.wallSeconds = now
        header.lowestVersion = UInt64.max
        for block in catalog.blocks.values where block.slot == space.slot && !isExpired(block) {
            header.blocks += 1
            header.valueBytes += UInt64(block.length)
            header.lowestVersion = min(header.lowestVersion, block.version)
            header.highestVersion = max(header.highestVersion, block.version)
        }
        if header.blocks == 0 { header.lowestVersion = 0 }
        announced = header.valueBytes
        try write(header.encode())
        // The oldest life first, so that an import in cache mode evicts in the same order.
        for info in catalog.segments.sorted(by: { $0.generation < $1.generation })
        where info.liveBlocks > 0 { try export(info) }
        end.leftOut = UInt64(report.leftOut.count)
        try write(end.encode())
        report.blocks = end.records
        report.valueBytes = end.valueBytes
        progress(announced, announced)
    }

    private func isExpired(_ block: CatalogBlock) -> Bool {
        block.expiry != 0 && block.expiry <= now
    }

    private func write(_ bytes: [UInt8]) throws(StoreError) {
        // A closure would lose the type of the error.
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 8)
        defer { buffer.deallocate() }
        buffer.copyBytes(from: bytes)
        try sink.write(UnsafeRawBufferPointer(buffer))
    }

    private func export(_ info: SegmentInfo) throws(StoreError) {
        var wanted: [Wanted] = []
        try catalog.visit(info) { view in
            guard view.descriptor.namespaceInstance == space.instance,
                catalog.isLive(view, info.id)
            else { return }
            if view.descriptor.expiry != 0, view.descriptor.expiry <= now {
                report.expired += 1
                return
            }
            wanted.append(
                Wanted(
                    descriptor: view.descriptor, key: Array(view.key), parent: Array(view.parent)))
        }
        wanted.sort { $0.descriptor.page < $1.descriptor.page }
        let file = try store.file(info.id)
        var reads: [(tag: UInt64, buffer: PageBuffer)] = []
        var next = 0
        for block in wanted {
            while next < wanted.count, reads.count < Self.readAhead {
                let found = wanted[next].descriptor
                let bytes = Int(found.storedPages) * FormatConstants.pageBytes
                let buffer = PageBuffer(bytes: bytes)
                let tag = store.io.begin(
                    .read, file, offset: ClosedStore.offset(page: found.page), buffer.base,
                    length: bytes)
                reads.append((tag, buffer))
                next += 1
            }
            let (tag, buffer) = reads.removeFirst()
            let errno = store.io.end(tag)
            do throws(StoreError) {
                try export(block, buffer, errno, info)
            } catch {
                // The device may still write into what has been begun.
                for read in reads { _ = store.io.end(read.tag) }
                throw error
            }
        }
    }

    private func export(
        _ block: Wanted, _ buffer: PageBuffer, _ errno: Int32, _ info: SegmentInfo
    ) throws(StoreError) {
        let found = block.descriptor
        let layout = BlockLayout(
            length: found.length, shardCount: Int(found.shardCount) + 1, aligned: space.aligned)
        let image = StoredImage(
            layout: layout,
            bytes: buffer.slice(0, Int(found.storedPages) * FormatConstants.pageBytes))
        let identity = block.key.withUnsafeBytes {
            Checksum.identitySeed(
                namespace: space.fingerprint, key: $0,
                versionLow: UInt32(truncatingIfNeeded: found.version))
        }
        if errno != 0 || image.damage(identity: identity, checksum: found.checksum) != nil {
            var finding = Finding(
                .value, path: store.path(info.id), offset: ClosedStore.offset(page: found.page),
                length: ClosedStore.offset(page: found.storedPages),
                errno != 0 ? "cannot be read, errno \(errno)" : "does not verify: left out",
                segment: info.id, generation: info.generation)
            finding.add(
                Finding.Key(namespace: space.instance, bytes: block.key, version: found.version))
            report.leftOut.append(finding)
            return
        }
        let record = ExportRecord(
            descriptor: found, key: block.key, parent: block.parent,
            table: image.table.map { Array($0) } ?? [])
        let front = record.encodeFront(sequence: end.records)
        var sum = front.withUnsafeBytes { Checksum.crc32c(0, $0) }
        try write(front)
        var parts: [UnsafeRawBufferPointer] = []
        _ = image.forEachShard { _, value, _ in parts.append(value) }
        for part in parts {
            sum = Checksum.crc32c(sum, part)
            try sink.write(part)
        }
        try write(withUnsafeBytes(of: sum.littleEndian) { Array($0) })
        end.add(sum, length: found.length)
        progress(end.valueBytes, announced)
    }
}
