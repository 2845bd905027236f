// Putting: a block that is volatile, that is to stay as a read copy, or whose source the log cannot
// write from, is made into a stored image in a slab, with its version and checksums made once; the
// log then writes that image. Everything else the log takes from the caller's memory.

import BlockIO
import LogStore
import SegmentFormat

extension StagedStore {
    func startPut(_ index: Int32) {
        let slot = operations.slots + Int(index)
        if slot.pointee.abandoned {
            answer(index, .cancelled)
            return
        }
        note(index, .put, bytes: slot.pointee.message.length)
        let key = slot.pointee.fingerprint.stagingKey
        if let arena, let found = arena.find(key) {
            if found.state == .filling, !overtakes(index, found.slot) {
                // Read or put under way: this put starts again when it has ended.
                operations[index].phase = .joined
                operations[index].next = joined[Int(found.slot.index)]
                joined[Int(found.slot.index)] = index
                return
            }
            if found.state == .dirty, answerFromDirty(index, found.slot) { return }
            if arena.isUnwritten(found.slot), answerFromUnwritten(index, found.slot) { return }
        }
        guard passesGate(index) else {
            statistics.notAdmitted += 1
            answer(index, .notAdmitted)
            return
        }
        if stages(index) {
            stage(index)
        } else {
            appendStraight(index)
        }
    }

    /// Whether a put need not wait for what fills the block's resident, as it has the bytes that a
    /// prefetch is still bringing.
    private func overtakes(_ index: Int32, _ resident: ResidentSlot) -> Bool {
        let message = operations[index].message
        return retains && !message.replace && isPrefetching(resident)
            && isPresent(operations[index].fingerprint, durable: message.durability == .durable)
    }

    /// Whether there is a copy on disk that a put is compared with, and not put in the place of; a
    /// `durable` one is where the copy will never be durable.
    package func isPresent(_ fingerprint: Fingerprint, durable: Bool = false) -> Bool {
        guard let entry = log.lookup(fingerprint).entry, !entry.isDamaged else { return false }
        return !durable || !log.isBeyondFlush(entry)
    }

    var retains: Bool { configuration.inclusive }

    /// Whether the put should go through a slab.
    private func stages(_ index: Int32) -> Bool {
        let slot = operations.slots + Int(index)
        guard arena != nil else { return false }
        // A present key needs no slab: the log compares and answers.
        let durability = slot.pointee.message.durability
        if !slot.pointee.message.replace,
            isPresent(slot.pointee.fingerprint, durable: durability == .durable)
        {
            return false
        }
        return durability == .volatile || retains
            || slot.pointee.isUnwritten
            || !log.canAppend(request(index))
    }

    /// A put of a key whose only copy is a dirty resident. False: go on as a new put (replace, or
    /// of what has expired meanwhile), which waits until that one's write has ended.
    private func answerFromDirty(_ index: Int32, _ resident: ResidentSlot) -> Bool {
        let message = operations[index].message
        if message.replace || message.durability != .volatile { return false }
        if let arena, arena.info(resident).isExpired(log.wallSeconds) { return false }
        answerPresent(index, resident)
        return true
    }

    /// A volatile put of a key that is present only in a resident.
    func answerPresent(_ index: Int32, _ resident: ResidentSlot) {
        guard let arena else { return }
        let message = operations[index].message
        let info = arena.info(resident)
        var made = StoreAnswer(token: message.token, status: .alreadyPresent)
        made.version = info.version
        made.length = info.length
        if info.length != message.length
            || Int(info.shardCount) + 1 != shardCount(message)
            || !sameShards(resident, info, message)
        {
            made.status = .conflict
        }
        arena.touch(resident)
        deliver(index, made)
    }

