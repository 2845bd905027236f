// Checksum: CRC32C over values (ISA-L, which picks the widest code path the CPU has), bound to the
// value's identity, and CRC64 over metadata pages.
//
// A value's checksum is made once, at put: over (namespace fingerprint, full key, low half of the
// version), then (shard number, length), then the bytes. It travels unchanged wherever the block
// moves; place and generation are bound by the descriptor's own check and the index.

import CISAL

package enum Checksum {
    /// The shard number under which a shard table itself is checked.
    package static let tableShard: UInt32 = 0xFFFF_FFFF

    /// CRC32C, chainable: `crc32c(crc32c(0, a), b) == crc32c(0, ab)`.
    @inline(__always)
    package static func crc32c(_ seed: UInt32, _ bytes: UnsafeRawBufferPointer) -> UInt32 {
        var sum = ~seed
        var start = 0
        // The library counts in 32-bit integers.
        while start < bytes.count {
            let length = min(bytes.count - start, 1 << 30)
            guard let base = bytes.baseAddress else { break }
            let pointer = UnsafeMutablePointer(
                mutating: (base + start).assumingMemoryBound(to: UInt8.self))
            sum = crc32_iscsi(pointer, Int32(length), sum)
            start += length
        }
        return ~sum
    }

    /// CRC64 (ECMA-182, reflected), chainable.
    package static func crc64(_ seed: UInt64, _ bytes: UnsafeRawBufferPointer) -> UInt64 {
        guard let base = bytes.baseAddress, bytes.count > 0 else { return seed }
        return crc64_ecma_refl(
            seed, base.assumingMemoryBound(to: UInt8.self), UInt64(bytes.count))
    }

    /// What all checksums of one block begin with.
    package static func identitySeed(
        namespace: Identity128, key: UnsafeRawBufferPointer, versionLow: UInt32
    ) -> UInt32 {
        withUnsafeTemporaryAllocation(byteCount: 24, alignment: 8) { bytes in
            bytes.put(namespace, 0)
            bytes.put(UInt32(truncatingIfNeeded: key.count), 16)
            bytes.put(versionLow, 20)
            return crc32c(crc32c(0, UnsafeRawBufferPointer(bytes)), key)
        }
    }

    /// The seed of one shard's bytes: continue with `crc32c(seed, bytes)`.
    package static func valueSeed(identity: UInt32, shard: UInt32, length: UInt32) -> UInt32 {
        withUnsafeTemporaryAllocation(byteCount: 8, alignment: 8) { bytes in
            bytes.put(shard, 0)
            bytes.put(length, 4)
            return crc32c(identity, UnsafeRawBufferPointer(bytes))
        }
    }
}
