// Reclaimer: one device's supply of clean segments. While some are within capacity but not made
// yet, it makes them; after that, in cache mode, it empties the oldest sealed segment (plain first
// in, first out), in store mode one that holds nothing alive. A segment becomes clean in this
// order: entries leave the index; pinned blocks and the tombstones still needed are written
// elsewhere and flushed; readers end; a header with a new generation is written and flushed.

import BlockIO
import SegmentFormat

enum ReclaimPhase: UInt8 {
    case idle
    case allocating
    case syncingDirectory
    /// Reading the victim's footer, and going through its records.
    case reading
    case recordsReady
    /// The footer cannot be read (or there is none): going through the groups instead.
    case scanning
    case sweeping
    /// Waits for what was carried on to be flushed, for readers and for a generation.
    case settling
    case writingHeader
    case syncing
}

struct Reclaimer {
    let device: Int
    var phase = ReclaimPhase.idle
    var segment: UInt32 = 0
    /// Ready segments, oldest first.
    var clean: [UInt32] = []
    /// Next local number to be made.
    var nextLocal = 0
    /// Operations that carry something out of the victim.
    var pending = 0
    /// Next footer page to read, and the record to go on with in the pages read.
    var nextPage: UInt32 = 0
    var pagesRead = 0
    var currentPage = 0
    var currentRecord = 0
    var sweepBucket = 0
    var scan: SegmentScan?
    /// Value versions below this still lie in some other segment.
    var oldestValue: UInt64 = 0
    var chunk: Int32 = -1
    /// Something could not be carried on: the victim is left as it is.
    var failed = false
    /// Monotonic time before which a victim that could not be emptied is not tried again.
    var retryAt: UInt64 = 0
    /// Nothing has come clean since a victim had to be left: writers are refused, not kept waiting.
    var isStuck = false
    /// Header writes (first page and its copy on the last) under way.
    var headerWrites = 0

    init(device: Int) {
        self.device = device
        clean.reserveCapacity(64)
    }
}

extension LogStore {
    /// Footer pages read at a time.
    static let reclaimPages = 64
    private static let pageBytes = FormatConstants.pageBytes

    // MARK: Supply

    /// Segments on a device that only records and carried blocks may take.
    func reserved(_ device: Int) -> Int {
        var count = 0
        let first = writableDevice(after: -1)
        // One for each record stream to go on with, and one to begin with.
        if first == device { count += hasOpenSegment(.recordsA, device) ? 1 : 2 }
        let second = writableDevice(after: first)
        if second == device { count += hasOpenSegment(.recordsB, device) ? 1 : 2 }
        if configuration.mode == .cache && !hasOpenSegment(.reinserted, device) { count += 1 }
        return count
    }

    private func hasOpenSegment(_ kind: StreamKind, _ device: Int) -> Bool {
        for stream in streams.indices
        where streams[stream].kind == kind && streams[stream].device == device
            && streams[stream].segment != nil
        { return true }
        return false
    }

    /// A clean segment for a stream, or nil when it has to wait.
    func takeSegment(for stream: WriteStream) -> UInt32? {
        let device = stream.device
        guard footerPool.freeCount > 0, !reclaimers[device].clean.isEmpty else { return nil }
        if stream.kind == .fresh, reclaimers[device].clean.count <= reserved(device) {
            return nil
        }
        return reclaimers[device].clean.removeFirst()
    }

    /// Whether waiting can help: something may still become clean on the stream's device.
    func canGainSegment(_ stream: WriteStream) -> Bool {
        let device = stream.device
        guard devices[device].takesWrites else { return false }
        let enough = stream.kind == .fresh ? reserved(device) : 0
        if reclaimers[device].clean.count > enough { return true }
        if reclaimers[device].isStuck || waitsForItself(device) { return false }
        if reclaimers[device].phase != .idle || footerPool.freeCount == 0 { return true }
        return canCreate(device) || victim(device) != nil || mayGainVictim(device)
            || canSealForSpace(device)
    }

