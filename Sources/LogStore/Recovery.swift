// Recovery: finds out which blocks the store has, while reads of what is found so far are served.
// Headers and trailers first; then the newest whole checkpoint; then, for every segment that the
// checkpoint does not cover (open at its beginning, or in another life since), the footer, or where
// there is none the groups one by one. Of two records of a key the higher version wins; tombstones
// and supersedes kill what is below them, in whatever order they are met.
//
// A value that would replace an older one without a supersede record beside it may never have been
// flushed: such contested keys are read and checked before the older copy is given up.

import BlockIO
import Glibc
import SegmentFormat
import Synchronization

enum RecoveryPhase: UInt8 {
    case headers
    case checkpoint
    case replay
    case contested
    case sealing
}

/// One segment being replayed.
struct ReplayWorker {
    var busy = false
    var segment: UInt32 = 0
    var scan: SegmentScan?
    /// Next footer page.
    var page: UInt32 = 0
    var pages: UInt32 = 0
    var pendingIO = false
    var errno: Int32 = 0
    /// The footer of a segment that writing may go on in, and its memory.
    var footer: DescriptorPageWriter?
    var footerChunk: Int32 = -1
    /// Of the record that was met last, if its namespace is known.
    var namespaceSlot: UInt16 = 0
}

final class Recovery {
    static let workerCount = 4
    static let chunkBytes = 1 << 20

    let startedAt: UInt64
    var phaseStartedAt: UInt64
    var phase = RecoveryPhase.headers
    var started = false
    var pendingIO = 0
    let pool: MemoryPool?
    let headerMemory: UnsafeMutableRawPointer
    let headerBytes: Int
    /// Segments with a file, in the order of their place in `headerMemory`.
    var found: [UInt32] = []
    var headerErrors: [Int32] = []
    var queue: [UInt32] = []
    var workers = [ReplayWorker](repeating: ReplayWorker(), count: Recovery.workerCount)
    /// The highest version at which each key was killed.
    var dead: [Fingerprint: UInt64] = [:]
    var contested: [Fingerprint: ContestedKey] = [:]
    var contestedQueue: [Fingerprint] = []
    var contestedKey: Fingerprint?
    /// The value that has been read in vain once: what a read brings may be another's.
    var contestedAgain: Place?
    var contestedMemory: UnsafeMutableRawPointer?
    var contestedBytes = 0
    var checkpoint: CheckpointLoad?
    /// Every record that kills has been met: what the index has is not of a dead version.
    var recordsMet = false
    /// Segments still to be replayed that may hold such records.
    var recordSegments: Set<UInt32> = []
    /// Pages of each segment that the checkpoint speaks for: values before are in it, or dead.
    var settledPages: [UInt32: UInt32] = [:]
    /// Segments whose checkpoint entries hold and that need no replay.
    var covered: Set<UInt32> = []
    /// Unsealed segments with one header instead of two: a crash came between the writes.
    var halfHeaded: Set<UInt32> = []

    init(store: LogStore, startedAt: UInt64) {
        self.startedAt = startedAt
        phaseStartedAt = startedAt
        pool = try? MemoryPool(
            chunkBytes: Self.chunkBytes, chunkCount: Self.workerCount, driver: store.driver)
        var withFile: [UInt32] = []
        store.segments.forEach { id in
            if store.segments[id].file >= 0 { withFile.append(id) }
        }
        found = withFile
        headerBytes = max(1, found.count) * 2 * FormatConstants.pageBytes
        headerMemory = .allocate(byteCount: headerBytes, alignment: 4096)
        memset(headerMemory, 0, headerBytes)
        headerErrors = [Int32](repeating: 0, count: 2 * found.count)
    }

    deinit {
        headerMemory.deallocate()
        contestedMemory?.deallocate()
    }
}

extension LogStore {
    private static let pageBytes = FormatConstants.pageBytes

    /// Whether the index is complete.
    package var isRecovered: Bool { recovery == nil }

    func advanceRecovery() -> Bool {
        guard let recovery else { return false }
        switch recovery.phase {
        case .headers:
            if !recovery.started {
                recovery.started = true
                readHeaders(recovery)
                return true
            }
        case .checkpoint: return advanceCheckpointLoad(recovery)
        case .replay: return advanceReplay(recovery)
        case .contested: return advanceContested(recovery)
        case .sealing:
            finishRecovery(recovery)
            return true
        }
        return false
    }

