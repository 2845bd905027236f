// Getting: from a resident if there is one; else straight into the caller's memory where mode,
// alignment and region allow it; else into a slab (cached, lease) or, for odd ranges and memory, a
// bounce buffer. Whatever the way, every shard that is touched is checked whole before a hit.

import BlockIO
import LogStore
import SegmentFormat

/// The part of a block that a get asks for.
struct Selection {
    var firstShard: Int
    var shards: Int
    /// The asked bytes, counted from the start of the first selected shard.
    var skip: UInt64
    var count: UInt64
}

extension StagedStore {
    func startGet(_ index: Int32) {
        let slot = operations.slots + Int(index)
        slot.pointee.phase = .start
        slot.pointee.partLength = 0
        if slot.pointee.abandoned {
            answer(index, .cancelled)
            return
        }
        if let arena, let found = arena.find(slot.pointee.fingerprint.stagingKey) {
            let now = log.wallSeconds
            if found.state.isVisible, !arena.info(found.slot).isExpired(now) {
                log.touched(slot.pointee.fingerprint)
                note(
                    index, .resident, bytes: arena.info(found.slot).length,
                    resident: found.slot.index)
                serve(index, found.slot, tier: .staging)
                return
            }
            if found.state == .dirty {
                // It has expired before it was written. What is on disk is older.
                note(index, .miss)
                answer(index, .miss, reason: .expired)
                return
            }
            // A direct get joins only a prefetch: that is ahead, and its memory is no cache more.
            if found.state == .filling,
                slot.pointee.message.mode != .direct || isPrefetching(found.slot)
            {
                note(index, .joined, resident: found.slot.index)
                statistics.sharedReads += 1
                join(index, found.slot)
                return
            }
        }
        if takePart(index) { return }
        let (entry, reason) = log.lookup(slot.pointee.fingerprint)
        guard let entry else {
            note(index, .miss)
            answer(index, .miss, reason: reason)
            return
        }
        slot.pointee.entry = entry
        note(index, .device, bytes: entry.length)
        log.touched(slot.pointee.fingerprint)
        readFromDevice(index, entry)
    }

    func join(_ index: Int32, _ resident: ResidentSlot) {
        operations[index].phase = .joined
        operations[index].next = joined[Int(resident.index)]
        joined[Int(resident.index)] = index
    }

    /// A resident's filling has ended, well or not: those that waited for it start again.
    func resumeJoined(_ resident: Int32) {
        var index = joined[Int(resident)]
        joined[Int(resident)] = -1
        while index >= 0 {
            let following = operations[index].next
            operations[index].next = -1
            resume(index)
            index = following
        }
    }

    // MARK: What is asked for

    /// Nil: the shard table is needed first. A selection of no shards: the request is invalid.
    private func selection(_ index: Int32, _ entry: IndexEntry) -> Selection? {
        let message = operations[index].message
        if message.byteCount == 0 && message.byteOffset == 0 {
            let count = message.shardCount == 0 ? entry.shardCount : message.shardCount
            guard message.firstShard >= 0, count > 0,
                count <= entry.shardCount, message.firstShard <= entry.shardCount - count
            else { return Selection(firstShard: 0, shards: 0, skip: 0, count: 0) }
            if message.shardCount == 0 && message.firstShard != 0 {
                return Selection(firstShard: 0, shards: 0, skip: 0, count: 0)
            }
            if count == entry.shardCount {
                return Selection(
                    firstShard: 0, shards: count, skip: 0, count: UInt64(entry.length))
            }
            guard let table = log.cachedTable(operations[index].fingerprint, entry) else {
                return nil
            }
            var bytes: UInt64 = 0
            for shard in message.firstShard..<(message.firstShard + count) {
                bytes += UInt64(shardLength(table, shard))
            }
            return Selection(
                firstShard: message.firstShard, shards: count, skip: 0, count: bytes)
        }
        return rangeSelection(index, entry)
    }

    private func rangeSelection(_ index: Int32, _ entry: IndexEntry) -> Selection? {
        let message = operations[index].message
        let none = Selection(firstShard: 0, shards: 0, skip: 0, count: 0)
        let length = UInt64(entry.length)
        guard message.shardCount == 0, message.byteOffset < length else { return none }
        let count = message.byteCount == 0 ? length - message.byteOffset : message.byteCount
        guard count <= length - message.byteOffset else { return none }
        if entry.shardCount == 1 {
            return Selection(firstShard: 0, shards: 1, skip: message.byteOffset, count: count)
        }
        guard let table = log.cachedTable(operations[index].fingerprint, entry) else { return nil }
        return Self.covering(table, entry.shardCount, from: message.byteOffset, count: count)
    }

