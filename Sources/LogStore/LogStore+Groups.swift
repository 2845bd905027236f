// Groups: the way from a stream's queue to the device. Operations are placed into the stream's
// filling group (copied into its buffer, or noted when their image is written from where it lies);
// a group is sealed when it is full or when the device has little to do; sealing gives it its
// place, writes its descriptor pages, and notes its records in the footer kept for the segment.

import BlockIO
import SegmentFormat

extension LogStore {
    private static let pageBytes = FormatConstants.pageBytes

    // MARK: Streams

    func streamIndex(_ kind: StreamKind, device: Int, number: Int) -> Int {
        for index in streams.indices
        where streams[index].kind == kind && streams[index].device == device
            && streams[index].number == number
        { return index }
        streams.append(WriteStream(kind: kind, device: device, number: number))
        return streams.count - 1
    }

    /// Which of a device's streams of its kind a namespace's blocks go to.
    func streamNumber(_ kind: StreamKind, _ namespaceSlot: UInt16) -> Int {
        kind == .fresh ? Int(namespaceSlot) % freshStreams : 0
    }

    /// The device that a stream of this kind should write to now.
    private func chooseDevice(_ kind: StreamKind, _ operation: Int32, bytes: Int) -> Int {
        switch kind {
        case .recordsA: return writableDevice(after: -1)
        case .recordsB: return writableDevice(after: writableDevice(after: -1))
        case .reinserted:
            // Where it came from, whose space it takes.
            let device = SegmentTable.device(operations[operation].entry.place.segment)
            if let better = better(than: device, kind) { return better }
            return devices[device].takesWrites ? device : writableDevice(after: device)
        case .fresh:
            // A chain stays on one device for an extent, then moves on.
            stripeBytes += bytes
            if stripeBytes > 8 << 20 || !devices[stripeDevice].takesWrites {
                stripeBytes = 0
                stripeDevice = writableDevice(after: stripeDevice)
            }
            if let better = better(than: stripeDevice, kind) { stripeDevice = better }
            return stripeDevice
        }
    }

    /// The next device after `previous`, in turn, that takes writes; `previous` itself (or 0) if
    /// there is no other.
    func writableDevice(after previous: Int) -> Int {
        for step in 1...devices.count {
            let device = (previous + step + devices.count) % devices.count
            if devices[device].takesWrites { return device }
        }
        return max(previous, 0)
    }

    func enqueue(_ operation: Int32, kind: StreamKind) {
        let bytes = Int(operations[operation].storedPages) * Self.pageBytes
        let stream = streamIndex(
            kind, device: chooseDevice(kind, operation, bytes: bytes),
            number: streamNumber(kind, operations[operation].namespaceSlot))
        operations[operation].phase = .waitingForGroup
        if operations[operation].kind == .append { appending += 1 }
        streams[stream].queue.append(operation, operations)
    }

    func advanceStreams() {
        for stream in streams.indices {
            if !devices[streams[stream].device].takesWrites { dissolve(stream) }
            if streams[stream].waiting >= 0 { retryWaiting(stream) }
            fill(stream)
            sealIfIdle(stream)
        }
    }

    /// Places queued operations into groups until the queue is empty or there is no buffer.
    private func fill(_ stream: Int) {
        while !streams[stream].queue.isEmpty {
            let device = streams[stream].device
            if !devices[device].takesWrites || better(than: device, streams[stream].kind) != nil {
                moveQueue(from: stream)
                return
            }
            guard streams[stream].waiting < 0 else { return }
            let operation = streams[stream].queue.head
            guard place(operation, stream) else { return }
        }
    }

    /// A device that takes no more writes: its stream's queue goes to another, or fails.
    private func moveQueue(from stream: Int) {
        var list = streams[stream].queue
        streams[stream].queue = OperationList()
        let kind = streams[stream].kind
        let failed = !devices.contains { $0.takesWrites }
        while true {
            let operation = list.popFirst(operations)
            if operation < 0 { return }
            if failed {
                failWrite(operation, .failed, errno: 5)
            } else {
                if operations[operation].kind == .append { appending -= 1 }
                enqueue(operation, kind: kind)
            }
        }
    }