    func recoveryCompleted(index: Int32, aux: UInt32, _ completion: IOCompletion) {
        guard let recovery else { return }
        let errno = completion.result < 0 ? Int32(truncatingIfNeeded: -completion.result) : 0
        if errno != 0 { statistics.readErrors += 1 }
        switch recovery.phase {
        case .headers:
            recovery.headerErrors[Int(aux)] = errno
            recovery.pendingIO -= 1
            if recovery.pendingIO == 0 { headersRead(recovery) }
        case .checkpoint: checkpointRead(recovery, index: index, aux: aux, errno)
        case .replay:
            recovery.workers[Int(index)].pendingIO = false
            recovery.workers[Int(index)].errno = errno
            if var scan = recovery.workers[Int(index)].scan {
                scan.arrived(errno: errno)
                recovery.workers[Int(index)].scan = scan
            }
        case .contested: contestedRead(recovery, errno)
        case .sealing: break
        }
    }

    // MARK: Headers and trailers

    private func readHeaders(_ recovery: Recovery) {
        recovery.pendingIO = 2 * recovery.found.count
        guard recovery.pendingIO > 0 else {
            headersRead(recovery)
            return
        }
        for (number, id) in recovery.found.enumerated() {
            for (which, page) in [UInt32(0), segmentPages - 1].enumerated() {
                let place = 2 * number + which
                let address =
                    UInt(bitPattern: recovery.headerMemory) + UInt(place * Self.pageBytes)
                issue(
                    IORequest(
                        tag: Self.tag(.recovery, 0, UInt32(place)), operation: .read,
                        file: file(id), fileOffset: Self.offset(page: page),
                        piece: Piece(
                            region: .process, offset: UInt64(address),
                            length: UInt64(Self.pageBytes))),
                    on: SegmentTable.device(id))
            }
        }
    }

    private func headersRead(_ recovery: Recovery) {
        for (number, id) in recovery.found.enumerated() {
            let memory = recovery.headerMemory + 2 * number * Self.pageBytes
            identify(
                recovery, id, UnsafeRawBufferPointer(start: memory, count: Self.pageBytes),
                UnsafeRawBufferPointer(start: memory + Self.pageBytes, count: Self.pageBytes),
                unread: recovery.headerErrors[2 * number] != 0
                    || recovery.headerErrors[2 * number + 1] != 0)
        }
        let now = clock.monotonic
        statistics.recovery.headersNanoseconds = now - recovery.phaseStartedAt
        recovery.phaseStartedAt = now
        recovery.phase = .checkpoint
        recovery.started = false
    }

    /// Which life a segment is in: its header says so, or the copy of it on the last page, which a
    /// trailer replaces when the segment is sealed.
    private func identify(
        _ recovery: Recovery, _ id: UInt32, _ first: UnsafeRawBufferPointer,
        _ last: UnsafeRawBufferPointer, unread: Bool
    ) {
        let state = segments.pointer(id)
        // Never written: its making was cut short by a crash.
        let blank = !unread && first.isZero && last.isZero
        let life = SegmentLife(
            first: first, last: last, secret: manifest.secret, store: manifest.store,
            segment: id, segmentPages: segmentPages)
        guard life.generation != 0 else {
            unusable(id, damaged: !blank)
            return
        }
        state.pointee.generation = life.generation
        nextGeneration = max(nextGeneration, life.generation)
        if life.header == nil || (life.copy == nil && life.trailer == nil) {
            if life.trailer == nil { recovery.halfHeaded.insert(id) }
            statistics.recovery.damagedPages += 1
        }
        state.pointee.lacksHeader = life.header == nil
        state.pointee.state = .sealed
        state.pointee.writtenPages = segmentPages
        state.pointee.metaPages = 1
        if let trailer = life.trailer, let footer = life.footer {
            state.pointee.footerFirstPage = footer.first
            state.pointee.footerPages = footer.pages
            state.pointee.minVersion = trailer.minVersion
            state.pointee.minValueVersion = trailer.minValueVersion
            state.pointee.maxVersion = trailer.maxVersion
            state.pointee.recordCount = trailer.recordCount
            state.pointee.metaPages = trailer.metaPages
            state.pointee.stream = trailer.stream
        }
    }

