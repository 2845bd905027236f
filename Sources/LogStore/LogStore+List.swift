// Listing: keys lie on disk only, so a listing walks the segments, by footer where there is one and
// else group by group, and tells the blocks of which the index says that they live at that place.
// One listing at a time reads; others wait their turn.
//
// Invariants: a segment that is being read has a reader, so that it is not recycled meanwhile; a
// block that is neither put, moved nor removed meanwhile is told once, since within a segment
// blocks are told by rising page, and the cursor is the next page.

import BlockIO
import SegmentFormat

struct Lister {
    static let pages = 32

    enum Phase {
        case idle
        /// Between two segments, or two reads.
        case ready
        case reading
    }

    /// How the segment is walked.
    enum Walk {
        case none
        /// The next footer page to read.
        case footer(next: UInt32)
        case groups(SegmentScan)
    }

    /// Where a part stopped, to go on from there without reading what was told again.
    struct Stop {
        var segment: UInt32
        var generation: UInt64
        var page: UInt32
        var isFooter: Bool
        /// The footer page, or the first page of the group.
        var from: UInt32
    }

    var phase = Phase.idle
    var list: BlockList?
    var token: UInt64 = 0
    var waiting: [(token: UInt64, list: BlockList)] = []
    var walk = Walk.none
    var generation: UInt64 = 0
    var pagesRead: UInt32 = 0
    var stop: Stop?
    /// Made with the first listing.
    var memory: UnsafeMutableRawPointer?

    var isIdle: Bool { list == nil && waiting.isEmpty }
}

extension LogStore {
    private static let pageBytes = FormatConstants.pageBytes

    /// Adds the blocks from `list.place` on; the outcome comes when the list is full or all have
    /// been told.
    package func list(token: UInt64, _ list: BlockList) {
        lister.waiting.append((token, list))
    }

    /// Visits the appends under way, which have their keys in memory, until the body says no.
    /// Returns the operation to go on with, nil when all were visited.
    package func forEachAppend(
        from first: Int,
        _ body: (_ fingerprint: Fingerprint, _ space: UInt16, _ key: UnsafeRawBufferPointer) -> Bool
    ) -> Int? {
        var index = first
        while index < operations.capacity {
            let operation = Int32(index)
            if operations[operation].kind == .append {
                let goOn = body(
                    operations[operation].fingerprint, operations[operation].namespaceSlot,
                    operations.key(operation))
                if !goOn { return index }
            }
            index += 1
        }
        return nil
    }

    // MARK: The machine

    func advanceList() {
        while lister.phase != .reading {
            guard let list = lister.list ?? nextList() else { return }
            guard case .segment(let segment, let page) = list.place else {
                endList(list)
                continue
            }
            switch lister.walk {
            case .none: beginSegment(list, segment, page)
            case .footer(let next): readFooterPages(list, segment, next)
            case .groups(let scan): continueGroups(list, segment, page, scan)
            }
        }
    }

    private func nextList() -> BlockList? {
        guard !lister.waiting.isEmpty else { return nil }
        let next = lister.waiting.removeFirst()
        if lister.memory == nil {
            lister.memory = .allocate(
                byteCount: Lister.pages * Self.pageBytes, alignment: Self.pageBytes)
        }
        lister.list = next.list
        lister.token = next.token
        lister.walk = .none
        lister.phase = .ready
        // What is only in memory is told by the layer that has it.
        if case .memory = next.list.place { next.list.place = .segment(0, page: 0) }
        return next.list
    }

    private func endList(_ list: BlockList) {
        lister.list = nil
        lister.walk = .none
        lister.phase = .idle
        delegate?.finished(Outcome(token: lister.token, status: .done))
    }

    /// Ends this part: there is no room for the block at this page.
    private func stopList(
        _ list: BlockList, _ segment: UInt32, _ page: UInt32, isFooter: Bool, from: UInt32
    ) {
        list.place = .segment(segment, page: page)
        lister.stop = Lister.Stop(
            segment: segment, generation: lister.generation, page: page, isFooter: isFooter,
            from: from)
        endList(list)
    }

    // MARK: Segments

    /// The segment behind this one, on the next device perhaps; nil when there is none.
    private func segment(after id: UInt32) -> UInt32? {
        let device = SegmentTable.device(id)
        let local = SegmentTable.local(id) + 1
        if device < segments.counts.count, local < segments.counts[device] {
            return SegmentTable.id(device: device, local: local)
        }
        for next in segments.counts.indices where next > device && segments.counts[next] > 0 {
            return SegmentTable.id(device: next, local: 0)
        }
        return nil
    }

    private func leaveSegment(_ list: BlockList, _ segment: UInt32) {
        lister.walk = .none
        list.place = self.segment(after: segment).map { .segment($0, page: 0) } ?? .end
    }

    private func beginSegment(_ list: BlockList, _ segment: UInt32, _ page: UInt32) {
        guard namespaces.instance(list.namespaceSlot) == list.instance else {
            list.place = .end
            return
        }
        guard segments.isValid(segment), segments[segment].file >= 0,
            segments[segment].liveBlocks > 0
        else {
            leaveSegment(list, segment)
            return
        }
        switch segments[segment].state {
        case .open, .sealed, .reclaiming, .quarantined: break
        case .uncreated, .clean, .absent:
            leaveSegment(list, segment)
            return
        }
        lister.generation = segments[segment].generation
        let footer = segments[segment].footerFirstPage
        // A footer that is still being written cannot be read yet.
        let hasFooter = segments[segment].footerPages > 0 && segments[segment].groupsInFlight == 0
        var from: UInt32?
        if let stop = lister.stop, stop.segment == segment, stop.page == page,
            stop.generation == lister.generation, stop.isFooter == hasFooter
        {
            from = stop.from
        }
        if hasFooter {
            lister.walk = .footer(next: from ?? footer)
        } else {
            lister.walk = .groups(groupScan(segment, from: from))
        }
    }

