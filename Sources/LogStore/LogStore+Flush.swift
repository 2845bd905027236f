// Flushing: one flush at a time covers everything written before it began (group commit). An
// operation that waits is covered by the next flush to start; that one starts as soon as the
// running one ends, so durability adds no delay of its own when nothing runs.
//
// A failed flush fails every unacknowledged put on that device: what it lost is unknown, so its
// segments with unflushed pages are quarantined and the flush is never tried again as if nothing
// had happened. A device that does badly is not waited for (LogStore+LateFlush).

import BlockIO
import SegmentFormat

struct FlushState {
    /// Segments with completed groups that no flush has covered.
    var dirty: [UInt32] = []
    /// Segments that the running flush covers.
    var running: [UInt32] = []
    var pendingSyncs = 0
    var failedDevices: UInt32 = 0
    var waiting = OperationList()
    var covered = OperationList()
    /// Versions up to here were complete when the running flush began.
    var barrier: UInt64 = 0
    /// Every acknowledged put up to here is durable.
    var durableVersion: UInt64 = 0
    /// Callers of `flush(through:)`.
    var callers: [FlushCaller] = []
    var coveredCallers: [FlushCaller] = []
    /// Somebody waits for a flush without an operation of its own.
    var isWanted = false
    /// What recovery has found is not flushed yet: of a block that was moved, the source stays.
    var isFirst = false
    /// Flushes begun, and the last one that failed on some device.
    var begun: UInt64 = 0
    var lastFailed: UInt64 = 0
    /// What a device that does badly has still to flush, and the last flush that left it out.
    var late = LateFlush()
    var lastBesideLate: UInt64 = 0
    /// Puts that were acknowledged as written and may be gone.
    var losses = FlushLosses()
    var isRunning: Bool { pendingSyncs > 0 }
    var isIdle: Bool {
        !isRunning && waiting.isEmpty && covered.isEmpty && callers.isEmpty
            && coveredCallers.isEmpty && late.isEmpty
    }

    /// What was dirty is what the flush now covers.
    mutating func beginRunning() {
        swap(&running, &dirty)
        dirty.removeAll(keepingCapacity: true)
    }

    init() {
        dirty.reserveCapacity(1024)
        running.reserveCapacity(1024)
    }
}

struct FlushCaller {
    var token: UInt64
    var version: UInt64
    /// Asked for by its version; else for everything so far.
    var named: Bool
}

extension LogStore {
    /// All puts acknowledged with at most this version are durable, but for those of which a failed
    /// flush has told that they may be lost.
    package var durableVersion: UInt64 { flush.durableVersion }

    /// Makes everything put so far with at most `version` durable; the outcome is `.done` or
    /// `.failed`. It fails too if `version` is among those that an earlier flush may have lost, or
    /// if nobody has been told of such a loss yet.
    package func flush(token: UInt64, through version: UInt64) {
        flush.callers.append(
            FlushCaller(
                token: token, version: min(version, nextVersion), named: version <= nextVersion))
    }

    func markDirty(_ segment: UInt32) {
        guard !segments[segment].needsFlush else { return }
        segments[segment].needsFlush = true
        flush.dirty.append(segment)
    }

    func waitForFlush(_ operation: Int32) {
        flush.waiting.append(operation, operations)
    }

    /// Whether something was settled without anything having ended.
    func advanceFlush() -> Bool {
        if flush.isRunning { return leaveLateBehind() }
        let isWhole = flush.late.isEmpty
        let isReady = isWhole && flush.callers.contains { $0.version <= reachableVersion }
        let isWaitedFor = isWhole ? !flush.waiting.isEmpty : waitsBesideLate
        if isWaitedFor || isReady || flush.isWanted { startFlush() }
        return false
    }

    /// What callers of a flush wait for: with a device silent, no longer for what hangs on it. They
    /// are told that it is not durable.
    private var reachableVersion: UInt64 { completedVersion(besideSilent: anySilent) }

    /// The highest version up to which every write either has ended or only waits for a flush.
    private func completedVersion(besideSilent: Bool = false) -> UInt64 {
        var lowest = nextVersion + 1
        for index in 0..<operations.capacity {
            let slot = operations.slots + index
            switch slot.pointee.kind {
            case .append, .delete, .record:
                if besideSilent, hangs(slot.pointee) { break }
                if slot.pointee.version > 0, slot.pointee.phase != .waitingForFlush {
                    lowest = min(lowest, slot.pointee.version)
                }
            case .free, .read, .relocate: break
            }
        }
        return lowest - 1
    }

