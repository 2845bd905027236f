// Support: seeded randomness, contents that follow from key and version, a reference LRU, threads.

import BlockIO
import Glibc

@testable import Staging

struct Random {
    var state: UInt64
    init(_ seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        return value ^ value >> 31
    }
    mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
}

func key(_ number: Int) -> StagingKey {
    StagingKey(hi: UInt64(number) &* 0x9E37_79B9, lo: UInt64(number))
}

func info(_ version: UInt64, bytes: Int, expiry: UInt32 = 0, namespace: UInt16 = 0) -> ResidentInfo
{
    ResidentInfo(
        version: version, length: UInt32(bytes), storedBytes: UInt32(bytes),
        checksum: UInt32(truncatingIfNeeded: version), expiry: expiry, namespaceSlot: namespace)
}

/// The word at a place of the content of a key's version.
@inline(__always)
func contentWord(_ key: StagingKey, _ version: UInt64, _ at: Int) -> UInt64 {
    (key.lo &* 0x9E37_79B9_7F4A_7C15 ^ version &* 0xBF58_476D_1CE4_E5B9) &+ UInt64(at)
}

func fill(_ arena: StagingArena, _ slot: ResidentSlot) {
    let (key, version) = (arena.key(slot), arena.info(slot).version)
    var at = 0
    for piece in arena.pieces(slot) {
        let words = arena.pointer(piece).assumingMemoryBound(to: UInt64.self)
        for index in 0..<Int(piece.length) / 8 {
            words[index] = contentWord(key, version, at + index)
        }
        at += Int(piece.length) / 8
    }
}

/// Whether memory holds the content from word `at` on.
@inline(__always)
func holds(
    _ memory: UnsafeRawPointer, _ bytes: Int, _ key: StagingKey, _ version: UInt64, _ at: Int
)
    -> Bool
{
    let words = memory.assumingMemoryBound(to: UInt64.self)
    let start = contentWord(key, version, at)
    for index in 0..<bytes / 8 where words[index] != start &+ UInt64(index) { return false }
    return true
}

func isIntact(_ arena: StagingArena, _ slot: ResidentSlot) -> Bool {
    let (key, version) = (arena.key(slot), arena.info(slot).version)
    var at = 0
    for piece in arena.pieces(slot) {
        guard holds(arena.pointer(piece), Int(piece.length), key, version, at) else { return false }
        at += Int(piece.length) / 8
    }
    return at * 8 == Int(arena.info(slot).storedBytes)
}

extension StagingArena {
    /// Reserves, fills and publishes; nil when it did not get a slot.
    @discardableResult
    func put(_ key: StagingKey, _ info: ResidentInfo, dirty: Bool = false) -> ResidentSlot? {
        guard case .slot(let slot) = reserve(key, info: info) else { return nil }
        fill(self, slot)
        publish(slot, dirty: dirty)
        return slot
    }
}

func makeArena(
    slabs: Int, residents: Int, slabBytes: Int = 4096, policy: any ReplacementPolicy = LRUPolicy(),
    regions: RegionTable = RegionTable()
) throws -> StagingArena {
    try StagingArena(
        slabBytes: slabBytes, slabCount: slabs, residentCapacity: residents, policy: policy,
        regions: regions)
}

/// The simplest LRU there is.
struct ReferenceLRU {
    let capacity: Int
    private var used: [Int: Int] = [:]
    private var clock = 0
    init(capacity: Int) { self.capacity = capacity }
    mutating func access(_ key: Int) -> Bool {
        clock += 1
        let hit = used[key] != nil
        if !hit && used.count == capacity, let coldest = used.min(by: { $0.value < $1.value }) {
            used[coldest.key] = nil
        }
        used[key] = clock
        return hit
    }
}

final class ThreadBody: Sendable {
    let run: @Sendable () -> Void
    init(_ run: @escaping @Sendable () -> Void) { self.run = run }
}

func startThread(_ body: @escaping @Sendable () -> Void) -> pthread_t {
    var thread = pthread_t()
    let box = Unmanaged.passRetained(ThreadBody(body)).toOpaque()
    let failed = pthread_create(
        &thread, nil,
        { context in
            if let context { Unmanaged<ThreadBody>.fromOpaque(context).takeRetainedValue().run() }
            return nil
        }, box)
    precondition(failed == 0)
    return thread
}

func now() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}
