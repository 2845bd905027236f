// StoreOperation: one operation on one key as a plain message, and its answer. Nothing in it is a
// pointer that only this process understands but the memory of key, parent, pieces and shard
// lengths, which the sender keeps until the answer (for a read that was given up at its deadline:
// until `released`).

import BlockIO
import LogStore

package enum StoreOperationKind: UInt8, Sendable {
    case get
    case put
    case delete
    /// A hint: these blocks were used elsewhere; moves a resident block to the front.
    case touch
    case pin
    case unpin
    /// Brings nothing; says whether the block is present (memory only).
    case contains
    /// The store's own: brings a block into staging, see `StagedStore.prefetch`.
    case prefetch
}

/// How a get delivers.
package enum GetMode: UInt8, Sendable {
    /// The device writes into the caller's memory; fills no cache.
    case direct
    /// Through a slab, copied out.
    case cached
    /// A pinned read-only view of the slab, no copy.
    case lease
}

package struct StoreOperation: @unchecked Sendable {
    // Unchecked: the pointers are only followed by the owner thread, while the sender, by contract,
    // leaves the memory alone.
    package var kind: StoreOperationKind
    /// Comes back in the answer.
    package var token: UInt64
    package var namespaceSlot: UInt16
    /// The instance that the sender means by the slot, which may have been purged and given to
    /// another since; 0 to go by the slot alone.
    package var namespaceInstance: UInt64 = 0
    package var key: UnsafeRawBufferPointer
    package var parent = UnsafeRawBufferPointer(start: nil, count: 0)
    /// Source or destination, in order.
    package var pieces: UnsafePointer<Piece>?
    package var pieceCount = 0

    // Put
    /// Value bytes: the sum of the shards.
    package var length: UInt32 = 0
    package var shardLengths: UnsafePointer<UInt32>?
    package var durability = Durability.written
    package var replace = false
    /// Seconds from now, 0 for the namespace's.
    package var timeToLive: UInt32 = 0

    // Get: whole block, a run of shards, or a byte range
    package var mode = GetMode.direct
    package var firstShard = 0
    /// Shards to get, 0 for all.
    package var shardCount = 0
    package var byteOffset: UInt64 = 0
    /// Bytes to get, 0 for all; not together with shards.
    package var byteCount: UInt64 = 0

    /// The key comes, in its chain, after that of the operation submitted just before.
    package var continues = false

    /// Monotonic nanoseconds, 0 for none. Of a pin: its end.
    package var deadline: UInt64 = 0

    package init(
        kind: StoreOperationKind, token: UInt64, namespaceSlot: UInt16,
        key: UnsafeRawBufferPointer
    ) {
        self.kind = kind
        self.token = token
        self.namespaceSlot = namespaceSlot
        self.key = key
    }
}

/// Where a hit came from.
package enum HitTier: UInt8, Sendable {
    case none
    case staging
    case device
}

package struct StoreAnswer: Sendable {
    package var token: UInt64
    package var status: Status
    package var reason = MissReason.none
    package var tier = HitTier.none
    package var errno: Int32 = 0
    package var version: UInt64 = 0
    /// Value bytes of the block.
    package var length: UInt32 = 0
    /// Bytes delivered.
    package var delivered: UInt64 = 0
    package var shardCount: Int = 1
    /// For a throttled put: when to try again.
    package var retryNanoseconds: UInt64 = 0
    /// The slab's resident slot of a lease, -1 for none; given back with `endLease`.
    package var lease: Int32 = -1
    /// The leased bytes: first byte of what was asked for, within the resident's image.
    package var leaseOffset: UInt64 = 0
    /// The device may still write into the caller's memory: `released` follows.
    package var memoryInUse = false

    package init(token: UInt64, status: Status) {
        self.token = token
        self.status = status
    }
}

/// Receives answers, on the owner thread, from inside `submit` or `pump`.
package protocol StoreSink: AnyObject {
    func answered(_ answer: StoreAnswer)
    /// The kernel has let go of the memory of a read that was answered before.
    func released(_ token: UInt64)
    /// A control call (namespace, purge, flush, checkpoint) has ended.
    func controlled(_ outcome: Outcome)
    /// Something worth telling: a volatile block lost, a device out, and so on.
    func happened(_ event: StoreEvent)
}

package enum StoreEvent: Sendable {
    case volatileLost(version: UInt64, errno: Int32)
    case deviceChanged(index: Int, state: DeviceState)
    case rotFound(device: Int, segment: Int, isBlock: Bool)
    case recovered(nanoseconds: UInt64, blocks: Int)
}
