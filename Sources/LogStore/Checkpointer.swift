// Checkpointer: dumps the index to one of two files, in turn, while the store is busy. The dump is
// fuzzy: its header says in which life each segment was, and how far it was written, before the
// first entry was copied. At open an entry holds if its segment is still in that life; segments
// open then, or begun since, are replayed, so that whatever happened during or after the dump is
// met again in the log.
//
// The file: header page, segment table, chunks of entries, and last the end page at its own fixed
// place, written after everything else is flushed, the segments that the dump speaks of included:
// only a dump with a matching end counts.

import BlockIO
import Glibc
import SegmentFormat

enum CheckpointPhase: UInt8 {
    case idle
    case header
    case chunks
    /// Waits for a flush of what the dump tells of.
    case settling
    case flushing
    case end
    case endFlush
}

struct Checkpointer {
    var phase = CheckpointPhase.idle
    var sequence: UInt64 = 0
    var bucket = 0
    var chunk: UInt32 = 0
    var entries: UInt64 = 0
    var pendingIO = 0
    /// Where the dump is written, and the requests under way of each chunk in memory.
    var device = 0
    var chunkRequests = [Int32](repeating: 0, count: Checkpointer.chunksInFlight + 1)
    var failed = false
    /// Which attempt it is, in the tags of its requests.
    var attempt: UInt32 = 0
    var offset: UInt64 = 0
    /// Bytes written by the store when the last one began.
    var lastWritten: UInt64 = 0
    /// A caller that waits for the one under way (or the next) to end.
    var waiting: [UInt64] = []
    var requested = false
    /// The flush after which what the dump tells of is durable.
    var flushNumber: UInt64 = 0
    /// Made anew for each header, in room that stays.
    var table: [CheckpointSegment] = []

    static let chunksInFlight = 4

    /// Bytes of one checkpoint file when every entry is taken.
    static func fileBytes(entries: Int, segments: Int) -> UInt64 {
        let perChunk = CheckpointChunk.entriesPerChunk
        let chunks = UInt64((entries + perChunk - 1) / perChunk + 2)
        return CheckpointHeader.dataOffset(segments: segments)
            + chunks * UInt64(CheckpointChunk.chunkBytes)
    }
}

extension LogStore {
    private static let pageBytes = FormatConstants.pageBytes

    /// Asks for a checkpoint now; outcome `.done` or `.failed`.
    package func checkpoint(token: UInt64) {
        checkpointer.waiting.append(token)
        checkpointer.requested = true
    }

    /// Bytes of a dump of what is in the index.
    private var dumpBytes: UInt64 {
        Checkpointer.fileBytes(entries: index.count, segments: totalSegments)
    }

    var totalSegments: Int { segments.counts.reduce(0, +) }

    func advanceCheckpoint() {
        switch checkpointer.phase {
        case .idle:
            let written = statistics.groupBytes + statistics.metadataBytes
            let since = written - checkpointer.lastWritten
            let due =
                since >= configuration.checkpointMinimumBytes
                && since >= UInt64(configuration.checkpointShare) * dumpBytes
            if readOnly {
                if checkpointer.requested { answerCheckpoint(.readOnly) }
            } else if checkpointer.requested || due {
                startCheckpoint()
            }
        case .chunks: writeChunks()
        case .settling: settleCheckpoint()
        default: break
        }
    }

    /// The device that keeps the checkpoints: the first that takes writes.
    private var checkpointDevice: Int? {
        devices.firstIndex { device in
            // Of one that was given up, writes may still come to the file.
            device.takesWrites && !orphanedCheckpoints.contains { $0.device == device.index }
        }
    }

    private func checkpointFile(_ device: Int, _ sequence: UInt64) -> FileID? {
        let number = Int(sequence % 2)
        let known =
            number == 0 ? devices[device].checkpointFiles.0 : devices[device].checkpointFiles.1
        if known != .none { return known }
        guard
            let file = try? driver.open(
                devices[device].directory, StoreFiles.checkpoint(number), .create)
        else { return nil }
        if number == 0 {
            devices[device].checkpointFiles.0 = file
        } else {
            devices[device].checkpointFiles.1 = file
        }
        return file
    }

    /// Opens both files and makes the memory, so that no checkpoint allocates. What fails here is
    /// tried again when a checkpoint needs it.
    func prepareCheckpoints() {
        guard !readOnly, let device = checkpointDevice else { return }
        for sequence: UInt64 in 0..<2 { _ = checkpointFile(device, sequence) }
        _ = makeCheckpointMemory()
    }

    private func makeCheckpointMemory() -> Bool {
        if checkpointPool == nil {
            checkpointPool = try? MemoryPool(
                chunkBytes: CheckpointChunk.chunkBytes,
                chunkCount: Checkpointer.chunksInFlight + 1, driver: driver)
        }
        if checkpointHeaderMemory == nil {
            checkpointHeaderMemory = .allocate(byteCount: headerBytes, alignment: 4096)
            checkpointer.table.reserveCapacity(totalSegments)
        }
        return checkpointPool != nil
    }

