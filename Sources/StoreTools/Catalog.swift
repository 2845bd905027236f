// Catalog: which blocks of a closed store are alive, found out as recovery would: the entries of
// the newest whole checkpoint whose segments are still in the life that it saw, and what the
// segments that it does not cover say since. Of two values of a key the higher version wins; a
// tombstone or supersede kills what is below it; where two values are left, the newer counts only
// if it is whole.
//
// On the way every entry of the checkpoint is held against the log: its record must lie where the
// entry says, with the same version, length, shards, checksum and expiry.
//
// It takes about 100 bytes of memory for each block.

import LogStore
import SegmentFormat

/// A block that lives, or may.
package struct CatalogBlock: Sendable {
    package var segment: UInt32
    package var page: UInt32
    package var version: UInt64
    package var length: UInt32
    package var checksum: UInt32
    package var expiry: UInt32
    package var slot: UInt16
    package var shards: UInt16
    package var fromDump = false
    /// The log has its record.
    package var isSeen = false

    package var shardCount: Int { Int(shards) + 1 }

    init(
        segment: UInt32, page: UInt32, version: UInt64, length: UInt32, checksum: UInt32,
        expiry: UInt32, slot: UInt16, shards: UInt16, isSeen: Bool = false
    ) {
        self.segment = segment
        self.page = page
        self.version = version
        self.length = length
        self.checksum = checksum
        self.expiry = expiry
        self.slot = slot
        self.shards = shards
        self.isSeen = isSeen
    }

    /// As an entry of a checkpoint tells it.
    init(_ entry: IndexEntry, version: UInt64) {
        self.init(
            segment: entry.place.segment, page: entry.place.page, version: version,
            length: entry.length, checksum: entry.checksum, expiry: entry.expiry,
            slot: entry.namespaceSlot, shards: UInt16(entry.shardCount - 1))
        fromDump = true
    }

    /// Whether another is the same block at the same place.
    func agrees(_ other: CatalogBlock) -> Bool {
        version == other.version && length == other.length && checksum == other.checksum
            && expiry == other.expiry && slot == other.slot && shards == other.shards
    }
}

