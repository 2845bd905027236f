// Space: where every byte of the capacity is, and what memory the log takes. The parts add up to
// the capacity exactly; a test holds that after every kind of operation.

import SegmentFormat

/// Bytes on disk by what they hold.
package struct SpaceUsage: Equatable, Sendable {
    /// Stored images of blocks in the index, padding included.
    package var live: UInt64 = 0
    /// Written, and no longer of use until the segment is recycled.
    package var dead: UInt64 = 0
    /// Clean segments, and those within capacity that were not made yet.
    package var free: UInt64 = 0
    /// The unwritten rest of open segments.
    package var open: UInt64 = 0
    /// Manifests, checkpoints, headers, descriptor pages, footers.
    package var metadata: UInt64 = 0
    /// Less than a segment, or lost to a device that has no room for more.
    package var reserve: UInt64 = 0
    /// Segments that take no writes in this run, and members that are away.
    package var quarantined: UInt64 = 0
    package var capacity: UInt64 = 0

    package init() {}

    package var sum: UInt64 { live + dead + free + open + metadata + reserve + quarantined }
}

/// Bytes of memory by part.
package struct LogMemory: Equatable, Sendable {
    package var index = 0
    package var operations = 0
    package var groupBuffers = 0
    package var footers = 0
    package var bounce = 0
    package var shardTables = 0
    package var segments = 0
    package var other = 0
    package init() {}
    package var total: Int {
        index + operations + groupBuffers + footers + bounce + shardTables + segments + other
    }
}

extension LogStore {
    package var space: SpaceUsage {
        var usage = SpaceUsage()
        let page = UInt64(FormatConstants.pageBytes)
        let segment = UInt64(segmentPages) * page
        usage.capacity = manifest.capacityBytes
        let files = Opener.metadataBytes(manifest, configuration, devices: devices.count)
        usage.metadata = min(files, usage.capacity)
        segments.forEach { id in
            let state = segments.pointer(id).pointee
            let live = UInt64(state.livePages) * page
            let meta = UInt64(state.metaPages) * page
            switch state.state {
            case .uncreated, .clean:
                if state.state == .uncreated && devices[SegmentTable.device(id)].full {
                    usage.reserve += segment
                } else {
                    usage.free += segment
                }
            case .open:
                let written = UInt64(state.writtenPages) * page
                usage.live += live
                usage.metadata += meta
                usage.open += segment - written
                usage.dead += written - min(written, live + meta)
            case .sealed, .reclaiming:
                usage.live += live
                usage.metadata += min(meta, segment - live)
                usage.dead += segment - live - min(meta, segment - live)
            case .quarantined, .absent: usage.quarantined += segment
            }
        }
        // Members that are away were not part of the share-out.
        let held = usage.sum
        usage.reserve += usage.capacity > held ? usage.capacity - held : 0
        return usage
    }

    package var memory: LogMemory {
        var made = LogMemory()
        made.index = index.memoryBytes
        made.operations = operations.bytes
        made.groupBuffers = groupPool.bytes
        // Of what only footers of records need, what they have come to.
        let values = WriteStream.footerPages(segmentPages, records: false) + 1
        made.footers = footerPool.chunkCount * values * FormatConstants.pageBytes
        for stream in streams where stream.isRecords {
            let pages = max(0, (stream.footer?.pageCount ?? 0) - values)
            made.footers += pages * FormatConstants.pageBytes
        }
        made.bounce = bouncePool.bytes
        made.shardTables = tables.bytes
        made.segments = totalSegments * MemoryLayout<Segment>.stride
        made.other =
            manifestPool.bytes + reclaimPool.bytes + movePool.bytes + ghosts.bytes
            + reclaimers.reduce(0) { $0 + $1.plan.bytes } + (checkpointPool?.bytes ?? 0)
            + (scrub.memory == nil ? 0 : Scrubber.memoryBytes)
            + backlog.bytes + pacers.reduce(0) { $0 + $1.queue.bytes + $1.later.bytes }
        return made
    }

    /// For tests: goes through the whole index and compares each segment's live pages and blocks
    /// with what is accounted; returns the first segment that differs.
    package func auditLivePages() -> UInt32? {
        var pages: [UInt32: UInt32] = [:]
        var blocks: [UInt32: UInt32] = [:]
        guard sweepOwner == nil else { return nil }
        _ = index.sweep(from: 0, buckets: index.bucketCount) { _, entry in
            pages[entry.place.segment, default: 0] += accountedPages(entry)
            blocks[entry.place.segment, default: 0] += 1
            return false
        }
        var wrong: UInt32?
        segments.forEach { id in
            if segments[id].livePages != pages[id] ?? 0
                || segments[id].liveBlocks != blocks[id] ?? 0
            {
                wrong = wrong ?? id
            }
        }
        return wrong
    }
}
