// IndexEntry: what the index knows of one block, and how it packs into three 64-bit words. The
// packing uses every bit, so any three words unpack to some entry; `isValid` and `decode` tell the
// possible ones from garbage. Bit positions (high to low):
//   word2  segment 20 | page 20 | namespace slot 12 | shard count - 1  12
//   word3  length 27 | expiry 32 | damaged 1 | heat 4
//   word4  version, low half 32 | checksum 32

/// Names a key: 128 bits of a keyed hash, uniformly distributed. A `hi` of 0 is taken as 1.
package struct Fingerprint: Hashable, Sendable {
    package var hi: UInt64
    package var lo: UInt64

    package init(hi: UInt64, lo: UInt64) {
        self.hi = hi
        self.lo = lo
    }

    /// `hi` as the index stores it: 0 marks an empty slot.
    @inline(__always)
    var storedHi: UInt64 { hi == 0 ? 1 : hi }
}

/// Where a block lies: a segment id (20 bits) and a page in it (20 bits, units of 4 KiB).
package struct Place: Hashable, Sendable {
    package var segment: UInt32
    package var page: UInt32

    package init(segment: UInt32, page: UInt32) {
        self.segment = segment
        self.page = page
    }
}

package struct IndexEntry: Hashable, Sendable {
    package var place: Place
    /// Bytes of the value, 1 to `maxLength`.
    package var length: UInt32
    /// 1 to 4096.
    package var shardCount: Int
    /// Below 4096.
    package var namespaceSlot: UInt16
    /// The low half of the version.
    package var versionLow: UInt32
    /// Of the bytes (one shard) or of the shard table (several).
    package var checksum: UInt32
    /// Unix seconds; 0 for none.
    package var expiry: UInt32
    /// Below 32: `damagedFlag`, and the heat in the four bits below it.
    package var flags: UInt8

    /// Flag of a block of which a shard was found damaged.
    package static let damagedFlag: UInt8 = 16
    package var isDamaged: Bool { flags & Self.damagedFlag != 0 }
    /// How much the block is asked for, 0 to 15; see `IndexHeat`.
    package var heat: UInt8 { flags & Self.heatMask }
    package static let heatMask: UInt8 = 15

    /// The largest block, 64 MiB.
    package static let maxLength: UInt32 = 64 << 20

    package init(
        place: Place, length: UInt32, shardCount: Int = 1, namespaceSlot: UInt16,
        versionLow: UInt32, checksum: UInt32, expiry: UInt32 = 0, flags: UInt8 = 0
    ) {
        self.place = place
        self.length = length
        self.shardCount = shardCount
        self.namespaceSlot = namespaceSlot
        self.versionLow = versionLow
        self.checksum = checksum
        self.expiry = expiry
        self.flags = flags
    }

    /// Whether every field fits the packing. `insert` and `update` stop on an entry that is not:
    /// check what was read from disk first.
    @inline(__always)
    package var isValid: Bool {
        place.segment < 1 << 20 && place.page < 1 << 20 && length >= 1
            && length <= Self.maxLength && shardCount >= 1 && shardCount <= 4096
            && namespaceSlot < 4096 && flags < 32
    }

    /// Whether both speak of one copy of one block in one condition: everything but the heat.
    package func isSameBlock(as other: IndexEntry?) -> Bool {
        guard var other else { return false }
        other.flags = other.flags & ~Self.heatMask | heat
        return self == other
    }

    /// Whether the entry is past its expiry at `now` (unix seconds).
    @inline(__always)
    package func isExpired(at now: UInt32) -> Bool { expiry != 0 && expiry <= now }
}

/// The three packed words of an entry.
struct IndexWords {
    var word2: UInt64
    var word3: UInt64
    var word4: UInt64

    static let flagsMask: UInt64 = 31

    @inline(__always)
    init(_ word2: UInt64, _ word3: UInt64, _ word4: UInt64) {
        self.word2 = word2
        self.word3 = word3
        self.word4 = word4
    }

    /// The entry must be valid.
    @inline(__always)
    init(_ entry: IndexEntry) {
        let shards = UInt64(truncatingIfNeeded: entry.shardCount &- 1)
        word2 =
            UInt64(entry.place.segment) << 44 | UInt64(entry.place.page) << 24
            | UInt64(entry.namespaceSlot) << 12 | shards
        word3 = UInt64(entry.length) << 37 | UInt64(entry.expiry) << 5 | UInt64(entry.flags)
        word4 = UInt64(entry.versionLow) << 32 | UInt64(entry.checksum)
    }

    @inline(__always)
    var entry: IndexEntry {
        IndexEntry(
            place: Place(
                segment: UInt32(truncatingIfNeeded: word2 >> 44),
                page: UInt32(truncatingIfNeeded: word2 >> 24 & 0xF_FFFF)),
            length: UInt32(truncatingIfNeeded: word3 >> 37),
            shardCount: Int(truncatingIfNeeded: word2 & 0xFFF) &+ 1,
            namespaceSlot: UInt16(truncatingIfNeeded: word2 >> 12 & 0xFFF),
            versionLow: UInt32(truncatingIfNeeded: word4 >> 32),
            checksum: UInt32(truncatingIfNeeded: word4),
            expiry: Self.expiry(word3),
            flags: UInt8(truncatingIfNeeded: word3 & Self.flagsMask))
    }

    @inline(__always)
    static func expiry(_ word3: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: word3 >> 5) }

    /// Whether an entry counts as there: not expired, not damaged.
    @inline(__always)
    static func isPresent(_ word3: UInt64, now: UInt32) -> Bool {
        let expiry = Self.expiry(word3)
        return (expiry == 0 || expiry > now) && word3 & UInt64(IndexEntry.damagedFlag) == 0
    }
}
