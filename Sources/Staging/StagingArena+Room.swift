// Room: finding slabs for a reservation, evicting for it, and the lists of pieces. A reservation
// that cannot succeed evicts nothing: the victims are counted before the first one goes.

import BlockIO
import Synchronization

extension StagingArena {
    /// Takes a slot and slabs for the key's stored image and leaves it filling. A key that is
    /// visible gets a second slot, which replaces the first when it is published. A block that is
    /// brought early, for `due`, takes the place of nothing that is awaited before.
    package func reserve(
        _ key: StagingKey, info: ResidentInfo, earlyFor due: UInt64? = nil
    ) -> ReserveResult {
        precondition(info.storedBytes > 0, "a stored image has bytes")
        let need = table.slabs(info.storedBytes)
        guard need <= slabCount else { return .tooLarge }
        if let (_, present) = table.lookup(key) {
            if state(ResidentSlot(present)) == .filling { return .filling(ResidentSlot(present)) }
            let other = slots[Int(present)].replacement
            if other >= 0 { return .filling(ResidentSlot(other)) }
        }
        reservesUntil = due
        defer { reservesUntil = nil }
        policy.expects(key)
        guard makeRoom(need) else {
            counts.refusedFull += 1
            return .full
        }
        freeSlotCount -= 1
        let index = freeSlots[freeSlotCount]
        let cell = table.word(index)
        let generation = ResidentTable.generation(cell.pointee.load(ordering: .relaxed))
        cell.pointee.store(ResidentTable.make(generation, .filling), ordering: .releasing)
        prefetched[Int(index)] = due != nil
        awaited[Int(index)] = 0
        table.setKey(index, key)
        table.setInfo(index, info)
        takeMemory(index, need, Int(info.storedBytes))
        // Looked up after the eviction, which may have taken the old version.
        if let (_, present) = table.lookup(key) {
            slots[Int(present)].replacement = index
            slots[Int(index)].replaced = present
        } else {
            table.insert(key, index)
        }
        counts.reservations += 1
        counts.filling += 1
        return .slot(ResidentSlot(index))
    }

    // MARK: Eviction

    @inline(__always)
    private func hasRoom(_ need: Int) -> Bool { slabs.freeCount >= need && freeSlotCount > 0 }

    /// Awaited residents that are passed over, and then compared, in one walk.
    private static let longestSparing = 64
    /// Walks for the resident that is awaited last.
    private static let longestChoosing = 16

    private func makeRoom(_ need: Int) -> Bool {
        if hasRoom(need) { return true }
        if deferredCount > 0 {
            collect()
            if hasRoom(need) { return true }
        }
        guard slabs.freeCount + cleanSlabs >= need, freeSlotCount + cleanCount > 0,
            couldMakeRoom(need)
        else { return false }
        var spared = 0
        var candidate = policy.victim(after: nil)
        while let victim = candidate {
            candidate = policy.victim(after: victim)
            if awaited[Int(victim)] > 0, awaited[Int(victim)] <= sparesUntil {
                spared += 1
                if spared > Self.longestSparing { break }
                continue
            }
            if evict(victim), hasRoom(need) { return true }
        }
        if spared == 0 { return false }
        for _ in 0..<Self.longestChoosing {
            guard let victim = neededLast(), evict(victim) else { break }
            if hasRoom(need) { return true }
        }
        if reservesUntil != nil { return false }
        // Room for somebody who is there counts more than what is awaited.
        candidate = policy.victim(after: nil)
        while let victim = candidate {
            candidate = policy.victim(after: victim)
            if evict(victim), hasRoom(need) { return true }
        }
        // Readers pinned what was counted on: the caller throttles, as for any full arena.
        return false
    }

    @inline(__always)
    private func isEvictable(_ slot: Int32) -> Bool {
        let word = table.word(slot).pointee.load(ordering: .relaxed)
        return ResidentTable.state(word) == .clean && ResidentTable.pins(word) == 0
    }

    /// Whether a block brought early may take the resident's place: only of what is needed later
    /// than itself, so that two of them never take turns.
    @inline(__always)
    private func yields(_ slot: Int32) -> Bool {
        guard let due = reservesUntil, awaited[Int(slot)] > 0 else { return true }
        return awaited[Int(slot)] > due
    }

    /// Of the coldest residents the one that is awaited last, those that nobody awaits first.
    private func neededLast() -> Int32? {
        var (best, looks): (Int32, Int) = (-1, 0)
        var candidate = policy.victim(after: nil)
        while let slot = candidate, looks < Self.longestSparing {
            looks += 1
            if isEvictable(slot), yields(slot) {
                if awaited[Int(slot)] == 0 { return slot }
                if best < 0 || awaited[Int(slot)] > awaited[Int(best)] { best = slot }
            }
            candidate = policy.victim(after: slot)
        }
        return best < 0 ? nil : best
    }

    /// Whether the clean residents that nobody pins now, coldest first, would be enough. For a
    /// block that is brought early not so many are looked at.
    private func couldMakeRoom(_ need: Int) -> Bool {
        var gained = slabs.freeCount
        var gainedSlots = freeSlotCount
        var left = reservesUntil == nil ? Int.max : Self.longestSparing
        var candidate = policy.victim(after: nil)
        while let slot = candidate, left > 0 {
            left -= 1
            if isEvictable(slot), yields(slot) {
                gained += table.slabs(table.plainInfo(slot).storedBytes)
                gainedSlots += 1
                if gained >= need && gainedSlots > 0 { return true }
            }
            candidate = policy.victim(after: slot)
        }
        return false
    }

