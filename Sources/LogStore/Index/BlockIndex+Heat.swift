// Heat in the index: the count of four bits that each entry carries in its third word. It changes
// by single stores of that word, so no reader is disturbed; a reader that compares entries leaves
// it out (`isSameBlock`).

import Synchronization

extension BlockIndex {
    /// One more, up to 15; nothing when the key is not there.
    @inline(__always)
    package func warm(_ fingerprint: Fingerprint) {
        guard let slot = locate(fingerprint) else { return }
        let word = IndexLayout.word(layout.address(slot.bucket), field: 3, slot: slot.slot)
        let old = word.pointee.load(ordering: .relaxed)
        if old & UInt64(IndexEntry.heatMask) == UInt64(IndexEntry.heatMask) { return }
        word.pointee.store(old &+ 1, ordering: .relaxed)
    }

    /// Halves the counts of `buckets` buckets from `bucket` on, going round at the end; returns
    /// where to go on.
    package func cool(from bucket: Int, buckets: Int) -> Int {
        var current = bucket < bucketCount ? bucket : 0
        for _ in 0..<min(buckets, bucketCount) {
            let address = layout.address(current)
            var occupied = ~IndexLayout.slots(address, having: 0) & 0xFF
            while occupied != 0 {
                let word = IndexLayout.word(
                    address, field: 3, slot: occupied.trailingZeroBitCount)
                let old = word.pointee.load(ordering: .relaxed)
                let heat = old & UInt64(IndexEntry.heatMask)
                if heat > 0 { word.pointee.store(old &- (heat &- heat / 2), ordering: .relaxed) }
                occupied &= occupied - 1
            }
            current += 1
            if current == bucketCount { current = 0 }
        }
        return current
    }

    /// Marks an entry as one with a damaged shard; false when it is not there. One word changes, at
    /// once, so no reader is disturbed.
    @discardableResult
    package func markDamaged(_ fingerprint: Fingerprint) -> Bool {
        guard let slot = locate(fingerprint) else { return false }
        let word = IndexLayout.word(layout.address(slot.bucket), field: 3, slot: slot.slot)
        let old = word.pointee.load(ordering: .relaxed)
        word.pointee.store(old | UInt64(IndexEntry.damagedFlag), ordering: .relaxed)
        return true
    }
}
