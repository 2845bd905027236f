// PrefetchQueue: the blocks that wait to be brought, those under way, those that need not be
// brought as things are (PrefetchQueue+Dormant), and the requests that want them. Blocks of a
// request keep the order of its chain; among requests the one due first goes first, and of equal
// ones the one that came first. All of it is fixed at open: what has no room is refused, and the
// caller counts it.
//
// Invariants: of a fingerprint at most one block waits or is under way; a request is in the heap
// exactly while it has waiting blocks; every block belongs to one request.

import LogStore
import SegmentFormat
import Staging

enum BlockState: UInt8 {
    case waiting
    case inFlight
    /// In staging, or not stored yet: looked at again when that changes.
    case dormant
}

/// A block that is wanted.
struct QueuedBlock {
    var fingerprint = Fingerprint(hi: 0, lo: 0)
    /// The key, if it is of 32 bytes at most.
    var key: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
    var keyLength: UInt16 = 0
    var namespaceSlot: UInt16 = 0
    /// Of the namespace's instance, which a purge changes.
    var instanceLow: UInt32 = 0
    var predictor = PredictorKind.chain
    var state = BlockState.waiting
    /// Where it is read from while it is under way.
    var device: UInt8 = 0
    /// Place in the pool of long keys, -1 for none.
    var longKey: Int32 = -1
    var request: Int32 = -1
    /// In the request's waiting list, or in that of all dormant blocks, in the order in which they
    /// became so.
    var next: Int32 = -1
    var previous: Int32 = -1
    /// In the request's list of dormant blocks.
    var nextOfRequest: Int32 = -1
    var previousOfRequest: Int32 = -1
    var hashNext: Int32 = -1
    /// Value bytes reserved while it is under way.
    var bytes: UInt32 = 0
    /// When somebody asked for it while it was under way, 0 for nobody.
    var demanded: UInt64 = 0
    /// When it was hinted.
    var came: UInt64 = 0
    /// The run of shards that is wanted, a count of 0 for all; `fingerprint` is the part's then.
    var firstShard: UInt16 = 0
    var shardCount: UInt16 = 0
    /// The block's own.
    var blockFingerprint: Fingerprint {
        shardCount == 0 ? fingerprint : fingerprint.part(Int(firstShard), Int(shardCount))
    }

    var isInFlight: Bool { state == .inFlight }
}

struct QueuedRequest {
    /// The engine's number, 0 for none.
    var id: UInt64 = 0
    var due: UInt64 = 0
    var order: UInt64 = 0
    var head: Int32 = -1
    var tail: Int32 = -1
    var firstDormant: Int32 = -1
    /// First unused resident of it; kept by the prefetcher.
    var marks: Int32 = -1
    /// Blocks in the queue, and unused residents.
    var uses: Int32 = 0
    var hashNext: Int32 = -1
    var isUsed = false
}

final class PrefetchQueue {
    static let inlineKeyBytes = 32
    /// Keys beyond that which can be in the queue: at most 1,024, one a block.
    static func longKeys(_ blocks: Int) -> Int { min(1024, blocks / 4) }

    let blocks: UnsafeMutablePointer<QueuedBlock>
    let requests: UnsafeMutablePointer<QueuedRequest>
    let blockCapacity: Int
    let requestCapacity: Int
    private(set) var waiting = 0
    private(set) var inFlight = 0
    var dormant = 0
    var oldestDormant: Int32 = -1
    var newestDormant: Int32 = -1
    private var freeBlock: Int32 = 0
    private var freeRequest: Int32 = 0
    private(set) var requestCount = 0
    private let blockHash: UnsafeMutablePointer<Int32>
    private let blockMask: Int
    private let requestHash: UnsafeMutablePointer<Int32>
    private let requestMask: Int
    @exclusivity(unchecked) private var heap: IndexHeap
    private var order: UInt64 = 0
    private let longMemory: UnsafeMutableRawPointer
    private let freeLong: UnsafeMutablePointer<Int32>
    private var freeLongCount: Int

    init(blocks blockCapacity: Int, requests requestCapacity: Int) {
        precondition(blockCapacity > 0 && requestCapacity > 0, "a queue has places")
        self.blockCapacity = blockCapacity
        self.requestCapacity = requestCapacity
        blocks = .allocate(capacity: blockCapacity)
        requests = .allocate(capacity: requestCapacity)
        for index in 0..<blockCapacity {
            (blocks + index).initialize(to: QueuedBlock())
            blocks[index].next = index + 1 < blockCapacity ? Int32(index + 1) : -1
        }
        for index in 0..<requestCapacity {
            (requests + index).initialize(to: QueuedRequest())
            requests[index].hashNext = index + 1 < requestCapacity ? Int32(index + 1) : -1
        }
        func powerOfTwo(_ least: Int) -> Int {
            var size = 16
            while size < least { size *= 2 }
            return size
        }
        let (blockSize, requestSize) = (powerOfTwo(2 * blockCapacity), powerOfTwo(requestCapacity))
        blockHash = .allocate(capacity: blockSize)
        blockHash.initialize(repeating: -1, count: blockSize)
        blockMask = blockSize - 1
        requestHash = .allocate(capacity: requestSize)
        requestHash.initialize(repeating: -1, count: requestSize)
        requestMask = requestSize - 1
        heap = IndexHeap(capacity: requestCapacity)
        let longKeys = Self.longKeys(blockCapacity)
        longMemory = .allocate(
            byteCount: max(1, longKeys) * FormatConstants.maxKeyBytes, alignment: 64)
        freeLong = .allocate(capacity: max(1, longKeys))
        for index in 0..<longKeys { freeLong[index] = Int32(longKeys - 1 - index) }
        freeLongCount = longKeys
    }

