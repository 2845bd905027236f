// BlockLayout: how a block's stored image is laid out, from what the index knows of it.
//
//   one shard:        [bytes][zeros to 4 KiB]
//   packed shards:    [shard 0][shard 1]…[zeros to 8][table][zeros to 4 KiB]
//   aligned shards:   [table, zeros to 4 KiB][shard 0, zeros to 4 KiB][shard 1, …]…
//
// The table is (length, checksum) of each shard, 8 bytes a shard.

package struct BlockLayout: Equatable, Sendable {
    package let length: UInt32
    package let shardCount: Int
    package let aligned: Bool

    package init(length: UInt32, shardCount: Int, aligned: Bool) {
        self.length = length
        self.shardCount = shardCount
        self.aligned = aligned && shardCount > 1
    }

    package var hasTable: Bool { shardCount > 1 }
    package var tableBytes: Int { hasTable ? 8 * shardCount : 0 }
    /// First byte of the table in the image.
    package var tableOffset: Int { aligned || !hasTable ? 0 : (Int(length) + 7) & ~7 }
    /// First byte of the first shard.
    package var dataOffset: Int { aligned ? Self.pageUp(tableBytes) : 0 }

    /// Bytes of the image, whole pages; for aligned shards the least it can be (exact when every
    /// shard but the last is a multiple of 4 KiB).
    package var storedBytes: Int {
        if aligned { return dataOffset + Self.pageUp(Int(length)) }
        return Self.pageUp(hasTable ? tableOffset + tableBytes : Int(length))
    }

    /// Bytes of the image of a block with these shards, whole pages.
    package static func storedBytes(
        shardLengths: UnsafeBufferPointer<UInt32>, aligned: Bool
    ) -> Int {
        var sum = 0
        var padded = 0
        for length in shardLengths {
            sum += Int(length)
            padded += pageUp(Int(length))
        }
        let layout = BlockLayout(
            length: UInt32(truncatingIfNeeded: sum), shardCount: shardLengths.count,
            aligned: aligned)
        return layout.aligned ? layout.dataOffset + padded : layout.storedBytes
    }

    static func pageUp(_ bytes: Int) -> Int {
        (bytes + FormatConstants.pageBytes - 1) & ~(FormatConstants.pageBytes - 1)
    }
}

/// The shard table's own checksum, which is what index and descriptor hold for a block of several
/// shards.
package enum ShardTable {
    package static func checksum(
        identity: UInt32, _ table: UnsafeRawBufferPointer, count: Int
    ) -> UInt32 {
        Checksum.crc32c(
            Checksum.valueSeed(
                identity: identity, shard: Checksum.tableShard,
                length: UInt32(truncatingIfNeeded: count)),
            table)
    }
}