    private func sameShards(
        _ resident: ResidentSlot, _ info: ResidentInfo, _ message: StoreOperation
    ) -> Bool {
        guard let arena, info.shardCount > 0, let lengths = message.shardLengths else {
            return true
        }
        let pieces = arena.pieces(resident)
        guard let base = pieces.baseAddress else { return false }
        let layout = BlockLayout(
            length: info.length, shardCount: Int(info.shardCount) + 1, aligned: info.aligned)
        let memory = PieceMemory(pieces: base, count: pieces.count, regions: log.driver.regions)
        return withUnsafeTemporaryAllocation(byteCount: layout.tableBytes, alignment: 8) {
            guard let table = $0.baseAddress else { return false }
            memory.read(at: layout.tableOffset, into: table, count: layout.tableBytes)
            for shard in 0...Int(info.shardCount)
            where shardLength(UnsafeRawPointer(table), shard) != lengths[shard] { return false }
            return true
        }
    }

    private func shardCount(_ message: StoreOperation) -> Int {
        message.shardLengths == nil ? 1 : max(1, message.shardCount)
    }

    func expiry(_ message: StoreOperation) -> UInt32 {
        let own = message.timeToLive
        let general = log.namespaces.timeToLive(message.namespaceSlot)
        let seconds = own == 0 ? general : general == 0 ? own : min(own, general)
        if seconds == 0 { return 0 }
        let (sum, overflow) = log.wallSeconds.addingReportingOverflow(seconds)
        return overflow ? UInt32.max : max(sum, 1)
    }

    func request(_ index: Int32) -> AppendRequest {
        let slot = operations.slots + Int(index)
        let message = slot.pointee.message
        var made = AppendRequest(
            token: UInt64(index), fingerprint: slot.pointee.fingerprint,
            namespaceSlot: message.namespaceSlot, key: message.key, parent: message.parent,
            pieces: message.pieces ?? operations.bouncePiece(index),
            pieceCount: message.pieceCount, length: message.length)
        made.shardCount = shardCount(message)
        made.shardLengths = made.shardCount > 1 ? message.shardLengths : nil
        made.expiry = expiry(message)
        made.replace = message.replace
        made.durability = message.durability
        return made
    }

    // MARK: Straight from the caller's memory

    private func appendStraight(_ index: Int32) {
        var made = request(index)
        let present =
            !made.replace && isPresent(made.fingerprint, durable: made.durability == .durable)
        made.comparesOnly = !log.canAppend(made)
        guard present || !made.comparesOnly else {
            appendFromHeap(index, made)
            return
        }
        operations[index].phase = .appending
        if !log.append(made) { waitingForLog.append(index, operations) }
    }

    /// In a read-only store no version may be given out any more for which a put could wait: the
    /// log says so, before it looks at the source, and counts it.
    private func refuse(_ index: Int32) {
        operations[index].phase = .appending
        if !log.append(request(index)) { waitingForLog.append(index, operations) }
    }

    /// A source that the log cannot take, and no slabs to put it in: an image in heap memory.
    private func appendFromHeap(_ index: Int32, _ request: AppendRequest) {
        let slot = operations.slots + Int(index)
        let bytes = imageBytes(request)
        if log.readOnly { return refuse(index) }
        guard !log.isBusy(request.fingerprint), log.isReadyToWrite else {
            waitingForLog.append(index, operations)
            return
        }
        guard bounceInUse == 0 || bounceInUse + bytes <= Self.bounceLimit else {
            waitingForLog.append(index, operations)
            return
        }
        let memory = UnsafeMutableRawPointer.allocate(
            byteCount: bytes, alignment: FormatConstants.pageBytes)
        slot.pointee.bounce = memory
        slot.pointee.bounceBytes = bytes
        bounceInUse += bytes
        slot.pointee.bouncePiece = Piece(
            region: .process, offset: UInt64(UInt(bitPattern: memory)), length: UInt64(bytes))
        statistics.bounceBytes += UInt64(bytes)
        var made = request
        made.comparesOnly = false
        made.version = log.nextPutVersion()
        var errno: Int32 = 0
        made.checksum = build(into: memory, bytes: bytes, request, made.version, &errno)
        made.sourceIsImage = true
        made.pieces = operations.bouncePiece(index)
        made.pieceCount = 1
        operations[index].phase = .appendingStaged
        if errno != 0 || !log.append(made) {
            freeBounce(index)
            if errno != 0 {
                answer(index, .failed)
            } else {
                waitingForLog.append(index, operations)
            }
        }
    }