    /// What a stream has gathered for a device that takes no more writes goes elsewhere, too.
    private func dissolve(_ stream: Int) {
        let kind = streams[stream].kind
        let gathered = [streams[stream].gathering, streams[stream].direct, streams[stream].waiting]
        streams[stream].gathering = -1
        streams[stream].direct = -1
        streams[stream].waiting = -1
        for group in gathered where group >= 0 {
            endGroup(group) { operation in
                if devices.contains(where: { $0.takesWrites }) {
                    enqueue(operation, kind: kind)
                } else {
                    failWrite(operation, .failed, errno: 5)
                }
            }
        }
    }

    // MARK: Filling

    private func place(_ operation: Int32, _ stream: Int) -> Bool {
        let bytes = Int(operations[operation].storedPages) * Self.pageBytes
        let isRecord = operations[operation].kind == .record
        let direct = !isRecord && writesDirect(operation, bytes: bytes)
        if operations[operation].isRewrite {
            // In the order that they were asked for, also where some are written directly.
            let other = direct ? streams[stream].gathering : streams[stream].direct
            if other >= 0 { guard seal(other) else { return false } }
        }
        var group = direct ? streams[stream].direct : streams[stream].gathering
        if group >= 0,
            !fits(operation, bytes: bytes, groups[Int(group)]) || ends(stream, group, bytes)
        {
            guard seal(group) else { return false }
            group = -1
        }
        if group < 0 {
            group = openGroup(stream, direct: direct)
            guard group >= 0 else { return false }
        }
        _ = streams[stream].queue.popFirst(operations)
        add(operation, to: group, bytes: bytes)
        if groups[Int(group)].valueBytes >= configuration.groupBytes { _ = seal(group) }
        return true
    }

    private func writesDirect(_ operation: Int32, bytes: Int) -> Bool {
        let slot = operations.slots + Int(operation)
        if bytes > configuration.groupBytes { return true }
        guard bytes >= configuration.bypassBytes, !slot.pointee.isRewrite else { return false }
        if slot.pointee.sourceIsImage { return true }
        return slot.pointee.shardCount == 1
            && canWriteInPlace(slot.pointee.pieces, slot.pointee.pieceCount, slot.pointee.length)
    }

    /// Whether the pieces can be written from where they lie: whole pages of host memory.
    func canWriteInPlace(
        _ pieces: UnsafePointer<Piece>?, _ count: Int, _ length: UInt32
    ) -> Bool {
        guard let pieces else { return false }
        let mask = UInt64(FormatConstants.pageBytes - 1)
        guard UInt64(length) & mask == 0 else { return false }
        for index in 0..<count {
            let piece = pieces[index]
            if (piece.offset | piece.length) & mask != 0 { return false }
            guard let region = driver.regions[piece.region], region.kind != .device else {
                return false
            }
            if let base = region.base, UInt(bitPattern: base) & UInt(mask) != 0 { return false }
        }
        return true
    }

    private func fits(_ operation: Int32, bytes: Int, _ group: Group) -> Bool {
        let slot = operations.slots + Int(operation)
        let record = Descriptor.recordBytes(
            keyLength: Int(slot.pointee.keyLength), parentLength: Int(slot.pointee.parentLength))
        if group.writer.pageCount >= Group.gapPages
            && !group.writer.hasRoom(recordBytes: record)
        {
            return false
        }
        let low = min(group.minVersion, slot.pointee.version)
        let high = max(group.maxVersion, slot.pointee.version)
        if high - low >= Self.versionSpan { return false }
        return group.isDirect || group.valueBytes + bytes <= configuration.groupBytes
    }

