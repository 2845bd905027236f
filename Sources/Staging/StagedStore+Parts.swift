// Parts: runs of shards of a block as residents of their own, so that a layer's pages can be
// brought early, and kept, without the rest of their blocks. A part is named by the block's
// fingerprint and the run, lies in slabs without the shard table, and serves exactly the gets
// that ask for that run.
//
// Invariants: only the owner thread knows parts, so that a reader on a caller's thread never
// takes one for a block, and no lease is of one, since who holds a lease takes it for a whole
// image; a part is served only while the index has the very version that it was read of, so what
// was replaced, deleted or has expired is never read from one.

import BlockIO
import LogStore
import SegmentFormat

extension Fingerprint {
    /// The name of a run of shards; of that, the block's again.
    @inline(__always)
    package func part(_ first: Int, _ count: Int) -> Fingerprint {
        let word = UInt64(truncatingIfNeeded: first) << 16 | UInt64(truncatingIfNeeded: count)
        return Fingerprint(
            hi: hi ^ (word &* 0x9E37_79B9_7F4A_7C15), lo: lo ^ (word &* 0xC2B2_AE3D_27D4_EB4F))
    }
}

/// Where a run of shards lies in its block's stored image.
enum PartPlace {
    case needsTable
    /// All of the block, or not in whole pages of its own.
    case none
    case at(Range<Int>, length: UInt32)
}

extension StagedStore {
    func asksForPart(_ message: StoreOperation) -> Bool {
        message.kind == .get && message.shardCount > 0 && message.byteCount == 0
            && message.byteOffset == 0
    }

    /// The name under which an operation's data would be resident, other than as its block.
    func ownFingerprint(_ index: Int32) -> Fingerprint {
        let slot = operations.slots + Int(index)
        guard asksForPart(slot.pointee.message) else { return slot.pointee.fingerprint }
        return slot.pointee.fingerprint.part(
            slot.pointee.message.firstShard, slot.pointee.message.shardCount)
    }

    func partPlace(
        _ fingerprint: Fingerprint, _ entry: IndexEntry, _ first: Int, _ count: Int
    ) -> PartPlace {
        guard first >= 0, count > 0, count < entry.shardCount, first <= entry.shardCount - count
        else { return .none }
        guard let table = log.cachedTable(fingerprint, entry),
            let range = log.imageRange(fingerprint, entry, firstShard: first, shards: count)
        else { return .needsTable }
        var bytes = 0
        for shard in first..<(first + count) { bytes += Int(shardLength(table, shard)) }
        guard bytes > 0, range.count == bytes,
            range.lowerBound % FormatConstants.pageBytes == 0
        else { return .none }
        return .at(range, length: UInt32(bytes))
    }

    private func partInfo(_ entry: IndexEntry, _ length: UInt32) -> ResidentInfo {
        let page = FormatConstants.pageBytes
        return ResidentInfo(
            version: log.version(entry), length: length,
            storedBytes: UInt32((Int(length) + page - 1) / page * page),
            checksum: entry.checksum, expiry: entry.expiry, namespaceSlot: entry.namespaceSlot)
    }

    // MARK: Getting

    /// Serves a get from the part that is there, or joins its reading. False: there is none.
    func takePart(_ index: Int32) -> Bool {
        let slot = operations.slots + Int(index)
        guard let arena, configuration.keepsParts, asksForPart(slot.pointee.message),
            slot.pointee.message.mode != .lease
        else { return false }
        guard let found = arena.find(ownFingerprint(index).stagingKey) else { return false }
        if found.state == .filling {
            guard slot.pointee.message.mode != .direct || isPrefetching(found.slot) else {
                return false
            }
            note(index, .joined, resident: found.slot.index)
            statistics.sharedReads += 1
            join(index, found.slot)
            return true
        }
        guard let entry = log.lookup(slot.pointee.fingerprint).entry, !entry.isDamaged,
            log.version(entry) == arena.info(found.slot).version
        else {
            arena.remove(found.slot)
            return false
        }
        slot.pointee.entry = entry
        log.touched(slot.pointee.fingerprint)
        note(
            index, .resident, bytes: arena.info(found.slot).length, resident: found.slot.index)
        servePart(index, found.slot, tier: .staging)
        return true
    }