    func imageBytes(_ request: AppendRequest) -> Int {
        let page = FormatConstants.pageBytes
        let bytes: Int
        if let lengths = request.shardLengths, request.shardCount > 1 {
            bytes = BlockLayout.storedBytes(
                shardLengths: UnsafeBufferPointer(start: lengths, count: request.shardCount),
                aligned: log.namespaces.aligned(request.namespaceSlot))
        } else {
            bytes = Int(request.length)
        }
        return (bytes + page - 1) / page * page
    }

    /// Makes the stored image in one stretch of memory; returns its checksum.
    private func build(
        into memory: UnsafeMutableRawPointer, bytes: Int, _ request: AppendRequest,
        _ version: UInt64, _ errno: inout Int32
    ) -> UInt32 {
        var source = PieceCursor(
            pieces: request.pieces, count: request.pieceCount, regions: log.driver.regions)
        let sum = ImageBuilder.build(
            into: memory, bytes: bytes, source: &source, length: request.length,
            shardCount: request.shardCount, shardLengths: request.shardLengths,
            aligned: log.namespaces.aligned(request.namespaceSlot),
            identity: Checksum.identitySeed(
                namespace: log.namespaces.fingerprint(request.namespaceSlot), key: request.key,
                versionLow: UInt32(truncatingIfNeeded: version)))
        errno = source.errno
        return sum
    }

    // MARK: Through a slab

    private func stage(_ index: Int32) {
        guard let arena else { return }
        let slot = operations.slots + Int(index)
        if log.readOnly { return refuse(index) }
        if log.isBusy(slot.pointee.fingerprint) || !log.isReadyToWrite {
            // A version made now could be overtaken by a write that is under way.
            waitingForLog.append(index, operations)
            return
        }
        let made = request(index)
        let key = slot.pointee.fingerprint.stagingKey
        let version = log.nextPutVersion()
        let bytes = imageBytes(made)
        let info = ResidentInfo(
            version: version, length: made.length, storedBytes: UInt32(bytes),
            shardCount: UInt16(made.shardCount - 1),
            aligned: log.namespaces.aligned(made.namespaceSlot), checksum: 0,
            expiry: made.expiry, namespaceSlot: made.namespaceSlot)
        switch reserve(key, info, in: arena) {
        case .slot(let resident): writeImage(index, made, resident, info)
        case .filling(let resident):
            operations[index].phase = .joined
            operations[index].next = joined[Int(resident.index)]
            joined[Int(resident.index)] = index
        case .full, .tooLarge:
            if slot.pointee.isUnwritten || made.durability == .volatile && !log.canAppend(made) {
                statistics.throttledPuts += 1
                var answer = StoreAnswer(token: slot.pointee.message.token, status: .throttled)
                answer.retryNanoseconds = 1_000_000
                deliver(index, answer)
            } else {
                appendStraight(index)
            }
        }
    }

    private func writeImage(
        _ index: Int32, _ request: AppendRequest, _ resident: ResidentSlot, _ info: ResidentInfo
    ) {
        guard let arena else { return }
        let slot = operations.slots + Int(index)
        var made = request
        let pieces = arena.pieces(resident)
        var errno: Int32 = 0
        made.version = info.version
        made.checksum = buildScattered(pieces, Int(info.storedBytes), request, info.version, &errno)
        guard errno == 0, let base = pieces.baseAddress else {
            arena.remove(resident)
            resumeJoined(resident.index)
            var failed = StoreAnswer(token: slot.pointee.message.token, status: .failed)
            failed.errno = errno
            deliver(index, failed)
            return
        }
        var known = info
        known.checksum = made.checksum
        arena.setInfo(resident, known)
        if slot.pointee.isUnwritten || isBehind(made, bytes: info.storedBytes) {
            keepUnwritten(index, resident, info)
            return
        }
        made.sourceIsImage = true
        made.pieces = base
        made.pieceCount = pieces.count
        slot.pointee.resident = resident.index
        slot.pointee.phase = .appendingStaged
        arena.pin(resident)  // the device reads from it
        guard log.append(made) else {
            slot.pointee.resident = -1
            arena.unpin(resident)
            arena.remove(resident)
            resumeJoined(resident.index)
            waitingForLog.append(index, operations)
            return
        }
        // The append may have been answered at once (refused): then the resident is gone already.
        guard slot.pointee.inUse, slot.pointee.resident == resident.index,
            slot.pointee.message.durability == .volatile
        else { return }
        arena.publish(resident, dirty: true)
        var stored = StoreAnswer(token: slot.pointee.message.token, status: .stored)
        stored.version = info.version
        stored.length = info.length
        slot.pointee.answered = true
        if slot.pointee.message.deadline > 0 {
            slot.pointee.message.deadline = 0
            deadlineCount -= 1
        }
        sink?.answered(stored)
        resumeJoined(resident.index)
    }

