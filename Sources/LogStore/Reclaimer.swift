// Reclaimer: one device's supply of clean segments. While some are within capacity but not made
// yet, it makes them; after that it empties a victim (LogStore+Victims tells which). A segment
// becomes clean in this order: blocks that are to stay (ReclaimPlan, MoveWindow) and the tombstones
// still needed are written elsewhere, the other entries leave the index; what was written is
// flushed; readers end; a header with a new generation is written and flushed.

import BlockIO
import SegmentFormat

enum ReclaimPhase: UInt8 {
    case idle
    case allocating
    case syncingDirectory
    /// Reading the victim's footer, and going through its records.
    case reading
    case recordsReady
    /// Blocks that stay are read and written elsewhere.
    case moving
    /// All records have been gone through.
    case recordsEnded
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
    /// Monotonic time before which none is made: the directory's sync has failed.
    var createAt: UInt64 = 0
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
    /// Requests that are left of the read under way, and what one of them failed with.
    var readParts: Int32 = 0
    var readErrno: Int32 = 0
    /// Something could not be carried on: the victim is left as it is.
    var failed = false
    /// Monotonic time before which a victim that could not be emptied is not tried again.
    var retryAt: UInt64 = 0
    /// The block that the plan has said yes to last, should it have to wait for room.
    var asked = Fingerprint(hi: 0, lo: 0)
    /// Nothing has come clean since a victim had to be left: writers are refused, not kept waiting.
    var isStuck = false
    /// Whether the segment that gets a header had a life before, and is not just made.
    var isRecycling = false
    /// Header writes (first page and its copy on the last) under way.
    var headerWrites = 0
    /// Which blocks of the victim stay, in cache mode.
    var plan: ReclaimPlan
    /// The first pass over the victim's records, which only makes the plan.
    var surveying = false
    var window = MoveWindow()
    /// The phase to go on with when the window has been emptied.
    var resume = ReclaimPhase.idle
    /// Where blocks of the victim went: segments, and the page up to which they must be flushed.
    var movedTo: [(segment: UInt32, end: UInt32)] = []
    /// Victims in turn for which an older segment was passed over.
    var passedOver = 0
    /// Store mode: victims since one that was chosen for the records that it holds.
    var sinceHolder = 0
    /// A segment to be emptied although no space is wanted (LogStore+Spreading tells why).
    var beside: UInt32?

    init(device: Int, segmentPages: UInt32) {
        self.device = device
        plan = ReclaimPlan(records: Int(segmentPages))
        clean.reserveCapacity(64)
    }

    mutating func note(moved segment: UInt32, end: UInt32) {
        if let last = movedTo.indices.last, movedTo[last].segment == segment {
            movedTo[last].end = max(movedTo[last].end, end)
        } else {
            movedTo.append((segment, end))
        }
    }
}

extension LogStore {
    /// Footer pages read at a time.
    static let reclaimPages = 64
    private static let pageBytes = FormatConstants.pageBytes

    // MARK: Supply

    /// Segments on a device that fresh blocks may not take.
    func reserved(_ device: Int) -> Int {
        // In store mode a victim may be full of live blocks, for which an open segment's rest does
        // not do: without a whole one nothing could ever be compacted.
        let moved = configuration.mode == .store || !hasOpenSegment(.reinserted, device)
        return reservedForRecords(device) + (moved ? 1 : 0)
    }

    /// Segments on a device that only records may take.
    func reservedForRecords(_ device: Int) -> Int {
        var count = 0
        let first = writableDevice(after: -1)
        // One for each record stream to go on with, and one to begin with.
        if first == device { count += hasOpenSegment(.recordsA, device) ? 1 : 2 }
        let second = writableDevice(after: first)
        if second == device { count += hasOpenSegment(.recordsB, device) ? 1 : 2 }
        return count
    }

    func hasOpenSegment(_ kind: StreamKind, _ device: Int) -> Bool {
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
        if reclaimers[device].clean.count <= kept(from: stream.kind, device) { return nil }
        guard let place = reclaimers[device].clean.firstIndex(where: { !discard.holds($0) })
        else { return nil }
        return reclaimers[device].clean.remove(at: place)
    }

    private func kept(from kind: StreamKind, _ device: Int) -> Int {
        switch kind {
        case .fresh: reserved(device)
        case .reinserted: rewriting ? reservedForRecords(device) : 0
        case .recordsA, .recordsB: 0
        }
    }

