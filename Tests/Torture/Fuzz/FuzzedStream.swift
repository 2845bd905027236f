// The parts of an export stream, and a block's stored image with its table of shards.

import SegmentFormat

final class FuzzedExportHeader: FuzzedStructure {
    init(_ choices: inout Choices) {
        let record = FuzzedNamespace.make(&choices, choices.below(1 << 16))
        var header = ExportHeader(namespace: record)
        header.store = choices.identity()
        header.lowestVersion = choices.next()
        header.highestVersion = choices.counter()
        header.blocks = choices.next()
        header.valueBytes = choices.next()
        header.wallSeconds = choices.word32()
        super.init(header.encode())
        weakCheck = true
        fields =
            FuzzField.list(
                [(12, 4), (24, 8), (32, 8), (40, 8), (48, 8), (56, 8), (64, 8)],
                opaque: [(0, 4), (4, 4), (8, 2), (16, 8)])
            // Texts behind the last that the record counts are not kept; `same` compares the
            // others.
            + FuzzedNamespace.fields(record, at: 80).map { field in
                FuzzField(at: field.at, width: field.width, opaque: field.opaque || field.at >= 152)
            }
    }

    private var view: UnsafeMutableRawBufferPointer { .init(rebasing: bytes[..<count]) }
    override var sealed: [Range<Int>] { [(count - 4)..<count, 96..<112] }

    override func seal(_ choices: inout Choices) {
        // The fingerprint of the fields as they now are, half of the time.
        let body = UnsafeRawBufferPointer(rebasing: raw[80..<(count - 8)])
        if choices.below(2) == 0, let (record, _) = try? NamespaceRecord.decode(body) {
            let fingerprint = NamespaceRecord.fingerprint(fields: record.fields)
            Raw.put(bytes, fingerprint.hi, 96)
            Raw.put(bytes, fingerprint.lo, 104)
        }
        Raw.seal32(view)
    }

    override func decode(_ view: UnsafeRawBufferPointer) -> FuzzVerdict {
        do throws(FormatError) {
            let made = try ExportHeader.decode(view)
            guard made.highestVersion < 1 << 63 else { return .wrong("a version beyond the limit") }
            // Its writer makes it as short as it can be; fields behind the last are not kept.
            let again = made.encode()
            guard again.count <= view.count else { return .wrong("written again it is longer") }
            let copy = FuzzMemory(again, room: 0)
            let second = UnsafeRawBufferPointer(copy.bytes)
            if second.count == view.count, let text = differs(second) { return .wrong(text) }
            let other = try ExportHeader.decode(second)
            return FuzzedNamespace.same(other.namespace, made.namespace)
                && other.store == made.store && other.blocks == made.blocks
                ? .accepted : .wrong("written again it is another header")
        } catch { return .refused(error) }
    }
}

final class FuzzedExportRecord: FuzzedStructure {
    private let sequence: UInt64
    private let keyLength: Int
    private let textLength: Int

    init(_ choices: inout Choices) {
        sequence = choices.next()
        let key = choices.bytes(1 + choices.below(64))
        let parent = choices.bytes(choices.below(2) * choices.below(64))
        keyLength = key.count
        textLength = key.count + parent.count
        var descriptor = FuzzedDescriptors.descriptor(&choices, key.count, parent.count)
        descriptor.flags.remove([.tombstone, .supersede])
        let shards = choices.below(3) == 0 ? 1 : 1 + choices.below(40)
        descriptor.shardCount = UInt16(shards - 1)
        var table: [UInt8] = []
        var sum: UInt32 = 0
        for _ in 0..<shards {
            let length = UInt32(1 + choices.below(1 << 20))
            sum += length
            withUnsafeBytes(of: length.littleEndian) { table += $0 }
            withUnsafeBytes(of: choices.word32()) { table += $0 }
        }
        descriptor.length = sum
        descriptor.rawLength = sum
        descriptor.storedPages = sum / 4096 + 4
        let record = ExportRecord(
            descriptor: descriptor, key: key, parent: parent, table: shards > 1 ? table : [])
        super.init(record.encodeFront(sequence: sequence))
        weakCheck = true
        fields = FuzzField.list(
            [
                (8, 8), (16, 8), (24, 8), (36, 4), (40, 4), (44, 4), (48, 4), (52, 2), (54, 2),
                (56, 2), (58, 2), (60, 1), (64, 4), (68, 4), (80, key.count + parent.count),
            ], opaque: [(0, 4), (4, 4), (32, 4), (61, 1)])
        let at = (80 + key.count + parent.count + 7) & ~7
        if shards > 1 {
            for shard in 0..<(2 * shards) {
                fields.append(FuzzField(at: at + 4 * shard, width: 4))
            }
        }
    }

