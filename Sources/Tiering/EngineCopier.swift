// EngineCopier: how a block goes from staging into the engine's own memory: by a function of the
// engine's that begins a copy. Called on the owner thread; the block's bytes stay where they are
// until the copy has ended.

import BlockIO

/// A block that could be copied up now.
package struct Promotion {
    /// To be handed back when the copy has ended.
    package var token: UInt64
    /// Good during the call.
    package var key: UnsafeRawBufferPointer
    package var namespaceSlot: UInt16
    /// The engine's number of the request that is due first, 0 for none, and when that is.
    package var request: UInt64
    package var due: UInt64
    package var version: UInt64
    package var length: UInt32
    package var shardCount: Int
    package var aligned: Bool
    /// The stored image in staging, readable until the copy has ended; in it the value begins at
    /// `valueOffset`.
    package var image: UnsafeBufferPointer<Piece>
    package var valueOffset: Int
}

/// What came of beginning a copy.
package enum CopyStart: UInt8, Sendable {
    /// It has been made.
    case done
    /// It is under way, and its end is told later.
    case underWay
    /// The engine does not want the block, or has no room for it.
    case refused
    case failed
}

package protocol EngineCopier: AnyObject {
    func begin(_ promotion: Promotion) -> CopyStart
}