    /// Whether what reclaim carries on waits for a segment that only this reclaim could give, and
    /// nothing else is under way that could: segments in reserve have been lost to quarantine.
    private func waitsForItself(_ device: Int) -> Bool {
        guard reclaimers[device].pending > 0, reclaimers[device].clean.isEmpty, !flush.isRunning,
            flush.waiting.isEmpty
        else { return false }
        for stream in streams.indices where streams[stream].groupsInFlight > 0 { return false }
        switch reclaimers[device].phase {
        case .recordsReady, .scanning, .sweeping, .settling: return true
        default: return false
        }
    }

    /// Whether a stream of the device waits for a segment.
    private func isShort(_ device: Int) -> Bool {
        for stream in streams.indices
        where streams[stream].device == device && streams[stream].waiting >= 0 { return true }
        return false
    }

    /// Whether an open segment of values could be sealed and become a victim.
    private func canSealForSpace(_ device: Int) -> Bool {
        guard configuration.mode == .cache, footerPool.freeCount > 0 else { return false }
        for stream in streams.indices
        where !streams[stream].isRecords && streams[stream].device == device
            && streams[stream].segment != nil && streams[stream].waiting < 0
        { return true }
        return false
    }

    /// Whether a segment only waits for its last writes to become a victim.
    private func mayGainVictim(_ device: Int) -> Bool {
        for local in 0..<segments.counts[device] {
            let state = segments.pointer(SegmentTable.id(device: device, local: local))
            if state.pointee.state == .sealed,
                state.pointee.groupsInFlight > 0 || state.pointee.unpublished > 0
            {
                return true
            }
        }
        return false
    }

    private func canCreate(_ device: Int) -> Bool {
        !devices[device].full && reclaimers[device].nextLocal < segments.counts[device]
    }

    // MARK: The machine

    func advanceReclaim() {
        if !sweeper.slots.isEmpty { advanceSweep() }
        guard !readOnly, manifestState.exists else { return }
        for device in devices.indices where devices[device].takesWrites {
            advanceReclaim(device)
        }
    }

    private func advanceReclaim(_ device: Int) {
        switch reclaimers[device].phase {
        case .idle: startReclaim(device)
        case .recordsReady: continueRecords(device)
        case .scanning: continueScan(device)
        case .sweeping: continueSweep(device)
        case .settling: settleVictim(device)
        default: break
        }
    }

    private func startReclaim(_ device: Int) {
        let wanted = reserved(device) + configuration.cleanSegments
        guard reclaimers[device].clean.count < wanted || wantReclaim else { return }
        if canCreate(device) {
            createSegment(device)
        } else if clock.monotonic >= reclaimers[device].retryAt,
            let segment = victim(device)
        {
            sealWhatHoldsRecords(device, segment)
            wantReclaim = false
            startVictim(device, segment)
        } else if configuration.mode == .cache,
            wantReclaim || isShort(device), !mayGainVictim(device)
        {
            // Only open segments hold what could go: they take their turn early.
            for stream in streams.indices
            where !streams[stream].isRecords && streams[stream].device == device
                && streams[stream].segment != nil && streams[stream].groupsInFlight == 0
                && streams[stream].waiting < 0 && footerPool.freeCount > 0
            { closeSegment(stream) }
        }
    }

    /// Whether a record stream's open segment takes this many more pages of records.
    private func hasRecordRoom(_ kind: StreamKind, _ device: Int, _ pages: UInt32) -> Bool {
        for stream in streams.indices
        where streams[stream].kind == kind && streams[stream].device == device
            && streams[stream].segment != nil
        { return room(stream, descriptors: Int(pages)) >= 2 * pages }
        return false
    }

