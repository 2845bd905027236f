// NamespaceRecord: one namespace in the manifest: what it is for (its fields), the fingerprint made
// of them, and the instance that separates its keys from those of every other, purged ones
// included.

package struct NamespaceRecord: Sendable {
    package static let live: UInt8 = 0

    package var instance: UInt64
    package var fingerprint: Identity128
    package var state: UInt8
    /// Its number in index entries; stays the same while it lives.
    package var slot: UInt16 = 0
    /// Entries of this slot with lower versions belong to a purged predecessor.
    package var createdVersion: UInt64 = 0
    package var aligned: Bool
    package var ttlSeconds: UInt32
    package var capBytes: UInt64
    package var fields: [(String, String)]

    package init(
        instance: UInt64, fingerprint: Identity128, state: UInt8, aligned: Bool,
        ttlSeconds: UInt32, capBytes: UInt64, fields: [(String, String)]
    ) {
        self.instance = instance
        self.fingerprint = fingerprint
        self.state = state
        self.aligned = aligned
        self.ttlSeconds = ttlSeconds
        self.capBytes = capBytes
        self.fields = fields
    }

    /// The fingerprint of a set of fields, whatever their order: the same on every machine, so that
    /// an exported block's checksum holds elsewhere.
    package static func fingerprint(fields: [(String, String)]) -> Identity128 {
        var bytes: [UInt8] = []
        // By bytes: the order of strings depends on Unicode's tables, and takes some that differ
        // in bytes for equal.
        let sorted = fields.sorted { one, other in
            one.0.utf8.elementsEqual(other.0.utf8)
                ? one.1.utf8.lexicographicallyPrecedes(other.1.utf8)
                : one.0.utf8.lexicographicallyPrecedes(other.0.utf8)
        }
        for (name, value) in sorted {
            for text in [name, value] {
                let count = UInt32(truncatingIfNeeded: text.utf8.count)
                withUnsafeBytes(of: count.littleEndian) { bytes.append(contentsOf: $0) }
                bytes.append(contentsOf: text.utf8)
            }
        }
        let key = SecretKey(k0: 0x4865_6172_7468_206B, k1: 0x7620_6669_6E67_6572)
        return bytes.withUnsafeBytes { SipHash.hash128(key, $0) }
    }

    static let fixedBytes = 72
    static let maximumFields = 64

    package var encodedBytes: Int {
        var bytes = Self.fixedBytes
        for (name, value) in fields { bytes += 4 + name.utf8.count + value.utf8.count }
        return (bytes + 7) & ~7
    }

    package func encode(_ to: UnsafeMutableRawBufferPointer) {
        to.put(UInt32(encodedBytes), 0)
        to.put(UInt16(fields.count), 4)
        to.put(slot, 6)
        to.put(instance, 8)
        to.put(fingerprint, 16)
        to.put(createdVersion, 32)
        to.put(capBytes, 40)
        to.put(ttlSeconds, 48)
        to.put(state, 52)
        to.put(UInt8(aligned ? 1 : 0), 53)
        var at = Self.fixedBytes
        for (name, value) in fields {
            to.put(UInt16(name.utf8.count), at)
            to.put(UInt16(value.utf8.count), at + 2)
            at += 4
            for byte in name.utf8 {
                to[at] = byte
                at += 1
            }
            for byte in value.utf8 {
                to[at] = byte
                at += 1
            }
        }
    }

    /// Decodes the record at the front of `from`; returns it with its size.
    package static func decode(
        _ from: UnsafeRawBufferPointer
    ) throws(FormatError) -> (NamespaceRecord, Int) {
        guard from.count >= fixedBytes else { throw .damaged }
        let bytes = Int(from.u32(0))
        let count = Int(from.u16(4))
        guard bytes >= fixedBytes, bytes <= from.count, count <= maximumFields else {
            throw .damaged
        }
        var fields: [(String, String)] = []
        var at = fixedBytes
        for _ in 0..<count {
            guard at + 4 <= bytes else { throw .damaged }
            let name = Int(from.u16(at))
            let value = Int(from.u16(at + 2))
            at += 4
            guard at + name + value <= bytes else { throw .damaged }
            let middle = at + name
            // Text that is none is not mended, which could make it longer than its room.
            guard let nameText = String(validating: from[at..<middle], as: UTF8.self),
                let valueText = String(validating: from[middle..<(middle + value)], as: UTF8.self)
            else { throw .damaged }
            fields.append((nameText, valueText))
            at = middle + value
        }
        var record = NamespaceRecord(
            instance: from.u64(8), fingerprint: from.identity(16), state: from.u8(52),
            aligned: from.u8(53) != 0, ttlSeconds: from.u32(48), capBytes: from.u64(40),
            fields: fields)
        record.slot = from.u16(6)
        record.createdVersion = from.u64(32)
        return (record, bytes)
    }
}

/// One member of the store.
package struct DeviceRecord: Equatable, Sendable {
    package static let member: UInt8 = 0
    package static let absent: UInt8 = 1
    package static let struck: UInt8 = 2

    package var id: Identity128
    package var index: UInt8
    package var state: UInt8
    package var segmentCount: UInt32
    /// The membership's epoch when this member was last present.
    package var membershipEpoch: UInt64

    package init(
        id: Identity128, index: UInt8, state: UInt8, segmentCount: UInt32, membershipEpoch: UInt64
    ) {
        self.id = id
        self.index = index
        self.state = state
        self.segmentCount = segmentCount
        self.membershipEpoch = membershipEpoch
    }
}