    /// No header verifies: nothing in the segment can be read; it is given a new life when needed.
    private func unusable(_ id: UInt32, damaged: Bool) {
        if damaged {
            statistics.recovery.damagedSegments += 1
            // What could not be read now may be readable at the next opening: until the segment has
            // a new life, no tombstone goes that may be needed against what lies in it.
            segments[id].minValueVersion = 0
            hidesValues = true
        }
        segments[id].generation = 0
        segments[id].state = .sealed
        segments[id].writtenPages = segmentPages
        segments[id].footerPages = 0
    }

    // MARK: Replay

    /// After the checkpoint: everything that it does not cover.
    func startReplay(_ recovery: Recovery) {
        let now = clock.monotonic
        statistics.recovery.checkpointNanoseconds = now - recovery.phaseStartedAt
        recovery.phaseStartedAt = now
        recovery.phase = .replay
        recovery.checkpoint = nil
        index.cancelScans()
        for id in recovery.found
        where !recovery.covered.contains(id) && segments[id].generation != 0 {
            recovery.queue.append(id)
        }
        // Segments that may hold tombstones first, so that reads can be served soon; then oldest
        // first, so that most records are met in the order of their versions.
        recovery.recordSegments = Set(recovery.queue.filter { mayHoldRecords($0) })
        recovery.queue.sort {
            let (first, second) = (
                recovery.recordSegments.contains($0), recovery.recordSegments.contains($1)
            )
            if first != second { return second }
            return segments[$0].generation > segments[$1].generation
        }
        if recovery.recordSegments.isEmpty { recordsAreMet(recovery) }
    }

    /// Records lie in segments of their own; of one without a trailer nobody knows.
    private func mayHoldRecords(_ segment: UInt32) -> Bool {
        segments[segment].footerPages == 0 || segments[segment].minValueVersion == UInt64.max
    }

    private func recordsAreMet(_ recovery: Recovery) {
        recovery.recordsMet = true
        index.storeWord(Self.readableWord).pointee.store(1, ordering: .releasing)
    }

    /// The store word that is 1 once entries may be believed by readers without the owner.
    package static let readableWord = 0

    private func workerEnded(_ recovery: Recovery, _ number: Int) {
        recovery.workers[number].busy = false
        if recovery.recordSegments.remove(recovery.workers[number].segment) != nil,
            recovery.recordSegments.isEmpty
        {
            recordsAreMet(recovery)
        }
    }

    private func advanceReplay(_ recovery: Recovery) -> Bool {
        guard let pool = recovery.pool else {
            preconditionFailure("recovery has its memory since open")
        }
        var progressed = false
        var busy = false
        for number in recovery.workers.indices {
            if !recovery.workers[number].busy, let next = recovery.queue.popLast() {
                startWorker(recovery, number, next)
                progressed = true
            }
            if recovery.workers[number].busy, !recovery.workers[number].pendingIO {
                step(recovery, number, pool)
                progressed = true
            }
            if recovery.workers[number].busy { busy = true }
        }
        if !busy && recovery.queue.isEmpty {
            startContested(recovery)
            return true
        }
        return progressed
    }

    private func startWorker(_ recovery: Recovery, _ number: Int, _ segment: UInt32) {
        var worker = ReplayWorker()
        worker.busy = true
        worker.segment = segment
        worker.page = segments[segment].footerFirstPage
        if segments[segment].footerPages == 0 {
            worker.scan = SegmentScan(segment: segment, endPage: segmentPages)
            statistics.recovery.scannedSegments += 1
            // Open at the crash, by the look of it: its footer is made again on the way. Some
            // footer memory is kept back for new segments.
            if footerPool.freeCount > footerPool.chunkCount / 2, !readOnly {
                worker.footerChunk = footerPool.take()
                worker.footer = DescriptorPageWriter(
                    memory: footerPool.pointer(worker.footerChunk),
                    pages: WriteStream.footerPages(segmentPages, records: true))
            }
        } else {
            statistics.recovery.footerSegments += 1
        }
        recovery.workers[number] = worker
    }