    private func startFlush() {
        flush.isWanted = false
        flush.begun += 1
        flush.failedDevices = 0
        flush.beginRunning()
        if flush.late.isEmpty {
            flush.barrier = completedVersion()
            var waiting = flush.waiting
            flush.waiting = OperationList()
            flush.covered.append(all: &waiting, operations)
            coverCallers()
        } else {
            flush.barrier = 0
            flush.lastBesideLate = flush.begun
            coverBesideLate()
        }
        flush.pendingSyncs = 1  // held until all are issued
        for segment in flush.running {
            segments[segment].needsFlush = false
            segments[segment].isSyncing = true
            segments[segment].completedPages = completedPages(segment)
            flush.pendingSyncs += 1
            statistics.flushes += 1
            issue(
                IORequest(
                    tag: Self.tag(.sync, Self.number(flush.begun), segment),
                    operation: .sync, file: file(segment), fileOffset: 0,
                    piece: Piece(region: .process, offset: 0, length: 0)),
                on: SegmentTable.device(segment))
        }
        flush.pendingSyncs -= 1
        if flush.pendingSyncs == 0 { endFlush() }
    }

    /// How a flush is told apart from those before it, in the tags of its syncs.
    private static func number(_ flush: UInt64) -> Int32 {
        Int32(truncatingIfNeeded: flush & 0xFFFF)
    }

    private func coverCallers() {
        let reachable = reachableVersion
        var callers: [FlushCaller] = []
        for caller in flush.callers {
            if caller.version <= reachable {
                flush.coveredCallers.append(caller)
            } else {
                callers.append(caller)
            }
        }
        flush.callers = callers
    }

    /// Pages of a segment before which every group has been written.
    func completedPages(_ segment: UInt32) -> UInt32 {
        var pages = segments[segment].writtenPages
        guard segments[segment].groupsInFlight > 0 else { return pages }
        for group in 0..<groupCount
        where groups[group].inUse && groups[group].issued && groups[group].segment == segment {
            pages = min(pages, groups[group].firstPage)
        }
        return pages
    }

    /// `number` tells which flush it was for: of one that was given up nobody wants to know.
    func segmentFlushed(_ segment: UInt32, number: Int32, _ completion: IOCompletion) {
        let isLate =
            flush.late.segments.contains(segment) && number == Self.number(flush.late.number)
        guard segments[segment].isSyncing, isLate || number == Self.number(flush.begun) else {
            return
        }
        segments[segment].isSyncing = false
        let device = SegmentTable.device(segment)
        if completion.result < 0 {
            if !isLate { flush.failedDevices |= 1 << UInt32(device) }
            statistics.flushErrors += 1
            deviceFailed(device, errno: Int32(truncatingIfNeeded: -completion.result))
            segments[segment].flushFailed = true
            flush.losses.note(
                max(segments[segment].minVersion, flush.durableVersion + 1),
                through: segments[segment].maxVersion)
            quarantine(segment)
        } else {
            // After a failed flush a later one says nothing of what that one lost.
            let state = segments.pointer(segment)
            if state.pointee.state != .quarantined {
                state.pointee.flushedPages = max(
                    state.pointee.flushedPages, state.pointee.completedPages)
                state.pointee.formerValueVersion = UInt64.max
            }
        }
        if isLate {
            lateFlushed(segment, failed: completion.result < 0)
            return
        }
        flush.pendingSyncs -= 1
        if flush.pendingSyncs == 0 { endFlush() }
    }

    /// A device does not answer: what the flush was to make durable there counts as lost.
    func giveUpFlush(_ device: Int) {
        func giveUp(_ silent: [UInt32], _ number: UInt64) {
            for segment in silent
            where SegmentTable.device(segment) == device && segments[segment].isSyncing {
                segmentFlushed(
                    segment, number: Self.number(number),
                    IOCompletion(tag: 0, result: -Int64(Self.givenUp), deviceNanoseconds: 0))
            }
        }
        if !flush.late.isEmpty { giveUp(flush.late.segments, flush.late.number) }
        if flush.isRunning { giveUp(flush.running, flush.begun) }
    }

    func endFlush() {
        var list = flush.covered
        flush.covered = OperationList()
        let failed = flush.failedDevices
        if flush.isFirst {
            flush.isFirst = false
            if failed == 0 { forgetContested() }
        }
        if failed != 0 { flush.lastFailed = flush.begun }
        if failed == 0 { flush.durableVersion = max(flush.durableVersion, flush.barrier) }
        let callers = flush.coveredCallers
        flush.coveredCallers.removeAll(keepingCapacity: true)
        flush.running.removeAll(keepingCapacity: true)
        while true {
            let operation = list.popFirst(operations)
            if operation < 0 { break }
            flushed(operation, failed: failed)
        }
        tell(callers, failed: failed, barrier: flush.barrier)
    }

    func tell(_ callers: [FlushCaller], failed: UInt32, barrier: UInt64) {
        for caller in callers {
            let isLost = flush.losses.tell(through: caller.version, named: caller.named)
            // What hangs on a silent device was not waited for.
            let fails = failed != 0 || isLost || caller.version > barrier
            var outcome = Outcome(token: caller.token, status: fails ? .failed : .done)
            outcome.version = flush.durableVersion
            if fails { outcome.errno = 5 }
            delegate?.finished(outcome)
        }
    }

