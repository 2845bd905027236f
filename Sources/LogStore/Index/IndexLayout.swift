// IndexLayout: where things lie in the index's mapping. Everything is a 64-bit (sequence locks:
// 32-bit) atomic at an offset from the base; there are no pointers, so each process may map it
// anywhere. Byte offsets:
//   0      header words: magic, geometry, bucket count, capacity; 64: live count
//   4096   store words: 512 words for the store's own use
//   8192   4096 sequence locks of 32 bits; that of a bucket is number (bucket mod 4096)
//   24576  buckets of 320 bytes. 0: the fingerprint hi of slots 0 to 7 (0: empty slot), one cache
//          line. 64 + 32 i: fingerprint lo, word2, word3, word4 of slot i. So a lookup reads the
//          first line of one or two buckets, and one more line for a hit.
//
// Invariants. One writer. A key lies in one of two buckets given by its fingerprint's lo. Every
// change that can make a reader see a mixture happens between an odd and the next even value of the
// bucket's sequence lock. A moved entry is in its new bucket before it leaves the old one, and each
// of both steps moves that bucket's sequence, so whoever sees both sequences still has seen the key
// if it is there.

import CPlatform
import Synchronization

struct IndexLayout {
    static let magic: UInt64 = 0x4845_4152_5448_4958
    /// Version 1, 8 slots, 320 bytes, 4096 locks.
    static let geometry: UInt64 = 1 << 48 | 8 << 32 | 320 << 16 | 4096
    static let slots = 8
    static let bucketBytes = 320
    static let lockCount: UInt64 = 4096
    static let storeWordCount = 512
    static let storeWordsOffset = 4096
    static let locksOffset = 8192
    static let bucketsOffset = 24576
    static let maxBuckets = 1 << 31

    enum HeaderWord {
        static let magic = 0
        static let geometry = 1
        static let bucketCount = 2
        static let capacity = 3
        /// In a cache line of its own: it changes with every insert.
        static let count = 8
    }

    typealias Word = UnsafePointer<Atomic<UInt64>>
    typealias Lock = UnsafePointer<Atomic<UInt32>>

    let base: UnsafeRawPointer
    /// 2 to `maxBuckets`.
    let bucketCount: Int

    static func bytes(buckets: Int) -> Int { bucketsOffset + buckets * bucketBytes }

    @inline(__always)
    static func headerWord(_ base: UnsafeRawPointer, _ index: Int) -> Word {
        (base + index &* 8).assumingMemoryBound(to: Atomic<UInt64>.self)
    }

    /// Reads the geometry of a mapping made elsewhere; nil when it is not an index or not whole.
    init?(base: UnsafeRawPointer, length: Int) {
        guard length >= Self.bucketsOffset, Int(bitPattern: base) & 63 == 0,
            Self.headerWord(base, HeaderWord.magic).pointee.load(ordering: .acquiring)
                == Self.magic,
            Self.headerWord(base, HeaderWord.geometry).pointee.load(ordering: .relaxed)
                == Self.geometry
        else { return nil }
        let buckets = Self.headerWord(base, HeaderWord.bucketCount).pointee
            .load(ordering: .relaxed)
        guard buckets >= 2, buckets <= UInt64(Self.maxBuckets),
            Self.bytes(buckets: Int(buckets)) <= length
        else { return nil }
        self.base = base
        bucketCount = Int(buckets)
    }

    /// Writes the header into zeroed memory of at least `bytes(buckets:)`.
    init(making base: UnsafeRawPointer, bucketCount: Int, capacity: Int) {
        self.base = base
        self.bucketCount = bucketCount
        func set(_ index: Int, _ value: UInt64, _ ordering: AtomicStoreOrdering) {
            let word = Self.headerWord(base, index)
            if ordering == .releasing {
                word.pointee.store(value, ordering: .releasing)
            } else {
                word.pointee.store(value, ordering: .relaxed)
            }
        }
        set(HeaderWord.geometry, Self.geometry, .relaxed)
        set(HeaderWord.bucketCount, UInt64(bucketCount), .relaxed)
        set(HeaderWord.capacity, UInt64(capacity), .relaxed)
        // Last: who sees the magic sees the rest.
        set(HeaderWord.magic, Self.magic, .releasing)
    }

