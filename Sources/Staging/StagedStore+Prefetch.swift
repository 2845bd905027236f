// Prefetching: a block is read into slabs before anybody has asked for it, checked like any read,
// and stays as a resident. Nothing waits on behalf of a prefetch: without room for it it ends at
// once, and what it could not do costs its asker nothing but the reading.
//
// Invariants: each prefetch taken ends by exactly one `prefetchEnded`; a block that was deleted,
// replaced or purged while it was read does not become a resident, nor does one that was put
// meanwhile, whose copy is one; gets that wait for it start again when it has ended, well or not,
// and read for themselves if it failed.

import BlockIO
import LogStore
import SegmentFormat

extension StagedStore {
    /// Begins to bring a block, or a run of its shards. Its key's memory stays until
    /// `prefetchEnded`, which may come before this returns. False: no operation is free.
    package func prefetch(
        token: UInt64, _ fingerprint: Fingerprint, namespaceSlot: UInt16,
        key: UnsafeRawBufferPointer, due: UInt64 = .max, part: (first: Int, count: Int) = (0, 0)
    ) -> Bool {
        guard arena != nil, !closing, key.count > 0, key.count <= FormatConstants.maxKeyBytes,
            log.namespaces.isLive(namespaceSlot), log.hasRoom()
        else { return false }
        var message = StoreOperation(
            kind: .prefetch, token: token, namespaceSlot: namespaceSlot, key: key)
        message.firstShard = part.first
        message.shardCount = part.count
        guard let index = operations.take(message) else { return false }
        operations[index].fingerprint = fingerprint
        operations[index].due = due
        operations[index].prefetchAt = Int32(prefetching)
        prefetches[prefetching] = index
        prefetching += 1
        startPrefetch(index)
        return true
    }

    /// The prefetch is not wanted any more: what it reads leaves first, unless a get has joined it.
    package func cancelPrefetch(_ token: UInt64) {
        for place in 0..<prefetching
        where operations[prefetches[place]].message.token == token {
            operations[prefetches[place]].abandoned = true
            return
        }
    }

    /// The token of one of the prefetches under way, of which there are `prefetching`.
    package func prefetchToken(_ place: Int) -> UInt64 {
        operations[prefetches[place]].message.token
    }

    /// As `cancelPrefetch`, of the one in that place.
    package func abandonPrefetch(_ place: Int) { operations[prefetches[place]].abandoned = true }

    func startPrefetch(_ index: Int32) {
        guard let arena else { return }
        let slot = operations.slots + Int(index)
        if slot.pointee.abandoned || closing {
            endPrefetch(index, .cancelled)
            return
        }
        if slot.pointee.message.shardCount > 0 {
            startPartPrefetch(index)
            return
        }
        let key = slot.pointee.fingerprint.stagingKey
        if let found = arena.find(key) {
            endPrefetch(index, .alreadyPresent, resident: found.slot.index)
            return
        }
        // A block with a damaged shard cannot be had whole.
        guard let entry = log.lookup(slot.pointee.fingerprint).entry, !entry.isDamaged else {
            endPrefetch(index, .miss)
            return
        }
        slot.pointee.entry = entry
        guard let bytes = log.imageBytes(slot.pointee.fingerprint, entry) else {
            loadPrefetchTable(index, entry)
            return
        }
        let rounded = (bytes + FormatConstants.pageBytes - 1) & ~(FormatConstants.pageBytes - 1)
        let info = ResidentInfo(
            version: log.version(entry), length: entry.length, storedBytes: UInt32(rounded),
            shardCount: UInt16(entry.shardCount - 1),
            aligned: log.namespaces.aligned(entry.namespaceSlot), checksum: entry.checksum,
            expiry: entry.expiry, namespaceSlot: entry.namespaceSlot)
        switch reserve(key, info, in: arena, earlyFor: slot.pointee.due) {
        case .slot(let resident): fillPrefetch(index, entry, resident, bytes: rounded)
        case .filling(let resident):
            endPrefetch(index, .alreadyPresent, resident: resident.index)
        case .full: endPrefetch(index, .throttled)
        case .tooLarge: endPrefetch(index, .tooLarge)
        }
    }

    func loadPrefetchTable(_ index: Int32, _ entry: IndexEntry) {
        let slot = operations.slots + Int(index)
        if slot.pointee.retried {  // the table came and went again: there is no room for it
            endPrefetch(index, .throttled)
            return
        }
        slot.pointee.retried = true
        slot.pointee.phase = .loadingTable
        let taken = log.loadTable(
            token: UInt64(index), fingerprint: slot.pointee.fingerprint,
            namespaceSlot: slot.pointee.message.namespaceSlot, key: slot.pointee.message.key,
            entry: entry)
        if !taken { endPrefetch(index, .throttled) }
    }

