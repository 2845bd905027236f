// Resident: the names and facts of a block that lies in staging. A resident has a slot in the
// shared table; the slot's number is only good while the resident is there, which the owner thread
// knows and other threads secure with a pin.

/// The wide fingerprint of a full key (namespace included), keyed by the store's secret.
package struct StagingKey: Hashable, Sendable {
    package var hi: UInt64
    package var lo: UInt64
    package init(hi: UInt64, lo: UInt64) {
        self.hi = hi
        self.lo = lo
    }
}

/// A place in the resident table.
package struct ResidentSlot: Hashable, Sendable {
    package var index: Int32
    package init(_ index: Int32) { self.index = index }
}

package enum ResidentState: UInt8, Sendable {
    case empty = 0
    /// Being copied in or read from disk; readers do not see it.
    case filling = 1
    /// Visible, and the only copy: never evicted.
    case dirty = 2
    /// Visible, on disk too: evicted when room is needed and nobody has it pinned.
    case clean = 3
    /// Taken out of sight while pinned; its memory returns when the last pin is gone.
    case condemned = 4

    @inline(__always)
    package var isVisible: Bool { self == .dirty || self == .clean }
}

/// What the table knows of a resident; the bytes are the stored image.
package struct ResidentInfo: Equatable, Sendable {
    package var version: UInt64
    /// Bytes of the value.
    package var length: UInt32
    /// Bytes of the stored image: what the slabs hold.
    package var storedBytes: UInt32
    /// Number of shards, less one.
    package var shardCount: UInt16
    package var aligned: Bool
    package var checksum: UInt32
    /// Unix seconds, 0 for none.
    package var expiry: UInt32
    package var namespaceSlot: UInt16

    package init(
        version: UInt64, length: UInt32, storedBytes: UInt32, shardCount: UInt16 = 0,
        aligned: Bool = false, checksum: UInt32 = 0, expiry: UInt32 = 0, namespaceSlot: UInt16 = 0
    ) {
        self.version = version
        self.length = length
        self.storedBytes = storedBytes
        self.shardCount = shardCount
        self.aligned = aligned
        self.checksum = checksum
        self.expiry = expiry
        self.namespaceSlot = namespaceSlot
    }

    @inline(__always)
    package func isExpired(_ now: UInt32) -> Bool { expiry != 0 && expiry <= now }
}

/// How a reservation ended.
package enum ReserveResult: Equatable, Sendable {
    /// A new slot, filling.
    case slot(ResidentSlot)
    /// The key is being filled already, in that slot: join it.
    case filling(ResidentSlot)
    /// Everything is dirty, filling or pinned: the caller throttles.
    case full
    /// More slabs than the arena has.
    case tooLarge
}

/// Counters and gauges of an arena.
package struct StagingStatistics: Sendable {
    package var residents = 0
    package var filling = 0
    /// Clean residents that no device has.
    package var unwritten = 0
    package var dirtyBytes = 0
    package var cleanBytes = 0
    package var slabs = 0
    package var freeSlabs = 0
    package var leasedSlabs = 0
    /// Residents removed while pinned, whose memory is not back yet.
    package var deferred = 0
    package var reservations: UInt64 = 0
    package var publications: UInt64 = 0
    package var evictions: UInt64 = 0
    package var evictedBytes: UInt64 = 0
    package var removals: UInt64 = 0
    package var refusedFull: UInt64 = 0
    package var refusedLeases: UInt64 = 0
    /// Reservations that lie in more than one run of slabs.
    package var scattered: UInt64 = 0
    /// Reservations so scattered that their list of pieces had to come from the heap.
    package var pieceListsFromHeap: UInt64 = 0
    package init() {}
}
