// Emptying a victim: its records are gone through front to back, by its footer or, where that
// cannot be read, group by group; in cache mode once to make the plan and once to act on it. Each
// block leaves the index or is moved, each tombstone still needed is carried on. When all of that
// is flushed and nobody reads it any more, the segment gets a header with a new generation.

import BlockIO
import SegmentFormat

extension LogStore {
    private static let pageBytes = FormatConstants.pageBytes

    func startVictim(_ device: Int, _ segment: UInt32) {
        let chunk = reclaimPool.take()
        guard chunk >= 0 else { return }
        segments[segment].state = .reclaiming
        reclaimers[device].segment = segment
        reclaimers[device].chunk = chunk
        reclaimers[device].pending = 0
        reclaimers[device].oldestValue = oldestValue(except: segment)
        reclaimers[device].nextPage = segments[segment].footerFirstPage
        reclaimers[device].movedTo.removeAll(keepingCapacity: true)
        reclaimers[device].plan.begin()
        reclaimers[device].asked = Fingerprint(hi: 0, lo: 0)
        if segments[segment].footerPages == 0 {
            startScan(device)
            return
        }
        reclaimers[device].surveying =
            configuration.mode == .cache && segments[segment].liveBlocks > 0
            && reinsertionBudget() > 0
        readFooter(device)
    }

    /// The lowest generation of a sealed segment.
    func oldestGeneration(_ device: Int) -> UInt64 {
        var lowest = UInt64.max
        for local in 0..<segments.counts[device] {
            let id = SegmentTable.id(device: device, local: local)
            if segments[id].state == .sealed { lowest = min(lowest, segments[id].generation) }
        }
        return lowest
    }

    /// The lowest version of a value that may lie in a segment other than this one; 0 while a
    /// member is away, since nobody knows what it holds.
    func oldestValue(except: UInt32) -> UInt64 {
        if anyMemberAway { return 0 }
        var lowest = UInt64.max
        segments.forEach { id in
            let state = segments.pointer(id)
            switch state.pointee.state {
            case .open, .sealed, .quarantined, .reclaiming, .absent:
                if id != except {
                    lowest = min(
                        lowest, state.pointee.minValueVersion, state.pointee.formerValueVersion)
                }
            case .clean: lowest = min(lowest, state.pointee.formerValueVersion)
            case .uncreated: break
            }
        }
        return lowest
    }

    private func readFooter(_ device: Int) {
        let segment = reclaimers[device].segment
        let end = segments[segment].footerFirstPage + segments[segment].footerPages
        guard reclaimers[device].nextPage < end else {
            if reclaimers[device].surveying {
                reclaimers[device].surveying = false
                reclaimers[device].plan.decide(budget: reinsertionBudget())
                reclaimers[device].nextPage = segments[segment].footerFirstPage
                readFooter(device)
            } else {
                recordsDone(device)
            }
            return
        }
        let pages = min(Int(end - reclaimers[device].nextPage), Self.reclaimPages)
        reclaimers[device].pagesRead = pages
        reclaimers[device].currentPage = 0
        reclaimers[device].currentRecord = 0
        reclaimers[device].phase = .reading
        issueReclaim(
            device,
            IORequest(
                tag: Self.tag(.reclaimRead, Int32(device)), operation: .read, file: file(segment),
                fileOffset: Self.offset(page: reclaimers[device].nextPage),
                piece: reclaimPool.piece(
                    reclaimers[device].chunk, length: pages * Self.pageBytes)))
    }

    /// Hands over a read of a reclaim, of which each has one under way: in its turn, whole or in
    /// parts.
    func issueReclaim(_ device: Int, _ request: IORequest) {
        reclaimers[device].readErrno = 0
        // Before it is known how many parts there are none of them can end.
        reclaimers[device].readParts = issueLater(request, device, urgent: isShort(device))
    }

    /// A part of the read has ended. Nil: there are more; else the errno of the whole.
    func reclaimReadEnded(_ device: Int, _ errno: Int32) -> Int32? {
        pacedEnded(device)
        if errno != 0 { reclaimers[device].readErrno = errno }
        reclaimers[device].readParts -= 1
        return reclaimers[device].readParts == 0 ? reclaimers[device].readErrno : nil
    }