    override var sealed: [Range<Int>] { [(count - 4)..<count] }

    override func seal(_ choices: inout Choices) {
        Raw.seal32(UnsafeMutableRawBufferPointer(rebasing: bytes[..<count]))
    }

    override func decode(_ view: UnsafeRawBufferPointer) -> FuzzVerdict {
        do throws(FormatError) {
            let made = try ExportRecord.decodeFront(view, sequence: sequence)
            let descriptor = made.descriptor
            guard descriptor.length > 0, descriptor.length <= 64 << 20, descriptor.hasValue,
                (1...512).contains(made.key.count), made.parent.count <= 512,
                made.table.count == (made.shardCount > 1 ? 8 * made.shardCount : 0),
                made.shardLengths.reduce(UInt64(0), { $0 + UInt64($1) })
                    == UInt64(descriptor.length)
            else { return .wrong("an impossible record is taken: \(descriptor)") }
            let again = made.encodeFront(sequence: sequence)
            let copy = FuzzMemory(again, room: 0)
            let second = UnsafeRawBufferPointer(copy.bytes)
            guard second.count == view.count else {
                return .wrong("written again it has another length")
            }
            // With a shorter key, say, what is behind it is not kept; `other` compares what is.
            let isShaped =
                made.key.count == keyLength && made.key.count + made.parent.count == textLength
            if let text = differs(second, upTo: isShaped ? Int.max : 80) { return .wrong(text) }
            let other = try ExportRecord.decodeFront(second, sequence: sequence)
            return other.key == made.key && other.parent == made.parent
                && other.table == made.table
                ? .accepted : .wrong("written again it is another record")
        } catch { return .refused(error) }
    }
}

final class FuzzedExportEnd: FuzzedStructure {
    init(_ choices: inout Choices) {
        var end = ExportEnd()
        end.records = choices.next()
        end.valueBytes = choices.next()
        end.leftOut = choices.next()
        end.chain = choices.word32()
        super.init(end.encode())
        weakCheck = true
        fields = FuzzField.list(
            [(8, 8), (16, 8), (24, 8), (32, 4)], opaque: [(0, 4), (4, 4)])
    }

    override var sealed: [Range<Int>] { [(count - 4)..<count] }

    override func seal(_ choices: inout Choices) {
        Raw.seal32(UnsafeMutableRawBufferPointer(rebasing: bytes[..<count]))
    }

    override func decode(_ view: UnsafeRawBufferPointer) -> FuzzVerdict {
        do throws(FormatError) {
            let made = try ExportEnd.decode(view)
            return made.encode().withUnsafeBytes { second in
                differs(second).map { .wrong($0) } ?? .accepted
            }
        } catch { return .refused(error) }
    }
}

/// A stored image, read under a layout that a descriptor may claim.
final class FuzzedImage: FuzzedStructure {
    private static let identity: UInt32 = 0x1234_5678
    private let shards: Int
    private let aligned: Bool
    private let length: UInt32
    private var layout: BlockLayout
    private var sum: UInt32 = 0
    private let firstSum: UInt32
    /// Of all bytes of its shards, as they were put.
    private var digest: UInt64 = 0

