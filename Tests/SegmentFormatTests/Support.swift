// What the tests of the format share: a seeded generator, page buffers, and values made from it.

import Testing

@testable import SegmentFormat

/// SplitMix64: the same numbers on every machine, from a seed that a failure can name.
struct Numbers: RandomNumberGenerator {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var word = state
        word = (word ^ word >> 30) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ word >> 27) &* 0x94D0_49BB_1331_11EB
        return word ^ word >> 31
    }
    mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
    mutating func bytes(_ count: Int) -> [UInt8] {
        var made = [UInt8](repeating: 0, count: count)
        made.withUnsafeMutableBytes { fill($0) }
        return made
    }
    mutating func fill(_ memory: UnsafeMutableRawBufferPointer) {
        for at in stride(from: 0, to: memory.count & ~7, by: 8) {
            memory.storeBytes(of: next(), toByteOffset: at, as: UInt64.self)
        }
        for at in (memory.count & ~7)..<memory.count {
            memory[at] = UInt8(truncatingIfNeeded: next())
        }
    }
    /// A version, generation or another counter as the format allows.
    mutating func counter() -> UInt64 { max(1, next() >> UInt64(1 + below(60))) }
    mutating func word32() -> UInt32 { UInt32(truncatingIfNeeded: next()) }
    mutating func identity() -> Identity128 { Identity128(hi: next(), lo: next()) }
    mutating func secret() -> SecretKey { SecretKey(k0: next(), k1: next()) }
}

/// Memory on a page boundary, freed with its owner.
final class Buffer {
    let bytes: UnsafeMutableRawBufferPointer
    init(_ count: Int = FormatConstants.pageBytes) {
        bytes = .allocate(byteCount: count, alignment: 4096)
        bytes.zero()
    }
    deinit { bytes.deallocate() }
    var raw: UnsafeRawBufferPointer { UnsafeRawBufferPointer(bytes) }
    func page(_ number: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: bytes[(number * 4096)..<((number + 1) * 4096)])
    }
    func raw(_ number: Int) -> UnsafeRawBufferPointer { UnsafeRawBufferPointer(page(number)) }
}

func hex(_ bytes: some Sequence<UInt8>) -> String {
    let digits = Array("0123456789abcdef")
    var made = ""
    for byte in bytes {
        made.append(digits[Int(byte >> 4)])
        made.append(digits[Int(byte & 15)])
    }
    return made
}

/// The error that `body` throws, nil for none.
func failure<T>(_ body: () throws(FormatError) -> T) -> FormatError? {
    do throws(FormatError) {
        _ = try body()
        return nil
    } catch {
        return error
    }
}

/// Flips a bit of each of these bytes in turn and expects `decode` to fail every time.
func expectEveryFlipFails<T>(
    _ bytes: UnsafeMutableRawBufferPointer, _ places: some Sequence<Int>,
    _ decode: () throws(FormatError) -> T
) {
    var tried = 0
    for at in places {
        let bit = UInt8(1) << UInt8((at &* 5 + at / 8) & 7)
        bytes[at] ^= bit
        if failure(decode) == nil { Issue.record("byte \(at), bit \(bit) passed") }
        bytes[at] ^= bit
        tried += 1
    }
    #expect(tried > 0)
    #expect(failure(decode) == nil, "the page itself must be whole")
}

struct Record: Equatable {
    var descriptor = Descriptor()
    var key: [UInt8] = []
    var parent: [UInt8] = []
}

extension Numbers {
    mutating func record(keys: ClosedRange<Int> = 1...512, parents: ClosedRange<Int> = 0...512)
        -> Record
    {
        var made = Record()
        made.key = bytes(Int.random(in: keys, using: &self))
        made.parent = bytes(Int.random(in: parents, using: &self))
        made.descriptor.version = counter()
        made.descriptor.namespaceInstance = next()
        made.descriptor.page = UInt32(below(1 << 20))
        made.descriptor.length = UInt32(1 + below(FormatConstants.maxBlockBytes))
        made.descriptor.storedPages = made.descriptor.length / 4096 + 1 + UInt32(below(3))
        made.descriptor.checksum = word32()
        made.descriptor.expiry = word32()
        made.descriptor.shardCount = UInt16(below(FormatConstants.maxShards))
        made.descriptor.flags = [[], [.tombstone], [.supersede], [.aligned]][below(4)]
        if !made.parent.isEmpty { made.descriptor.flags.insert(.hasParent) }
        if !made.descriptor.hasValue {
            made.descriptor.length = 0
            made.descriptor.storedPages = 0
        }
        made.descriptor.keyLength = UInt16(made.key.count)
        made.descriptor.parentLength = UInt16(made.parent.count)
        made.descriptor.rawLength = made.descriptor.length
        made.descriptor.encryptionKey = 0
        return made
    }

    mutating func context() -> PageContext {
        PageContext(
            secret: secret(), store: identity(), segment: UInt32(below(1 << 20)),
            generation: counter())
    }