    func footerRead(_ device: Int, _ errno: Int32) {
        if reclaimers[device].scan != nil {
            reclaimers[device].scan?.arrived(errno: errno)
            reclaimers[device].phase = .scanning
            return
        }
        if errno != 0 {
            statistics.readErrors += 1
            startScan(device)
            return
        }
        reclaimers[device].phase = .recordsReady
        continueRecords(device)
    }

    /// Goes through the records of the pages read, as far as there are operation slots for what has
    /// to be carried on.
    func continueRecords(_ device: Int) {
        let segment = reclaimers[device].segment
        let memory = reclaimPool.pointer(reclaimers[device].chunk)
        while reclaimers[device].currentPage < reclaimers[device].pagesRead {
            let page = reclaimers[device].currentPage
            let bytes = UnsafeRawBufferPointer(
                start: memory + page * Self.pageBytes, count: Self.pageBytes)
            let number = reclaimers[device].nextPage + UInt32(page)
            do {
                var reader = try DescriptorPageReader(
                    page: bytes, context: context(segment), pageNumber: number)
                var record = 0
                while let view = reader.next() {
                    if record >= reclaimers[device].currentRecord {
                        if reclaimers[device].surveying {
                            survey(device, view)
                        } else if !leave(device, view) {
                            return
                        }
                        reclaimers[device].currentRecord = record + 1
                    }
                    record += 1
                }
            } catch {
                statistics.damagedPages += 1
                startScan(device)
                return
            }
            reclaimers[device].currentPage += 1
            reclaimers[device].currentRecord = 0
        }
        reclaimers[device].nextPage += UInt32(reclaimers[device].pagesRead)
        readFooter(device)
    }

    /// One record of a victim: its block leaves the index or is carried on. False: no room to carry
    /// it now, come back to the same record.
    private func leave(_ device: Int, _ view: RecordView) -> Bool {
        guard let slot = namespaces.slot(instance: view.descriptor.namespaceInstance),
            isWithin(view.descriptor)
        else { return true }
        let fingerprint = fingerprint(instance: view.descriptor.namespaceInstance, view.key)
        let segment = reclaimers[device].segment
        if view.descriptor.flags.contains(.tombstone)
            || view.descriptor.flags.contains(.supersede)
        {
            guard reclaimers[device].oldestValue < view.descriptor.version else { return true }
            return carryRecord(device, fingerprint, slot, view)
        }
        guard var entry = index.find(fingerprint) else { return true }
        if entry.place.segment != segment || entry.place.page != view.descriptor.page {
            guard isLost(entry, view) else { return true }
            // Back to where it was: this copy is durable.
            entry.place = Place(segment: segment, page: view.descriptor.page)
            guard publish(fingerprint, entry) else { return true }
        }
        if entry.expiry != 0, entry.isExpired(at: wallSeconds) {
            evict(fingerprint, entry)
            return true
        }
        if stays(device, fingerprint, entry, view) {
            guard move(device, fingerprint, slot, view, entry) else { return false }
            return true
        }
        evict(fingerprint, entry)
        return true
    }

    /// Whether what a record tells lies in its segment; a page that verifies may still be wrong.
    private func isWithin(_ descriptor: Descriptor) -> Bool {
        UInt64(descriptor.page) + UInt64(descriptor.storedPages) < UInt64(segmentPages)
    }

    /// Whether the index's copy of a record is one that was moved out of this victim by an attempt
    /// whose flush failed: it may be gone at the next crash.
    private func isLost(_ entry: IndexEntry, _ view: RecordView) -> Bool {
        entry.versionLow == UInt32(truncatingIfNeeded: view.descriptor.version)
            && fullVersion(entry) == view.descriptor.version
            && segments[entry.place.segment].state == .quarantined && !isDurable(entry)
    }

    /// Whether a live block of the victim is written again. Asked once for each record that has
    /// room to be moved.
    private func stays(
        _ device: Int, _ fingerprint: Fingerprint, _ entry: IndexEntry, _ view: RecordView
    ) -> Bool {
        if configuration.mode == .store || isPinned(fingerprint) { return true }
        if reclaimers[device].asked == fingerprint { return true }
        guard
            reclaimers[device].plan.keeps(
                fingerprint, heat: heat.heat(of: fingerprint, entry),
                pages: view.descriptor.storedPages)
        else { return false }
        reclaimers[device].asked = fingerprint
        return true
    }

