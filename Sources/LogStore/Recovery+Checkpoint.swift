// Loading a checkpoint: the newest whole one of any member. An entry is taken if its segment is
// still in the life that the checkpoint saw; a checkpoint with a damaged chunk is dropped as a
// whole, and everything is replayed from the segments.

import BlockIO
import Glibc
import SegmentFormat

/// One checkpoint being looked at or loaded.
struct CheckpointLoad {
    struct Candidate {
        var file: FileID
        var device: Int
        var end: CheckpointEnd?
        var header: CheckpointHeader?
    }
    var candidates: [Candidate] = []
    var chosen = -1
    var memory: UnsafeMutableRawPointer?
    var memoryBytes = 0
    var table: [UInt32: CheckpointSegment] = [:]
    var nextChunk: UInt32 = 0
    var doneChunks: UInt32 = 0
    /// Entries in the chunks read so far.
    var entries: UInt64 = 0
    var failed = false
    /// Chunk being read by each buffer, or nil.
    var reading: [UInt32?] = []
}

extension LogStore {
    private static let pageBytes = FormatConstants.pageBytes

    func advanceCheckpointLoad(_ recovery: Recovery) -> Bool {
        if !recovery.started {
            recovery.started = true
            lookForCheckpoints(recovery)
            return true
        }
        guard let load = recovery.checkpoint, load.chosen >= 0, !load.table.isEmpty else {
            return false
        }
        return readChunks(recovery)
    }

    /// Opens what checkpoint files there are, and reads the two pages of each that tell whether it
    /// is whole.
    private func lookForCheckpoints(_ recovery: Recovery) {
        var load = CheckpointLoad()
        if configuration.openMode != .fresh {
            for device in devices.indices where devices[device].isReadable {
                for number in 0..<2 {
                    guard
                        let file = try? driver.open(
                            devices[device].directory, StoreFiles.checkpoint(number), .existing)
                    else { continue }
                    if number == 0 {
                        devices[device].checkpointFiles.0 = file
                    } else {
                        devices[device].checkpointFiles.1 = file
                    }
                    // Made ahead of the first checkpoint, and not yet written.
                    if let found = try? driver.information(file), found.size == 0 { continue }
                    load.candidates.append(CheckpointLoad.Candidate(file: file, device: device))
                }
            }
        }
        guard !load.candidates.isEmpty else {
            startReplay(recovery)
            return
        }
        load.memoryBytes = load.candidates.count * 2 * Self.pageBytes
        let memory = UnsafeMutableRawPointer.allocate(
            byteCount: load.memoryBytes, alignment: 4096)
        memset(memory, 0, load.memoryBytes)
        load.memory = memory
        recovery.checkpoint = load
        recovery.pendingIO = 2 * load.candidates.count
        for number in load.candidates.indices {
            for which in 0..<2 {
                let place = which == 0 ? 0 : CheckpointHeader.endOffset
                readCheckpoint(
                    load.candidates[number], UInt64(place),
                    memory + (2 * number + which) * Self.pageBytes, Self.pageBytes, index: 0)
            }
        }
    }

    private func readCheckpoint(
        _ candidate: CheckpointLoad.Candidate, _ offset: UInt64,
        _ memory: UnsafeMutableRawPointer, _ length: Int, index: Int32, aux: UInt32 = 0
    ) {
        issue(
            IORequest(
                tag: Self.tag(.recovery, index, aux), operation: .read, file: candidate.file,
                fileOffset: offset,
                piece: Piece(
                    region: .process, offset: UInt64(UInt(bitPattern: memory)),
                    length: UInt64(length))),
            on: candidate.device)
    }

    func checkpointRead(_ recovery: Recovery, index: Int32, aux: UInt32, _ errno: Int32) {
        recovery.pendingIO -= 1
        guard var load = recovery.checkpoint else { return }
        if load.chosen < 0 {
            if recovery.pendingIO == 0 { chooseCheckpoint(recovery) }
            return
        }
        if load.table.isEmpty {
            if errno != 0 || !adoptTable(recovery) { dropCheckpoint(recovery) }
            return
        }
        // A chunk has arrived in a worker's buffer.
        let chunk = load.reading[Int(index)]
        load.reading[Int(index)] = nil
        recovery.checkpoint = load
        if errno != 0 || chunk == nil || !takeChunk(recovery, Int(index), chunk ?? 0) {
            recovery.checkpoint?.failed = true
        }
        recovery.checkpoint?.doneChunks += 1
    }

