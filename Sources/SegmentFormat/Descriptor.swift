// Descriptor: what the log says of one block: 64 bytes, then its key, then its parent's key, padded
// to 8. A record without a value is a tombstone (the key was deleted at this version) or a
// supersede (versions of the key below this one are dead).

package struct DescriptorFlags: OptionSet, Sendable {
    package let rawValue: UInt16
    package init(rawValue: UInt16) { self.rawValue = rawValue }
    package static let tombstone = DescriptorFlags(rawValue: 1)
    package static let supersede = DescriptorFlags(rawValue: 2)
    package static let aligned = DescriptorFlags(rawValue: 4)
    package static let hasParent = DescriptorFlags(rawValue: 8)
}

package struct Descriptor: Equatable, Sendable {
    package static let fixedBytes = 64

    package var version: UInt64 = 0
    package var namespaceInstance: UInt64 = 0
    /// First page of the stored image in its segment.
    package var page: UInt32 = 0
    /// Value bytes.
    package var length: UInt32 = 0
    package var storedPages: UInt32 = 0
    package var checksum: UInt32 = 0
    /// Unix seconds, 0 for none.
    package var expiry: UInt32 = 0
    /// Shards less one.
    package var shardCount: UInt16 = 0
    package var flags: DescriptorFlags = []
    package var keyLength: UInt16 = 0
    package var parentLength: UInt16 = 0
    /// Reserved: 0 for raw bytes.
    package var codec: UInt8 = 0
    /// Reserved: bytes before the codec; equal to `length` for codec 0.
    package var rawLength: UInt32 = 0
    /// Reserved: 0 for none.
    package var encryptionKey: UInt32 = 0

    package init() {}

    package static func recordBytes(keyLength: Int, parentLength: Int) -> Int {
        (fixedBytes + keyLength + parentLength + 7) & ~7
    }

    package var hasValue: Bool { flags.isDisjoint(with: [.tombstone, .supersede]) }

    func encode(_ to: UnsafeMutableRawBufferPointer) {
        to.put(version, 0)
        to.put(namespaceInstance, 8)
        to.put(page, 16)
        to.put(length, 20)
        to.put(storedPages, 24)
        to.put(checksum, 28)
        to.put(expiry, 32)
        to.put(shardCount, 36)
        to.put(flags.rawValue, 38)
        to.put(keyLength, 40)
        to.put(parentLength, 42)
        to.put(codec, 44)
        to.put(UInt8(0), 45)
        to.put(UInt16(0), 46)
        to.put(rawLength, 48)
        to.put(encryptionKey, 52)
        to.put(UInt64(0), 56)
    }

    init(_ from: UnsafeRawBufferPointer) {
        version = from.u64(0)
        namespaceInstance = from.u64(8)
        page = from.u32(16)
        length = from.u32(20)
        storedPages = from.u32(24)
        checksum = from.u32(28)
        expiry = from.u32(32)
        shardCount = from.u16(36)
        flags = DescriptorFlags(rawValue: from.u16(38))
        keyLength = from.u16(40)
        parentLength = from.u16(42)
        codec = from.u8(44)
        rawLength = from.u32(48)
        encryptionKey = from.u32(52)
    }

    /// Whether the fields can be true of any block.
    var isPlausible: Bool {
        guard keyLength >= 1, Int(keyLength) <= FormatConstants.maxKeyBytes,
            Int(parentLength) <= FormatConstants.maxKeyBytes,
            Int(shardCount) < FormatConstants.maxShards, version > 0,
            version < FormatConstants.counterLimit, codec == 0
        else { return false }
        if !hasValue { return true }
        return length > 0 && Int(length) <= FormatConstants.maxBlockBytes && storedPages > 0
            && UInt64(storedPages) * UInt64(FormatConstants.pageBytes) >= UInt64(length)
    }
}