    /// Whether waiting can help: something may still become clean on the stream's device.
    func canGainSegment(_ stream: WriteStream) -> Bool {
        let device = stream.device
        guard devices[device].takesWrites, !readOnly else { return false }
        let enough = kept(from: stream.kind, device)
        if reclaimers[device].clean.count > enough { return true }
        // Nothing is emptied before what recovery found has been flushed.
        if flush.isFirst { return true }
        if reclaimers[device].isStuck, victim(device).map({ !mayTry($0, device) }) ?? true {
            return false
        }
        if waitsForItself(device) { return false }
        if reclaimers[device].phase != .idle || footerPool.freeCount == 0 { return true }
        return canCreate(device) || victim(device) != nil || mayGainVictim(device)
            || canSealForSpace(device)
    }

    /// Whether what reclaim carries on waits for a segment that only this reclaim could give, and
    /// nothing else is under way that could: segments in reserve have been lost to quarantine.
    private func waitsForItself(_ device: Int) -> Bool {
        guard reclaimers[device].pending > 0, reclaimers[device].clean.isEmpty, !flush.isRunning,
            flush.waiting.isEmpty, flush.late.isEmpty, reclaimers[device].readParts == 0
        else { return false }
        for stream in streams.indices where streams[stream].groupsInFlight > 0 { return false }
        switch reclaimers[device].phase {
        case .recordsReady, .moving, .recordsEnded, .scanning, .sweeping, .settling: return true
        default: return false
        }
    }

    /// Whether a stream of the device waits for a segment.
    func isShort(_ device: Int) -> Bool {
        for stream in streams.indices
        where streams[stream].device == device && streams[stream].waiting >= 0 { return true }
        return false
    }

