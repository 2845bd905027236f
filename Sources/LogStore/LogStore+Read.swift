// Reading: a place from the index, one or few requests straight into the destination, and a check
// of every byte before anybody is told of a hit. What fails its check is read once more (a
// misdirected or stale read is not the medium's fault), then leaves the index: a miss and a
// counter.
//
// Destinations are either whole pages of the stored image (slabs), or the exact bytes of a run of
// shards, aligned, whose last part of a page comes through a bounce chunk: nothing is ever written
// beyond the asked length.

import BlockIO
import SegmentFormat

package struct ReadRequest {
    package var token: UInt64
    package var fingerprint: Fingerprint
    package var namespaceSlot: UInt16
    package var key: UnsafeRawBufferPointer
    package var entry: IndexEntry
    /// The run of shards to read and check.
    package var firstShard = 0
    package var shards = 1
    /// The range of the stored image that the destination receives, bytes; page-aligned at both
    /// ends if `pages`, at its start otherwise.
    package var range: Range<Int>
    package var pages: Bool
    package var pieces: UnsafePointer<Piece>
    package var pieceCount: Int
    /// Nobody waits for it yet: it does not make writes give way, and joins no read that is waited
    /// for.
    package var isPrefetch = false

    package init(
        token: UInt64, fingerprint: Fingerprint, namespaceSlot: UInt16,
        key: UnsafeRawBufferPointer, entry: IndexEntry, range: Range<Int>, pages: Bool,
        pieces: UnsafePointer<Piece>, pieceCount: Int
    ) {
        self.token = token
        self.fingerprint = fingerprint
        self.namespaceSlot = namespaceSlot
        self.key = key
        self.entry = entry
        self.range = range
        self.pages = pages
        self.pieces = pieces
        self.pieceCount = pieceCount
    }
}

extension LogStore {
    private static let pageBytes = FormatConstants.pageBytes

    // MARK: Where things are

    /// What a lookup says, with the reason of a miss.
    package func lookup(
        _ fingerprint: Fingerprint
    ) -> (entry: IndexEntry?, reason: MissReason) {
        guard let entry = index.find(fingerprint) else {
            if recovery != nil { return (nil, .recovering) }
            if quarantinedKeys.contains(fingerprint) { return (nil, .quarantined) }
            return (nil, ghosts.reason(fingerprint) ?? .neverPut)
        }
        // Until every tombstone and supersede has been met, an entry may be of a dead version.
        if let recovery, !recovery.recordsMet { return (nil, .recovering) }
        if entry.expiry != 0, entry.isExpired(at: wallSeconds) { return (nil, .expired) }
        if !isReadable(SegmentTable.device(entry.place.segment)) { return (nil, .deviceOut) }
        return (entry, .none)
    }

    /// Whether there is a copy that a put takes the place of though no lookup finds it: on a device
    /// that is not read at present, or damaged. Its device may come back, and the damage may not be
    /// there at the next opening; one that has expired stays away.
    package func hidesCopy(_ fingerprint: Fingerprint) -> Bool {
        guard let entry = present(fingerprint) else { return quarantinedKeys.contains(fingerprint) }
        return entry.isDamaged || !isReadable(SegmentTable.device(entry.place.segment))
    }

    /// Whether the device may be read; in place, since a copy of it is several retains.
    @inline(__always)
    func isReadable(_ device: Int) -> Bool {
        devices.withUnsafeBufferPointer { $0[device].isReadable }
    }

    /// A bit for each device that is not read at present.
    package var unreadableDevices: UInt32 {
        var bits: UInt32 = 0
        for device in devices.indices where !isReadable(device) { bits |= 1 << UInt32(device) }
        return bits
    }

    /// Whether the device answers as it always did.
    package func isHealthy(_ device: Int) -> Bool {
        devices.withUnsafeBufferPointer { $0[device].state == .healthy }
    }

    /// Whether nothing is asked of the device that can be asked of another, or not at all: it
    /// answers late, and another one does not. Alone, slow or not, it is all that there is.
    package func isSpared(_ device: Int) -> Bool {
        if devices.count == 1 || isHealthy(device) { return false }
        for other in devices.indices where isHealthy(other) { return true }
        return false
    }

