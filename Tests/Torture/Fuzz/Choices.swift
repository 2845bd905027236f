// Choices: where a fuzzer's decisions come from: a seeded generator, or the bytes that libFuzzer
// hands over, which it changes by what code they reached. The same code mutates in both cases.

import SimulatedDisk

struct Choices {
    private var random: SplitMix64
    private let data: UnsafeRawBufferPointer?
    private var at = 0

    init(seed: UInt64) {
        random = SplitMix64(seed: seed)
        data = nil
    }

    /// Decisions out of bytes; behind their end all are 0.
    init(data: UnsafeRawBufferPointer) {
        random = SplitMix64(seed: 0)
        self.data = data
    }

    /// Whether bytes are left; always, of a generator.
    var hasMore: Bool { data.map { at < $0.count } ?? true }

    private mutating func take(_ bytes: Int, of data: UnsafeRawBufferPointer) -> UInt64 {
        var word: UInt64 = 0
        for number in 0..<bytes where at < data.count {
            word |= UInt64(data[at]) << UInt64(8 * number)
            at += 1
        }
        return word
    }

    @inline(__always)
    mutating func next() -> UInt64 {
        guard let data else { return random.next() }
        return take(8, of: data)
    }

    /// In 0..<bound; as few bytes as the bound needs.
    @inline(__always)
    mutating func below(_ bound: Int) -> Int {
        guard let data else { return random.below(bound) }
        guard bound > 1 else { return 0 }
        let bytes = bound <= 1 << 8 ? 1 : bound <= 1 << 16 ? 2 : 4
        return Int(take(bytes, of: data) % UInt64(bound))
    }

    mutating func bytes(_ count: Int) -> [UInt8] {
        (0..<count).map { _ in UInt8(truncatingIfNeeded: below(256)) }
    }

    /// A value at the edges of what fields hold, as often as any other.
    mutating func word() -> UInt64 {
        below(2) == 0 ? Self.edges[below(Self.edges.count)] : next()
    }

    /// A version, generation or another counter that the format allows.
    mutating func counter() -> UInt64 { max(1, next() >> UInt64(1 + below(60))) }
    mutating func word32() -> UInt32 { UInt32(truncatingIfNeeded: next()) }

    private static let edges: [UInt64] = [
        0, 1, 2, 3, 7, 8, 32, 33, 63, 64, 65, 79, 80, 81, 255, 256, 511, 512, 513, 4031, 4032, 4095,
        4096, 4097, 32767, 32768, 65535, 65536, 1 << 20, (1 << 20) + 1, 64 << 20, (64 << 20) + 1,
        (1 << 31) - 1, 1 << 31, UInt64(UInt32.max), UInt64(UInt32.max) - 1, 1 << 32,
        (1 << 63) - 1, 1 << 63, UInt64.max - 1, UInt64.max,
    ]
}