    /// Whether an open segment of values could be sealed and become a victim.
    private func canSealForSpace(_ device: Int) -> Bool {
        guard configuration.mode == .cache, !rewriting, footerPool.freeCount > 0 else {
            return false
        }
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

    func canCreate(_ device: Int) -> Bool {
        !devices[device].full && reclaimers[device].nextLocal < segments.counts[device]
    }

    // MARK: The machine

    func advanceReclaim() {
        if !sweeper.slots.isEmpty { advanceSweep() }
        guard !readOnly, manifestState.exists else { return }
        advanceSpreading()
        for device in devices.indices {
            if devices[device].takesWrites {
                advanceReclaim(device)
            } else {
                giveSweepBack(device)
                abandonWindow(device)
            }
        }
    }

    private func advanceReclaim(_ device: Int) {
        switch reclaimers[device].phase {
        case .idle: startReclaim(device)
        case .recordsReady: continueRecords(device)
        case .recordsEnded: recordsDone(device)
        case .scanning: continueScan(device)
        case .sweeping: continueSweep(device)
        case .settling: settleVictim(device)
        default: break
        }
    }

    private func startReclaim(_ device: Int) {
        let wanted = reserved(device) + configuration.cleanSegments
        // What is carried on for spreading may need a segment: those that only have to be made
        // come first, or writers would be refused for want of what this very victim holds up.
        let makesFirst = reclaimers[device].clean.count < wanted && canCreate(device)
        if !makesFirst, let segment = takeBeside(device) {
            startVictim(device, segment)
            return
        }
        guard reclaimers[device].clean.count < wanted || wantReclaim || rewriting else { return }
        if configuration.mode == .store, !rewriting, !canCreate(device) {
            sealWhatHoldsRecords(device, victim: nil)
        }
        if reclaimers[device].clean.count < wanted || wantReclaim, canCreate(device) {
            if clock.monotonic >= reclaimers[device].createAt { createSegment(device) }
        } else if !flush.isFirst, let segment = victim(device), mayTry(segment, device) {
            if configuration.mode == .cache { sealWhatHoldsRecords(device, victim: segment) }
            let isOldest = segments[segment].generation <= oldestGeneration(device)
            reclaimers[device].passedOver = isOldest ? 0 : reclaimers[device].passedOver + 1
            let isHolder = configuration.mode == .store && segment == holder(device)
            reclaimers[device].sinceHolder = isHolder ? 0 : reclaimers[device].sinceHolder + 1
            wantReclaim = false
            startVictim(device, segment)
        } else if configuration.mode == .cache, !rewriting,
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

    /// What had to be left is looked at again after a pause; the others need not wait for it.
    private func mayTry(_ segment: UInt32, _ device: Int) -> Bool {
        !segments[segment].holdsForgotten || clock.monotonic >= reclaimers[device].retryAt
    }

    // MARK: Making segments

    /// Between two attempts to make a segment in a directory whose sync fails, nanoseconds.
    private static let createPause: UInt64 = 100_000_000

    /// When `pump` has to be called although nothing ends until then, monotonic nanoseconds.
    package var nextDeadline: UInt64 {
        var next = recovery == nil ? min(nextScrub, nextDiscardAt) : UInt64.max
        guard !readOnly, recovery == nil, manifestState.exists else { return next }
        let now = clock.monotonic
        if spreading.isWanted, !anyMemberAway, !rewriting { next = min(next, spreading.lookAt) }
        for device in devices.indices where devices[device].takesWrites {
            if reclaimers[device].createAt > now { next = min(next, reclaimers[device].createAt) }
            if reclaimers[device].beside != nil, reclaimers[device].retryAt > now {
                next = min(next, reclaimers[device].retryAt)
            }
        }
        return next
    }

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
                piece: Piece(region: .process, offset: 0, length: manifest.segmentBytes)),
            on: device)
    }

    /// The device has no room for more: the store goes on with the segments it has.
    private func cannotCreate(_ device: Int, _ errno: Int32) {
        statistics.allocationFailures += 1
        devices[device].full = true
        statistics.shrunkSegments += UInt64(
            segments.counts[device] - reclaimers[device].nextLocal + 1)
    }

    private func unmake(_ segment: UInt32) {
        driver.close(file(segment))
        segments[segment].file = -1
        try? driver.remove(
            devices[SegmentTable.device(segment)].directory,
            StoreFiles.segment(SegmentTable.local(segment)))
    }

    func reclaimCompleted(
        _ kind: IOKind, device: Int, aux: UInt32, _ completion: IOCompletion
    ) {
        let segment = reclaimers[device].segment
        let errno = completion.result < 0 ? Int32(truncatingIfNeeded: -completion.result) : 0
        switch kind {
        case .segmentAllocate:
            if errno == Self.givenUp {
                unmake(segment)
                reclaimers[device].nextLocal -= 1
                reclaimers[device].phase = .idle
                return
            }
            if errno != 0 {
                unmake(segment)
                cannotCreate(device, errno)
                reclaimers[device].phase = .idle
                return
            }
            reclaimers[device].phase = .syncingDirectory
            sync(devices[device].directory, .directorySync, device)
        case .directorySync:
            guard errno == 0 else {
                // Its name may never be durable, whatever the next sync says: it is made anew.
                statistics.flushErrors += 1
                deviceFailed(device, errno: errno)
                unmake(segment)
                reclaimers[device].nextLocal -= 1
                reclaimers[device].createAt = clock.monotonic + Self.createPause
                reclaimers[device].phase = .idle
                return
            }
            reclaimers[device].phase = .settling
        case .reclaimRead:
            if let errno = reclaimReadEnded(device, errno) { footerRead(device, errno) }
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
            sync(file(segment), .segmentSync, device)
        case .segmentSync:
            guard errno == 0 else {
                headerFailed(device, errno)
                return
            }
            giveChunk(device)
            if reclaimers[device].isRecycling {
                statistics.reclaimedSegments += 1
                segments[segment].discardPage = configuration.discardBytesPerSecond > 0 ? 1 : 0
            }
            segments[segment].state = .clean
            segments[segment].formerValueVersion = UInt64.max
            reclaimers[device].clean.append(segment)
            reclaimers[device].isStuck = false
            reclaimers[device].phase = .idle
            spreading.lookAt = 0
        default: break
        }
    }

    private func sync(_ file: FileID, _ kind: IOKind, _ device: Int) {
        issue(
            IORequest(
                tag: Self.tag(kind, Int32(device)), operation: .sync, file: file, fileOffset: 0,
                piece: Piece(region: .process, offset: 0, length: 0)),
            on: device)
    }

    private func headerFailed(_ device: Int, _ errno: Int32) {
        giveChunk(device)
        statistics.writeErrors += 1
        deviceFailed(device, errno: errno)
        quarantine(reclaimers[device].segment)
        reclaimers[device].phase = .idle
    }

    func giveChunk(_ device: Int) {
        reclaimers[device].chunk.withChunk { reclaimPool.give($0) }
    }
}