    /// Bytes of a block's whole stored image; nil while its shard table is needed and not cached.
    package func imageBytes(_ fingerprint: Fingerprint, _ entry: IndexEntry) -> Int? {
        let layout = layout(entry)
        guard layout.hasTable, namespaces.aligned(entry.namespaceSlot) else {
            return layout.storedBytes
        }
        guard let table = tables.find(fingerprint, entry) else { return nil }
        return range(layout, tables.pointer(table), 0, entry.shardCount).upperBound
            .roundedUpToPage
    }

    /// The bytes of the stored image that a run of shards takes; nil while the shard table is
    /// needed and not cached (`fetchTable`). Damaged numbers cannot get here: the table is checked.
    package func imageRange(
        _ fingerprint: Fingerprint, _ entry: IndexEntry, firstShard: Int, shards: Int
    ) -> Range<Int>? {
        let layout = layout(entry)
        guard layout.hasTable else { return 0..<Int(entry.length) }
        if shards == entry.shardCount && !namespaces.aligned(entry.namespaceSlot) {
            return 0..<Int(entry.length)
        }
        guard let table = tables.find(fingerprint, entry) else { return nil }
        return range(layout, tables.pointer(table), firstShard, shards)
    }

    private func range(
        _ layout: BlockLayout, _ table: UnsafeRawPointer, _ first: Int, _ count: Int
    ) -> Range<Int> {
        var offset = layout.dataOffset
        var start = offset
        for shard in 0..<(first + count) {
            if shard == first { start = offset }
            let length = Int(tableLength(table, shard))
            if shard == first + count - 1 { return start..<(offset + length) }
            offset += length
            if layout.aligned { offset = offset.roundedUpToPage }
        }
        return start..<offset
    }

    @inline(__always)
    func tableLength(_ table: UnsafeRawPointer, _ shard: Int) -> UInt32 {
        UInt32(littleEndian: (table + 8 * shard).load(as: UInt32.self))
    }

    @inline(__always)
    func tableSum(_ table: UnsafeRawPointer, _ shard: Int) -> UInt32 {
        UInt32(littleEndian: (table + 8 * shard + 4).load(as: UInt32.self))
    }

    /// A cached shard table: `count` pairs of little-endian length and checksum.
    package func cachedTable(
        _ fingerprint: Fingerprint, _ entry: IndexEntry
    ) -> UnsafeRawPointer? {
        tables.find(fingerprint, entry).map { tables.pointer($0) }
    }

    // MARK: Reading

    /// Starts a read. False when there is no room for another operation.
    package func read(_ request: ReadRequest) -> Bool {
        guard hasRoom() else { return false }
        let operation = operations.take(.read, token: request.token)
        guard operation >= 0 else { return false }
        let slot = operations.slots + Int(operation)
        slot.pointee.fingerprint = request.fingerprint
        slot.pointee.namespaceSlot = request.namespaceSlot
        slot.pointee.entry = request.entry
        slot.pointee.firstShard = request.firstShard
        slot.pointee.shards = request.shards
        slot.pointee.rangeStart = request.range.lowerBound
        slot.pointee.rangeEnd = request.range.upperBound
        slot.pointee.pagesMode = request.pages
        slot.pointee.pieces = request.pieces
        slot.pointee.pieceCount = request.pieceCount
        slot.pointee.length = request.entry.length
        slot.pointee.shardCount = request.entry.shardCount
        slot.pointee.checksum = request.entry.checksum
        slot.pointee.expiry = request.entry.expiry
        slot.pointee.version = fullVersion(request.entry)
        operations.setKey(
            operation, request.key, parent: UnsafeRawBufferPointer(start: nil, count: 0))
        if request.entry.shardCount > 1 {
            if let table = tables.find(request.fingerprint, request.entry) {
                slot.pointee.table = table
                tables.retain(table)
            } else {
                slot.pointee.tableFromImage = true
            }
        }
        segments[request.entry.place.segment].readers += 1
        slot.pointee.isPrefetch = request.isPrefetch
        if !request.isPrefetch { demandBegan(SegmentTable.device(request.entry.place.segment)) }
        meterBegan(operation)
        startRead(operation)
        return true
    }

    @inline(__always)
    private func meterBegan(_ operation: Int32) {
        let slot = operations.slots + Int(operation)
        let device = SegmentTable.device(slot.pointee.entry.place.segment)
        let bytes = slot.pointee.rangeEnd - slot.pointee.rangeStart
        slot.pointee.meterStart = 0
        slot.pointee.meterBytes = bytes
        guard meters[device].began(bytes) else { return }
        slot.pointee.meterStart = clock.monotonic
        slot.pointee.meterMark = meters[device].mark
    }

