// The manifest while the store runs: one write at a time, to both slots of its epoch on every
// present member, then a flush. A change counts when two epochs in a row carry it: then it stands
// at four places, of which one write that lands elsewhere leaves one. Whoever needs it durable
// waits for that. Generations and versions are handed out only below limits that count.

import BlockIO
import SegmentFormat

struct ManifestState {
    /// A change waits to be written.
    var dirty = false
    var pendingIO = 0
    /// The store has a durable manifest: before that nothing else is made on its devices.
    var exists = false
    /// The first of the two epochs that carry a change is durable, and the second one not yet.
    var isHalfDone = false
    /// Changes in a row that no member could take.
    var failures = 0
    /// Devices whose copy of the running epoch, or of the last one, failed.
    var failed: UInt32 = 0
    /// Monotonic time before which it is not written again for their sake.
    var retryAt: UInt64 = 0
    var waiting: [ManifestWaiter] = []
    var running: [ManifestWaiter] = []
    /// What counts, and what the epochs under way carry.
    var limits = ManifestLimits()
    var runningLimits = ManifestLimits()
    var isIdle: Bool {
        !dirty && !isHalfDone && pendingIO == 0 && waiting.isEmpty && running.isEmpty
    }
}

/// Below these, generations and versions may be given out.
struct ManifestLimits {
    var generation: UInt64 = 0
    var version: UInt64 = 0
}

/// What happens when the manifest's next change counts.
enum ManifestWaiter {
    case namespace(token: UInt64, slot: UInt16)
    case purge(token: UInt64, slot: UInt16)
    case strike(token: UInt64, device: Int)
    case change(token: UInt64)

    func makes(namespace wanted: UInt16) -> Bool {
        if case .namespace(_, let slot) = self { slot == wanted } else { false }
    }
}

extension LogStore {
    /// Generations reserved at a time, and versions.
    static let generationStep: UInt64 = 1024
    static let versionStep: UInt64 = 1 << 20

    /// A generation under the limit that counts; nil while the limit is being raised.
    func takeGeneration() -> UInt64? {
        if nextGeneration + 1 + Self.generationStep / 2 >= manifest.generationLimit {
            manifest.generationLimit += Self.generationStep
            manifestState.dirty = true
        }
        guard nextGeneration + 1 < manifestState.limits.generation else { return nil }
        nextGeneration += 1
        return nextGeneration
    }

    /// Keeps the version limit that counts ahead; false when versions have run out for now.
    func reserveVersions() -> Bool {
        if nextVersion + Self.versionStep / 2 >= manifest.versionLimit {
            manifest.versionLimit += Self.versionStep
            manifestState.dirty = true
        }
        return nextVersion + 4 < manifestState.limits.version
    }

    /// What the next manifest says of the account of writes; `soon`: one is written for it.
    package func keepWriteBalance(_ balance: Int64, seconds: UInt32, soon: Bool) {
        manifest.writeBalance = balance
        manifest.writeBalanceSeconds = seconds
        if soon, manifestState.exists, !readOnly { manifestState.dirty = true }
    }

    func advanceManifest() {
        guard manifestState.dirty || manifestState.isHalfDone, manifestState.pendingIO == 0
        else { return }
        if !manifestState.isHalfDone {
            manifestState.dirty = false
            manifestState.running = manifestState.waiting
            manifestState.waiting = []
            manifestState.runningLimits = ManifestLimits(
                generation: manifest.generationLimit, version: manifest.versionLimit)
        }
        manifestState.failed = 0
        manifest.epoch += 1
        manifest.namespaces = namespaces.records
        manifest.wallSecondsFloor = max(manifest.wallSecondsFloor, wallSeconds)
        manifestState.pendingIO = 1  // held until all are issued
        for device in devices.indices {
            if devices[device].isReadable, !devices[device].manifestGivenUp {
                writeManifest(device)
            } else if devices[device].state.isPresent {
                manifestState.failed |= 1 << UInt32(device)
            }
        }
        manifestState.pendingIO -= 1
        if manifestState.pendingIO == 0 { manifestEnded() }
    }

    private func writeManifest(_ device: Int) {
        manifest.thisDevice = UInt8(device)
        let memory = manifestPool.pointer(Int32(device))
        do {
            try manifest.encode(
                into: UnsafeMutableRawBufferPointer(start: memory, count: Manifest.copyBytes))
        } catch {
            manifestState.failed |= 1 << UInt32(device)
            return
        }
        for copy in Manifest.places(of: manifest.epoch) {
            manifestState.pendingIO += 1
            devices[device].manifestRequests += 1
            issue(
                IORequest(
                    tag: Self.tag(.manifestWrite, Int32(device)), operation: .write,
                    file: devices[device].manifestFile,
                    fileOffset: UInt64(copy * Manifest.copyBytes),
                    piece: manifestPool.piece(Int32(device), length: Manifest.copyBytes)),
                on: device)
        }
    }

