// Where a block lies, as a simulation that drives a store itself asks for it; callers of an open
// store ask from any thread, and of the shared index.

import LogStore
import Staging

extension StagedStore {
    /// Where a block lies that could be claimed; nil: it is not there. Owner thread.
    package func prefixBlock(
        _ namespaceSlot: UInt16, _ key: UnsafeRawBufferPointer
    ) -> PrefixBlock? {
        let fingerprint = log.fingerprint(namespaceSlot, key)
        let staging = StagingKey(hi: fingerprint.hi, lo: fingerprint.lo)
        let found = arena?.find(staging)
        if let found, found.state.isVisible { return PrefixBlock(bytes: 0, device: -1) }
        guard let entry = log.lookup(fingerprint).entry, !entry.isDamaged else { return nil }
        return PrefixBlock(
            bytes: found?.state == .filling ? 0 : entry.length,
            device: SegmentTable.device(entry.place.segment))
    }
}
