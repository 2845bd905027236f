// The structures of files of their own: a copy of the manifest, header and table of a checkpoint,
// its chunks and its end, and the page of statistics.

import SegmentFormat

final class FuzzedManifest: FuzzedStructure {
    private let again = FuzzMemory(Manifest.copyBytes)
    /// The bytes that are in use.
    private(set) var used = 192

    init(_ choices: inout Choices) {
        super.init(Manifest.copyBytes)
        var manifest = Manifest()
        manifest.store = choices.identity()
        manifest.secret = choices.secret()
        manifest.epoch = choices.counter()
        manifest.membershipEpoch = choices.counter()
        manifest.mode = UInt8(choices.below(2))
        manifest.segmentBytes = UInt64(16 + choices.below((1 << 20) - 15)) * 4096
        manifest.maxBlockBytes = UInt64(1 + choices.below(FormatConstants.maxBlockBytes))
        manifest.capacityBytes = choices.next()
        manifest.generationLimit = choices.counter()
        manifest.versionLimit = choices.counter()
        manifest.nextNamespaceInstance = choices.counter()
        manifest.wallSecondsFloor = choices.word32()
        manifest.cleanClose = choices.below(2) == 1
        let devices = 1 + choices.below(4)
        for index in 0..<devices {
            manifest.devices.append(
                DeviceRecord(
                    id: choices.identity(), index: UInt8(index), state: UInt8(choices.below(3)),
                    segmentCount: UInt32(choices.below((1 << 15) + 1)),
                    membershipEpoch: choices.counter()))
        }
        manifest.thisDevice = UInt8(choices.below(devices))
        for slot in 0..<choices.below(6) {
            manifest.namespaces.append(FuzzedNamespace.make(&choices, slot))
        }
        try? manifest.encode(into: view)
        place(manifest)
    }

    private func place(_ manifest: Manifest) {
        fields = FuzzField.list(
            [
                (16, 8), (48, 8), (56, 8), (64, 8), (72, 8), (80, 8), (88, 8), (96, 8), (104, 8),
                (112, 8), (120, 8), (128, 8), (136, 4), (140, 4), (144, 4), (148, 1), (149, 1),
            ], opaque: [(0, 4), (4, 2), (8, 8), (24, 8), (32, 8), (40, 8), (150, 1)])
        var at = 192
        for _ in manifest.devices {
            fields += FuzzField.list(
                [(at, 8), (at + 8, 8), (at + 16, 8), (at + 24, 4), (at + 28, 1), (at + 29, 1)],
                opaque: [])
            at += 40
        }
        for namespace in manifest.namespaces {
            fields += FuzzedNamespace.fields(namespace, at: at)
            at += namespace.encodedBytes
        }
        used = at
    }

    private var view: UnsafeMutableRawBufferPointer {
        .init(rebasing: bytes[..<Manifest.copyBytes])
    }

    override func seal(_ choices: inout Choices) { Raw.seal(view, 0x4865_6172_7468_4D61) }

    override func decode(_ view: UnsafeRawBufferPointer) -> FuzzVerdict {
        do throws(FormatError) {
            let made = try Manifest.decode(copy: view)
            let counters = [
                made.epoch, made.membershipEpoch, made.generationLimit, made.versionLimit,
                made.nextNamespaceInstance,
            ]
            guard counters.allSatisfy({ $0 < 1 << 63 }), made.devices.count <= 32,
                made.namespaces.count <= 4096, Int(made.thisDevice) < max(1, made.devices.count),
                made.segmentBytes % 4096 == 0, made.segmentBytes >= 1 << 16
            else { return .wrong("an impossible manifest is taken") }
            // One whose namespaces lie one over the other's end is read, but not written.
            guard made.fits else { return .accepted }
            try made.encode(into: again.bytes)
            let second = try Manifest.decode(copy: UnsafeRawBufferPointer(again.bytes))
            return second.isSame(made) ? .accepted : .wrong("written again it is another manifest")
        } catch { return .refused(error) }
    }
}

