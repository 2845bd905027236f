// Victims: which segment is emptied next. In cache mode the oldest, or one little younger that is
// much emptier; in store mode one that holds nothing alive, else, when enough of the device is
// dead, the one that is emptiest.

import SegmentFormat

extension LogStore {
    /// Whether a record stream's open segment takes this many more pages of records.
    private func hasRecordRoom(_ kind: StreamKind, _ device: Int, _ pages: UInt32) -> Bool {
        for stream in streams.indices
        where streams[stream].kind == kind && streams[stream].device == device
            && streams[stream].segment != nil
        { return room(stream, descriptors: Int(pages)) >= 2 * pages }
        return false
    }

    /// Whether there are segments for both copies of what a segment of records may hold, and
    /// emptying it gains anything: records move from one new segment to the next without end if
    /// all of them are needed (`oldest`: the lowest version of a value elsewhere) and the open
    /// segments have no room for them. Where they are to go to another member (`spreads`), that is
    /// the gain; but it takes space there and gives none back, so a segment is left for deletes.
    func canCarry(_ segment: Segment, oldest: UInt64, spreads: Bool) -> Bool {
        let first = writableDevice(after: -1)
        let second = writableDevice(after: first)
        // Carried on, records take no more pages than in the footer (or seven of the longest a
        // page), and as many of the new footer.
        let pages =
            segment.footerPages > 0 ? segment.footerPages + 2 : segment.recordCount / 7 + 2
        if hasRecordRoom(.recordsA, first, pages) && hasRecordRoom(.recordsB, second, pages) {
            return true
        }
        if spreads, segment.lacksTwins { return hasRoomForTwins(first, second) }
        if spreads {
            let target = segment.stream == StreamKind.recordsA.rawValue ? first : second
            return reclaimers[target].clean.count >= 2
        }
        if segment.minVersion > oldest { return false }
        if first == second { return reclaimers[first].clean.count >= 2 }
        return !reclaimers[first].clean.isEmpty && !reclaimers[second].clean.isEmpty
    }

    /// Whether both members have segments for copies of records that lack their twins: without them
    /// one would end beside the other once more.
    func hasRoomForTwins(_ first: Int, _ second: Int) -> Bool {
        (reclaimers[first].clean.count >= 2 || canCreate(first))
            && (reclaimers[second].clean.count >= 2 || canCreate(second))
    }

    /// Cache mode: where segments of records pile up because an old value still lies in an open
    /// segment, that one is sealed, so that it takes its turn and the records can go.
    func sealWhatHoldsRecords(_ device: Int, _ victim: UInt32) {
        guard configuration.mode == .cache,
            segments[victim].minValueVersion == UInt64.max
        else { return }
        for stream in streams.indices where !streams[stream].isRecords {
            guard let segment = streams[stream].segment, streams[stream].groupsInFlight == 0,
                streams[stream].waiting < 0,
                segments[segment].minValueVersion < segments[victim].maxVersion,
                footerPool.freeCount > 0
            else { continue }
            closeSegment(stream)
        }
    }

    /// Whether a segment may be emptied now.
    func isVictim(_ id: UInt32) -> Bool {
        let state = segments.pointer(id)
        guard state.pointee.state == .sealed, state.pointee.groupsInFlight == 0,
            state.pointee.unpublished == 0, !state.pointee.holdsContested,
            mayLeave || !condemned.contains(id)
        else { return false }
        // Records that an old value may still need are carried on, which takes room elsewhere.
        guard state.pointee.minValueVersion == UInt64.max else { return true }
        // A damaged one goes although all its records have to be carried on.
        if condemned.contains(id) {
            return canCarry(state.pointee, oldest: UInt64.max, spreads: false)
        }
        let oldest = oldestValue(except: id)
        return oldest >= state.pointee.maxVersion
            || canCarry(
                state.pointee, oldest: oldest, spreads: liesBesideTwins(id, spreading.homes))
    }

    /// The segment to empty next, if there is one.
    func victim(_ device: Int) -> UInt32? {
        // What was rewritten and could not be flushed keeps every segment as it is.
        if rewriting, let lost = firstUnflushedRewrite(),
            segments[lost.segment].state == .quarantined
        {
            return nil
        }
        if configuration.mode == .cache, !rewriting, let dead = deadVictim(device) { return dead }
        let oldest = oldestVictim(device) ?? oldestVictim(device, unreadable: true)
        if rewriting { return oldest }
        guard let oldest else { return configuration.mode == .store ? emptiest(device) : nil }
        return configuration.mode == .cache ? cheaper(device, than: oldest) : oldest
    }

