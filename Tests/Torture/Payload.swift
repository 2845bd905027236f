// Payload: the bytes of a block as a function of (namespace, key, revision), so that a test needs
// no copy of what it stored. Byte p of a value is byte p % 8 of word p / 8; the words are a mix of
// the revision's seed and their number, so that no two revisions, and no two places of one, share a
// run of bytes.

import BlockIO

enum Payload {
    @inline(__always)
    static func mix(_ value: UInt64) -> UInt64 {
        var mixed = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// The seed of one revision of one key.
    static func seed(namespace: UInt64, key: Int, revision: Int) -> UInt64 {
        mix(mix(namespace &* 0x9E37_79B9_7F4A_7C15 &+ UInt64(key)) &+ UInt64(revision) << 17 | 1)
    }

    @inline(__always)
    private static func word(_ seed: UInt64, _ index: Int) -> UInt64 {
        let stepped = seed &+ UInt64(truncatingIfNeeded: index) &* 0x9E37_79B9_7F4A_7C15
        let mixed = (stepped ^ (stepped >> 32)) &* 0xD6E8_FEB8_6659_FD93
        return (mixed ^ (mixed >> 29)).littleEndian
    }

    @inline(__always)
    private static func byte(_ seed: UInt64, _ position: Int) -> UInt8 {
        let word = UInt64(littleEndian: word(seed, position >> 3))
        return UInt8(truncatingIfNeeded: word >> UInt64(8 * (position & 7)))
    }

    /// Writes bytes `start ..< start + count` of the value.
    static func fill(_ seed: UInt64, from start: Int, _ count: Int, _ to: UnsafeMutableRawPointer) {
        var done = 0
        while done < count, (start + done) & 7 != 0 {
            to.storeBytes(of: byte(seed, start + done), toByteOffset: done, as: UInt8.self)
            done += 1
        }
        while done + 8 <= count {
            to.storeBytes(of: word(seed, (start + done) >> 3), toByteOffset: done, as: UInt64.self)
            done += 8
        }
        while done < count {
            to.storeBytes(of: byte(seed, start + done), toByteOffset: done, as: UInt8.self)
            done += 1
        }
    }

    /// Whether memory holds bytes `start ..< start + count` of the value.
    static func matches(
        _ seed: UInt64, from start: Int, _ count: Int, _ memory: UnsafeRawPointer
    ) -> Bool {
        var done = 0
        while done < count, (start + done) & 7 != 0 {
            if memory.load(fromByteOffset: done, as: UInt8.self) != byte(seed, start + done) {
                return false
            }
            done += 1
        }
        var differs: UInt64 = 0
        while done + 8 <= count {
            differs |=
                memory.loadUnaligned(fromByteOffset: done, as: UInt64.self)
                ^ word(seed, (start + done) >> 3)
            done += 8
        }
        if differs != 0 { return false }
        while done < count {
            if memory.load(fromByteOffset: done, as: UInt8.self) != byte(seed, start + done) {
                return false
            }
            done += 1
        }
        return true
    }

    /// The bytes of a key: 1 to 48 of them, distinct for every number.
    static func key(_ number: Int, into memory: UnsafeMutableRawPointer) -> Int {
        let extra = number % 7 == 0 ? 0 : Int(mix(UInt64(number)) % 45)
        memory.storeBytes(of: UInt8(truncatingIfNeeded: number), as: UInt8.self)
        if number < 256 && extra == 0 && number % 7 == 0 { return 1 }
        memory.storeBytes(
            of: UInt16(truncatingIfNeeded: number >> 8), toByteOffset: 1, as: UInt16.self)
        for index in 0..<extra {
            memory.storeBytes(
                of: UInt8(truncatingIfNeeded: number &* 31 &+ index), toByteOffset: 3 + index,
                as: UInt8.self)
        }
        return 3 + extra
    }

    static let maximumKeyBytes = 48

    /// The lengths of `count` shards that add up to `length`; some are 0 when `length` is short.
    static func shardLengths(
        _ seed: UInt64, length: Int, count: Int, into: UnsafeMutablePointer<UInt32>
    ) {
        var left = length
        for shard in 0..<count {
            let rest = count - shard
            if rest == 1 {
                into[shard] = UInt32(left)
                return
            }
            // Even parts half of the time, else anything up to twice the mean.
            let mean = left / rest
            let drawn = mix(seed ^ UInt64(shard) &* 0xA24B_AED4_963E_E407)
            let most = seed & 1 == 0 ? mean : min(left, 2 * mean)
            let part = seed & 1 == 0 || most == 0 ? most : Int(drawn % UInt64(most + 1))
            into[shard] = UInt32(part)
            left -= part
        }
    }
}
