// Importer: puts the blocks of an export into a store. Everything is checked before it is put: the
// stream's own sums, then every checksum of the value. A file is read once more for that before the
// store is touched; of a pipe, all before the first bad record is put and nothing from it on.
//
// A block keeps its version and the checksum of its put wherever that is safe: its version must be
// above everything that the target's log says of the key (or a tombstone there would kill it at the
// next opening) and above the version at which the namespace was made. Else it gets a new version,
// and checksums made anew from the bytes that were just checked.

import BlockIO
import LogStore
import SegmentFormat

package struct ImportReport: Sendable {
    package var namespace: UInt64 = 0
    package var madeNamespace = false
    package var records: UInt64 = 0
    package var valueBytes: UInt64 = 0
    package var put: UInt64 = 0
    /// Of those put, how many got a new version.
    package var newVersions: UInt64 = 0
    package var present: UInt64 = 0
    package var expired: UInt64 = 0
    /// Refused, by reason.
    package var conflicts: UInt64 = 0
    package var tooLarge: UInt64 = 0
    package var noSpace: UInt64 = 0
    package var notAdmitted: UInt64 = 0
    package var failed: UInt64 = 0
    /// Blocks that the export itself had left out.
    package var leftOut: UInt64 = 0

    package var refused: UInt64 { conflicts + tooLarge + noSpace + notAdmitted + failed }
    package init() {}
}

package struct ImportOptions: Sendable {
    package var allowAbsent = false
    /// Only checks the stream.
    package var dryRun = false
    package var holder = "hearth import"
    package var entropy: (UInt64, UInt64, UInt64, UInt64)
    /// Bytes of values under way at once.
    package var bytesInFlight = 64 << 20
    package init(entropy: (UInt64, UInt64, UInt64, UInt64)) { self.entropy = entropy }
}

