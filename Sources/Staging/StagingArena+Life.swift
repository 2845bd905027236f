// The life of a resident: reserved, published, cleaned, pinned, removed. See StagingArena.

import BlockIO
import Synchronization

extension StagingArena {
    // MARK: Visible

    /// The bytes are all there: readers see the resident from now on. Replaces, in one step, the
    /// visible resident of the same key.
    package func publish(_ slot: ResidentSlot, dirty: Bool, continues: Bool = false) {
        precondition(state(slot) == .filling, "only a filling resident is published")
        let bytes = Int(table.plainInfo(slot.index).storedBytes)
        setState(slot.index, dirty ? .dirty : .clean)
        let old = slots[Int(slot.index)].replaced
        if old >= 0 {
            slots[Int(slot.index)].replaced = -1
            slots[Int(old)].replacement = -1
            let key = table.key(slot.index)
            if let (bucket, _) = table.lookup(key) {
                table.replace(bucket: bucket, with: slot.index, key: key)
            }
            retire(ResidentSlot(old), unlink: false)
            counts.removals += 1
        }
        counts.filling -= 1
        counts.residents += 1
        counts.publications += 1
        count(bytes, dirty ? .dirty : .clean, 1)
        policy.inserted(
            slot.index,
            Arrival(
                key: table.key(slot.index), bytes: bytes,
                namespaceSlot: table.plainInfo(slot.index).namespaceSlot,
                isPrefetched: prefetched[Int(slot.index)], continues: continues))
    }

    /// The resident is on disk now. No effect on one that is clean or was removed meanwhile. Who
    /// writes a resident out pins it until then: without, the slot could be another's by now.
    package func markClean(_ slot: ResidentSlot) {
        guard state(slot) == .dirty else { return }
        let bytes = Int(table.plainInfo(slot.index).storedBytes)
        setState(slot.index, .clean)
        count(bytes, .dirty, -1)
        count(bytes, .clean, 1)
    }

    /// Takes the resident out of sight at once. Its memory returns now, or when the last pin went.
    /// No effect on one that was removed and waits for its pins.
    package func remove(_ slot: ResidentSlot) {
        let state = state(slot)
        precondition(state != .empty, "an empty slot cannot be removed")
        guard state != .condemned else { return }
        counts.removals += 1
        retire(slot, unlink: true)
    }

    /// Removes every visible resident of the namespace; those being filled are left to whoever
    /// fills them. Returns how many went.
    @discardableResult
    package func removeAll(namespaceSlot: UInt16) -> Int {
        var removed = 0
        for index in 0..<Int32(residentCapacity) {
            let slot = ResidentSlot(index)
            if state(slot).isVisible, table.plainInfo(index).namespaceSlot == namespaceSlot {
                remove(slot)
                removed += 1
            }
        }
        return removed
    }

    /// `continues`: the block comes, in its chain, right after the one touched or published last.
    package func touch(_ slot: ResidentSlot, continues: Bool = false) {
        check(slot)
        policy.touched(slot.index, continues: continues)
    }

    /// Touches the key's resident if it is still visible, as a queued touch may come late.
    package func touch(_ key: StagingKey) {
        if let (_, slot) = table.lookup(key) { policy.touched(slot) }
    }

    /// Touches a chain given head to tail, so that its head ends the most recent.
    package func touchChain(_ slots: UnsafeBufferPointer<Int32>) { policy.touchChain(slots) }

    /// Says when somebody is expected to read it, 0 for nobody; forgotten when it leaves.
    package func setAwaited(_ slot: ResidentSlot, until due: UInt64) {
        awaited[Int(slot.index)] = due
    }

    /// A clean resident is the only copy all the same, and is told as lost should it be evicted.
    package func setUnwritten(_ slot: ResidentSlot) {
        precondition(state(slot) == .clean, "what is not clean is not evicted")
        unwritten[Int(slot.index)] = true
        counts.unwritten += 1
    }

    @inline(__always)
    package func isUnwritten(_ slot: ResidentSlot) -> Bool { unwritten[check(slot)] }

    /// The version of a resident that is unwritten, which counts as any clean one from now on.
    package func giveUp(_ index: Int32) -> UInt64? {
        guard unwritten[Int(index)] else { return nil }
        unwritten[Int(index)] = false
        counts.unwritten -= 1
        return table.plainInfo(index).version
    }

    /// The version of an unwritten resident that was evicted; each is given out once.
    package func takeLost() -> UInt64? {
        guard lostCount > 0 else { return nil }
        lostCount -= 1
        return lost[lostCount]
    }

    /// Makes it the next victim, as for a block handed up to an engine that keeps it.
    package func demote(_ slot: ResidentSlot) {
        check(slot)
        awaited[Int(slot.index)] = 0
        policy.demoted(slot.index)
    }

    /// Tells the policy what is expected of the resident.
    package func foretell(_ slot: ResidentSlot, _ outlook: Outlook, continues: Bool = false) {
        check(slot)
        policy.foretold(slot.index, outlook, continues: continues)
    }

