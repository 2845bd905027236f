// What the index tests share: a random generator with a seed, and entries derived from a key and a
// version, so that a torn or foreign entry shows.

import Glibc
import LogStore

struct SplitMix {
    var state: UInt64
    init(_ seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        return SplitMix.mix(state)
    }
    mutating func below(_ bound: Int) -> Int {
        Int(truncatingIfNeeded: next() >> 1) % bound
    }
    static func mix(_ value: UInt64) -> UInt64 {
        var z = value
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

/// The fingerprint of key number `key`.
@inline(__always)
func keyFingerprint(_ key: Int) -> Fingerprint {
    let number = UInt64(truncatingIfNeeded: key)
    return Fingerprint(
        hi: SplitMix.mix(number &* 2 &+ 0x1234_5678), lo: SplitMix.mix(number &* 2 &+ 0x8765_4321))
}

/// The one entry that a key has at a version: every field follows from both.
@inline(__always)
func derivedEntry(_ fingerprint: Fingerprint, _ version: UInt32) -> IndexEntry {
    let a = SplitMix.mix(fingerprint.hi ^ UInt64(version) &* 0x9E37_79B9)
    let b = SplitMix.mix(fingerprint.lo &+ UInt64(version))
    return IndexEntry(
        place: Place(
            segment: UInt32(truncatingIfNeeded: a & 0xF_FFFF),
            page: UInt32(truncatingIfNeeded: a >> 20 & 0xF_FFFF)),
        length: 1 &+ UInt32(truncatingIfNeeded: b & 0x3FF_FFFF),
        shardCount: 1 &+ Int(truncatingIfNeeded: a >> 40 & 0xFFF),
        namespaceSlot: UInt16(truncatingIfNeeded: a >> 52),
        versionLow: version,
        checksum: UInt32(truncatingIfNeeded: b >> 26),
        expiry: 0,
        flags: UInt8(truncatingIfNeeded: b >> 60))  // not damaged
}

/// Monotonic nanoseconds.
func testNanoseconds() -> UInt64 {
    var now = timespec()
    clock_gettime(CLOCK_MONOTONIC, &now)
    return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
}

/// Runs the body on `count` threads of its own; call the result to wait for them.
func startThreads(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) -> () -> Void {
    final class Job {
        let number: Int
        let body: @Sendable (Int) -> Void
        init(_ number: Int, _ body: @escaping @Sendable (Int) -> Void) {
            self.number = number
            self.body = body
        }
    }
    var threads: [pthread_t] = []
    for number in 0..<count {
        var thread = pthread_t()
        let job = Unmanaged.passRetained(Job(number, body)).toOpaque()
        let error = pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                let job = Unmanaged<Job>.fromOpaque(argument).takeRetainedValue()
                job.body(job.number)
                return nil
            }, job)
        precondition(error == 0, "pthread_create: \(error)")
        threads.append(thread)
    }
    return { for thread in threads { pthread_join(thread, nil) } }
}
