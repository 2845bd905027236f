// GhostTable: why blocks that are gone are gone. A bounded table of fingerprints in sets of four,
// the oldest of a set forgotten first, so that a miss can say "evicted" instead of "never put".
//
// Invariants: fixed memory; what it says may be forgotten, and with a chance of 2^-60 be of another
// key, so nothing but the reason of a miss goes by it. Owner thread.

import SegmentFormat

/// What took a block away.
package enum Departure: UInt8, Sendable, CaseIterable {
    /// Its segment was needed, and others were asked for more.
    case evicted = 1
    case expired
    case deleted

    var reason: MissReason {
        switch self {
        case .evicted: .evicted
        case .expired: .expired
        case .deleted: .deleted
        }
    }
}

struct GhostTable {
    private struct Ghost {
        var lo: UInt64 = 0
        /// Unix seconds; 0 for a free place.
        var seconds: UInt32 = 0
        var cause: UInt8 = 0
    }

    private static let ways = 4
    private let ghosts: UnsafeMutablePointer<Ghost>
    private let mask: Int
    let bytes: Int

    /// Room for at least this many.
    init(capacity: Int) {
        var sets = 16
        while sets * Self.ways < capacity { sets <<= 1 }
        mask = sets - 1
        ghosts = .allocate(capacity: sets * Self.ways)
        ghosts.initialize(repeating: Ghost(), count: sets * Self.ways)
        bytes = sets * Self.ways * MemoryLayout<Ghost>.stride
    }

    func deallocate() { ghosts.deallocate() }

    private func first(_ fingerprint: Fingerprint) -> UnsafeMutablePointer<Ghost> {
        ghosts + (Int(truncatingIfNeeded: fingerprint.hi) & mask) * Self.ways
    }

    /// The newest of a set comes first.
    func note(_ fingerprint: Fingerprint, _ departure: Departure, seconds: UInt32) {
        let set = first(fingerprint)
        var last = Self.ways - 1
        for way in 0..<Self.ways where set[way].lo == fingerprint.lo {
            last = way
            break
        }
        while last > 0 {
            set[last] = set[last - 1]
            last -= 1
        }
        set[0] = Ghost(
            lo: fingerprint.lo, seconds: max(1, seconds), cause: departure.rawValue)
    }

    /// What is remembered of a key, and since when (unix seconds).
    func find(_ fingerprint: Fingerprint) -> (departure: Departure, seconds: UInt32)? {
        let set = first(fingerprint)
        for way in 0..<Self.ways where set[way].seconds > 0 && set[way].lo == fingerprint.lo {
            return Departure(rawValue: set[way].cause).map { ($0, set[way].seconds) }
        }
        return nil
    }

    func reason(_ fingerprint: Fingerprint) -> MissReason? {
        find(fingerprint)?.departure.reason
    }
}
