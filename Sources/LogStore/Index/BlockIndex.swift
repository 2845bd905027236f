// BlockIndex: from fingerprint to place, for every live block. A bucketised cuckoo table in a
// shared mapping (IndexLayout tells the layout and the rules between writer and readers): two
// buckets of 8 slots a key, 40 bytes a slot, filled to 95 %. Owned and changed by one thread;
// everybody else reads through `reader`. Nothing is allocated after init.

import BlockIO
import Glibc
import Synchronization

package final class BlockIndex {
    package enum InsertResult: Equatable, Sendable {
        case inserted
        case replaced
        /// No slot, and none could be freed by moving entries: the table is as good as full.
        case full
    }

    /// Live entries for which there is room.
    package let capacity: Int
    /// Live entries.
    package internal(set) var count = 0
    /// Entries moved to their other bucket to make room, since init.
    package internal(set) var moves: UInt64 = 0
    package let mapping: SharedMapping
    let layout: IndexLayout
    /// The nodes of the search for a way to move entries.
    let path: UnsafeMutablePointer<PathNode>
    /// Scans in progress, which must not lose entries that are moved behind them.
    var copyScan: ScanTracker
    var sweepScan: ScanTracker

    /// Makes an empty index with room for at least `capacity` entries.
    package init(capacity: Int) throws(IOError) {
        guard capacity > 0, capacity <= 1 << 33 else {
            throw IOError(
                operation: "index", path: "", errno: EINVAL,
                detail: "capacity \(capacity) is not within 1 and 2^33")
        }
        // 95 % of 8 slots are 7.6; a few buckets more keep small tables, where chance is uneven,
        // from filling early.
        let buckets = (capacity * 10 + 75) / 76 + 4
        let bytes = IndexLayout.bytes(buckets: buckets)
        let made = try SharedMapping(name: "hearth-index", length: bytes, huge: bytes >= 16 << 20)
        self.capacity = capacity
        mapping = made
        layout = IndexLayout(
            making: UnsafeRawPointer(made.base), bucketCount: buckets, capacity: capacity)
        path = .allocate(capacity: PathNode.limit)
        path.initialize(
            repeating: PathNode(bucket: 0, parent: 0, slot: 0, depth: 0), count: PathNode.limit)
        copyScan = ScanTracker()
        sweepScan = ScanTracker()
    }

    deinit {
        path.deallocate()
        copyScan.deallocate()
        sweepScan.deallocate()
    }

    package var bucketCount: Int { layout.bucketCount }

    /// All memory of the index: the mapping and the scratch.
    package var memoryBytes: Int {
        mapping.length + PathNode.limit * MemoryLayout<PathNode>.stride
            + 2 * ScanTracker.limit * MemoryLayout<Fingerprint>.stride
    }

    /// For any thread; keeps the mapping alive.
    package var reader: IndexReader { IndexReader(layout: layout, mapping: mapping) }

    /// A word that the store keeps beside the index, visible to readers; `index` below 512.
    package func storeWord(_ index: Int) -> UnsafeMutablePointer<Atomic<UInt64>> {
        layout.storeWord(index)
    }

    // MARK: Lookup

    package func find(_ fingerprint: Fingerprint) -> IndexEntry? {
        guard let slot = locate(fingerprint) else { return nil }
        return IndexLayout.words(layout.address(slot.bucket), slot: slot.slot).entry
    }

    /// What brings entries nearer before they are looked up.
    package var lookAhead: IndexLookAhead { IndexLookAhead(layout: layout) }

    // MARK: Change

    /// Inserts, or overwrites the whole entry. The entry must be valid (`isValid`).
    package func insert(_ fingerprint: Fingerprint, _ entry: IndexEntry) -> InsertResult {
        precondition(entry.isValid, "an index entry's field is out of range")
        let words = IndexWords(entry)
        if let slot = locate(fingerprint) {
            overwrite(slot, words)
            return .replaced
        }
        let (first, second) = layout.buckets(fingerprint.lo)
        let emptyFirst = IndexLayout.slots(layout.address(first), having: 0)
        let emptySecond = IndexLayout.slots(layout.address(second), having: 0)
        let slot: Slot
        if emptyFirst | emptySecond == 0 {
            guard let freed = makeRoom(first, second) else { return .full }
            slot = freed
        } else if emptyFirst.nonzeroBitCount >= emptySecond.nonzeroBitCount {
            slot = Slot(bucket: first, slot: emptyFirst.trailingZeroBitCount)
        } else {
            slot = Slot(bucket: second, slot: emptySecond.trailingZeroBitCount)
        }
        write(slot, fingerprint.storedHi, fingerprint.lo, words)
        setCount(count &+ 1)
        return .inserted
    }

    /// Overwrites the whole entry if the key is there. The entry must be valid.
    package func update(_ fingerprint: Fingerprint, _ entry: IndexEntry) -> Bool {
        precondition(entry.isValid, "an index entry's field is out of range")
        guard let slot = locate(fingerprint) else { return false }
        overwrite(slot, IndexWords(entry))
        return true
    }

    @discardableResult
    package func remove(_ fingerprint: Fingerprint) -> IndexEntry? {
        guard let slot = locate(fingerprint) else { return nil }
        let entry = IndexLayout.words(layout.address(slot.bucket), slot: slot.slot).entry
        clear(slot)
        setCount(count &- 1)
        return entry
    }

    package func removeAll() {
        cancelScans()
        for bucket in 0..<layout.bucketCount {
            let address = layout.address(bucket)
            guard IndexLayout.slots(address, having: 0) != 0xFF else { continue }
            let sequence = beginChange(bucket)
            for slot in 0..<IndexLayout.slots {
                IndexLayout.word(address, field: 0, slot: slot).pointee.store(0, ordering: .relaxed)
            }
            endChange(bucket, sequence)
        }
        setCount(0)
    }

    // MARK: Slots

    struct Slot {
        var bucket: Int
        var slot: Int
    }

    /// The writer's own lookup: nobody changes anything meanwhile.
    @inline(__always)
    func locate(_ fingerprint: Fingerprint) -> Slot? {
        let (first, second) = layout.buckets(fingerprint.lo)
        let hi = fingerprint.storedHi
        return locate(first, hi, fingerprint.lo) ?? locate(second, hi, fingerprint.lo)
    }

    @inline(__always)
    private func locate(_ bucket: Int, _ hi: UInt64, _ lo: UInt64) -> Slot? {
        let address = layout.address(bucket)
        var matches = IndexLayout.slots(address, having: hi)
        while matches != 0 {
            let slot = matches.trailingZeroBitCount
            if IndexLayout.load(address, field: 1, slot: slot) == lo {
                return Slot(bucket: bucket, slot: slot)
            }
            matches &= matches &- 1
        }
        return nil
    }

    /// Opens a change of a bucket: readers that look at it from here on will look again.
    @inline(__always)
    func beginChange(_ bucket: Int) -> UInt32 {
        let lock = layout.lock(bucket)
        let sequence = lock.pointee.load(ordering: .relaxed)
        lock.pointee.store(sequence &+ 1, ordering: .relaxed)
        // The odd sequence must be seen before any word of the change.
        atomicMemoryFence(ordering: .releasing)
        return sequence
    }

    @inline(__always)
    func endChange(_ bucket: Int, _ sequence: UInt32) {
        layout.lock(bucket).pointee.store(sequence &+ 2, ordering: .releasing)
    }

    @inline(__always)
    func write(_ slot: Slot, _ hi: UInt64, _ lo: UInt64, _ words: IndexWords) {
        let address = layout.address(slot.bucket)
        let sequence = beginChange(slot.bucket)
        store(address, slot.slot, words)
        IndexLayout.word(address, field: 1, slot: slot.slot).pointee.store(lo, ordering: .relaxed)
        IndexLayout.word(address, field: 0, slot: slot.slot).pointee.store(hi, ordering: .relaxed)
        endChange(slot.bucket, sequence)
    }

    @inline(__always)
    private func overwrite(_ slot: Slot, _ words: IndexWords) {
        let sequence = beginChange(slot.bucket)
        store(layout.address(slot.bucket), slot.slot, words)
        endChange(slot.bucket, sequence)
    }

    @inline(__always)
    private func store(_ address: UnsafeRawPointer, _ slot: Int, _ words: IndexWords) {
        @inline(__always) func word(_ field: Int) -> IndexLayout.Word {
            IndexLayout.word(address, field: field, slot: slot)
        }
        word(2).pointee.store(words.word2, ordering: .relaxed)
        word(3).pointee.store(words.word3, ordering: .relaxed)
        word(4).pointee.store(words.word4, ordering: .relaxed)
    }

    @inline(__always)
    func clear(_ slot: Slot) {
        let sequence = beginChange(slot.bucket)
        IndexLayout.word(layout.address(slot.bucket), field: 0, slot: slot.slot).pointee
            .store(0, ordering: .relaxed)
        endChange(slot.bucket, sequence)
    }

    func setCount(_ value: Int) {
        count = value
        IndexLayout.headerWord(layout.base, IndexLayout.HeaderWord.count).pointee
            .store(UInt64(truncatingIfNeeded: value), ordering: .relaxed)
    }
}
