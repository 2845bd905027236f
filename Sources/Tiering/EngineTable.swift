// EngineTable: which blocks the engine holds in its own memory, as far as it has said so. A bounded
// table by hash, in sets of sixteen places of 12 bytes, four places for three blocks: 16 bytes a
// block. A block is told by 48 bits of its fingerprint and its set, so that one in 2^44 lookups is
// mistaken: that costs advice, never a byte. Of a full set what was used longest ago is forgotten.
//
// Invariants: nothing is allocated after `init`; an event looks at one set; `pages` is the sum over
// all places.

import LogStore

package struct EngineTable: ~Copyable {
    package static let ways = 16
    /// Of a block whose size nobody knows, and the most that a place can tell, in pages.
    private static let mostPages: UInt32 = 1 << 24

    struct Place {
        /// Bits 16 to 47 of the tag.
        var tagHigh: UInt32 = 0
        var tagLow: UInt16 = 0
        /// Seconds, by which the one used longest ago is found.
        var stamp: UInt16 = 0
        /// Pages of 4 KiB, never 0 in a place that is used.
        var pages: UInt32 = 0
    }

    private let places: UnsafeMutablePointer<Place>
    private let sets: Int
    package private(set) var count = 0
    package private(set) var pages: UInt64 = 0

    package init(blocks: Int) {
        sets = Self.sets(blocks)
        places = .allocate(capacity: sets * Self.ways)
        places.initialize(repeating: Place(), count: sets * Self.ways)
    }

    deinit { places.deallocate() }

    private static func sets(_ blocks: Int) -> Int {
        (max(1, blocks) * 4 / 3 + ways - 1) / ways
    }

    package static func memoryBytes(blocks: Int) -> Int {
        sets(blocks) * ways * MemoryLayout<Place>.stride
    }

    package var capacity: Int { sets * Self.ways }

    private func first(_ name: Fingerprint) -> Int {
        Int(name.lo.multipliedFullWidth(by: UInt64(sets)).high) * Self.ways
    }

    @inline(__always)
    private func isAt(_ place: Int, _ name: Fingerprint) -> Bool {
        places[place].pages > 0 && places[place].tagLow == UInt16(truncatingIfNeeded: name.hi)
            && places[place].tagHigh == UInt32(truncatingIfNeeded: name.hi >> 16)
    }

    private func find(_ name: Fingerprint) -> Int? {
        let first = first(name)
        for place in first..<(first + Self.ways) where isAt(place, name) { return place }
        return nil
    }

    package func holds(_ name: Fingerprint) -> Bool { count > 0 && find(name) != nil }

    private static func stamp(_ now: UInt64) -> UInt16 {
        UInt16(truncatingIfNeeded: now / 1_000_000_000)
    }

    /// What became of a block that was admitted.
    package enum Admission: Equatable, Sendable {
        case new
        /// It was there: a use.
        case known
        /// It is there, and another one was forgotten for it.
        case displaced
    }

    package mutating func admit(_ name: Fingerprint, bytes: Int, now: UInt64) -> Admission {
        let own = UInt32(clamping: max(1, (bytes + 4095) / 4096))
        let first = first(name)
        let stamp = Self.stamp(now)
        var (free, oldest, age) = (-1, first, -1)
        // Of equally old ones not always the same: it would be the one that came last.
        let start = Int(name.hi >> 60)
        for offset in 0..<Self.ways {
            let place = first + (start + offset) % Self.ways
            if places[place].pages == 0 {
                if free < 0 { free = place }
            } else if isAt(place, name) {
                places[place].stamp = stamp
                return .known
            } else if case let since = Int(stamp &- places[place].stamp), since > age {
                (oldest, age) = (place, since)
            }
        }
        let place = free >= 0 ? free : oldest
        if free < 0 { clear(place) }
        let size = min(own, Self.mostPages)
        places[place] = Place(
            tagHigh: UInt32(truncatingIfNeeded: name.hi >> 16),
            tagLow: UInt16(truncatingIfNeeded: name.hi), stamp: stamp, pages: size)
        count += 1
        pages += UInt64(size)
        return free >= 0 ? .new : .displaced
    }

    private mutating func clear(_ place: Int) {
        pages -= UInt64(places[place].pages)
        count -= 1
        places[place] = Place()
    }

    /// A block was used there. False: it is not known.
    package mutating func touch(_ name: Fingerprint, now: UInt64) -> Bool {
        guard count > 0, let place = find(name) else { return false }
        places[place].stamp = Self.stamp(now)
        return true
    }

    /// A block left. False: it was not known.
    package mutating func evict(_ name: Fingerprint) -> Bool {
        guard count > 0, let place = find(name) else { return false }
        clear(place)
        return true
    }

    /// Everything left.
    package mutating func removeAll() {
        for place in 0..<(sets * Self.ways) { places[place] = Place() }
        (count, pages) = (0, 0)
    }
}