    /// Whether there are segments for both copies of what a segment of records may hold, and
    /// emptying it gains anything: records move from one new segment to the next without end if
    /// all of them are needed (`oldest`: the lowest version of a value elsewhere) and the open
    /// segments have no room for them.
    func canCarry(_ segment: Segment, oldest: UInt64) -> Bool {
        let first = writableDevice(after: -1)
        let second = writableDevice(after: first)
        // Carried on, records take no more pages than in the footer (or seven of the longest a
        // page), and as many of the new footer.
        let pages =
            segment.footerPages > 0 ? segment.footerPages + 2 : segment.recordCount / 7 + 2
        if hasRecordRoom(.recordsA, first, pages) && hasRecordRoom(.recordsB, second, pages) {
            return true
        }
        if segment.minVersion > oldest { return false }
        if first == second { return reclaimers[first].clean.count >= 2 }
        return !reclaimers[first].clean.isEmpty && !reclaimers[second].clean.isEmpty
    }

    /// Cache mode: where segments of records pile up because an old value still lies in an open
    /// segment, that one is sealed, so that it takes its turn and the records can go.
    private func sealWhatHoldsRecords(_ device: Int, _ victim: UInt32) {
        guard configuration.mode == .cache,
            segments[victim].minValueVersion == UInt64.max
        else { return }
        for stream in streams.indices where !streams[stream].isRecords {
            guard let segment = streams[stream].segment, streams[stream].groupsInFlight == 0,
                streams[stream].waiting < 0,
                segments[segment].minValueVersion < segments[victim].maxVersion,
                footerPool.freeCount > 0
            else { continue }
            closeSegment(stream)
        }
    }

    /// The sealed segment of the lowest generation; in store mode only one with nothing alive.
    func victim(_ device: Int) -> UInt32? {
        var best: UInt32?
        for local in 0..<segments.counts[device] {
            let id = SegmentTable.id(device: device, local: local)
            let state = segments.pointer(id)
            guard state.pointee.state == .sealed, state.pointee.groupsInFlight == 0,
                state.pointee.unpublished == 0
            else {
                continue
            }
            if configuration.mode == .store && state.pointee.liveBlocks > 0 { continue }
            // Records that an old value may still need are carried on, which takes room elsewhere.
            if state.pointee.minValueVersion == UInt64.max {
                let oldest = oldestValue(except: id)
                if oldest < state.pointee.maxVersion, !canCarry(state.pointee, oldest: oldest) {
                    continue
                }
            }
            if best.map({ state.pointee.generation < segments[$0].generation }) ?? true {
                best = id
            }
        }
        return best
    }

    // MARK: Making segments

    private func createSegment(_ device: Int) {
        let local = reclaimers[device].nextLocal
        let id = SegmentTable.id(device: device, local: local)
        reclaimers[device].nextLocal += 1
        if segments[id].file >= 0 { return }  // it was there at open
        do {
            let file = try driver.open(
                devices[device].directory, StoreFiles.segment(local), .create)
            segments[id].file = file.raw
        } catch {
            cannotCreate(device, error.errno)
            return
        }
        reclaimers[device].segment = id
        reclaimers[device].phase = .allocating
        issue(
            IORequest(
                tag: Self.tag(.segmentAllocate, Int32(device)), operation: .allocate,
                file: file(id), fileOffset: 0,
                piece: Piece(region: .process, offset: 0, length: manifest.segmentBytes)))
    }

    /// The device has no room for more: the store goes on with the segments it has.
    private func cannotCreate(_ device: Int, _ errno: Int32) {
        statistics.allocationFailures += 1
        devices[device].full = true
        statistics.shrunkSegments += UInt64(
            segments.counts[device] - reclaimers[device].nextLocal + 1)
    }