    /// Evicts the resident if it is clean and nobody pins it.
    private func evict(_ index: Int32) -> Bool {
        let bytes = UInt64(table.plainInfo(index).storedBytes)
        guard tryFree(index, .clean) else { return false }
        // The key stays readable in the slot until it is reserved again, so the bucket is found.
        unlink(index)
        leave(index, .clean, reservesUntil == nil ? .evicted : .evictedForPrefetch)
        counts.evictions += 1
        counts.evictedBytes += bytes
        return true
    }

    // MARK: Slabs and pieces

    /// Takes `need` slabs, which are free, chains them and lists them as pieces.
    private func takeMemory(_ index: Int32, _ need: Int, _ storedBytes: Int) {
        var runs = 0
        var taken = 0
        var last: Int32 = -1
        while taken < need, let run = slabs.take(upTo: need - taken, hint: hint) {
            if last < 0 {
                table.setFirstSlab(index, Int32(run.start))
            } else {
                table.setNext(last, Int32(run.start))
            }
            for slab in run.start..<(run.start + run.length) {
                table.setNext(Int32(slab), Int32(slab + 1))
            }
            let bytes = min(run.length * slabBytes, storedBytes - taken * slabBytes)
            let offset = UInt64(run.start * slabBytes)
            if runs > 0, scratch[runs - 1].offset + scratch[runs - 1].length == offset {
                scratch[runs - 1].length += UInt64(bytes)
            } else {
                (scratch + runs).initialize(
                    to: Piece(region: region, offset: offset, length: UInt64(bytes)))
                runs += 1
            }
            last = Int32(run.start + run.length - 1)
            taken += run.length
            hint = Int(last) + 1
        }
        precondition(taken == need, "free slabs were miscounted")
        table.setNext(last, -1)
        if runs > 1 { counts.scattered += 1 }
        keepPieces(index, runs)
    }

    private func keepPieces(_ index: Int32, _ runs: Int) {
        let entry = slots + Int(index)
        if runs <= Self.inlinePieces {
            entry.pointee.pieces = inline + Int(index) * Self.inlinePieces
            entry.pointee.pieceSource = .inline
        } else if let start = piecePool.takeExactly(runs) {
            entry.pointee.pieces = pool + start
            entry.pointee.pieceSource = .pool
        } else {
            entry.pointee.pieces = .allocate(capacity: runs)
            entry.pointee.pieceSource = .heap
            counts.pieceListsFromHeap += 1
        }
        entry.pointee.pieces.initialize(from: scratch, count: runs)
        entry.pointee.pieceCount = Int32(runs)
    }

    /// The stored bytes of a filling resident changed within its last slab.
    func trimPieces(_ slot: ResidentSlot, to storedBytes: UInt32) {
        let entry = slots + Int(slot.index)
        let last = Int(entry.pointee.pieceCount) - 1
        var before: UInt64 = 0
        for at in 0..<last { before += entry.pointee.pieces[at].length }
        entry.pointee.pieces[last].length = UInt64(storedBytes) - before
    }

    func releaseMemory(_ index: Int32) {
        let entry = slots + Int(index)
        let runs = Int(entry.pointee.pieceCount)
        for at in 0..<runs {
            let piece = entry.pointee.pieces[at]
            let count = (Int(piece.length) + slabBytes - 1) / slabBytes
            slabs.give(start: Int(piece.offset) / slabBytes, length: count)
        }
        hint = Int(entry.pointee.pieces[0].offset) / slabBytes
        switch entry.pointee.pieceSource {
        case .inline: break
        case .pool: piecePool.give(start: entry.pointee.pieces - pool, length: runs)
        case .heap: entry.pointee.pieces.deallocate()
        }
        entry.pointee.pieceSource = .inline
        entry.pointee.pieceCount = 0
    }

    // MARK: Gauges

    package var residentCount: Int { counts.residents }
    package var dirtyBytes: Int { counts.dirtyBytes }
    package var cleanBytes: Int { counts.cleanBytes }
    package var freeSlabs: Int { slabs.freeCount }
    package var evictions: UInt64 { counts.evictions }
    package var evictedBytes: UInt64 { counts.evictedBytes }
    /// Bytes of all slabs.
    package var bytes: Int { slabCount * slabBytes }
    /// Slabs held by leases of this and other threads; each slab counts once.
    package var leasedSlabs: Int { Int(table.leased.pointee.load(ordering: .relaxed)) }
    package var leaseLimitSlabs: Int { table.leaseLimit }

    /// Slabs of residents with a pin of any kind: looks at every slot.
    package var pinnedSlabs: Int {
        var sum = 0
        for index in 0..<Int32(residentCapacity) {
            let word = table.word(index).pointee.load(ordering: .relaxed)
            if ResidentTable.pins(word) > 0 {
                sum += table.slabs(table.plainInfo(index).storedBytes)
            }
        }
        return sum
    }

    package var statistics: StagingStatistics {
        var result = counts
        result.slabs = slabCount
        result.freeSlabs = slabs.freeCount
        result.leasedSlabs = leasedSlabs
        result.deferred = deferredCount
        return result
    }
}