    private func step(_ recovery: Recovery, _ number: Int, _ pool: MemoryPool) {
        if recovery.workers[number].scan != nil {
            stepScan(recovery, number, pool)
        } else {
            stepFooter(recovery, number, pool)
        }
    }

    private func stepFooter(_ recovery: Recovery, _ number: Int, _ pool: MemoryPool) {
        let segment = recovery.workers[number].segment
        let end = segments[segment].footerFirstPage + segments[segment].footerPages
        if recovery.workers[number].pages > 0 {
            guard readFooterPages(recovery, number, pool) else {
                // A damaged footer page costs nothing while the groups themselves can be read.
                statistics.recovery.damagedPages += 1
                segments[segment].footerPages = 0
                recovery.workers[number].pages = 0
                recovery.workers[number].scan = SegmentScan(
                    segment: segment, endPage: segments[segment].footerFirstPage)
                statistics.recovery.scannedSegments += 1
                return
            }
            recovery.workers[number].page += recovery.workers[number].pages
            recovery.workers[number].pages = 0
        }
        guard recovery.workers[number].page < end else {
            workerEnded(recovery, number)
            return
        }
        let count = min(
            end - recovery.workers[number].page, UInt32(Recovery.chunkBytes / Self.pageBytes))
        recovery.workers[number].pages = count
        recovery.workers[number].pendingIO = true
        issue(
            IORequest(
                tag: Self.tag(.recovery, Int32(number)), operation: .read, file: file(segment),
                fileOffset: Self.offset(page: recovery.workers[number].page),
                piece: pool.piece(Int32(number), length: Int(count) * Self.pageBytes)),
            on: SegmentTable.device(segment))
    }

    private func readFooterPages(
        _ recovery: Recovery, _ number: Int, _ pool: MemoryPool
    ) -> Bool {
        let worker = recovery.workers[number]
        guard worker.errno == 0 else { return false }
        let memory = pool.pointer(Int32(number))
        let context = context(worker.segment)
        for page in 0..<Int(worker.pages) {
            let bytes = UnsafeRawBufferPointer(
                start: memory + page * Self.pageBytes, count: Self.pageBytes)
            guard
                var reader = try? DescriptorPageReader(
                    page: bytes, context: context, pageNumber: worker.page + UInt32(page))
            else { return false }
            while let view = reader.next() { replay(recovery, worker.segment, view) }
        }
        return true
    }

    private func stepScan(_ recovery: Recovery, _ number: Int, _ pool: MemoryPool) {
        guard var scan = recovery.workers[number].scan else { return }
        let segment = scan.segment
        let finished = scan.advance(
            memory: pool.pointer(Int32(number)), capacity: Recovery.chunkBytes,
            context: context(segment)
        ) { view, header in
            replay(recovery, segment, view)
            noteForFooter(recovery, number, view)
            if let slot = namespaces.slot(instance: view.descriptor.namespaceInstance) {
                recovery.workers[number].namespaceSlot = slot
            }
            segments[segment].stream = header.stream
            return true
        }
        recovery.workers[number].scan = scan
        if finished {
            scanned(recovery, scan)
            goOnWriting(recovery, number, scan)
            workerEnded(recovery, number)
            return
        }
        guard let wanted = scan.wanted else { return }
        recovery.workers[number].pendingIO = true
        issue(
            IORequest(
                tag: Self.tag(.recovery, Int32(number)), operation: .read, file: file(segment),
                fileOffset: Self.offset(page: wanted.first),
                piece: pool.piece(Int32(number), length: Int(wanted.count) * Self.pageBytes)),
            on: SegmentTable.device(segment))
    }

    /// A segment without a footer has been gone through. One in which nothing was found, and
    /// nothing was damaged, is clean: its header is durable and nothing was written under it.
    private func scanned(_ recovery: Recovery, _ scan: SegmentScan) {
        let state = segments.pointer(scan.segment)
        statistics.recovery.damagedPages += UInt64(scan.damagedPages + scan.rottenPages)
        if writtenEnd(recovery, scan) == 1 && scan.damagedPages == 0
            && state.pointee.recordCount == 0
        {
            // What is written under one header alone goes with it: like a segment of which none
            // can be read, this one gets a new life first.
            if recovery.halfHeaded.contains(scan.segment) || condemned.contains(scan.segment) {
                state.pointee.generation = 0
                // That header may go at a crash, and then the life before comes back.
                state.pointee.formerValueVersion = 0
                hidesValues = true
                return
            }
            state.pointee.state = .clean
            state.pointee.writtenPages = 0
        }
    }

