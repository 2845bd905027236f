// UpperTier: the tier above staging, which is the engine's own memory, as far as prefetching has to
// know of it: what is there need not be brought into staging, and is brought when it has left there
// while somebody still wants it.

import LogStore
import Staging

package protocol UpperTier: AnyObject {
    func holds(_ fingerprint: Fingerprint) -> Bool
    /// A block that somebody announced is in staging, and due then.
    func isReady(_ fingerprint: Fingerprint, due: UInt64)
}

extension Prefetcher {
    /// A block that an engine announced, and not yet read: its key, good until the next call, the
    /// request that is due first, and when that is.
    package func announced(
        _ fingerprint: Fingerprint
    ) -> (key: UnsafeRawBufferPointer, namespaceSlot: UInt16, request: UInt64, due: UInt64)? {
        let first = queue.dormants(fingerprint).first
        guard first >= 0 else { return nil }
        let block = queue.blocks[Int(first)]
        guard block.shardCount == 0 else { return nil }
        return (
            queue.key(first), block.namespaceSlot, queue.requests[Int(block.request)].id,
            queue.due(first)
        )
    }

    /// The engine has the block itself now: whoever brought it early did well, and it is not
    /// awaited in staging any more.
    package func handedUp(_ resident: Int32) {
        if unused.isMarked(resident) { used(resident) }
        arena.setAwaited(ResidentSlot(resident), until: 0)
    }

    /// The block has left the tier above.
    package func cameDown(_ fingerprint: Fingerprint) {
        if queue.dormant > 0 { reconsider(fingerprint) }
    }
}
