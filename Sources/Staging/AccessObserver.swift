// AccessObserver: how those above the staged store learn what is asked for, what came of a prefetch
// and what left staging. Called on the owner thread, from inside `submit` and `pump`; an observer
// must not call back into the store but for asking what is there, and may start nothing before the
// call that told it has returned.

import LogStore

/// What an access found.
package enum AccessKind: UInt8, Sendable {
    /// A get of a block that is in staging.
    case resident
    /// A get of a block that is on its way into staging: it joins.
    case joined
    /// A get that the device has to serve.
    case device
    /// A get of what is not there.
    case miss
    case put
    /// Used elsewhere, or read on a caller's own thread; key and parent are not known.
    case touch
}

/// One access, told once an operation. The key's memory is good during the call.
package struct Access {
    package var kind: AccessKind
    package var fingerprint: Fingerprint
    package var namespaceSlot: UInt16 = 0
    package var key = UnsafeRawBufferPointer(start: nil, count: 0)
    package var parent = UnsafeRawBufferPointer(start: nil, count: 0)
    /// Value bytes, 0 if not known.
    package var bytes: UInt32 = 0
    /// The resident's slot, -1 for none.
    package var resident: Int32 = -1
    /// The key comes, in its chain, after that of the operation submitted just before.
    package var continues = false
    /// The run of shards that a get asked for; a count of 0 for all of the block.
    package var firstShard: UInt32 = 0
    package var shardCount: UInt32 = 0

    package init(kind: AccessKind, fingerprint: Fingerprint) {
        self.kind = kind
        self.fingerprint = fingerprint
    }
}

/// How a resident left.
package enum ResidentDeparture: UInt8, Sendable {
    /// Room was needed for a put or a read that somebody waits for.
    case evicted
    /// Room was needed for a block brought early.
    case evictedForPrefetch
    /// Deleted, replaced, purged, or found not to be current.
    case removed
}

package protocol AccessObserver: AnyObject {
    func accessed(_ access: Access)
    /// A get that the device had to serve has ended, after `accessed` told of it; of a run of
    /// shards, with the fingerprint of that part.
    func deviceReadEnded(_ fingerprint: Fingerprint, bytes: UInt32, isHit: Bool)
    /// A put has stored its block, after `accessed` told of it.
    func putEnded(_ fingerprint: Fingerprint)
    /// A prefetch has ended: `hit` with the resident that it made, `alreadyPresent` with the one
    /// that was there, or why there is none.
    func prefetchEnded(_ token: UInt64, _ status: Status, resident: Int32, bytes: UInt32)
    func residentLeft(_ resident: Int32, _ key: StagingKey, _ departure: ResidentDeparture)
}