    /// What recovery decided on is durable: the older values have lost for good.
    func forgetContested() { segments.forEach { segments[$0].holdsContested = false } }

    /// An operation whose flush has ended.
    func flushed(_ operation: Int32, failed: UInt32) {
        let slot = operations.slots + Int(operation)
        if slot.pointee.kind == .relocate {
            carryingFlushed(operation, failed: failed != 0 || recordsAreHit(slot.pointee))
            return
        }
        // Records lie on devices of their own choice: any failure fails what needed records.
        let needsRecords = slot.pointee.kind == .delete || slot.pointee.replace
        let concerns =
            needsRecords && failed != 0 || recordsAreHit(slot.pointee)
            || slot.pointee.kind != .delete && isHit(slot.pointee, failed: failed)
        if slot.pointee.phase == .waitingForValueFlush && !slot.pointee.raising {
            segments[slot.pointee.segment].unpublished -= 1
        }
        if concerns {
            if slot.pointee.acknowledged && rewriteElsewhere(operation) { return }
            slot.pointee.errno = 5
            finish(operation, .failed)
            return
        }
        switch slot.pointee.phase {
        case .waitingForValueFlush:
            guard namespaces.isLive(slot.pointee.namespaceSlot) else {
                finish(operation, .invalid)
                return
            }
            if !slot.pointee.raising {
                slot.pointee.raising = true  // published once, should the records have to wait
                _ = publish(slot.pointee.fingerprint, entry(operation))
                statistics.admittedBytes += UInt64(slot.pointee.length)
                tables.forget(slot.pointee.fingerprint)
            }
            slot.pointee.phase = .waitingForRecords
            if !writeRecords(owner: operation, version: slot.pointee.version, supersede: true) {
                slot.pointee.phase = .waitingForValueFlush
                waitForFlush(operation)
            }
        default:
            if slot.pointee.kind == .delete {
                deleteSettled(operation)
            } else {
                finish(
                    operation,
                    slot.pointee.raising && !slot.pointee.replace ? .alreadyPresent : .stored)
            }
        }
    }

    /// Whether a block is on a device that this flush failed on; or was written while a flush of
    /// its segment ran that then failed: it may have been lost with the rest, and the flush that
    /// covers it knows nothing of that.
    private func isHit(_ slot: OperationSlot, failed: UInt32) -> Bool {
        if failed & (1 << UInt32(SegmentTable.device(slot.segment))) != 0 { return true }
        let state = segments.pointer(slot.segment)
        return state.pointee.flushFailed && slot.page >= state.pointee.flushedPages
    }

    /// The same of its records.
    private func recordsAreHit(_ slot: OperationSlot) -> Bool {
        func isHit(_ place: Place?) -> Bool {
            guard let place else { return false }
            let state = segments.pointer(place.segment)
            // A record has no pages: its place is the end of the descriptors.
            return state.pointee.flushFailed && place.page > state.pointee.flushedPages
        }
        return isHit(slot.recordPlaces.0) || isHit(slot.recordPlaces.1)
    }

    /// A put that was acknowledged from staging, and whose write a failed flush has thrown in
    /// doubt, is written once more while there is somewhere to write it.
    private func rewriteElsewhere(_ operation: Int32) -> Bool {
        let slot = operations.slots + Int(operation)
        guard !slot.pointee.rewritten, !slot.pointee.raising,
            devices.contains(where: { $0.takesWrites })
        else { return false }
        slot.pointee.rewritten = true
        statistics.rewrites += 1
        enqueue(operation, kind: .fresh)
        return true
    }

    /// Takes a segment out of writing for this run. What it holds stays readable, each read
    /// checked.
    func quarantine(_ segment: UInt32) {
        let state = segments.pointer(segment)
        if state.pointee.state == .quarantined { return }
        for stream in streams.indices where streams[stream].segment == segment {
            abandonSegment(stream)
        }
        if state.pointee.state == .clean {
            reclaimers[SegmentTable.device(segment)].clean.removeAll { $0 == segment }
        }
        state.pointee.state = .quarantined
        statistics.quarantinedSegments += 1
        hidesValues = true
        let flushed = state.pointee.flushedPages
        func isLost(_ moved: (segment: UInt32, end: UInt32)) -> Bool {
            moved.segment == segment && moved.end > flushed
        }
        if rewritten.contains(where: isLost)
            || reclaimers.contains(where: { $0.movedTo.contains(where: isLost) })
        {
            state.pointee.holdsLostMoves = true
        }
        // Of what recovery found in it nobody knows what was moved there.
        if flush.isFirst, flushed < state.pointee.writtenPages {
            state.pointee.holdsLostMoves = true
        }
    }
}
