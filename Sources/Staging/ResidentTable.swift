// ResidentTable: the layout of the shared table and its lock-free reading. It lies in one mapping,
// holds offsets only, and is read by any thread or process while one owner thread changes it.
//
//   header | slots (64 bytes each) | buckets (8 bytes each) | chain (4 bytes a slab)
//
// Invariants:
//  - a slot's word is generation(32) | state(4) | leases(14) | pins(14). Only the owner changes
//    generation and state; a reader pins by a compare-and-swap of the whole word, so a pin is
//    granted only to the generation and the visible state that the reader saw;
//  - the generation is raised in the same swap that frees a slot, and a fence follows before its
//    memory is used anew: whoever copied without a pin and finds the generation unchanged after an
//    acquire fence has copied bytes of that resident only;
//  - key, info and first slab are written while the slot is filling (the info also later, under
//    its own sequence), published by a release of the word;
//  - buckets use linear probing with a tag of 32 hash bits, from which the home bucket follows.
//    Deleting moves later entries back: the entry is written in its new place, `moves` is raised,
//    then its old place is overwritten. A reader that missed and finds `moves` unchanged has not
//    been passed by a move: had it read the old place after the overwriting, it would see the
//    raised count, and had it begun after the raise, it would see the new place.
//  - every loop is bounded; a reader that loses its races gives a miss, which costs a slower path.

import Synchronization

struct ResidentTable {
    static let magic: UInt64 = 0x4854_5253_4450_3031
    static let headerBytes = 4096
    static let slotBytes = 64
    static let maxCount: UInt64 = 0x3FFF
    static let leaseUnit: UInt64 = 1 << 14

    /// Offsets in the header.
    enum Header {
        static let magic = 0
        static let capacity = 8
        static let bucketCount = 16
        static let slabCount = 24
        static let slabBytes = 32
        static let leaseLimit = 40
        /// Counters on lines of their own.
        static let moves = 128
        static let leased = 192
    }

    let base: UnsafeMutableRawPointer
    let capacity: Int
    let bucketMask: Int
    let slabCount: Int
    let slabBytes: Int
    let leaseLimit: Int
    private let buckets: UnsafeMutablePointer<Atomic<UInt64>>
    private let chain: UnsafeMutablePointer<Atomic<Int32>>

    static func bucketCount(for capacity: Int) -> Int {
        var count = 16
        while count < capacity * 2 { count *= 2 }
        return count
    }

    static func bytes(capacity: Int, slabCount: Int) -> Int {
        headerBytes + capacity * slotBytes + bucketCount(for: capacity) * 8 + slabCount * 4
    }

    /// Lays out a new table in zeroed memory of `bytes(capacity:slabCount:)`.
    init(
        creating base: UnsafeMutableRawPointer, capacity: Int, slabCount: Int, slabBytes: Int,
        leaseLimit: Int
    ) {
        func put(_ offset: Int, _ value: Int) {
            base.storeBytes(of: UInt64(value), toByteOffset: offset, as: UInt64.self)
        }
        put(Header.capacity, capacity)
        put(Header.bucketCount, Self.bucketCount(for: capacity))
        put(Header.slabCount, slabCount)
        put(Header.slabBytes, slabBytes)
        put(Header.leaseLimit, leaseLimit)
        base.storeBytes(of: Self.magic, toByteOffset: Header.magic, as: UInt64.self)
        self.init(
            base: base, capacity: capacity, slabCount: slabCount, slabBytes: slabBytes,
            leaseLimit: leaseLimit)
    }

    /// Opens a table that another thread or process laid out; nil when it does not fit its mapping.
    init?(opening base: UnsafeMutableRawPointer, length: Int, arenaLength: Int) {
        guard length >= Self.headerBytes, UInt(bitPattern: base) & 63 == 0 else { return nil }
        func get(_ offset: Int) -> Int? {
            let value = base.load(fromByteOffset: offset, as: UInt64.self)
            return value < 1 << 40 ? Int(value) : nil
        }
        guard base.load(fromByteOffset: Header.magic, as: UInt64.self) == Self.magic,
            let capacity = get(Header.capacity), let buckets = get(Header.bucketCount),
            let slabCount = get(Header.slabCount), let slabBytes = get(Header.slabBytes),
            let leaseLimit = get(Header.leaseLimit),
            capacity > 0, capacity < 1 << 30, slabCount > 0, slabCount < 1 << 31,
            slabBytes > 0, slabBytes <= 1 << 30, buckets == Self.bucketCount(for: capacity),
            Self.bytes(capacity: capacity, slabCount: slabCount) <= length,
            !slabCount.multipliedReportingOverflow(by: slabBytes).overflow,
            slabCount * slabBytes <= arenaLength
        else { return nil }
        self.init(
            base: base, capacity: capacity, slabCount: slabCount, slabBytes: slabBytes,
            leaseLimit: leaseLimit)
    }

