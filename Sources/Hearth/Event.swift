// Event: something worth telling that no call returns.

import LogStore
import Staging

/// Something that happened in the store by itself.
public enum Event: Sendable, Equatable {
    /// A put of class `volatile` was acknowledged and could not be written later.
    case volatileLost(version: UInt64, errno: Int32)
    /// A device answers worse or better than it did.
    case deviceChanged(index: Int, health: DeviceHealth)
    /// The scrubber has found what does not verify any more: a block, which is a miss from now on,
    /// or a page that tells of blocks, which others tell of, too.
    case rotFound(device: Int, segment: Int, isBlock: Bool)
    /// The index is complete: from now on a miss is a miss.
    case recovered(nanoseconds: UInt64, blocks: Int)

    init(_ event: StoreEvent) {
        switch event {
        case .volatileLost(let version, let errno):
            self = .volatileLost(version: version, errno: errno)
        case .deviceChanged(let index, let state):
            self = .deviceChanged(index: index, health: DeviceHealth(state))
        case .rotFound(let device, let segment, let isBlock):
            self = .rotFound(device: device, segment: segment, isBlock: isBlock)
        case .recovered(let nanoseconds, let blocks):
            self = .recovered(nanoseconds: nanoseconds, blocks: blocks)
        }
    }
}

/// How well a device answers.
public enum DeviceHealth: String, Sendable, Equatable, CaseIterable {
    /// As it always did.
    case healthy
    /// Late: new blocks are written to other devices, and nothing is read from it ahead of need.
    case slow
    /// Silent, or errors in a row: it takes no writes, and what lies on it is a miss, until it
    /// answers probes.
    case suspect
    /// Gone, until the store is opened again.
    case out

    init(_ state: DeviceState) {
        switch state {
        case .healthy: self = .healthy
        case .slow: self = .slow
        case .suspect: self = .suspect
        case .out, .absent, .struck: self = .out
        }
    }
}
