// StagedPool: the operations of a staged store that are under way, in a fixed pool, linked by
// number.

import BlockIO
import LogStore

/// What a staged operation is doing.
enum StagedPhase: UInt8 {
    case start
    /// A get: the shard table is being fetched.
    case loadingTable
    case readingDirect
    /// Reading into a slab that will be (or already is) a resident.
    case readingStaged
    /// Reading a part of a block into slabs of its own.
    case readingScratch
    /// Waits for another operation's filling of the same resident.
    case joined
    /// A put: the log writes from the caller's memory.
    case appending
    /// A put: the log writes from a slab.
    case appendingStaged
}

struct StagedOperation {
    var message: StoreOperation
    var fingerprint = Fingerprint(hi: 0, lo: 0)
    var phase = StagedPhase.start
    var inUse = false
    /// Given up: answered already; what remains is let go of without another answer.
    var abandoned = false
    /// Given up while nothing used the caller's memory: `released` is not owed either.
    var silent = false
    /// A volatile put that has been answered; what remains is its write.
    var answered = false
    var retried = false
    /// The observer has been told of its access.
    var noted = false
    /// A prefetch: when the block is needed, and its place among those under way.
    var due: UInt64 = 0
    /// Bytes of the part that is read into slabs of its own, 0 for a whole block.
    var partLength: UInt32 = 0
    var prefetchAt: Int32 = -1
    var next: Int32 = -1
    var resident: Int32 = -1
    /// The range asked for, within the stored image or (unaligned) relative to the block.
    var entry = IndexEntry.none
    var selection = Selection(firstShard: 0, shards: 0, skip: 0, count: 0)
    /// Heap memory of an unaligned read: the page range of the image from `bounceBase` on.
    var bounce: UnsafeMutableRawPointer?
    var bounceBytes = 0
    var bounceBase = 0
    var bouncePiece = Piece(region: .process, offset: 0, length: 0)
}

final class StagedPool {
    let slots: UnsafeMutablePointer<StagedOperation>
    let capacity: Int
    @exclusivity(unchecked) private var freeHead: Int32 = 0
    @exclusivity(unchecked) private(set) var inUse = 0

    init(capacity: Int) {
        self.capacity = capacity
        slots = .allocate(capacity: capacity)
        let empty = StagedOperation(
            message: StoreOperation(
                kind: .contains, token: 0, namespaceSlot: 0,
                key: UnsafeRawBufferPointer(start: nil, count: 0)))
        slots.initialize(repeating: empty, count: capacity)
        for index in 0..<capacity {
            slots[index].next = index + 1 < capacity ? Int32(index + 1) : -1
        }
    }

    deinit {
        slots.deinitialize(count: capacity)
        slots.deallocate()
    }

    func take(_ message: StoreOperation) -> Int32? {
        guard freeHead >= 0 else { return nil }
        let index = freeHead
        freeHead = slots[Int(index)].next
        slots[Int(index)] = StagedOperation(message: message)
        slots[Int(index)].inUse = true
        inUse += 1
        return index
    }

    func give(_ index: Int32) {
        precondition(slots[Int(index)].inUse, "a staged operation given back twice")
        slots[Int(index)].inUse = false
        slots[Int(index)].next = freeHead
        freeHead = index
        inUse -= 1
    }

    /// The operation's bounce piece as a list of one, valid while the operation lives.
    func bouncePiece(_ index: Int32) -> UnsafePointer<Piece> {
        let offset = MemoryLayout<StagedOperation>.offset(of: \.bouncePiece) ?? 0
        return (UnsafeRawPointer(slots + Int(index)) + offset).assumingMemoryBound(to: Piece.self)
    }

    @inline(__always)
    subscript(_ index: Int32) -> StagedOperation {
        _read { yield slots[Int(index)] }
        _modify { yield &slots[Int(index)] }
    }
}

/// A first-in first-out list linked through `next`.
struct StagedList {
    var head: Int32 = -1
    var tail: Int32 = -1
    var count = 0
    var isEmpty: Bool { head < 0 }

    mutating func append(_ index: Int32, _ pool: StagedPool) {
        count += 1
        pool[index].next = -1
        if tail >= 0 { pool[tail].next = index } else { head = index }
        tail = index
    }

    mutating func popFirst(_ pool: StagedPool) -> Int32? {
        guard head >= 0 else { return nil }
        let index = head
        count -= 1
        head = pool[index].next
        if head < 0 { tail = -1 }
        pool[index].next = -1
        return index
    }
}