    private init(
        base: UnsafeMutableRawPointer, capacity: Int, slabCount: Int, slabBytes: Int,
        leaseLimit: Int
    ) {
        self.base = base
        self.capacity = capacity
        self.slabCount = slabCount
        self.slabBytes = slabBytes
        self.leaseLimit = leaseLimit
        let count = Self.bucketCount(for: capacity)
        bucketMask = count - 1
        let at = base + Self.headerBytes + capacity * Self.slotBytes
        buckets = at.assumingMemoryBound(to: Atomic<UInt64>.self)
        chain = (at + count * 8).assumingMemoryBound(to: Atomic<Int32>.self)
    }

    // MARK: Words

    @inline(__always)
    func cell(_ slot: Int32, _ offset: Int) -> UnsafeMutablePointer<Atomic<UInt64>> {
        (base + (Self.headerBytes + Int(slot) * Self.slotBytes + offset))
            .assumingMemoryBound(to: Atomic<UInt64>.self)
    }

    @inline(__always)
    func half(_ slot: Int32, _ offset: Int) -> UnsafeMutablePointer<Atomic<UInt32>> {
        (base + (Self.headerBytes + Int(slot) * Self.slotBytes + offset))
            .assumingMemoryBound(to: Atomic<UInt32>.self)
    }

    @inline(__always)
    func word(_ slot: Int32) -> UnsafeMutablePointer<Atomic<UInt64>> { cell(slot, 0) }

    var moves: UnsafeMutablePointer<Atomic<UInt64>> {
        (base + Header.moves).assumingMemoryBound(to: Atomic<UInt64>.self)
    }

    /// Slabs held by leases: any thread adds and subtracts.
    var leased: UnsafeMutablePointer<Atomic<UInt64>> {
        (base + Header.leased).assumingMemoryBound(to: Atomic<UInt64>.self)
    }