    /// Bytes of the header with its segment table: segments are laid out at open.
    private var headerBytes: Int { Int(CheckpointHeader.dataOffset(segments: totalSegments)) }

    private func startCheckpoint() {
        checkpointer.requested = false
        guard let device = checkpointDevice,
            let file = checkpointFile(device, checkpointer.sequence + 1), makeCheckpointMemory()
        else {
            endCheckpoint(failed: true)
            return
        }
        checkpointer.sequence += 1
        checkpointer.device = device
        checkpointer.attempt = (checkpointer.attempt + 1) & 0xFFFF
        checkpointer.bucket = 0
        checkpointer.chunk = 0
        checkpointer.entries = 0
        checkpointer.failed = false
        checkpointer.lastWritten = statistics.groupBytes + statistics.metadataBytes
        checkpointer.phase = .header
        checkpointer.device = device
        checkpointFileInUse = file
        writeCheckpointHeader(file)
    }

    private func writeCheckpointHeader(_ file: FileID) {
        guard let memory = checkpointHeaderMemory else { return }
        var header = CheckpointHeader()
        header.store = manifest.store
        header.sequence = checkpointer.sequence
        header.beganVersion = nextVersion
        header.beganWall = wallSeconds
        header.segmentCount = UInt32(totalSegments)
        if configuration.scrubBytesPerSecond > 0 { header.scrubbed = scrub.segment + 1 }
        let bytes = headerBytes
        checkpointer.offset = UInt64(bytes)
        memset(memory, 0, bytes)
        checkpointer.table.removeAll(keepingCapacity: true)
        segments.forEach { id in
            let state = segments.pointer(id)
            var entry = CheckpointSegment()
            entry.segment = id
            entry.generation = state.pointee.generation
            entry.state = state.pointee.state.rawValue
            entry.writtenPages = settledPages(id)
            entry.livePages = state.pointee.livePages
            entry.minVersion = state.pointee.minVersion
            entry.maxVersion = state.pointee.maxVersion
            entry.minValueVersion = state.pointee.minValueVersion
            entry.metaPages = state.pointee.metaPages
            // A sealed segment whose groups or footer are still being written is replayed.
            // What is still being written or flushed is replayed: its effects on the index (a
            // deletion, a replacement) may come after the dump has passed.
            if state.pointee.groupsInFlight > 0 || state.pointee.needsFlush || flushCovers(id)
                || entry.writtenPages < state.pointee.writtenPages
            {
                entry.state = SegmentState.open.rawValue
            }
            checkpointer.table.append(entry)
        }
        header.encode(
            into: UnsafeMutableRawBufferPointer(start: memory, count: bytes),
            segments: checkpointer.table, secret: manifest.secret)
        // The old dump stops counting before its file is written over: the end page goes first.
        memset(memory + CheckpointHeader.endOffset, 0, Self.pageBytes)
        checkpointer.pendingIO = 1
        statistics.checkpointBytes += UInt64(bytes)
        issue(
            IORequest(
                tag: checkpointTag(), operation: .write, file: file, fileOffset: 0,
                piece: Piece(
                    region: .process, offset: UInt64(UInt(bitPattern: memory)),
                    length: UInt64(bytes))),
            on: checkpointer.device)
    }

    /// Pages of a segment whose blocks, if they are alive, are in the index: what lies behind is
    /// met again by the replay. A replace waits for its flush before it is published.
    private func settledPages(_ segment: UInt32) -> UInt32 {
        var pages = completedPages(segment)
        for index in 0..<operations.capacity {
            let slot = operations.slots + index
            if slot.pointee.kind == .append, slot.pointee.phase == .waitingForValueFlush,
                !slot.pointee.raising, slot.pointee.segment == segment
            {
                pages = min(pages, slot.pointee.page)
            }
        }
        return pages
    }

    private func writeChunks() {
        guard let pool = checkpointPool, let file = checkpointFileInUse else { return }
        while checkpointer.bucket < index.bucketCount, pool.freeCount > 1 {
            let number = pool.take()
            let memory = pool.pointer(number)
            let room = UnsafeMutableRawBufferPointer(
                start: memory + CheckpointChunk.payloadOffset,
                count: CheckpointChunk.entriesPerChunk * BlockIndex.recordBytes)
            let count = index.copyEntries(from: &checkpointer.bucket, into: room)
            if count == 0 {
                pool.give(number)
                continue
            }
            CheckpointChunk.seal(
                UnsafeMutableRawBufferPointer(start: memory, count: CheckpointChunk.chunkBytes),
                secret: manifest.secret, store: manifest.store, sequence: checkpointer.sequence,
                index: checkpointer.chunk, entries: UInt32(count))
            checkpointer.chunk += 1
            checkpointer.entries += UInt64(count)
            statistics.checkpointBytes += UInt64(CheckpointChunk.chunkBytes)
            let requests = issueLater(
                IORequest(
                    tag: checkpointTag(chunk: number), operation: .write,
                    file: file, fileOffset: checkpointer.offset,
                    piece: pool.piece(number, length: CheckpointChunk.chunkBytes)),
                checkpointer.device)
            checkpointer.chunkRequests[Int(number)] = requests
            checkpointer.pendingIO += Int(requests)
            checkpointer.offset += UInt64(CheckpointChunk.chunkBytes)
        }
        if checkpointer.bucket >= index.bucketCount && checkpointer.pendingIO == 0 {
            checkpointer.phase = .settling
            checkpointer.flushNumber = flush.begun + 1
            flush.isWanted = true
        }
    }

