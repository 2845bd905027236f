// The items of batch calls and their results: what to put, get and delete, how, and how each key
// came out. A batch's results are in the order of its items.

import LogStore
import Staging

/// One block to put.
public struct PutItem: Sendable {
    /// The block's key.
    public var key: Key
    /// The key of the block before it in its prefix chain, if known.
    public var parent: Key?
    /// The block's bytes; unchanged until the put returns.
    public var value: Memory
    /// Bytes of each shard, 1 to 4,096 of them, adding up to the value; nil for a block of one.
    public var shardLengths: [UInt32]?

    /// A block in memory that the caller keeps.
    public init(key: Key, value: Memory, parent: Key? = nil, shardLengths: [UInt32]? = nil) {
        self.key = key
        self.value = value
        self.parent = parent
        self.shardLengths = shardLengths
    }

    /// A copy of these bytes.
    public init(key: Key, bytes: some Collection<UInt8>, shardLengths: [UInt32]? = nil) {
        self.init(key: key, value: Memory(Buffer(copying: bytes)), shardLengths: shardLengths)
    }
}

/// How to put.
public struct PutOptions: Sendable {
    /// How far a block has come when its put is acknowledged.
    public enum Durability: String, Sendable, CaseIterable {
        /// In staging memory.
        case volatile
        /// The device has completed the write. The default.
        case written
        /// Flushed: present after any crash.
        case durable
    }

    /// Default `.written`.
    public var durability = Durability.written
    /// Whether a present block is replaced. Default false.
    public var replace = false
    /// Seconds until the block expires; default 0, the namespace's.
    public var timeToLiveSeconds: UInt32 = 0
    /// How long the call may take; default no bound.
    public var deadline: Duration?

    /// The defaults, but for what is given.
    public init(
        durability: Durability = .written, replace: Bool = false, timeToLiveSeconds: UInt32 = 0,
        deadline: Duration? = nil
    ) {
        self.durability = durability
        self.replace = replace
        self.timeToLiveSeconds = timeToLiveSeconds
        self.deadline = deadline
    }
}

/// How one put came out.
public struct PutResult: Sendable, Equatable {
    /// The ends of a put.
    public enum Status: String, Sendable, CaseIterable {
        /// The block is stored with the durability asked for.
        case stored
        /// It was there already, and has the durability asked for.
        case alreadyPresent
        /// Present with another length or shard table, and `replace` was not asked for.
        case conflict
        /// Admission said no.
        case notAdmitted
        /// Staging or queues are full: try again after `retryAfter`.
        case throttled
        /// Larger than the store's largest block.
        case tooLarge
        /// The store is full and does not evict.
        case noSpace
        /// The store takes no writes.
        case readOnly
        /// An I/O error; see `errno`.
        case failed
        /// The task was cancelled before it was decided.
        case cancelled
        /// The deadline came first.
        case timedOut
        /// Key, lengths or memory are not right, or the namespace is purged.
        case invalid
        /// The store is closed.
        case closed
    }

    /// How it came out.
    public var status: Status
    /// The version the store gave the block; of one already present, that one's. 0 for none.
    public var version: UInt64 = 0
    /// When to try a throttled put again.
    public var retryAfter: Duration = .zero
    /// Of a failure, the system's error number.
    public var errno: Int32 = 0

    /// Whether the block is there now.
    public var isPresent: Bool { status == .stored || status == .alreadyPresent }
}

/// Which part of a block to get.
public enum Selection: Sendable, Equatable {
    /// All of it.
    case whole
    /// A run of shards, not empty.
    case shards(Range<Int>)
    /// A range of its bytes, not empty; the shards that cover it are read and checked.
    case bytes(Range<UInt64>)
}

/// One block to get.
public struct GetItem: Sendable {
    /// The block's key.
    public var key: Key
    /// Where the bytes go: at least as many as are selected. Undefined afterwards unless it is a
    /// hit; never written beyond the bytes selected.
    public var destination: Memory
    /// Default `.whole`.
    public var selection: Selection

    /// All of a block, or a part.
    public init(key: Key, into destination: Memory, _ selection: Selection = .whole) {
        self.key = key
        self.destination = destination
        self.selection = selection
    }

    /// All of a block, or a part, into plain memory that the caller keeps.
    public init(
        key: Key, into destination: UnsafeMutableRawBufferPointer, _ selection: Selection = .whole
    ) {
        self.init(key: key, into: Memory(destination), selection)
    }
}

/// How to get.
public struct GetOptions: Sendable {
    /// How the bytes travel.
    public enum Mode: String, Sendable, CaseIterable {
        /// The device writes into the destination; fills no cache. The default.
        case direct
        /// Through the DRAM tier, copied out, and kept there.
        case cached
    }

    /// Default `.direct`.
    public var mode = Mode.direct
    /// How long the call may take; default no bound. A direct read that the device still writes
    /// for at the deadline keeps the call until its memory is let go; its status is `timedOut`
    /// all the same. A cached read returns at the deadline.
    public var deadline: Duration?

    /// The defaults, but for what is given.
    public init(mode: Mode = .direct, deadline: Duration? = nil) {
        self.mode = mode
        self.deadline = deadline
    }
}

/// How one get came out.
public struct GetResult: Sendable, Equatable {
    /// The ends of a get.
    public enum Status: String, Sendable, CaseIterable {
        /// The destination holds the bytes, checked.
        case hit
        /// Not there; see `miss`.
        case miss
        /// An I/O error; see `errno`.
        case failed
        /// Staging is full: try again.
        case throttled
        /// The task was cancelled first.
        case cancelled
        /// The deadline came first.
        case timedOut
        /// Key, selection or memory are not right, or the namespace is purged.
        case invalid
        /// The store is closed.
        case closed
    }

    /// Why a get missed.
    public enum Miss: String, Sendable, CaseIterable {
        case none
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

    /// Where a hit came from.
    public enum Tier: String, Sendable, CaseIterable {
        case none
        case staging
        case device
    }

    /// How it came out.
    public var status: Status
    /// Why it missed.
    public var miss = Miss.none
    /// Where a hit came from.
    public var tier = Tier.none
    /// The version given at put.
    public var version: UInt64 = 0
    /// Bytes of the block, 0 where they are not known.
    public var length = 0
    /// Bytes written to the destination.
    public var delivered = 0
    /// Shards of the block.
    public var shardCount = 1
    /// Of a failure, the system's error number.
    public var errno: Int32 = 0

    /// Whether the destination holds the bytes.
    public var isHit: Bool { status == .hit }
}

/// How one delete came out.
public struct DeleteResult: Sendable, Equatable {
    /// The ends of a delete.
    public enum Status: String, Sendable, CaseIterable {
        /// Gone for good.
        case deleted
        /// It was not there.
        case notFound
        /// The store takes no writes.
        case readOnly
        /// An I/O error; see `errno`. Whether the block is gone is not known.
        case failed
        /// The task was cancelled before it was decided.
        case cancelled
        /// The deadline came first.
        case timedOut
        /// The key is not right, or the namespace is purged.
        case invalid
        /// The store is closed.
        case closed
    }
    /// How it came out.
    public var status: Status
    /// Of a failure, the system's error number.
    public var errno: Int32 = 0
}
