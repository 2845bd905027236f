// Scans of the index in steps, with changes in between: `copyEntries` for the fuzzy checkpoint and
// `sweep` for removal by a rule. Between two steps an entry may be moved from a bucket that the
// scan has yet to reach into one that it has passed; a scan notes those keys and takes them first
// in its next step, so every entry that is there from its first to its last step is seen (perhaps
// twice). Of each kind one scan is tracked at a time: it starts at bucket 0 and goes on where it
// stopped.

/// One scan's place, and the keys that were moved behind it.
struct ScanTracker {
    /// The next bucket; -1 when no scan is going on.
    private(set) var cursor = -1
    private(set) var movedCount = 0
    private let moved: UnsafeMutablePointer<Fingerprint>

    static let limit = 4096
    /// The most moves that one insert makes.
    static let reserve = Int(PathNode.maxDepth) + 2

    init() {
        moved = .allocate(capacity: Self.limit)
        moved.initialize(repeating: Fingerprint(hi: 0, lo: 0), count: Self.limit)
    }

    func deallocate() { moved.deallocate() }

    mutating func start() {
        cursor = 0
        movedCount = 0
    }

    mutating func stop() {
        cursor = -1
        movedCount = 0
    }

    mutating func advance(to bucket: Int) { cursor = bucket }

    /// Takes the last noted key.
    mutating func takeMoved() -> Fingerprint? {
        guard movedCount > 0 else { return nil }
        movedCount -= 1
        return moved[movedCount]
    }

    @inline(__always)
    private func crosses(_ from: Int, _ to: Int) -> Bool { from >= cursor && to < cursor }

    /// With the notes full, moves behind the scan wait for its next step.
    @inline(__always)
    func mayMove(from: Int, to: Int) -> Bool {
        !crosses(from, to) || movedCount < Self.limit - Self.reserve
    }

    @inline(__always)
    mutating func noteMove(from: Int, to: Int, _ fingerprint: Fingerprint) {
        guard crosses(from, to) else { return }
        moved[movedCount] = fingerprint
        movedCount += 1
    }
}

extension BlockIndex {
    /// Bytes of a copied record: fingerprint hi and lo, word2, word3, word4, little-endian.
    package static let recordBytes = 40

    /// Gives up a sweep that will not be continued.
    package func cancelSweep() { sweepScan.stop() }

    /// Gives up scans that will not be continued.
    /// (A scan that is neither continued nor given up ends in `full` before the table is.)
    package func cancelScans() {
        copyScan.stop()
        sweepScan.stop()
    }

    /// Keys noted for the next step of the copy. With `notesLimit` of them noted, entries are no
    /// longer moved behind the scan, and an insert may be told `full` early: step before that.
    package var copyNotes: Int { copyScan.movedCount }
    /// The same of the sweep.
    package var sweepNotes: Int { sweepScan.movedCount }
    package static let notesLimit = ScanTracker.limit - ScanTracker.reserve

    // MARK: Sweep

    /// Removes the entries that `shouldRemove` picks from up to `buckets` buckets at `from`, and
    /// from those moved behind the sweep since its last step; returns the bucket to go on with,
    /// which is `bucketCount` when the sweep is through. `shouldRemove` must not change the index.
    package func sweep(
        from bucket: Int, buckets: Int, _ shouldRemove: (Fingerprint, IndexEntry) -> Bool
    ) -> Int {
        precondition(bucket >= 0 && buckets >= 0, "a sweep goes forward from a bucket")
        if bucket == 0 { sweepScan.start() }
        let tracked = bucket == sweepScan.cursor
        while tracked, let fingerprint = sweepScan.takeMoved() {
            if let slot = locate(fingerprint) { sweep(slot, shouldRemove) }
        }
        let end = bucket + min(buckets, max(0, bucketCount - bucket))
        for current in bucket..<end {
            var occupied = ~IndexLayout.slots(layout.address(current), having: 0) & 0xFF
            while occupied != 0 {
                sweep(Slot(bucket: current, slot: occupied.trailingZeroBitCount), shouldRemove)
                occupied &= occupied - 1
            }
        }
        if tracked {
            if end >= bucketCount { sweepScan.stop() } else { sweepScan.advance(to: end) }
        }
        return min(end, bucketCount)
    }

    @inline(__always)
    private func sweep(_ slot: Slot, _ shouldRemove: (Fingerprint, IndexEntry) -> Bool) {
        let address = layout.address(slot.bucket)
        let fingerprint = Fingerprint(
            hi: IndexLayout.load(address, field: 0, slot: slot.slot),
            lo: IndexLayout.load(address, field: 1, slot: slot.slot))
        let entry = IndexLayout.words(address, slot: slot.slot).entry
        if shouldRemove(fingerprint, entry) {
            clear(slot)
            setCount(count &- 1)
        }
    }

    // MARK: Copy

    /// Copies records of live entries for a checkpoint: first those moved behind the scan since the
    /// last step, then whole buckets from `bucket` on, which it moves forward, to `bucketCount`
    /// when the scan is through. `into` has room for at least a bucket (320 bytes). Returns the
    /// records written; 0 does not mean the end.
    package func copyEntries(
        from bucket: inout Int, into: UnsafeMutableRawBufferPointer
    ) -> Int {
        precondition(into.count >= Self.recordBytes * IndexLayout.slots, "no room for a bucket")
        precondition(bucket >= 0, "a scan starts at a bucket")
        guard let base = into.baseAddress, bucket < bucketCount else { return 0 }
        if bucket == 0 { copyScan.start() }
        let tracked = bucket == copyScan.cursor
        let room = into.count / Self.recordBytes
        var written = 0
        while tracked, written < room, let fingerprint = copyScan.takeMoved() {
            if let slot = locate(fingerprint) {
                copy(slot, base + written * Self.recordBytes)
                written += 1
            }
        }
        while bucket < bucketCount, room - written >= IndexLayout.slots {
            var occupied = ~IndexLayout.slots(layout.address(bucket), having: 0) & 0xFF
            while occupied != 0 {
                let slot = Slot(bucket: bucket, slot: occupied.trailingZeroBitCount)
                copy(slot, base + written * Self.recordBytes)
                written += 1
                occupied &= occupied - 1
            }
            bucket += 1
        }
        if tracked {
            if bucket >= bucketCount { copyScan.stop() } else { copyScan.advance(to: bucket) }
        }
        return written
    }

    @inline(__always)
    private func copy(_ slot: Slot, _ record: UnsafeMutableRawPointer) {
        let address = layout.address(slot.bucket)
        for field in 0..<5 {
            let word = IndexLayout.load(address, field: field, slot: slot.slot)
            record.storeBytes(of: word.littleEndian, toByteOffset: field * 8, as: UInt64.self)
        }
    }

    /// Reads a record of 40 bytes; nil when it cannot be one. The bytes may be anything.
    package static func decode(record: UnsafeRawPointer) -> (Fingerprint, IndexEntry)? {
        func word(_ index: Int) -> UInt64 {
            UInt64(littleEndian: record.loadUnaligned(fromByteOffset: index * 8, as: UInt64.self))
        }
        let hi = word(0)
        let entry = IndexWords(word(2), word(3), word(4)).entry
        guard hi != 0, entry.isValid else { return nil }
        return (Fingerprint(hi: hi, lo: word(1)), entry)
    }
}