package final class Catalog {
    package let store: ClosedStore
    package private(set) var segments: [SegmentInfo] = []
    package private(set) var blocks: [Fingerprint: CatalogBlock] = [:]
    /// Keys of which more than one value is left, newest first: see `settle`.
    package private(set) var contested: [Fingerprint: [CatalogBlock]] = [:]
    package private(set) var dumps: [Dump] = []
    /// The dump that an opening would use.
    package private(set) var dump: Dump?
    package private(set) var findings: [Finding] = []
    package private(set) var counts = Counts()
    private var dead: [Fingerprint: UInt64] = [:]
    private var extra: [Fingerprint: [CatalogBlock]] = [:]

    package struct Counts: Sendable {
        package var records: UInt64 = 0
        package var footerPages: UInt64 = 0
        package var descriptorPages: UInt64 = 0
        package var chunks: UInt64 = 0
        package var entries: UInt64 = 0
    }

    /// Told after each segment: how many are done, of how many.
    package typealias Progress = (Int, Int) -> Void

    package init(_ store: ClosedStore, progress: Progress = { _, _ in }) throws(StoreError) {
        self.store = store
        findings = store.findings
        try identifySegments()
        try readDump()
        try readLog(progress)
        resolve()
    }

    // MARK: Lives

    private func identifySegments() throws(StoreError) {
        let buffer = PageBuffer(bytes: 2 * FormatConstants.pageBytes)
        for id in store.segmentIDs {
            let path = store.path(id)
            let file = try store.file(id)
            let size = (try? store.io.driver.information(file))?.size ?? 0
            if size < store.manifest.segmentBytes {
                findings.append(
                    Finding(
                        .file, path: path, offset: size,
                        length: store.manifest.segmentBytes - size,
                        "cut short: \(size) bytes of \(store.manifest.segmentBytes)", segment: id))
            }
            segments.append(try store.identify(id, buffer, findings: &findings))
        }
    }

    // MARK: The checkpoint

    private func readDump() throws(StoreError) {
        var reader = DumpReader(store: store)
        let (dumps, chosen) = try reader.checkAll(findings: &findings)
        self.dumps = dumps
        counts.chunks = reader.chunks
        counts.entries = reader.entries
        guard let chosen else { return }
        let dump = dumps[chosen]
        self.dump = dump
        guard let table = dump.table else { return }
        // As recovery: an entry is taken if its segment is in the life that the dump saw.
        var bases: [UInt32: UInt64] = [:]
        for info in segments where info.generation != 0 {
            guard let entry = table[info.id], entry.generation == info.generation else { continue }
            bases[info.id] = min(entry.minVersion, info.life?.trailer?.minVersion ?? UInt64.max)
        }
        let began = dump.header?.beganVersion ?? 0
        blocks.reserveCapacity(Int(clamping: min(dump.end?.entryCount ?? 0, 1 << 28)))
        reader.forEachEntry(
            dump,
            version: { entry in
                guard let place = bases.index(forKey: entry.place.segment) else { return nil }
                return LogStore.versionOnLoad(
                    low: entry.versionLow, base: &bases.values[place], began: began)
            }
        ) { fingerprint, entry, version in
            blocks[fingerprint] = CatalogBlock(entry, version: version)
        }
        expectSegments(table)
    }

    /// A segment that the checkpoint knows in some life, and of which there is no file any more.
    private func expectSegments(_ table: [UInt32: CheckpointSegment]) {
        let there = Set(store.segmentIDs)
        for (id, entry) in table where entry.generation != 0 && !there.contains(id) {
            let device = SegmentTable.device(id)
            guard device < store.members.count, let member = store.members[device],
                !member.isStale
            else { continue }
            findings.append(
                Finding(
                    .file, path: store.path(id), offset: 0, length: store.manifest.segmentBytes,
                    "missing: the checkpoint knows it", segment: id, generation: entry.generation))
        }
    }

    /// Blocks of the checkpoint in segments that are missing or of which nothing can be read, and
    /// whose keys have no other block: they are lost.
    func forEachGone(_ body: (Fingerprint, CatalogBlock) -> Void) {
        guard let dump, let table = dump.table else { return }
        let readable = Set(segments.filter { $0.state != .unusable }.map(\.id))
        let gone = table.filter { id, entry in
            let device = SegmentTable.device(id)
            return entry.generation != 0 && !readable.contains(id)
                && device < store.members.count && store.members[device]?.isStale == false
        }
        guard !gone.isEmpty else { return }
        DumpReader(store: store).forEachEntry(
            dump,
            version: { entry in
                gone[entry.place.segment].map {
                    LogStore.fullVersion(low: entry.versionLow, base: $0.minVersion)
                }
            }
        ) { fingerprint, entry, version in
            guard blocks[fingerprint] == nil else { return }
            body(fingerprint, CatalogBlock(entry, version: version))
        }
    }

    /// What the checkpoint says of a segment in this very life.
    private func known(_ info: SegmentInfo) -> CheckpointSegment? {
        guard let entry = dump?.table?[info.id], entry.generation == info.generation else {
            return nil
        }
        return entry
    }

    // MARK: The log

    private func readLog(_ progress: Progress) throws(StoreError) {
        let reader = RecordReader(store: store)
        let table = dump?.table ?? [:]
        let isWhole = segments.allSatisfy {
            $0.generation == 0 || table[$0.id]?.knows(life: $0.generation) ?? false
        }
        for number in segments.indices {
            var info = segments[number]
            let id = info.id
            let known = known(info)
            let covered = known?.isCovered(whole: isWhole) ?? false
            let settled = known?.writtenPages ?? 0
            // A list of its own: what is told of the records goes to the other one meanwhile.
            var told: [Finding] = []
            try reader.read(&info, findings: &told) { view in
                take(view, id, covered: covered, settled: settled)
            }
            if info.isHalfMade, info.state == .clean, told.isEmpty { excuse(id) }
            findings += told
            // A group whose descriptors are damaged may still be known to the checkpoint.
            info.writtenPages = max(info.writtenPages, info.state == .open ? Int(settled) : 0)
            segments[number] = info
            counts.records += UInt64(info.records)
            progress(number + 1, segments.count)
        }
        counts.footerPages = reader.footerPages
        counts.descriptorPages = reader.descriptorPages
    }

    /// A crash came between the writes of a life's two headers. Nothing was written in it, so
    /// nothing is lost, and an opening makes both anew before anything is.
    private func excuse(_ segment: UInt32) {
        for number in findings.indices
        where findings[number].segment == segment
            && [.header, .trailer].contains(findings[number].structure)
        { findings[number].severity = .note }
    }

    /// One record of a segment; values of the dump are held against it.
    private func take(_ view: RecordView, _ segment: UInt32, covered: Bool, settled: UInt32) {
        let found = view.descriptor
        guard let space = store.namespaces[found.namespaceInstance] else { return }
        let fingerprint = store.fingerprint(instance: found.namespaceInstance, view.key)
        guard found.hasValue else {
            if !covered { dead[fingerprint] = max(dead[fingerprint] ?? 0, found.version) }
            return
        }
        let block = CatalogBlock(
            segment: segment, page: found.page, version: found.version, length: found.length,
            checksum: found.checksum, expiry: found.expiry, slot: space.slot,
            shards: found.shardCount, isSeen: true)
        if let present = blocks[fingerprint], present.fromDump, !present.isSeen,
            present.segment == segment, present.page == found.page
        {
            blocks[fingerprint]?.isSeen = true
            if !present.agrees(block) {
                var finding = Finding(
                    .index, path: dump?.path ?? "", offset: 0, length: 0,
                    "an entry tells of its block what the log does not: segment \(segment), page "
                        + "\(found.page)", segment: segment)
                finding.add(key(view, found.version))
                findings.append(finding)
            }
            return
        }
        // What the checkpoint speaks for and does not have is dead.
        if covered || found.page < settled { return }
        guard found.length > 0, UInt64(found.length) <= store.manifest.maxBlockBytes,
            UInt64(found.page) + UInt64(found.storedPages) < UInt64(store.segmentPages)
        else { return }
        if blocks[fingerprint] == nil {
            blocks[fingerprint] = block
        } else {
            extra[fingerprint, default: []].append(block)
        }
    }

    private func key(_ view: RecordView, _ version: UInt64) -> Finding.Key {
        Finding.Key(
            namespace: view.descriptor.namespaceInstance, bytes: Array(view.key), version: version)
    }

    // MARK: Who lives

    private func resolve() {
        for block in blocks.values where block.fromDump && !block.isSeen {
            findings.append(
                Finding(
                    .index, path: dump?.path ?? "", offset: 0, length: 0,
                    "an entry (\(block.length) bytes, version \(block.version)) has no record in "
                        + "the log: segment \(block.segment), page \(block.page)",
                    segment: block.segment))
        }
        for (fingerprint, version) in dead {
            if let block = blocks[fingerprint], block.version < version, extra[fingerprint] == nil {
                blocks[fingerprint] = nil
            }
        }
        let generations = Dictionary(uniqueKeysWithValues: segments.map { ($0.id, $0.generation) })
        for (fingerprint, others) in extra {
            var all = others
            if let first = blocks[fingerprint] { all.append(first) }
            let version = dead[fingerprint] ?? 0
            all = all.filter { $0.version >= version }
            all.sort {
                ($0.version, generations[$0.segment] ?? 0, $0.page)
                    > ($1.version, generations[$1.segment] ?? 0, $1.page)
            }
            blocks[fingerprint] = all.first
            if all.count > 1 { contested[fingerprint] = all }
        }
        dead = [:]
        extra = [:]
        account()
    }

    /// The newer value of a contested key was read: the first of its values that is whole lives.
    package func settle(_ fingerprint: Fingerprint, on block: CatalogBlock) {
        blocks[fingerprint] = block
        contested[fingerprint] = nil
    }

    /// Whether a record is the block that lives under its key.
    package func isLive(_ view: RecordView, _ segment: UInt32) -> Bool {
        guard view.descriptor.hasValue,
            let block = blocks[
                store.fingerprint(instance: view.descriptor.namespaceInstance, view.key)]
        else { return false }
        return block.segment == segment && block.page == view.descriptor.page
    }

    /// The same, or one of several values of which it is not yet known which one lives.
    package func mayLive(_ view: RecordView, _ segment: UInt32) -> Bool {
        if isLive(view, segment) { return true }
        guard !contested.isEmpty,
            let several = contested[
                store.fingerprint(instance: view.descriptor.namespaceInstance, view.key)]
        else { return false }
        return several.contains { $0.segment == segment && $0.page == view.descriptor.page }
    }

    /// Shares the blocks out to their segments.
    func account() {
        var places: [UInt32: Int] = [:]
        for number in segments.indices {
            places[segments[number].id] = number
            segments[number].liveBlocks = 0
            segments[number].livePages = 0
            segments[number].liveBytes = 0
        }
        let aligned = Dictionary(
            store.namespaces.values.map { ($0.slot, $0.aligned) },
            uniquingKeysWith: { one, _ in one })
        for block in blocks.values {
            guard let place = places[block.segment] else { continue }
            let layout = BlockLayout(
                length: block.length, shardCount: block.shardCount,
                aligned: aligned[block.slot] ?? false)
            segments[place].liveBlocks += 1
            segments[place].livePages += layout.storedBytes / FormatConstants.pageBytes
            segments[place].liveBytes += UInt64(block.length)
        }
    }
}