    deinit {
        blocks.deallocate()
        requests.deallocate()
        blockHash.deallocate()
        requestHash.deallocate()
        heap.deallocate()
        longMemory.deallocate()
        freeLong.deallocate()
    }

    /// Bytes that a queue of this size takes.
    static func memoryBytes(blocks: Int, requests: Int) -> Int {
        blocks * (MemoryLayout<QueuedBlock>.stride + 16)
            + requests * (MemoryLayout<QueuedRequest>.stride + 8)
            + IndexHeap.memoryBytes(capacity: requests)
            + longKeys(blocks) * (FormatConstants.maxKeyBytes + 4)
    }

    // MARK: Requests

    func findRequest(_ id: UInt64) -> Int32 {
        guard id != 0 else { return -1 }
        var at = requestHash[bucket(id)]
        while at >= 0 {
            if requests[Int(at)].id == id { return at }
            at = requests[Int(at)].hashNext
        }
        return -1
    }

    private func bucket(_ id: UInt64) -> Int {
        Int(truncatingIfNeeded: (id &* 0x9E37_79B9_7F4A_7C15) >> 32) & requestMask
    }

    /// The request, made if it is not there; -1 when there is no room. Its due time is the last one
    /// told.
    func request(_ id: UInt64, due: UInt64) -> Int32 {
        let found = findRequest(id)
        if found >= 0 {
            setDue(found, due)
            return found
        }
        guard freeRequest >= 0 else { return -1 }
        let index = freeRequest
        freeRequest = requests[Int(index)].hashNext
        order += 1
        requestCount += 1
        requests[Int(index)] = QueuedRequest(id: id, due: due, order: order)
        requests[Int(index)].isUsed = true
        if id != 0 {
            let bucket = bucket(id)
            requests[Int(index)].hashNext = requestHash[bucket]
            requestHash[bucket] = index
        }
        return index
    }

    func setDue(_ request: Int32, _ due: UInt64) {
        guard requests[Int(request)].due != due else { return }
        requests[Int(request)].due = due
        if heap.contains(request) { push(request) }
    }

    func retain(_ request: Int32) { requests[Int(request)].uses += 1 }

    /// One use of the request less; the last one frees it.
    func release(_ request: Int32) {
        requests[Int(request)].uses -= 1
        releaseIfUnused(request)
    }

    /// Frees a request that has nothing.
    func releaseIfUnused(_ request: Int32) {
        guard requests[Int(request)].isUsed, requests[Int(request)].uses == 0 else { return }
        let id = requests[Int(request)].id
        if id != 0 {
            let bucket = bucket(id)
            if requestHash[bucket] == request {
                requestHash[bucket] = requests[Int(request)].hashNext
            } else {
                var at = requestHash[bucket]
                while at >= 0, requests[Int(at)].hashNext != request {
                    at = requests[Int(at)].hashNext
                }
                if at >= 0 { requests[Int(at)].hashNext = requests[Int(request)].hashNext }
            }
        }
        requests[Int(request)] = QueuedRequest()
        requests[Int(request)].hashNext = freeRequest
        freeRequest = request
        requestCount -= 1
    }

    // MARK: Blocks

    /// The first block in the fingerprint's place of the hash table; others by `hashNext`.
    @inline(__always)
    func hashed(_ fingerprint: Fingerprint) -> Int32 {
        blockHash[Int(truncatingIfNeeded: fingerprint.lo) & blockMask]
    }

    /// The block that waits or is under way.
    func find(_ fingerprint: Fingerprint) -> Int32 {
        var at = hashed(fingerprint)
        while at >= 0 {
            let block = blocks + Int(at)
            if block.pointee.state != .dormant, block.pointee.fingerprint == fingerprint {
                return at
            }
            at = block.pointee.hashNext
        }
        return -1
    }

    var isFull: Bool { freeBlock < 0 }

