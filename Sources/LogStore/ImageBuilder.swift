// ImageBuilder: makes a block's stored image (padding and shard table included) out of source
// pieces, and its checksums. Bytes are copied first and checked where they then lie.

import BlockIO
import Glibc
import SegmentFormat

/// Reads pieces one after the other, host or device memory alike.
package struct PieceCursor {
    let pieces: UnsafePointer<Piece>
    let count: Int
    let regions: RegionTable
    var index = 0
    var used: UInt64 = 0
    /// The errno of a device copy that failed; 0 for none.
    package var errno: Int32 = 0

    package init(pieces: UnsafePointer<Piece>, count: Int, regions: RegionTable) {
        self.pieces = pieces
        self.count = count
        self.regions = regions
    }

    /// Moves on by `bytes` without touching them.
    package mutating func skip(_ bytes: Int) { advance(bytes) { _, _, _, _ in 0 } }

    package mutating func copy(_ bytes: Int, to target: UnsafeMutableRawPointer) {
        let regions = regions
        advance(bytes) { region, piece, length, done in
            if let copy = region.copy, region.kind == .device {
                return copy.fromDevice(copy.context, piece.offset, target + done, length)
            }
            guard let source = regions.pointer(piece) else { return 14 }
            (target + done).copyMemory(from: source, byteCount: length)
            return 0
        }
    }

    /// Copies the other way: from host memory into the pieces.
    package mutating func fill(_ bytes: Int, from source: UnsafeRawPointer) {
        let regions = regions
        advance(bytes) { region, piece, length, done in
            if let copy = region.copy, region.kind == .device {
                return copy.toDevice(
                    copy.context, piece.offset, UnsafeMutableRawPointer(mutating: source + done),
                    length)
            }
            guard let target = regions.pointer(piece) else { return 14 }
            target.copyMemory(from: source + done, byteCount: length)
            return 0
        }
    }

    private mutating func advance(
        _ bytes: Int, _ body: (Region, Piece, Int, Int) -> Int32
    ) {
        var done = 0
        while done < bytes && index < count {
            let piece = pieces[index]
            let length = min(UInt64(bytes - done), piece.length - used)
            if length > 0 {
                guard let region = regions[piece.region] else {
                    errno = 14
                    return
                }
                let part = Piece(
                    region: piece.region, offset: piece.offset + used, length: length)
                let result = body(region, part, Int(length), done)
                if result != 0 { errno = result }
            }
            done += Int(length)
            used += length
            if used == piece.length {
                index += 1
                used = 0
            }
        }
        if done < bytes { errno = 22 }
    }
}

package enum ImageBuilder {
    /// Builds the image in `bytes` bytes at `image`; returns the checksum that the index keeps.
    package static func build(
        into image: UnsafeMutableRawPointer, bytes: Int, source: inout PieceCursor,
        length: UInt32, shardCount: Int, shardLengths: UnsafePointer<UInt32>?, aligned: Bool,
        identity: UInt32
    ) -> UInt32 {
        guard shardCount > 1, let lengths = shardLengths else {
            source.copy(Int(length), to: image)
            zero(image + Int(length), bytes - Int(length))
            return Checksum.crc32c(
                Checksum.valueSeed(identity: identity, shard: 0, length: length),
                UnsafeRawBufferPointer(start: image, count: Int(length)))
        }
        let layout = BlockLayout(length: length, shardCount: shardCount, aligned: aligned)
        let table = image + layout.tableOffset
        var offset = layout.dataOffset
        for shard in 0..<shardCount {
            let size = Int(lengths[shard])
            source.copy(size, to: image + offset)
            let sum = Checksum.crc32c(
                Checksum.valueSeed(
                    identity: identity, shard: UInt32(shard), length: lengths[shard]),
                UnsafeRawBufferPointer(start: image + offset, count: size))
            let next = aligned ? alignUp(offset + size) : offset + size
            if aligned { zero(image + offset + size, next - offset - size) }
            offset = next
            (table + 8 * shard).storeBytes(of: lengths[shard].littleEndian, as: UInt32.self)
            (table + 8 * shard + 4).storeBytes(of: sum.littleEndian, as: UInt32.self)
        }
        if aligned {
            zero(table + layout.tableBytes, layout.dataOffset - layout.tableBytes)
        } else {
            zero(image + offset, layout.tableOffset - offset)
            let end = layout.tableOffset + layout.tableBytes
            zero(image + end, bytes - end)
        }
        return ShardTable.checksum(
            identity: identity,
            UnsafeRawBufferPointer(start: table, count: layout.tableBytes), count: shardCount)
    }

    static func alignUp(_ offset: Int) -> Int {
        (offset + FormatConstants.pageBytes - 1) & ~(FormatConstants.pageBytes - 1)
    }

    private static func zero(_ at: UnsafeMutableRawPointer, _ count: Int) {
        if count > 0 { memset(at, 0, count) }
    }
}
