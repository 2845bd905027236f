// StoredImage: a block's stored image in memory, read whole: where its shards lie, and whether
// every checksum in it holds. Nothing is believed before the table's own checksum and sum hold.

/// What of a stored image does not verify.
package enum ImageDamage: Equatable, Sendable {
    /// The one value of a block without a table.
    case value
    /// The shard table: of the shards nothing can be said.
    case table
    /// These shards.
    case shards([Int])
    /// The image is longer than the bytes at hand.
    case cutShort
}

package struct StoredImage {
    package let layout: BlockLayout
    private let bytes: UnsafeRawBufferPointer

    package init(layout: BlockLayout, bytes: UnsafeRawBufferPointer) {
        self.layout = layout
        self.bytes = bytes
    }

    /// Every checksum made again; nil when all hold. `identity` is `Checksum.identitySeed`,
    /// `checksum` what index and descriptor have.
    package func damage(identity: UInt32, checksum: UInt32) -> ImageDamage? {
        if !layout.hasTable {
            guard Int(layout.length) <= bytes.count else { return .cutShort }
            let seed = Checksum.valueSeed(identity: identity, shard: 0, length: layout.length)
            let value = UnsafeRawBufferPointer(rebasing: bytes[..<Int(layout.length)])
            return Checksum.crc32c(seed, value) == checksum ? nil : .value
        }
        guard let table else { return .cutShort }
        guard Self.tableHolds(table, layout, identity: identity, checksum: checksum) else {
            return .table
        }
        var bad: [Int] = []
        let inside = forEachShard { shard, value, sum in
            let seed = Checksum.valueSeed(
                identity: identity, shard: UInt32(shard), length: UInt32(value.count))
            if Checksum.crc32c(seed, value) != sum { bad.append(shard) }
        }
        if !inside { return .cutShort }
        return bad.isEmpty ? nil : .shards(bad)
    }

    /// The shard table; nil for a block without one, or when it lies outside.
    package var table: UnsafeRawBufferPointer? {
        let end = layout.tableOffset + layout.tableBytes
        guard layout.hasTable, end <= bytes.count else { return nil }
        return UnsafeRawBufferPointer(rebasing: bytes[layout.tableOffset..<end])
    }

    /// Visits each shard of a table that holds, with its checksum; a block without a table has one
    /// shard, whose checksum is the block's own. False when one lies outside.
    package func forEachShard(
        _ body: (_ shard: Int, _ value: UnsafeRawBufferPointer, _ sum: UInt32) -> Void
    ) -> Bool {
        guard layout.hasTable else {
            guard Int(layout.length) <= bytes.count else { return false }
            body(0, UnsafeRawBufferPointer(rebasing: bytes[..<Int(layout.length)]), 0)
            return true
        }
        guard let table else { return false }
        var offset = layout.dataOffset
        for shard in 0..<layout.shardCount {
            let length = Int(table.u32(8 * shard))
            guard length <= bytes.count, offset <= bytes.count - length else { return false }
            body(
                shard, UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + length)]),
                table.u32(8 * shard + 4))
            offset += layout.aligned ? BlockLayout.pageUp(length) : length
        }
        return true
    }

    /// Whether a table is the one that was put: its checksum, and that its lengths add up.
    package static func tableHolds(
        _ table: UnsafeRawBufferPointer, _ layout: BlockLayout, identity: UInt32, checksum: UInt32
    ) -> Bool {
        guard
            ShardTable.checksum(identity: identity, table, count: layout.shardCount) == checksum
        else { return false }
        var sum: UInt64 = 0
        for shard in 0..<layout.shardCount { sum += UInt64(table.u32(8 * shard)) }
        return sum == UInt64(layout.length)
    }
}