    /// Puts a block behind the request's others, or with `state` dormant to what sleeps. False: no
    /// room for it.
    func append(
        _ request: Int32, _ fingerprint: Fingerprint, _ key: UnsafeRawBufferPointer,
        namespaceSlot: UInt16, instance: UInt64, _ predictor: PredictorKind, now: UInt64,
        state: BlockState = .waiting, part: (first: UInt16, count: UInt16) = (0, 0)
    ) -> Bool {
        guard freeBlock >= 0, key.count <= FormatConstants.maxKeyBytes,
            let source = key.baseAddress, key.count > 0
        else { return false }
        var long: Int32 = -1
        if key.count > Self.inlineKeyBytes {
            guard freeLongCount > 0 else { return false }
            freeLongCount -= 1
            long = freeLong[freeLongCount]
        }
        let index = freeBlock
        let block = blocks + Int(index)
        freeBlock = block.pointee.next
        block.pointee = QueuedBlock(
            fingerprint: fingerprint, keyLength: UInt16(key.count), namespaceSlot: namespaceSlot,
            instanceLow: UInt32(truncatingIfNeeded: instance), predictor: predictor,
            longKey: long, request: request, came: now, firstShard: part.first,
            shardCount: part.count)
        keyMemory(index).copyMemory(from: source, byteCount: key.count)
        let bucket = Int(truncatingIfNeeded: fingerprint.lo) & blockMask
        block.pointee.hashNext = blockHash[bucket]
        blockHash[bucket] = index
        requests[Int(request)].uses += 1
        if state == .dormant { linkDormant(index) } else { linkLast(index) }
        return true
    }

    private func linkLast(_ index: Int32) {
        let block = blocks + Int(index)
        let owner = requests + Int(block.pointee.request)
        block.pointee.previous = owner.pointee.tail
        if owner.pointee.tail >= 0 {
            blocks[Int(owner.pointee.tail)].next = index
        } else {
            owner.pointee.head = index
        }
        owner.pointee.tail = index
        waiting += 1
        if !heap.contains(block.pointee.request) { push(block.pointee.request) }
    }

    private func keyMemory(_ index: Int32) -> UnsafeMutableRawPointer {
        let block = blocks + Int(index)
        if block.pointee.longKey >= 0 {
            return longMemory + Int(block.pointee.longKey) * FormatConstants.maxKeyBytes
        }
        return UnsafeMutableRawPointer(block) + (MemoryLayout<QueuedBlock>.offset(of: \.key) ?? 0)
    }

    /// The key, good as long as the block is in the queue.
    func key(_ index: Int32) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(
            start: keyMemory(index), count: Int(blocks[Int(index)].keyLength))
    }

    /// The block to bring next, -1 for none.
    var first: Int32 { heap.first < 0 ? -1 : requests[Int(heap.first)].head }

    /// The block's reading begins.
    func begin(_ index: Int32) {
        unlink(index)
        blocks[Int(index)].state = .inFlight
        inFlight += 1
    }

    /// The block waits again, before the request's others.
    func putBack(_ index: Int32) {
        inFlight -= 1
        linkFirst(index)
    }

    /// The block's reading has ended well: it need not be brought again while it stays.
    func putToSleep(_ index: Int32) {
        inFlight -= 1
        blocks[Int(index)].bytes = 0
        blocks[Int(index)].demanded = 0
        linkDormant(index)
    }

    /// A block that is in no list comes before the request's others.
    func linkFirst(_ index: Int32) {
        let block = blocks + Int(index)
        let owner = requests + Int(block.pointee.request)
        block.pointee.state = .waiting
        block.pointee.previous = -1
        block.pointee.next = owner.pointee.head
        if owner.pointee.head >= 0 {
            blocks[Int(owner.pointee.head)].previous = index
        } else {
            owner.pointee.tail = index
        }
        owner.pointee.head = index
        waiting += 1
        if !heap.contains(block.pointee.request) { push(block.pointee.request) }
    }

    /// Takes the block out, whatever its state; its request keeps one use less, and is not freed
    /// here, so that the caller may still look at it.
    func remove(_ index: Int32) {
        let block = blocks + Int(index)
        switch block.pointee.state {
        case .waiting: unlink(index)
        case .inFlight: inFlight -= 1
        case .dormant: unlinkDormant(index)
        }
        let bucket = Int(truncatingIfNeeded: block.pointee.fingerprint.lo) & blockMask
        if blockHash[bucket] == index {
            blockHash[bucket] = block.pointee.hashNext
        } else {
            var at = blockHash[bucket]
            while at >= 0, blocks[Int(at)].hashNext != index { at = blocks[Int(at)].hashNext }
            if at >= 0 { blocks[Int(at)].hashNext = block.pointee.hashNext }
        }
        if block.pointee.longKey >= 0 {
            freeLong[freeLongCount] = block.pointee.longKey
            freeLongCount += 1
        }
        requests[Int(block.pointee.request)].uses -= 1
        block.pointee = QueuedBlock()
        block.pointee.next = freeBlock
        freeBlock = index
    }

    func unlink(_ index: Int32) {
        let block = blocks + Int(index)
        let request = block.pointee.request
        let owner = requests + Int(request)
        let (before, behind) = (block.pointee.previous, block.pointee.next)
        if before >= 0 { blocks[Int(before)].next = behind } else { owner.pointee.head = behind }
        if behind >= 0 {
            blocks[Int(behind)].previous = before
        } else {
            owner.pointee.tail = before
        }
        block.pointee.next = -1
        block.pointee.previous = -1
        waiting -= 1
        if owner.pointee.head < 0 { heap.remove(request) }
    }

    private func push(_ request: Int32) {
        let (due, order) = (requests[Int(request)].due, requests[Int(request)].order)
        heap.set(request, key: due, order: order)
    }
}