    /// The first pass: what there is, by heat and place in its chain.
    private func survey(_ device: Int, _ view: RecordView) {
        let instance = view.descriptor.namespaceInstance
        guard namespaces.slot(instance: instance) != nil, isWithin(view.descriptor) else { return }
        let fingerprint = fingerprint(instance: instance, view.key)
        guard let entry = index.find(fingerprint),
            entry.place.segment == reclaimers[device].segment,
            entry.place.page == view.descriptor.page
        else { return }
        let parent = view.parent.isEmpty ? nil : self.fingerprint(instance: instance, view.parent)
        reclaimers[device].plan.add(
            fingerprint, parent: parent, heat: heat.heat(of: fingerprint, entry),
            pages: view.descriptor.storedPages)
    }

    /// Pages that may be written again now without passing the bound on write amplification, and no
    /// more than half of one victim, so that emptying it gains something.
    private func reinsertionBudget() -> UInt32 {
        let allowed = Double(statistics.admittedBytes) * (configuration.writeAmplification - 0.005)
        let left = allowed - Double(statistics.writtenBytes)
        if left <= 0 { return 0 }
        return min(segmentPages / 2, UInt32(clamping: Int(left) / Self.pageBytes))
    }

    func evict(_ fingerprint: Fingerprint, _ entry: IndexEntry) {
        let expired = entry.expiry != 0 && entry.isExpired(at: wallSeconds)
        ghosts.note(fingerprint, expired ? .expired : .evicted, seconds: wallSeconds)
        unpublish(fingerprint)
        removePin(fingerprint)
        tables.forget(fingerprint)
        statistics.evictedBlocks += 1
        statistics.evictedBytes += UInt64(entry.length)
        if expired { statistics.expiredBlocks += 1 }
        delegate?.evicted(fingerprint)
    }

    func recordsDone(_ device: Int) {
        reclaimers[device].phase = .recordsEnded
        if !reclaimers[device].window.isEmpty {
            readWindow(device)
            return
        }
        // Whatever a damaged page hid is found by going through the index.
        if segments[reclaimers[device].segment].liveBlocks > 0 {
            reclaimers[device].sweepBucket = 0
            reclaimers[device].phase = .sweeping
        } else {
            reclaimers[device].phase = .settling
        }
    }

    private func startScan(_ device: Int) {
        reclaimers[device].surveying = false
        reclaimers[device].plan.keepNothing()
        reclaimers[device].scan = SegmentScan(
            segment: reclaimers[device].segment, endPage: segmentPages)
        reclaimers[device].phase = .scanning
    }

    func continueScan(_ device: Int) {
        guard var scan = reclaimers[device].scan else { return }
        reclaimers[device].scan = nil
        let memory = reclaimPool.pointer(reclaimers[device].chunk)
        let finished = scan.advance(
            memory: memory, capacity: reclaimPool.chunkBytes, context: context(scan.segment)
        ) { view, _ in leave(device, view) }
        if finished {
            recordsDone(device)
            return
        }
        if let wanted = scan.wanted {
            reclaimers[device].phase = .reading
            issueReclaim(
                device,
                IORequest(
                    tag: Self.tag(.reclaimRead, Int32(device)), operation: .read,
                    file: file(scan.segment), fileOffset: Self.offset(page: wanted.first),
                    piece: reclaimPool.piece(
                        reclaimers[device].chunk, length: Int(wanted.count) * Self.pageBytes)))
        }
        reclaimers[device].scan = scan
    }

    func continueSweep(_ device: Int) {
        // What is being carried on leaves the index by itself, or stays in it elsewhere.
        guard reclaimers[device].pending == 0, sweepOwner == nil || sweepOwner == device else {
            return
        }
        if reclaimers[device].failed {
            giveSweepBack(device)
            reclaimers[device].phase = .settling
            return
        }
        sweepOwner = device
        let segment = reclaimers[device].segment
        reclaimers[device].sweepBucket = index.sweep(
            from: reclaimers[device].sweepBucket, buckets: 16384
        ) { fingerprint, entry in
            guard entry.place.segment == segment else { return false }
            if !namespaces.isLive(entry.namespaceSlot) {  // purged, and not swept yet
                sweptOut(entry)
                return true
            }
            if configuration.mode == .store || isPinned(fingerprint) {
                // Its key cannot be read here, so it cannot be moved: the victim has to stay.
                reclaimers[device].failed = true
                segments[segment].holdsUnreadable = true
                return false
            }
            ghosts.note(fingerprint, .evicted, seconds: wallSeconds)
            sweptOut(entry)
            statistics.evictedBlocks += 1
            statistics.evictedBytes += UInt64(entry.length)
            delegate?.evicted(fingerprint)
            return true
        }
        if reclaimers[device].sweepBucket >= index.bucketCount {
            sweepOwner = nil
            reclaimers[device].phase = .settling
        }
    }

