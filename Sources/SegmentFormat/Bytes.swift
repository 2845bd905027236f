// Little-endian loads and stores at byte offsets, and the 64-bit check of a page. Offsets are those
// of fixed layouts; whoever decodes has made sure of the length first.

import Glibc

extension UnsafeRawBufferPointer {
    @inline(__always)
    func u8(_ at: Int) -> UInt8 { loadUnaligned(fromByteOffset: at, as: UInt8.self) }
    @inline(__always)
    func u16(_ at: Int) -> UInt16 {
        UInt16(littleEndian: loadUnaligned(fromByteOffset: at, as: UInt16.self))
    }
    @inline(__always)
    func u32(_ at: Int) -> UInt32 {
        UInt32(littleEndian: loadUnaligned(fromByteOffset: at, as: UInt32.self))
    }
    @inline(__always)
    func u64(_ at: Int) -> UInt64 {
        UInt64(littleEndian: loadUnaligned(fromByteOffset: at, as: UInt64.self))
    }
    func identity(_ at: Int) -> Identity128 { Identity128(hi: u64(at), lo: u64(at + 8)) }
}

extension UnsafeMutableRawBufferPointer {
    @inline(__always)
    func put(_ value: UInt8, _ at: Int) { storeBytes(of: value, toByteOffset: at, as: UInt8.self) }
    @inline(__always)
    func put(_ value: UInt16, _ at: Int) {
        storeBytes(of: value.littleEndian, toByteOffset: at, as: UInt16.self)
    }
    @inline(__always)
    func put(_ value: UInt32, _ at: Int) {
        storeBytes(of: value.littleEndian, toByteOffset: at, as: UInt32.self)
    }
    @inline(__always)
    func put(_ value: UInt64, _ at: Int) {
        storeBytes(of: value.littleEndian, toByteOffset: at, as: UInt64.self)
    }
    func put(_ value: Identity128, _ at: Int) {
        put(value.hi, at)
        put(value.lo, at + 8)
    }
    func zero() {
        if let base = baseAddress { memset(base, 0, count) }
    }

    /// Stores the check of the whole buffer, whose check field (8 bytes at `at`) counts as zero.
    func seal(_ seed: UInt64, at: Int) {
        put(UInt64(0), at)
        put(Checksum.crc64(seed, UnsafeRawBufferPointer(self)), at)
    }
}

extension UnsafeRawBufferPointer {
    /// Whether the check that `seal` stored holds. Reads the buffer, changes nothing.
    func verifies(_ seed: UInt64, at: Int) -> Bool {
        let stored = u64(at)
        var sum = Checksum.crc64(seed, UnsafeRawBufferPointer(rebasing: self[0..<at]))
        var zeros: UInt64 = 0
        sum = withUnsafeBytes(of: &zeros) { Checksum.crc64(sum, $0) }
        sum = Checksum.crc64(sum, UnsafeRawBufferPointer(rebasing: self[(at + 8)...]))
        return sum == stored
    }
}

/// What a page's check is seeded with: its kind and place, keyed by the store's secret, so that
/// neither a stale nor a misplaced page, nor a value that imitates one, passes.
enum PageSeed {
    static func make(
        _ secret: SecretKey, kind: UInt32, store: Identity128, segment: UInt32,
        generation: UInt64, page: UInt32
    ) -> UInt64 {
        withUnsafeTemporaryAllocation(byteCount: 40, alignment: 8) { bytes in
            bytes.put(kind, 0)
            bytes.put(segment, 4)
            bytes.put(store, 8)
            bytes.put(generation, 24)
            bytes.put(UInt64(page), 32)
            return SipHash.hash64(secret, UnsafeRawBufferPointer(bytes))
        }
    }
}
