// SimulatedRandom: the only source of chance in a simulation. One seed, split by purpose, so that
// taking an operation out of a run (shrinking it) leaves the faults and latencies of the rest
// alone.

/// Expands one seed into many; also cheap enough to draw the details of one fault from.
package struct SplitMix64: RandomNumberGenerator, Sendable {
    package var state: UInt64

    package init(seed: UInt64) { state = seed }

    @inline(__always)
    package mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// Uniform in 0..<bound; 0 for a bound of 0.
    @inline(__always)
    package mutating func below(_ bound: Int) -> Int {
        bound <= 0 ? 0 : Int(next().multipliedFullWidth(by: UInt64(bound)).high)
    }

    package mutating func chance(_ probability: Double) -> Bool {
        Double(next() >> 11) * 0x1p-53 < probability
    }
}

/// xoshiro256**: the generator of one purpose of one run.
package struct SimulatedRandom: RandomNumberGenerator, Sendable {
    /// What the numbers are for; each purpose has its own stream.
    package enum Purpose: UInt64, Sendable {
        case operations = 1
        case faults = 2
        case latency = 3
        case crash = 4
        case payload = 5
    }

    private var s0: UInt64
    private var s1: UInt64
    private var s2: UInt64
    private var s3: UInt64

    package init(seed: UInt64, purpose: Purpose = .operations) {
        var mix = SplitMix64(seed: seed)
        var split = SplitMix64(seed: mix.next() ^ (purpose.rawValue &* 0xD134_2543_DE82_EF95))
        (s0, s1, s2, s3) = (split.next(), split.next(), split.next(), split.next())
    }

    @inline(__always)
    package mutating func next() -> UInt64 {
        let product = s1 &* 5
        let result = ((product << 7) | (product >> 57)) &* 9
        let shifted = s1 << 17
        s2 ^= s0
        s3 ^= s1
        s1 ^= s2
        s0 ^= s3
        s2 ^= shifted
        s3 = (s3 << 45) | (s3 >> 19)
        return result
    }

    /// Uniform in 0..<bound; 0 for a bound of 0.
    @inline(__always)
    package mutating func below(_ bound: Int) -> Int {
        bound <= 0 ? 0 : Int(next().multipliedFullWidth(by: UInt64(bound)).high)
    }

    /// Uniform in the closed range.
    @inline(__always)
    package mutating func uniform(_ low: UInt64, _ high: UInt64) -> UInt64 {
        guard low < high else { return low }
        let span = (high - low).addingReportingOverflow(1)
        if span.overflow { return next() }
        return low + next().multipliedFullWidth(by: span.partialValue).high
    }

    @inline(__always)
    package mutating func chance(_ probability: Double) -> Bool {
        Double(next() >> 11) * 0x1p-53 < probability
    }
}