    @inline(__always)
    private func meterEnded(_ operation: Int32, hit: Bool) {
        let slot = operations.slots + Int(operation)
        let device = SegmentTable.device(slot.pointee.entry.place.segment)
        meters[device].ended(slot.pointee.meterBytes)
        guard slot.pointee.meterStart > 0, hit else { return }
        meters[device].timed(
            slot.pointee.meterBytes, start: slot.pointee.meterStart, now: clock.monotonic,
            mark: slot.pointee.meterMark)
    }

    func startRead(_ operation: Int32) {
        let slot = operations.slots + Int(operation)
        let length = slot.pointee.rangeEnd - slot.pointee.rangeStart
        let tail = slot.pointee.pagesMode ? 0 : length % Self.pageBytes
        slot.pointee.tailBytes = tail
        if tail > 0 && slot.pointee.chunk < 0 {
            guard takeBounce(operation) else {
                slot.pointee.phase = .waitingForChunk
                waitForBounce(operation)
                return
            }
        }
        slot.pointee.phase = .reading
        slot.pointee.errno = 0
        let file = file(slot.pointee.entry.place.segment)
        let device = SegmentTable.device(slot.pointee.entry.place.segment)
        var offset =
            Self.offset(page: slot.pointee.entry.place.page) + UInt64(slot.pointee.rangeStart)
        var left = UInt64(length - tail)
        let tag = Self.tag(.read, operation)
        slot.pointee.pendingIO = 1  // held until all are issued
        if let pieces = slot.pointee.pieces {
            for index in 0..<slot.pointee.pieceCount where left > 0 {
                var piece = pieces[index]
                piece.length = min(piece.length, left)
                slot.pointee.pendingIO += 1
                let request = IORequest(
                    tag: tag, operation: .read, file: file, fileOffset: offset, piece: piece)
                if tail == 0 && slot.pointee.pieceCount == 1 {
                    join(operation, request)
                } else {
                    issue(request, on: device)
                }
                offset += piece.length
                left -= piece.length
            }
        }
        if tail > 0 {
            slot.pointee.pendingIO += 1
            issue(
                IORequest(
                    tag: tag, operation: .read, file: file, fileOffset: offset,
                    piece: bouncePool.piece(slot.pointee.chunk, length: Self.pageBytes)),
                on: device)
        }
        slot.pointee.pendingIO -= 1
        if slot.pointee.pendingIO == 0 { readEnded(operation) }  // shards of no bytes
    }

    /// Joins a read to the held one when both disk and memory go on where that one ends.
    private func join(_ operation: Int32, _ request: IORequest) {
        if let held = joinable.request, held.file == request.file,
            held.fileOffset + held.piece.length == request.fileOffset,
            held.piece.region == request.piece.region,
            held.piece.offset + held.piece.length == request.piece.offset,
            held.piece.length + request.piece.length <= UInt64(configuration.joinedReadBytes),
            operations[joinable.last].isPrefetch == operations[operation].isPrefetch
        {
            joinable.request?.piece.length += request.piece.length
            operations[joinable.last].runNext = operation
            joinable.last = operation
            statistics.joinedReads += 1
            return
        }
        handOverJoinable()
        joinable.request = request
        joinable.last = operation
    }

    func handOverJoinable() {
        guard let request = joinable.request else { return }
        let segment = operations[joinable.last].entry.place.segment
        joinable.request = nil
        joinable.last = -1
        issue(request, on: SegmentTable.device(segment))
    }

    func readCompleted(_ first: Int32, _ completion: IOCompletion) {
        var operation = first
        while operation >= 0 {
            let following = operations[operation].runNext
            operations[operation].runNext = -1
            let slot = operations.slots + Int(operation)
            if completion.result < 0 {
                slot.pointee.errno = Int32(truncatingIfNeeded: -completion.result)
            }
            slot.pointee.pendingIO -= 1
            if slot.pointee.pendingIO == 0 { readEnded(operation) }
            operation = following
        }
    }