    /// First page behind everything that may hold a block: a group whose descriptors are damaged,
    /// or were read from elsewhere, may still be known to the checkpoint, by what had been written
    /// when it began or by what it came to tell of until it ended.
    private func writtenEnd(_ recovery: Recovery, _ scan: SegmentScan) -> UInt32 {
        max(
            scan.groupsEnd, recovery.settledPages[scan.segment] ?? 1,
            segments[scan.segment].dumpedPages)
    }

    private func noteForFooter(_ recovery: Recovery, _ number: Int, _ view: RecordView) {
        guard recovery.workers[number].footer != nil else { return }
        let noted = recovery.workers[number].footer?.append(
            view.descriptor, key: view.key, parent: view.parent)
        if noted != true { recovery.workers[number].footer = nil }
    }

    /// A segment that was open, and of which nothing was unreadable, is written on behind the last
    /// group found: a crash costs no space. One of each stream; the others stay as they are. So
    /// does one of which the checkpoint knows more than was found: its footer would hide, for good,
    /// a group that is only read wrong now.
    private func goOnWriting(_ recovery: Recovery, _ number: Int, _ scan: SegmentScan) {
        let worker = recovery.workers[number]
        let state = segments.pointer(scan.segment)
        let device = SegmentTable.device(scan.segment)
        let kind = StreamKind(rawValue: state.pointee.stream)
        let place = kind.map { streamNumber($0, worker.namespaceSlot) }
        let taken = streams.contains {
            $0.kind == kind && $0.number == place && $0.segment != nil
                && ($0.device == device || $0.isRecords)
        }
        guard let footer = worker.footer, footer.recordCount > 0, scan.damagedPages == 0,
            !condemned.contains(scan.segment),
            state.pointee.state == .sealed, devices[device].takesWrites,
            writtenEnd(recovery, scan) == scan.groupsEnd,
            // Room for the footer, or it stays as it is.
            Int(scan.groupsEnd) + footer.pageCount + 2 < Int(segmentPages),
            let kind, let place, !taken
        else {
            recovery.workers[number].footerChunk.withChunk { giveFooter($0) }
            return
        }
        let stream = streamIndex(kind, device: device, number: place)
        streams[stream].segment = scan.segment
        streams[stream].nextPage = scan.groupsEnd
        streams[stream].footer = footer
        streams[stream].footerChunk = worker.footerChunk
        state.pointee.state = .open
        state.pointee.stream = kind.rawValue
        state.pointee.writtenPages = scan.groupsEnd
    }

    /// One record, met in any order.
    private func replay(_ recovery: Recovery, _ segment: UInt32, _ view: RecordView) {
        statistics.recovery.records += 1
        let found = view.descriptor
        let state = segments.pointer(segment)
        state.pointee.minVersion = min(state.pointee.minVersion, found.version)
        state.pointee.maxVersion = max(state.pointee.maxVersion, found.version)
        // The trailer tells it where there is one.
        if state.pointee.footerPages == 0 { state.pointee.recordCount += 1 }
        nextVersion = max(nextVersion, found.version)
        guard let slot = namespaces.slot(instance: found.namespaceInstance) else { return }
        let fingerprint = fingerprint(instance: found.namespaceInstance, view.key)
        if found.flags.contains(.tombstone) || found.flags.contains(.supersede) {
            kill(recovery, fingerprint, below: found.version)
            return
        }
        state.pointee.minValueVersion = min(state.pointee.minValueVersion, found.version)
        if let settled = recovery.settledPages[segment], found.page < settled { return }
        if let version = recovery.dead[fingerprint], found.version < version { return }
        guard let entry = entry(of: found, segment, slot) else { return }
        settle(recovery, fingerprint, entry, found.version, view.key)
    }