    /// Ends a sweep before it is through.
    func giveSweepBack(_ device: Int) {
        guard sweepOwner == device else { return }
        sweepOwner = nil
        index.cancelSweep()
    }

    /// The accounting of an entry that a sweep removes.
    func sweptOut(_ entry: IndexEntry) {
        segments[entry.place.segment].livePages -= accountedPages(entry)
        segments[entry.place.segment].liveBlocks -= 1
        statistics.liveBytes -= UInt64(entry.length)
        namespaces.removed(entry.namespaceSlot, bytes: UInt64(entry.length))
    }

    func settleVictim(_ device: Int) {
        let segment = reclaimers[device].segment
        let state = segments.pointer(segment)
        let isNew = state.pointee.state == .uncreated
        // A flush of it failed meanwhile: it takes no writes any more.
        if state.pointee.state == .quarantined { reclaimers[device].failed = true }
        if reclaimers[device].failed && reclaimers[device].pending == 0 {
            if movedIsSettled(device) { leaveVictim(device) }
            return
        }
        guard reclaimers[device].pending == 0, state.pointee.readers == 0,
            state.pointee.groupsInFlight == 0, isNew || movedIsDurable(device),
            !flushCovers(segment), let generation = takeGeneration()
        else { return }
        reclaimers[device].movedTo.removeAll(keepingCapacity: true)
        forgetMoves(into: segment)
        reclaimers[device].scan = nil
        if reclaimers[device].chunk < 0 {
            reclaimers[device].chunk = reclaimPool.take()
            guard reclaimers[device].chunk >= 0 else { return }
        }
        reclaimers[device].isRecycling = !isNew
        let former = state.pointee
        if former.holdsForgotten { leftVictims -= 1 }
        flush.dirty.removeAll { $0 == segment }
        condemned.remove(segment)
        state.pointee = Segment()
        state.pointee.file = former.file
        state.pointee.formerValueVersion = min(former.minValueVersion, former.formerValueVersion)
        state.pointee.generation = generation
        state.pointee.state = .reclaiming
        var header = SegmentHeader()
        header.store = manifest.store
        header.device = devices[device].id
        header.segment = segment
        header.generation = generation
        header.segmentBytes = manifest.segmentBytes
        header.state = 1
        header.versionBase = nextVersion
        header.createdWallSeconds = wallSeconds
        let memory = reclaimPool.pointer(reclaimers[device].chunk)
        header.encode(
            into: UnsafeMutableRawBufferPointer(start: memory, count: Self.pageBytes),
            secret: manifest.secret)
        reclaimers[device].phase = .writingHeader
        reclaimers[device].headerWrites = 2
        for page in 0..<2 {
            issue(
                IORequest(
                    tag: Self.tag(.segmentHeader, Int32(device)), operation: .write,
                    file: file(segment),
                    fileOffset: page == 0 ? 0 : Self.offset(page: segmentPages - 1),
                    piece: reclaimPool.piece(reclaimers[device].chunk, length: Self.pageBytes)),
                on: device)
        }
    }

    /// A victim whose tombstones or pinned blocks could not be carried on keeps what it has.
    private func leaveVictim(_ device: Int) {
        giveChunk(device)
        reclaimers[device].failed = false
        reclaimers[device].scan = nil
        reclaimers[device].phase = .idle
        reclaimers[device].retryAt = clock.monotonic + 1_000_000_000
        reclaimers[device].isStuck = reclaimers[device].clean.count <= reserved(device)
        let state = segments.pointer(reclaimers[device].segment)
        if state.pointee.state == .reclaiming { state.pointee.state = .sealed }
        if !state.pointee.holdsForgotten { leftVictims += 1 }
        state.pointee.holdsForgotten = true
    }

    func flushCovers(_ segment: UInt32) -> Bool {
        flush.isRunning && flush.running.contains(segment) || flush.late.segments.contains(segment)
    }
}