    // MARK: Addresses

    /// The two buckets of a key; never the same one.
    @inline(__always)
    func buckets(_ lo: UInt64) -> (Int, Int) {
        let count = UInt64(truncatingIfNeeded: bucketCount)
        let first = Int(truncatingIfNeeded: ((lo & 0xFFFF_FFFF) &* count) >> 32)
        var second = Int(truncatingIfNeeded: ((lo >> 32) &* count) >> 32)
        if second == first { second = first &+ 1 == bucketCount ? 0 : first &+ 1 }
        return (first, second)
    }

    @inline(__always)
    func address(_ bucket: Int) -> UnsafeRawPointer {
        base + (Self.bucketsOffset &+ bucket &* Self.bucketBytes)
    }

    @inline(__always)
    func lock(_ bucket: Int) -> Lock {
        let index = Int(truncatingIfNeeded: UInt64(truncatingIfNeeded: bucket) & 4095)
        return (base + (Self.locksOffset &+ index &* 4))
            .assumingMemoryBound(to: Atomic<UInt32>.self)
    }

    /// Fields: 0 fingerprint hi, 1 fingerprint lo, 2 to 4 the entry's words.
    @inline(__always)
    static func word(_ bucket: UnsafeRawPointer, field: Int, slot: Int) -> Word {
        let offset = field == 0 ? slot &* 8 : 56 &+ slot &* 32 &+ field &* 8
        return (bucket + offset).assumingMemoryBound(to: Atomic<UInt64>.self)
    }

    @inline(__always)
    static func load(_ bucket: UnsafeRawPointer, field: Int, slot: Int) -> UInt64 {
        word(bucket, field: field, slot: slot).pointee.load(ordering: .relaxed)
    }

    /// The slots (a bit each) of a bucket whose fingerprint hi is `hi`; 0 asks for the empty ones.
    @inline(__always)
    static func slots(_ bucket: UnsafeRawPointer, having hi: UInt64) -> UInt32 {
        @inline(__always) func bit(_ slot: Int) -> UInt32 {
            load(bucket, field: 0, slot: slot) == hi ? 1 << UInt32(slot) : 0
        }
        return bit(0) | bit(1) | bit(2) | bit(3) | bit(4) | bit(5) | bit(6) | bit(7)
    }

    @inline(__always)
    static func words(_ bucket: UnsafeRawPointer, slot: Int) -> IndexWords {
        IndexWords(
            load(bucket, field: 2, slot: slot), load(bucket, field: 3, slot: slot),
            load(bucket, field: 4, slot: slot))
    }

    /// Starts bringing the line that every lookup reads first.
    @inline(__always)
    func prefetch(_ bucket: Int) {
        hearth_prefetch(address(bucket))
    }

    /// Starts bringing the line of the slot that holds the key by its fingerprint's hi; false when
    /// none does.
    @inline(__always)
    func prefetchSlot(_ bucket: Int, _ hi: UInt64) -> Bool {
        let address = address(bucket)
        let matches = Self.slots(address, having: hi)
        if matches == 0 { return false }
        hearth_prefetch(address + (64 &+ matches.trailingZeroBitCount &* 32))
        return true
    }

    @inline(__always)
    func storeWord(_ index: Int) -> UnsafeMutablePointer<Atomic<UInt64>> {
        precondition(index >= 0 && index < Self.storeWordCount, "no such store word")
        return UnsafeMutableRawPointer(mutating: base + (Self.storeWordsOffset &+ index &* 8))
            .assumingMemoryBound(to: Atomic<UInt64>.self)
    }
}
