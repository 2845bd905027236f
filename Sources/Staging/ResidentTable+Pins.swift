// Pins and runs: what both the owner and the readers do with a resident in the shared table. Leases
// count each slab once, however many hold it: the first lease of a resident adds its slabs, the
// last one subtracts them. Two that come together may both count for a moment, so that close to the
// limit one is refused that would have fitted; the limit itself is never passed.

import Synchronization

enum PinOutcome {
    case pinned
    /// The slot changed its life or its state: look the key up again.
    case lost
    /// Over the lease limit, or too many hold it.
    case refused
}

extension ResidentTable {
    /// Pins the slot if it is still in the generation of `word`, and, for readers, visible.
    func tryPin(_ slot: Int32, _ word: UInt64, lease: Bool, owner: Bool = false) -> PinOutcome {
        var seen = word
        for _ in 0..<1024 {
            let state = Self.state(seen)
            guard Self.generation(seen) == Self.generation(word),
                state.isVisible || owner && state != .empty
            else { return .lost }
            guard Self.pins(seen) < Self.maxCount else { return .refused }
            var wanted = seen + 1
            var counted = 0
            if lease {
                if Self.leases(seen) == 0 {
                    counted = slabs(plainInfo(slot).storedBytes)
                    guard addLeased(counted) else { return .refused }
                }
                wanted += Self.leaseUnit
            }
            let (exchanged, original) = self.word(slot).pointee.compareExchange(
                expected: seen, desired: wanted, ordering: .acquiringAndReleasing)
            if exchanged { return .pinned }
            if counted > 0 { leased.pointee.wrappingSubtract(UInt64(counted), ordering: .relaxed) }
            seen = original
        }
        return .refused
    }

    /// Gives a pin back; returns the word after it.
    @discardableResult
    func unpin(_ slot: Int32, _ generation: UInt32, lease: Bool) -> UInt64 {
        // Read while still pinned: afterwards the slot may be anybody's.
        let held = lease ? slabs(plainInfo(slot).storedBytes) : 0
        let unit = lease ? 1 + Self.leaseUnit : 1
        let (old, new) = word(slot).pointee.wrappingSubtract(
            unit, ordering: .acquiringAndReleasing)
        precondition(
            Self.pins(old) > 0 && Self.generation(old) == generation
                && (!lease || Self.leases(old) > 0), "a pin was given back twice")
        if lease && Self.leases(new) == 0 {
            leased.pointee.wrappingSubtract(UInt64(held), ordering: .relaxed)
        }
        return new
    }

    private func addLeased(_ count: Int) -> Bool {
        let now = leased.pointee.wrappingAdd(UInt64(count), ordering: .relaxed).newValue
        if now <= UInt64(leaseLimit) { return true }
        leased.pointee.wrappingSubtract(UInt64(count), ordering: .relaxed)
        return false
    }

    /// Adjacent slabs of a chain as runs of bytes in the arena. Bounded and within the arena even
    /// when the chain changes underneath, as it may for a reader without a pin.
    @inline(__always)
    func forEachRun(first: Int32, bytes: Int, _ body: (_ offset: Int, _ length: Int) -> Void) {
        var slab = first
        var left = bytes
        while left > 0, slab >= 0, Int(slab) < slabCount {
            let start = Int(slab)
            var run = min(left, slabBytes)
            var following = next(slab)
            while run < left, Int(following) == Int(slab) + 1, Int(following) < slabCount {
                slab = following
                run += min(left - run, slabBytes)
                following = next(slab)
            }
            body(start * slabBytes, run)
            left -= run
            slab = following
        }
    }
}

extension ResidentReader {
    /// Copies the part of a run that falls into the range; `done` bytes of the image precede it.
    @inline(__always)
    func copyPart(
        _ run: UnsafeRawBufferPointer, done: Int, _ range: Range<Int>,
        _ destination: UnsafeMutableRawPointer
    ) {
        let from = max(done, range.lowerBound)
        let to = min(done + run.count, range.upperBound)
        guard from < to, let source = run.baseAddress else { return }
        (destination + (from - range.lowerBound)).copyMemory(
            from: source + (from - done), byteCount: to - from)
    }
}
