// IndexReader: lookups in a BlockIndex from any thread, or from another process that mapped the
// same memory; without locks, system calls or allocation while the writer makes progress.
//
// A lookup notes the sequences of both buckets, looks, and counts only if they did not move
// meanwhile; so an entry is never seen torn, and a key that is there is never missed while it is
// moved between its buckets. A reader that meets a writer stopped in the middle of a change (put
// off its core, or dead) first spins, then yields, then sleeps, about a quarter of a second in
// all, and then says `unknown`, which the short forms turn into a miss.

import BlockIO
import Glibc
import Synchronization

/// Sendable: what it holds never changes; the shared memory behind it is read through atomics only;
/// the mapping is kept alive by `mapping` or, for `init(base:length:)`, by the caller's promise.
/// SharedMapping itself is immutable but for its deinit, which any thread may run.
package struct IndexReader: @unchecked Sendable {
    package enum Answer: Equatable, Sendable {
        case found(IndexEntry)
        case absent
        /// The writer stands still in the middle of a change.
        case unknown
    }

    let layout: IndexLayout
    private let mapping: SharedMapping?

    /// A reader of a mapping that another process made (read-only is enough); nil when it is not a
    /// whole index. The mapping must outlive the reader.
    package init?(base: UnsafeRawPointer, length: Int) {
        guard let layout = IndexLayout(base: base, length: length) else { return nil }
        self.layout = layout
        mapping = nil
    }

    init(layout: IndexLayout, mapping: SharedMapping) {
        self.layout = layout
        self.mapping = mapping
    }

    // MARK: Lookups

    package func lookup(_ fingerprint: Fingerprint) -> Answer {
        var patience = Patience()
        repeat {
            let candidate = locate(fingerprint)
            switch candidate.kind {
            case .absent: return .absent
            case .moved: continue
            case .found:
                let words = IndexLayout.words(candidate.bucket, slot: candidate.slot)
                if candidate.isStill { return .found(words.entry) }
            }
        } while patience.again()
        return .unknown
    }

    package func find(_ fingerprint: Fingerprint) -> IndexEntry? {
        if case .found(let entry) = lookup(fingerprint) { return entry }
        return nil
    }

    /// Whether the key is there, not expired at `now` (unix seconds), and no shard of it was found
    /// damaged: who is told no puts it again, and that heals it.
    package func contains(_ fingerprint: Fingerprint, now: UInt32) -> Bool {
        var patience = Patience()
        return contains(fingerprint, now: now, &patience)
    }

    /// The same for a batch; `into` has room for as many answers. A few times faster than one by
    /// one on a large index, because the memory accesses of different keys overlap. On a writer
    /// that stands still the whole batch waits no longer than one lookup.
    package func contains(
        _ fingerprints: UnsafeBufferPointer<Fingerprint>, now: UInt32,
        into: UnsafeMutablePointer<Bool>
    ) {
        guard let keys = fingerprints.baseAddress else { return }
        var patience = Patience()
        let group = 32
        // 32 candidates of 32 bytes: on the stack.
        withUnsafeTemporaryAllocation(of: Candidate.self, capacity: group) { candidates in
            guard let held = candidates.baseAddress else { return }
            var start = 0
            while start < fingerprints.count {
                let count = min(group, fingerprints.count &- start)
                containsGroup(keys + start, count, now, into + start, held, &patience)
                start &+= count
            }
        }
    }

    // MARK: The store's words

    package static let storeWordCount = IndexLayout.storeWordCount

    /// A word that the store keeps beside the index. Only the owner process writes it.
    package func storeWord(_ index: Int) -> UnsafeMutablePointer<Atomic<UInt64>> {
        layout.storeWord(index)
    }

    package var bucketCount: Int { layout.bucketCount }

    /// Live entries, as of some recent moment.
    package var count: Int {
        let word = IndexLayout.headerWord(layout.base, IndexLayout.HeaderWord.count)
        return Int(truncatingIfNeeded: word.pointee.load(ordering: .relaxed))
    }

    // MARK: Inside

    /// A slot that matched, not yet to be believed: only what is read from it before `isStill`
    /// answers true counts.
    private struct Candidate {
        enum Kind: UInt8 { case found, absent, moved }
        var bucket: UnsafeRawPointer
        var lock: IndexLayout.Lock
        var sequence: UInt32
        var slot8: UInt8
        var kind: Kind

        @inline(__always)
        var slot: Int { Int(slot8) }

        @inline(__always)
        var isStill: Bool {
            // The loads before must not sink below the check.
            atomicMemoryFence(ordering: .acquiring)
            return lock.pointee.load(ordering: .relaxed) == sequence
        }
    }

    /// The slot whose whole fingerprint matches; or that there is none; or that a change got in
    /// between. With `whole` false only the hi half was compared (line 0 alone was read).
    @inline(__always)
    private func locate(_ fingerprint: Fingerprint, whole: Bool = true) -> Candidate {
        let (first, second) = layout.buckets(fingerprint.lo)
        let hi = fingerprint.storedHi
        let lockA = layout.lock(first)
        let lockB = layout.lock(second)
        let bucketA = layout.address(first)
        let bucketB = layout.address(second)
        let sequenceA = lockA.pointee.load(ordering: .acquiring)
        let sequenceB = lockB.pointee.load(ordering: .acquiring)
        var candidate = Candidate(
            bucket: bucketA, lock: lockA, sequence: sequenceA, slot8: 0, kind: .moved)
        if (sequenceA | sequenceB) & 1 != 0 { return candidate }
        if whole {
            // One after the other: the core runs ahead on its guess that the first one has it.
            if let slot = match(bucketA, hi, fingerprint.lo) {
                candidate.slot8 = slot
                candidate.kind = .found
                return candidate
            }
            if let slot = match(bucketB, hi, fingerprint.lo) {
                return Candidate(
                    bucket: bucketB, lock: lockB, sequence: sequenceB, slot8: slot, kind: .found)
            }
        } else {
            // Both are near: which of them has it, a coin toss, is better not a branch.
            let inA = IndexLayout.slots(bucketA, having: hi)
            let matches = inA | IndexLayout.slots(bucketB, having: hi) << 8
            if matches != 0 {
                return Candidate(
                    bucket: inA != 0 ? bucketA : bucketB, lock: inA != 0 ? lockA : lockB,
                    sequence: inA != 0 ? sequenceA : sequenceB,
                    slot8: UInt8(truncatingIfNeeded: matches.trailingZeroBitCount & 7),
                    kind: .found)
            }
        }
        // Absent only if neither bucket moved since before the first look.
        atomicMemoryFence(ordering: .acquiring)
        if lockA.pointee.load(ordering: .relaxed) == sequenceA,
            lockB.pointee.load(ordering: .relaxed) == sequenceB
        {
            candidate.kind = .absent
        }
        return candidate
    }

    @inline(__always)
    private func match(_ bucket: UnsafeRawPointer, _ hi: UInt64, _ lo: UInt64) -> UInt8? {
        var matches = IndexLayout.slots(bucket, having: hi)
        while matches != 0 {
            let slot = matches.trailingZeroBitCount
            if IndexLayout.load(bucket, field: 1, slot: slot) == lo {
                return UInt8(truncatingIfNeeded: slot)
            }
            matches &= matches &- 1
        }
        return nil
    }

    private func contains(
        _ fingerprint: Fingerprint, now: UInt32, _ patience: inout Patience
    ) -> Bool {
        repeat {
            let candidate = locate(fingerprint)
            switch candidate.kind {
            case .absent: return false
            case .moved: continue
            case .found:
                let word3 = IndexLayout.load(candidate.bucket, field: 3, slot: candidate.slot)
                guard candidate.isStill else { continue }
                return IndexWords.isPresent(word3, now: now)
            }
        } while patience.again()
        return false
    }

    /// Four passes over a group, so that cache misses overlap: touch the first lines of both
    /// buckets; match there; touch what a match needs next; read it and answer.
    @inline(__always)
    private func containsGroup(
        _ keys: UnsafePointer<Fingerprint>, _ count: Int, _ now: UInt32,
        _ into: UnsafeMutablePointer<Bool>, _ held: UnsafeMutablePointer<Candidate>,
        _ patience: inout Patience
    ) {
        for index in 0..<count {
            let (first, second) = layout.buckets(keys[index].lo)
            layout.prefetch(first)
            layout.prefetch(second)
        }
        for index in 0..<count {
            held.advanced(by: index).initialize(to: locate(keys[index], whole: false))
        }
        // A pass of its own, and a short one: loads that wait hold up all that comes after them in
        // the core's window, so the window should hold little else.
        for index in 0..<count {
            let candidate = held[index]
            let offset = candidate.kind == .found ? 64 &+ candidate.slot &* 32 : 0
            _ = (candidate.bucket + offset).assumingMemoryBound(to: Atomic<UInt64>.self)
                .pointee.load(ordering: .relaxed)
        }
        for index in 0..<count {
            let candidate = held[index]
            if candidate.kind == .found {
                let lo = IndexLayout.load(candidate.bucket, field: 1, slot: candidate.slot)
                let word3 = IndexLayout.load(candidate.bucket, field: 3, slot: candidate.slot)
                if candidate.isStill, lo == keys[index].lo {
                    into[index] = IndexWords.isPresent(word3, now: now)
                    continue
                }
            } else if candidate.kind == .absent {
                into[index] = false
                continue
            }
            // A change got in between, or two keys share a hi.
            into[index] = contains(keys[index], now: now, &patience)
        }
    }
}

/// How long a reader waits for a writer in the middle of a change.
private struct Patience {
    private var tries = 0
    private static let spins = 2_000
    private static let yields = 4_000
    private static let sleeps = 6_000

    /// Waits a little; false when it has waited long enough.
    @inline(never)
    mutating func again() -> Bool {
        tries &+= 1
        if tries < Self.spins { return true }
        if tries < Self.yields {
            sched_yield()
            return true
        }
        if tries < Self.sleeps {
            // A throttled or lower-priority writer gets its turn: a quarter of a second in all.
            var pause = timespec(tv_sec: 0, tv_nsec: 100_000)
            nanosleep(&pause, nil)
            return true
        }
        return false
    }
}
