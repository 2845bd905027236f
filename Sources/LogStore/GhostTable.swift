// GhostTable: why blocks that are gone are gone. A bounded table of fingerprints in sets of four,
// the oldest of a set forgotten first, so that a miss can say "evicted" instead of "never put". It
// lies in a shared mapping, so that tools can ask it too (GhostReader).
//
//   magic u64 | sets u64 | noted u64 | zeros to 64
//   ghosts of 16 bytes: fingerprint lo u64, mark u64
//
// A mark is seconds(32) | cause(8), 0 for a free place. The owner clears the mark before it changes
// a place and sets it after; a reader counts a fingerprint only between two equal marks.
//
// Invariants: fixed memory; what it says may be forgotten, and with a chance of 2^-60 be of another
// key, so nothing but the reason of a miss goes by it. The owner thread writes.

import BlockIO
import SegmentFormat
import Synchronization

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
    /// Room for at least so many.
    init(capacity: Int) throws(IOError) {
        var sets = 16
        while sets * GhostReader.ways < capacity { sets <<= 1 }
        mapping = try SharedMapping(
            name: "hearth-ghosts", length: GhostReader.bytes(sets: sets), huge: false)
        mapping.base.storeBytes(of: GhostReader.magic.littleEndian, as: UInt64.self)
        mapping.base.storeBytes(of: UInt64(sets).littleEndian, toByteOffset: 8, as: UInt64.self)
        reader = GhostReader(mapping.base, sets: sets)
    }

    let mapping: SharedMapping
    private let reader: GhostReader

    var bytes: Int { mapping.length }

    /// The newest of a set comes first.
    func note(_ fingerprint: Fingerprint, _ departure: Departure, seconds: UInt32) {
        reader.countOne()
        let set = reader.first(fingerprint)
        var last = GhostReader.ways - 1
        for way in 0..<GhostReader.ways where reader.lo(set + way) == fingerprint.lo {
            last = way
            break
        }
        while last > 0 {
            // The higher place first: who looks upwards meets a ghost that moves at least once.
            let moved = set + last - 1
            reader.put(set + last, reader.lo(moved), reader.mark(moved))
            last -= 1
        }
        let mark = UInt64(max(1, seconds)) << 32 | UInt64(departure.rawValue)
        reader.put(set, fingerprint.lo, mark)
    }

    /// What is remembered of a key, and since when (unix seconds).
    func find(_ fingerprint: Fingerprint) -> (departure: Departure, seconds: UInt32)? {
        reader.find(fingerprint)
    }

    func reason(_ fingerprint: Fingerprint) -> MissReason? {
        find(fingerprint)?.departure.reason
    }

    // MARK: Over restarts

    func watch(_ store: Identity128) -> GhostWatch {
        GhostWatch(store: store, mapping: mapping, reader: reader)
    }

    /// Takes over what a table of as many places held, behind what was noted since.
    func recall(_ words: [UInt64]) {
        guard words.count == 2 * reader.places else { return }
        for set in stride(from: 0, to: reader.places, by: GhostReader.ways) {
            let end = set + GhostReader.ways
            var free = set
            while free < end, reader.mark(free) != 0 { free += 1 }
            for place in set..<end where free < end {
                let (fingerprint, mark) = (words[2 * place], words[2 * place + 1])
                let isKnown = (set..<free).contains { reader.lo($0) == fingerprint }
                guard !isKnown, Departure(rawValue: UInt8(truncatingIfNeeded: mark)) != nil else {
                    continue
                }
                reader.put(free, fingerprint, mark)
                free += 1
            }
        }
    }
}

/// A store's ghosts as they are now, for whoever keeps them over restarts; from any thread, also
/// after the store has gone.
package struct GhostWatch: @unchecked Sendable {
    // Unchecked: the mapping is read by the reader's atomic words alone, and is not changed itself.
    let store: Identity128
    let mapping: SharedMapping
    let reader: GhostReader

    /// Departures noted since the store was opened.
    package var noted: UInt64 { reader.noted }
    package var ghosts: KeptGhosts { KeptGhosts(store: store, words: reader.copied) }
}

extension LogStore {
    package var ghostWatch: GhostWatch { ghosts.watch(manifest.store) }