    func servePart(_ index: Int32, _ resident: ResidentSlot, tier: HitTier) {
        guard let arena else { return }
        let slot = operations.slots + Int(index)
        let length = arena.info(resident).length
        var made = StoreAnswer(token: slot.pointee.message.token, status: .hit)
        made.tier = tier
        made.version = arena.info(resident).version
        made.length = slot.pointee.entry.length
        made.shardCount = slot.pointee.entry.shardCount
        let pieces = arena.pieces(resident)
        guard let base = pieces.baseAddress, !slot.pointee.abandoned else {
            deliver(index, made)
            return
        }
        if let target = slot.pointee.message.pieces,
            UInt64(length) <= destinationBytes(index)
        {
            let memory = PieceMemory(
                pieces: base, count: pieces.count, regions: log.driver.regions)
            var cursor = PieceCursor(
                pieces: target, count: slot.pointee.message.pieceCount,
                regions: log.driver.regions)
            memory.copy(at: 0, count: Int(length), into: &cursor)
            made.delivered = UInt64(length)
        } else {
            made.status = .invalid
        }
        if made.status == .hit {
            arena.touch(resident)
            if tier == .staging { statistics.hitsStaging += 1 } else { statistics.hitsDevice += 1 }
            if !configuration.inclusive { arena.demote(resident) }
        } else {
            made.tier = .none
        }
        deliver(index, made)
    }

    /// Reads a part that a get asked for into slabs of its own. False: it has to be read otherwise.
    func readPart(_ index: Int32, _ entry: IndexEntry) -> Bool {
        let slot = operations.slots + Int(index)
        let message = slot.pointee.message
        guard let arena, configuration.keepsParts, asksForPart(message), message.mode == .cached
        else { return false }
        switch partPlace(
            slot.pointee.fingerprint, entry, message.firstShard, message.shardCount)
        {
        case .needsTable:
            loadTable(index, entry)
            return true
        case .none: return false
        case .at(let range, let length):
            switch arena.reserve(
                ownFingerprint(index).stagingKey, info: partInfo(entry, length))
            {
            case .slot(let resident):
                statistics.stagedReads += 1
                if !fillPart(index, entry, resident, range, length) {
                    waitingForLog.append(index, operations)
                }
                return true
            case .filling(let resident):
                join(index, resident)
                return true
            case .full, .tooLarge: return false
            }
        }
    }

    /// Begins reading a part into its slabs. False: no room in the log; the resident is gone.
    private func fillPart(
        _ index: Int32, _ entry: IndexEntry, _ resident: ResidentSlot, _ range: Range<Int>,
        _ length: UInt32
    ) -> Bool {
        guard let arena else { return false }
        let slot = operations.slots + Int(index)
        let pieces = arena.pieces(resident)
        guard let base = pieces.baseAddress else { return false }
        let message = slot.pointee.message
        let end = range.lowerBound + Int(arena.info(resident).storedBytes)
        var request = ReadRequest(
            token: UInt64(index), fingerprint: slot.pointee.fingerprint,
            namespaceSlot: message.namespaceSlot, key: message.key, entry: entry,
            range: range.lowerBound..<end, pages: true, pieces: base, pieceCount: pieces.count)
        request.firstShard = message.firstShard
        request.shards = message.shardCount
        request.isPrefetch = message.kind == .prefetch
        slot.pointee.resident = resident.index
        slot.pointee.phase = .readingStaged
        slot.pointee.partLength = length
        arena.pin(resident)  // the device writes into it
        if log.read(request) { return true }
        slot.pointee.resident = -1
        slot.pointee.partLength = 0
        arena.unpin(resident)
        arena.remove(resident)
        resumeJoined(resident.index)
        return false
    }

    // MARK: Prefetching

    /// As `startPrefetch`, of a run of shards.
    func startPartPrefetch(_ index: Int32) {
        guard let arena else { return }
        let slot = operations.slots + Int(index)
        let message = slot.pointee.message
        let fingerprint = slot.pointee.fingerprint
        if let found = arena.find(fingerprint.stagingKey), found.state.isVisible {
            endPrefetch(index, .alreadyPresent, resident: found.slot.index)
            return
        }
        let own = fingerprint.part(message.firstShard, message.shardCount)
        if let found = arena.find(own.stagingKey) {
            endPrefetch(index, .alreadyPresent, resident: found.slot.index)
            return
        }
        guard let entry = log.lookup(fingerprint).entry, !entry.isDamaged else {
            endPrefetch(index, .miss)
            return
        }
        slot.pointee.entry = entry
        switch partPlace(fingerprint, entry, message.firstShard, message.shardCount) {
        case .needsTable: loadPrefetchTable(index, entry)
        case .none:
            // Not to be had alone.
            slot.pointee.message.shardCount = 0
            startPrefetch(index)
        case .at(let range, let length):
            switch arena.reserve(
                own.stagingKey, info: partInfo(entry, length), earlyFor: slot.pointee.due)
            {
            case .slot(let resident):
                if fillPart(index, entry, resident, range, length) {
                    statistics.prefetchReads += 1
                } else {
                    endPrefetch(index, .throttled)
                }
            case .filling(let resident):
                endPrefetch(index, .alreadyPresent, resident: resident.index)
            case .full: endPrefetch(index, .throttled)
            case .tooLarge: endPrefetch(index, .tooLarge)
            }
        }
    }
}