    /// The shards that cover a byte range.
    static func covering(
        _ table: UnsafeRawPointer, _ shards: Int, from: UInt64, count: UInt64
    ) -> Selection {
        var start: UInt64 = 0
        var first = -1
        var firstStart: UInt64 = 0
        for shard in 0..<shards {
            let end = start + UInt64(shardLength(table, shard))
            if first < 0 && end > from {
                first = shard
                firstStart = start
            }
            if first >= 0 && end >= from + count {
                return Selection(
                    firstShard: first, shards: shard - first + 1, skip: from - firstStart,
                    count: count)
            }
            start = end
        }
        return Selection(firstShard: 0, shards: 0, skip: 0, count: 0)
    }

    // MARK: From the device

    private func readFromDevice(_ index: Int32, _ entry: IndexEntry) {
        let slot = operations.slots + Int(index)
        guard let selection = selection(index, entry) else {
            loadTable(index, entry)
            return
        }
        guard selection.shards > 0 else {
            answer(index, .invalid)
            return
        }
        slot.pointee.selection = selection
        if slot.pointee.message.mode != .lease, selection.count > destinationBytes(index) {
            answer(index, .invalid)
            return
        }
        switch slot.pointee.message.mode {
        case .direct:
            guard
                let range = log.imageRange(
                    slot.pointee.fingerprint, entry, firstShard: selection.firstShard,
                    shards: selection.shards)
            else {
                loadTable(index, entry)
                return
            }
            if goesStraight(index, entry, selection, range) {
                readDirect(index, entry, selection, range)
            } else {
                readBounced(index, entry, selection)
            }
        case .cached, .lease:
            readStaged(index, entry, selection)
        }
    }

    func destinationBytes(_ index: Int32) -> UInt64 {
        let message = operations[index].message
        var total: UInt64 = 0
        for number in 0..<message.pieceCount { total += message.pieces?[number].length ?? 0 }
        return total
    }

    func loadTable(_ index: Int32, _ entry: IndexEntry) {
        let slot = operations.slots + Int(index)
        slot.pointee.phase = .loadingTable
        let taken = log.loadTable(
            token: UInt64(index), fingerprint: slot.pointee.fingerprint,
            namespaceSlot: slot.pointee.message.namespaceSlot, key: slot.pointee.message.key,
            entry: entry)
        if !taken { waitingForLog.append(index, operations) }
    }

    /// Whether the device may write straight into the caller's memory.
    private func goesStraight(
        _ index: Int32, _ entry: IndexEntry, _ selection: Selection, _ range: Range<Int>
    ) -> Bool {
        let message = operations[index].message
        guard let pieces = message.pieces, selection.skip == 0,
            range.lowerBound % FormatConstants.pageBytes == 0,
            UInt64(range.count) == selection.count
        else { return false }
        for number in 0..<message.pieceCount {
            let piece = pieces[number]
            guard let address = log.driver.regions.pointer(piece),
                UInt(bitPattern: address) % 512 == 0
            else { return false }
            if number + 1 < message.pieceCount
                && piece.length % UInt64(FormatConstants.pageBytes) != 0
            {
                return false
            }
        }
        return true
    }

    private func readDirect(
        _ index: Int32, _ entry: IndexEntry, _ selection: Selection, _ range: Range<Int>
    ) {
        let slot = operations.slots + Int(index)
        guard let pieces = slot.pointee.message.pieces else { return }
        // The whole of a packed block is checked by its table, which must be at hand.
        if entry.shardCount > 1, log.cachedTable(slot.pointee.fingerprint, entry) == nil {
            loadTable(index, entry)
            return
        }
        slot.pointee.phase = .readingDirect
        var request = ReadRequest(
            token: UInt64(index), fingerprint: slot.pointee.fingerprint,
            namespaceSlot: slot.pointee.message.namespaceSlot, key: slot.pointee.message.key,
            entry: entry, range: range, pages: false, pieces: pieces,
            pieceCount: slot.pointee.message.pieceCount)
        request.firstShard = selection.firstShard
        request.shards = selection.shards
        statistics.directReads += 1
        if !log.read(request) { waitingForLog.append(index, operations) }
    }

