// Health: looks each turn how the devices do, probes those that do badly, and gives up what hangs
// on one that has been silent for long while others are well: flushes fail on it, gathered groups
// are written elsewhere, the manifest and checkpoints go on without it. What the device may still
// write to or read from stays untouched until it lets go: buffers, callers' memory, segments.
//
// Invariant: nothing here calls a block durable or gone; a request that was given up and ends after
// all changes nothing but the memory that it held.

import BlockIO
import SegmentFormat

/// The memory of a checkpoint that was given up, until the device has let go of it.
struct OrphanedCheckpoint {
    var number: UInt32
    var device: Int
    var pending: Int
    var pool: MemoryPool?
    var header: UnsafeMutableRawPointer?
}

extension LogStore {
    // MARK: Each turn

    /// Whether anything changed: what was given up is to go on elsewhere, in the next turn.
    func advanceHealth() -> Bool {
        healthNow = clock.monotonic
        var changed = false
        for device in lanes.indices where devices[device].state.isPresent {
            let isOver = watch(device)
            // Told before anything is answered that follows from it.
            let grade = devices[device].health.grade
            if grade != lanes[device].grade {
                gradeChanged(device, to: grade)
                changed = true
            }
            if isOver {
                giveUp(device)
                changed = true
            }
            if lanes[device].gaveUp, !lanes[device].waiting.isEmpty {
                giveUpWaiting(device)
                changed = true
            }
            if let next = devices[device].health.nextProbe, healthNow >= next,
                !lanes[device].isProbing
            {
                probe(device)
            }
        }
        if manifestState.failed != 0, catchUp() { changed = true }
        return changed
    }

    /// Whether what the device has under way is to be given up now.
    private func watch(_ device: Int) -> Bool {
        guard lanes[device].underWay > 0 else { return false }
        if lanes[device].silentSince == 0 {
            lanes[device].silentSince = healthNow
            return false
        }
        let silence = healthNow - lanes[device].silentSince
        guard silence >= DeviceHealth.lateSilence else { return false }
        let hasOthers = recovery == nil && hasOthers(device)
        devices[device].health.silent(silence, hasOthers: hasOthers, at: healthNow)
        if silence >= DeviceHealth.longSilence, !lanes[device].gaveUp,
            !devices[device].takesWrites, recovery == nil
        {
            lanes[device].gaveUp = true
            return true
        }
        return false
    }

    private func gradeChanged(_ device: Int, to grade: DeviceHealth.Grade) {
        lanes[device].grade = grade
        limitLane(device)
        advanceLane(device)
        statistics.gradeChanges += 1
        delegate?.deviceChanged(device, to: devices[device].state)
        _ = catchUp()
    }

    /// A member that has missed epochs of the manifest is given the next one.
    private func catchUp() -> Bool {
        guard missesEpochs, manifestState.isIdle, manifestState.exists, !readOnly,
            healthNow >= manifestState.retryAt
        else { return false }
        manifestState.retryAt = healthNow + Self.manifestPause
        manifestState.dirty = true
        return true
    }

    private static let manifestPause: UInt64 = 1_000_000_000

    /// Whether a member that takes writes does not have the newest manifest.
    var missesEpochs: Bool {
        guard manifestState.failed != 0 else { return false }
        for device in devices.indices
        where manifestState.failed & (1 << UInt32(device)) != 0 && devices[device].takesWrites {
            return true
        }
        return false
    }

    /// When the log has to be awake for the sake of its devices; `UInt64.max` while all is well.
    package var nextLook: UInt64 {
        var next =
            missesEpochs && manifestState.isIdle && !readOnly
            ? max(manifestState.retryAt, healthNow + 1) : UInt64.max
        for device in lanes.indices where devices[device].state.isPresent {
            if let probe = devices[device].health.nextProbe, !lanes[device].isProbing {
                next = min(next, probe)
            }
            guard lanes[device].underWay > 0, !lanes[device].gaveUp else { continue }
            let since = lanes[device].silentSince == 0 ? healthNow : lanes[device].silentSince
            if healthNow < since + DeviceHealth.lateSilence {
                next = min(next, since + DeviceHealth.lateSilence)
            } else if healthNow < since + DeviceHealth.longSilence {
                next = min(next, since + DeviceHealth.longSilence)
            }
        }
        return next
    }

    // MARK: Probes

    /// Reads a page of the manifest, which every member has.
    private func probe(_ device: Int) {
        guard devices[device].manifestFile != .none else { return }
        lanes[device].isProbing = true
        devices[device].health.probed(at: healthNow)
        statistics.probes += 1
        issueProbe(
            IORequest(
                tag: Self.tag(.probe, Int32(device)), operation: .read,
                file: devices[device].manifestFile, fileOffset: 0,
                piece: probePool.piece(Int32(device), length: FormatConstants.pageBytes)),
            on: device)
    }

    func probed(_ device: Int, _ completion: IOCompletion) {
        lanes[device].isProbing = false
        if completion.result < 0 {
            deviceFailed(device, errno: Int32(truncatingIfNeeded: -completion.result))
        }
    }

    // MARK: Giving up

    private static let silent = -Int64(LogStore.givenUp)

    private func giveUp(_ device: Int) {
        statistics.silences += 1
        giveUpWaiting(device)
        giveUpBounceReads(device)
        giveUpGroups(device)
        giveUpFlush(device)
        giveUpManifest(device)
        giveUpCheckpoint(device)
    }