    /// Cache mode: one that holds nothing alive and no records gives its room for nothing. A repair
    /// or a compaction that was cut short leaves such, and of failed writes they come, too.
    private func deadVictim(_ device: Int) -> UInt32? {
        var best: UInt32?
        for local in 0..<segments.counts[device] {
            let id = SegmentTable.id(device: device, local: local)
            let state = segments.pointer(id)
            guard state.pointee.state == .sealed, state.pointee.liveBlocks == 0,
                state.pointee.recordCount == 0 || state.pointee.minValueVersion != UInt64.max,
                !state.pointee.holdsUnreadable, !state.pointee.holdsForgotten, isVictim(id)
            else { continue }
            if best.map({ state.pointee.generation < segments[$0].generation }) ?? true {
                best = id
            }
        }
        return best
    }

    /// The one of the lowest generation; where nothing may be evicted, of those that hold nothing
    /// alive.
    private func oldestVictim(_ device: Int, unreadable: Bool = false) -> UInt32? {
        var best: UInt32?
        for local in 0..<segments.counts[device] {
            let id = SegmentTable.id(device: device, local: local)
            let mayEvict = configuration.mode == .cache && !rewriting
            if !mayEvict && segments[id].liveBlocks > 0 { continue }
            guard segments[id].holdsUnreadable == unreadable, isVictim(id) else { continue }
            if best.map({ segments[id].generation < segments[$0].generation }) ?? true {
                best = id
            }
        }
        return best
    }

    /// Of the few oldest, one that has far less alive than the oldest gives the same room and costs
    /// fewer blocks. The oldest is passed over a few times only: it may hold what old records and
    /// tombstones wait for.
    private func cheaper(_ device: Int, than oldest: UInt32) -> UInt32 {
        guard reclaimers[device].passedOver < Self.fewOldest else { return oldest }
        var best = oldest
        var after = segments[oldest].generation
        for _ in 1..<Self.fewOldest {
            var next: UInt32?
            for local in 0..<segments.counts[device] {
                let id = SegmentTable.id(device: device, local: local)
                guard segments[id].state == .sealed, segments[id].generation > after,
                    segments[id].minValueVersion != UInt64.max
                else { continue }
                if next.map({ segments[id].generation < segments[$0].generation }) ?? true {
                    next = id
                }
            }
            guard let next else { break }
            after = segments[next].generation
            if isVictim(next), segments[next].livePages < segments[best].livePages / 4 * 3 {
                best = next
            }
        }
        return best
    }

    private static let fewOldest = 4

    /// Store mode: the emptiest segment, if so much of the device is dead that emptying segments
    /// gains whole ones, and there is room for what is alive in it.
    private func emptiest(_ device: Int) -> UInt32? {
        var best: UInt32?
        var dead: UInt64 = 0
        for local in 0..<segments.counts[device] {
            let id = SegmentTable.id(device: device, local: local)
            let state = segments[id]
            guard state.state == .sealed, state.minValueVersion != UInt64.max,
                !state.holdsUnreadable
            else { continue }
            // Blocks that died, at the size of those that live: what is lost to padding and at a
            // segment's end is lost again when it is written again.
            guard state.recordCount > state.liveBlocks, isVictim(id) else { continue }
            let died = UInt64(state.recordCount - state.liveBlocks)
            dead += died * UInt64(state.livePages) / UInt64(max(1, state.liveBlocks))
            if best.map({ state.livePages < segments[$0].livePages }) ?? true { best = id }
        }
        guard let best, dead > UInt64(segmentPages) / 8 * 9 else { return nil }
        let needed = Self.rewritten(segments[best].livePages)
        guard needed + segmentPages / 32 < segmentPages else { return nil }
        let spare = reclaimers[device].clean.count - reservedForRecords(device)
        return spare > 0 || reinsertedRoom(device) > needed ? best : nil
    }

    /// Pages that live ones take once they are written again, close together.
    private static func rewritten(_ pages: UInt32) -> UInt32 { pages / 16 * 17 + 16 }

    /// Pages left in the open segment for blocks that are moved.
    private func reinsertedRoom(_ device: Int) -> UInt32 {
        for stream in streams.indices
        where streams[stream].kind == .reinserted && streams[stream].device == device
            && streams[stream].segment != nil
        { return room(stream, descriptors: 4) }
        return 0
    }
}