    func readEnded(_ operation: Int32) {
        let slot = operations.slots + Int(operation)
        if slot.pointee.errno == 0 && verify(operation) {
            endRead(operation, .hit, .none)
            return
        }
        let device = SegmentTable.device(slot.pointee.entry.place.segment)
        if slot.pointee.errno != 0 {
            statistics.readErrors += 1
            deviceFailed(
                device, errno: slot.pointee.errno, segment: slot.pointee.entry.place.segment)
        } else {
            statistics.checkFailures += 1
        }
        if !devices[device].isReadable {
            endRead(operation, .miss, .deviceOut)
            return
        }
        if !slot.pointee.retried {
            slot.pointee.retried = true
            statistics.readRetries += 1
            startRead(operation)
            return
        }
        quarantine(operation)
        endRead(operation, .miss, .failedCheck)
    }

    /// Twice wrong: the block leaves the index, unless another copy has taken its place since. Of
    /// several shards the others may be whole: the block stays, marked, for them and for a put that
    /// replaces it.
    private func quarantine(_ operation: Int32, wholly: Bool = false) {
        let slot = operations.slots + Int(operation)
        quarantine(slot.pointee.fingerprint, slot.pointee.entry, wholly: wholly)
    }

    func quarantine(_ fingerprint: Fingerprint, _ entry: IndexEntry, wholly: Bool) {
        guard entry.isSameBlock(as: index.find(fingerprint)) else { return }
        if !entry.isDamaged { statistics.quarantinedBlocks += 1 }
        if entry.shardCount > 1 && !wholly {
            index.markDamaged(fingerprint)
            return
        }
        unpublish(fingerprint)
        tables.forget(fingerprint)
        quarantinedKeys.insert(fingerprint)
    }

    func endRead(_ operation: Int32, _ status: Status, _ reason: MissReason) {
        let slot = operations.slots + Int(operation)
        segments[slot.pointee.entry.place.segment].readers -= 1
        // Kept until the outcome has been delivered: whoever copies out goes by it.
        let table = slot.pointee.table
        let own = slot.pointee.ownTable
        let pointer = table >= 0 ? tables.pointer(table) : own.map { UnsafeRawPointer($0) }
        defer {
            if table >= 0 { tables.release(table) }
            own?.deallocate()
        }
        slot.pointee.table = -1
        slot.pointee.ownTable = nil
        if status == .hit {
            statistics.readBytes += UInt64(slot.pointee.rangeEnd - slot.pointee.rangeStart)
        }
        if slot.pointee.reinsertion {
            relocationRead(operation, hit: status == .hit)
            return
        }
        meterEnded(operation, hit: status == .hit)
        if !slot.pointee.isPrefetch {
            demandEnded(SegmentTable.device(slot.pointee.entry.place.segment))
        }
        finish(
            operation, status, reason: reason,
            table: status == .hit ? pointer : nil)
    }

    // MARK: Checking

    private func verify(_ operation: Int32) -> Bool {
        let slot = operations.slots + Int(operation)
        guard let pieces = slot.pointee.pieces else { return false }
        let memory = PieceMemory(
            pieces: pieces, count: slot.pointee.pieceCount, regions: driver.regions)
        if slot.pointee.tailBytes > 0 {
            let at = slot.pointee.rangeEnd - slot.pointee.rangeStart - slot.pointee.tailBytes
            memory.write(
                at: at, bouncePool.pointer(slot.pointee.chunk), count: slot.pointee.tailBytes)
        }
        let identity = Checksum.identitySeed(
            namespace: namespaces.fingerprint(slot.pointee.namespaceSlot),
            key: operations.key(operation), versionLow: slot.pointee.entry.versionLow)
        if slot.pointee.shardCount == 1 {
            let seed = Checksum.valueSeed(
                identity: identity, shard: 0, length: slot.pointee.length)
            return memory.checksum(seed, from: 0, count: Int(slot.pointee.length))
                == slot.pointee.entry.checksum
        }
        if slot.pointee.tableFromImage && slot.pointee.table < 0
            && slot.pointee.ownTable == nil
        {
            guard adoptTable(operation, identity, memory) else { return false }
        } else if !isTableWhole(operation, memory) {
            return false
        }
        return verifyShards(operation, identity, memory)
    }

