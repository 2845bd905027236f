// Victims: which segment is emptied next. In cache mode the oldest, or one little younger that is
// much emptier; in store mode one that holds nothing alive, else, when enough of the device is
// dead, the one that is worth most.

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
    /// emptying it gains anything. It does where a part of them is needed no more (`oldest`: the
    /// lowest version of a value elsewhere), or where they were written one at a time, each in a
    /// page of its own: carried on, many share one. Of those that lie close together and are needed
    /// nearly all, emptying one segment would fill the next without end. Where they are to go to
    /// another member (`spreads`), that is the gain; but it takes space there and gives none back,
    /// so a segment is left for deletes.
    func canCarry(_ segment: Segment, oldest: UInt64, spreads: Bool) -> Bool {
        let first = writableDevice(after: -1)
        let second = writableDevice(after: first)
        if !spreads, isCloseTogether(segment) {
            let span = segment.maxVersion - min(segment.minVersion, segment.maxVersion)
            if oldest < segment.minVersion &+ span / 4 { return false }
        }
        // Carried on, records take no more pages than in the footer (or seven of the longest a
        // page), and as many of the new footer.
        let pages =
            segment.footerPages > 0 ? segment.footerPages + 2 : segment.recordCount / 7 + 2
        let haveRoom =
            hasRecordRoom(.recordsA, first, pages) && hasRecordRoom(.recordsB, second, pages)
        if !spreads, segment.minVersion > oldest {
            // Cache mode gains room by itself; and what is far from the versions of the open
            // segment would close it, to be the next that has but few.
            if configuration.mode == .cache, !haveRoom { return false }
            if isFarFromOpen(segment) { return false }
        }
        if haveRoom { return true }
        if spreads, segment.lacksTwins { return hasRoomForTwins(first, second) }
        if let only = streamOfTwin(segment) {
            let device = only == .recordsA ? first : second
            let clean = reclaimers[device].clean.count
            if spreads { return clean >= 2 }
            return clean >= 1 || hasRecordRoom(only, device, pages)
        }
        if first == second { return reclaimers[first].clean.count >= 2 }
        return !reclaimers[first].clean.isEmpty && !reclaimers[second].clean.isEmpty
    }

    /// Whether the versions of a segment's records are too far from those in the open segment that
    /// they would go to.
    private func isFarFromOpen(_ segment: Segment) -> Bool {
        let only = streamOfTwin(segment)
        for stream in streams where stream.isRecords && (only ?? stream.kind) == stream.kind {
            guard let open = stream.segment else { continue }
            if spansTooFar(open, segment.minVersion, segment.maxVersion) { return true }
        }
        return false
    }

    /// Whether a segment of records has more than half of those that one can hold. Without a footer
    /// it is not known how long they are: of usual ones, 28 fill a page.
    private func isCloseTogether(_ segment: Segment) -> Bool {
        let pages = segment.footerPages > 0 ? segment.footerPages : segment.recordCount / 28
        return 2 * Int(pages) > WriteStream.footerPages(segmentPages, records: true)
    }

    /// Whether both members have segments for copies of records that lack their twins: without them
    /// one would end beside the other once more.
    func hasRoomForTwins(_ first: Int, _ second: Int) -> Bool {
        (reclaimers[first].clean.count >= 2 || canCreate(first))
            && (reclaimers[second].clean.count >= 2 || canCreate(second))
    }

    /// Where segments of records pile up because an old value still lies in an open segment, that
    /// one is sealed, so that it takes its turn and the records can go. In cache mode they do when
    /// one of them is the victim.
    func sealWhatHoldsRecords(_ device: Int, victim: UInt32?) {
        var newest: UInt64?
        if configuration.mode == .store {
            newest = pressingRecords()
        } else if let victim, segments[victim].minValueVersion == UInt64.max {
            newest = segments[victim].maxVersion
        }
        guard let newest else { return }
        for stream in streams.indices where !streams[stream].isRecords {
            guard let segment = streams[stream].segment, streams[stream].groupsInFlight == 0,
                streams[stream].waiting < 0,
                segments[segment].minValueVersion < newest,
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
        guard let oldest else { return configuration.mode == .store ? worthiest(device) : nil }
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

    /// Store mode: the segment that is worth most, if so much of the device is dead that emptying
    /// segments gains whole ones, and there is room for what is alive in it.
    private func worthiest(_ device: Int) -> UInt32? {
        if reclaimers[device].sinceHolder >= Self.betweenHolders, let id = holder(device) {
            return id
        }
        var best: (id: UInt32, worth: Double)?
        var dead: UInt64 = 0
        let room = roomForMoved(device)
        for local in 0..<segments.counts[device] {
            let id = SegmentTable.id(device: device, local: local)
            let state = segments.pointer(id)
            guard isCompactable(state) else { continue }
            let (pages, blocks) = (state.pointee.livePages, state.pointee.liveBlocks)
            // Blocks that died, at the size of those that live: what is lost to padding and at a
            // segment's end is lost again when it is written again.
            guard state.pointee.recordCount > blocks, isVictim(id) else { continue }
            dead +=
                UInt64(state.pointee.recordCount - blocks) * UInt64(pages) / UInt64(max(1, blocks))
            guard gains(state, room) else { continue }
            let worth = worth(state)
            if best.map({ worth > $0.worth }) ?? true { best = (id, worth) }
        }
        guard let best, dead > UInt64(segmentPages) / 8 * 9 else { return holder(device) }
        return best.id
    }

    /// Store mode: where records have come to take much of the store, the segment whose values
    /// have lain longest. Records are needed while anything older than they are lies anywhere, and
    /// of what never changes nothing dies: written again it is young, and they can go.
    func holder(_ device: Int) -> UInt32? {
        guard let oldest = pressingRecords() else { return nil }
        let room = roomForMoved(device)
        var best: UInt32?
        for local in 0..<segments.counts[device] {
            let id = SegmentTable.id(device: device, local: local)
            let state = segments.pointer(id)
            guard isCompactable(state), state.pointee.minValueVersion <= oldest,
                needed(state) < room, isVictim(id)
            else { continue }
            if best.map({ state.pointee.minValueVersion < segments[$0].minValueVersion }) ?? true {
                best = id
            }
        }
        return best
    }

    /// The highest version in the oldest segment of records, where they have come to take more than
    /// a sixteenth of the segments, and more than four.
    private func pressingRecords() -> UInt64? {
        // Of what a member has that is away nobody knows how old it is: no record goes anyway.
        guard !anyMemberAway else { return nil }
        var (records, all, oldest) = (0, 0, UInt64.max)
        segments.forEach { id in
            let state = segments.pointer(id)
            all += 1
            guard state.pointee.state == .sealed, recordKind(id) != nil else { return }
            records += 1
            oldest = min(oldest, state.pointee.maxVersion)
        }
        return records > max(4, all / 16) ? oldest : nil
    }

    /// Victims that are chosen for their worth between two that hold records.
    private static let betweenHolders = 3

    private func isCompactable(_ state: UnsafePointer<Segment>) -> Bool {
        state.pointee.state == .sealed && state.pointee.minValueVersion != UInt64.max
            && !state.pointee.holdsUnreadable
    }

    /// Pages that what is alive in a segment takes once it is written again, close together, with
    /// its descriptors and its part of a footer.
    private func needed(_ state: UnsafePointer<Segment>) -> UInt32 {
        let (pages, blocks) = (state.pointee.livePages, state.pointee.liveBlocks)
        return pages + pages / 128 + blocks / 16 + 4
    }

    /// Whether emptying a segment leaves room for another block, also where one is lost at the
    /// segment's end, and what is alive has a place.
    private func gains(_ state: UnsafePointer<Segment>, _ room: UInt32) -> Bool {
        let (pages, blocks) = (state.pointee.livePages, state.pointee.liveBlocks)
        let least = max(segmentPages / 32, pages / max(1, blocks))
        let needed = needed(state)
        return needed < room && needed + least <= segmentPages
    }

    /// Pages that blocks can be moved to: a clean segment, or the rest of an open one, of which
    /// some is lost where blocks come in pieces.
    private func roomForMoved(_ device: Int) -> UInt32 {
        if maySpareSegment(device) { return segmentPages }
        let room = reinsertedRoom(device)
        return room - room / 16
    }

    /// Whether there is a clean segment for what is alive in a victim. Those kept for records that
    /// have a segment to go on in are lent, for the victim is a clean one soon; where records have
    /// taken of them, nothing else would ever give them back.
    private func maySpareSegment(_ device: Int) -> Bool {
        var needed = 0
        let first = writableDevice(after: -1)
        let second = writableDevice(after: first)
        if first == device, !hasRecordRoom(.recordsA, device, 1) { needed += 1 }
        if second == device, !hasRecordRoom(.recordsB, device, 1) { needed += 1 }
        return reclaimers[device].clean.count > needed
    }

    /// What emptying a segment gains over what it costs, by how long that will last: in an old one
    /// hardly anything dies any more, and what is dead in a young one would soon be more. The root
    /// of the age does not let that go too far where all blocks live equally long.
    private func worth(_ state: UnsafePointer<Segment>) -> Double {
        let live = Double(state.pointee.livePages)
        let all = Double(segmentPages)
        let age = Double(max(1, nextGeneration - min(nextGeneration, state.pointee.generation)))
        return (all - live) / (all + live) * age.squareRoot()
    }

    /// Pages left in the open segment for blocks that are moved.
    private func reinsertedRoom(_ device: Int) -> UInt32 {
        for stream in streams.indices
        where streams[stream].kind == .reinserted && streams[stream].device == device
            && streams[stream].segment != nil
        { return room(stream, descriptors: 4) }
        return 0
    }
}