    func reclaimCompleted(
        _ kind: IOKind, device: Int, aux: UInt32, _ completion: IOCompletion
    ) {
        let segment = reclaimers[device].segment
        let errno = completion.result < 0 ? Int32(truncatingIfNeeded: -completion.result) : 0
        switch kind {
        case .segmentAllocate:
            if errno != 0 {
                driver.close(file(segment))
                segments[segment].file = -1
                try? driver.remove(
                    devices[device].directory,
                    StoreFiles.segment(SegmentTable.local(segment)))
                cannotCreate(device, errno)
                reclaimers[device].phase = .idle
                return
            }
            reclaimers[device].phase = .syncingDirectory
            sync(devices[device].directory, Self.tag(.directorySync, Int32(device)))
        case .directorySync:
            reclaimers[device].phase = .settling
            if errno != 0 { devices[device].failed(errno: errno) }
        case .reclaimRead: footerRead(device, errno)
        case .segmentHeader:
            reclaimers[device].headerWrites -= 1
            if errno != 0 { reclaimers[device].failed = true }
            guard reclaimers[device].headerWrites == 0 else { return }
            guard !reclaimers[device].failed else {
                reclaimers[device].failed = false
                headerFailed(device, errno)
                return
            }
            statistics.metadataBytes += UInt64(2 * Self.pageBytes)
            reclaimers[device].phase = .syncing
            sync(file(segment), Self.tag(.segmentSync, Int32(device)))
        case .segmentSync:
            guard errno == 0 else {
                headerFailed(device, errno)
                return
            }
            giveChunk(device)
            segments[segment].state = .clean
            reclaimers[device].clean.append(segment)
            reclaimers[device].isStuck = false
            reclaimers[device].phase = .idle
        default: break
        }
    }

    private func sync(_ file: FileID, _ tag: UInt64) {
        issue(
            IORequest(
                tag: tag, operation: .sync, file: file, fileOffset: 0,
                piece: Piece(region: .process, offset: 0, length: 0)))
    }

    private func headerFailed(_ device: Int, _ errno: Int32) {
        giveChunk(device)
        statistics.writeErrors += 1
        devices[device].failed(errno: errno)
        quarantine(reclaimers[device].segment)
        reclaimers[device].phase = .idle
    }

    func giveChunk(_ device: Int) {
        reclaimers[device].chunk.withChunk { reclaimPool.give($0) }
    }

    // MARK: Emptying a victim

    private func startVictim(_ device: Int, _ segment: UInt32) {
        let chunk = reclaimPool.take()
        guard chunk >= 0 else { return }
        segments[segment].state = .reclaiming
        statistics.reclaimedSegments += 1
        reclaimers[device].segment = segment
        reclaimers[device].chunk = chunk
        reclaimers[device].pending = 0
        reclaimers[device].oldestValue = oldestValue(except: segment)
        reclaimers[device].nextPage = segments[segment].footerFirstPage
        if segments[segment].footerPages == 0 {
            startScan(device)
        } else {
            readFooter(device)
        }
    }

    /// The lowest version of a value that may lie in a segment other than this one; 0 while a
    /// member is away, since nobody knows what it holds.
    private func oldestValue(except: UInt32) -> UInt64 {
        if anyMemberAway { return 0 }
        var lowest = UInt64.max
        segments.forEach { id in
            let state = segments.pointer(id)
            switch state.pointee.state {
            case .open, .sealed, .quarantined, .reclaiming, .absent:
                if id != except { lowest = min(lowest, state.pointee.minValueVersion) }
            case .clean, .uncreated: break
            }
        }
        return lowest
    }

    private func readFooter(_ device: Int) {
        let segment = reclaimers[device].segment
        let end = segments[segment].footerFirstPage + segments[segment].footerPages
        guard reclaimers[device].nextPage < end else {
            recordsDone(device)
            return
        }
        let pages = min(Int(end - reclaimers[device].nextPage), Self.reclaimPages)
        reclaimers[device].pagesRead = pages
        reclaimers[device].currentPage = 0
        reclaimers[device].currentRecord = 0
        reclaimers[device].phase = .reading
        issue(
            IORequest(
                tag: Self.tag(.reclaimRead, Int32(device)), operation: .read, file: file(segment),
                fileOffset: Self.offset(page: reclaimers[device].nextPage),
                piece: reclaimPool.piece(
                    reclaimers[device].chunk, length: pages * Self.pageBytes)))
    }

    private func footerRead(_ device: Int, _ errno: Int32) {
        if reclaimers[device].scan != nil {
            reclaimers[device].scan?.arrived(errno: errno)
            reclaimers[device].phase = .scanning
            return
        }
        if errno != 0 {
            statistics.readErrors += 1
            startScan(device)
            return
        }
        reclaimers[device].phase = .recordsReady
        continueRecords(device)
    }

