// Promotion: a function of the engine's by which announced blocks go from the DRAM tier into its
// own memory, ahead of being asked for. It is called on the owner thread with a block whose bytes
// stay where they are until the copy has ended; what it does not do at once it tells of later,
// from any thread.

import LogStore
import SegmentFormat
import Staging
import Tiering

/// A block in the DRAM tier that the engine could take now. Its memory is good until the copy has
/// ended, the key and the list of runs during the call.
public struct PromotedBlock {
    /// To be given to ``Store/promotionEnded(_:succeeded:)``.
    public let token: UInt64
    /// The block's key.
    public let key: UnsafeRawBufferPointer
    /// The engine's number of the announced request that is due first, 0 for none.
    public let request: UInt64
    /// In how many nanoseconds that is.
    public let dueIn: UInt64
    /// The version given at put.
    public let version: UInt64
    /// Bytes of the value.
    public let length: Int
    /// Shards of the block.
    public let shardCount: Int
    /// Runs of memory that hold the value, in order; with shards each at a 4 KiB boundary they
    /// hold what lies between these, too.
    public let runs: UnsafeBufferPointer<UnsafeRawBufferPointer>
}

/// What a function for promotion did with a block.
public enum PromotionStart: Sendable {
    /// The block is copied.
    case done
    /// The copy is under way; its end is told.
    case underWay
    /// It has no room for the block, or does not want it.
    case refused
    /// It could not be copied.
    case failed
}

/// Copies a block into the engine's memory, or begins to. Must not wait.
public typealias PromotionFunction = @Sendable (PromotedBlock) -> PromotionStart

/// The functions of a store's namespaces; on the owner thread.
final class Promotions: EngineCopier {
    private unowned let owner: Owner
    private var functions: [UInt16: (instance: UInt64, body: PromotionFunction)] = [:]

    init(_ owner: Owner) { self.owner = owner }

    /// Sets or takes away a namespace's function.
    func set(_ function: PromotionFunction?, slot: UInt16, instance: UInt64) {
        functions[slot] = function.map { (instance, $0) }
        owner.tiered.tiers?.copier = functions.isEmpty ? nil : self
    }

    func begin(_ promotion: Promotion) -> CopyStart {
        guard let arena = owner.store.arena, let found = functions[promotion.namespaceSlot],
            found.instance == owner.store.log.namespaces.instance(promotion.namespaceSlot)
        else { return .refused }
        // Up to the end of the last shard, which with gaps between them is that of the image.
        let isSpread = promotion.aligned && promotion.shardCount > 1
        var left = isSpread ? Int.max : Int(promotion.length)
        var skip = promotion.valueOffset
        return withUnsafeTemporaryAllocation(
            of: UnsafeRawBufferPointer.self, capacity: max(1, promotion.image.count)
        ) { runs in
            var count = 0
            for piece in promotion.image where left > 0 {
                let length = Int(piece.length)
                if skip >= length {
                    skip -= length
                    continue
                }
                let bytes = min(length - skip, left)
                runs.initializeElement(
                    at: count,
                    to: UnsafeRawBufferPointer(
                        start: UnsafeRawPointer(arena.pointer(piece)) + skip, count: bytes))
                count += 1
                left -= bytes
                skip = 0
            }
            return call(found.body, promotion, UnsafeBufferPointer(rebasing: runs[..<count]))
        }
    }

    private func call(
        _ body: PromotionFunction, _ promotion: Promotion,
        _ runs: UnsafeBufferPointer<UnsafeRawBufferPointer>
    ) -> CopyStart {
        let now = owner.engine.clock.monotonic
        let block = PromotedBlock(
            token: promotion.token, key: promotion.key, request: promotion.request,
            dueIn: promotion.due > now ? promotion.due - now : 0, version: promotion.version,
            length: Int(promotion.length), shardCount: promotion.shardCount, runs: runs)
        return switch body(block) {
        case .done: .done
        case .underWay: .underWay
        case .refused: .refused
        case .failed: .failed
        }
    }
}

extension Store {
    /// Sets, or with nil takes away, the function by which announced blocks of the namespace go
    /// into the engine's own memory (`engineMemoryBytes`, of which the engine reports what it
    /// holds by hints). False: the store is closed.
    @discardableResult
    public func setPromotion(
        in namespace: Namespace, _ function: PromotionFunction?
    ) -> Bool {
        let (slot, instance) = (namespace.slot, namespace.instance)
        return engine.perform { owner in
            owner.promotions.set(function, slot: slot, instance: instance)
        }
    }

    /// A promotion that was under way has ended. False: the store is closed.
    @discardableResult
    public func promotionEnded(_ token: UInt64, succeeded: Bool) -> Bool {
        engine.perform { owner in owner.tiered.tiers?.ended(token, isWell: succeeded) }
    }
}
