// Statistics: everything that a store counts and measures, as one value, with the same names in
// Swift, in JSON and (in snake case) in Prometheus text. Counters are since the store was opened;
// latencies are nanoseconds.

/// What a store has counted and measured since it was opened.
public struct Statistics: Sendable, Equatable {
    /// Gets.
    public struct Gets: Sendable, Equatable {
        /// Hits served from the DRAM tier, those on the callers' own threads included.
        public var hitsStaging: UInt64 = 0
        /// Hits served from a device.
        public var hitsDevice: UInt64 = 0
        /// Hits that were served on the callers' own threads.
        public var hitsOnCaller: UInt64 = 0
        /// Misses, and each reason's share.
        public var misses: UInt64 = 0
        /// Misses by reason.
        public var missesByReason: [String: UInt64] = [:]
        /// Gets that failed, timed out, were cancelled, throttled or invalid, by status.
        public var otherByStatus: [String: UInt64] = [:]
        /// Bytes delivered.
        public var bytes: UInt64 = 0
        /// Bytes that went through a bounce buffer.
        public var bounceBytes: UInt64 = 0
        /// Reads that joined one under way.
        public var sharedReads: UInt64 = 0
        /// Latency of hits from the DRAM tier.
        public var latencyStaging = LatencySummary()
        /// Latency of hits from a device.
        public var latencyDevice = LatencySummary()
        /// Latency of misses and of what failed.
        public var latencyMiss = LatencySummary()
        /// Wait until the owner thread took the operation.
        public var queueWait = LatencySummary()
        /// From there to the answer, of hits from a device.
        public var service = LatencySummary()
    }

    /// Puts.
    public struct Puts: Sendable, Equatable {
        /// Ends by status: stored, alreadyPresent, conflict, throttled and so on.
        public var byStatus: [String: UInt64] = [:]
        /// Value bytes admitted.
        public var admittedBytes: UInt64 = 0
        /// Acknowledged volatile blocks that were lost.
        public var volatileLost: UInt64 = 0
        /// Volatile blocks that stayed in memory alone, as the devices were behind or the budget of
        /// writes did not let them through.
        public var unwritten: UInt64 = 0
        /// Their value bytes.
        public var unwrittenBytes: UInt64 = 0
        /// Copies in memory that puts of blocks on disk have left.
        public var copiesKept: UInt64 = 0
        /// Share of new blocks that the budget of writes lets through by now.
        public var writeShare = 1.0
        /// Bytes that the budget of writes has left, negative when it is overdrawn; 0 without one.
        public var writeBalance: Int64 = 0
        /// Latency of a put, with whatever durability.
        public var latency = LatencySummary()
        /// Wait until the owner thread took the operation.
        public var queueWait = LatencySummary()
        /// From there to the answer.
        public var service = LatencySummary()
    }

    /// Deletes.
    public struct Deletes: Sendable, Equatable {
        /// Ends by status.
        public var byStatus: [String: UInt64] = [:]
        /// Latency of a delete.
        public var latency = LatencySummary()
        /// Wait until the owner thread took the operation.
        public var queueWait = LatencySummary()
    }

    /// What was read from the devices.
    public struct Reads: Sendable, Equatable {
        /// Bytes read from devices that were found whole: for gets, and for staging.
        public var bytes: UInt64 = 0
        /// Gets that shared a request with a neighbour on disk.
        public var joined: UInt64 = 0
        /// Shard tables read, since they were not in memory.
        public var tables: UInt64 = 0
        /// Bytes read by reclaim to write blocks again, gaps included.
        public var movedBytes: UInt64 = 0
    }

    /// What the scrubber has gone through.
    public struct Scrub: Sendable, Equatable {
        /// Bytes read.
        public var bytes: UInt64 = 0
        /// Live blocks checked.
        public var blocks: UInt64 = 0
        /// Segments gone through.
        public var segments: UInt64 = 0
        /// Times that all sealed segments were.
        public var passes: UInt64 = 0
        /// Blocks found rotten.
        public var damagedBlocks: UInt64 = 0
        /// Pages of headers, footers and descriptors found rotten.
        public var damagedPages: UInt64 = 0
    }

    /// Bytes written, by cause.
    public struct Writes: Sendable, Equatable {
        /// Groups: values, their padding and descriptors, records and reinserted blocks.
        public var groupBytes: UInt64 = 0
        /// Of these, blocks rewritten by reclaim.
        public var reinsertedBytes: UInt64 = 0
        /// How many blocks those were.
        public var reinsertedBlocks: UInt64 = 0
        /// Headers, footers, manifests.
        public var metadataBytes: UInt64 = 0
        /// Checkpoints.
        public var checkpointBytes: UInt64 = 0
        /// All bytes written.
        public var totalBytes: UInt64 = 0
        /// All bytes written over value bytes admitted; 0 before the first put.
        public var amplification: Double = 0
        /// Flushes of segments.
        public var flushes: UInt64 = 0
        /// Checkpoints made.
        public var checkpoints: UInt64 = 0
    }