extension Manifest {
    fileprivate func isSame(_ other: Manifest) -> Bool {
        store == other.store && secret == other.secret && epoch == other.epoch
            && membershipEpoch == other.membershipEpoch && mode == other.mode
            && segmentBytes == other.segmentBytes && maxBlockBytes == other.maxBlockBytes
            && capacityBytes == other.capacityBytes && thisDevice == other.thisDevice
            && devices == other.devices && generationLimit == other.generationLimit
            && versionLimit == other.versionLimit && cleanClose == other.cleanClose
            && nextNamespaceInstance == other.nextNamespaceInstance
            && wallSecondsFloor == other.wallSecondsFloor
            && namespaces.elementsEqual(other.namespaces) { FuzzedNamespace.same($0, $1) }
    }
}

/// Namespace records, which manifest and export streams share.
enum FuzzedNamespace {
    static func make(_ choices: inout Choices, _ slot: Int) -> NamespaceRecord {
        let texts = ["model", "", "Ärger ✓", "tokenizer=sha256:1234", "ключ", "a b"]
        var fields: [(String, String)] = []
        for _ in 0..<choices.below(5) {
            fields.append((texts[choices.below(6)], texts[choices.below(6)]))
        }
        var made = NamespaceRecord(
            instance: choices.counter(), fingerprint: NamespaceRecord.fingerprint(fields: fields),
            state: 0, aligned: choices.below(2) == 1, ttlSeconds: choices.word32(),
            capBytes: choices.next(), fields: fields)
        made.slot = UInt16(slot)
        made.createdVersion = choices.counter()
        return made
    }

    static func fields(_ record: NamespaceRecord, at: Int) -> [FuzzField] {
        var made = FuzzField.list(
            [
                (at + 4, 2), (at + 6, 2), (at + 8, 8), (at + 16, 8), (at + 24, 8), (at + 32, 8),
                (at + 40, 8), (at + 48, 4), (at + 52, 1),
            ], opaque: [(at, 4), (at + 53, 1)])
        var place = at + 72
        for (name, value) in record.fields {
            let bytes = name.utf8.count + value.utf8.count
            made += FuzzField.list([(place, 2), (place + 2, 2)], opaque: [])
            if bytes > 0 { made.append(FuzzField(at: place + 4, width: bytes)) }
            place += 4 + bytes
        }
        return made
    }

    static func same(_ one: NamespaceRecord, _ other: NamespaceRecord) -> Bool {
        one.instance == other.instance && one.fingerprint == other.fingerprint
            && one.state == other.state && one.slot == other.slot
            && one.createdVersion == other.createdVersion && one.aligned == other.aligned
            && one.ttlSeconds == other.ttlSeconds && one.capBytes == other.capBytes
            && one.fields.elementsEqual(other.fields) {
                $0.0.utf8.elementsEqual($1.0.utf8) && $0.1.utf8.elementsEqual($1.1.utf8)
            }
    }
}

/// Header page and table of segments of a checkpoint.
final class FuzzedCheckpoint: FuzzedStructure {
    private let secret: SecretKey
    private let store: Identity128
    private let again: FuzzMemory

    init(_ choices: inout Choices) {
        let segments = choices.below(150)
        secret = choices.secret()
        store = choices.identity()
        let count = Int(CheckpointHeader.dataOffset(segments: segments))
        again = FuzzMemory(count)
        super.init(count)
        foreign = 4096..<8192  // the end page
        var header = CheckpointHeader()
        header.store = store
        header.sequence = choices.counter()
        header.beganVersion = choices.counter()
        header.beganWall = choices.word32()
        header.segmentCount = UInt32(segments)
        let table = (0..<segments).map { _ in Self.segment(&choices) }
        header.encode(into: view, segments: table, secret: secret)
        fields = FuzzField.list(
            [(24, 8), (32, 8), (40, 8), (48, 8), (56, 4), (60, 4), (64, 4)],
            opaque: [(0, 4), (4, 2), (8, 8), (16, 8), (72, 8)])
        for number in 0..<segments {
            let at = 8192 + 56 * number
            fields += FuzzField.list(
                [
                    (at, 4), (at + 4, 1), (at + 8, 8), (at + 16, 4), (at + 20, 4), (at + 24, 8),
                    (at + 32, 8), (at + 40, 8), (at + 48, 4),
                ], opaque: [])
        }
    }

