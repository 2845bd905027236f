// SlotQueues: several doubly linked queues over one set of slot numbers, each slot in at most one.
// All calls are O(1) and allocate nothing. Queue q has its anchor at `capacity + q`: the anchor's
// next is the newest, its previous the oldest. A slot in no queue has links of -1.

struct SlotQueues: ~Copyable {
    let capacity: Int
    let queues: Int
    private let next: UnsafeMutablePointer<Int32>
    private let previous: UnsafeMutablePointer<Int32>
    /// The slots of each queue.
    let counts: UnsafeMutablePointer<Int32>

    init(capacity: Int, queues: Int) {
        self.capacity = capacity
        self.queues = queues
        next = .allocate(capacity: capacity + queues)
        previous = .allocate(capacity: capacity + queues)
        counts = .allocate(capacity: queues)
        next.initialize(repeating: -1, count: capacity + queues)
        previous.initialize(repeating: -1, count: capacity + queues)
        counts.initialize(repeating: 0, count: queues)
        for queue in 0..<queues {
            next[capacity + queue] = Int32(capacity + queue)
            previous[capacity + queue] = Int32(capacity + queue)
        }
    }

    deinit {
        next.deallocate()
        previous.deallocate()
        counts.deallocate()
    }

    var bytes: Int { Self.bytes(capacity: capacity, queues: queues) }

    static func bytes(capacity: Int, queues: Int) -> Int {
        8 * (capacity + queues) + 4 * queues
    }

    @inline(__always)
    func holds(_ slot: Int32) -> Bool {
        slot >= 0 && Int(slot) < capacity && next[Int(slot)] >= 0
    }

    /// The oldest of the queue, -1 for none.
    @inline(__always)
    func oldest(_ queue: Int) -> Int32 { place(previous[capacity + queue]) }

    /// The one that is next younger than the slot in its queue, -1 for none.
    @inline(__always)
    func younger(_ slot: Int32) -> Int32 { place(previous[Int(slot)]) }

    @inline(__always)
    private func place(_ link: Int32) -> Int32 { Int(link) < capacity ? link : -1 }

    /// Makes the slot the newest of the queue.
    @inline(__always)
    func push(_ slot: Int32, to queue: Int) { link(slot, behind: Int32(capacity + queue), queue) }

    /// Puts the slot next to `other`, as the older of the two, in that one's queue.
    @inline(__always)
    func insert(_ slot: Int32, olderThan other: Int32, in queue: Int) {
        link(slot, behind: other, queue)
    }

    /// Makes the slot the oldest of the queue.
    @inline(__always)
    func pushOldest(_ slot: Int32, to queue: Int) {
        link(slot, behind: previous[capacity + queue], queue)
    }

    @inline(__always)
    private func link(_ slot: Int32, behind: Int32, _ queue: Int) {
        let after = next[Int(behind)]
        next[Int(slot)] = after
        previous[Int(slot)] = behind
        previous[Int(after)] = slot
        next[Int(behind)] = slot
        counts[queue] += 1
    }

    /// Takes a slot that is in the queue out of it.
    @inline(__always)
    func unlink(_ slot: Int32, from queue: Int) {
        let (before, after) = (previous[Int(slot)], next[Int(slot)])
        next[Int(before)] = after
        previous[Int(after)] = before
        next[Int(slot)] = -1
        previous[Int(slot)] = -1
        counts[queue] -= 1
    }
}