    /// Whether the group takes what is left of the open segment and so much more does not fit: then
    /// it is written as it is. Grown beyond that it would leave all of it empty, as much as a group
    /// is long, which in a small segment is a quarter.
    private func ends(_ stream: Int, _ group: Int32, _ bytes: Int) -> Bool {
        guard streams[stream].segment != nil, groups[Int(group)].valueBytes > 0 else {
            return false
        }
        let descriptors = groups[Int(group)].writer.pageCount
        let pages = UInt32(descriptors + groups[Int(group)].valueBytes / Self.pageBytes)
        // One more for the record, which may begin another page of descriptors.
        let more = UInt32(bytes / Self.pageBytes) + 1
        return pages <= room(stream, descriptors: descriptors)
            && pages + more > room(stream, descriptors: descriptors + 1)
    }

    private func openGroup(_ stream: Int, direct: Bool) -> Int32 {
        guard mayOpenGroup(stream) else { return -1 }
        for index in 0..<groupCount where !groups[index].inUse {
            let group = groups + index
            group.pointee.inUse = true
            group.pointee.stream = stream
            group.pointee.isDirect = direct
            group.pointee.operations = OperationList()
            group.pointee.valueBytes = 0
            group.pointee.errno = 0
            group.pointee.issued = false
            group.pointee.isOrphan = false
            group.pointee.minVersion = UInt64.max
            group.pointee.maxVersion = 0
            group.pointee.writer.reset()
            freeGroups -= 1
            if direct {
                streams[stream].direct = Int32(index)
            } else {
                streams[stream].gathering = Int32(index)
            }
            return Int32(index)
        }
        return -1
    }

    private func add(_ operation: Int32, to group: Int32, bytes: Int) {
        let slot = operations.slots + Int(operation)
        let target = groups + Int(group)
        slot.pointee.phase = .inGroup
        slot.pointee.page = UInt32(target.pointee.valueBytes / Self.pageBytes)
        if slot.pointee.kind != .record {
            if target.pointee.isDirect {
                if !slot.pointee.sourceIsImage { checksumInPlace(operation) }
            } else {
                gather(operation, into: target.pointee.values + target.pointee.valueBytes, bytes)
            }
        }
        target.pointee.valueBytes += bytes
        target.pointee.minVersion = min(target.pointee.minVersion, slot.pointee.version)
        target.pointee.maxVersion = max(target.pointee.maxVersion, slot.pointee.version)
        let added = target.pointee.writer.append(
            descriptor(operation), key: operations.key(operation),
            parent: operations.parent(operation))
        precondition(added, "a group was checked to have room")
        target.pointee.operations.append(operation, operations)
    }

    private func descriptor(_ operation: Int32) -> Descriptor {
        let slot = operations.slots + Int(operation)
        var flags = slot.pointee.flags
        if slot.pointee.aligned && slot.pointee.kind != .record { flags.insert(.aligned) }
        if slot.pointee.parentLength > 0 { flags.insert(.hasParent) }
        var made = Descriptor()
        made.version = slot.pointee.version
        made.namespaceInstance = namespaces.instance(slot.pointee.namespaceSlot)
        made.page = slot.pointee.page
        made.length = slot.pointee.length
        made.storedPages = slot.pointee.storedPages
        made.checksum = slot.pointee.checksum
        made.expiry = slot.pointee.expiry
        made.shardCount = UInt16(slot.pointee.shardCount - 1)
        made.flags = flags
        made.keyLength = slot.pointee.keyLength
        made.parentLength = slot.pointee.parentLength
        made.rawLength = slot.pointee.length
        return made
    }

    // MARK: Values

    /// Checksums a source that is written from where it lies.
    private func checksumInPlace(_ operation: Int32) {
        let slot = operations.slots + Int(operation)
        guard let pieces = slot.pointee.pieces else { return }
        var sum = Checksum.valueSeed(
            identity: identitySeed(operation), shard: 0, length: slot.pointee.length)
        for index in 0..<slot.pointee.pieceCount {
            guard let address = driver.regions.pointer(pieces[index]) else { continue }
            sum = Checksum.crc32c(
                sum, UnsafeRawBufferPointer(start: address, count: Int(pieces[index].length)))
        }
        slot.pointee.checksum = sum
    }

