// SipHash against the authors' vectors, and what the store relies on beyond them.

import Testing

@testable import SegmentFormat

@Suite struct SipHashTests {
    static let key = SecretKey(k0: 0x0706_0504_0302_0100, k1: 0x0f0e_0d0c_0b0a_0908)

    private func little(_ word: UInt64) -> [UInt8] {
        (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64(8 * $0)) }
    }

    @Test func referenceVectors() {
        for count in 0..<64 {
            let input = (0..<count).map { UInt8($0) }
            input.withUnsafeBytes { bytes in
                #expect(
                    hex(little(SipHash.hash64(Self.key, bytes))) == SipHashVectors.short[count])
                let wide = SipHash.hash128(Self.key, bytes)
                #expect(hex(little(wide.hi) + little(wide.lo)) == SipHashVectors.wide[count])
            }
        }
        #expect(SipHashVectors.short[1] == "fd67dc93c539f874")
        #expect(SipHashVectors.wide[1] == "da87c1d86b99af44347659119b22fc45")
    }

    @Test func prefixIsTheSameAsItsBytes() {
        var numbers = Numbers(1)
        for count in 0..<600 {
            let prefix = numbers.next()
            let key = numbers.secret()
            let body = numbers.bytes(count)
            let joined = little(prefix) + body
            let one = body.withUnsafeBytes { SipHash.hash128(key, prefix, $0) }
            let other = joined.withUnsafeBytes { SipHash.hash128(key, $0) }
            #expect(one == other)
        }
    }

    @Test func inputNeedNotBeAligned() {
        var numbers = Numbers(2)
        let bytes = numbers.bytes(128)
        for start in 1..<8 {
            let part = Array(bytes[start..<(start + 99)])
            let aligned = part.withUnsafeBytes { SipHash.hash64(Self.key, $0) }
            let there = bytes.withUnsafeBytes {
                SipHash.hash64(Self.key, UnsafeRawBufferPointer(rebasing: $0[start..<(start + 99)]))
            }
            #expect(aligned == there)
        }
    }
}

@Suite struct ChecksumTests {
    /// The definition, a bit at a time.
    private func slow32(_ seed: UInt32, _ bytes: [UInt8]) -> UInt32 {
        var sum = ~seed
        for byte in bytes {
            sum ^= UInt32(byte)
            for _ in 0..<8 { sum = sum & 1 == 1 ? sum >> 1 ^ 0x82F6_3B78 : sum >> 1 }
        }
        return ~sum
    }

    private func slow64(_ seed: UInt64, _ bytes: [UInt8]) -> UInt64 {
        var sum = ~seed
        for byte in bytes {
            sum ^= UInt64(byte)
            for _ in 0..<8 { sum = sum & 1 == 1 ? sum >> 1 ^ 0xC96C_5795_D787_0F42 : sum >> 1 }
        }
        return ~sum
    }

    @Test func checkValues() {
        let text = Array("123456789".utf8)
        text.withUnsafeBytes {
            #expect(Checksum.crc32c(0, $0) == 0xE306_9283)
            // CRC-64/XZ.
            #expect(Checksum.crc64(0, $0) == 0x995D_C9BB_DF19_39FA)
        }
        let none = UnsafeRawBufferPointer(start: nil, count: 0)
        #expect(Checksum.crc32c(7, none) == 7)
        #expect(Checksum.crc64(7, none) == 7)
    }

    @Test func asDefinedAndChainable() {
        var numbers = Numbers(3)
        for count in [0, 1, 7, 8, 15, 16, 63, 64, 255, 256, 1000, 4096, 5003] {
            let bytes = numbers.bytes(count)
            let seed32 = numbers.word32()
            let seed64 = numbers.next()
            let cut = count == 0 ? 0 : numbers.below(count + 1)
            bytes.withUnsafeBytes { all in
                let head = UnsafeRawBufferPointer(rebasing: all[..<cut])
                let tail = UnsafeRawBufferPointer(rebasing: all[cut...])
                let whole32 = Checksum.crc32c(seed32, all)
                #expect(whole32 == slow32(seed32, bytes))
                #expect(Checksum.crc32c(Checksum.crc32c(seed32, head), tail) == whole32)
                let whole64 = Checksum.crc64(seed64, all)
                #expect(whole64 == slow64(seed64, bytes))
                #expect(Checksum.crc64(Checksum.crc64(seed64, head), tail) == whole64)
            }
        }
    }

    @Test func valueChecksumsDependOnWhatTheyAreBoundTo() {
        let namespace = Identity128(hi: 1, lo: 2)
        let key = Array("key".utf8)
        let other = Array("kez".utf8)
        func seed(_ namespace: Identity128, _ key: [UInt8], _ version: UInt32) -> UInt32 {
            key.withUnsafeBytes {
                Checksum.identitySeed(namespace: namespace, key: $0, versionLow: version)
            }
        }
        let base = seed(namespace, key, 3)
        #expect(base != seed(Identity128(hi: 2, lo: 1), key, 3))
        #expect(base != seed(namespace, other, 3))
        #expect(base != seed(namespace, key, 4))
        // The bytes as docs/FORMAT.md gives them: hi, lo, key length, version, key.
        var spelled: [UInt8] = [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]
        spelled += [3, 0, 0, 0, 3, 0, 0, 0] + key
        #expect(base == slow32(0, spelled))
        let first = Checksum.valueSeed(identity: base, shard: 0, length: 10)
        #expect(first == slow32(base, [0, 0, 0, 0, 10, 0, 0, 0]))
        #expect(first != Checksum.valueSeed(identity: base, shard: 1, length: 10))
        #expect(first != Checksum.valueSeed(identity: base, shard: 0, length: 11))
        let table: [UInt8] = Array(0..<24)
        table.withUnsafeBytes {
            #expect(
                ShardTable.checksum(identity: base, $0, count: 3)
                    == slow32(base, [255, 255, 255, 255, 3, 0, 0, 0] + table))
        }
    }

    @Test func sealAndVerify() {
        var numbers = Numbers(4)
        let buffer = Buffer()
        for at in [0, 8, 16, 4088] {
            numbers.fill(buffer.bytes)
            let seed = numbers.next()
            buffer.bytes.seal(seed, at: at)
            #expect(buffer.raw.verifies(seed, at: at))
            #expect(!buffer.raw.verifies(seed ^ 1, at: at))
            buffer.bytes[100] ^= 1
            #expect(!buffer.raw.verifies(seed, at: at))
        }
    }
}
