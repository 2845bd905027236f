// Configuration: everything a store is opened with, as one value. Each field tells its unit, its
// default and its range; `validated()` checks them all, names the first that does not fit, and
// splits the one memory limit. Nothing else in Hearth has options.

import LogStore

/// What a store is opened with. Make one, change what should differ, and hand it to `Store.open`.
public struct Configuration: Sendable {
    /// What happens when the store is full. Chosen at creation; fixed from then on.
    public enum Mode: String, Sendable, CaseIterable {
        /// Evicts the oldest segment. The default.
        case cache
        /// Refuses puts.
        case store
    }

    /// What opening does about damage.
    public enum OpenMode: String, Sendable, CaseIterable {
        /// Skips and counts what is damaged. The default.
        case quiet
        /// Refuses to open a damaged store.
        case strict
        /// Starts empty; counters go on, so that nothing old is ever mistaken for new.
        case fresh
    }

    /// How the DRAM tier relates to the engine's own.
    public enum StagingMode: String, Sendable, CaseIterable {
        /// Blocks put and read stay as read copies. The default.
        case inclusive
        /// A write buffer and read window: a block handed up leaves first.
        case exclusive
    }

    /// Who may ask for blocks to be brought into the DRAM tier before they are needed.
    public enum Prefetch: String, Sendable, CaseIterable {
        /// Nobody.
        case off
        /// Chains that the engine hinted. The default.
        case chain
        /// What followed a block the last time, without any hint.
        case successor
        /// Pages of the model's layers: what the engine hinted of them, and in the layers after one
        /// what is often picked there.
        case layer
        /// The chains of sessions that are expected back, as learnt from when sessions came back.
        case session
        /// All of these.
        case all
    }

    /// What volatile puts do when more come than the devices write.
    public enum Overload: String, Sendable, CaseIterable {
        /// They wait until they can be written. The default.
        case wait
        /// They stay in memory alone, are lost when they leave it, and are told as such.
        case memory
    }

    /// When a volatile put is written to a device. Others are written when they come.
    public enum WriteMoment: String, Sendable, CaseIterable {
        /// When it comes. The default.
        case insert
        /// When it is put again while it is in memory: until then it stays there alone.
        case again
    }

    /// Which I/O driver runs the store.
    public enum Driver: String, Sendable, CaseIterable {
        /// io_uring where the kernel grants it, else threads; told in the statistics. The default.
        case automatic
        /// io_uring or an error.
        case ioUring = "io_uring"
        /// A pool of threads with `preadv2` and `pwritev2`.
        case threads
    }

    // MARK: The store

    /// One directory per device, 1 to 32, made if absent. The order does not matter after creation.
    public var directories: [String]
    /// Bytes that the store may take on all its devices, metadata included: a hard limit.
    /// No default; see `capacity(forValueBytes:blockBytes:)` for what a given load needs.
    public var capacityBytes: UInt64
    /// Default `.cache`.
    public var mode = Mode.cache
    /// Default `.quiet`.
    public var openMode = OpenMode.quiet
    /// Largest block, bytes; fixed at creation. Default 16 MiB; 4 KiB to 64 MiB.
    public var maximumBlockBytes = 16 << 20
    /// Smallest segment, bytes; the segment is the larger of this and 34 maximum blocks. Default
    /// 256 MiB; 1 MiB to 2 GiB.
    public var minimumSegmentBytes = 256 << 20
    /// Whether the store opens although a member directory is missing; its blocks are misses then.
    /// Default true.
    public var allowAbsentMembers = true

    // MARK: Memory

    /// Bytes of memory for index, slabs, shard tables and buffers together. Default 1 GiB; 32 MiB
    /// to 64 TiB.
    public var memoryLimitBytes = 1 << 30
    /// Blocks that the index has room for. Default: capacity over `expectedBlockBytes`, and a tenth
    /// more. 1,024 to 2^33.
    public var indexEntries: Int?
    /// Bytes of the usual block, which sizes the index where `indexEntries` is not given. Default
    /// 64 KiB; 1 to 64 MiB.
    public var expectedBlockBytes = 64 << 10
    /// Bytes of slabs of the DRAM tier. Default: what the memory limit leaves. 0 for none, else at
    /// least two maximum blocks.
    public var stagingBytes: Int?
    /// Bytes of a slab, a multiple of 4 KiB. Default 64 KiB; 4 KiB to 2 MiB.
    public var slabBytes = 64 << 10
    /// Default `.inclusive`.
    public var stagingMode = StagingMode.inclusive
    /// Bytes for cached shard tables. Default 16 MiB, an eighth of the memory limit at most; 1 MiB
    /// to 4 GiB.
    public var tableCacheBytes: Int?

    /// Bytes of the engine's own memory for blocks, of which it reports what it takes in, uses and
    /// lets go; needs staging. Default 0: nothing is known of it.
    public var engineMemoryBytes: UInt64 = 0
    /// The share of it at which no more is copied there. Default 0.95; above 0, at most 1.
    public var engineHighWatermark = 0.95
    /// The share of it at which copying begins again. Default 0.9; above 0, at most the high one.
    public var engineLowWatermark = 0.9
    /// Default `.chain`: what the engine hints. Without staging nothing is brought early. What is
    /// learnt of successors takes at most a thirty-second part of the memory limit.
    public var prefetch = Prefetch.chain

    // MARK: What is written

    /// Default `.wait`. `.memory` needs inclusive staging.
    public var overload = Overload.wait
    /// Default `.insert`. `.again` needs inclusive staging.
    public var writeMoment = WriteMoment.insert
    /// All bytes written to the devices in a day, the store's own included; what is not used is
    /// spent later, up to a day's worth, over restarts too. New blocks beyond it are not admitted,
    /// or, volatile ones under inclusive staging, stay in memory alone. Default 0: no budget; up to
    /// 2^60.
    public var writeBudgetBytesPerDay: UInt64 = 0