    private func chooseCheckpoint(_ recovery: Recovery) {
        guard var load = recovery.checkpoint, let memory = load.memory else { return }
        var best: UInt64 = 0
        for number in load.candidates.indices {
            let first = memory + 2 * number * Self.pageBytes
            let header = try? CheckpointHeader.decode(
                UnsafeRawBufferPointer(start: first, count: Self.pageBytes),
                secret: manifest.secret, store: manifest.store)
            let end = try? CheckpointEnd.decode(
                UnsafeRawBufferPointer(start: first + Self.pageBytes, count: Self.pageBytes),
                secret: manifest.secret, store: manifest.store)
            for place in [first, first + Self.pageBytes] where header == nil || end == nil {
                let page = UnsafeRawBufferPointer(start: place, count: Self.pageBytes)
                if !page.isZero && (place == first ? header == nil : end == nil) {
                    statistics.recovery.damagedCheckpoints += 1
                }
            }
            if let header { checkpointer.sequence = max(checkpointer.sequence, header.sequence) }
            if let end { checkpointer.sequence = max(checkpointer.sequence, end.sequence) }
            guard let header, let end, header.sequence == end.sequence, header.sequence > best,
                header.segmentCount <= UInt32(1 << 20)
            else { continue }
            best = header.sequence
            load.chosen = number
            load.candidates[number].header = header
            load.candidates[number].end = end
        }
        memory.deallocate()
        load.memory = nil
        guard load.chosen >= 0, let header = load.candidates[load.chosen].header else {
            startReplay(recovery)
            return
        }
        if header.scrubbed > 0 { scrub.segment = header.scrubbed - 1 }
        load.memoryBytes = Int(CheckpointHeader.dataOffset(segments: Int(header.segmentCount)))
        let table = UnsafeMutableRawPointer.allocate(
            byteCount: load.memoryBytes, alignment: 4096)
        load.memory = table
        load.reading = [UInt32?](repeating: nil, count: Recovery.workerCount)
        recovery.checkpoint = load
        recovery.pendingIO = 1
        readCheckpoint(load.candidates[load.chosen], 0, table, load.memoryBytes, index: 0)
    }

    /// The segment table has arrived: which lives the entries belong to.
    private func adoptTable(_ recovery: Recovery) -> Bool {
        guard var load = recovery.checkpoint, let memory = load.memory else { return false }
        guard
            let table = try? CheckpointHeader.decodeSegments(
                UnsafeRawBufferPointer(start: memory, count: load.memoryBytes),
                secret: manifest.secret, store: manifest.store)
        else { return false }
        memory.deallocate()
        load.memory = nil
        let isWhole = knowsAllOldLives(recovery, table)
        for entry in table where segments.isValid(entry.segment) && entry.generation != 0 {
            guard segments[entry.segment].generation == entry.generation,
                segments[entry.segment].file >= 0
            else { continue }
            load.table[entry.segment] = entry
            let state = segments.pointer(entry.segment)
            state.pointee.minVersion = min(state.pointee.minVersion, entry.minVersion)
            state.pointee.minValueVersion = min(
                state.pointee.minValueVersion, entry.minValueVersion)
            state.pointee.metaPages = max(state.pointee.metaPages, entry.metaPages)
            state.pointee.maxVersion = max(state.pointee.maxVersion, entry.maxVersion)
            nextVersion = max(nextVersion, entry.maxVersion)
            if entry.isCovered(whole: isWhole) { recovery.covered.insert(entry.segment) }
        }
        if let header = load.candidates[load.chosen].header { noteWall(header.beganWall) }
        recovery.checkpoint = load
        recovery.settledPages = load.table.mapValues { $0.writtenPages }
        if load.table.isEmpty { startReplay(recovery) }
        return true
    }

    /// Whether every segment that is replayed although the dump does not know its life has begun it
    /// since. Another was away, could not be read, or was to have had its next life by then: what
    /// killed its blocks meanwhile is not in the dump, so all records are met again.
    private func knowsAllOldLives(_ recovery: Recovery, _ table: [CheckpointSegment]) -> Bool {
        let rows = Dictionary(table.map { ($0.segment, $0) }, uniquingKeysWith: { $1 })
        return recovery.found.allSatisfy {
            segments[$0].generation == 0
                || rows[$0]?.knows(life: segments[$0].generation) ?? false
        }
    }

