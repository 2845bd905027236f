// Event: something worth telling that no call returns.

import Staging

/// Something that happened in the store by itself.
public enum Event: Sendable, Equatable {
    /// A put of class `volatile` was acknowledged and could not be written later.
    case volatileLost(version: UInt64, errno: Int32)
    /// A device stopped answering: its blocks are misses, and it takes no writes.
    case deviceOut(index: Int)
    /// The index is complete: from now on a miss is a miss.
    case recovered(nanoseconds: UInt64, blocks: Int)

    init(_ event: StoreEvent) {
        switch event {
        case .volatileLost(let version, let errno):
            self = .volatileLost(version: version, errno: errno)
        case .deviceOut(let index): self = .deviceOut(index: index)
        case .recovered(let nanoseconds, let blocks):
            self = .recovered(nanoseconds: nanoseconds, blocks: blocks)
        }
    }
}