    /// What the driver does not have yet ends here; so does what is asked of the device from then
    /// on, until it answers.
    private func giveUpWaiting(_ device: Int) {
        var kept: [IORequest] = []
        for queue in [pacers[device].queue, pacers[device].later] {
            while let request = queue.popFirst() {
                pacers[device].underWay += 1
                kept.append(request)
            }
        }
        while let request = lanes[device].waiting.popFirst() { kept.append(request) }
        for request in kept {
            handle(IOCompletion(tag: request.tag, result: Self.silent, deviceNanoseconds: 0))
        }
    }

    /// Gathered groups have their bytes in their buffer, which stays as it is; what they held is
    /// written elsewhere. Of blocks written from where they lie the caller's memory is still the
    /// device's: those wait on.
    private func giveUpGroups(_ device: Int) {
        for group in 0..<groupCount {
            let target = groups + group
            guard target.pointee.inUse, target.pointee.issued, !target.pointee.isDirect,
                !target.pointee.isOrphan, SegmentTable.device(target.pointee.segment) == device
            else { continue }
            giveUpGroup(Int32(group))
        }
    }

    private func giveUpManifest(_ device: Int) {
        guard devices[device].manifestRequests > 0, !devices[device].manifestGivenUp else { return }
        devices[device].manifestGivenUp = true
        devices[device].manifestWrites = 0
        devices[device].manifestFailures = 0
        manifestState.failed |= 1 << UInt32(device)
        manifestState.pendingIO -= devices[device].manifestRequests
        if manifestState.pendingIO == 0 { manifestEnded() }
    }

    private func giveUpCheckpoint(_ device: Int) {
        guard checkpointer.pendingIO > 0, checkpointer.device == device else { return }
        orphanedCheckpoints.append(
            OrphanedCheckpoint(
                number: checkpointer.attempt, device: device, pending: checkpointer.pendingIO,
                pool: checkpointPool, header: checkpointHeaderMemory))
        checkpointPool = nil
        checkpointHeaderMemory = nil
        checkpointer.pendingIO = 0
        endCheckpoint(failed: true)
    }

    /// A request of a checkpoint that was given up has ended.
    func orphanEnded(_ number: UInt32, isPaced: Bool) {
        guard let place = orphanedCheckpoints.firstIndex(where: { $0.number == number }) else {
            return
        }
        if isPaced { pacedEnded(orphanedCheckpoints[place].device) }
        orphanedCheckpoints[place].pending -= 1
        if orphanedCheckpoints[place].pending == 0 {
            orphanedCheckpoints[place].header?.deallocate()
            orphanedCheckpoints.remove(at: place)
        }
    }

    // MARK: What may be left behind

    /// Whether a device has been silent for so long that what is under way on it was given up.
    package func isSilent(_ device: Int) -> Bool { lanes[device].gaveUp }

    package var anySilent: Bool { lanes.contains { $0.gaveUp } }

    /// Whether nothing is under way but what hangs on a silent device, which closing does not wait
    /// for.
    package var isIdleBesideSilent: Bool {
        guard anySilent else { return isIdle }
        for index in 0..<operations.capacity
        where operations.slots[index].kind != .free && !hangs(operations.slots[index]) {
            return false
        }
        return flush.isIdle && backlog.isEmpty && recovery == nil && (lister.isIdle || listHangs)
            && manifestState.isIdle && checkpointer.phase == .idle && sweeper.slots.isEmpty
            && reclaimers.allSatisfy {
                lanes[$0.device].gaveUp || $0.phase == .idle || isAtRest($0)
            }
    }

    private var listHangs: Bool {
        guard lister.phase == .reading, case .segment(let segment, _)? = lister.list?.place else {
            return false
        }
        return isSilent(of: segment)
    }

    private func isSilent(of segment: UInt32) -> Bool {
        lanes[SegmentTable.device(segment)].gaveUp
    }

    /// Whether an operation waits for a device that is silent.
    func hangs(_ slot: OperationSlot) -> Bool {
        switch (slot.kind, slot.phase) {
        case (.relocate, _): lanes[Int(slot.token & 31)].gaveUp && !slot.isRewrite
        case (.append, .inGroup): isSilent(of: slot.segment)
        case (.read, .reading), (.append, .reading): isSilent(of: slot.entry.place.segment)
        case (_, .waitingForKey):
            operations[pending.find(slot.fingerprint, operations)].phase != .waitingForKey
                && hangs(operations[pending.find(slot.fingerprint, operations)])
        default: false
        }
    }

    /// A device to write values to in the place of one that is slow, if there is one that is well:
    /// in store mode one that has room.
    func better(than device: Int, _ kind: StreamKind) -> Int? {
        guard devices.count > 1, devices[device].state == .slow else { return nil }
        switch kind {
        case .fresh: break
        // Where the victim's space is all that there is, its blocks stay on its device.
        case .reinserted: if configuration.mode == .store { return nil }
        case .recordsA, .recordsB: return nil
        }
        for step in 1..<devices.count {
            let other = (device + step) % devices.count
            guard devices[other].state == .healthy else { continue }
            if configuration.mode == .cache
                || canGainSegment(WriteStream(kind: kind, device: other, number: 0))
            {
                return other
            }
        }
        return nil
    }
}
