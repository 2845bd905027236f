// UringTables: the fixed tables behind a UringDriver — requests, kernel transfers, queues.
//
// A request (UringOp) is issued as one or more transfers, each at most `transferBytes` and inside
// one registered buffer. A transfer's index and generation make its user_data, and the generation
// moves at each issue, so that a completion for an earlier life is told apart. Nothing here
// allocates after init.

/// One logical request.
struct UringOp {
    var tag: UInt64 = 0
    /// 0 for none.
    var deadline: UInt64 = 0
    /// When its first transfer was handed to the kernel.
    var started: UInt64 = 0
    var fileOffset: UInt64 = 0
    var length: UInt64 = 0
    /// Bytes for which transfers have been made.
    var issued: UInt64 = 0
    var address: UInt = 0
    var regionOffset: UInt64 = 0
    /// First registered buffer of the region, -1 for none.
    var bufferSlot: Int32 = -1
    /// A place in the ring's file table when `fixedFile`, else a descriptor.
    var descriptor: Int32 = -1
    var offsetAlignment: UInt32 = 1
    /// Transfers that are with the kernel or waiting to go again.
    var outstanding: Int32 = 0
    /// The first failure, negative errno; 0 for none.
    var failure: Int32 = 0
    var nextFree: Int32 = -1
    var operation: IOOperation = .read
    var fixedFile = false
    var isDirectory = false
    var used = false
    /// In the queue of requests with something left to issue.
    var queued = false
    /// It was given up; its transfers are not tried again.
    var cancelled = false
}

/// One transfer with the kernel.
struct UringTransfer {
    /// The request it belongs to, -1 when free.
    var op: Int32 = -1
    var generation: UInt32 = 0
    /// Where it starts in the request, its length, and how much of it is done.
    var start: UInt64 = 0
    var length: UInt32 = 0
    var done: UInt32 = 0
    /// Tries in a row that moved nothing, and EAGAIN or EINTR answers.
    var stalls: UInt8 = 0
    var retries: UInt8 = 0
    /// Whether it is on the list to go again.
    var waiting = false
    var next: Int32 = -1
}

/// A fixed circular queue of plain values; never grows.
struct FixedQueue<Element> {
    private let storage: UnsafeMutablePointer<Element>
    private let mask: Int
    private var head = 0
    private(set) var count = 0

    init(capacity: Int, filler: Element) {
        var rounded = 1
        while rounded < capacity { rounded <<= 1 }
        storage = .allocate(capacity: rounded)
        storage.initialize(repeating: filler, count: rounded)
        mask = rounded - 1
    }

    func deallocate() { storage.deallocate() }

    @inline(__always)
    var first: Element { storage[head & mask] }

    @inline(__always)
    subscript(index: Int) -> Element { storage[(head &+ index) & mask] }

    @inline(__always)
    mutating func append(_ element: Element) {
        assert(count <= mask, "a fixed queue is as large as what it can be given")
        storage[(head &+ count) & mask] = element
        count &+= 1
    }

    @inline(__always)
    mutating func removeFirst() {
        head = (head &+ 1) & mask
        count &-= 1
    }

    /// Takes out one element in the middle; slow, for the rare cancel.
    mutating func remove(at index: Int) {
        for position in index..<(count - 1) {
            storage[(head + position) & mask] = storage[(head + position + 1) & mask]
        }
        count -= 1
    }
}

/// The fixed state of a driver, freed by `deallocate`.
struct UringTables {
    let depth: Int
    let transferCapacity: Int
    let ops: UnsafeMutablePointer<UringOp>
    let transfers: UnsafeMutablePointer<UringTransfer>
    var freeOp: Int32 = 0
    var freeTransfer: Int32 = 0
    /// Requests with something left to issue, oldest first; the first `released` were submitted.
    var queue: FixedQueue<Int32>
    var released = 0
    /// Finished requests that nobody has reaped yet.
    var ready: FixedQueue<IOCompletion>
    /// Transfers that must go to the kernel again.
    var againHead: Int32 = -1

    init(depth: Int) {
        self.depth = depth
        // Large requests keep the device busy with twice the depth in pieces, at least 64.
        transferCapacity = max(2 * depth, 64)
        ops = .allocate(capacity: depth)
        transfers = .allocate(capacity: transferCapacity)
        ops.initialize(repeating: UringOp(), count: depth)
        transfers.initialize(repeating: UringTransfer(), count: transferCapacity)
        for index in 0..<depth {
            ops[index].nextFree = index + 1 < depth ? Int32(index + 1) : -1
        }
        for index in 0..<transferCapacity {
            transfers[index].next = index + 1 < transferCapacity ? Int32(index + 1) : -1
        }
        queue = FixedQueue(capacity: depth, filler: -1)
        ready = FixedQueue(
            capacity: depth, filler: IOCompletion(tag: 0, result: 0, deviceNanoseconds: 0))
    }

    func deallocate() {
        ops.deallocate()
        transfers.deallocate()
        queue.deallocate()
        ready.deallocate()
    }
}

/// What a completion's user_data says besides a transfer.
enum UserData {
    /// The poll of the wake eventfd.
    static let wake: UInt64 = 0xffff_ffff
    /// A cancellation's own completion.
    static let cancel: UInt64 = 0xffff_fffe

    @inline(__always)
    static func transfer(_ index: Int, _ generation: UInt32) -> UInt64 {
        UInt64(UInt32(truncatingIfNeeded: index)) | UInt64(generation) << 32
    }
}
