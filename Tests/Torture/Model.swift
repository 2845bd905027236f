// Model: what a store may answer, derived from what it has answered. Versions order everything: the
// store gives every put and delete a store-wide increasing number, so for each key it is enough to
// know which revision each version is, and below which version nothing may be seen any more.
//
// The rules (checked in World+Answers):
//  - a hit's version is known to be one revision's, or belongs to a revision whose version is not
//    known (in flight, or failed with an unknown end); its bytes are that revision's;
//  - a hit's version is not below `floor` as it was when the get was submitted: the highest version
//    acknowledged or seen before, deletes included;
//  - a key that `must` be there is a hit, unless evicted (bounded by the store's own count of
//    evictions), its device is away, or faults that touch data were injected;
//  - over a crash the floor falls to what was durable; to the acknowledged deletes alone where
//    blocks were evicted, one damaging fault has struck or a device was away; over two or more
//    damaging faults (both copies of a tombstone may be hit) to nothing.

import LogStore

enum RevisionState: UInt8 {
    case inFlight
    case stored
    /// Refused: its bytes must never be seen.
    case never
    /// Failed, cancelled or cut off by a crash: may be there or not.
    case maybe
}

struct Revision {
    /// Of the bytes: every revision has its own.
    var seed: UInt64
    /// Of the shard lengths: revisions of one shape share it.
    var shape: UInt64
    var length: UInt32
    var shardCount: Int
    var state = RevisionState.inFlight
    /// 0 while not known.
    var version: UInt64 = 0
    var durability = Durability.written
    var isDurable = false
    /// The life of the store (its opening) in which it was last told to be there.
    var life: UInt64 = 0
    /// Seconds after which it expires, 0 for never; once stored, the monotonic time by which it has
    /// expired for sure, in that life of the store (the store is deaf to jumps of the wall clock).
    var expires: (seconds: UInt32, end: UInt64, life: UInt64) = (0, UInt64.max, 0)

    func shardLengths(_ into: UnsafeMutablePointer<UInt32>) {
        Payload.shardLengths(shape, length: Int(length), count: shardCount, into: into)
    }
}

struct KeyModel {
    var number: Int
    var revisions: [Revision] = []
    var floor: UInt64 = 0
    /// The floor as it was when the store's present life began.
    var base: UInt64 = 0
    /// The highest version of an acknowledged delete.
    var deletedFloor: UInt64 = 0
    /// Present now, as far as anybody was told.
    var must = false
    /// Present after a crash too.
    var mustDurable = false
    /// When a miss of it was last counted against the store's evictions.
    var missedAt: UInt64 = 0
    /// The put that says it is there was under way then: the eviction may have been of its block.
    var missIsCounted = false
    var writesInFlight = 0
    var deletesInFlight = 0
    /// Deletes ever begun: a get that overlaps one may miss.
    var deletesBegun = 0
    /// Volatile revisions ever lost: what was asked for before may have met such a moment.
    var losses = 0
    var pinnedUntil: UInt64 = 0
    /// A delete was given up, and may yet take effect for as long as the store is busy.
    var deleteLingers = false

    /// The highest version known to be durable.
    var durableFloor: UInt64 {
        var highest: UInt64 = 0
        for revision in revisions where revision.isDurable && revision.state == .stored {
            highest = max(highest, revision.version)
        }
        return highest
    }

    func revision(version: UInt64) -> Int? {
        revisions.firstIndex { $0.version == version && $0.version != 0 }
    }

    /// A volatile revision is gone: what was before it may be seen again. Of that only what was
    /// told in this life of the store counts: what the floor did not hold at its beginning may have
    /// been lost with an earlier one.
    mutating func lost(_ revision: Int, life: UInt64) {
        revisions[revision].state = .maybe
        must = false
        losses += 1
        floor = max(base, deletedFloor)
        for other in revisions where other.state == .stored && other.life == life {
            floor = max(floor, other.version)
        }
    }