    /// The capacity and what it is taken by; all but `capacity` add up to it.
    public struct Space: Sendable, Equatable {
        /// The configured limit.
        public var capacity: UInt64 = 0
        /// Pages of live blocks.
        public var live: UInt64 = 0
        /// Pages of blocks that are gone, and ends of segments.
        public var dead: UInt64 = 0
        /// Segments clean or not made yet.
        public var free: UInt64 = 0
        /// What is unwritten of open segments.
        public var open: UInt64 = 0
        /// Manifests, checkpoint files, headers, descriptors, footers.
        public var metadata: UInt64 = 0
        /// What is too small for a segment, or lost to a device that has no room for more.
        public var reserve: UInt64 = 0
        /// Segments out of use: quarantined, or of absent devices.
        public var quarantined: UInt64 = 0
        /// Value bytes of live blocks.
        public var liveValueBytes: UInt64 = 0
        /// Bytes lost at the ends of sealed segments, over all bytes of those.
        public var lostAtEnds: Double = 0
        /// Live blocks.
        public var blocks: UInt64 = 0

        /// What the parts add up to.
        public var sum: UInt64 { live + dead + free + open + metadata + reserve + quarantined }
    }

    /// Eviction and reclaim.
    public struct Reclaim: Sendable, Equatable {
        /// Blocks evicted.
        public var evictedBlocks: UInt64 = 0
        /// Their value bytes.
        public var evictedBytes: UInt64 = 0
        /// Of the evicted blocks, those past their time.
        public var expiredBlocks: UInt64 = 0
        /// Segments emptied.
        public var segments: UInt64 = 0
        /// Tombstones and such carried on.
        public var carriedRecords: UInt64 = 0
        /// Records whose two copies had to share a segment, for want of another.
        public var recordsTogether: UInt64 = 0
        /// Bytes of emptied segments that devices were told to forget.
        public var discardedBytes: UInt64 = 0
        /// Times that this failed.
        public var discardErrors: UInt64 = 0
    }

    /// What went wrong, and what was done about it.
    public struct Trouble: Sendable, Equatable {
        /// Reads whose bytes did not match their checksum.
        public var checkFailures: UInt64 = 0
        /// Failed reads.
        public var readErrors: UInt64 = 0
        /// Reads tried again.
        public var readRetries: UInt64 = 0
        /// Failed writes.
        public var writeErrors: UInt64 = 0
        /// Failed flushes.
        public var flushErrors: UInt64 = 0
        /// Failed manifest writes.
        public var manifestErrors: UInt64 = 0
        /// Checkpoints given up.
        public var checkpointErrors: UInt64 = 0
        /// Blocks written again elsewhere, since a write or flush failed.
        public var rewrites: UInt64 = 0
        /// Replaced blocks of whose records against the older version one could not be written.
        public var unguardedReplaces: UInt64 = 0
        /// Blocks out of use.
        public var quarantinedBlocks: UInt64 = 0
        /// Segments out of use.
        public var quarantinedSegments: UInt64 = 0
        /// Damaged pages met.
        public var damagedPages: UInt64 = 0
        /// Segments that the file system had no room for.
        public var allocationFailures: UInt64 = 0
        /// Segments that the store is smaller by for that.
        public var shrunkSegments: UInt64 = 0
        /// Members of whose manifest no copy verified when the store was opened.
        public var damagedManifests = 0
        /// Single copies of manifests that did not.
        public var damagedManifestCopies = 0
        /// Members that were away.
        public var absentMembers = 0
        /// Members that came back from before the store was opened without them.
        public var staleMembers = 0
        /// Pages of statistics for tools, and files of what was learnt of returns, that could not
        /// be written.
        public var pageErrors: UInt64 = 0
    }

    /// Memory by part; bytes.
    public struct MemoryUse: Sendable, Equatable {
        /// The configured limit.
        public var limit = 0
        /// The index.
        public var index = 0
        /// Slabs, with their table.
        public var staging = 0
        /// Cached shard tables.
        public var shardTables = 0
        /// Group buffers.
        public var groupBuffers = 0
        /// Footers.
        public var footers = 0
        /// Everything else that is set aside.
        public var other = 0
        /// Slabs with blocks that are on no device yet.
        public var dirtyBytes = 0
        /// Slabs with read copies.
        public var cleanBytes = 0
        /// Slabs held by leases.
        public var leasedBytes = 0
    }

