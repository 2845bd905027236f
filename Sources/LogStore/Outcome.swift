// Outcome: the words in which the store answers. Every refusal has a status, every miss a reason,
// and both have a counter.

import SegmentFormat

/// How far a put has come when it is acknowledged.
package enum Durability: UInt8, Sendable, Comparable {
    /// In staging memory.
    case volatile = 0
    /// The device has completed the write.
    case written = 1
    /// Flushed: present after any crash.
    case durable = 2

    package static func < (a: Durability, b: Durability) -> Bool { a.rawValue < b.rawValue }
}

/// The end of one operation on one key.
package enum Status: UInt8, Sendable, CaseIterable {
    case stored = 0
    case alreadyPresent
    /// Present with another length or shard table.
    case conflict
    case notAdmitted
    /// Try again after the given time.
    case throttled
    case tooLarge
    case noSpace
    case readOnly
    case failed
    case hit
    case miss
    case deleted
    case notFound
    case cancelled
    /// The deadline came first.
    case timedOut
    case invalid
    case done
}

/// Why a get missed.
package enum MissReason: UInt8, Sendable, CaseIterable {
    case none = 0
    case neverPut
    case notAdmitted
    case evicted
    case expired
    case deleted
    case quarantined
    case failedCheck
    case declined
    case otherNamespace
    /// The device that holds it is out or absent.
    case deviceOut
    /// The index is still being rebuilt.
    case recovering
    case deadline
}

/// What the core tells of an operation.
package struct Outcome: @unchecked Sendable {
    // Unchecked for `table`, which is only valid, and only followed, inside `finished`.
    package var token: UInt64
    package var status: Status
    package var reason: MissReason = .none
    package var errno: Int32 = 0
    package var version: UInt64 = 0
    /// Value bytes of the block.
    package var length: UInt32 = 0
    package var shardCount: Int = 1
    /// The value's (or shard table's) checksum, for a copy kept in staging.
    package var checksum: UInt32 = 0
    package var expiry: UInt32 = 0
    package var retryNanoseconds: UInt64 = 0
    /// The shard table that a read was checked by; valid during `finished`.
    package var table: UnsafeRawPointer?

    package init(token: UInt64, status: Status) {
        self.token = token
        self.status = status
    }
}

/// Receives outcomes, on the owner thread, from inside `pump`.
package protocol LogStoreDelegate: AnyObject {
    func finished(_ outcome: Outcome)
    /// Value blocks left the index by eviction; called once a block.
    func evicted(_ fingerprint: Fingerprint)
    /// Whether operations that have not reached the log yet name this namespace slot.
    func holds(namespaceSlot: UInt16) -> Bool
    /// The health of a device has changed.
    func deviceChanged(_ device: Int, to state: DeviceState)
    /// The scrubber has found rot: blocks, or (0) pages that tell of them.
    func foundRot(in segment: UInt32, blocks: Int)
}

extension LogStoreDelegate {
    package func deviceChanged(_ device: Int, to state: DeviceState) {}
    package func foundRot(in segment: UInt32, blocks: Int) {}
}