    // MARK: I/O

    /// Default `.automatic`.
    public var driver = Driver.automatic
    /// Requests at the device at once. Default 256; 8 to 4,096.
    public var queueDepth = 256
    /// Operations under way at once; more wait their turn. Default 4,096; 16 to 65,536.
    public var operationsInFlight = 4096
    /// Value bytes gathered into one write. Default 1 MiB; 64 KiB to 8 MiB, a multiple of 4 KiB.
    public var groupBytes = 1 << 20
    /// Buffers that gather writes. Default 8; 4 to 256.
    public var groupBuffers = 8
    /// Clean segments kept ahead on each device. Default 2; 1 to 64.
    public var cleanSegments = 2
    /// Cache mode: the most bytes written for each value byte admitted, on average since open.
    /// What is left below it goes to writing blocks that are asked for again when their segment is
    /// needed. Default 1.15; 1 (never again) to 4.
    public var writeAmplification = 1.15
    /// Bytes a second that are read in the background to find what has rotted; 0 (the default) for
    /// no such reading, at most 16 GiB. Every read is checked anyway: this is for what is read
    /// seldom and must not be lost unnoticed, as in store mode. 1 MiB/s goes through 86 GB a day.
    public var scrubBytesPerSecond = 0
    /// Bytes a second of recycled segments that the devices are told to forget, so that they do not
    /// carry them along; 0 (the default) for none, at most 64 GiB. A hole is punched and its room
    /// is taken again: the file system has to pass that on (mounted with `discard`), first writes
    /// into such room cost it more, and others may have taken the room meanwhile. For devices that
    /// are kept nearly full of short-lived blocks.
    public var discardBytesPerSecond = 0
    /// Cache mode: after how many value bytes admitted, as a share of the capacity, what is known
    /// of how often a block is asked for counts half. Default 0.5; 0.01 to 100.
    public var heatHalfLife = 0.5

    /// Seconds between two pages of statistics, which tools such as `hearth stat` read in the file
    /// `statistics` of the first directory. Default 1; 0 for no page, else 0.05 to 3,600. A page
    /// that cannot be written is no error of the store's: `Statistics.Trouble.pageErrors` counts.
    public var statisticsPeriodSeconds = 1.0

    /// What is asked of the store and hinted to it is written there, for `hearth-bench replay` to
    /// play: salted hashes of keys, times, sizes, nothing of the values. A file that is there is
    /// left alone, and the new one gets a number behind its name. Default: nothing is recorded.
    public var recordFile: String?
    /// Bytes of that file at the most; what comes later is dropped and counted. Default 1 GiB;
    /// 64 KiB to 2^50.
    public var recordLimitBytes: UInt64 = 1 << 30

    /// Who holds the store's lock, told to whoever finds it locked. Default: process id and name.
    public var holder: String?

    /// A store over these directories that takes at most this many bytes on them.
    public init(directories: [String], capacityBytes: UInt64) {
        self.directories = directories
        self.capacityBytes = capacityBytes
    }

    /// A store in one directory.
    public init(directory: String, capacityBytes: UInt64) {
        self.init(directories: [directory], capacityBytes: capacityBytes)
    }

    /// Bytes of a segment.
    public var segmentBytes: Int { core(entries: 1, tables: 0).segmentBytes }

    /// Streams of fresh blocks on a device of so many segments.
    func freshStreams(segments: UInt64) -> Int {
        core(entries: 1, tables: 0).freshStreams(segments: Int(clamping: segments))
    }

    /// Entries that the index gets.
    var effectiveIndexEntries: Int {
        if let indexEntries { return indexEntries }
        return Self.indexEntries(capacity: capacityBytes, blockBytes: expectedBlockBytes)
    }

    static func indexEntries(capacity: UInt64, blockBytes: Int) -> Int {
        let blocks = capacity / UInt64(max(blockBytes, 1))
        return max(4096, Int(clamping: min(blocks, 1 << 32) / 10 * 11 + 1024))
    }

    var effectiveTableCacheBytes: Int {
        tableCacheBytes ?? max(1 << 20, min(16 << 20, memoryLimitBytes / 8))
    }

    /// The core's form of this configuration.
    func core(entries: Int, tables: Int) -> LogStoreConfiguration {
        var random = SystemRandomNumberGenerator()
        var made = LogStoreConfiguration(
            directories: directories, capacityBytes: capacityBytes, indexEntries: entries,
            entropy: (random.next(), random.next(), random.next(), random.next()))
        made.mode = mode == .cache ? .cache : .store
        switch openMode {
        case .quiet: made.openMode = .quiet
        case .strict: made.openMode = .strict
        case .fresh: made.openMode = .fresh
        }
        made.maximumBlockBytes = maximumBlockBytes
        made.minimumSegmentBytes = minimumSegmentBytes
        made.groupBytes = groupBytes
        made.groupBuffers = groupBuffers
        made.operations = operationsInFlight
        made.cleanSegments = cleanSegments
        made.writeAmplification = writeAmplification
        made.scrubBytesPerSecond = UInt64(max(0, scrubBytesPerSecond))
        made.discardBytesPerSecond = UInt64(max(0, discardBytesPerSecond))
        made.heatHalfLife = heatHalfLife
        made.tableCacheBytes = tables
        made.allowAbsent = allowAbsentMembers
        made.holder = holder ?? ProcessName.current
        return made
    }
}
