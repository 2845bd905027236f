// GhostList: remembers keys that are gone, with a few bits each, in one or more queues by age.
// Places come from a fixed pool and are found by a hash with open addressing; nothing is allocated
// after `init`. A key is told by 64 of its bits: a mistaken one costs advice.
//
// Invariant: a key is in at most one queue; the hash holds exactly the places in use.

struct GhostList: ~Copyable {
    struct Ghost {
        var key: UInt64 = 0
        /// When the block was used last, in the owner's own count.
        var time: UInt64 = 0
        var tag: UInt32 = 0
        var queue: UInt32 = 0
    }

    let capacity: Int
    private let queues: SlotQueues
    private let ghosts: UnsafeMutablePointer<Ghost>
    /// Place + 1, 0 for free.
    private let hash: UnsafeMutablePointer<Int32>
    private let mask: Int
    private let free: UnsafeMutablePointer<Int32>
    private var freeCount: Int
    /// One more than the highest place that was ever used.
    private(set) var end = 0

    init(capacity: Int, queues count: Int) {
        self.capacity = capacity
        queues = SlotQueues(capacity: capacity, queues: count)
        ghosts = .allocate(capacity: capacity)
        ghosts.initialize(repeating: Ghost(), count: capacity)
        let size = Self.hashSize(capacity)
        mask = size - 1
        hash = .allocate(capacity: size)
        hash.initialize(repeating: 0, count: size)
        free = .allocate(capacity: capacity)
        for place in 0..<capacity { free[place] = Int32(capacity - 1 - place) }
        freeCount = capacity
    }

    deinit {
        ghosts.deallocate()
        hash.deallocate()
        free.deallocate()
    }

    var bytes: Int { Self.bytes(capacity: capacity, queues: queues.queues) }

    static func bytes(capacity: Int, queues: Int) -> Int {
        capacity * (MemoryLayout<Ghost>.stride + 4) + 4 * hashSize(capacity)
            + SlotQueues.bytes(capacity: capacity, queues: queues)
    }

    private static func hashSize(_ capacity: Int) -> Int {
        var size = 16
        while size < 2 * capacity { size <<= 1 }
        return size
    }
    var count: Int { capacity - freeCount }

    @inline(__always)
    func count(_ queue: Int) -> Int { Int(queues.counts[queue]) }

    /// The ghost at a place, nil where there is none.
    @inline(__always)
    func ghost(at place: Int) -> Ghost? {
        queues.holds(Int32(place)) ? ghosts[place] : nil
    }

    @inline(__always)
    private func home(_ key: UInt64) -> Int {
        Int(truncatingIfNeeded: (key &* 0x9E37_79B9_7F4A_7C15) >> 32) & mask
    }

    func find(_ key: UInt64) -> Ghost? {
        var at = home(key)
        while hash[at] != 0 {
            let place = Int(hash[at] - 1)
            if ghosts[place].key == key { return ghosts[place] }
            at = (at + 1) & mask
        }
        return nil
    }

    /// Forgets the key; returns what was known of it.
    @discardableResult
    mutating func remove(_ key: UInt64) -> Ghost? {
        var at = home(key)
        while hash[at] != 0 {
            let place = hash[at] - 1
            if ghosts[Int(place)].key == key {
                let found = ghosts[Int(place)]
                queues.unlink(place, from: Int(found.queue))
                free[freeCount] = place
                freeCount += 1
                closeGap(at)
                return found
            }
            at = (at + 1) & mask
        }
        return nil
    }

    /// Moves what follows the freed place back, so that no search ends early.
    private func closeGap(_ gap: Int) {
        var gap = gap
        var at = (gap + 1) & mask
        while hash[at] != 0 {
            let wanted = home(ghosts[Int(hash[at] - 1)].key)
            if (at - wanted) & mask >= (at - gap) & mask {
                hash[gap] = hash[at]
                gap = at
            }
            at = (at + 1) & mask
        }
        hash[gap] = 0
    }

    /// Remembers the key as the newest of a queue. The pool's oldest of that queue goes if there
    /// is no place; a queue without any refuses.
    mutating func push(_ key: UInt64, to queue: Int, time: UInt64 = 0, tag: UInt32 = 0) {
        remove(key)
        if freeCount == 0 { dropOldest(queue) }
        guard freeCount > 0 else { return }
        freeCount -= 1
        let place = free[freeCount]
        end = max(end, Int(place) + 1)
        ghosts[Int(place)] = Ghost(key: key, time: time, tag: tag, queue: UInt32(queue))
        queues.push(place, to: queue)
        var at = home(key)
        while hash[at] != 0 { at = (at + 1) & mask }
        hash[at] = place + 1
    }

    mutating func dropOldest(_ queue: Int) {
        let oldest = queues.oldest(queue)
        if oldest >= 0 { remove(ghosts[Int(oldest)].key) }
    }
}