    private func groupScan(_ segment: UInt32, from: UInt32?) -> SegmentScan {
        let end = segments[segment].state == .open ? segments[segment].writtenPages : segmentPages
        return SegmentScan(segment: segment, endPage: end, from: from ?? 1)
    }

    private func read(_ segment: UInt32, first: UInt32, count: UInt32) {
        guard let memory = lister.memory else { return }
        lister.phase = .reading
        segments[segment].readers += 1
        issue(
            IORequest(
                tag: Self.tag(.list, 0, segment), operation: .read, file: file(segment),
                fileOffset: Self.offset(page: first),
                piece: Piece(
                    region: .process, offset: UInt64(UInt(bitPattern: memory)),
                    length: UInt64(Int(count) * Self.pageBytes))),
            on: SegmentTable.device(segment))
    }

    func listRead(_ segment: UInt32, _ completion: IOCompletion) {
        segments[segment].readers -= 1
        let errno = completion.result < 0 ? Int32(truncatingIfNeeded: -completion.result) : 0
        lister.phase = .ready
        guard let list = lister.list else { return }
        if errno != 0 { statistics.readErrors += 1 }
        switch lister.walk {
        case .none: break
        case .footer(let next):
            if errno != 0 {
                lister.walk = .groups(groupScan(segment, from: nil))
            } else {
                tellFooterPages(list, segment, next)
            }
        case .groups(var scan):
            scan.arrived(errno: errno)
            lister.walk = .groups(scan)
        }
    }

    // MARK: Footers

    private func readFooterPages(_ list: BlockList, _ segment: UInt32, _ next: UInt32) {
        let end = segments[segment].footerFirstPage + segments[segment].footerPages
        guard segments[segment].generation == lister.generation, next < end else {
            leaveSegment(list, segment)
            return
        }
        lister.pagesRead = min(end - next, UInt32(Lister.pages))
        read(segment, first: next, count: lister.pagesRead)
    }

    private func tellFooterPages(_ list: BlockList, _ segment: UInt32, _ next: UInt32) {
        guard let memory = lister.memory, case .segment(_, let from) = list.place else { return }
        for page in 0..<lister.pagesRead {
            let bytes = UnsafeRawBufferPointer(
                start: memory + Int(page) * Self.pageBytes, count: Self.pageBytes)
            guard
                var reader = try? DescriptorPageReader(
                    page: bytes, context: context(segment), pageNumber: next + page)
            else {
                // What this page held stands in the groups too.
                statistics.damagedPages += 1
                lister.walk = .groups(groupScan(segment, from: nil))
                return
            }
            while let view = reader.next() {
                if !tell(list, segment, view, from: from) {
                    stopList(
                        list, segment, view.descriptor.page, isFooter: true, from: next + page)
                    return
                }
            }
            // From here on, should the rest of the footer be damaged.
            moveOn(list, segment, behind: bytes, number: next + page)
        }
        lister.walk = .footer(next: next + lister.pagesRead)
    }

    /// Notes that everything on a page has been told.
    private func moveOn(
        _ list: BlockList, _ segment: UInt32, behind bytes: UnsafeRawBufferPointer, number: UInt32
    ) {
        guard
            var reader = try? DescriptorPageReader(
                page: bytes, context: context(segment), pageNumber: number),
            case .segment(_, var page) = list.place
        else { return }
        while let view = reader.next() {
            if view.descriptor.hasValue { page = max(page, view.descriptor.page + 1) }
        }
        list.place = .segment(segment, page: page)
    }

    // MARK: Groups

    private func continueGroups(
        _ list: BlockList, _ segment: UInt32, _ from: UInt32, _ scan: SegmentScan
    ) {
        guard let memory = lister.memory else { return }
        guard segments[segment].generation == lister.generation else {
            leaveSegment(list, segment)
            return
        }
        var scan = scan
        var stopped: (page: UInt32, group: UInt32)?
        let isThrough = scan.advance(
            memory: memory, capacity: Lister.pages * Self.pageBytes, context: context(segment)
        ) { view, header in
            if tell(list, segment, view, from: from) { return true }
            stopped = (view.descriptor.page, header.groupFirstPage)
            return false
        }
        if let stopped {
            stopList(list, segment, stopped.page, isFooter: false, from: stopped.group)
        } else if isThrough {
            leaveSegment(list, segment)
        } else {
            readWanted(list, segment, scan)
        }
    }

    private func readWanted(_ list: BlockList, _ segment: UInt32, _ scan: SegmentScan) {
        lister.walk = .groups(scan)
        guard let wanted = scan.wanted else {
            leaveSegment(list, segment)
            return
        }
        read(segment, first: wanted.first, count: wanted.count)
    }

    // MARK: Blocks

    /// Tells a block if it lives here. False: there is no room for it.
    private func tell(
        _ list: BlockList, _ segment: UInt32, _ view: RecordView, from: UInt32
    ) -> Bool {
        let descriptor = view.descriptor
        guard descriptor.hasValue, descriptor.page >= from,
            descriptor.namespaceInstance == list.instance
        else { return true }
        let fingerprint = fingerprint(instance: list.instance, view.key)
        guard let entry = index.find(fingerprint), entry.place.segment == segment,
            entry.place.page == descriptor.page, !entry.isDamaged,
            !entry.isExpired(at: wallSeconds)
        else { return true }
        return list.add(
            view.key, length: entry.length, version: descriptor.version,
            shardCount: entry.shardCount)
    }
}
