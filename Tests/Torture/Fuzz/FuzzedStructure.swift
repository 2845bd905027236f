// FuzzedStructure: one structure of the format as the fuzzer sees it: a valid one in memory, where
// its fields lie, how its check is made anew, and what must hold of it when it is accepted.
//
// The checks are made here from docs/FORMAT.md and not by the code under test, so that a reader and
// a writer that are wrong in the same way are found out.

import Glibc
import SegmentFormat
import SimulatedDisk

/// Where a field lies. An opaque one need not come back when what was read is written again: a
/// check, a magic, a feature word, a truth value that has many spellings.
struct FuzzField {
    var at: Int
    var width: Int
    var opaque = false

    static func list(_ places: [(Int, Int)], opaque: [(Int, Int)]) -> [FuzzField] {
        places.map { FuzzField(at: $0.0, width: $0.1) }
            + opaque.map { FuzzField(at: $0.0, width: $0.1, opaque: true) }
    }
}

/// What a reader said of the bytes.
enum FuzzVerdict {
    case accepted
    case refused(FormatError)
    /// Accepted, and something about it does not hold.
    case wrong(String)
}

/// Memory on a page boundary, freed with its owner.
final class FuzzMemory {
    let base: UnsafeMutableRawPointer
    let bytes: UnsafeMutableRawBufferPointer

    init(_ count: Int) {
        base = .allocate(byteCount: count, alignment: 4096)
        bytes = UnsafeMutableRawBufferPointer(start: base, count: count)
        bytes.initializeMemory(as: UInt8.self, repeating: 0)
    }

    convenience init(_ from: [UInt8], room: Int) {
        self.init(from.count + room)
        bytes.copyBytes(from: from)
    }

    deinit { base.deallocate() }
}

class FuzzedStructure {
    /// Bytes behind the structure, for views that are too long.
    static let room = 64

    let memory: FuzzMemory
    /// What it was made as.
    private(set) lazy var pristine: FuzzMemory = {
        let made = FuzzMemory(memory.bytes.count)
        made.bytes.copyMemory(from: raw)
        return made
    }()
    let count: Int
    var fields: [FuzzField] = []
    /// A view that is longer than the structure is taken as well.
    var takesMore = false
    /// Read together with another copy, so that damage to one alone is survived.
    var survivesDamage = false
    /// Its check has 32 bits: only changes of one run of 32 bits are certain to be found.
    var weakCheck = false
    /// Bytes in its midst that are another structure's, which has a check of its own.
    var foreign = 0..<0
    /// The check of the last mutation was made anew.
    var isSealed = false

    var bytes: UnsafeMutableRawBufferPointer { memory.bytes }
    var raw: UnsafeRawBufferPointer { UnsafeRawBufferPointer(memory.bytes) }

    init(_ count: Int) {
        self.count = count
        memory = FuzzMemory(count + Self.room)
    }

    init(_ made: [UInt8]) {
        count = made.count
        memory = FuzzMemory(made, room: Self.room)
    }

    /// Makes the checks hold again. The fuzzer saves and restores what this writes.
    func seal(_ choices: inout Choices) {}
    /// The places that `seal` writes, in bytes.
    var sealed: [Range<Int>] { [8..<16] }
    func decode(_ view: UnsafeRawBufferPointer) -> FuzzVerdict { .refused(.notHearth) }

    /// Whether all fields that are not opaque, up to some place, have the same bytes in both.
    func differs(
        _ other: UnsafeRawBufferPointer, from offset: Int = 0, upTo end: Int = Int.max
    ) -> String? {
        guard let one = raw.baseAddress, let two = other.baseAddress else { return nil }
        for field in fields where !field.opaque {
            let at = field.at - offset
            guard at >= 0, field.at + field.width <= end else { continue }
            if at + field.width > other.count { return "the field at \(field.at) is gone" }
            if memcmp(one + field.at, two + at, field.width) != 0 {
                return "the field at \(field.at) does not come back"
            }
        }
        return nil
    }
}

/// Loads, stores and checks, by themselves.
enum Raw {
    @inline(__always)
    static func put<T: FixedWidthInteger>(
        _ bytes: UnsafeMutableRawBufferPointer, _ value: T, _ at: Int
    ) {
        bytes.storeBytes(of: value.littleEndian, toByteOffset: at, as: T.self)
    }

    @inline(__always)
    static func u16(_ bytes: UnsafeRawBufferPointer, _ at: Int) -> UInt16 {
        UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: at, as: UInt16.self))
    }

    @inline(__always)
    static func u32(_ bytes: UnsafeRawBufferPointer, _ at: Int) -> UInt32 {
        UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: at, as: UInt32.self))
    }

    @inline(__always)
    static func u64(_ bytes: UnsafeRawBufferPointer, _ at: Int) -> UInt64 {
        UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: at, as: UInt64.self))
    }

    /// The low `width` bytes of a value, at most 8.
    @inline(__always)
    static func store(_ value: UInt64, _ width: Int, at place: UnsafeMutableRawPointer) {
        withUnsafeBytes(of: value.littleEndian) { value in
            UnsafeMutableRawBufferPointer(start: place, count: width)
                .copyMemory(from: UnsafeRawBufferPointer(rebasing: value[..<width]))
        }
    }

    static func load(_ width: Int, at place: UnsafeRawPointer) -> UInt64 {
        var value: UInt64 = 0
        withUnsafeMutableBytes(of: &value) {
            $0.copyMemory(from: UnsafeRawBufferPointer(start: place, count: width))
        }
        return UInt64(littleEndian: value)
    }

    /// The 64-bit check at byte 8, over all with that field as zeros.
    static func seal(_ bytes: UnsafeMutableRawBufferPointer, _ seed: UInt64) {
        put(bytes, UInt64(0), 8)
        put(bytes, Checksum.crc64(seed, UnsafeRawBufferPointer(bytes)), 8)
    }

    /// The CRC32C of all before the last four bytes, in these.
    static func seal32(_ bytes: UnsafeMutableRawBufferPointer) {
        let body = UnsafeRawBufferPointer(rebasing: bytes[..<(bytes.count - 4)])
        put(bytes, Checksum.crc32c(0, body), bytes.count - 4)
    }

    static func seed(
        _ secret: SecretKey, magic: UInt32, store: Identity128, segment: UInt32 = 0,
        generation: UInt64 = 0, page: UInt32 = 0
    ) -> UInt64 {
        withUnsafeTemporaryAllocation(byteCount: 40, alignment: 8) { bytes in
            put(bytes, magic, 0)
            put(bytes, segment, 4)
            put(bytes, store.hi, 8)
            put(bytes, store.lo, 16)
            put(bytes, generation, 24)
            put(bytes, UInt64(page), 32)
            return SipHash.hash64(secret, UnsafeRawBufferPointer(bytes))
        }
    }

    static func magic(_ text: StaticString) -> UInt32 {
        text.withUTF8Buffer { text in
            text.reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
        }
    }
}

extension Choices {
    mutating func identity() -> Identity128 { Identity128(hi: next(), lo: next()) }
    mutating func secret() -> SecretKey { SecretKey(k0: next(), k1: next()) }
    mutating func context() -> PageContext {
        PageContext(
            secret: secret(), store: identity(), segment: UInt32(below(1 << 20)),
            generation: counter())
    }
}