    func identitySeed(_ operation: Int32) -> UInt32 {
        let slot = operations.slots + Int(operation)
        return Checksum.identitySeed(
            namespace: namespaces.fingerprint(slot.pointee.namespaceSlot),
            key: operations.key(operation),
            versionLow: UInt32(truncatingIfNeeded: slot.pointee.version))
    }

    /// Copies the value into the group's buffer as a stored image and makes its checksums.
    private func gather(_ operation: Int32, into image: UnsafeMutableRawPointer, _ bytes: Int) {
        let slot = operations.slots + Int(operation)
        guard let pieces = slot.pointee.pieces else { return }
        var source = PieceCursor(
            pieces: pieces, count: slot.pointee.pieceCount, regions: driver.regions)
        if slot.pointee.sourceIsImage {
            source.copy(bytes, to: image)
            return
        }
        slot.pointee.checksum = ImageBuilder.build(
            into: image, bytes: bytes, source: &source, length: slot.pointee.length,
            shardCount: slot.pointee.shardCount, shardLengths: slot.pointee.shardLengths,
            aligned: slot.pointee.aligned, identity: identitySeed(operation))
        if source.errno != 0 { slot.pointee.errno = source.errno }
    }

    // MARK: Sealing

    /// Seals filling groups while the stream has few in flight; otherwise lets them fill. Records
    /// are short: those that come while some are being written share a page behind them.
    private func sealIfIdle(_ stream: Int) {
        let most = streams[stream].isRecords ? 1 : configuration.groupsInFlight
        for _ in 0..<2 {
            guard streams[stream].groupsInFlight < most,
                streams[stream].waiting < 0
            else { return }
            let group =
                streams[stream].direct >= 0 ? streams[stream].direct : streams[stream].gathering
            if group < 0 { return }
            _ = seal(group)
        }
    }

    /// Takes a group out of filling and gives it a place. False: no segment yet; the group waits.
    private func seal(_ group: Int32) -> Bool {
        let stream = groups[Int(group)].stream
        guard streams[stream].waiting < 0 else { return false }
        if streams[stream].gathering == group { streams[stream].gathering = -1 }
        if streams[stream].direct == group { streams[stream].direct = -1 }
        if giveplace(group) {
            write(group)
            return true
        }
        streams[stream].waiting = group
        return true
    }

    private func retryWaiting(_ stream: Int) {
        let group = streams[stream].waiting
        if giveplace(group) {
            streams[stream].waiting = -1
            write(group)
        } else if mustRefuse(stream) {
            streams[stream].waiting = -1
            refuse(group)
        }
    }

    /// Pages that a group needs, and whether the open segment still has them.
    private func giveplace(_ group: Int32) -> Bool {
        let stream = groups[Int(group)].stream
        let descriptors = groups[Int(group)].writer.pageCount
        let values = groups[Int(group)].valueBytes / Self.pageBytes
        let needed = UInt32(descriptors + values)
        if let segment = streams[stream].segment {
            if room(stream, descriptors: descriptors) >= needed
                && !spansTooFar(group, segment)
            {
                assign(group, stream, segment, needed)
                return true
            }
            closeSegment(stream)
        }
        guard let segment = takeSegment(for: streams[stream]) else { return false }
        openSegment(segment, stream)
        assign(group, stream, segment, needed)
        return true
    }

    /// Pages left for a group whose records take `descriptors` pages of footer at most, plus one.
    func room(_ stream: Int, descriptors: Int) -> UInt32 {
        guard let footer = streams[stream].footer else { return 0 }
        let footerPages = footer.pageCount + descriptors + 1
        let most = WriteStream.footerPages(segmentPages, records: streams[stream].isRecords)
        if footerPages > most { return 0 }
        let end = Int(segmentPages) - 1 - footerPages
        return UInt32(max(0, end - Int(streams[stream].nextPage)))
    }

