// LeaseView: what layers outside this module need to serve a lease from its completion: where the
// bytes asked for lie, in order.

import BlockIO
import SegmentFormat
import Staging

/// What a completion tells of a lease, to be kept until it is given back. Only valid while the
/// lease is held and the store is open.
package struct LeaseView: @unchecked Sendable {
    // Unchecked: `pieces` points into the owner's piece lists, which stand still while the lease is
    // held and the store is open.
    package let slot: Int32
    private let pieces: UnsafeBufferPointer<Piece>
    private let layout: BlockLayout

    package init(_ completion: StoreCompletion) {
        slot = completion.answer.lease
        pieces = completion.leased
        layout = BlockLayout(
            length: completion.answer.length, shardCount: completion.answer.shardCount,
            aligned: completion.leasedAligned)
    }

    /// The runs that hold what the operation asked for; nil when that does not fit the block.
    package func runs(
        firstShard: Int, shardCount: Int, byteOffset: UInt64, byteCount: UInt64, in store: Store
    ) -> [UnsafeRawBufferPointer]? {
        guard let base = store.leaseBase else { return nil }
        var selection = Selection.whole
        if shardCount > 0 {
            selection = .shards(firstShard..<(firstShard + shardCount))
        } else if byteOffset > 0 || byteCount > 0 {
            let end = byteCount == 0 ? UInt64(layout.length) : byteOffset &+ byteCount
            guard end >= byteOffset else { return nil }
            selection = .bytes(byteOffset..<end)
        }
        let image = ImageView(
            runs: pieces.map { Run(offset: Int($0.offset), count: Int($0.length)) }, base: base,
            layout: layout)
        return image.runs(of: selection)?.map {
            UnsafeRawBufferPointer(start: base + $0.offset, count: $0.count)
        }
    }
}