    /// Goes through the records of the pages read, as far as there are operation slots for what has
    /// to be carried on.
    private func continueRecords(_ device: Int) {
        let segment = reclaimers[device].segment
        let memory = reclaimPool.pointer(reclaimers[device].chunk)
        while reclaimers[device].currentPage < reclaimers[device].pagesRead {
            let page = reclaimers[device].currentPage
            let bytes = UnsafeRawBufferPointer(
                start: memory + page * Self.pageBytes, count: Self.pageBytes)
            let number = reclaimers[device].nextPage + UInt32(page)
            do {
                var reader = try DescriptorPageReader(
                    page: bytes, context: context(segment), pageNumber: number)
                var record = 0
                while let view = reader.next() {
                    if record >= reclaimers[device].currentRecord {
                        guard leave(device, view) else { return }
                        reclaimers[device].currentRecord = record + 1
                    }
                    record += 1
                }
            } catch {
                statistics.damagedPages += 1
                startScan(device)
                return
            }
            reclaimers[device].currentPage += 1
            reclaimers[device].currentRecord = 0
        }
        reclaimers[device].nextPage += UInt32(reclaimers[device].pagesRead)
        readFooter(device)
    }

    /// One record of a victim: its block leaves the index or is carried on. False: no room to carry
    /// it now, come back to the same record.
    private func leave(_ device: Int, _ view: RecordView) -> Bool {
        guard let slot = namespaces.slot(instance: view.descriptor.namespaceInstance) else {
            return true
        }
        let fingerprint = fingerprint(instance: view.descriptor.namespaceInstance, view.key)
        let segment = reclaimers[device].segment
        if view.descriptor.flags.contains(.tombstone)
            || view.descriptor.flags.contains(.supersede)
        {
            guard reclaimers[device].oldestValue < view.descriptor.version else { return true }
            return carryRecord(device, fingerprint, slot, view)
        }
        guard let entry = index.find(fingerprint), entry.place.segment == segment,
            entry.place.page == view.descriptor.page
        else { return true }
        if isPinned(fingerprint) && configuration.mode == .cache {
            return relocate(device, fingerprint, slot, view, entry)
        }
        evict(fingerprint, entry)
        return true
    }

    func evict(_ fingerprint: Fingerprint, _ entry: IndexEntry) {
        unpublish(fingerprint)
        removePin(fingerprint)
        tables.forget(fingerprint)
        statistics.evictedBlocks += 1
        statistics.evictedBytes += UInt64(entry.length)
        delegate?.evicted(fingerprint)
    }

    private func recordsDone(_ device: Int) {
        // Whatever a damaged page hid is found by going through the index.
        if segments[reclaimers[device].segment].liveBlocks > 0 {
            reclaimers[device].sweepBucket = 0
            reclaimers[device].phase = .sweeping
        } else {
            reclaimers[device].phase = .settling
        }
    }

    private func startScan(_ device: Int) {
        reclaimers[device].scan = SegmentScan(
            segment: reclaimers[device].segment, endPage: segmentPages)
        reclaimers[device].phase = .scanning
    }

    private func continueScan(_ device: Int) {
        guard var scan = reclaimers[device].scan else { return }
        reclaimers[device].scan = nil
        let memory = reclaimPool.pointer(reclaimers[device].chunk)
        let finished = scan.advance(
            memory: memory, capacity: reclaimPool.chunkBytes, context: context(scan.segment)
        ) { view, _ in leave(device, view) }
        if finished {
            recordsDone(device)
            return
        }
        if let wanted = scan.wanted {
            reclaimers[device].phase = .reading
            issue(
                IORequest(
                    tag: Self.tag(.reclaimRead, Int32(device)), operation: .read,
                    file: file(scan.segment), fileOffset: Self.offset(page: wanted.first),
                    piece: reclaimPool.piece(
                        reclaimers[device].chunk, length: Int(wanted.count) * Self.pageBytes)))
        }
        reclaimers[device].scan = scan
    }

