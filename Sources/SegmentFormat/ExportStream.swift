// ExportStream: a namespace's blocks as a stream of bytes: a header with the namespace's record,
// one record a block, and an end with counts. docs/export-format.md tells it byte by byte.
//
// Every part carries a CRC32C of its own, the front of a record one before its value, so that no
// length is believed before it is checked. A value's own checksum, made at its put, goes along
// unchanged. Decoding trusts nothing and never traps.

package enum ExportStream {
    package static let headerMagic: UInt32 = 0x5058_4548  // "HEXP"
    package static let recordMagic: UInt32 = 0x4352_5848  // "HXRC"
    package static let endMagic: UInt32 = 0x4E45_5848  // "HXEN"
    package static let version: UInt16 = 1
    /// Features that this build writes; an unknown bit is refused.
    static let incompatible: UInt64 = 1

    /// Magic and size, which every part begins with.
    package static let tagBytes = 8
    /// The longest header: a namespace has 64 fields of at most 4 KiB each name and value.
    package static let maxHeaderBytes = 1 << 20
    /// The longest front of a record.
    package static let maxFrontBytes =
        ExportRecord.fixedBytes + 2 * FormatConstants.maxKeyBytes
        + 8 * FormatConstants.maxShards + 16

    /// The magic and the size that a part begins with; nil for another magic or an impossible size.
    package static func tag(_ bytes: UnsafeRawBufferPointer) -> (magic: UInt32, size: Int)? {
        guard bytes.count >= tagBytes else { return nil }
        let size = Int(bytes.u32(4))
        switch bytes.u32(0) {
        case headerMagic where size >= ExportHeader.fixedBytes && size <= maxHeaderBytes: break
        case recordMagic where size >= ExportRecord.fixedBytes && size <= maxFrontBytes: break
        case endMagic where size == ExportEnd.bytes: break
        default: return nil
        }
        return (bytes.u32(0), size)
    }

    /// Stores the CRC32C of all before its last four bytes there.
    static func seal(_ bytes: UnsafeMutableRawBufferPointer) {
        let body = UnsafeRawBufferPointer(rebasing: bytes[..<(bytes.count - 4)])
        bytes.put(Checksum.crc32c(0, body), bytes.count - 4)
    }

    static func holds(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard bytes.count >= 4 else { return false }
        let body = UnsafeRawBufferPointer(rebasing: bytes[..<(bytes.count - 4)])
        return Checksum.crc32c(0, body) == bytes.u32(bytes.count - 4)
    }
}

package struct ExportHeader: Sendable {
    static let fixedBytes = 80
    /// The store that it comes from.
    package var store = Identity128(hi: 0, lo: 0)
    package var namespace: NamespaceRecord
    /// Every record's version lies between these.
    package var lowestVersion: UInt64 = 0
    package var highestVersion: UInt64 = 0
    /// Blocks and value bytes at most; the end tells how many came.
    package var blocks: UInt64 = 0
    package var valueBytes: UInt64 = 0
    package var wallSeconds: UInt32 = 0

    package init(namespace: NamespaceRecord) { self.namespace = namespace }

    package func encode() -> [UInt8] {
        let count = Self.fixedBytes + namespace.encodedBytes + 8
        var made = [UInt8](repeating: 0, count: count)
        made.withUnsafeMutableBytes { bytes in
            bytes.put(ExportStream.headerMagic, 0)
            bytes.put(UInt32(count), 4)
            bytes.put(ExportStream.version, 8)
            bytes.put(wallSeconds, 12)
            bytes.put(ExportStream.incompatible, 16)
            bytes.put(store, 24)
            bytes.put(lowestVersion, 40)
            bytes.put(highestVersion, 48)
            bytes.put(blocks, 56)
            bytes.put(valueBytes, 64)
            namespace.encode(
                UnsafeMutableRawBufferPointer(rebasing: bytes[Self.fixedBytes..<(count - 8)]))
            ExportStream.seal(bytes)
        }
        return made
    }

    package static func decode(
        _ bytes: UnsafeRawBufferPointer
    ) throws(FormatError) -> ExportHeader {
        guard let tag = ExportStream.tag(bytes), tag.magic == ExportStream.headerMagic,
            tag.size == bytes.count
        else { throw .notHearth }
        guard ExportStream.holds(bytes), bytes.count >= fixedBytes + 8 else { throw .damaged }
        let unknown = bytes.u64(16) & ~ExportStream.incompatible
        if unknown != 0 { throw .newerFormat(word: unknown) }
        let (record, size) = try NamespaceRecord.decode(
            UnsafeRawBufferPointer(rebasing: bytes[fixedBytes..<(bytes.count - 8)]))
        guard size == bytes.count - 8 - fixedBytes,
            NamespaceRecord.fingerprint(fields: record.fields) == record.fingerprint
        else { throw .damaged }
        var made = ExportHeader(namespace: record)
        made.wallSeconds = bytes.u32(12)
        made.store = bytes.identity(24)
        made.lowestVersion = bytes.u64(40)
        made.highestVersion = bytes.u64(48)
        made.blocks = bytes.u64(56)
        made.valueBytes = bytes.u64(64)
        guard made.highestVersion < FormatConstants.counterLimit else { throw .damaged }
        return made
    }
}