    /// A request that used the resident has ended; `continues` as in `touch`.
    package func reorder(_ slot: ResidentSlot, continues: Bool) {
        check(slot)
        policy.reordered(slot.index, continues: continues)
    }

    // MARK: Pins

    /// Holds the slot's memory, in any state; for I/O in flight and copies.
    package func pin(_ slot: ResidentSlot) {
        let outcome = table.tryPin(slot.index, word(slot), lease: false, owner: true)
        precondition(outcome == .pinned, "an empty slot, or one with 2^14 pins, is not pinned")
    }

    package func unpin(_ slot: ResidentSlot) { release(slot, lease: false) }

    /// Holds a visible resident for a user; false when leases would hold over a quarter of the
    /// slabs, or it is not visible.
    package func pinLease(_ slot: ResidentSlot) -> Bool {
        if table.tryPin(slot.index, word(slot), lease: true) == .pinned { return true }
        counts.refusedLeases += 1
        return false
    }

    package func unpinLease(_ slot: ResidentSlot) { release(slot, lease: true) }

    private func release(_ slot: ResidentSlot, lease: Bool) {
        let after = table.unpin(slot.index, generation(slot), lease: lease)
        if ResidentTable.pins(after) == 0 && ResidentTable.state(after) == .condemned {
            freeDeferred(slot.index)
        }
    }

    /// Frees what was removed while pinned and is pinned no more.
    package func collect() {
        var at = deferredCount
        while at > 0 {
            at -= 1
            freeDeferred(deferred[at])
        }
    }

    // MARK: The end of a life

    /// Out of sight, out of the policy, and free if nobody holds it.
    private func retire(_ slot: ResidentSlot, unlink: Bool) {
        let index = slot.index
        let state = state(slot)
        if unlink { self.unlink(index) }
        leave(index, state)
        let seen = setState(index, .condemned)
        if ResidentTable.pins(seen) == 0, tryFree(index, .condemned) { return }
        slots[Int(index)].deferredAt = Int32(deferredCount)
        deferred[deferredCount] = index
        deferredCount += 1
    }

    /// Takes the slot out of the hash, handing its bucket to a replacement that is being filled.
    func unlink(_ index: Int32) {
        let (replacement, replaced) = (slots[Int(index)].replacement, slots[Int(index)].replaced)
        slots[Int(index)].replacement = -1
        slots[Int(index)].replaced = -1
        if replaced >= 0 {
            // A replacement that failed: the bucket is the visible one's.
            slots[Int(replaced)].replacement = -1
            return
        }
        let key = table.key(index)
        guard let (bucket, _) = table.lookup(key) else { return }
        if replacement >= 0 {
            slots[Int(replacement)].replaced = -1
            table.replace(bucket: bucket, with: replacement, key: key)
        } else {
            table.delete(bucket: bucket)
        }
    }

    /// Undoes what the state had counted, and tells the policy.
    func leave(
        _ index: Int32, _ state: ResidentState, _ departure: ResidentDeparture = .removed
    ) {
        let bytes = Int(table.plainInfo(index).storedBytes)
        if state == .filling {
            counts.filling -= 1
        } else {
            counts.residents -= 1
            count(bytes, state, -1)
            awaited[Int(index)] = 0
            if unwritten[Int(index)] {
                unwritten[Int(index)] = false
                counts.unwritten -= 1
                if departure != .removed, lostCount < residentCapacity {
                    lost[lostCount] = table.plainInfo(index).version
                    lostCount += 1
                }
            }
            policy.removed(index)
            observer?.residentLeft(index, table.key(index), departure)
        }
    }

    func count(_ bytes: Int, _ state: ResidentState, _ sign: Int) {
        if state == .dirty {
            counts.dirtyBytes += sign * bytes
        } else {
            counts.cleanBytes += sign * bytes
            cleanSlabs += sign * table.slabs(UInt32(bytes))
            cleanCount += sign
        }
    }

    private func freeDeferred(_ index: Int32) {
        guard tryFree(index, .condemned) else { return }
        let at = slots[Int(index)].deferredAt
        deferredCount -= 1
        let moved = deferred[deferredCount]
        deferred[Int(at)] = moved
        slots[Int(moved)].deferredAt = at
        slots[Int(index)].deferredAt = -1
    }

    /// Ends the slot's life if it is in that state and nobody pins it. The swap raises the
    /// generation, so that from here on no reader gets at it or trusts what it copied.
    func tryFree(_ index: Int32, _ state: ResidentState) -> Bool {
        let seen = table.word(index).pointee.load(ordering: .relaxed)
        guard ResidentTable.state(seen) == state, ResidentTable.pins(seen) == 0 else {
            return false
        }
        let next = ResidentTable.make(ResidentTable.generation(seen) &+ 1, .empty)
        guard
            table.word(index).pointee.compareExchange(
                expected: seen, desired: next, ordering: .acquiringAndReleasing
            ).exchanged
        else { return false }
        // Pairs with the readers' acquire fence: who sees a byte written later sees the new word.
        atomicMemoryFence(ordering: .releasing)
        releaseMemory(index)
        freeSlots[freeSlotCount] = index
        freeSlotCount += 1
        return true
    }
}
