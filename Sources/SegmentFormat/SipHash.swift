// SipHash-2-4 with 64 and 128 bits of output (Aumasson and Bernstein; the 128-bit variant is the
// authors' own), checked in the tests against the reference vectors. It keys fingerprints and page
// checks by the store's secret, so that nobody who chooses keys can choose where they fall.

package enum SipHash {
    private struct State {
        var v0: UInt64
        var v1: UInt64
        var v2: UInt64
        var v3: UInt64

        @inline(__always)
        init(_ key: SecretKey, wide: Bool) {
            v0 = key.k0 ^ 0x736f_6d65_7073_6575
            v1 = key.k1 ^ 0x646f_7261_6e64_6f6d
            v2 = key.k0 ^ 0x6c79_6765_6e65_7261
            v3 = key.k1 ^ 0x7465_6462_7974_6573
            if wide { v1 ^= 0xee }
        }

        @inline(__always)
        mutating func round() {
            v0 = v0 &+ v1
            v1 = (v1 << 13 | v1 >> 51) ^ v0
            v0 = v0 << 32 | v0 >> 32
            v2 = v2 &+ v3
            v3 = (v3 << 16 | v3 >> 48) ^ v2
            v0 = v0 &+ v3
            v3 = (v3 << 21 | v3 >> 43) ^ v0
            v2 = v2 &+ v1
            v1 = (v1 << 17 | v1 >> 47) ^ v2
            v2 = v2 << 32 | v2 >> 32
        }

        @inline(__always)
        mutating func take(_ word: UInt64) {
            v3 ^= word
            round()
            round()
            v0 ^= word
        }

        @inline(__always)
        mutating func take(_ bytes: UnsafeRawBufferPointer, total: Int) {
            let words = bytes.count / 8
            for word in 0..<words { take(bytes.u64(8 * word)) }
            var last = UInt64(truncatingIfNeeded: total) << 56
            var shift: UInt64 = 0
            for at in (8 * words)..<bytes.count {
                last |= UInt64(bytes[at]) << shift
                shift += 8
            }
            take(last)
        }

        @inline(__always)
        mutating func output() -> UInt64 {
            round()
            round()
            round()
            round()
            return v0 ^ v1 ^ v2 ^ v3
        }
    }

    package static func hash64(_ key: SecretKey, _ bytes: UnsafeRawBufferPointer) -> UInt64 {
        var state = State(key, wide: false)
        state.take(bytes, total: bytes.count)
        state.v2 ^= 0xff
        return state.output()
    }

    /// The 128-bit hash of `prefix` (as 8 little-endian bytes) followed by the bytes.
    package static func hash128(
        _ key: SecretKey, _ prefix: UInt64, _ bytes: UnsafeRawBufferPointer
    ) -> Identity128 {
        var state = State(key, wide: true)
        state.take(prefix)
        state.take(bytes, total: bytes.count + 8)
        return finish(&state)
    }

    /// The plain 128-bit hash, as the reference has it.
    package static func hash128(
        _ key: SecretKey, _ bytes: UnsafeRawBufferPointer
    ) -> Identity128 {
        var state = State(key, wide: true)
        state.take(bytes, total: bytes.count)
        return finish(&state)
    }

    @inline(__always)
    private static func finish(_ state: inout State) -> Identity128 {
        state.v2 ^= 0xee
        let first = state.output()
        state.v1 ^= 0xdd
        return Identity128(hi: first, lo: state.output())
    }
}