    private func fillPrefetch(
        _ index: Int32, _ entry: IndexEntry, _ resident: ResidentSlot, bytes: Int
    ) {
        guard let arena else { return }
        let slot = operations.slots + Int(index)
        let pieces = arena.pieces(resident)
        guard let base = pieces.baseAddress else { return }
        slot.pointee.resident = resident.index
        slot.pointee.phase = .readingStaged
        var request = ReadRequest(
            token: UInt64(index), fingerprint: slot.pointee.fingerprint,
            namespaceSlot: slot.pointee.message.namespaceSlot, key: slot.pointee.message.key,
            entry: entry, range: 0..<bytes, pages: true, pieces: base, pieceCount: pieces.count)
        request.shards = entry.shardCount
        request.isPrefetch = true
        arena.pin(resident)  // the device writes into it
        if log.read(request) {
            statistics.prefetchReads += 1
            return
        }
        slot.pointee.resident = -1
        arena.unpin(resident)
        arena.remove(resident)
        endPrefetch(index, .throttled)
        resumeJoined(resident.index)
    }

    /// The read, or that of the shard table, has ended.
    func prefetchReadEnded(_ index: Int32, _ outcome: Outcome) {
        guard let arena else { return }
        let slot = operations.slots + Int(index)
        guard slot.pointee.resident >= 0 else {
            if outcome.status == .done { startPrefetch(index) } else { endPrefetch(index, .miss) }
            return
        }
        let resident = ResidentSlot(slot.pointee.resident)
        slot.pointee.resident = -1
        let isOvertaken = arena.state(resident) == .condemned
        arena.unpin(resident)
        if isOvertaken {
            endPrefetch(index, .cancelled)
            return
        }
        // Deleted, replaced or purged meanwhile: what was read must not become a resident.
        let isCurrent =
            outcome.status == .hit && log.namespaces.isLive(slot.pointee.message.namespaceSlot)
            && slot.pointee.entry.isSameBlock(as: log.lookup(slot.pointee.fingerprint).entry)
        guard isCurrent else {
            arena.remove(resident)
            endPrefetch(index, outcome.status == .hit ? .miss : outcome.status)
            resumeJoined(resident.index)
            return
        }
        let isWanted = !slot.pointee.abandoned || joined[Int(resident.index)] >= 0
        arena.publish(resident, dirty: false)
        if !isWanted { arena.demote(resident) }
        endPrefetch(index, isWanted ? .hit : .cancelled, resident: resident.index)
        resumeJoined(resident.index)
    }

    func endPrefetch(_ index: Int32, _ status: Status, resident: Int32 = -1) {
        let token = operations[index].message.token
        let part = operations[index].partLength
        let bytes = part > 0 ? part : operations[index].entry.length
        let place = operations[index].prefetchAt
        prefetching -= 1
        let moved = prefetches[prefetching]
        prefetches[Int(place)] = moved
        operations[moved].prefetchAt = place
        operations.give(index)
        observer?.prefetchEnded(token, status, resident: resident, bytes: bytes)
    }

    /// Whether the resident being filled is filled by a prefetch.
    func isPrefetching(_ resident: ResidentSlot) -> Bool {
        arena?.prefetched[Int(resident.index)] ?? false
    }

    /// Tells the observer that a read it was told of has ended.
    func noteEnd(_ index: Int32, _ status: Status) {
        guard let observer, operations[index].noted else { return }
        let part = operations[index].partLength
        observer.deviceReadEnded(
            ownFingerprint(index), bytes: part > 0 ? part : operations[index].entry.length,
            isHit: status == .hit)
    }

    /// Tells the observer of an operation's access, once.
    func note(_ index: Int32, _ kind: AccessKind, bytes: UInt32 = 0, resident: Int32 = -1) {
        guard let observer, !operations[index].noted else { return }
        operations[index].noted = true
        let message = operations[index].message
        var access = Access(kind: kind, fingerprint: operations[index].fingerprint)
        access.namespaceSlot = message.namespaceSlot
        access.key = message.key
        access.parent = message.parent
        access.bytes = bytes
        access.resident = resident
        access.continues = message.continues
        if asksForPart(message), message.firstShard >= 0 {
            access.firstShard = UInt32(clamping: message.firstShard)
            access.shardCount = UInt32(clamping: message.shardCount)
        }
        observer.accessed(access)
    }
}