    /// Versions of one segment, and so of one group, stay within this of each other, so that their
    /// low halves tell them apart. Those of puts do by themselves; imported ones may not.
    static let versionSpan: UInt64 = 1 << 31

    private func spansTooFar(_ group: Int32, _ segment: UInt32) -> Bool {
        spansTooFar(segment, groups[Int(group)].minVersion, groups[Int(group)].maxVersion)
    }

    /// Whether versions from `lowest` to `highest` are too far from those in a segment.
    func spansTooFar(_ segment: UInt32, _ lowest: UInt64, _ highest: UInt64) -> Bool {
        guard segments[segment].minVersion != UInt64.max else { return false }
        let low = min(segments[segment].minVersion, lowest)
        let high = max(segments[segment].maxVersion, highest)
        return high - low >= Self.versionSpan
    }

    private func assign(_ group: Int32, _ stream: Int, _ segment: UInt32, _ pages: UInt32) {
        let target = groups + Int(group)
        let first = streams[stream].nextPage
        let descriptors = target.pointee.writer.pageCount
        let valueBase = first + UInt32(descriptors)
        target.pointee.segment = segment
        target.pointee.firstPage = first
        target.pointee.pages = pages
        groupSequence += 1
        target.pointee.descriptorPages = target.pointee.writer.seal(
            kind: .group, context: context(segment), firstPage: first, groupFirstPage: first,
            groupPages: pages, groupSequence: groupSequence, valueBase: valueBase,
            stream: streams[stream].kind.rawValue)
        streams[stream].nextPage = first + pages
        let state = segments.pointer(segment)
        state.pointee.writtenPages = first + pages
        state.pointee.metaPages += UInt32(descriptors)
        state.pointee.groupsInFlight += 1
        var operation = target.pointee.operations.head
        while operation >= 0 {
            let slot = operations.slots + Int(operation)
            slot.pointee.segment = segment
            if slot.pointee.kind == .record {
                slot.pointee.page = first
                // Where there is but one member, twins lie beside each other.
                if slot.pointee.besideTwin, devices.count > 1 {
                    state.pointee.lacksTwins = true
                    spreading.isWanted = true
                }
            } else {
                slot.pointee.page += valueBase
            }
            state.pointee.minVersion = min(state.pointee.minVersion, slot.pointee.version)
            state.pointee.maxVersion = max(state.pointee.maxVersion, slot.pointee.version)
            if slot.pointee.kind != .record {
                state.pointee.minValueVersion = min(
                    state.pointee.minValueVersion,
                    slot.pointee.reinsertion ? slot.pointee.heldSince : slot.pointee.version)
            }
            state.pointee.recordCount += 1
            let noted = streams[stream].footer?.append(
                descriptor(operation), key: operations.key(operation),
                parent: operations.parent(operation))
            precondition(noted == true, "the footer was checked to have room")
            operation = slot.pointee.next
        }
    }

    // MARK: Writing

    private func write(_ group: Int32) {
        let target = groups + Int(group)
        let stream = target.pointee.stream
        streams[stream].groupsInFlight += 1
        target.pointee.issued = true
        let descriptorBytes = target.pointee.descriptorPages * Self.pageBytes
        let start = Group.gapBytes - descriptorBytes
        // Descriptor pages move up against the values: one request, one stretch on disk.
        if start > 0 {
            (target.pointee.memory + start).copyMemory(
                from: target.pointee.memory, byteCount: descriptorBytes)
        }
        let gathered = target.pointee.isDirect ? 0 : target.pointee.valueBytes
        let offset = Self.offset(page: target.pointee.firstPage)
        let tag = Self.tag(.group, group)
        statistics.groupBytes += UInt64(Int(target.pointee.pages) * Self.pageBytes)
        target.pointee.pendingIO = issuePaced(
            IORequest(
                tag: tag, operation: .write, file: file(target.pointee.segment),
                fileOffset: offset,
                piece: groupPool.piece(
                    target.pointee.chunk, offset: start, length: descriptorBytes + gathered)),
            SegmentTable.device(target.pointee.segment), records: streams[stream].isRecords)
        if target.pointee.isDirect {
            writeImages(group, from: offset + UInt64(descriptorBytes), tag)
        }
    }