    /// Takes over why blocks had gone when the store was closed; called right after `open`. What is
    /// another store's, or of a table of another size, is passed over.
    package func recall(_ kept: KeptGhosts) {
        guard kept.store == manifest.store else { return }
        ghosts.recall(kept.words)
    }
}

/// Asks a ghost table, from any thread or process that has it mapped.
package struct GhostReader: @unchecked Sendable {
    // Unchecked: the memory is read and written by atomic words alone, and whoever made this keeps
    // it mapped.
    static let magic: UInt64 = 0x4854_4748_4F53_5431
    static let ways = 4
    private static let headerBytes = 64

    private let words: UnsafeMutablePointer<Atomic<UInt64>>
    private let counter: UnsafeMutablePointer<Atomic<UInt64>>
    private let mask: Int

    static func bytes(sets: Int) -> Int { headerBytes + sets * ways * 16 }

    /// A table in memory of `bytes(sets:)`.
    fileprivate init(_ base: UnsafeMutableRawPointer, sets: Int) {
        words = (base + Self.headerBytes).assumingMemoryBound(to: Atomic<UInt64>.self)
        counter = (base + 16).assumingMemoryBound(to: Atomic<UInt64>.self)
        mask = sets - 1
    }

    /// A table that another process made, mapped here (read-only is enough) for the reader's life;
    /// nil when it is none, or not whole.
    package init?(base: UnsafeMutableRawPointer, length: Int) {
        guard length >= Self.headerBytes, UInt(bitPattern: base) & 7 == 0,
            UInt64(littleEndian: base.load(as: UInt64.self)) == Self.magic
        else { return nil }
        let sets = UInt64(littleEndian: base.load(fromByteOffset: 8, as: UInt64.self))
        guard sets >= 1, sets <= 1 << 32, sets & (sets - 1) == 0,
            Self.bytes(sets: Int(sets)) <= length
        else { return nil }
        self.init(base, sets: Int(sets))
    }

    /// What is remembered of a key, and since when (unix seconds).
    package func find(_ fingerprint: Fingerprint) -> (departure: Departure, seconds: UInt32)? {
        let set = first(fingerprint)
        for place in set..<(set + Self.ways) {
            let found = mark(place)
            if found == 0 || lo(place) != fingerprint.lo { continue }
            atomicMemoryFence(ordering: .acquiring)
            guard words[2 * place + 1].load(ordering: .relaxed) == found else { continue }
            return Departure(rawValue: UInt8(truncatingIfNeeded: found))
                .map { ($0, UInt32(truncatingIfNeeded: found >> 32)) }
        }
        return nil
    }

    // MARK: Places

    fileprivate var noted: UInt64 { counter.pointee.load(ordering: .relaxed) }

    /// The owner thread's alone.
    fileprivate func countOne() { counter.pointee.store(noted &+ 1, ordering: .relaxed) }

    fileprivate var places: Int { (mask + 1) * Self.ways }

    /// By place: fingerprint and mark in turn; a place that is being changed is empty.
    fileprivate var copied: [UInt64] {
        var made = [UInt64](repeating: 0, count: 2 * places)
        for place in 0..<places {
            let (before, fingerprint) = (mark(place), lo(place))
            atomicMemoryFence(ordering: .acquiring)
            let after = words[2 * place + 1].load(ordering: .relaxed)
            guard before != 0, before == after else { continue }
            (made[2 * place], made[2 * place + 1]) = (fingerprint, before)
        }
        return made
    }

    fileprivate func first(_ fingerprint: Fingerprint) -> Int {
        (Int(truncatingIfNeeded: fingerprint.hi) & mask) * Self.ways
    }

    fileprivate func lo(_ place: Int) -> UInt64 { words[2 * place].load(ordering: .relaxed) }

    fileprivate func mark(_ place: Int) -> UInt64 {
        words[2 * place + 1].load(ordering: .acquiring)
    }

    fileprivate func put(_ place: Int, _ lo: UInt64, _ mark: UInt64) {
        words[2 * place + 1].store(0, ordering: .relaxed)
        atomicMemoryFence(ordering: .releasing)
        words[2 * place].store(lo, ordering: .relaxed)
        words[2 * place + 1].store(mark, ordering: .releasing)
    }
}
