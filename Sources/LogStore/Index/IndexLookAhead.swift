// IndexLookAhead: brings entries of keys that are about to be looked up into the cache. A lookup
// alone is two or three misses of cache and page table one after the other; a batch of keys goes
// through `prefetch`, all of them, then `prefetchNext`, all of them, and then through its lookups,
// and the misses overlap. Valid as long as the index.

package struct IndexLookAhead {
    let layout: IndexLayout

    /// Starts bringing what the key's lookup reads first.
    @inline(__always)
    package func prefetch(_ fingerprint: Fingerprint) {
        layout.prefetch(layout.buckets(fingerprint.lo).0)
    }

    /// Starts bringing the entry, or the second bucket if it is not in the first.
    @inline(__always)
    package func prefetchNext(_ fingerprint: Fingerprint) {
        let (first, second) = layout.buckets(fingerprint.lo)
        if !layout.prefetchSlot(first, fingerprint.storedHi) { layout.prefetch(second) }
    }
}