    /// Whether anything could be found under the key at all.
    func mayBePresent(floor: UInt64) -> Bool {
        revisions.contains {
            ($0.state == .stored && $0.version >= floor) || $0.state == .inFlight
                || ($0.state == .maybe && ($0.version == 0 || $0.version >= floor))
        }
    }
}

struct NamespaceModel {
    /// Enters the payload: every life of a namespace has its own.
    var identity: UInt64
    var name: String
    var aligned: Bool
    var timeToLive: UInt32
    /// The slot while the store is open, or nil.
    var slot: UInt16?
    var live = true
    /// A purge was under way when the store stopped.
    var uncertain = false
    var keys: [KeyModel] = []
}

struct Model {
    var namespaces: [NamespaceModel] = []
    /// The highest version in any answer.
    var highestVersion: UInt64 = 0
    /// Keys that should have been there and were not, while the store evicts.
    var missed = 0
    /// Evictions of stores before the present one.
    var evictedBefore: UInt64 = 0
    var volatileLostCount: UInt64 = 0

    /// A new revision number is the count so far, so indices stay valid.
    mutating func addRevision(_ space: Int, _ key: Int, _ revision: Revision) -> Int {
        namespaces[space].keys[key].revisions.append(revision)
        return namespaces[space].keys[key].revisions.count - 1
    }

    /// Forgets old revisions of a key, keeping those that may still matter. Only when no operation
    /// of the key is under way, since operations know revisions by number. Many are kept: where
    /// both copies of a tombstone were damaged an old version may come back, and is judged.
    mutating func prune(_ space: Int, _ key: Int) {
        let count = namespaces[space].keys[key].revisions.count
        guard count > 400 else { return }
        let floor = namespaces[space].keys[key].deletedFloor
        let durable = namespaces[space].keys[key].durableFloor
        namespaces[space].keys[key].revisions.removeAll {
            $0.state == .never || ($0.version != 0 && $0.version < min(floor, durable))
        }
    }

    /// The store has stopped. `durableVersion`: every acknowledged put up to there is durable;
    /// `clean`: it was closed, everything acknowledged is. `damage`: faults so far that touch data.
    mutating func stopped(
        clean: Bool, durableVersion: UInt64, damage: UInt64, deviceAway: Bool
    ) {
        for space in namespaces.indices {
            namespaces[space].slot = nil
            for key in namespaces[space].keys.indices {
                stopped(
                    &namespaces[space].keys[key], clean: clean, durableVersion: durableVersion,
                    damage: damage, deviceAway: deviceAway)
            }
        }
    }

    private func stopped(
        _ key: inout KeyModel, clean: Bool, durableVersion: UInt64, damage: UInt64,
        deviceAway: Bool
    ) {
        for index in key.revisions.indices {
            switch key.revisions[index].state {
            case .inFlight: key.revisions[index].state = .maybe
            case .stored:
                let covered =
                    key.revisions[index].durability != .volatile
                    && key.revisions[index].version <= durableVersion
                if clean || covered { key.revisions[index].isDurable = true }
                // May have been lost with the memory it was in.
                if !key.revisions[index].isDurable { key.revisions[index].state = .maybe }
            default: break
            }
        }
        if clean {
            key.mustDurable = key.must
        } else if key.deletesInFlight > 0 || key.deleteLingers {
            key.mustDurable = false
        }
        key.must = key.mustDurable
        key.writesInFlight = 0
        key.deletesInFlight = 0
        key.pinnedUntil = 0
        key.deleteLingers = false
        // An evicted version may lie in a segment not yet written over, and be found again when a
        // newer one has been evicted too: of values, the floor holds where nothing was evicted.
        if damage >= 2 || damage == 1 && deviceAway {
            // Both copies of a tombstone may be gone: nothing from before holds, then or later.
            key.floor = 0
            key.deletedFloor = 0
        } else if damage == 1 || deviceAway || evictedBefore > 0 {
            key.floor = key.deletedFloor
        } else {
            key.floor = max(key.deletedFloor, key.durableFloor)
        }
        key.base = key.floor
    }
}