    /// The page range that holds the selection goes through heap memory.
    private func readBounced(_ index: Int32, _ entry: IndexEntry, _ selection: Selection) {
        let slot = operations.slots + Int(index)
        guard
            let range = log.imageRange(
                slot.pointee.fingerprint, entry, firstShard: selection.firstShard,
                shards: selection.shards),
            entry.shardCount == 1 || log.cachedTable(slot.pointee.fingerprint, entry) != nil
        else {
            loadTable(index, entry)
            return
        }
        let page = FormatConstants.pageBytes
        let start = range.lowerBound / page * page
        let end = (range.upperBound + page - 1) / page * page
        guard bounceInUse == 0 || bounceInUse + end - start <= Self.bounceLimit else {
            waitingForLog.append(index, operations)
            return
        }
        if slot.pointee.bounce == nil {
            slot.pointee.bounce = .allocate(byteCount: end - start, alignment: page)
            slot.pointee.bounceBytes = end - start
            bounceInUse += end - start
        }
        guard let memory = slot.pointee.bounce else { return }
        slot.pointee.bounceBase = start
        slot.pointee.bouncePiece = Piece(
            region: .process, offset: UInt64(UInt(bitPattern: memory)),
            length: UInt64(end - start))
        slot.pointee.phase = .readingScratch
        var request = ReadRequest(
            token: UInt64(index), fingerprint: slot.pointee.fingerprint,
            namespaceSlot: slot.pointee.message.namespaceSlot, key: slot.pointee.message.key,
            entry: entry, range: start..<end, pages: true,
            pieces: operations.bouncePiece(index), pieceCount: 1)
        request.firstShard = selection.firstShard
        request.shards = selection.shards
        statistics.bounceBytes += UInt64(end - start)
        if !log.read(request) {
            freeBounce(index)
            waitingForLog.append(index, operations)
        }
    }

    func freeBounce(_ index: Int32) {
        let slot = operations.slots + Int(index)
        guard let memory = slot.pointee.bounce else { return }
        memory.deallocate()
        bounceInUse -= slot.pointee.bounceBytes
        slot.pointee.bounce = nil
    }

    // MARK: Into a slab

    private func readStaged(_ index: Int32, _ entry: IndexEntry, _ selection: Selection) {
        let slot = operations.slots + Int(index)
        guard let arena else {
            if slot.pointee.message.mode == .lease {
                answer(index, .invalid)
            } else {
                readBounced(index, entry, selection)
            }
            return
        }
        if readPart(index, entry) { return }
        guard let bytes = log.imageBytes(slot.pointee.fingerprint, entry) else {
            loadTable(index, entry)
            return
        }
        let rounded = (bytes + FormatConstants.pageBytes - 1) & ~(FormatConstants.pageBytes - 1)
        let info = ResidentInfo(
            version: log.version(entry), length: entry.length, storedBytes: UInt32(rounded),
            shardCount: UInt16(entry.shardCount - 1),
            aligned: log.namespaces.aligned(entry.namespaceSlot), checksum: entry.checksum,
            expiry: entry.expiry, namespaceSlot: entry.namespaceSlot)
        switch reserve(slot.pointee.fingerprint.stagingKey, info, in: arena) {
        case .slot(let resident):
            fill(index, entry, resident, bytes: rounded)
        case .filling(let resident):
            join(index, resident)
        case .full:
            if slot.pointee.message.mode == .cached {
                readBounced(index, entry, selection)
            } else if log.isIdle {
                statistics.throttledGets += 1
                answer(index, .throttled)
            } else {
                waitingForSlabs.append(index, operations)
            }
        case .tooLarge:
            if slot.pointee.message.mode == .cached {
                readBounced(index, entry, selection)
            } else {
                answer(index, .tooLarge)
            }
        }
    }

    private func fill(
        _ index: Int32, _ entry: IndexEntry, _ resident: ResidentSlot, bytes: Int
    ) {
        guard let arena else { return }
        let slot = operations.slots + Int(index)
        let pieces = arena.pieces(resident)
        slot.pointee.resident = resident.index
        slot.pointee.phase = .readingStaged
        guard let base = pieces.baseAddress else { return }
        var request = ReadRequest(
            token: UInt64(index), fingerprint: slot.pointee.fingerprint,
            namespaceSlot: slot.pointee.message.namespaceSlot, key: slot.pointee.message.key,
            entry: entry, range: 0..<bytes, pages: true, pieces: base, pieceCount: pieces.count)
        request.shards = entry.shardCount
        statistics.stagedReads += 1
        arena.pin(resident)  // the device writes into it
        if !log.read(request) {
            slot.pointee.resident = -1
            arena.unpin(resident)
            arena.remove(resident)
            resumeJoined(resident.index)
            waitingForLog.append(index, operations)
        }
    }

    // MARK: After the read