    private func writeImages(_ group: Int32, from offset: UInt64, _ tag: UInt64) {
        let target = groups + Int(group)
        var place = offset
        var operation = target.pointee.operations.head
        while operation >= 0 {
            let slot = operations.slots + Int(operation)
            var left = UInt64(Int(slot.pointee.storedPages) * Self.pageBytes)
            if let pieces = slot.pointee.pieces {
                for index in 0..<slot.pointee.pieceCount where left > 0 {
                    var piece = pieces[index]
                    piece.length = min(piece.length, left)
                    target.pointee.pendingIO += issuePaced(
                        IORequest(
                            tag: tag, operation: .write, file: file(target.pointee.segment),
                            fileOffset: place, piece: piece),
                        SegmentTable.device(target.pointee.segment))
                    place += piece.length
                    left -= piece.length
                }
            }
            operation = slot.pointee.next
        }
    }

    func groupWritten(_ group: Int32, _ completion: IOCompletion) {
        let target = groups + Int(group)
        target.pointee.pendingIO -= 1
        groupWriteEnded(SegmentTable.device(target.pointee.segment), completion.result)
        if completion.result < 0, target.pointee.errno == 0 {
            target.pointee.errno = Int32(truncatingIfNeeded: -completion.result)
        }
        guard target.pointee.pendingIO == 0 else { return }
        let segment = target.pointee.segment
        let errno = target.pointee.errno
        if !target.pointee.isOrphan { streams[target.pointee.stream].groupsInFlight -= 1 }
        let state = segments.pointer(segment)
        state.pointee.groupsInFlight -= 1
        if target.pointee.isOrphan {
            target.pointee.inUse = false
            freeGroups += 1
            return
        }
        if errno != 0 {
            writeFailed(segment, errno: errno)
            let kind = streams[target.pointee.stream].kind
            endGroup(group) { operation in rewriteOrFail(operation, kind, errno) }
            return
        }
        if state.pointee.flushFailed {
            // It is not flushed any more: elsewhere it can be.
            let kind = streams[target.pointee.stream].kind
            endGroup(group) { operation in rewriteOrFail(operation, kind, 5) }
            return
        }
        markDirty(segment)
        endGroup(group) { operation in written(operation) }
    }

    /// A gathered group that its device does not answer: what it held is written elsewhere, and the
    /// buffer is free when the device lets go of it.
    func giveUpGroup(_ group: Int32) {
        let target = groups + Int(group)
        let kind = streams[target.pointee.stream].kind
        var list = target.pointee.operations
        target.pointee.operations = OperationList()
        target.pointee.isOrphan = true
        // What comes now does not wait for it.
        streams[target.pointee.stream].groupsInFlight -= 1
        writeFailed(target.pointee.segment, errno: Self.givenUp)
        while true {
            let operation = list.popFirst(operations)
            if operation < 0 { return }
            if operations[operation].kind == .append { appending -= 1 }
            rewriteOrFail(operation, kind, Self.givenUp)
        }
    }

    /// Frees the group first, then ends its operations one by one: ending one may start another.
    func endGroup(_ group: Int32, _ body: (Int32) -> Void) {
        let target = groups + Int(group)
        var list = target.pointee.operations
        target.pointee.operations = OperationList()
        target.pointee.inUse = false
        freeGroups += 1
        while true {
            let operation = list.popFirst(operations)
            if operation < 0 { return }
            if operations[operation].kind == .append { appending -= 1 }
            body(operation)
        }
    }