    mutating func header() -> SegmentHeader {
        var made = SegmentHeader()
        made.store = identity()
        made.device = identity()
        made.segment = UInt32(below(1 << 20))
        made.generation = counter()
        made.segmentBytes = next()
        made.stream = UInt8(below(4))
        made.state = 1
        made.versionBase = counter()
        made.createdWallSeconds = word32()
        return made
    }

    mutating func trailer(_ generation: UInt64) -> SegmentTrailer {
        var made = SegmentTrailer()
        made.generation = generation
        made.recordCount = word32()
        made.footerFirstPage = word32()
        made.footerPages = word32()
        made.minVersion = below(4) == 0 ? UInt64.max : counter()
        made.maxVersion = counter()
        made.minValueVersion = below(4) == 0 ? UInt64.max : counter()
        made.sealedWallSeconds = word32()
        made.livePagesAtSeal = word32()
        made.metaPages = word32()
        return made
    }

    mutating func manifest(devices: Int, namespaces: Int) -> Manifest {
        var made = Manifest()
        made.store = identity()
        made.secret = secret()
        made.epoch = counter()
        made.membershipEpoch = counter()
        made.mode = UInt8(below(2))
        made.segmentBytes = UInt64(16 + below((1 << 20) - 15)) * 4096
        made.maxBlockBytes = UInt64(1 + below(FormatConstants.maxBlockBytes))
        made.capacityBytes = next()
        made.generationLimit = counter()
        made.versionLimit = counter()
        made.nextNamespaceInstance = counter()
        made.wallSecondsFloor = word32()
        made.cleanClose = below(2) == 1
        for index in 0..<devices {
            made.devices.append(
                DeviceRecord(
                    id: identity(), index: UInt8(index), state: UInt8(below(3)),
                    segmentCount: UInt32(below((1 << 15) + 1)), membershipEpoch: counter()))
        }
        if devices > 0 { made.thisDevice = UInt8(below(devices)) }
        for slot in 0..<namespaces { made.namespaces.append(namespace(slot)) }
        return made
    }

    mutating func namespace(_ slot: Int) -> NamespaceRecord {
        let texts = ["model", "", "Ärger ✓", "tokenizer=sha256:1234", "ключ", "a b"]
        var fields: [(String, String)] = []
        for _ in 0..<below(9) { fields.append((texts[below(6)], texts[below(6)])) }
        var made = NamespaceRecord(
            instance: counter(), fingerprint: identity(), state: 0, aligned: below(2) == 1,
            ttlSeconds: word32(), capBytes: next(), fields: fields)
        made.slot = UInt16(slot)
        made.createdVersion = counter()
        return made
    }

    mutating func checkpointSegment() -> CheckpointSegment {
        var made = CheckpointSegment()
        made.segment = word32() & 0xFFFFF
        made.state = UInt8(below(7))
        made.generation = counter()
        made.writtenPages = word32()
        made.livePages = word32()
        made.minVersion = below(3) == 0 ? UInt64.max : counter()
        made.maxVersion = counter()
        made.minValueVersion = below(3) == 0 ? UInt64.max : counter()
        made.metaPages = word32()
        return made
    }

    mutating func checkpoint(segments: Int) -> CheckpointHeader {
        var made = CheckpointHeader()
        made.store = identity()
        made.sequence = counter()
        made.beganVersion = counter()
        made.beganWall = word32()
        made.segmentCount = UInt32(segments)
        return made
    }
}

/// A page of records in `memory`; those that it took.
func writePage(
    _ numbers: inout Numbers, into buffer: Buffer, context: PageContext, pages: Int, first: UInt32,
    count: Int, kind: DescriptorPageKind = .group, valueBase: UInt32 = 0
) -> (records: [Record], pages: Int) {
    guard let base = buffer.bytes.baseAddress else { return ([], 0) }
    var writer = DescriptorPageWriter(memory: base, pages: pages)
    var records: [Record] = []
    for _ in 0..<count {
        let record = numbers.record()
        let took = record.key.withUnsafeBytes { key in
            record.parent.withUnsafeBytes { parent in
                writer.append(record.descriptor, key: key, parent: parent)
            }
        }
        guard took else { break }
        records.append(record)
    }
    let sealed = writer.seal(
        kind: kind, context: context, firstPage: first, groupFirstPage: first,
        groupPages: UInt32(pages) + 100, groupSequence: 77, valueBase: valueBase)
    return (records, sealed)
}

/// The records of a page, copied out.
func readPage(
    _ page: UnsafeRawBufferPointer, _ context: PageContext, _ number: UInt32
) throws(FormatError) -> [Record] {
    var reader = try DescriptorPageReader(page: page, context: context, pageNumber: number)
    var made: [Record] = []
    while let view = reader.next() {
        made.append(
            Record(descriptor: view.descriptor, key: Array(view.key), parent: Array(view.parent)))
    }
    return made
}