    /// What the engine told of the future.
    public struct Hints: Sendable, Equatable {
        /// Hints taken, by kind: chain, pages, progress, session, touched, cancel, release.
        public var byKind: [String: UInt64] = [:]
        /// Keys that came with them.
        public var keys: UInt64 = 0
        /// Hints of an unknown kind, or with values out of range.
        public var refused: UInt64 = 0
        /// Hints that came faster than they could be applied: the bounded queue had no room.
        public var dropped: UInt64 = 0
    }

    /// The I/O driver and what the kernel granted it.
    public struct DriverState: Sendable, Equatable {
        /// io_uring or threads.
        public var kind = ""
        /// Ring flags, registered files and buffers, why a fallback.
        public var grants = ""
        /// What kind of pages the slabs got.
        public var slabPages = ""
        /// Requests handed to the device.
        public var requests: UInt64 = 0
        /// Nanoseconds that requests spent at the device, summed.
        public var deviceNanoseconds: UInt64 = 0
        /// The mean of it.
        public var meanDeviceNanoseconds: UInt64 = 0
        /// Failed requests.
        public var failed: UInt64 = 0
        /// Short transfers resumed.
        public var shortResumed: UInt64 = 0
        /// Completions of nobody's, dropped.
        public var staleDropped: UInt64 = 0
        /// Requests with registered buffers.
        public var registered: UInt64 = 0
        /// Requests without.
        public var unregistered: UInt64 = 0
    }

    /// One member device.
    public struct DeviceState: Sendable, Equatable {
        /// Its number in the store.
        public var index = 0
        /// healthy, slow (it answers late: values are written to others first), suspect (it takes
        /// no writes, and what lies on it is a miss, until it answers probes), out (for this run),
        /// absent or struck.
        public var state = ""
        /// Its segments, made or not.
        public var segments = 0
        /// Mean latency of late, by size and queue; nanoseconds.
        public var latencyNanoseconds: UInt64 = 0
        /// The same over all the time that it was well.
        public var usualLatencyNanoseconds: UInt64 = 0
        /// Failed requests.
        public var errors: UInt64 = 0
        /// How often it has become slow, suspect or out.
        public var spells: UInt64 = 0
        /// Probes sent to see whether it is better.
        public var probes: UInt64 = 0
    }

    /// Opening, by phase; nanoseconds.
    public struct Recovery: Sendable, Equatable {
        /// Whether the index is complete.
        public var isComplete = false
        /// Reading segment headers.
        public var headersNanoseconds: UInt64 = 0
        /// Loading the checkpoint.
        public var checkpointNanoseconds: UInt64 = 0
        /// Footers and scans.
        public var replayNanoseconds: UInt64 = 0
        /// All of it.
        public var totalNanoseconds: UInt64 = 0
        /// Entries that the checkpoint gave.
        public var checkpointEntries: UInt64 = 0
        /// Records replayed.
        public var records: UInt64 = 0
        /// Segments read by footer.
        public var footerSegments: UInt64 = 0
        /// Segments scanned forward.
        public var scannedSegments: UInt64 = 0
        /// Damaged pages met.
        public var damagedPages: UInt64 = 0
        /// Segments of which no header could be read.
        public var damagedSegments: UInt64 = 0
        /// Checkpoints that did not verify, or told what the log does not.
        public var damagedCheckpoints: UInt64 = 0
        /// Keys of which a newer value was read to see whether it is whole.
        public var contested: UInt64 = 0
        /// Of these, those that were not.
        public var contestedLost: UInt64 = 0
        /// Blocks that the index had no room for.
        public var indexOverflow: UInt64 = 0
    }

    /// Gets.
    public var gets = Gets()
    /// Puts.
    public var puts = Puts()
    /// Deletes.
    public var deletes = Deletes()
    /// Bytes read.
    public var reads = Reads()
    /// What was read to find rot.
    public var scrub = Scrub()
    /// Bytes written.
    public var writes = Writes()
    /// Space.
    public var space = Space()
    /// Reclaim.
    public var reclaim = Reclaim()
    /// Trouble.
    public var trouble = Trouble()
    /// Memory.
    public var memory = MemoryUse()
    /// The driver.
    public var driver = DriverState()
    /// Hints.
    public var hints = Hints()
    /// What was brought early.
    public var prefetch = Prefetch()
    /// What the tiers hold, and what went between them.
    public var tiers = Tiers()
    /// How much of prefixes was worth loading.
    public var prefixes = Prefixes()
    /// What is recorded.
    public var recording = Recording()
    /// The devices, in the store's order.
    public var devices: [DeviceState] = []
    /// Recovery.
    public var recovery = Recovery()
    /// Every put acknowledged with a version up to this one is durable, but for those of which
    /// ``Store/flush(through:)`` tells that they may be lost.
    public var durableVersion: UInt64 = 0
}