    /// Makes the image in a resident's slabs, by way of heap memory if they are scattered.
    func buildScattered(
        _ pieces: UnsafeBufferPointer<Piece>, _ bytes: Int, _ request: AppendRequest,
        _ version: UInt64, _ errno: inout Int32
    ) -> UInt32 {
        guard let base = pieces.baseAddress else { return 0 }
        if pieces.count == 1, let memory = log.driver.regions.pointer(base[0]) {
            return build(into: memory, bytes: bytes, request, version, &errno)
        }
        let memory = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 4096)
        defer { memory.deallocate() }
        let sum = build(into: memory, bytes: bytes, request, version, &errno)
        var target = PieceCursor(
            pieces: base, count: pieces.count, regions: log.driver.regions)
        target.fill(bytes, from: memory)
        return sum
    }

    // MARK: After the append

    func appendEnded(_ index: Int32, _ outcome: Outcome) {
        let slot = operations.slots + Int(index)
        if slot.pointee.bounce != nil { freeBounce(index) }
        let resident = slot.pointee.resident
        if outcome.status == .throttled, outcome.errno == LogStore.tryAgain, resident < 0 {
            waitingForLog.append(index, operations)
            return
        }
        if resident >= 0 {
            slot.pointee.resident = -1
            settleResident(index, ResidentSlot(resident), outcome)
        } else if outcome.status == .stored {
            removeOlder(slot.pointee.fingerprint, than: outcome.version)
        } else if outcome.status == .alreadyPresent, let arena {
            if let found = arena.find(slot.pointee.fingerprint.stagingKey), found.state.isVisible {
                arena.touch(found.slot)
            } else if !slot.pointee.answered, !slot.pointee.abandoned {
                keepCopy(index)
            }
        }
        if resident < 0, outcome.status == .stored {
            observer?.putEnded(slot.pointee.fingerprint)
        }
        guard slot.pointee.answered else {
            answer(index, outcome)
            return
        }
        let purged = !log.namespaces.isLive(slot.pointee.message.namespaceSlot)
        if outcome.status != .stored && outcome.status != .alreadyPresent && !purged {
            statistics.volatileLost += 1
            sink?.happened(.volatileLost(version: outcome.version, errno: outcome.errno))
        }
        operations.give(index)
    }

    private func settleResident(
        _ index: Int32, _ resident: ResidentSlot, _ outcome: Outcome
    ) {
        guard let arena else { return }
        // A purge may have taken it away meanwhile; the pin kept its memory until now.
        let gone = arena.state(resident) == .condemned
        arena.unpin(resident)
        if gone {
            resumeJoined(resident.index)
            return
        }
        let wasVisible = operations[index].answered
        if outcome.status == .stored {
            if wasVisible {
                arena.markClean(resident)
            } else {
                arena.publish(resident, dirty: false)
            }
            // Deleted or replaced since: the copy must not outlive that.
            let entry = log.lookup(operations[index].fingerprint).entry
            if entry == nil || log.version(entry ?? .none) != outcome.version {
                arena.remove(resident)
            } else if !retains {
                arena.demote(resident)
            }
            observer?.putEnded(operations[index].fingerprint)
        } else {
            arena.remove(resident)
        }
        resumeJoined(resident.index)
    }
}
