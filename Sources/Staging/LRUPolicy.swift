// LRUPolicy: exact least-recently-used order by a doubly linked list through two arrays of slot
// numbers. Every call is O(1) and allocates nothing. Entry `capacity` is the list's anchor: its
// next is the most recent, its previous the coldest. -1 links mark a slot that is not held. What
// continues a chain goes right behind its predecessor, so that the tail leaves before the head.

package final class LRUPolicy: ReplacementPolicy {
    private var capacity: Int32 = 0
    private var next: UnsafeMutablePointer<Int32>
    private var previous: UnsafeMutablePointer<Int32>
    /// The slot used last, behind which its successor in the chain goes; -1 if it has moved.
    private var latest: Int32 = -1

    package init() {
        next = .allocate(capacity: 1)
        previous = .allocate(capacity: 1)
        next.initialize(to: 0)
        previous.initialize(to: 0)
    }

    deinit {
        next.deallocate()
        previous.deallocate()
    }

    package func resize(capacity: Int) {
        precondition(capacity > 0 && capacity < Int(Int32.max), "capacity out of range")
        precondition(next[Int(self.capacity)] == self.capacity, "a policy is resized while empty")
        next.deallocate()
        previous.deallocate()
        next = .allocate(capacity: capacity + 1)
        previous = .allocate(capacity: capacity + 1)
        next.initialize(repeating: -1, count: capacity + 1)
        previous.initialize(repeating: -1, count: capacity + 1)
        self.capacity = Int32(capacity)
        next[capacity] = self.capacity
        previous[capacity] = self.capacity
    }

    package func inserted(_ slot: Int32, _ arrival: Arrival) {
        precondition(slot >= 0 && slot < capacity && next[Int(slot)] < 0, "slot held already")
        use(slot, arrival.continues)
    }

    package func touched(_ slot: Int32, continues: Bool) {
        guard unlink(slot) else { return }
        use(slot, continues)
    }

    package func reordered(_ slot: Int32, continues: Bool) { touched(slot, continues: continues) }

    @inline(__always)
    private func use(_ slot: Int32, _ continues: Bool) {
        link(slot, after: continues && latest >= 0 ? latest : capacity)
        latest = slot
    }

    package func removed(_ slot: Int32) {
        if unlink(slot) {
            next[Int(slot)] = -1
            previous[Int(slot)] = -1
        }
    }

    package func demoted(_ slot: Int32) {
        guard unlink(slot) else { return }
        link(slot, after: previous[Int(capacity)])
    }

    package func victim(after slot: Int32?) -> Int32? {
        let from = slot ?? capacity
        guard from >= 0, from <= capacity else { return nil }
        let candidate = previous[Int(from)]
        return candidate < 0 || candidate == capacity ? nil : candidate
    }

    package var memoryBytes: Int { 8 * (Int(capacity) + 1) }

    @inline(__always)
    private func link(_ slot: Int32, after: Int32) {
        let behind = next[Int(after)]
        next[Int(slot)] = behind
        previous[Int(slot)] = after
        previous[Int(behind)] = slot
        next[Int(after)] = slot
    }

    /// Takes the slot out of the list; false when it is not in it.
    @inline(__always)
    private func unlink(_ slot: Int32) -> Bool {
        guard slot >= 0, slot < capacity, next[Int(slot)] >= 0 else { return false }
        if slot == latest { latest = -1 }
        let (before, behind) = (previous[Int(slot)], next[Int(slot)])
        next[Int(before)] = behind
        previous[Int(behind)] = before
        return true
    }
}