    /// What a descriptor says, if it can be true.
    private func entry(
        of found: Descriptor, _ segment: UInt32, _ slot: UInt16
    ) -> IndexEntry? {
        guard found.length > 0, UInt64(found.length) <= manifest.maxBlockBytes,
            UInt64(found.page) + UInt64(found.storedPages) < UInt64(segmentPages)
        else { return nil }
        return IndexEntry(
            place: Place(segment: segment, page: found.page), length: found.length,
            shardCount: Int(found.shardCount) + 1, namespaceSlot: slot,
            versionLow: UInt32(truncatingIfNeeded: found.version), checksum: found.checksum,
            expiry: found.expiry, flags: 0)
    }

    private func kill(_ recovery: Recovery, _ fingerprint: Fingerprint, below version: UInt64) {
        recovery.dead[fingerprint] = max(recovery.dead[fingerprint] ?? 0, version)
        if let entry = index.find(fingerprint), fullVersion(entry) < version {
            unpublish(fingerprint)
        }
        killContested(recovery, fingerprint, below: version)
    }

    private func settle(
        _ recovery: Recovery, _ fingerprint: Fingerprint, _ entry: IndexEntry,
        _ version: UInt64, _ key: UnsafeRawBufferPointer
    ) {
        if recovery.contested[fingerprint] == nil {
            guard let present = index.find(fingerprint) else {
                place(fingerprint, entry)
                return
            }
            if present.place == entry.place { return }
            let value = contestedValue(present, fullVersion(present))
            recovery.contested[fingerprint] = ContestedKey(values: [value], key: Array(key))
        }
        contest(recovery, fingerprint, contestedValue(entry, version))
    }

    func place(_ fingerprint: Fingerprint, _ entry: IndexEntry) {
        if !publish(fingerprint, entry) { statistics.recovery.damagedPages += 1 }
    }

    // MARK: The end

    private func finishRecovery(_ recovery: Recovery) {
        statistics.recovery.totalNanoseconds = clock.monotonic - recovery.startedAt
        for id in recovery.found {
            let state = segments.pointer(id)
            if state.pointee.generation == 0 { state.pointee.recordCount = 0 }
            if state.pointee.state == .clean {
                reclaimers[SegmentTable.device(id)].clean.append(id)
            }
            flushFound(id, isCovered: recovery.covered.contains(id))
        }
        // The oldest generation goes first: a clean segment that is passed over now would be the
        // oldest when it has been written.
        for device in reclaimers.indices {
            reclaimers[device].clean.sort { segments[$0].generation < segments[$1].generation }
        }
        if !flush.isFirst {
            flush.durableVersion = nextVersion
            forgetContested()
        }
        self.recovery = nil
        if configuration.openMode == .strict { judgeDamage() }
        prepareCheckpoints()
        resumeWaitingToStart()
    }

    /// What was found has outlived a process, but perhaps not yet the machine: only what a dump
    /// calls sealed is known to be flushed. The rest counts when it has been.
    private func flushFound(_ id: UInt32, isCovered: Bool) {
        let state = segments.pointer(id)
        guard !isCovered, state.pointee.generation != 0, !readOnly else {
            state.pointee.flushedPages = state.pointee.state == .clean ? 0 : segmentPages
            return
        }
        state.pointee.flushedPages = 0
        // Nor is it known that the header has taken the place of the life before.
        if state.pointee.state == .clean { state.pointee.formerValueVersion = 0 }
        markDirty(id)
        flush.isWanted = true
        flush.isFirst = true
    }

    /// `strict`: a store with damage is refused. What a crash tore counts as damage too: such a
    /// store is opened `quiet` once.
    private func judgeDamage() {
        let found = statistics.recovery
        var words: [String] = []
        if found.damagedSegments > 0 { words.append("\(found.damagedSegments) segment headers") }
        if found.damagedPages > 0 { words.append("\(found.damagedPages) pages of descriptors") }
        if found.damagedCheckpoints > 0 { words.append("\(found.damagedCheckpoints) checkpoints") }
        if found.contestedLost > 0 { words.append("\(found.contestedLost) replaced values") }
        guard !words.isEmpty else {
            manifestState.dirty = !readOnly
            return
        }
        readOnly = true
        recoveryFailure = StoreError(
            .damaged, operation: "open", subject: words.joined(separator: ", "),
            advice: "Open with mode quiet to skip what is damaged, or restore the files.")
    }
}

extension UnsafeRawBufferPointer {
    package var isZero: Bool { allSatisfy { $0 == 0 } }
}
