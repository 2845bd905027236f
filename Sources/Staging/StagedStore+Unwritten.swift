// Unwritten blocks: volatile puts that stay in memory alone, since the devices are behind with
// writing or the writes of the day are used up. They are read as any resident and leave as any
// clean one, which is then told as lost; a later put of one writes it if there is room by then.
// And the other way around: a put of a block that is on disk alone leaves the copy in memory that
// it brought.
//
// Invariants: an unwritten resident has no write under way and no entry in the index that could be
// read in this run, now or later; each of them that leaves without having been deleted, replaced by
// its writer, purged, or expired is told of once.

import LogStore
import SegmentFormat

extension StagedStore {
    /// Asks the gate about a put. False: it is not admitted at all.
    func passesGate(_ index: Int32) -> Bool {
        let slot = operations.slots + Int(index)
        // Before the index is complete nobody knows what is new. Who may not write is told so.
        guard let gate, log.isRecovered, !log.readOnly, !slot.pointee.message.replace,
            !slot.pointee.isUnwritten, !slot.pointee.isAdmitted,
            !isPresent(slot.pointee.fingerprint)
        else { return true }
        let message = slot.pointee.message
        // A block that was written and cannot be read is put once more.
        let hidesCopy = log.hidesCopy(slot.pointee.fingerprint)
        // Only what may stay in memory alone can wait there until it is put once more.
        slot.pointee.isAdmitted = gate.admits(
            keyHash: keyHash(message.key), bytes: message.length,
            again: hidesCopy || message.durability != .volatile)
        if slot.pointee.isAdmitted { return true }
        slot.pointee.isUnwritten =
            message.durability == .volatile && retains && arena != nil && !hidesCopy
        return slot.pointee.isUnwritten
    }

    /// Whether so much waits to be written that a volatile put is to stay in memory alone.
    func isBehind(_ request: AppendRequest, bytes: UInt32) -> Bool {
        guard request.durability == .volatile, !request.replace, retains, let arena,
            !log.readOnly, !closing
        else { return false }
        // What memory alone has does not keep an older copy from coming back with its device.
        return arena.dirtyBytes + Int(bytes) > dirtyLimit && !log.hidesCopy(request.fingerprint)
    }

    /// The image is made: the put ends here.
    func keepUnwritten(_ index: Int32, _ resident: ResidentSlot, _ info: ResidentInfo) {
        guard let arena else { return }
        statistics.unwrittenPuts += 1
        statistics.unwrittenBytes += UInt64(info.length)
        arena.publish(resident, dirty: false)
        if !closing { arena.setUnwritten(resident) }
        var stored = StoreAnswer(token: operations[index].message.token, status: .stored)
        stored.version = info.version
        stored.length = info.length
        deliver(index, stored)
        resumeJoined(resident.index)
        if closing { lost(info.version) }
    }

    /// The store is closed: what is in memory alone is told as lost while somebody still listens.
    /// It is read until the end.
    func loseUnwritten() {
        guard let arena, arena.statistics.unwritten > 0 else { return }
        for index in 0..<Int32(arena.residentCapacity) {
            if let version = arena.giveUp(index) { lost(version) }
        }
    }

    /// A put of a key that is in memory alone. False: go on as a new put, which writes it.
    func answerFromUnwritten(_ index: Int32, _ resident: ResidentSlot) -> Bool {
        guard let arena else { return false }
        let message = operations[index].message
        let info = arena.info(resident)
        if message.replace { return false }
        if info.isExpired(log.wallSeconds) {
            arena.remove(resident)
            return false
        }
        let isAdmitted =
            gate?.admits(keyHash: keyHash(message.key), bytes: message.length, again: true) ?? true
        if message.durability == .volatile,
            !isAdmitted || isBehind(request(index), bytes: info.storedBytes)
        {
            answerPresent(index, resident)
            return true
        }
        guard isAdmitted else {
            statistics.notAdmitted += 1
            answer(index, .notAdmitted)
            return true
        }
        // What was put first was never promised to a device: it is given up for what comes now.
        operations[index].isAdmitted = true
        lost(info.version)
        arena.remove(resident)
        return false
    }

    /// A block that only a device has was put once more: what was brought stays as a copy, if it is
    /// what is on disk, byte by byte as far as the checksum of the stored one tells.
    func keepCopy(_ index: Int32) {
        let slot = operations.slots + Int(index)
        guard retains, let arena, let entry = log.lookup(slot.pointee.fingerprint).entry,
            !entry.isDamaged, entry.length == slot.pointee.message.length,
            log.namespaces.isLive(slot.pointee.message.namespaceSlot)
        else { return }
        let made = request(index)
        let info = ResidentInfo(
            version: log.version(entry), length: entry.length,
            storedBytes: UInt32(imageBytes(made)), shardCount: UInt16(entry.shardCount - 1),
            aligned: log.namespaces.aligned(entry.namespaceSlot), checksum: entry.checksum,
            expiry: entry.expiry, namespaceSlot: entry.namespaceSlot)
        guard entry.shardCount == made.shardCount else { return }
        let key = slot.pointee.fingerprint.stagingKey
        let late = arena.find(key).map { $0.slot }
        if let late {
            // What is here need not be waited for: the prefetch's resident goes, and whoever waits
            // for it starts again.
            guard isPrefetching(late) else { return }
            arena.remove(late)
        }
        defer { if let late { resumeJoined(late.index) } }
        guard case .slot(let resident) = reserve(key, info, in: arena) else { return }
        var errno: Int32 = 0
        let checksum = buildScattered(
            arena.pieces(resident), Int(info.storedBytes), made, info.version, &errno)
        guard errno == 0, checksum == entry.checksum else {
            arena.remove(resident)
            return
        }
        statistics.copiesKept += 1
        arena.publish(resident, dirty: false)
    }

    /// Room for a block; tells of the unwritten residents that have been evicted for it.
    @inline(__always)
    func reserve(
        _ key: StagingKey, _ info: ResidentInfo, in arena: StagingArena, earlyFor due: UInt64? = nil
    ) -> ReserveResult {
        let made = arena.reserve(key, info: info, earlyFor: due)
        while let version = arena.takeLost() { lost(version) }
        return made
    }

    private func lost(_ version: UInt64) {
        statistics.volatileLost += 1
        sink?.happened(.volatileLost(version: version, errno: 0))
    }
}
