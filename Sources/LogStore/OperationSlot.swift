// OperationSlot: one operation on one key while it is under way, in a fixed pool, linked by slot
// numbers. A slot owns a copy of its key and parent; source and destination pieces belong to the
// caller until the outcome is delivered.

import BlockIO
import SegmentFormat

package enum OperationKind: UInt8 {
    case free
    case append
    /// A tombstone or supersede record.
    case record
    case read
    case delete
    case relocate
}

/// What an operation waits for.
package enum OperationPhase: UInt8 {
    case idle
    /// Same key under way; started again when that ends.
    case waitingForKey
    /// In a stream's queue for room in a group.
    case waitingForGroup
    case inGroup
    case waitingForFlush
    /// A replace waits for its value's flush, before the old version may be declared dead.
    case waitingForValueFlush
    case waitingForRecords
    case waitingForTable
    case waitingForChunk
    case reading
}

package struct OperationSlot {
    var kind: OperationKind = .free
    var phase: OperationPhase = .idle
    var durability: Durability = .written
    var replace = false
    /// The source holds a stored image whose checksums are made.
    var sourceIsImage = false
    /// The source cannot be written from; it is only compared with a present copy.
    var comparesOnly = false
    /// Answered from staging already (volatile): losing it now is a loss, not a refusal.
    var acknowledged = false
    /// The outcome was delivered (deadline, cancel); what remains only lets go of memory.
    var abandoned = false
    var reinsertion = false
    /// A read that nobody waits for yet.
    var isPrefetch = false
    /// Of the reinserted stream, but for a caller (`rewrite`), not for reclaim.
    var isRewrite = false
    var aligned = false
    /// A record that says "versions below are dead, a newer value exists" and not "deleted".
    var supersede = false
    /// A record that found no room in its own stream and goes beside its twin.
    var besideTwin = false
    var tableFromImage = false
    var pagesMode = false
    /// A put of a present key that waits for that copy's flush; a replace whose new value is
    /// published; a delete whose key was there when it began.
    var raising = false
    /// Its first write failed; this is the second.
    var rewritten = false
    /// A read or table fetch on its second try.
    var retried = false

    var token: UInt64 = 0
    var next: Int32 = -1
    /// Next in the list of those that wait for the same key.
    var keyNext: Int32 = -1
    /// Next in the chain of the pending-key table.
    var hashNext: Int32 = -1
    /// Next in a coalesced read.
    var runNext: Int32 = -1
    /// The operation that a record belongs to.
    var owner: Int32 = -1

    var fingerprint = Fingerprint(hi: 0, lo: 0)
    var namespaceSlot: UInt16 = 0
    var keyLength: UInt16 = 0
    var parentLength: UInt16 = 0
    var flags: DescriptorFlags = []

    var version: UInt64 = 0
    var length: UInt32 = 0
    var storedPages: UInt32 = 0
    var shardCount: Int = 1
    var checksum: UInt32 = 0
    var expiry: UInt32 = 0
    /// Place of the image: relative to the group's first value page until the group is sealed.
    var segment: UInt32 = 0
    var page: UInt32 = 0

    var pieces: UnsafePointer<Piece>?
    var pieceCount = 0
    /// Where the image of a block that is moved lies.
    var ownPiece = Piece(region: .process, offset: 0, length: 0)
    var shardLengths: UnsafePointer<UInt32>?

    // Reads
    var entry = IndexEntry.none
    var firstShard = 0
    var shards = 0
    /// The range of the stored image that is read, bytes.
    var rangeStart = 0
    var rangeEnd = 0
    /// Bytes at the range's end that come through the bounce chunk.
    var tailBytes = 0
    var chunk: Int32 = -1
    var table: Int32 = -1
    /// A shard table of the operation's own, when the cache had no place for it.
    var ownTable: UnsafeMutableRawPointer?
    var pendingIO: Int32 = 0
    var pendingRecords: Int32 = 0
    /// Where its records were written, as far as they have been.
    var recordPlaces: (Place?, Place?) = (nil, nil)
    var errno: Int32 = 0
    /// When a timed read was handed over, 0 for one that is not timed; its bytes, and what the
    /// meter said then.
    var meterStart: UInt64 = 0
    var meterBytes = 0
    var meterMark = ReadMeter.Mark()
    /// Of a block that is moved: tombstones of higher versions may be its own.
    var heldSince: UInt64 = 0

    package init() {}
}

extension IndexEntry {
    package static let none = IndexEntry(
        place: Place(segment: 0, page: 0), length: 0, shardCount: 1, namespaceSlot: 0,
        versionLow: 0, checksum: 0, expiry: 0, flags: 0)
}