    private func continueSweep(_ device: Int) {
        // What is being carried on leaves the index by itself, or stays in it elsewhere.
        guard reclaimers[device].pending == 0, sweepOwner == nil || sweepOwner == device else {
            return
        }
        if reclaimers[device].failed {
            reclaimers[device].phase = .settling
            return
        }
        sweepOwner = device
        let segment = reclaimers[device].segment
        reclaimers[device].sweepBucket = index.sweep(
            from: reclaimers[device].sweepBucket, buckets: 16384
        ) { fingerprint, entry in
            guard entry.place.segment == segment else { return false }
            if isPinned(fingerprint) {
                // Its key cannot be read here, so it cannot be moved: the victim has to stay.
                reclaimers[device].failed = true
                return false
            }
            sweptOut(entry)
            statistics.evictedBlocks += 1
            statistics.evictedBytes += UInt64(entry.length)
            delegate?.evicted(fingerprint)
            return true
        }
        if reclaimers[device].sweepBucket >= index.bucketCount {
            sweepOwner = nil
            reclaimers[device].phase = .settling
        }
    }

    /// The accounting of an entry that a sweep removes.
    func sweptOut(_ entry: IndexEntry) {
        segments[entry.place.segment].livePages -= accountedPages(entry)
        segments[entry.place.segment].liveBlocks -= 1
        statistics.liveBytes -= UInt64(entry.length)
        namespaces.removed(entry.namespaceSlot, bytes: UInt64(entry.length))
    }

    private func settleVictim(_ device: Int) {
        let segment = reclaimers[device].segment
        let state = segments.pointer(segment)
        if reclaimers[device].failed && reclaimers[device].pending == 0 {
            leaveVictim(device)
            return
        }
        guard reclaimers[device].pending == 0, state.pointee.readers == 0,
            state.pointee.groupsInFlight == 0, !flushCovers(segment),
            let generation = takeGeneration()
        else { return }
        reclaimers[device].scan = nil
        if reclaimers[device].chunk < 0 {
            reclaimers[device].chunk = reclaimPool.take()
            guard reclaimers[device].chunk >= 0 else { return }
        }
        let file = state.pointee.file
        flush.dirty.removeAll { $0 == segment }
        state.pointee = Segment()
        state.pointee.file = file
        state.pointee.generation = generation
        state.pointee.state = .reclaiming
        var header = SegmentHeader()
        header.store = manifest.store
        header.device = devices[device].id
        header.segment = segment
        header.generation = generation
        header.segmentBytes = manifest.segmentBytes
        header.state = 1
        header.versionBase = nextVersion
        header.createdWallSeconds = wallSeconds
        let memory = reclaimPool.pointer(reclaimers[device].chunk)
        header.encode(
            into: UnsafeMutableRawBufferPointer(start: memory, count: Self.pageBytes),
            secret: manifest.secret)
        reclaimers[device].phase = .writingHeader
        reclaimers[device].headerWrites = 2
        for page in 0..<2 {
            issue(
                IORequest(
                    tag: Self.tag(.segmentHeader, Int32(device)), operation: .write,
                    file: FileID(file),
                    fileOffset: page == 0 ? 0 : Self.offset(page: segmentPages - 1),
                    piece: reclaimPool.piece(reclaimers[device].chunk, length: Self.pageBytes)))
        }
    }

    /// A victim whose tombstones or pinned blocks could not be carried on keeps what it has.
    private func leaveVictim(_ device: Int) {
        giveChunk(device)
        reclaimers[device].failed = false
        reclaimers[device].scan = nil
        reclaimers[device].phase = .idle
        reclaimers[device].retryAt = clock.monotonic + 1_000_000_000
        reclaimers[device].isStuck = reclaimers[device].clean.isEmpty
        segments[reclaimers[device].segment].state = .sealed
    }

    func flushCovers(_ segment: UInt32) -> Bool {
        flush.isRunning && flush.running.contains(segment)
    }

}
