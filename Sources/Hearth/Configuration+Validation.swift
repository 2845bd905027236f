// Checking a configuration, and splitting its one memory limit. Every refusal names the option, the
// value it has and the values it may have.

import Heat
import LogStore
import Prefetch
import SegmentFormat
import Tiering

/// How the memory limit is shared out; bytes.
public struct MemorySplit: Sendable, Equatable {
    /// The index, by its entries.
    public var index = 0
    /// Buffers that gather writes.
    public var groupBuffers = 0
    /// Footers of open segments, and pages on their way through reclaim.
    public var footers = 0
    /// Cached shard tables.
    public var shardTables = 0
    /// Bounce pages, checkpoint chunks, operation slots and queues.
    public var other = 0
    /// Slabs, with their table.
    public var staging = 0

    /// All of it.
    public var total: Int { index + groupBuffers + footers + shardTables + other + staging }
}

extension Configuration {
    /// This configuration with every default filled in; an error names the first option that does
    /// not fit.
    public func validated() throws(HearthError) -> Configuration {
        try checkStore()
        try checkRanges()
        var made = self
        made.indexEntries = effectiveIndexEntries
        try Self.check("indexEntries", made.effectiveIndexEntries, in: 1024...(1 << 33))
        made.tableCacheBytes = effectiveTableCacheBytes
        try Self.check("tableCacheBytes", made.effectiveTableCacheBytes, in: 1 << 20...4 << 30)
        try made.splitStaging()
        return made
    }

    /// What each part of the memory limit goes to; of a validated configuration, what it will be.
    public var memorySplit: MemorySplit {
        var split = MemorySplit()
        let entries = effectiveIndexEntries
        split.index = Self.indexBytes(entries: entries)
        split.groupBuffers = groupBuffers * (groupBytes + Self.groupGapBytes)
        let segmentPages = UInt32(segmentBytes / FormatConstants.pageBytes)
        let devices = max(1, directories.count)
        let fresh = freshStreams(
            segments: capacityBytes / UInt64(devices) / UInt64(max(1, segmentBytes)))
        let footers = WriteStream.footerPages(segmentPages, records: false)
        // Those of the two streams of records may be longer.
        let longer = WriteStream.footerPages(segmentPages, records: true) - footers
        split.footers =
            ((footers + 1) * WriteStream.footers(devices: devices, fresh: fresh) + 2 * longer)
            * FormatConstants.pageBytes
        // With what is kept about each table, and at least one set of the large ones.
        split.shardTables = effectiveTableCacheBytes / 8 * 9 + (160 << 10)
        // An operation: 1 KiB of key memory, its slots in both layers and in the queue.
        split.other =
            Self.fixedBytes + directories.count * Self.deviceBytes
            + (operationsInFlight + 512) * 2048
            + (recordFile == nil ? 0 : Recorder.memoryBytes)
        split.staging = stagingBytes.map { stagingCost($0) } ?? 0
        return split
    }

    private static let groupGapBytes = 128 << 10
    /// Bounce pages (5 MiB), checkpoint chunks (5), hints (5), manifest copies, touches, request
    /// queues, ghosts (1).
    private static let fixedBytes = 25 << 20
    /// What reclaim reads at once, records and blocks, and what it knows of a victim.
    private static let deviceBytes = 6 << 20

    /// Bytes of an index: buckets of 320 bytes for 8 entries, filled to 95 %.
    static func indexBytes(entries: Int) -> Int {
        let bytes = 24_576 + ((entries * 10 + 75) / 76 + 4) * 320
        let unit = bytes >= 16 << 20 ? 2 << 20 : 4096
        return (bytes + unit - 1) / unit * unit + (1 << 20)
    }

    /// Slabs with what is kept about each: two mappings in units of a huge page, and the owner's
    /// own tables.
    func stagingCost(_ bytes: Int) -> Int {
        if bytes == 0 { return 0 }
        let unit = 2 << 20
        func mapped(_ bytes: Int) -> Int { (bytes + unit - 1) / unit * unit }
        let slabs = bytes / max(slabBytes, 1)
        let tables = Prefetcher.memoryBytes(prefetching(slabs: slabs), residents: slabs)
        return mapped(bytes) + mapped(slabs * 192 + 8192) + slabs * 184 + (64 << 10) + tables
            + TierManager.memoryBytes(engineTier)
            + AdaptivePolicy.memoryBytes(capacity: max(1, slabs))
    }

    /// The most slabs whose cost is at most `left`; bytes.
    private func slabs(in left: Int) -> Int {
        let unit = 2 << 20
        var bytes = left / unit * unit
        while bytes > 0 && stagingCost(bytes) > left { bytes -= unit }
        return bytes / slabBytes * slabBytes
    }

