// LogStoreConfiguration: what a log store is opened with. The public `Configuration` of Hearth is
// validated and turned into this; the core trusts it.

import SegmentFormat

/// What happens when the store is full; chosen at creation.
package enum StoreMode: UInt8, Sendable {
    /// Evicts the oldest segments.
    case cache = 0
    /// Refuses puts.
    case store = 1
}

/// What opening does about damage.
package enum OpenMode: UInt8, Sendable {
    /// Skips and counts what is damaged.
    case quiet
    /// Refuses to open a store with damage.
    case strict
    /// Starts empty, but keeps generations, versions and instance ids moving forward.
    case fresh
}

package struct LogStoreConfiguration: Sendable {
    /// One directory per device, in the order of the store's members.
    package var directories: [String]
    package var mode: StoreMode = .cache
    package var openMode: OpenMode = .quiet
    /// All bytes that the store may take on its devices, metadata included.
    package var capacityBytes: UInt64
    /// The largest block, bytes; fixed at creation.
    package var maximumBlockBytes: Int = 16 << 20
    /// The smallest segment, bytes; the segment is the larger of this and 34 maximum blocks.
    package var minimumSegmentBytes: Int = 256 << 20
    /// Entries that the index has room for.
    package var indexEntries: Int
    /// Value bytes of a group that is gathered in a buffer.
    package var groupBytes: Int = 1 << 20
    /// Group buffers; writes wait only when all of them are in flight.
    package var groupBuffers: Int = 8
    /// Images of at least this many bytes are written from where they lie, if aligned. Copied,
    /// 64 KiB blocks cost 0.14 to 0.58 CPU seconds a GiB, as the machine's caches fall; written in
    /// place 0.12 to 0.16.
    package var bypassBytes: Int = 64 << 10
    /// Groups of one stream in flight before further ones wait to fill.
    package var groupsInFlight: Int = 4
    /// Requests of 128 KiB that groups have under way on a device while it is read, at the least
    /// (see WriteShare); 0 for as many and as large as without readers.
    package var pacedWrites: Int = 3
    /// Bytes a second that are read to find what has rotted; 0 for no such reading. Off unless
    /// asked for: each read is checked anyway, so in a cache rot costs a miss, found or not, and a
    /// store that nobody uses sleeps.
    package var scrubBytesPerSecond: UInt64 = 0
    /// Bytes a second of recycled segments that the devices are told to forget; 0 for none.
    package var discardBytesPerSecond: UInt64 = 0
    /// The longest read that is made of neighbours on disk, bytes.
    package var joinedReadBytes: Int = 1 << 20
    /// Operations at once.
    package var operations: Int = 4096
    /// Streams of fresh blocks on each device, which namespaces are dealt to in turn: what is
    /// purged, expires or is deleted together lies together.
    package var freshStreams: Int = 4
    /// Segments of a device for each of these streams at least: one is open in each.
    package var segmentsPerStream: Int = 32
    /// Clean segments kept ahead on each device.
    package var cleanSegments: Int = 2
    /// Bytes for cached shard tables.
    package var tableCacheBytes: Int = 16 << 20
    /// Opens although a member directory is missing or unreadable; its blocks are misses.
    package var allowAbsent: Bool = true
    /// Who holds the lock, for the next one's error message.
    package var holder: String = ""
    /// Randomness for new ids and the secret, drawn outside the core.
    package var entropy: (UInt64, UInt64, UInt64, UInt64)
    /// Checkpoints are at most one byte in this many of the bytes written.
    package var checkpointShare: Int = 100
    /// Bytes written after which a checkpoint is made at the earliest.
    package var checkpointMinimumBytes: UInt64 = 64 << 20

    /// The bound on write amplification in cache mode, which tells how much is written again.
    package var writeAmplification: Double = 1.15
    /// The share of the capacity, in value bytes admitted, after which heat has halved.
    package var heatHalfLife: Double = 0.5
    /// Keys that are gone whose reason is remembered.
    package var ghosts: Int = 1 << 16

    package init(
        directories: [String], capacityBytes: UInt64, indexEntries: Int,
        entropy: (UInt64, UInt64, UInt64, UInt64)
    ) {
        self.directories = directories
        self.capacityBytes = capacityBytes
        self.indexEntries = indexEntries
        self.entropy = entropy
    }

    /// Bytes of a segment: at least 34 maximum blocks, so that less than 3 % is lost at its end.
    package var segmentBytes: Int {
        let wanted = max(minimumSegmentBytes, 34 * maximumBlockBytes)
        let unit = 1 << 20
        return (wanted + unit - 1) / unit * unit
    }

    /// Streams of fresh blocks on a device of so many segments.
    package func freshStreams(segments: Int) -> Int {
        max(1, min(freshStreams, segments / segmentsPerStream))
    }
}