    func manifestCompleted(_ kind: IOKind, device: Int, _ completion: IOCompletion) {
        devices[device].manifestRequests -= 1
        if devices[device].manifestGivenUp {
            if devices[device].manifestRequests == 0 {
                devices[device].manifestGivenUp = false
                if !readOnly { manifestState.dirty = true }
            }
            return
        }
        manifestState.pendingIO -= 1
        if completion.result < 0 {
            deviceFailed(device, errno: Int32(truncatingIfNeeded: -completion.result))
            if kind == .manifestWrite {
                devices[device].manifestFailures += 1
            } else {
                manifestState.failed |= 1 << UInt32(device)
            }
        }
        if kind == .manifestWrite {
            devices[device].manifestWrites += 1
            if devices[device].manifestWrites == 2 {
                // A place that takes no more writes leaves the other one.
                if devices[device].manifestFailures == 2 {
                    manifestState.failed |= 1 << UInt32(device)
                }
                devices[device].manifestWrites = 0
                devices[device].manifestFailures = 0
                manifestState.pendingIO += 1
                devices[device].manifestRequests += 1
                statistics.metadataBytes += UInt64(2 * Manifest.copyBytes)
                issue(
                    IORequest(
                        tag: Self.tag(.manifestSync, Int32(device)), operation: .sync,
                        file: devices[device].manifestFile, fileOffset: 0,
                        piece: Piece(region: .process, offset: 0, length: 0)),
                    on: device)
            }
        }
        if manifestState.pendingIO == 0 { manifestEnded() }
    }

    /// An epoch is durable when it is so on at least one member: the newest one wins at open.
    func manifestEnded() {
        let durable = devices.contains {
            $0.isReadable && manifestState.failed & (1 << UInt32($0.index)) == 0
        }
        if durable, !manifestState.isHalfDone {
            manifestState.isHalfDone = true
            return
        }
        manifestState.isHalfDone = false
        if durable {
            manifestState.limits = manifestState.runningLimits
            manifestState.failures = 0
            manifestState.exists = true
        } else {
            statistics.manifestErrors += 1
            manifestState.failures += 1
            if manifestState.failures < 4 {
                // Once more before anybody is refused, at the same two places: the others hold the
                // last epoch that is durable.
                manifest.epoch += 1
                manifestState.waiting = manifestState.running + manifestState.waiting
                manifestState.running = []
                manifestState.dirty = true
                return
            }
            readOnly = true
        }
        let waiters = manifestState.running
        manifestState.running = []
        for waiter in waiters { resolve(waiter, durable: durable) }
        if !waitingToStart.isEmpty { resumeWaitingToStart() }
    }

    private func resolve(_ waiter: ManifestWaiter, durable: Bool) {
        switch waiter {
        case .namespace(let token, let slot):
            var outcome = Outcome(token: token, status: durable ? .done : .failed)
            outcome.version = UInt64(slot)
            delegate?.finished(outcome)
        case .purge(let token, let slot):
            if durable { sweeper.slots.append(slot) }
            delegate?.finished(Outcome(token: token, status: durable ? .done : .failed))
        case .strike(let token, let device):
            // Not before: what is no longer kept for it would be gone, were it a member still.
            if durable {
                devices[device].leave(.struck)
                spreading.memberIsGone = true
                spreading.isWanted = true
                spreading.lookAt = 0
            }
            delegate?.finished(Outcome(token: token, status: durable ? .done : .failed))
        case .change(let token):
            delegate?.finished(Outcome(token: token, status: durable ? .done : .failed))
        }
    }

    // MARK: Namespaces