/// The pool of operation slots and their key memory.
package final class OperationPool {
    /// Key and parent, each up to 512 bytes.
    static let keyStride = 2 * FormatConstants.maxKeyBytes

    let slots: UnsafeMutablePointer<OperationSlot>
    private let keys: UnsafeMutableRawPointer
    package let capacity: Int
    /// Copied into each slot that is taken: cheaper than an initializer of fifty fields.
    private let blank = OperationSlot()
    @exclusivity(unchecked) private var freeHead: Int32 = 0
    @exclusivity(unchecked) package private(set) var inUse = 0

    init(capacity: Int) {
        self.capacity = capacity
        slots = .allocate(capacity: capacity)
        slots.initialize(repeating: OperationSlot(), count: capacity)
        for index in 0..<capacity {
            slots[index].next = index + 1 < capacity ? Int32(index + 1) : -1
        }
        keys = .allocate(byteCount: capacity * Self.keyStride, alignment: 4096)
    }

    deinit {
        slots.deinitialize(count: capacity)
        slots.deallocate()
        keys.deallocate()
    }

    package var bytes: Int { capacity * (Self.keyStride + MemoryLayout<OperationSlot>.stride) }

    /// A slot in its initial state, or -1 when all are taken.
    func take(_ kind: OperationKind, token: UInt64) -> Int32 {
        guard freeHead >= 0 else { return -1 }
        let index = freeHead
        freeHead = slots[Int(index)].next
        slots[Int(index)] = blank
        slots[Int(index)].kind = kind
        slots[Int(index)].token = token
        inUse += 1
        return index
    }

    func give(_ index: Int32) {
        precondition(slots[Int(index)].kind != .free, "an operation slot given back twice")
        slots[Int(index)].kind = .free
        slots[Int(index)].next = freeHead
        freeHead = index
        inUse -= 1
    }

    /// The operation's own piece as a list of one, valid while the operation lives.
    func ownPiece(_ index: Int32) -> UnsafePointer<Piece> {
        let offset = MemoryLayout<OperationSlot>.offset(of: \.ownPiece) ?? 0
        return (UnsafeRawPointer(slots + Int(index)) + offset).assumingMemoryBound(to: Piece.self)
    }

    @inline(__always)
    subscript(_ index: Int32) -> OperationSlot {
        _read { yield slots[Int(index)] }
        _modify { yield &slots[Int(index)] }
    }

    @inline(__always)
    func setKey(_ index: Int32, _ key: UnsafeRawBufferPointer, parent: UnsafeRawBufferPointer) {
        let base = keys + Int(index) * Self.keyStride
        if let address = key.baseAddress { base.copyMemory(from: address, byteCount: key.count) }
        slots[Int(index)].keyLength = UInt16(key.count)
        if let address = parent.baseAddress, parent.count > 0 {
            (base + FormatConstants.maxKeyBytes).copyMemory(
                from: address, byteCount: parent.count)
        }
        slots[Int(index)].parentLength = UInt16(parent.count)
    }

    @inline(__always)
    func key(_ index: Int32) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(
            start: keys + Int(index) * Self.keyStride, count: Int(slots[Int(index)].keyLength))
    }

    @inline(__always)
    func parent(_ index: Int32) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(
            start: keys + Int(index) * Self.keyStride + FormatConstants.maxKeyBytes,
            count: Int(slots[Int(index)].parentLength))
    }
}

/// A first-in first-out list of operation slots, linked through `next`.
struct OperationList {
    var head: Int32 = -1
    var tail: Int32 = -1
    var count = 0
    var isEmpty: Bool { head < 0 }

    @inline(__always)
    mutating func append(_ index: Int32, _ pool: OperationPool) {
        pool[index].next = -1
        if tail >= 0 { pool[tail].next = index } else { head = index }
        tail = index
        count += 1
    }

    @inline(__always)
    mutating func popFirst(_ pool: OperationPool) -> Int32 {
        let index = head
        guard index >= 0 else { return -1 }
        head = pool[index].next
        if head < 0 { tail = -1 }
        pool[index].next = -1
        count -= 1
        return index
    }

    /// Takes an operation out of the middle. Rare.
    mutating func remove(_ index: Int32, _ pool: OperationPool) {
        for _ in 0..<count {
            let first = popFirst(pool)
            if first != index { append(first, pool) }
        }
    }

    /// Moves everything of `other` behind this list.
    mutating func append(all other: inout OperationList, _ pool: OperationPool) {
        guard other.head >= 0 else { return }
        if tail >= 0 { pool[tail].next = other.head } else { head = other.head }
        tail = other.tail
        count += other.count
        other = OperationList()
    }
}

/// Which keys have a write under way, so that writes of one key happen one after the other.
struct PendingKeys {
    private let heads: UnsafeMutablePointer<Int32>
    private let mask: Int

    init(capacity: Int) {
        var size = 16
        while size < capacity * 2 { size <<= 1 }
        heads = .allocate(capacity: size)
        heads.initialize(repeating: -1, count: size)
        mask = size - 1
    }

    func deallocate() { heads.deallocate() }

    @inline(__always)
    func find(_ fingerprint: Fingerprint, _ pool: OperationPool) -> Int32 {
        var index = heads[Int(truncatingIfNeeded: fingerprint.lo) & mask]
        while index >= 0 {
            if pool[index].fingerprint == fingerprint { return index }
            index = pool[index].hashNext
        }
        return -1
    }

    func insert(_ index: Int32, _ pool: OperationPool) {
        let bucket = Int(truncatingIfNeeded: pool[index].fingerprint.lo) & mask
        pool[index].hashNext = heads[bucket]
        heads[bucket] = index
    }

    func remove(_ index: Int32, _ pool: OperationPool) {
        let bucket = Int(truncatingIfNeeded: pool[index].fingerprint.lo) & mask
        var current = heads[bucket]
        if current == index {
            heads[bucket] = pool[index].hashNext
            return
        }
        while current >= 0 {
            let following = pool[current].hashNext
            if following == index {
                pool[current].hashNext = pool[index].hashNext
                return
            }
            current = following
        }
    }
}
