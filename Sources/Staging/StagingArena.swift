// StagingArena: the DRAM tier. Blocks lie as stored images in slabs of one shared mapping, which is
// registered as one region; a second mapping holds the resident table, which other threads and
// processes read (ResidentReader). Everything here is called on the owner thread.
//
// Invariants:
//  - a slab is free, or belongs to exactly one resident; nothing is allocated per operation, but
//    the piece list of a reservation in very many runs when its pool is short (counted);
//  - only clean residents without a pin are evicted, by a compare-and-swap that a reader's pin
//    defeats; dirty ones leave by `remove` alone;
//  - one key has at most one visible resident, and at most one more that is filling to replace it:
//    publishing the second takes the first out of sight in the same step;
//  - a removed resident disappears at once; while pinned its memory waits on the deferred list.

import BlockIO
import Glibc
import Synchronization

package final class StagingArena {
    /// What the owner keeps of a slot, besides the shared table.
    struct Slot {
        /// The pieces' place: inline (0...), in the pool from there on, or on the heap.
        var pieces: UnsafeMutablePointer<Piece>
        var pieceCount: Int32
        var pieceSource: PieceSource
        /// A filling slot that will replace this visible one, and the other way around; -1 if none.
        var replacement: Int32
        var replaced: Int32
        /// Place in the deferred list, -1 if not there.
        var deferredAt: Int32
    }

    enum PieceSource: UInt8 {
        case inline
        case pool
        case heap
    }

    /// Pieces that a slot has room for without the pool.
    static let inlinePieces = 2
    /// Share of the slabs that leases may hold: 1 / this.
    private static let leaseShare = 4

    package let slabBytes: Int
    package let slabCount: Int
    package let residentCapacity: Int
    package let region: RegionID
    package let policy: any ReplacementPolicy
    /// Not owned; told of residents that leave.
    @exclusivity(unchecked) unowned(unsafe) var observer: (any AccessObserver)?

    let table: ResidentTable
    let arenaMapping: SharedMapping
    let tableMapping: SharedMapping
    private let regions: RegionTable

    var slabs: SlabMap
    var piecePool: SlabMap
    let slots: UnsafeMutablePointer<Slot>
    let inline: UnsafeMutablePointer<Piece>
    let pool: UnsafeMutablePointer<Piece>
    let scratch: UnsafeMutablePointer<Piece>
    let freeSlots: UnsafeMutablePointer<Int32>
    var freeSlotCount: Int
    let deferred: UnsafeMutablePointer<Int32>
    var deferredCount = 0
    /// First slab of what was freed last: where the next reservation of that size fits best.
    var hint = 0
    /// Slabs of clean residents, pinned ones included: an upper bound of what eviction could give.
    var cleanSlabs = 0
    var cleanCount = 0
    var counts = StagingStatistics()
    /// When the block brought early is needed for which the reservation is made; nil: it is made
    /// for somebody who is there.
    var reservesUntil: UInt64?
    /// Slots filled by a prefetch: direct gets join these.
    var prefetched: UnsafeMutablePointer<Bool>
    /// By resident slot, when somebody is expected to read it, 0 for nobody: others leave before,
    /// and of these the one that is needed last.
    var awaited: UnsafeMutablePointer<UInt64>
    /// What is awaited later than that leaves as if nobody awaited it.
    package var sparesUntil = UInt64.max
    /// By resident slot, whether it is the only copy although it may leave.
    var unwritten: UnsafeMutablePointer<Bool>
    /// Versions of such residents that were evicted and not told of yet; a reservation evicts no
    /// more than there are slots.
    let lost: UnsafeMutablePointer<UInt64>
    var lostCount = 0

    /// Makes an arena of `slabCount` slabs for at most `residentCapacity` blocks and registers it.
    /// The policy is new and this arena's alone.
    package init(
        slabBytes: Int = 64 << 10, slabCount: Int, residentCapacity: Int,
        policy: any ReplacementPolicy, regions: RegionTable
    ) throws(IOError) {
        precondition(slabBytes > 0 && slabBytes % 4096 == 0, "slabs are whole pages")
        precondition(slabCount > 0 && slabCount < 1 << 30, "slab count out of range")
        precondition(
            residentCapacity > 0 && residentCapacity < 1 << 28, "resident capacity out of range")
        arenaMapping = try SharedMapping(
            name: "hearth-slabs", length: slabBytes * slabCount, huge: true)
        tableMapping = try SharedMapping(
            name: "hearth-residents",
            length: ResidentTable.bytes(capacity: residentCapacity, slabCount: slabCount),
            huge: true)
        let entry = Region(
            kind: .shared, base: arenaMapping.base, length: UInt64(arenaMapping.length),
            descriptor: arenaMapping.descriptor)
        guard let id = regions.add(entry) else {
            throw IOError(operation: "register", path: "hearth-slabs", errno: ENOSPC)
        }
        region = id
        self.regions = regions
        self.policy = policy
        self.slabBytes = slabBytes
        self.slabCount = slabCount
        self.residentCapacity = residentCapacity
        table = ResidentTable(
            creating: tableMapping.base, capacity: residentCapacity, slabCount: slabCount,
            slabBytes: slabBytes, leaseLimit: slabCount / Self.leaseShare)
        slabs = SlabMap(count: slabCount)
        piecePool = SlabMap(count: slabCount)
        // The piece memory is not touched until it is used, so it costs what it holds.
        slots = .allocate(capacity: residentCapacity)
        inline = .allocate(capacity: residentCapacity * Self.inlinePieces)
        pool = .allocate(capacity: slabCount)
        scratch = .allocate(capacity: slabCount)
        freeSlots = .allocate(capacity: residentCapacity)
        deferred = .allocate(capacity: residentCapacity)
        prefetched = .allocate(capacity: residentCapacity)
        prefetched.initialize(repeating: false, count: residentCapacity)
        awaited = .allocate(capacity: residentCapacity)
        awaited.initialize(repeating: 0, count: residentCapacity)
        unwritten = .allocate(capacity: residentCapacity)
        unwritten.initialize(repeating: false, count: residentCapacity)
        lost = .allocate(capacity: residentCapacity)
        freeSlotCount = residentCapacity
        for index in 0..<residentCapacity {
            (slots + index).initialize(
                to: Slot(
                    pieces: inline + index * Self.inlinePieces, pieceCount: 0, pieceSource: .inline,
                    replacement: -1, replaced: -1, deferredAt: -1))
            // Lowest numbers first.
            (freeSlots + index).initialize(to: Int32(residentCapacity - 1 - index))
        }
        policy.resize(capacity: residentCapacity)
    }

    deinit {
        regions.remove(region)
        for index in 0..<residentCapacity where slots[index].pieceSource == .heap {
            slots[index].pieces.deallocate()
        }
        slots.deallocate()
        inline.deallocate()
        pool.deallocate()
        scratch.deallocate()
        freeSlots.deallocate()
        deferred.deallocate()
        prefetched.deallocate()
        awaited.deallocate()
        unwritten.deallocate()
        lost.deallocate()
    }

    /// For other threads: usable as long as it is held, even past the arena's end.
    package var reader: ResidentReader {
        ResidentReader(table: table, keepers: (tableMapping, arenaMapping))
    }

    /// The two mappings whose descriptors another process needs.
    package var sharedTable: SharedMapping { tableMapping }
    package var sharedArena: SharedMapping { arenaMapping }

    /// Bytes of memory that the arena can come to use: mappings and the owner's own tables.
    package var memoryBytes: Int {
        let perSlot =
            MemoryLayout<Slot>.stride + Self.inlinePieces * MemoryLayout<Piece>.stride + 17
        return arenaMapping.length + tableMapping.length + residentCapacity * perSlot
            + 2 * slabCount * MemoryLayout<Piece>.stride + slabs.bytes + piecePool.bytes
            + policy.memoryBytes
    }

    /// What the kernel granted for the slabs and for the table.
    package var grants: String {
        "slabs on \(arenaMapping.pages.rawValue), table on \(tableMapping.pages.rawValue)"
    }

    // MARK: Looking

    /// The key's visible resident, else the one being filled; any state but condemned.
    package func find(_ key: StagingKey) -> (slot: ResidentSlot, state: ResidentState)? {
        guard let (_, slot) = table.lookup(key) else { return nil }
        return (ResidentSlot(slot), state(ResidentSlot(slot)))
    }

    /// The slot being filled to replace this visible one, if any.
    package func replacement(_ slot: ResidentSlot) -> ResidentSlot? {
        let other = slots[check(slot)].replacement
        return other < 0 ? nil : ResidentSlot(other)
    }

    @inline(__always)
    package func state(_ slot: ResidentSlot) -> ResidentState {
        ResidentTable.state(word(slot))
    }

    /// Changes whenever the slot gets another life.
    package func generation(_ slot: ResidentSlot) -> UInt32 {
        ResidentTable.generation(word(slot))
    }

    package func key(_ slot: ResidentSlot) -> StagingKey {
        check(slot)
        return table.key(slot.index)
    }

    @inline(__always)
    package func info(_ slot: ResidentSlot) -> ResidentInfo {
        check(slot)
        return table.plainInfo(slot.index)
    }

    /// Changes what the table tells; the stored bytes must take as many slabs as before, and stay
    /// the same once the resident is visible.
    package func setInfo(_ slot: ResidentSlot, _ info: ResidentInfo) {
        let old = table.plainInfo(slot.index)
        let state = state(slot)
        precondition(state != .empty, "an empty slot has no info")
        precondition(
            old.storedBytes == info.storedBytes
                || state == .filling && info.storedBytes > 0
                    && table.slabs(old.storedBytes) == table.slabs(info.storedBytes),
            "the stored bytes of a resident are fixed")
        table.setInfo(slot.index, info)
        if old.storedBytes != info.storedBytes { trimPieces(slot, to: info.storedBytes) }
    }

    /// The resident's memory in order, adjacent slabs merged, `storedBytes` in all; valid until the
    /// slot is freed.
    @inline(__always)
    package func pieces(_ slot: ResidentSlot) -> UnsafeBufferPointer<Piece> {
        let entry = slots + check(slot)
        return UnsafeBufferPointer(
            start: entry.pointee.pieces, count: Int(entry.pointee.pieceCount))
    }

    /// The piece's memory. It must be one of this arena's.
    @inline(__always)
    package func pointer(_ piece: Piece) -> UnsafeMutableRawPointer {
        arenaMapping.base + Int(piece.offset)
    }

    @discardableResult
    @inline(__always)
    func check(_ slot: ResidentSlot) -> Int {
        precondition(slot.index >= 0 && Int(slot.index) < residentCapacity, "no such slot")
        return Int(slot.index)
    }

    @inline(__always)
    func word(_ slot: ResidentSlot) -> UInt64 {
        check(slot)
        return table.word(slot.index).pointee.load(ordering: .acquiring)
    }

    /// Changes the state and keeps generation and pins, whatever readers do to the pins meanwhile.
    @discardableResult
    func setState(_ slot: Int32, _ state: ResidentState) -> UInt64 {
        let cell = table.word(slot)
        var seen = cell.pointee.load(ordering: .relaxed)
        while true {
            let wanted = ResidentTable.with(seen, state)
            let (exchanged, original) = cell.pointee.compareExchange(
                expected: seen, desired: wanted, ordering: .acquiringAndReleasing)
            if exchanged { return wanted }
            seen = original
        }
    }
}
