// ARCPolicy: adaptive replacement (Megiddo and Modha): residents seen once and residents seen more
// often in a queue each, ghosts of both, and a target for the first queue's share that each
// ghost's return moves. For comparison. The number of blocks that fit is not known, since blocks
// differ in size; it counts as many as are held when room has to be made.

import Staging

package final class ARCPolicy: ReplacementPolicy {
    private static let once = 0
    private static let often = 1
    private static let demotedQueue = 2
    private static let none: UInt8 = 3

    private var queues = SlotQueues(capacity: 1, queues: 3)
    private var ghosts = GhostList(capacity: 1, queues: 2)
    private var keys: UnsafeMutablePointer<UInt64>
    private var places: UnsafeMutablePointer<UInt8>
    private var capacity = 0
    private var held = 0
    /// Blocks that fit, as far as is known.
    private var size = 1
    /// The wanted number of blocks seen once.
    private var target = 0.0
    /// The block that room is made for was seen often and has left.
    private var expectsOften = false
    private var given: Int32 = -1
    /// The next candidate of the walk in each queue, and how many seen once it has given.
    private var cursors: (once: Int32, often: Int32, demoted: Int32) = (-1, -1, -1)
    private var walkedOnce = 0

    package init() {
        keys = .allocate(capacity: 1)
        places = .allocate(capacity: 1)
    }

    deinit {
        keys.deallocate()
        places.deallocate()
    }

    package func resize(capacity: Int) {
        keys.deallocate()
        places.deallocate()
        keys = .allocate(capacity: capacity)
        places = .allocate(capacity: capacity)
        keys.initialize(repeating: 0, count: capacity)
        places.initialize(repeating: Self.none, count: capacity)
        queues = SlotQueues(capacity: capacity, queues: 3)
        ghosts = GhostList(capacity: 2 * capacity, queues: 2)
        self.capacity = capacity
    }

    package var memoryBytes: Int { capacity * 9 + queues.bytes + ghosts.bytes }

    package func expects(_ key: StagingKey) {
        expectsOften = false
        guard let ghost = ghosts.find(key.lo) else { return }
        let (once, often) = (Double(ghosts.count(Self.once)), Double(ghosts.count(Self.often)))
        if Int(ghost.queue) == Self.once {
            target = min(Double(size), target + (once >= often ? 1 : often / once))
        } else {
            target = max(0, target - (often >= once ? 1 : once / often))
            expectsOften = true
        }
    }

    package func inserted(_ slot: Int32, _ arrival: Arrival) {
        precondition(places[Int(slot)] == Self.none, "slot held already")
        held += 1
        size = max(size, held)
        keys[Int(slot)] = arrival.key.lo
        let wasGhost = ghosts.remove(arrival.key.lo) != nil
        place(slot, wasGhost ? Self.often : Self.once)
        trim()
    }

    package func touched(_ slot: Int32, continues: Bool) {
        guard isHeld(slot) else { return }
        unlink(slot)
        place(slot, Self.often)
    }

    package func removed(_ slot: Int32) {
        guard isHeld(slot) else { return }
        unlink(slot)
        let queue = Int(places[Int(slot)])
        places[Int(slot)] = Self.none
        size = max(held, 1)
        held -= 1
        if queue != Self.demotedQueue { ghosts.push(keys[Int(slot)], to: queue) }
        trim()
    }

    package func demoted(_ slot: Int32) {
        guard isHeld(slot) else { return }
        unlink(slot)
        places[Int(slot)] = UInt8(Self.demotedQueue)
        queues.pushOldest(slot, to: Self.demotedQueue)
    }

    private func trim() {
        let once = Int(queues.counts[Self.once])
        while ghosts.count(Self.once) > max(0, size - once) { ghosts.dropOldest(Self.once) }
        while ghosts.count(Self.often) > 0, held + ghosts.count > 2 * size {
            ghosts.dropOldest(Self.often)
        }
    }

    private func isHeld(_ slot: Int32) -> Bool {
        slot >= 0 && Int(slot) < capacity && places[Int(slot)] != Self.none
    }

    private func place(_ slot: Int32, _ queue: Int) {
        places[Int(slot)] = UInt8(queue)
        queues.push(slot, to: queue)
    }

    private func unlink(_ slot: Int32) {
        if cursors.once == slot { cursors.once = queues.younger(slot) }
        if cursors.often == slot { cursors.often = queues.younger(slot) }
        if cursors.demoted == slot { cursors.demoted = queues.younger(slot) }
        queues.unlink(slot, from: Int(places[Int(slot)]))
    }

    // MARK: Victims

    package func victim(after slot: Int32?) -> Int32? {
        if slot == nil {
            cursors.once = queues.oldest(Self.once)
            cursors.often = queues.oldest(Self.often)
            cursors.demoted = queues.oldest(Self.demotedQueue)
            walkedOnce = 0
        } else if slot != given {
            return nil
        }
        if cursors.demoted >= 0 {
            given = cursors.demoted
            cursors.demoted = queues.younger(given)
            return given
        }
        let once = Int(queues.counts[Self.once]) - walkedOnce
        let isOverTarget =
            Double(once) > target || expectsOften && once > 0 && once == Int(target)
        if cursors.once >= 0, isOverTarget || cursors.often < 0 {
            given = cursors.once
            cursors.once = queues.younger(given)
            walkedOnce += 1
            return given
        }
        guard cursors.often >= 0 else { return nil }
        given = cursors.often
        cursors.often = queues.younger(given)
        return given
    }
}