    private static func segment(_ choices: inout Choices) -> CheckpointSegment {
        var made = CheckpointSegment()
        made.segment = UInt32(choices.below(1 << 20))
        made.state = UInt8(choices.below(7))
        made.generation = choices.counter()
        made.writtenPages = choices.word32()
        made.livePages = choices.word32()
        made.minVersion = choices.below(3) == 0 ? UInt64.max : choices.counter()
        made.maxVersion = choices.counter()
        made.minValueVersion = choices.below(3) == 0 ? UInt64.max : choices.counter()
        made.metaPages = choices.word32()
        return made
    }

    private var view: UnsafeMutableRawBufferPointer { .init(rebasing: bytes[..<count]) }

    override var sealed: [Range<Int>] { [8..<24] }

    override func seal(_ choices: inout Choices) {
        let seed = Raw.seed(secret, magic: Raw.magic("HCKP"), store: store)
        let table = UnsafeRawBufferPointer(rebasing: view[8192...])
        Raw.put(view, Checksum.crc64(seed, table), 16)
        Raw.seal(UnsafeMutableRawBufferPointer(rebasing: view[..<4096]), seed)
    }

    override func decode(_ view: UnsafeRawBufferPointer) -> FuzzVerdict {
        do throws(FormatError) {
            if view.count < 4096 {
                _ = try CheckpointHeader.decode(view, secret: secret, store: store)
                return .wrong("a header that is cut short is taken")
            }
            let header = try CheckpointHeader.decode(
                UnsafeRawBufferPointer(rebasing: view[..<4096]), secret: secret, store: store)
            guard header.store == store, header.sequence < 1 << 63, header.entryBytes == 40,
                header.segmentCount <= 1 << 20
            else { return .wrong("an impossible header is taken: \(header)") }
            let table = try CheckpointHeader.decodeSegments(view, secret: secret, store: store)
            guard table.count == Int(header.segmentCount),
                table.allSatisfy({ $0.generation < 1 << 63 && $0.maxVersion < 1 << 63 })
            else { return .wrong("an impossible table is taken") }
            again.bytes.initializeMemory(as: UInt8.self, repeating: 0)
            header.encode(into: again.bytes, segments: table, secret: secret)
            let second = UnsafeRawBufferPointer(again.bytes)
            // Rows behind the last that the header counts are not kept.
            if let text = differs(second, upTo: 8192 + 56 * table.count) { return .wrong(text) }
            return try CheckpointHeader.decodeSegments(second, secret: secret, store: store)
                == table ? .accepted : .wrong("written again it is another table")
        } catch { return .refused(error) }
    }
}

/// A chunk of index entries. These are copied in and out as they are; what recovery makes of them
/// is tried on whole stores, by `mutate`.
final class FuzzedChunk: FuzzedStructure {
    private let secret: SecretKey
    private let store: Identity128
    private let sequence: UInt64
    private let index: UInt32

    init(_ choices: inout Choices) {
        secret = choices.secret()
        store = choices.identity()
        sequence = choices.counter()
        index = UInt32(choices.below(1 << 16))
        super.init(CheckpointChunk.chunkBytes)
        let entries = choices.below(40)
        let place = CheckpointChunk.payloadOffset
        for at in place..<(place + 40 * entries) { bytes[at] = UInt8(choices.below(256)) }
        CheckpointChunk.seal(
            view, secret: secret, store: store, sequence: sequence, index: index,
            entries: UInt32(entries))
        fields = FuzzField.list(
            [(16, 8), (24, 4), (28, 4)], opaque: [(0, 4), (4, 2), (6, 2), (8, 8), (32, 8)])
        for entry in 0..<entries {
            for word in 0..<5 {
                fields.append(FuzzField(at: place + 40 * entry + 8 * word, width: 8))
            }
        }
    }

    private var view: UnsafeMutableRawBufferPointer { .init(rebasing: bytes[..<count]) }

    override func seal(_ choices: inout Choices) {
        Raw.seal(
            view,
            Raw.seed(
                secret, magic: Raw.magic("HCHK"), store: store, generation: sequence, page: index))
    }

    override func decode(_ view: UnsafeRawBufferPointer) -> FuzzVerdict {
        do throws(FormatError) {
            let entries = try CheckpointChunk.open(
                view, secret: secret, store: store, sequence: sequence, index: index)
            return Int(entries) <= (view.count - 64) / 40
                ? .accepted : .wrong("\(entries) entries in a chunk of \(view.count) bytes")
        } catch { return .refused(error) }
    }
}