package final class Importer {
    package typealias Failure = ExportReader.Failure

    private let options: ImportOptions
    private let progress: Verifier.Progress
    private var report = ImportReport()
    private var waiting: [UInt64: Waiting] = [:]
    private var bytesWaiting = 0
    /// With nothing but the process's own memory.
    private let regions = RegionTable()

    /// One block on its way into the log, with all memory that it is read from.
    private final class Waiting {
        let image: PageBuffer
        let pieces: UnsafeMutablePointer<Piece>
        let lengths: UnsafeMutableBufferPointer<UInt32>
        let record: ExportRecord
        let isNewVersion: Bool
        var request: AppendRequest

        init(
            _ record: ExportRecord, _ image: PageBuffer, imageBytes: Int, isNewVersion: Bool,
            _ request: (UnsafePointer<Piece>) -> AppendRequest
        ) {
            self.record = record
            self.image = image
            self.isNewVersion = isNewVersion
            pieces = .allocate(capacity: 1)
            pieces.initialize(
                to: Piece(
                    region: .process, offset: UInt64(UInt(bitPattern: image.base)),
                    length: UInt64(imageBytes)))
            lengths = .allocate(capacity: record.shardCount)
            _ = lengths.initialize(from: record.shardLengths)
            self.request = request(UnsafePointer(pieces))
            self.request.shardCount = record.shardCount
            self.request.shardLengths =
                record.shardCount > 1 ? UnsafePointer(lengths.baseAddress) : nil
        }

        deinit {
            pieces.deallocate()
            lengths.deallocate()
        }
    }

    /// What a target's log says of the keys of a namespace, and what else decides about versions.
    private struct Target {
        var manifest: Manifest
        var directories: [String]
        var blocks: Int
        /// The highest version of any record of a key.
        var highest: [Fingerprint: UInt64] = [:]
        var existing: NamespaceRecord?
    }

    /// Imports the stream into the store in these directories.
    package static func run(
        _ directories: [String], from source: any ByteSource, driver: any BlockDriver,
        clock: any Clock, options: ImportOptions,
        progress: @escaping Verifier.Progress = { _, _ in }
    ) throws(Failure) -> ImportReport {
        let importer = Importer(options, progress)
        try importer.run(directories, source, driver, clock)
        return importer.report
    }

    private init(_ options: ImportOptions, _ progress: @escaping Verifier.Progress) {
        self.options = options
        self.progress = progress
    }

    private func run(
        _ directories: [String], _ source: any ByteSource, _ driver: any BlockDriver,
        _ clock: any Clock
    ) throws(Failure) {
        if options.dryRun || source.rewind() {
            try check(source)
            if options.dryRun { return }
            guard source.rewind() else {
                throw .store(
                    StoreError(
                        .input, operation: "rewind", subject: "the stream",
                        advice: "It could be read once, and not again."))
            }
            report = ImportReport()
        }
        let reader = try ExportReader(source)
        let target = try wrapped { () throws(StoreError) in
            try look(directories, reader.header, driver, clock)
        }
        let store = try wrapped { () throws(StoreError) in
            try PumpedStore(
                target.manifest, target.directories,
                blocks: target.blocks + Int(clamping: min(reader.header.blocks, 1 << 32)),
                driver: driver, clock: clock, holder: options.holder, entropy: options.entropy)
        }
        do throws(Failure) {
            try put(reader, into: store, target)
        } catch {
            // What was put stays put, and is made durable.
            try? store.close()
            throw error
        }
        try wrapped { () throws(StoreError) in try store.close() }
    }

    private func wrapped<Answer>(
        _ body: () throws(StoreError) -> Answer
    ) throws(Failure) -> Answer {
        do throws(StoreError) {
            return try body()
        } catch {
            throw .store(error)
        }
    }

    // MARK: Checking

    /// Reads a stream to its end and checks every checksum in it.
    private func check(_ source: any ByteSource) throws(Failure) {
        let reader = try ExportReader(source)
        var spare = PageBuffer(bytes: 1 << 20)
        while let (record, value) = try reader.next(into: { bytes in
            if spare.count < bytes { spare = PageBuffer(bytes: bytes) }
            return spare
        }) {
            let bytes = imageBytes(record, aligned: reader.header.namespace.aligned)
            let image = PageBuffer(bytes: bytes)
            try build(record, value, image, bytes, reader, aligned: reader.header.namespace.aligned)
            report.records += 1
            report.valueBytes += UInt64(record.descriptor.length)
            progress(report.valueBytes, reader.header.valueBytes)
        }
        report.leftOut = reader.ended?.leftOut ?? 0
    }

    private func imageBytes(_ record: ExportRecord, aligned: Bool) -> Int {
        record.shardLengths.withUnsafeBufferPointer {
            BlockLayout.storedBytes(shardLengths: $0, aligned: aligned)
        }
    }

    /// Makes the stored image of a record, with every checksum made again under its own version:
    /// they must be those that came along.
    private func build(
        _ record: ExportRecord, _ value: PageBuffer, _ image: PageBuffer, _ bytes: Int,
        _ reader: ExportReader, aligned: Bool
    ) throws(Failure) {
        let sum = make(
            record, value, image, bytes, reader, aligned: aligned,
            version: record.descriptor.version)
        let layout = BlockLayout(
            length: record.descriptor.length, shardCount: record.shardCount, aligned: aligned)
        let table = StoredImage(layout: layout, bytes: image.slice(0, bytes)).table
        guard sum == record.descriptor.checksum,
            table.map({ $0.elementsEqual(record.table) }) ?? record.table.isEmpty
        else {
            throw .stream(
                StreamError(
                    kind: .damaged, offset: reader.offset,
                    text: "the value of key \(KeyText.of(record.key)) is not the one that was put"))
        }
    }

    private func make(
        _ record: ExportRecord, _ value: PageBuffer, _ image: PageBuffer, _ bytes: Int,
        _ reader: ExportReader, aligned: Bool, version: UInt64
    ) -> UInt32 {
        let identity = record.key.withUnsafeBytes {
            Checksum.identitySeed(
                namespace: reader.header.namespace.fingerprint, key: $0,
                versionLow: UInt32(truncatingIfNeeded: version))
        }
        let piece = Piece(
            region: .process, offset: UInt64(UInt(bitPattern: value.base)),
            length: UInt64(record.descriptor.length))
        return withUnsafePointer(to: piece) { pieces in
            var source = PieceCursor(pieces: pieces, count: 1, regions: regions)
            return record.shardLengths.withUnsafeBufferPointer { lengths in
                ImageBuilder.build(
                    into: image.base, bytes: bytes, source: &source,
                    length: record.descriptor.length, shardCount: record.shardCount,
                    shardLengths: lengths.baseAddress, aligned: aligned, identity: identity)
            }
        }
    }

    // MARK: The target

    /// Looks at the closed target: who it is, how many blocks it has, what it says of the keys.
    private func look(
        _ directories: [String], _ header: ExportHeader, _ driver: any BlockDriver,
        _ clock: any Clock
    ) throws(StoreError) -> Target {
        let closed = try ClosedStore.open(
            directories, allowAbsent: options.allowAbsent, driver: driver, clock: clock,
            holder: options.holder)
        defer { closed.close() }
        let catalog = try Catalog(closed)
        var target = Target(
            manifest: closed.manifest, directories: closed.members.compactMap { $0?.path },
            blocks: catalog.blocks.count)
        target.existing = closed.namespaces.values.first {
            $0.fingerprint == header.namespace.fingerprint
        }
        guard let space = target.existing else { return target }
        for info in catalog.segments {
            try catalog.visit(info) { view in
                guard view.descriptor.namespaceInstance == space.instance else { return }
                let key = closed.fingerprint(instance: space.instance, view.key)
                target.highest[key] = max(target.highest[key] ?? 0, view.descriptor.version)
            }
        }
        return target
    }

    /// Opens the namespace, making it if there is none: its slot, and the version above which
    /// blocks keep theirs.
    private func openSpace(
        _ header: ExportHeader, _ store: PumpedStore, _ target: Target
    ) throws(StoreError) -> (slot: UInt16, floor: UInt64) {
        let record = header.namespace
        try store.demand("version limit") {
            $0.raiseVersions(token: $1, past: header.highestVersion)
        }
        var created: UInt64?
        if target.existing == nil {
            // A slot's new namespace may begin below versions of its predecessor only if no
            // checkpoint has any entry of that one left: both files are written anew.
            for _ in 0..<2 { try store.demand("checkpoint") { $0.checkpoint(token: $1) } }
            created = header.lowestVersion > 0 ? header.lowestVersion - 1 : 0
        }
        let outcome = store.ask {
            $0.openNamespace(
                token: $1, fields: record.fields,
                aligned: target.existing?.aligned ?? record.aligned,
                timeToLive: record.ttlSeconds, capBytes: record.capBytes, createdVersion: created)
        }
        guard outcome.status == .done else {
            throw StoreError(
                outcome.status == .noSpace ? .noSpace : .input, operation: "namespace",
                subject: "the namespace", errno: outcome.errno,
                advice: "It could not be made (\(outcome.status)): the store's namespaces are "
                    + "full, or its manifest cannot be written.")
        }
        let slot = UInt16(truncatingIfNeeded: outcome.version)
        report.madeNamespace = target.existing == nil
        report.namespace = store.log.namespaces.instance(slot)
        return (slot, store.log.namespaces.createdVersion(slot))
    }

    // MARK: Putting

    private func put(
        _ reader: ExportReader, into store: PumpedStore, _ target: Target
    ) throws(Failure) {
        let (slot, floor) = try wrapped { () throws(StoreError) in
            try openSpace(reader.header, store, target)
        }
        defer { while !waiting.isEmpty { drain(store, slot) } }
        var spare = PageBuffer(bytes: 1 << 20)
        while let (record, value) = try reader.next(into: { bytes in
            if spare.count < bytes { spare = PageBuffer(bytes: bytes) }
            return spare
        }) {
            report.records += 1
            report.valueBytes += UInt64(record.descriptor.length)
            try begin(record, value, reader, store, target, slot, floor)
            while bytesWaiting > options.bytesInFlight || waiting.count >= 512 {
                drain(store, slot)
            }
            progress(report.valueBytes, reader.header.valueBytes)
        }
        report.leftOut = reader.ended?.leftOut ?? 0
    }

    private func begin(
        _ record: ExportRecord, _ value: PageBuffer, _ reader: ExportReader, _ store: PumpedStore,
        _ target: Target, _ slot: UInt16, _ floor: UInt64
    ) throws(Failure) {
        let found = record.descriptor
        let aligned = store.log.namespaces.aligned(slot)
        let bytes = imageBytes(record, aligned: aligned)
        let image = PageBuffer(bytes: bytes)
        try build(record, value, image, bytes, reader, aligned: aligned)
        if found.expiry != 0, found.expiry <= store.log.wallSeconds {
            report.expired += 1
            return
        }
        guard UInt64(found.length) <= store.log.manifest.maxBlockBytes else {
            report.tooLarge += 1
            return
        }
        let fingerprint = record.key.withUnsafeBytes { store.log.fingerprint(slot, $0) }
        var version = found.version
        var checksum = found.checksum
        let keeps = version > floor && version > target.highest[fingerprint] ?? 0
        if !keeps {
            while !store.log.isReadyToWrite, !store.log.readOnly { drain(store, slot) }
            version = store.log.nextPutVersion()
            checksum = make(
                record, value, image, bytes, reader, aligned: aligned, version: version)
        }
        let empty = UnsafeRawBufferPointer(start: nil, count: 0)
        let made = Waiting(record, image, imageBytes: bytes, isNewVersion: !keeps) { pieces in
            AppendRequest(
                token: store.token(), fingerprint: fingerprint, namespaceSlot: slot, key: empty,
                parent: empty, pieces: pieces, pieceCount: 1, length: found.length)
        }
        made.request.sourceIsImage = true
        made.request.version = version
        made.request.checksum = checksum
        made.request.expiry = found.expiry
        bytesWaiting += image.count
        waiting[made.request.token] = made
        append(made, store, slot)
    }

    /// Hands a block to the log, which copies key and parent.
    private func append(_ block: Waiting, _ store: PumpedStore, _ slot: UInt16) {
        block.record.key.withUnsafeBytes { key in
            block.record.parent.withUnsafeBytes { parent in
                block.request.key = key
                block.request.parent = parent
                while !store.log.append(block.request) { store.pump() }
            }
        }
    }

    /// One turn, and what has come of it.
    private func drain(_ store: PumpedStore, _ slot: UInt16) {
        store.pump()
        for (token, block) in waiting {
            guard let outcome = store.take(token) else { continue }
            if outcome.status == .throttled {
                append(block, store, slot)
                continue
            }
            waiting[token] = nil
            bytesWaiting -= block.image.count
            switch outcome.status {
            case .stored:
                report.put += 1
                if block.isNewVersion { report.newVersions += 1 }
            case .alreadyPresent: report.present += 1
            case .conflict: report.conflicts += 1
            case .tooLarge: report.tooLarge += 1
            case .noSpace: report.noSpace += 1
            case .notAdmitted: report.notAdmitted += 1
            default: report.failed += 1
            }
        }
    }
}
