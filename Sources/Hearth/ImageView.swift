// ImageView: a block's stored image as it lies in slabs, and where in it a selection's bytes are.
// Used while the block is pinned, so that nothing moves.

import SegmentFormat

/// A run of bytes, by its offset from the arena's base.
struct Run: Sendable, Equatable {
    var offset: Int
    var count: Int
}

struct ImageView {
    /// The image's runs, in order.
    let runs: [Run]
    let base: UnsafeRawPointer
    let layout: BlockLayout

    /// The runs that hold the selection, in order; nil when it does not fit the block.
    func runs(of selection: Selection) -> [Run]? {
        guard let extents = extents(of: selection) else { return nil }
        var found: [Run] = []
        for extent in extents { appendRuns(extent, to: &found) }
        return found
    }

    /// Stretches of the image that hold the selection.
    private func extents(of selection: Selection) -> [Range<Int>]? {
        let length = Int(layout.length)
        var wanted = 0..<length
        switch selection {
        case .whole: break
        case .bytes(let range):
            guard !range.isEmpty, range.upperBound <= UInt64(length) else { return nil }
            wanted = Int(range.lowerBound)..<Int(range.upperBound)
        case .shards(let range):
            guard !range.isEmpty, range.lowerBound >= 0, range.upperBound <= layout.shardCount
            else { return nil }
            if layout.hasTable {
                let lower = start(ofShard: range.lowerBound)
                wanted = lower..<(lower + bytes(ofShards: range))
            }
        }
        guard layout.aligned else { return [wanted] }
        return alignedExtents(wanted)
    }

    /// Aligned shards: each lies at a page of its own.
    private func alignedExtents(_ wanted: Range<Int>) -> [Range<Int>] {
        var extents: [Range<Int>] = []
        var valueAt = 0
        var imageAt = layout.dataOffset
        for shard in 0..<layout.shardCount where valueAt < wanted.upperBound {
            let length = shardLength(shard)
            let lower = max(wanted.lowerBound, valueAt)
            let upper = min(wanted.upperBound, valueAt + length)
            if lower < upper {
                extents.append((imageAt + lower - valueAt)..<(imageAt + upper - valueAt))
            }
            valueAt += length
            let page = FormatConstants.pageBytes
            imageAt += (length + page - 1) / page * page
        }
        return extents
    }

    private func start(ofShard shard: Int) -> Int { bytes(ofShards: 0..<shard) }

    private func bytes(ofShards range: Range<Int>) -> Int {
        range.reduce(0) { $0 + shardLength($1) }
    }

    private func shardLength(_ shard: Int) -> Int {
        // An entry is 8-aligned in the image and slabs are whole pages: it never straddles runs.
        var skip = layout.tableOffset + 8 * shard
        for run in runs {
            if skip < run.count {
                let word = (base + run.offset + skip).loadUnaligned(as: UInt32.self)
                return Int(UInt32(littleEndian: word))
            }
            skip -= run.count
        }
        return 0
    }

    private func appendRuns(_ extent: Range<Int>, to found: inout [Run]) {
        var at = 0
        for run in runs {
            let lower = max(extent.lowerBound, at)
            let upper = min(extent.upperBound, at + run.count)
            if lower < upper {
                found.append(Run(offset: run.offset + lower - at, count: upper - lower))
            }
            at += run.count
        }
    }
}