    /// The dump tells where blocks were moved to before that is flushed, and a crash could take the
    /// copies: so it counts only after a flush of everything that it tells of. Where moved blocks
    /// could not be flushed it does not count at all, and the one before it knows their old places.
    private func settleCheckpoint() {
        guard flush.begun >= checkpointer.flushNumber, !flush.isRunning, flush.late.isEmpty else {
            return
        }
        if flush.lastBesideLate >= checkpointer.flushNumber {  // it may not have covered all
            checkpointer.flushNumber = flush.begun + 1
            flush.isWanted = true
            return
        }
        var isLost = flush.lastFailed >= checkpointer.flushNumber
        segments.forEach { id in
            if segments[id].holdsLostMoves && segments[id].liveBlocks > 0 { isLost = true }
        }
        if isLost {
            endCheckpoint(failed: true)
        } else {
            syncCheckpoint(.flushing)
        }
    }

    private func syncCheckpoint(_ phase: CheckpointPhase) {
        guard let file = checkpointFileInUse else { return }
        checkpointer.phase = phase
        checkpointer.pendingIO = 1
        issue(
            IORequest(
                tag: checkpointTag(), operation: .sync, file: file, fileOffset: 0,
                piece: Piece(region: .process, offset: 0, length: 0)),
            on: checkpointer.device)
    }

    /// The tag's low half: the attempt, and the number of a chunk plus one, or 0.
    private func checkpointTag(chunk: Int32 = -1) -> UInt64 {
        Self.tag(.checkpoint, 0, checkpointer.attempt << 16 | UInt32(chunk + 1))
    }

    func checkpointCompleted(_ aux: UInt32, _ completion: IOCompletion) {
        guard aux >> 16 == checkpointer.attempt, checkpointer.pendingIO > 0 else {
            orphanEnded(aux >> 16, isPaced: aux & 0xFFFF > 0)
            return
        }
        let chunk = Int32(aux & 0xFFFF) - 1
        checkpointer.pendingIO -= 1
        if completion.result < 0 { checkpointer.failed = true }
        if chunk >= 0 {
            pacedEnded(checkpointer.device)
            checkpointer.chunkRequests[Int(chunk)] -= 1
            if checkpointer.chunkRequests[Int(chunk)] == 0 { checkpointPool?.give(chunk) }
        }
        guard checkpointer.pendingIO == 0 else { return }
        if checkpointer.failed {
            endCheckpoint(failed: true)
            return
        }
        switch checkpointer.phase {
        case .header: checkpointer.phase = .chunks
        case .flushing: writeCheckpointEnd()
        case .end: syncCheckpoint(.endFlush)
        case .endFlush: endCheckpoint(failed: false)
        case .idle, .chunks, .settling: break
        }
    }

    private func writeCheckpointEnd() {
        guard let file = checkpointFileInUse, let memory = checkpointHeaderMemory else { return }
        var end = CheckpointEnd()
        end.sequence = checkpointer.sequence
        end.chunkCount = checkpointer.chunk
        end.entryCount = checkpointer.entries
        end.encode(
            into: UnsafeMutableRawBufferPointer(start: memory, count: Self.pageBytes),
            secret: manifest.secret, store: manifest.store)
        checkpointer.phase = .end
        checkpointer.pendingIO = 1
        statistics.checkpointBytes += UInt64(Self.pageBytes)
        issue(
            IORequest(
                tag: checkpointTag(), operation: .write, file: file,
                fileOffset: UInt64(CheckpointHeader.endOffset),
                piece: Piece(
                    region: .process, offset: UInt64(UInt(bitPattern: memory)),
                    length: UInt64(Self.pageBytes))),
            on: checkpointer.device)
    }

    func endCheckpoint(failed: Bool) {
        checkpointer.phase = .idle
        if failed && sweepOwner == nil { index.cancelScans() }
        checkpointFileInUse = nil
        if failed { statistics.checkpointErrors += 1 } else { statistics.checkpoints += 1 }
        answerCheckpoint(failed ? .failed : .done)
    }

    /// Tells those who asked for a dump. Who asked while one was made is answered with it.
    private func answerCheckpoint(_ status: Status) {
        if status == .readOnly { checkpointer.requested = false }
        let waiting = checkpointer.waiting
        checkpointer.waiting = []
        for token in waiting { delegate?.finished(Outcome(token: token, status: status)) }
    }
}