    /// An image that was read with its table is served by that table later, so it must be the one
    /// that was checked.
    private func isTableWhole(_ operation: Int32, _ memory: PieceMemory) -> Bool {
        let slot = operations.slots + Int(operation)
        let layout = layout(slot.pointee.entry)
        let at = layout.tableOffset - slot.pointee.rangeStart
        guard at >= 0, layout.tableOffset + layout.tableBytes <= slot.pointee.rangeEnd else {
            return true
        }
        let table =
            slot.pointee.ownTable.map { UnsafeRawPointer($0) }
            ?? tables.pointer(slot.pointee.table)
        return memory.equals(at: at, table, count: layout.tableBytes)
    }

    private func verifyShards(
        _ operation: Int32, _ identity: UInt32, _ memory: PieceMemory
    ) -> Bool {
        let slot = operations.slots + Int(operation)
        let table =
            slot.pointee.ownTable.map { UnsafeRawPointer($0) }
            ?? tables.pointer(slot.pointee.table)
        let layout = layout(slot.pointee.entry)
        let all = range(layout, table, slot.pointee.firstShard, slot.pointee.shards)
        var offset = all.lowerBound
        let end = slot.pointee.firstShard + slot.pointee.shards
        for shard in slot.pointee.firstShard..<end {
            let length = tableLength(table, shard)
            let seed = Checksum.valueSeed(identity: identity, shard: UInt32(shard), length: length)
            let sum = memory.checksum(
                seed, from: offset - slot.pointee.rangeStart, count: Int(length))
            if sum != tableSum(table, shard) { return false }
            offset += Int(length)
            if layout.aligned { offset = offset.roundedUpToPage }
        }
        return true
    }

    /// Takes the shard table out of an image that was read whole, after checking it.
    private func adoptTable(
        _ operation: Int32, _ identity: UInt32, _ memory: PieceMemory
    ) -> Bool {
        let slot = operations.slots + Int(operation)
        let layout = layout(slot.pointee.entry)
        let at = layout.tableOffset - slot.pointee.rangeStart
        guard at >= 0, layout.tableOffset + layout.tableBytes <= slot.pointee.rangeEnd else {
            return false
        }
        if let present = tables.find(slot.pointee.fingerprint, slot.pointee.entry) {
            // Checked when it came here; this one may not be as good.
            guard memory.equals(at: at, tables.pointer(present), count: layout.tableBytes) else {
                return false
            }
            tables.retain(present)
            slot.pointee.table = present
            return true
        }
        guard let table = tables.insert(slot.pointee.fingerprint, slot.pointee.entry) else {
            // Every place is in use by a read: this one keeps a table of its own.
            let own = UnsafeMutableRawPointer.allocate(
                byteCount: layout.tableBytes, alignment: 8)
            memory.read(at: at, into: own, count: layout.tableBytes)
            guard checkTable(slot.pointee.entry, UnsafeRawPointer(own), identity) else {
                own.deallocate()
                return false
            }
            slot.pointee.ownTable = own
            return true
        }
        memory.read(at: at, into: tables.mutablePointer(table), count: layout.tableBytes)
        guard checkTable(slot.pointee.entry, tables.pointer(table), identity) else {
            tables.forget(slot.pointee.fingerprint)
            return false
        }
        tables.retain(table)
        slot.pointee.table = table
        return true
    }

    func checkTable(
        _ entry: IndexEntry, _ table: UnsafeRawPointer, _ identity: UInt32
    ) -> Bool {
        let bytes = UnsafeRawBufferPointer(start: table, count: 8 * entry.shardCount)
        guard
            ShardTable.checksum(identity: identity, bytes, count: entry.shardCount)
                == entry.checksum
        else { return false }
        var sum: UInt64 = 0
        for shard in 0..<entry.shardCount { sum += UInt64(tableLength(table, shard)) }
        return sum == UInt64(entry.length)
    }

    // MARK: Shard tables

    /// Reads and checks a block's shard table into the cache; the outcome is `.done` or a miss.
    package func loadTable(
        token: UInt64, fingerprint: Fingerprint, namespaceSlot: UInt16,
        key: UnsafeRawBufferPointer, entry: IndexEntry
    ) -> Bool {
        guard hasRoom() else { return false }
        let operation = operations.take(.read, token: token)
        guard operation >= 0 else { return false }
        let slot = operations.slots + Int(operation)
        slot.pointee.fingerprint = fingerprint
        slot.pointee.namespaceSlot = namespaceSlot
        slot.pointee.entry = entry
        slot.pointee.length = entry.length
        slot.pointee.shardCount = entry.shardCount
        slot.pointee.version = fullVersion(entry)
        operations.setKey(operation, key, parent: UnsafeRawBufferPointer(start: nil, count: 0))
        fetchTable(operation)
        return true
    }