    @inline(__always)
    static func state(_ word: UInt64) -> ResidentState {
        ResidentState(rawValue: UInt8(truncatingIfNeeded: word >> 28 & 0xF)) ?? .empty
    }
    @inline(__always)
    static func generation(_ word: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: word >> 32) }
    @inline(__always)
    static func pins(_ word: UInt64) -> UInt64 { word & maxCount }
    @inline(__always)
    static func leases(_ word: UInt64) -> UInt64 { word >> 14 & maxCount }
    @inline(__always)
    static func make(_ generation: UInt32, _ state: ResidentState) -> UInt64 {
        UInt64(generation) << 32 | UInt64(state.rawValue) << 28
    }
    /// The word with another state, its generation and pins kept.
    @inline(__always)
    static func with(_ word: UInt64, _ state: ResidentState) -> UInt64 {
        word & ~(0xF << 28) | UInt64(state.rawValue) << 28
    }

    @inline(__always)
    func slabs(_ storedBytes: UInt32) -> Int { (Int(storedBytes) + slabBytes - 1) / slabBytes }

    // MARK: Key and info

    @inline(__always)
    func key(_ slot: Int32) -> StagingKey {
        StagingKey(
            hi: cell(slot, 8).pointee.load(ordering: .relaxed),
            lo: cell(slot, 16).pointee.load(ordering: .relaxed))
    }

    func setKey(_ slot: Int32, _ key: StagingKey) {
        cell(slot, 8).pointee.store(key.hi, ordering: .relaxed)
        cell(slot, 16).pointee.store(key.lo, ordering: .relaxed)
    }

    /// Owner only: writes the info under the slot's sequence.
    func setInfo(_ slot: Int32, _ info: ResidentInfo) {
        let sequence = half(slot, 60)
        let count = sequence.pointee.load(ordering: .relaxed)
        sequence.pointee.store(count &+ 1, ordering: .relaxed)
        atomicMemoryFence(ordering: .releasing)
        cell(slot, 24).pointee.store(info.version, ordering: .relaxed)
        cell(slot, 32).pointee.store(
            UInt64(info.length) | UInt64(info.storedBytes) << 32, ordering: .relaxed)
        cell(slot, 40).pointee.store(
            UInt64(info.checksum) | UInt64(info.expiry) << 32, ordering: .relaxed)
        cell(slot, 48).pointee.store(
            UInt64(info.shardCount) | UInt64(info.namespaceSlot) << 16
                | (info.aligned ? 1 << 32 : 0), ordering: .relaxed)
        sequence.pointee.store(count &+ 2, ordering: .releasing)
    }

    /// The info without regard to its sequence: for the owner, and inside `info`.
    @inline(__always)
    func plainInfo(_ slot: Int32) -> ResidentInfo {
        let sizes = cell(slot, 32).pointee.load(ordering: .relaxed)
        let check = cell(slot, 40).pointee.load(ordering: .relaxed)
        let shape = cell(slot, 48).pointee.load(ordering: .relaxed)
        return ResidentInfo(
            version: cell(slot, 24).pointee.load(ordering: .relaxed),
            length: UInt32(truncatingIfNeeded: sizes),
            storedBytes: UInt32(truncatingIfNeeded: sizes >> 32),
            shardCount: UInt16(truncatingIfNeeded: shape), aligned: shape & 1 << 32 != 0,
            checksum: UInt32(truncatingIfNeeded: check),
            expiry: UInt32(truncatingIfNeeded: check >> 32),
            namespaceSlot: UInt16(truncatingIfNeeded: shape >> 16))
    }

    /// The info as one consistent set, from any thread; nil when the owner kept changing it.
    func info(_ slot: Int32) -> ResidentInfo? {
        let sequence = half(slot, 60)
        for _ in 0..<64 {
            let before = sequence.pointee.load(ordering: .acquiring)
            if before & 1 != 0 { continue }
            let info = plainInfo(slot)
            atomicMemoryFence(ordering: .acquiring)
            if sequence.pointee.load(ordering: .relaxed) == before { return info }
        }
        return nil
    }

    // MARK: Slab chain

    func firstSlab(_ slot: Int32) -> Int32 {
        Int32(bitPattern: half(slot, 56).pointee.load(ordering: .relaxed))
    }
    func setFirstSlab(_ slot: Int32, _ slab: Int32) {
        half(slot, 56).pointee.store(UInt32(bitPattern: slab), ordering: .relaxed)
    }
    @inline(__always)
    func next(_ slab: Int32) -> Int32 { chain[Int(slab)].load(ordering: .relaxed) }
    @inline(__always)
    func setNext(_ slab: Int32, _ next: Int32) { chain[Int(slab)].store(next, ordering: .relaxed) }

    // MARK: Buckets

    @inline(__always)
    static func tag(_ key: StagingKey) -> UInt32 {
        var hash = key.lo ^ (key.hi << 31 | key.hi >> 33)
        hash = (hash ^ hash >> 30) &* 0xBF58_476D_1CE4_E5B9
        hash = (hash ^ hash >> 27) &* 0x94D0_49BB_1331_11EB
        return UInt32(truncatingIfNeeded: hash >> 32)
    }

    @inline(__always)
    static func entry(_ tag: UInt32, _ slot: Int32) -> UInt64 {
        UInt64(tag) << 32 | UInt64(UInt32(bitPattern: slot) &+ 1)
    }

    @inline(__always)
    static func entrySlot(_ entry: UInt64) -> Int32 {
        Int32(truncatingIfNeeded: entry & 0xFFFF_FFFF) &- 1
    }

    @inline(__always)
    func bucket(_ index: Int) -> UnsafeMutablePointer<Atomic<UInt64>> { buckets + index }

    /// Where the key's bucket is and the slot it names; any thread. The slot may be anybody's by
    /// the time it is looked at: readers pin or recheck the generation.
    @inline(__always)
    func lookup(_ key: StagingKey) -> (bucket: Int, slot: Int32)? {
        let tag = Self.tag(key)
        for _ in 0..<8 {
            let before = moves.pointee.load(ordering: .acquiring)
            var at = Int(tag) & bucketMask
            for _ in 0...bucketMask {
                let entry = buckets[at].load(ordering: .acquiring)
                if entry == 0 { break }
                if UInt32(truncatingIfNeeded: entry >> 32) == tag {
                    let slot = Self.entrySlot(entry)
                    if slot >= 0, Int(slot) < capacity, self.key(slot) == key { return (at, slot) }
                }
                at = (at + 1) & bucketMask
            }
            if moves.pointee.load(ordering: .acquiring) == before { return nil }
        }
        return nil
    }

    /// Owner only; the key is not in the table, which is at most half full.
    func insert(_ key: StagingKey, _ slot: Int32) {
        let tag = Self.tag(key)
        var at = Int(tag) & bucketMask
        while buckets[at].load(ordering: .relaxed) != 0 { at = (at + 1) & bucketMask }
        buckets[at].store(Self.entry(tag, slot), ordering: .releasing)
    }

    /// Owner only: another slot now holds the bucket's key.
    func replace(bucket: Int, with slot: Int32, key: StagingKey) {
        buckets[bucket].store(Self.entry(Self.tag(key), slot), ordering: .releasing)
    }

    /// Owner only: empties the bucket and closes the gap.
    func delete(bucket: Int) {
        var hole = bucket
        var at = bucket
        while true {
            at = (at + 1) & bucketMask
            let entry = buckets[at].load(ordering: .relaxed)
            if entry == 0 { break }
            let home = Int(entry >> 32) & bucketMask
            // Stays if its home lies cyclically in (hole, at].
            if (at - home) & bucketMask < (at - hole) & bucketMask { continue }
            buckets[hole].store(entry, ordering: .releasing)
            moves.pointee.store(moves.pointee.load(ordering: .relaxed) &+ 1, ordering: .releasing)
            hole = at
        }
        buckets[hole].store(0, ordering: .releasing)
    }
}
