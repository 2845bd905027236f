// S3FIFOPolicy: three queues (Yang et al.): arrivals go through a small one of a tenth, from which
// what was used more than once goes on to the main one; a ghost's return goes there at once. In the
// main queue each use, up to three, is worth one more round. For comparison. Blocks that fit: as in
// ARCPolicy.

import Staging

package final class S3FIFOPolicy: ReplacementPolicy {
    private static let small = 0
    private static let main = 1
    private static let demotedQueue = 2
    private static let none: UInt8 = 3
    private static let mostUses: UInt8 = 3

    private var queues = SlotQueues(capacity: 1, queues: 3)
    private var ghosts = GhostList(capacity: 1, queues: 1)
    private var keys: UnsafeMutablePointer<UInt64>
    private var places: UnsafeMutablePointer<UInt8>
    private var uses: UnsafeMutablePointer<UInt8>
    private var capacity = 0
    private var held = 0
    private var size = 1
    private var given: Int32 = -1
    private var cursors: (small: Int32, main: Int32, demoted: Int32) = (-1, -1, -1)
    /// Blocks that the walk has given out of the small queue and that are still there.
    private var walkedSmall = 0

    package init() {
        keys = .allocate(capacity: 1)
        places = .allocate(capacity: 1)
        uses = .allocate(capacity: 1)
    }

    deinit {
        keys.deallocate()
        places.deallocate()
        uses.deallocate()
    }

    package func resize(capacity: Int) {
        keys.deallocate()
        places.deallocate()
        uses.deallocate()
        keys = .allocate(capacity: capacity)
        places = .allocate(capacity: capacity)
        uses = .allocate(capacity: capacity)
        keys.initialize(repeating: 0, count: capacity)
        places.initialize(repeating: Self.none, count: capacity)
        uses.initialize(repeating: 0, count: capacity)
        queues = SlotQueues(capacity: capacity, queues: 3)
        ghosts = GhostList(capacity: capacity, queues: 1)
        self.capacity = capacity
    }

    package var memoryBytes: Int { capacity * 10 + queues.bytes + ghosts.bytes }

    package func inserted(_ slot: Int32, _ arrival: Arrival) {
        precondition(places[Int(slot)] == Self.none, "slot held already")
        held += 1
        size = max(size, held)
        keys[Int(slot)] = arrival.key.lo
        uses[Int(slot)] = 0
        let wasGhost = ghosts.remove(arrival.key.lo) != nil
        place(slot, wasGhost ? Self.main : Self.small)
    }

    package func touched(_ slot: Int32, continues: Bool) {
        guard isHeld(slot) else { return }
        if Int(places[Int(slot)]) == Self.demotedQueue {
            unlink(slot)
            place(slot, Self.main)
        }
        uses[Int(slot)] = min(Self.mostUses, uses[Int(slot)] + 1)
    }

    package func removed(_ slot: Int32) {
        guard isHeld(slot) else { return }
        unlink(slot)
        let queue = Int(places[Int(slot)])
        places[Int(slot)] = Self.none
        size = max(held, 1)
        held -= 1
        guard queue == Self.small else { return }
        ghosts.push(keys[Int(slot)], to: 0)
        while ghosts.count > max(1, size - smallShare) { ghosts.dropOldest(0) }
    }

    package func demoted(_ slot: Int32) {
        guard isHeld(slot) else { return }
        unlink(slot)
        places[Int(slot)] = UInt8(Self.demotedQueue)
        queues.pushOldest(slot, to: Self.demotedQueue)
    }

    private var smallShare: Int { max(1, size / 10) }

    private func isHeld(_ slot: Int32) -> Bool {
        slot >= 0 && Int(slot) < capacity && places[Int(slot)] != Self.none
    }

    private func place(_ slot: Int32, _ queue: Int) {
        places[Int(slot)] = UInt8(queue)
        queues.push(slot, to: queue)
    }

    private func unlink(_ slot: Int32) {
        if cursors.small == slot { cursors.small = queues.younger(slot) }
        if cursors.main == slot { cursors.main = queues.younger(slot) }
        if cursors.demoted == slot { cursors.demoted = queues.younger(slot) }
        queues.unlink(slot, from: Int(places[Int(slot)]))
    }

    // MARK: Victims

    package func victim(after slot: Int32?) -> Int32? {
        if slot == nil {
            cursors.small = queues.oldest(Self.small)
            cursors.main = queues.oldest(Self.main)
            cursors.demoted = queues.oldest(Self.demotedQueue)
            walkedSmall = 0
        } else if slot != given {
            return nil
        }
        if cursors.demoted >= 0 {
            given = cursors.demoted
            cursors.demoted = queues.younger(given)
            return given
        }
        while cursors.small >= 0 || cursors.main >= 0 {
            let left = Int(queues.counts[Self.small]) - walkedSmall
            if let found = left >= smallShare || cursors.main < 0 ? fromSmall() : fromMain() {
                given = found
                return found
            }
        }
        return nil
    }

    /// The small queue's next candidate, or nil when it went on to the main queue instead.
    private func fromSmall() -> Int32? {
        let candidate = cursors.small
        guard candidate >= 0 else { return fromMain() }
        cursors.small = queues.younger(candidate)
        guard uses[Int(candidate)] > 1 else {
            walkedSmall += 1
            return candidate
        }
        uses[Int(candidate)] = 0
        renew(candidate)
        return nil
    }

    private func fromMain() -> Int32? {
        let candidate = cursors.main
        guard candidate >= 0 else { return fromSmall() }
        cursors.main = queues.younger(candidate)
        guard uses[Int(candidate)] > 0 else { return candidate }
        uses[Int(candidate)] -= 1
        renew(candidate)
        return nil
    }

    /// Makes it the newest of the main queue, which this walk still has to come to.
    private func renew(_ slot: Int32) {
        queues.unlink(slot, from: Int(places[Int(slot)]))
        place(slot, Self.main)
        if cursors.main < 0 { cursors.main = slot }
    }
}