    private func readChunks(_ recovery: Recovery) -> Bool {
        guard var load = recovery.checkpoint, let pool = recovery.pool,
            let end = load.candidates[load.chosen].end, !load.table.isEmpty
        else { return false }
        if load.failed {
            if recovery.pendingIO == 0 { dropCheckpoint(recovery) }
            return true
        }
        if load.doneChunks >= end.chunkCount {
            if load.entries != end.entryCount {
                dropCheckpoint(recovery)
                return true
            }
            statistics.recovery.checkpointEntries = UInt64(index.count)
            startReplay(recovery)
            return true
        }
        let header = load.candidates[load.chosen].header
        let base = CheckpointHeader.dataOffset(segments: Int(header?.segmentCount ?? 0))
        var progressed = false
        for number in load.reading.indices
        where load.reading[number] == nil && load.nextChunk < end.chunkCount {
            load.reading[number] = load.nextChunk
            recovery.pendingIO += 1
            issue(
                IORequest(
                    tag: Self.tag(.recovery, Int32(number)), operation: .read,
                    file: load.candidates[load.chosen].file,
                    fileOffset: base + UInt64(load.nextChunk)
                        * UInt64(CheckpointChunk.chunkBytes),
                    piece: pool.piece(Int32(number), length: CheckpointChunk.chunkBytes)),
                on: load.candidates[load.chosen].device)
            load.nextChunk += 1
            progressed = true
        }
        recovery.checkpoint = load
        return progressed
    }

    private func takeChunk(_ recovery: Recovery, _ buffer: Int, _ chunk: UInt32) -> Bool {
        guard let load = recovery.checkpoint, let pool = recovery.pool,
            let header = load.candidates[load.chosen].header
        else { return false }
        let memory = UnsafeRawBufferPointer(
            start: pool.pointer(Int32(buffer)), count: CheckpointChunk.chunkBytes)
        guard
            let count = try? CheckpointChunk.open(
                memory, secret: manifest.secret, store: manifest.store,
                sequence: header.sequence, index: chunk),
            let base = memory.baseAddress
        else { return false }
        for number in 0..<Int(count) {
            let record =
                base + CheckpointChunk.payloadOffset + number * BlockIndex.recordBytes
            guard let (fingerprint, entry) = BlockIndex.decode(record: record),
                load.table[entry.place.segment] != nil,
                entry.place.page > 0,
                UInt64(entry.place.page) + UInt64(accountedPages(entry)) < UInt64(segmentPages),
                namespaces.isLive(entry.namespaceSlot),
                versionOnLoad(entry, header) > namespaces.createdVersion(entry.namespaceSlot),
                index.find(fingerprint) != entry
            else { continue }
            let state = segments.pointer(entry.place.segment)
            state.pointee.dumpedPages = max(
                state.pointee.dumpedPages, entry.place.page + accountedPages(entry))
            if !publish(fingerprint, entry) { statistics.recovery.indexOverflow += 1 }
        }
        recovery.checkpoint?.entries += UInt64(count)
        return true
    }

    /// The whole version of an entry of the dump. `base`, its segment's lowest version, is from
    /// before the dump: an old block may have been moved there since, and its record may be lost.
    /// One that is lower is the segment's lowest from here on. Where the segment had none when the
    /// dump began, the store's next one at that time, `began`, is as near.
    package static func versionOnLoad(
        low: UInt32, base: inout UInt64, began: UInt64
    ) -> UInt64 {
        let version = versionAround(low: low, base: base == UInt64.max ? began : base)
        base = min(base, version)
        return version
    }

    private func versionOnLoad(_ entry: IndexEntry, _ header: CheckpointHeader) -> UInt64 {
        Self.versionOnLoad(
            low: entry.versionLow,
            base: &segments.pointer(entry.place.segment).pointee.minVersion,
            began: header.beganVersion)
    }

    /// The version with these low bits that a segment which has `base` may have, above or below it:
    /// one that seems to be further above than a segment spans is of the round before.
    package static func versionAround(low: UInt32, base: UInt64) -> UInt64 {
        let version = fullVersion(low: low, base: base)
        guard base != UInt64.max, version - base >= versionSpan, version >= 1 << 32 else {
            return version
        }
        return version - (1 << 32)
    }

    /// A checkpoint that cannot be trusted as a whole is not used at all.
    private func dropCheckpoint(_ recovery: Recovery) {
        statistics.recovery.damagedCheckpoints += 1
        recovery.checkpoint?.memory?.deallocate()
        recovery.checkpoint = nil
        recovery.covered = []
        recovery.settledPages = [:]
        _ = index.sweep(from: 0, buckets: index.bucketCount) { _, entry in
            sweptOut(entry)
            return true
        }
        startReplay(recovery)
    }
}
