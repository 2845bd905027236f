// ShardTableCache: checked shard tables (length and checksum of each shard) of blocks of several
// shards, so that one shard can be read with one request. Two classes of fixed places, small (up to
// 64 shards) and large (up to 4096), four ways each, the least recently used way replaced.
//
// Invariants: a retained table is not replaced; a table is only found for the very entry (place,
// version, checksum) that it was checked against.

import SegmentFormat

final class ShardTableCache {
    private struct Slot {
        var fingerprint = Fingerprint(hi: 0, lo: 0)
        var place = Place(segment: 0, page: 0)
        var versionLow: UInt32 = 0
        var checksum: UInt32 = 0
        var used: UInt32 = 0
        var references: Int32 = 0
        var valid = false
    }

    private static let ways = 4
    private static let smallBytes = 512
    private static let largeBytes = 8 * FormatConstants.maxShards

    private let slots: UnsafeMutablePointer<Slot>
    private let smallSets: Int
    private let largeSets: Int
    private let memory: UnsafeMutableRawPointer
    private var clock: UInt32 = 0
    let bytes: Int

    init(bytes budget: Int) {
        smallSets = max(1, budget / 2 / (Self.smallBytes * Self.ways))
        largeSets = max(1, budget / 2 / (Self.largeBytes * Self.ways))
        let count = (smallSets + largeSets) * Self.ways
        slots = .allocate(capacity: count)
        slots.initialize(repeating: Slot(), count: count)
        let size =
            smallSets * Self.ways * Self.smallBytes + largeSets * Self.ways * Self.largeBytes
        memory = .allocate(byteCount: size, alignment: 4096)
        bytes = size + count * MemoryLayout<Slot>.stride
    }

    deinit {
        slots.deallocate()
        memory.deallocate()
    }

    private func firstWay(_ fingerprint: Fingerprint, small: Bool) -> Int {
        if small { return Int(fingerprint.hi % UInt64(smallSets)) * Self.ways }
        return (smallSets + Int(fingerprint.hi % UInt64(largeSets))) * Self.ways
    }

    func find(_ fingerprint: Fingerprint, _ entry: IndexEntry) -> Int32? {
        let first = firstWay(fingerprint, small: 8 * entry.shardCount <= Self.smallBytes)
        for way in first..<(first + Self.ways) {
            let slot = slots + way
            if slot.pointee.valid, slot.pointee.fingerprint == fingerprint,
                slot.pointee.place == entry.place, slot.pointee.versionLow == entry.versionLow,
                slot.pointee.checksum == entry.checksum
            {
                clock &+= 1
                slot.pointee.used = clock
                return Int32(way)
            }
        }
        return nil
    }

    /// A place for the entry's table, whose memory the caller fills; nil when every way is
    /// retained.
    func insert(_ fingerprint: Fingerprint, _ entry: IndexEntry) -> Int32? {
        if let present = find(fingerprint, entry) { return present }
        let first = firstWay(fingerprint, small: 8 * entry.shardCount <= Self.smallBytes)
        var victim = -1
        for way in first..<(first + Self.ways) where slots[way].references == 0 {
            if !slots[way].valid {
                victim = way
                break
            }
            // Ages, so that the clock may wrap.
            if victim < 0 || clock &- slots[way].used > clock &- slots[victim].used {
                victim = way
            }
        }
        guard victim >= 0 else { return nil }
        clock &+= 1
        slots[victim] = Slot(
            fingerprint: fingerprint, place: entry.place, versionLow: entry.versionLow,
            checksum: entry.checksum, used: clock, references: 0, valid: true)
        return Int32(victim)
    }

    func forget(_ fingerprint: Fingerprint) {
        for small in 0..<2 {
            let first = firstWay(fingerprint, small: small == 0)
            for way in first..<(first + Self.ways) where slots[way].fingerprint == fingerprint {
                slots[way].valid = false
            }
        }
    }

    func retain(_ slot: Int32) { slots[Int(slot)].references += 1 }
    func release(_ slot: Int32) { slots[Int(slot)].references -= 1 }

    func mutablePointer(_ slot: Int32) -> UnsafeMutableRawPointer {
        let index = Int(slot)
        let smallCount = smallSets * Self.ways
        if index < smallCount { return memory + index * Self.smallBytes }
        return memory + smallCount * Self.smallBytes + (index - smallCount) * Self.largeBytes
    }

    func pointer(_ slot: Int32) -> UnsafeRawPointer { UnsafeRawPointer(mutablePointer(slot)) }
}