    init(_ choices: inout Choices) {
        shards = [1, 2, 3, 8, 40][choices.below(5)]
        aligned = choices.below(2) == 0
        var lengths: [UInt32] = []
        for _ in 0..<shards { lengths.append(UInt32(choices.below(600))) }
        lengths[0] += 1
        let all = lengths.reduce(0, +)
        length = all
        let own = BlockLayout(length: all, shardCount: shards, aligned: aligned)
        layout = own
        let isAligned = aligned
        let stored = lengths.withUnsafeBufferPointer {
            BlockLayout.storedBytes(shardLengths: $0, aligned: isAligned)
        }
        var made = [UInt8](repeating: 0, count: stored)
        var at = own.dataOffset
        var table: [UInt8] = []
        for (shard, length) in lengths.enumerated() {
            for place in at..<(at + Int(length)) { made[place] = UInt8(choices.below(256)) }
            let seed = Checksum.valueSeed(
                identity: Self.identity, shard: UInt32(shard), length: length)
            let value = made[at..<(at + Int(length))].withUnsafeBytes { Checksum.crc32c(seed, $0) }
            withUnsafeBytes(of: length.littleEndian) { table += $0 }
            withUnsafeBytes(of: value.littleEndian) { table += $0 }
            if shards == 1 { sum = value }
            at += own.aligned ? (Int(length) + 4095) & ~4095 : Int(length)
        }
        if shards > 1 {
            for (number, byte) in table.enumerated() { made[own.tableOffset + number] = byte }
            sum = table.withUnsafeBytes {
                ShardTable.checksum(identity: Self.identity, $0, count: lengths.count)
            }
        }
        firstSum = sum
        super.init(made)
        survivesDamage = true
        takesMore = true
        if shards > 1 {
            for word in 0..<(2 * shards) {
                fields.append(FuzzField(at: own.tableOffset + 4 * word, width: 4))
            }
        }
        fields.append(FuzzField(at: own.dataOffset, width: max(1, Int(lengths[0]))))
        _ = StoredImage(layout: own, bytes: UnsafeRawBufferPointer(rebasing: raw[..<count]))
            .forEachShard { _, value, _ in digest = Checksum.crc64(digest, value) }
    }

    override var sealed: [Range<Int>] { [] }

    /// Another layout may be claimed, and the table's checksum is made anew.
    override func seal(_ choices: inout Choices) {
        if choices.below(3) == 0 {
            layout = BlockLayout(
                length: UInt32(truncatingIfNeeded: choices.word()),
                shardCount: 1 + choices.below(FormatConstants.maxShards),
                aligned: choices.below(2) == 0)
        }
        let image = StoredImage(
            layout: layout, bytes: UnsafeRawBufferPointer(rebasing: raw[..<count]))
        if let table = image.table {
            sum = ShardTable.checksum(
                identity: Self.identity, table, count: layout.shardCount)
        }
    }

    override func decode(_ view: UnsafeRawBufferPointer) -> FuzzVerdict {
        defer {
            layout = BlockLayout(length: length, shardCount: shards, aligned: aligned)
            sum = firstSum
        }
        let image = StoredImage(layout: layout, bytes: view)
        let damage = image.damage(identity: Self.identity, checksum: sum)
        var total: UInt64 = 0
        var seen: UInt64 = 0
        let inside = image.forEachShard { _, value, _ in
            total += UInt64(value.count)
            seen = Checksum.crc64(seen, value)
        }
        guard damage == nil else { return .refused(.damaged) }
        guard inside, total == UInt64(layout.length) else {
            return .wrong("an image of \(layout.length) bytes has \(total)")
        }
        if !isSealed, seen != digest { return .wrong("changed bytes pass their checksum") }
        return .accepted
    }
}
