// Randomness: seeded, equal on every machine and in every run. A generator for draws, and a keyed
// permutation that visits every unit of a range once in random order with no memory (what fio keeps
// a random map for).

import Glibc

/// SplitMix64's finaliser: spreads any 64 bits over all 64.
@inline(__always)
package func scrambled(_ value: UInt64) -> UInt64 {
    var z = value &+ 0x9E37_79B9_7F4A_7C15
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
}

/// A hash of text that is the same in every run (FNV-1a, scrambled).
package func stableHash(_ text: String) -> UInt64 {
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    for byte in text.utf8 {
        hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3
    }
    return scrambled(hash)
}

/// SplitMix64.
package struct SeededGenerator: RandomNumberGenerator, Sendable {
    private var state: UInt64
    package init(seed: UInt64) { state = seed }

    @inline(__always)
    package mutating func next() -> UInt64 {
        defer { state = state &+ 0x9E37_79B9_7F4A_7C15 }
        return scrambled(state)
    }

    /// Uniform in 0 ..< bound, by multiplication (the bias is below 2^-32 for any bound we use).
    @inline(__always)
    package mutating func below(_ bound: UInt64) -> UInt64 {
        next().multipliedFullWidth(by: bound).high
    }

    /// Uniform in 0 ..< 1.
    package mutating func unit() -> Double {
        Double(next() >> 11) * 0x1p-53
    }

    package mutating func normal() -> Double {
        let radius = (-2 * log(1 - unit())).squareRoot()
        return radius * cos(2 * Double.pi * unit())
    }

    package mutating func logNormal(median: Double, sigma: Double) -> Double {
        median * exp(sigma * normal())
    }
}

/// A permutation of 0 ..< count: a Feistel network over the next power of four, walked until it
/// falls inside.
package struct Permutation: Sendable {
    package let count: UInt64
    private let halfBits: UInt64
    private let mask: UInt64
    private let key: UInt64

    package init(count: UInt64, seed: UInt64) {
        self.count = count
        let bits = count <= 1 ? 1 : 64 - (count - 1).leadingZeroBitCount
        halfBits = UInt64((bits + 1) / 2)
        mask = (1 << halfBits) - 1
        key = scrambled(seed)
    }

    @inline(__always)
    package subscript(index: UInt64) -> UInt64 {
        if count <= 1 { return 0 }
        var value = index
        repeat {
            var left = value >> halfBits
            var right = value & mask
            for round: UInt64 in 0..<4 {
                let mixed = scrambled(right ^ key &+ round &* 0xD1B5_4A32_D192_ED03)
                (left, right) = (right, (left ^ mixed) & mask)
            }
            value = left << halfBits | right
        } while value >= count
        return value
    }
}