    func readEnded(_ index: Int32, _ outcome: Outcome) {
        switch operations[index].phase {
        case .loadingTable:
            // The entry may have moved on meanwhile: look it up anew, or report why not.
            if outcome.status == .done { startGet(index) } else { answer(index, outcome) }
        case .readingDirect:
            var made = hitAnswer(index, outcome, tier: .device)
            if outcome.status == .hit {
                made.delivered = operations[index].selection.count
            }
            finishGet(index, made)
        case .readingScratch:
            var made = hitAnswer(index, outcome, tier: .device)
            if outcome.status == .hit, !operations[index].abandoned {
                made.delivered = copyFromBounce(index, outcome.table)
            }
            freeBounce(index)
            finishGet(index, made)
        case .readingStaged:
            stagedReadEnded(index, outcome)
        default:
            preconditionFailure("a read ended that was not under way")
        }
    }

    func hitAnswer(_ index: Int32, _ outcome: Outcome, tier: HitTier) -> StoreAnswer {
        var made = StoreAnswer(
            token: operations[index].message.token, status: outcome.status)
        made.reason = outcome.reason
        made.errno = outcome.errno
        made.version = outcome.version
        made.length = outcome.length
        made.shardCount = outcome.shardCount
        if outcome.status == .hit { made.tier = tier }
        return made
    }

    private func finishGet(_ index: Int32, _ made: StoreAnswer) {
        if made.status == .hit && made.tier == .device { statistics.hitsDevice += 1 }
        noteEnd(index, made.status)
        deliver(index, made)
    }

    private func stagedReadEnded(_ index: Int32, _ outcome: Outcome) {
        guard let arena else { return }
        let slot = operations.slots + Int(index)
        let resident = ResidentSlot(slot.pointee.resident)
        slot.pointee.resident = -1
        arena.unpin(resident)
        noteEnd(index, outcome.status)
        guard outcome.status == .hit else {
            arena.remove(resident)
            resumeJoined(resident.index)
            answer(index, outcome)
            return
        }
        // Deleted or replaced meanwhile: what was read must not become a resident.
        let current = slot.pointee.entry.isSameBlock(
            as: log.lookup(slot.pointee.fingerprint).entry)
        arena.publish(resident, dirty: false)
        if slot.pointee.partLength > 0 {
            servePart(index, resident, tier: .device)
        } else {
            serve(index, resident, tier: .device)
        }
        if !current {
            arena.remove(resident)
        } else if !configuration.inclusive {
            arena.demote(resident)
        }
        resumeJoined(resident.index)
    }

    // MARK: Leases

    /// Gives back a lease.
    package func endLease(_ lease: Int32) {
        arena?.unpinLease(ResidentSlot(lease))
        if !waitingForSlabs.isEmpty {
            var list = waitingForSlabs
            waitingForSlabs = StagedList()
            while let operation = list.popFirst(operations) { resume(operation) }
        }
    }

    // MARK: Deadline and cancel

    /// Gives an operation up: answered as cancelled at once, its memory released later if the
    /// device still writes into it. Nothing happens if it has ended.
    package func cancel(token: UInt64) {
        for index in 0..<operations.capacity
        where operations.slots[index].inUse && operations.slots[index].message.token == token
            && operations.slots[index].message.kind != .prefetch
            && !operations.slots[index].abandoned && !operations.slots[index].answered
        {
            giveUp(Int32(index), .cancelled, .none)
            return
        }
    }

    func expireDeadlines() {
        let now = log.clock.monotonic
        earliestDeadline = UInt64.max
        for index in 0..<operations.capacity where operations.slots[index].inUse {
            let slot = operations.slots + index
            guard slot.pointee.message.deadline > 0, !slot.pointee.abandoned else { continue }
            if slot.pointee.message.deadline <= now {
                giveUp(Int32(index), .timedOut, .deadline)
            } else {
                earliestDeadline = min(earliestDeadline, slot.pointee.message.deadline)
            }
        }
    }

    func giveUp(_ index: Int32, _ status: Status, _ reason: MissReason) {
        let slot = operations.slots + Int(index)
        guard !slot.pointee.abandoned, !slot.pointee.answered else { return }
        slot.pointee.abandoned = true
        if status == .timedOut { statistics.timedOut += 1 } else { statistics.cancelled += 1 }
        var made = StoreAnswer(token: slot.pointee.message.token, status: status)
        made.reason = reason
        slot.pointee.silent = true
        if !log.holdsBack || !log.withdraw(read: UInt64(index)) {
            switch slot.pointee.phase {
            case .readingDirect, .appending:
                slot.pointee.silent = false
                made.memoryInUse = true
            default: break
            }
        }
        sink?.answered(made)
    }
}

/// The length of one shard in a shard table.
@inline(__always)
func shardLength(_ table: UnsafeRawPointer, _ shard: Int) -> UInt32 {
    UInt32(littleEndian: (table + 8 * shard).loadUnaligned(as: UInt32.self))
}
