// Spreading: tombstones and supersedes lie on two members, so that the store can be opened without
// either of them. What is recorded while a member is out has both its copies on those that are
// left. Once there are two members again, the segments that hold such copies are emptied like any
// victim: what is still needed is carried on into its stream, which then writes to the other
// member, and is flushed before the segment is used again. The same goes for copies that found no
// room but beside their twins, and for those whose twins lay on a member that has been struck or
// that came back empty: of these both copies are written.
//
// Invariant: no copy goes before another is flushed, so a crash at any point leaves two of them.
// A segment is emptied for this once only: its stream does not write beside the twins again.

import SegmentFormat

struct Spreading {
    /// The members of the two streams of records, when that was looked at last.
    var homes = RecordHomes(first: -1, second: -1)
    /// Some segment may hold records beside their twins.
    var isWanted = false
    /// A member is gone with its copies of the records: whatever the others have may lack its twin.
    var memberIsGone = false
    /// It has been looked, since the opening, for records whose twins are nowhere.
    var hasLooked = false
    /// Monotonic time before which it is not looked again, unless something has ended.
    var lookAt: UInt64 = 0
}

/// The members that the two streams of records write to; the same where there is only one.
struct RecordHomes: Equatable {
    var first: Int
    var second: Int
}

extension LogStore {
    private var recordHomes: RecordHomes {
        let first = writableDevice(after: -1)
        return RecordHomes(first: first, second: writableDevice(after: first))
    }

    /// Whether each tombstone and supersede lies on two members, of which either may be away at the
    /// next opening. False while a member is away, and after that until what was recorded meanwhile
    /// has been carried on.
    package var recordsAreSpread: Bool {
        guard devices.count(where: { $0.state != .struck }) > 1 else { return true }
        let homes = recordHomes
        guard recovery == nil, !anyMemberAway, homes.first != homes.second, !missesEpochs,
            !spreading.memberIsGone
        else { return false }
        var spread = true
        segments.forEach { if liesBesideTwins($0, homes) { spread = false } }
        return spread
    }

    /// Whether a segment's records may lie on the same member as their twins, and belong elsewhere:
    /// they are not where their stream writes now, and on the member is a segment of the other
    /// stream with records of the same time. Of two such segments on a third member both go.
    func liesBesideTwins(_ id: UInt32, _ homes: RecordHomes) -> Bool {
        guard homes.first != homes.second, let kind = recordKind(id) else { return false }
        if segments[id].lacksTwins { return true }
        let device = SegmentTable.device(id)
        guard device != (kind == .recordsA ? homes.first : homes.second) else { return false }
        return hasTwins(id, kind, on: device)
    }

    /// Whether a device has a segment of the other stream with records of the same time.
    private func hasTwins(_ id: UInt32, _ kind: StreamKind, on device: Int) -> Bool {
        let state = segments.pointer(id)
        for local in 0..<segments.counts[device] {
            let other = SegmentTable.id(device: device, local: local)
            guard let twin = recordKind(other), twin != kind else { continue }
            if segments[other].minVersion <= state.pointee.maxVersion,
                state.pointee.minVersion <= segments[other].maxVersion
            {
                return true
            }
        }
        return false
    }

    /// Marks the segments whose records may lack their twins: all of them where a member is gone
    /// for good, and after an opening those that have no other stream's segment of the same time,
    /// since a member may have gone shortly before a crash.
    private func markLostTwins() {
        guard spreading.memberIsGone || !spreading.hasLooked else { return }
        let all = spreading.memberIsGone
        spreading.memberIsGone = false
        spreading.hasLooked = true
        segments.forEach { id in
            guard let kind = recordKind(id) else { return }
            guard all || !devices.indices.contains(where: { hasTwins(id, kind, on: $0) }) else {
                return
            }
            segments[id].lacksTwins = true
            spreading.isWanted = true
        }
    }

    /// The stream of a segment that holds records, if it does.
    func recordKind(_ id: UInt32) -> StreamKind? {
        let state = segments.pointer(id)
        switch state.pointee.state {
        case .open, .sealed, .reclaiming, .quarantined: break
        case .uncreated, .clean, .absent: return nil
        }
        guard state.pointee.minValueVersion == UInt64.max, state.pointee.maxVersion > 0,
            let kind = StreamKind(rawValue: state.pointee.stream),
            kind == .recordsA || kind == .recordsB
        else { return nil }
        return kind
    }

    /// Finds what is to be emptied, when members have come or gone or something has ended. The rest
    /// is reclaim's work, one segment of a member at a time.
    func advanceSpreading() {
        guard devices.count > 1, !rewriting else { return }
        let homes = recordHomes
        if homes != spreading.homes {
            spreading.homes = homes
            spreading.isWanted = true
            spreading.lookAt = 0
        }
        if recovery == nil, !anyMemberAway, homes.first != homes.second { markLostTwins() }
        guard spreading.isWanted, !anyMemberAway, clock.monotonic >= spreading.lookAt else {
            return
        }
        spreading.isWanted = false
        spreading.lookAt = clock.monotonic + 1_000_000_000
        for device in devices.indices { reclaimers[device].beside = nil }
        segments.forEach { id in
            guard liesBesideTwins(id, homes) else { return }
            spreading.isWanted = true
            let device = SegmentTable.device(id)
            if reclaimers[device].beside == nil, isVictim(id) { reclaimers[device].beside = id }
        }
        if spreading.isWanted { sealWhatLiesBesideTwins(homes) }
    }

    /// Nothing is written to such a segment any more.
    private func sealWhatLiesBesideTwins(_ homes: RecordHomes) {
        for stream in streams.indices where streams[stream].isRecords {
            guard let segment = streams[stream].segment, liesBesideTwins(segment, homes),
                !segments[segment].lacksTwins || hasRoomForTwins(homes.first, homes.second),
                streams[stream].groupsInFlight == 0, streams[stream].waiting < 0,
                streams[stream].gathering < 0, streams[stream].queue.isEmpty
            else { continue }
            closeSegment(stream)
        }
    }

    /// The segment that is emptied next so that its records lie on two members.
    func takeBeside(_ device: Int) -> UInt32? {
        guard let segment = reclaimers[device].beside,
            clock.monotonic >= reclaimers[device].retryAt, !flush.isFirst
        else { return nil }
        reclaimers[device].beside = nil
        return liesBesideTwins(segment, spreading.homes) && isVictim(segment) ? segment : nil
    }
}
