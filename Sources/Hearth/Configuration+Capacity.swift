// How many bytes of capacity a given load of live value bytes needs: what the store writes besides
// values, and what it keeps free, added up for the worst case. So a store of this capacity holds at
// least that many value bytes of blocks of that size, in cache mode too, where it evicts a whole
// segment at a time.

import LogStore
import SegmentFormat

extension Configuration {
    /// Bytes of capacity that this configuration needs to hold `valueBytes` live bytes in blocks of
    /// `blockBytes`. `shards` counts the shards of a block, `aligned` their layout, and
    /// `blocksPerGroup` how many blocks at least are put together (1, a put at a time, is the most
    /// costly: each has a descriptor page of its own).
    public func capacity(
        forValueBytes valueBytes: UInt64, blockBytes: Int, shards: Int = 1, aligned: Bool = false,
        blocksPerGroup: Int = 1
    ) -> UInt64 {
        let segment = UInt64(segmentBytes)
        let perSegment = blocksPerSegment(
            stored: Self.storedBytes(blockBytes, shards, aligned), blockBytes: blockBytes,
            blocksPerGroup: max(1, blocksPerGroup))
        // Far above any capacity that may be set, and far from what a sum here could overflow by.
        let most: UInt64 = 1 << 60
        let block = UInt64(max(blockBytes, 1))
        let blocks = valueBytes / block + (valueBytes % block == 0 ? 0 : 1)
        let devices = UInt64(max(1, directories.count))
        let full = blocks / perSegment + (blocks % perSegment == 0 ? 0 : 1)
        // On each device: one being emptied, the clean ones kept ahead, two of records, for blocks
        // carried out of a victim the open one, and in store mode one more, and the open segments
        // of the streams of fresh blocks.
        let kept = UInt64(1 + cleanSegments + 2 + (mode == .cache ? 1 : 2))
        var perDevice = full / devices + (full % devices == 0 ? 0 : 1) + kept
        perDevice += UInt64(freshStreams(segments: perDevice))
        let (bytes, overflow) = perDevice.multipliedReportingOverflow(by: devices * segment)
        if overflow || bytes > most { return most }
        let segments = bytes
        // The index, and so the checkpoint files, are sized by the capacity itself: a few rounds
        // bring the sum to rest.
        var capacity = segments
        for _ in 0..<8 {
            let entries =
                indexEntries
                ?? Self.indexEntries(capacity: capacity, blockBytes: expectedBlockBytes)
            let needed = segments + Self.metadataBytes(entries: entries, devices: Int(devices))
            if needed <= capacity { break }
            capacity = needed + needed / 4096
        }
        return capacity
    }

    /// The same for a store in one directory with everything else at its default.
    public static func capacity(
        forValueBytes valueBytes: UInt64, blockBytes: Int, mode: Mode = .cache, devices: Int = 1,
        maximumBlockBytes: Int = 16 << 20, minimumSegmentBytes: Int = 256 << 20
    ) -> UInt64 {
        var made = Configuration(
            directories: [String](repeating: "", count: max(1, devices)), capacityBytes: 0)
        made.mode = mode
        made.maximumBlockBytes = maximumBlockBytes
        made.minimumSegmentBytes = minimumSegmentBytes
        made.expectedBlockBytes = max(1, blockBytes)
        return made.capacity(forValueBytes: valueBytes, blockBytes: blockBytes)
    }

    /// Bytes of manifests and checkpoint files.
    static func metadataBytes(entries: Int, devices: Int) -> UInt64 {
        let perChunk = CheckpointChunk.entriesPerChunk
        let chunks = UInt64((entries + perChunk - 1) / perChunk + 2)
        let checkpoint =
            CheckpointHeader.dataOffset(segments: SegmentTable.maximumLocal)
            + chunks * UInt64(CheckpointChunk.chunkBytes)
        return UInt64(devices * Manifest.copies * Manifest.copyBytes) + 2 * checkpoint
    }

    /// Bytes of a block's stored image, in whole pages.
    static func storedBytes(_ blockBytes: Int, _ shards: Int, _ aligned: Bool) -> Int {
        let page = FormatConstants.pageBytes
        func pages(_ bytes: Int) -> Int { (bytes + page - 1) / page * page }
        if shards <= 1 { return pages(blockBytes) }
        if !aligned { return pages((blockBytes + 7) / 8 * 8 + 8 * shards) }
        let each = (blockBytes + shards - 1) / shards
        return pages(8 * shards) + shards * pages(each)
    }

    private func blocksPerSegment(stored: Int, blockBytes: Int, blocksPerGroup: Int) -> UInt64 {
        let page = FormatConstants.pageBytes
        // A descriptor of 128 bytes and a key of up to 512, in the group and again in the footer.
        let record = 128 + 64
        let inGroup = max(1, min(blocksPerGroup, max(1, groupBytes / stored)))
        let descriptorPages = (inGroup * record + page - 1) / page
        let group = inGroup * stored + descriptorPages * page
        // Header, trailer, a footer page begun, and the end that no group fits into any more.
        let usable = segmentBytes - 4 * page - max(groupBytes, stored) - (128 << 10)
        let groups = max(1, usable / (group + inGroup * record))
        return UInt64(groups * inGroup)
    }
}
