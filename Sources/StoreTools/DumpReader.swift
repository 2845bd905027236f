// DumpReader: the checkpoints of a closed store: every dump is checked as a whole, and the newest
// one that counts is given out entry by entry. What counts is recovery's rule: header and end carry
// the same sequence, the highest sequence wins, and a dump with anything wrong in it is no dump.

import BlockIO
import LogStore
import SegmentFormat

/// One checkpoint file.
package struct Dump {
    package var member: Int
    package var path: String
    package var file: FileID
    package var header: CheckpointHeader?
    package var end: CheckpointEnd?
    /// Header and end belong together.
    package var counts: Bool {
        header != nil && header?.sequence == end?.sequence
    }
    /// Its segments by id; nil when the table does not verify.
    package var table: [UInt32: CheckpointSegment]?
    /// Every chunk verifies, and the entries are as many as the end says.
    package var isWhole = false
}

package struct DumpReader {
    private let store: ClosedStore
    private let pageBytes = FormatConstants.pageBytes
    /// Chunks and entries that verified.
    package private(set) var chunks: UInt64 = 0
    package private(set) var entries: UInt64 = 0

    package init(store: ClosedStore) { self.store = store }

    private func finding(
        _ dump: Dump, _ offset: UInt64, _ length: Int, _ text: String
    ) -> Finding {
        Finding(
            .checkpoint, path: dump.path, offset: offset, length: UInt64(length), text)
    }

    /// Finds the dumps of all members and checks each. The index of the one that an opening would
    /// use is told, nil for none.
    package mutating func checkAll(
        findings: inout [Finding]
    ) throws(StoreError) -> (dumps: [Dump], chosen: Int?) {
        var dumps: [Dump] = []
        for case let member? in store.members {
            for number in 0..<2 {
                let name = StoreFiles.checkpoint(number)
                guard let file = try store.openFile(member, name) else { continue }
                // Made ahead of the first checkpoint, and not yet written.
                if let found = try? store.io.driver.information(file), found.size == 0 { continue }
                var dump = Dump(
                    member: member.index, path: member.path + "/" + name, file: file)
                readEnds(&dump, &findings)
                dumps.append(dump)
            }
        }
        var chosen: Int?
        for number in dumps.indices where dumps[number].counts {
            check(&dumps[number], &findings)
            let sequence = dumps[number].header?.sequence ?? 0
            if sequence > chosen.flatMap({ dumps[$0].header?.sequence }) ?? 0 { chosen = number }
        }
        if let found = chosen, !dumps[found].isWhole { chosen = nil }
        return (dumps, chosen)
    }

    private func readEnds(_ dump: inout Dump, _ findings: inout [Finding]) {
        let buffer = PageBuffer(bytes: pageBytes)
        let (secret, id) = (store.manifest.secret, store.manifest.store)
        for (offset, word) in [(0, "header"), (CheckpointHeader.endOffset, "end page")] {
            let errno = store.io.read(
                dump.file, offset: UInt64(offset), into: buffer.base, length: pageBytes)
            var problem: FormatError?
            do throws(FormatError) {
                if offset == 0 {
                    dump.header = try CheckpointHeader.decode(
                        buffer.bytes, secret: secret, store: id)
                } else {
                    dump.end = try CheckpointEnd.decode(buffer.bytes, secret: secret, store: id)
                }
            } catch {
                problem = error
            }
            var text: String?
            if errno != 0 {
                text = "the \(word) cannot be read, errno \(errno)"
            } else if let problem, !buffer.bytes.isZero {
                if case .newerFormat(let bits) = problem {
                    text = "the \(word) is of a newer format (feature word \(bits))"
                } else {
                    text = "the \(word) does not verify"
                }
            }
            if let text { findings.append(finding(dump, UInt64(offset), pageBytes, text)) }
        }
    }

    private mutating func check(_ dump: inout Dump, _ findings: inout [Finding]) {
        guard let header = dump.header else { return }
        let bytes = Int(CheckpointHeader.dataOffset(segments: Int(header.segmentCount)))
        let memory = PageBuffer(bytes: bytes)
        let errno = store.io.read(dump.file, offset: 0, into: memory.base, length: bytes)
        let table =
            errno == 0
            ? try? CheckpointHeader.decodeSegments(
                memory.slice(0, bytes), secret: store.manifest.secret, store: store.manifest.store)
            : nil
        guard let table else {
            findings.append(
                finding(
                    dump, UInt64(2 * pageBytes), bytes - 2 * pageBytes,
                    errno == 0
                        ? "the table of segments does not verify"
                        : "the table of segments cannot be read, errno \(errno)"))
            return
        }
        dump.table = Dictionary(
            table.map { ($0.segment, $0) }, uniquingKeysWith: { one, _ in one })
        var found: [Finding] = []
        var count: UInt64 = 0
        var whole = true
        forEachChunk(dump) { number, memory, errno in
            let entries = errno == 0 ? open(dump, number, memory) : nil
            if let entries {
                count += UInt64(entries)
                return
            }
            whole = false
            found.append(
                finding(
                    dump, offset(dump, number), CheckpointChunk.chunkBytes,
                    errno == 0
                        ? "chunk \(number) does not verify"
                        : "chunk \(number) cannot be read, errno \(errno)"))
        }
        chunks += UInt64(dump.end?.chunkCount ?? 0) - UInt64(found.count)
        entries += count
        if whole, count != dump.end?.entryCount {
            whole = false
            found.append(
                finding(
                    dump, UInt64(CheckpointHeader.endOffset), pageBytes,
                    "tells \(dump.end?.entryCount ?? 0) entries, the chunks have \(count)"))
        }
        dump.isWhole = whole
        findings += found
    }

    private func open(_ dump: Dump, _ number: UInt32, _ memory: PageBuffer) -> UInt32? {
        try? CheckpointChunk.open(
            memory.slice(0, CheckpointChunk.chunkBytes), secret: store.manifest.secret,
            store: store.manifest.store, sequence: dump.header?.sequence ?? 0, index: number)
    }

    private func offset(_ dump: Dump, _ chunk: UInt32) -> UInt64 {
        CheckpointHeader.dataOffset(segments: Int(dump.header?.segmentCount ?? 0))
            + UInt64(chunk) * UInt64(CheckpointChunk.chunkBytes)
    }

    /// Reads the chunks in order, the next one while the body is busy with the last.
    private func forEachChunk(
        _ dump: Dump, _ body: (UInt32, PageBuffer, Int32) -> Void
    ) {
        guard let end = dump.end, end.chunkCount > 0 else { return }
        let size = (try? store.io.driver.information(dump.file))?.size ?? 0
        let buffers = [
            PageBuffer(bytes: CheckpointChunk.chunkBytes),
            PageBuffer(bytes: CheckpointChunk.chunkBytes),
        ]
        func begin(_ number: UInt32) -> UInt64 {
            store.io.begin(
                .read, dump.file, offset: offset(dump, number), buffers[Int(number % 2)].base,
                length: CheckpointChunk.chunkBytes)
        }
        // The number of chunks is under the end page's check; the file's end bounds it once more.
        var tag = begin(0)
        for number in 0..<end.chunkCount {
            let errno = store.io.end(tag)
            let last = number + 1 >= end.chunkCount
            if !last { tag = begin(number + 1) }
            body(number, buffers[Int(number % 2)], errno)
            if errno != 0, offset(dump, number) >= size {
                if !last { _ = store.io.end(tag) }
                return
            }
        }
    }

    /// Gives out the entries of a whole dump that can be true and are of live namespaces. `version`
    /// tells the whole version of an entry, or nil to pass it over.
    package func forEachEntry(
        _ dump: Dump, version: (IndexEntry) -> UInt64?,
        _ body: (Fingerprint, IndexEntry, _ version: UInt64) -> Void
    ) {
        let slots = Dictionary(
            store.namespaces.values.map { ($0.slot, $0) }, uniquingKeysWith: { one, _ in one })
        forEachChunk(dump) { number, memory, errno in
            guard errno == 0, let count = open(dump, number, memory) else { return }
            for place in 0..<Int(count) {
                let record =
                    memory.base + CheckpointChunk.payloadOffset + place * BlockIndex.recordBytes
                guard let (fingerprint, entry) = BlockIndex.decode(record: record),
                    entry.place.page > 0, let space = slots[entry.namespaceSlot],
                    let version = version(entry)
                else { continue }
                let layout = BlockLayout(
                    length: entry.length, shardCount: entry.shardCount, aligned: space.aligned)
                let pages = UInt64(layout.storedBytes / pageBytes)
                guard UInt64(entry.place.page) + pages < UInt64(store.segmentPages),
                    version > space.createdVersion
                else { continue }
                body(fingerprint, entry, version)
            }
        }
    }
}