    private mutating func splitStaging() throws(HearthError) {
        var split = memorySplit
        split.staging = 0
        let left = memoryLimitBytes - split.total
        if left < 0 {
            let largest = split.index > split.footers + split.groupBuffers
            throw HearthError(
                .configuration, operation: "validate", subject: "memoryLimitBytes",
                advice: "\(memoryLimitBytes) bytes do not hold the index (\(split.index), for "
                    + "\(effectiveIndexEntries) entries), group buffers (\(split.groupBuffers)), "
                    + "footers (\(split.footers)), shard tables (\(split.shardTables)) and other "
                    + "buffers (\(split.other)): \(split.total) in all. Raise it, or lower "
                    + (largest ? "indexEntries." : "maximumBlockBytes or groupBuffers."))
        }
        let least = 2 * (maximumBlockBytes + FormatConstants.pageBytes)
        guard let wanted = stagingBytes else {
            let bytes = slabs(in: left)
            stagingBytes = bytes
            if bytes < least {
                throw HearthError(
                    .configuration, operation: "validate", subject: "memoryLimitBytes",
                    advice: "\(memoryLimitBytes) bytes leave \(max(0, left)) for staging, which "
                        + "needs at least \(least) (two maximum blocks): give at least "
                        + "\(split.total + stagingCost(least)), or set "
                        + "stagingBytes to 0 to go without.")
            }
            return
        }
        if wanted == 0 { return }
        try Self.check("stagingBytes", wanted, in: least...Int.max / 4)
        if stagingCost(wanted) > left {
            throw HearthError(
                .configuration, operation: "validate", subject: "stagingBytes",
                advice: "\(wanted) bytes of slabs do not fit: the memory limit of "
                    + "\(memoryLimitBytes) leaves \(left). Lower stagingBytes or raise "
                    + "memoryLimitBytes to \(split.total + stagingCost(wanted)).")
        }
        stagingBytes = wanted / slabBytes * slabBytes
    }

    private func checkStore() throws(HearthError) {
        try Self.check("directories (their number)", directories.count, in: 1...32)
        for (index, path) in directories.enumerated() {
            if path.isEmpty || path.utf8.contains(0) {
                throw HearthError(
                    .configuration, operation: "validate", subject: "directories[\(index)]",
                    advice: "An empty path, or one with a zero byte: give a directory's path.")
            }
            if directories[..<index].contains(path) {
                throw HearthError(
                    .configuration, operation: "validate", subject: "directories[\(index)]",
                    advice: "\(path) is there twice: give each device one directory.")
            }
        }
        try Self.check("capacityBytes", Int(clamping: capacityBytes), in: 1 << 20...1 << 56)
    }

    package func checkRanges() throws(HearthError) {
        try Self.check("maximumBlockBytes", maximumBlockBytes, in: 4096...64 << 20)
        try Self.check("minimumSegmentBytes", minimumSegmentBytes, in: 1 << 20...2 << 30)
        try Self.check("memoryLimitBytes", memoryLimitBytes, in: 32 << 20...64 << 40)
        try Self.check("expectedBlockBytes", expectedBlockBytes, in: 1...64 << 20)
        // What it costs is computed below; here, that it can be.
        if let stagingBytes { try Self.check("stagingBytes", stagingBytes, in: 0...64 << 40) }
        try Self.check("slabBytes", slabBytes, in: 4096...2 << 20, multipleOf: 4096)
        try Self.check("queueDepth", queueDepth, in: 8...4096)
        try Self.check("operationsInFlight", operationsInFlight, in: 16...65_536)
        try Self.check("groupBytes", groupBytes, in: 64 << 10...8 << 20, multipleOf: 4096)
        try Self.check("groupBuffers", groupBuffers, in: 4...256)
        try Self.check("cleanSegments", cleanSegments, in: 1...64)
        try Self.check("writeAmplification", writeAmplification, in: 1...4)
        try Self.check(
            "engineMemoryBytes", Int(clamping: engineMemoryBytes), in: 0...1 << 50)
        try Self.check("engineHighWatermark", engineHighWatermark, in: 0.01...1)
        try Self.check(
            "engineLowWatermark", engineLowWatermark, in: 0.01...engineHighWatermark)
        try Self.check("scrubBytesPerSecond", scrubBytesPerSecond, in: 0...(16 << 30))
        try Self.check("discardBytesPerSecond", discardBytesPerSecond, in: 0...(64 << 30))
        try Self.check("heatHalfLife", heatHalfLife, in: 0.01...100)
        try Self.check(
            "writeBudgetBytesPerDay", Int(clamping: writeBudgetBytesPerDay), in: 0...1 << 60)
        try Self.check(
            "recordLimitBytes", Int(clamping: recordLimitBytes), in: 64 << 10...1 << 50)
        if let recordFile, recordFile.isEmpty || recordFile.utf8.contains(0) {
            throw HearthError(
                .configuration, operation: "validate", subject: "recordFile",
                advice: "An empty path, or one with a zero byte: give a file's path, or none.")
        }
        if statisticsPeriodSeconds != 0 {
            try Self.check(
                "statisticsPeriodSeconds", statisticsPeriodSeconds, in: 0.05...3600,
                orElse: "0 for none, or ")
        }
    }

    private static func check(
        _ option: String, _ value: Double, in range: ClosedRange<Double>, orElse: String = ""
    ) throws(HearthError) {
        if range.contains(value) { return }
        throw HearthError(
            .configuration, operation: "validate", subject: option,
            advice: "\(value) is out of range: give \(orElse)\(range.lowerBound) to "
                + "\(range.upperBound).")
    }

    private static func check(
        _ option: String, _ value: Int, in range: ClosedRange<Int>, multipleOf unit: Int = 1
    ) throws(HearthError) {
        if range.contains(value) && value % unit == 0 { return }
        let multiple = unit > 1 ? ", a multiple of \(unit)" : ""
        throw HearthError(
            .configuration, operation: "validate", subject: option,
            advice: "\(value) is out of range: give \(range.lowerBound) to "
                + "\(range.upperBound)\(multiple).")
    }
}