    /// Brings the table of `entry` into the cache, then goes on: a put compares, a load is done.
    func fetchTable(_ operation: Int32) {
        let slot = operations.slots + Int(operation)
        if let table = tables.find(slot.pointee.fingerprint, slot.pointee.entry) {
            tableReady(operation, table)
            return
        }
        guard takeBounce(operation) else {
            slot.pointee.phase = .waitingForTable
            waitForBounce(operation)
            return
        }
        slot.pointee.phase = .reading
        let entry = slot.pointee.entry
        segments[entry.place.segment].readers += 1
        let layout = layout(entry)
        let start = layout.tableOffset / Self.pageBytes * Self.pageBytes
        let end = (layout.tableOffset + layout.tableBytes).roundedUpToPage
        issue(
            IORequest(
                tag: Self.tag(.table, operation), operation: .read,
                file: file(entry.place.segment),
                fileOffset: Self.offset(page: entry.place.page) + UInt64(start),
                piece: bouncePool.piece(slot.pointee.chunk, length: end - start)),
            on: SegmentTable.device(entry.place.segment))
    }

    func tableRead(_ operation: Int32, _ completion: IOCompletion) {
        let slot = operations.slots + Int(operation)
        let entry = slot.pointee.entry
        segments[entry.place.segment].readers -= 1
        statistics.tableReads += 1
        let identity = Checksum.identitySeed(
            namespace: namespaces.fingerprint(slot.pointee.namespaceSlot),
            key: operations.key(operation), versionLow: entry.versionLow)
        let layout = layout(entry)
        let source = bouncePool.pointer(slot.pointee.chunk) + layout.tableOffset % Self.pageBytes
        var table: Int32?
        if completion.result >= 0, checkTable(entry, source, identity) {
            table = tables.insert(slot.pointee.fingerprint, entry)
            if table == nil {
                // Every place is in use by a read; the next one to end makes room.
                giveBounce(operation)
                slot.pointee.phase = .waitingForTable
                waitForBounce(operation)
                return
            }
            if let table {
                tables.mutablePointer(table).copyMemory(
                    from: source, byteCount: layout.tableBytes)
            }
        }
        giveBounce(operation)
        guard let table else {
            tableFailed(operation, completion)
            return
        }
        tableReady(operation, table)
    }

    private func tableReady(_ operation: Int32, _ table: Int32) {
        guard operations[operation].kind == .append else {
            finish(operation, .done)
            return
        }
        let memory = tables.pointer(table)
        withUnsafeTemporaryAllocation(
            of: UInt32.self, capacity: operations[operation].shardCount
        ) { lengths in
            for shard in lengths.indices { lengths[shard] = tableLength(memory, shard) }
            compareTables(operation, lengths.baseAddress.map { UnsafePointer($0) })
        }
    }

    private func tableFailed(_ operation: Int32, _ completion: IOCompletion) {
        let slot = operations.slots + Int(operation)
        let segment = slot.pointee.entry.place.segment
        if completion.result < 0 {
            statistics.readErrors += 1
            deviceFailed(
                SegmentTable.device(segment), errno: Int32(truncatingIfNeeded: -completion.result),
                segment: segment)
        } else {
            statistics.checkFailures += 1
        }
        if !isReadable(SegmentTable.device(segment)) {
            // Nothing is known of the block; a put takes its place.
            if slot.pointee.kind == .append {
                startAppend(operation)
            } else {
                finish(operation, .miss, reason: .deviceOut)
            }
            return
        }
        if !slot.pointee.retried {
            slot.pointee.retried = true
            statistics.readRetries += 1
            fetchTable(operation)
            return
        }
        if slot.pointee.kind == .append {
            compareTables(operation, nil)
            return
        }
        quarantine(operation, wholly: true)
        finish(operation, .miss, reason: .failedCheck)
    }
}

extension Int {
    var roundedUpToPage: Int {
        (self + FormatConstants.pageBytes - 1) & ~(FormatConstants.pageBytes - 1)
    }
}