    /// What a failed write held is written once more, elsewhere, while there is an elsewhere.
    private func rewriteOrFail(_ operation: Int32, _ kind: StreamKind, _ errno: Int32) {
        guard !operations[operation].rewritten, devices.contains(where: { $0.takesWrites })
        else {
            failWrite(operation, .failed, errno: errno)
            return
        }
        operations[operation].rewritten = true
        statistics.rewrites += 1
        enqueue(operation, kind: kind)
    }

    /// A failed write takes the segment out of use for writing; what was written before stays
    /// readable, each read checked.
    private func writeFailed(_ segment: UInt32, errno: Int32) {
        statistics.writeErrors += 1
        deviceFailed(SegmentTable.device(segment), errno: errno)
        quarantine(segment)
    }

    // MARK: After the write

    func failWrite(_ operation: Int32, _ status: Status, errno: Int32) {
        let slot = operations.slots + Int(operation)
        slot.pointee.errno = errno
        if slot.pointee.kind == .record {
            let owner = slot.pointee.owner
            operations.give(operation)
            operations[owner].errno = errno
            recordEnded(owner)
            return
        }
        if slot.pointee.reinsertion {
            reinsertionEnded(operation, published: false)
            return
        }
        finish(operation, status)
    }

    private func written(_ operation: Int32) {
        let slot = operations.slots + Int(operation)
        if slot.pointee.kind == .record {
            let owner = slot.pointee.owner
            noteRecord(owner, Place(segment: slot.pointee.segment, page: slot.pointee.page))
            operations.give(operation)
            recordEnded(owner)
            return
        }
        if slot.pointee.errno != 0 {  // the source could not be read
            finish(operation, .failed)
            return
        }
        if !namespaces.isLive(slot.pointee.namespaceSlot) {  // purged meanwhile
            if slot.pointee.reinsertion {
                reinsertionEnded(operation, published: false)
            } else {
                finish(operation, .invalid)
            }
            return
        }
        if slot.pointee.reinsertion {
            reinsertionEnded(operation, published: republish(operation))
            return
        }
        if slot.pointee.replace
            && (index.find(slot.pointee.fingerprint) != nil
                || quarantinedKeys.contains(slot.pointee.fingerprint))
        {
            // The old version stays until the new one cannot be lost.
            slot.pointee.phase = .waitingForValueFlush
            segments[slot.pointee.segment].unpublished += 1
            waitForFlush(operation)
            return
        }
        guard publish(slot.pointee.fingerprint, entry(operation)) else {
            finish(operation, configuration.mode == .cache ? .throttled : .noSpace)
            return
        }
        statistics.admittedBytes += UInt64(slot.pointee.length)
        tables.forget(slot.pointee.fingerprint)
        settle(operation)
    }

    func entry(_ operation: Int32) -> IndexEntry {
        let slot = operations.slots + Int(operation)
        return IndexEntry(
            place: Place(segment: slot.pointee.segment, page: slot.pointee.page),
            length: slot.pointee.length, shardCount: slot.pointee.shardCount,
            namespaceSlot: slot.pointee.namespaceSlot,
            versionLow: UInt32(truncatingIfNeeded: slot.pointee.version),
            checksum: slot.pointee.checksum, expiry: slot.pointee.expiry, flags: 0)
    }

    /// A put whose value (and records) are written: done, or waits for the flush of its class.
    func settle(_ operation: Int32) {
        if operations[operation].durability == .durable {
            operations[operation].phase = .waitingForFlush
            waitForFlush(operation)
        } else {
            finish(operation, .stored)
        }
    }

    /// One of an operation's two records has been written or has failed.
    private func recordEnded(_ owner: Int32) {
        let slot = operations.slots + Int(owner)
        slot.pointee.pendingRecords -= 1
        guard slot.pointee.pendingRecords == 0 else { return }
        recordsEnded(owner)
    }
}
