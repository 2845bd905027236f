// ReplacementKind: the replacement policies that there are, by the names that `hearth-bench replay
// --policy` takes. A store opens with `adaptive`; the others are for comparison.

import Staging

package enum ReplacementKind: String, CaseIterable, Sendable {
    case adaptive
    case lru
    case arc
    case s3fifo
    case fifo

    /// A new policy of the kind, for one arena.
    package func makePolicy() -> any ReplacementPolicy {
        switch self {
        case .adaptive: AdaptivePolicy()
        case .lru: LRUPolicy()
        case .arc: ARCPolicy()
        case .s3fifo: S3FIFOPolicy()
        case .fifo: FIFOPolicy()
        }
    }
}
