// The calls about the engine's own memory: the function by which announced blocks are copied there,
// and the ends of its copies.

import CHearth
import Hearth

/// How C declares the function that takes a block up.
public typealias PromoteFunction =
    @convention(c) (UInt, UnsafePointer<hearth_promotion>?) -> Int32

/// `hearth_promotions` of hearth.h.
@c(hearth_promotions)
public func hearthPromotions(
    _ space: UInt64, _ promote: PromoteFunction?, _ context: UInt
) -> Int32 {
    status { () throws(Failure) in
        let found = try OpenNamespace.find(space)
        let layout: UInt32 = found.space.layout == .aligned ? 1 : 0
        // The header says that it may be called by the store's thread.
        let function = promote.map { promote in
            { @Sendable (block: PromotedBlock) -> PromotionStart in
                let answer = call(promote, context, block, layout)
                switch Int(answer) {
                case HEARTH_PROMOTED: return .done
                case HEARTH_PROMOTING: return .underWay
                case HEARTH_PROMOTE_REFUSED: return .refused
                default: return .failed
                }
            }
        }
        guard found.store.store.setPromotion(in: found.space, function) else { throw .closed }
    }
}

private func call(
    _ promote: PromoteFunction, _ context: UInt, _ block: PromotedBlock,
    _ layout: UInt32
) -> Int32 {
    let runs = block.runs
    return withUnsafeTemporaryAllocation(
        of: hearth_run.self, capacity: max(1, runs.count)
    ) { room in
        for (place, run) in runs.enumerated() {
            room.initializeElement(
                at: place, to: hearth_run(address: run.baseAddress, length: UInt64(run.count)))
        }
        var made = hearth_promotion()
        made.token = block.token
        made.request = block.request
        made.when_ns = block.dueIn
        made.version = block.version
        made.length = UInt64(block.length)
        made.key = block.key.baseAddress
        made.key_length = UInt32(block.key.count)
        made.shard_count = UInt32(block.shardCount)
        made.layout = layout
        made.run_count = UInt32(runs.count)
        made.runs = UnsafePointer(room.baseAddress)
        return withUnsafePointer(to: made) { promote(context, $0) }
    }
}

/// `hearth_promoted` of hearth.h.
@c(hearth_promoted)
public func hearthPromoted(_ store: UInt64, _ token: UInt64, _ well: UInt32) -> Int32 {
    status { () throws(Failure) in
        // Also of one that is closing, which waits for just that.
        let found = try Registry.current.stores.find(store)
        guard found.store.promotionEnded(token, succeeded: well != 0) else { throw .closed }
    }
}