final class FuzzedEnd: FuzzedStructure {
    private let secret: SecretKey
    private let store: Identity128
    private let again = FuzzMemory(4096)

    init(_ choices: inout Choices) {
        secret = choices.secret()
        store = choices.identity()
        super.init(4096)
        var end = CheckpointEnd()
        end.sequence = choices.counter()
        end.chunkCount = choices.word32()
        end.entryCount = choices.next()
        end.encode(into: view, secret: secret, store: store)
        fields = FuzzField.list(
            [(16, 8), (24, 8), (32, 4)], opaque: [(0, 4), (4, 2), (8, 8)])
    }

    private var view: UnsafeMutableRawBufferPointer { .init(rebasing: bytes[..<4096]) }

    override func seal(_ choices: inout Choices) {
        Raw.seal(view, Raw.seed(secret, magic: Raw.magic("HCND"), store: store, page: 1))
    }

    override func decode(_ view: UnsafeRawBufferPointer) -> FuzzVerdict {
        do throws(FormatError) {
            let made = try CheckpointEnd.decode(view, secret: secret, store: store)
            made.encode(into: again.bytes, secret: secret, store: store)
            let second = UnsafeRawBufferPointer(again.bytes)
            if let text = differs(second) { return .wrong(text) }
            return try CheckpointEnd.decode(second, secret: secret, store: store) == made
                ? .accepted : .wrong("written again it is another end")
        } catch { return .refused(error) }
    }
}

final class FuzzedStatistics: FuzzedStructure {
    init(_ choices: inout Choices) {
        var page = StatisticsPage()
        page.state = choices.below(2) == 0 ? .open : .closed
        page.sequence = choices.next()
        page.process = Int32(choices.below(1 << 22))
        page.user = choices.word32()
        page.processStart = choices.next()
        page.monotonic = choices.next()
        page.wallSeconds = choices.word32()
        page.openedSeconds = choices.word32()
        page.periodMilliseconds = choices.word32()
        page.store = choices.identity()
        page.descriptors.index = Int32(choices.below(100)) - 1
        page.descriptors.slabs = Int32(choices.below(100)) - 1
        let text = "{\"gets\": 1, \"Größe\": 2}"
        page.json = String(repeating: text, count: choices.below(40))
        page.prometheus = String(repeating: "hearth_gets 1\n", count: choices.below(40))
        super.init(page.encode() ?? [])
        takesMore = true
        fields = FuzzField.list(
            [
                (16, 4), (20, 1), (24, 8), (32, 4), (36, 4), (40, 8), (48, 8), (56, 4), (60, 4),
                (64, 4), (72, 8), (80, 8), (88, 4), (92, 4), (96, 4), (100, 4), (104, 4), (108, 4),
            ], opaque: [(0, 4), (4, 2), (8, 8)])
        if count > 128 { fields.append(FuzzField(at: 128, width: count - 128)) }
    }

    override func seal(_ choices: inout Choices) {
        // Over as many bytes as it says that it has, where these are there.
        let length = Int(Raw.u32(raw, 16))
        let used = (128...count).contains(length) ? length : count
        Raw.seal(UnsafeMutableRawBufferPointer(rebasing: bytes[..<used]), 0x4865_6172_7468_5370)
    }

    override func decode(_ view: UnsafeRawBufferPointer) -> FuzzVerdict {
        do throws(FormatError) {
            let made = try StatisticsPage.decode(view)
            guard try StatisticsPage.newest(in: view) == made else {
                return .wrong("alone in its file it is not the newest")
            }
            guard let again = made.encode() else { return .wrong("what was read does not fit") }
            let copy = FuzzMemory(again, room: 0)
            let second = UnsafeRawBufferPointer(copy.bytes)
            guard second.count == Int(Raw.u32(view, 16)) else {
                return .wrong("written again it has another length")
            }
            if second.count == count, let text = differs(second) { return .wrong(text) }
            return try StatisticsPage.decode(second) == made
                ? .accepted : .wrong("written again it is another page")
        } catch { return .refused(error) }
    }
}