/// One block: its front (what the log says of it, key, parent, shard table), the bytes of its value
/// without padding, and a CRC32C over both.
package struct ExportRecord: Sendable {
    static let fixedBytes = 80
    /// The block's descriptor as in the log; its place means nothing here.
    package var descriptor: Descriptor
    package var key: [UInt8]
    package var parent: [UInt8]
    /// Length and checksum of each shard; empty for a block of one.
    package var table: [UInt8]

    package init(descriptor: Descriptor, key: [UInt8], parent: [UInt8], table: [UInt8]) {
        self.descriptor = descriptor
        self.key = key
        self.parent = parent
        self.table = table
    }

    package var shardCount: Int { Int(descriptor.shardCount) + 1 }

    /// The lengths of the shards.
    package var shardLengths: [UInt32] {
        guard !table.isEmpty else { return [descriptor.length] }
        return table.withUnsafeBytes { table in
            (0..<shardCount).map { table.u32(8 * $0) }
        }
    }

    /// The front of the record that has this number in its stream.
    package func encodeFront(sequence: UInt64) -> [UInt8] {
        let texts = Self.fixedBytes + key.count + parent.count
        let tableAt = (texts + 7) & ~7
        let count = tableAt + table.count + 8
        var made = [UInt8](repeating: 0, count: count)
        var own = descriptor
        own.page = 0
        made.withUnsafeMutableBytes { bytes in
            bytes.put(ExportStream.recordMagic, 0)
            bytes.put(UInt32(count), 4)
            bytes.put(sequence, 8)
            own.encode(UnsafeMutableRawBufferPointer(rebasing: bytes[16..<Self.fixedBytes]))
            for (number, byte) in (key + parent).enumerated() {
                bytes[Self.fixedBytes + number] = byte
            }
            for (number, byte) in table.enumerated() { bytes[tableAt + number] = byte }
            ExportStream.seal(bytes)
        }
        return made
    }

    package static func decodeFront(
        _ bytes: UnsafeRawBufferPointer, sequence: UInt64
    ) throws(FormatError) -> ExportRecord {
        guard let tag = ExportStream.tag(bytes), tag.magic == ExportStream.recordMagic,
            tag.size == bytes.count
        else { throw .notHearth }
        guard ExportStream.holds(bytes), bytes.count >= fixedBytes + 8 else { throw .damaged }
        guard bytes.u64(8) == sequence else { throw .wrongPlace }
        let descriptor = Descriptor(UnsafeRawBufferPointer(rebasing: bytes[16..<fixedBytes]))
        let shards = Int(descriptor.shardCount) + 1
        let keyEnd = fixedBytes + Int(descriptor.keyLength)
        let parentEnd = keyEnd + Int(descriptor.parentLength)
        let tableAt = (parentEnd + 7) & ~7
        let tableBytes = shards > 1 ? 8 * shards : 0
        guard descriptor.isPlausible, descriptor.hasValue,
            tableAt + tableBytes + 8 == bytes.count
        else { throw .damaged }
        let made = ExportRecord(
            descriptor: descriptor, key: Array(bytes[fixedBytes..<keyEnd]),
            parent: Array(bytes[keyEnd..<parentEnd]),
            table: Array(bytes[tableAt..<(tableAt + tableBytes)]))
        let sum = made.shardLengths.reduce(UInt64(0)) { $0 + UInt64($1) }
        guard sum == UInt64(descriptor.length) else { throw .damaged }
        return made
    }

    /// The CRC that follows the value.
    package static func sum(
        front: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer
    ) -> UInt32 {
        Checksum.crc32c(Checksum.crc32c(0, front), value)
    }
}

package struct ExportEnd: Equatable, Sendable {
    static let bytes = 40
    package var records: UInt64 = 0
    package var valueBytes: UInt64 = 0
    /// Blocks of the namespace that were not whole, and so left out.
    package var leftOut: UInt64 = 0
    /// CRC32C over the CRCs of all records, in order.
    package var chain: UInt32 = 0

    package init() {}

    /// Takes in the CRC of one more record.
    package mutating func add(_ sum: UInt32, length: UInt32) {
        records += 1
        valueBytes += UInt64(length)
        chain = withUnsafeBytes(of: sum.littleEndian) { Checksum.crc32c(chain, $0) }
    }

    package func encode() -> [UInt8] {
        var made = [UInt8](repeating: 0, count: Self.bytes)
        made.withUnsafeMutableBytes { bytes in
            bytes.put(ExportStream.endMagic, 0)
            bytes.put(UInt32(Self.bytes), 4)
            bytes.put(records, 8)
            bytes.put(valueBytes, 16)
            bytes.put(leftOut, 24)
            bytes.put(chain, 32)
            ExportStream.seal(bytes)
        }
        return made
    }

    package static func decode(_ from: UnsafeRawBufferPointer) throws(FormatError) -> ExportEnd {
        guard let tag = ExportStream.tag(from), tag.magic == ExportStream.endMagic,
            from.count == bytes
        else { throw .notHearth }
        guard ExportStream.holds(from) else { throw .damaged }
        var made = ExportEnd()
        made.records = from.u64(8)
        made.valueBytes = from.u64(16)
        made.leftOut = from.u64(24)
        made.chain = from.u32(32)
        return made
    }
}