    /// Finds or makes a namespace. Outcome `.done` with the slot in `version`; `.invalid` when the
    /// fields do not fit, `.noSpace` when the table is full, `.conflict` with another layout.
    /// `createdVersion` is for blocks that bring lower versions with them: see `raiseVersions`.
    package func openNamespace(
        token: UInt64, fields: [(String, String)], aligned: Bool, timeToLive: UInt32,
        capBytes: UInt64, createdVersion: UInt64? = nil
    ) {
        let fingerprint = NamespaceRecord.fingerprint(fields: fields)
        if let slot = namespaces.find(fingerprint) {
            var outcome = Outcome(token: token, status: .done)
            outcome.version = UInt64(slot)
            // The fingerprint is not keyed: who chose it to collide gets an error, not the keys.
            if namespaces.aligned(slot) != aligned || !namespaces.has(slot, fields) {
                outcome.status = .conflict
            } else if awaitsManifest(slot, token) {
                return
            }
            delegate?.finished(outcome)
            return
        }
        guard !readOnly else {
            delegate?.finished(Outcome(token: token, status: .readOnly))
            return
        }
        var record = NamespaceRecord(
            instance: manifest.nextNamespaceInstance, fingerprint: fingerprint, state: 0,
            aligned: aligned, ttlSeconds: timeToLive, capBytes: capBytes, fields: fields)
        record.createdVersion = min(createdVersion ?? nextVersion, nextVersion)
        guard let slot = namespaces.add(record) else {
            delegate?.finished(Outcome(token: token, status: .noSpace))
            return
        }
        manifest.nextNamespaceInstance += 1
        manifest.namespaces = namespaces.records
        guard manifest.fits else {
            _ = namespaces.retire(slot)
            namespaces.release(slot)
            delegate?.finished(Outcome(token: token, status: .invalid))
            return
        }
        manifestState.waiting.append(.namespace(token: token, slot: slot))
        manifestState.dirty = true
    }

    /// A namespace that somebody else is just making is there for nobody before it is durable, or
    /// what is put under it could be lost with it.
    private func awaitsManifest(_ slot: UInt16, _ token: UInt64) -> Bool {
        let waiter = ManifestWaiter.namespace(token: token, slot: slot)
        if manifestState.running.contains(where: { $0.makes(namespace: slot) }) {
            manifestState.running.append(waiter)
            return true
        }
        guard manifestState.waiting.contains(where: { $0.makes(namespace: slot) }) else {
            return false
        }
        manifestState.waiting.append(waiter)
        return true
    }

    /// Retires a namespace's instance durably: its keys are gone at once and for good.
    package func purge(token: UInt64, _ slot: UInt16) {
        if namespaces.isDraining(slot) {
            // Purged before, perhaps not durably yet, or in vain: that is what is waited for.
            guard !readOnly else {
                delegate?.finished(Outcome(token: token, status: .readOnly))
                return
            }
            manifestState.waiting.append(.change(token: token))
            manifestState.dirty = true
            return
        }
        guard namespaces.isLive(slot), namespaces.retire(slot) != nil else {
            delegate?.finished(Outcome(token: token, status: .notFound))
            return
        }
        manifestState.waiting.append(.purge(token: token, slot: slot))
        manifestState.dirty = true
    }

    // MARK: Members

    /// Takes a member that is away out of the membership for good: tombstones need no longer be
    /// kept for it, and should it come back, it starts empty. Outcome `.done`, `.notFound`,
    /// `.failed`.
    package func strike(token: UInt64, device: Int) {
        guard devices.indices.contains(device), !readOnly,
            devices[device].state == .absent || devices[device].state == .out
        else {
            delegate?.finished(Outcome(token: token, status: readOnly ? .readOnly : .notFound))
            return
        }
        manifest.devices[device].state = 2
        manifest.membershipEpoch += 1
        for index in devices.indices where devices[index].state.isPresent {
            manifest.devices[index].membershipEpoch = manifest.membershipEpoch
        }
        manifestState.waiting.append(.strike(token: token, device: device))
        manifestState.dirty = true
    }

    // MARK: Sweeping purged instances out of the index

    /// A stretch of the index at each pump, so that a purge of millions never holds the owner.
    func advanceSweep() {
        guard let slot = sweeper.slots.first, sweepOwner == nil || sweepOwner == -1 else { return }
        sweepOwner = -1
        sweeper.bucket = index.sweep(from: sweeper.bucket, buckets: 4096) { fingerprint, entry in
            guard entry.namespaceSlot == slot else { return false }
            sweptOut(entry)
            delegate?.evicted(fingerprint)
            return true
        }
        if sweeper.bucket >= index.bucketCount {
            sweeper.bucket = 0
            // Its number may not go to another while anybody still means this one by it.
            if isUsed(slot) || delegate?.holds(namespaceSlot: slot) == true {
                sweepOwner = nil
                return
            }
            sweeper.slots.removeFirst()
            namespaces.release(slot)
            sweepOwner = nil
        }
    }
}

extension LogStore {
    /// Whether an operation under way names a namespace slot.
    private func isUsed(_ namespace: UInt16) -> Bool {
        for index in 0..<operations.capacity
        where operations.slots[index].kind != .free
            && operations.slots[index].namespaceSlot == namespace
        { return true }
        return false
    }
}

struct Sweeper {
    var slots: [UInt16] = []
    var bucket = 0
}
