// The structures of a segment: header, trailer, descriptor pages of groups and of footers, and what
// first and last page together say of its life.

import SegmentFormat

final class FuzzedHeader: FuzzedStructure {
    private let secret: SecretKey
    private let header: SegmentHeader
    private let check: UInt64
    private let again = FuzzMemory(4096)

    static func make(_ choices: inout Choices, _ context: PageContext) -> SegmentHeader {
        var made = SegmentHeader()
        made.store = context.store
        made.device = choices.identity()
        made.segment = context.segment
        made.generation = context.generation
        made.segmentBytes = choices.next()
        made.stream = UInt8(choices.below(6))
        made.state = 1
        made.versionBase = choices.counter()
        made.createdWallSeconds = choices.word32()
        return made
    }

    static func seed(_ context: PageContext) -> UInt64 {
        Raw.seed(
            context.secret, magic: Raw.magic("HSEG"), store: context.store,
            segment: context.segment)
    }

    static let places = FuzzField.list(
        [
            (16, 8), (24, 8), (32, 8), (40, 8), (48, 8), (56, 4), (60, 4), (64, 8), (72, 8),
            (80, 1), (81, 1),
        ], opaque: [(0, 4), (4, 2), (8, 8), (88, 8), (96, 8), (104, 8)])

    init(_ choices: inout Choices) {
        let context = choices.context()
        secret = context.secret
        header = Self.make(&choices, context)
        check = Self.seed(context)
        super.init(4096)
        header.encode(into: view, secret: secret)
        fields = Self.places
    }

    private var view: UnsafeMutableRawBufferPointer { .init(rebasing: bytes[..<4096]) }

    override func seal(_ choices: inout Choices) { Raw.seal(view, check) }

    override func decode(_ view: UnsafeRawBufferPointer) -> FuzzVerdict {
        do throws(FormatError) {
            let made = try SegmentHeader.decode(
                view, secret: secret, store: header.store, segment: header.segment)
            guard made.generation > 0, made.generation < 1 << 63, made.versionBase < 1 << 63,
                made.store == header.store, made.segment == header.segment
            else { return .wrong("an impossible header is taken: \(made)") }
            made.encode(into: again.bytes, secret: secret)
            let page = UnsafeRawBufferPointer(again.bytes)
            if let text = differs(page) { return .wrong(text) }
            let second = try SegmentHeader.decode(
                page, secret: secret, store: header.store, segment: header.segment)
            return second == made ? .accepted : .wrong("written again it is another header")
        } catch { return .refused(error) }
    }
}

final class FuzzedTrailer: FuzzedStructure {
    private let context: PageContext
    private let page: UInt32
    private let again = FuzzMemory(4096)

    static func make(
        _ choices: inout Choices, generation: UInt64, pages: UInt32? = nil
    ) -> SegmentTrailer {
        var made = SegmentTrailer()
        made.generation = generation
        made.recordCount = choices.word32()
        made.footerFirstPage = choices.word32()
        made.footerPages = choices.word32()
        if let pages {
            made.footerPages = 1 + UInt32(choices.below(Int(pages) / 2))
            made.footerFirstPage = pages - 1 - made.footerPages
        }
        made.minVersion = choices.below(4) == 0 ? UInt64.max : choices.counter()
        made.maxVersion = choices.counter()
        made.minValueVersion = choices.below(4) == 0 ? UInt64.max : choices.counter()
        made.sealedWallSeconds = choices.word32()
        made.livePagesAtSeal = choices.word32()
        made.metaPages = choices.word32()
        made.stream = UInt8(choices.below(6))
        return made
    }

    static let places = FuzzField.list(
        [
            (16, 8), (24, 4), (28, 4), (32, 4), (36, 4), (40, 8), (48, 8), (56, 8), (64, 4),
            (68, 4), (72, 1),
        ], opaque: [(0, 4), (4, 2), (8, 8)])

    static func seed(_ context: PageContext, _ page: UInt32) -> UInt64 {
        Raw.seed(
            context.secret, magic: Raw.magic("HTRL"), store: context.store,
            segment: context.segment, generation: context.generation, page: page)
    }

    init(_ choices: inout Choices) {
        context = choices.context()
        page = UInt32(choices.below(1 << 20))
        super.init(4096)
        Self.make(&choices, generation: context.generation)
            .encode(into: view, context: context, page: page)
        fields = Self.places
    }

    private var view: UnsafeMutableRawBufferPointer { .init(rebasing: bytes[..<4096]) }

    override func seal(_ choices: inout Choices) { Raw.seal(view, Self.seed(context, page)) }

    override func decode(_ view: UnsafeRawBufferPointer) -> FuzzVerdict {
        do throws(FormatError) {
            let made = try SegmentTrailer.decode(view, context: context, page: page)
            guard made.generation == context.generation, made.maxVersion < 1 << 63,
                made.minVersion < 1 << 63 || made.minVersion == UInt64.max
            else { return .wrong("an impossible trailer is taken: \(made)") }
            made.encode(into: again.bytes, context: context, page: page)
            let second = UnsafeRawBufferPointer(again.bytes)
            if let text = differs(second) { return .wrong(text) }
            return try SegmentTrailer.decode(second, context: context, page: page) == made
                ? .accepted : .wrong("written again it is another trailer")
        } catch { return .refused(error) }
    }
}

/// First and last page of a segment, by which recovery goes.
final class FuzzedLife: FuzzedStructure {
    private let context: PageContext
    private let segmentPages: UInt32
    private let original: SegmentHeader
    private let lastIsTrailer: Bool

    init(_ choices: inout Choices) {
        context = choices.context()
        segmentPages = UInt32(16 + choices.below(1 << 20))
        original = FuzzedHeader.make(&choices, context)
        lastIsTrailer = choices.below(3) > 0
        super.init(8192)
        original.encode(into: page(0), secret: context.secret)
        var places = FuzzedHeader.places
        if lastIsTrailer {
            FuzzedTrailer.make(
                &choices, generation: context.generation, pages: segmentPages
            ).encode(into: page(1), context: context, page: segmentPages - 1)
            places += Self.moved(FuzzedTrailer.places)
        } else {
            original.encode(into: page(1), secret: context.secret)
            places += Self.moved(FuzzedHeader.places)
        }
        fields = places
        survivesDamage = true
    }

    private static func moved(_ fields: [FuzzField]) -> [FuzzField] {
        fields.map { FuzzField(at: $0.at + 4096, width: $0.width, opaque: $0.opaque) }
    }

    private func page(_ number: Int) -> UnsafeMutableRawBufferPointer {
        .init(rebasing: bytes[(4096 * number)..<(4096 * number + 4096)])
    }

    override var sealed: [Range<Int>] { [8..<16, 4104..<4112] }

    override func seal(_ choices: inout Choices) {
        Raw.seal(page(0), FuzzedHeader.seed(context))
        // A trailer is bound to the life that the header tells, or that it claims itself.
        var life = context
        if choices.below(2) == 0 { life.generation = Raw.u64(raw, 4096 + 16) }
        Raw.seal(
            page(1),
            lastIsTrailer
                ? FuzzedTrailer.seed(life, segmentPages - 1) : FuzzedHeader.seed(context))
    }

    override func decode(_ view: UnsafeRawBufferPointer) -> FuzzVerdict {
        guard view.count >= 8192 else { return .refused(.notHearth) }
        let life = SegmentLife(
            first: UnsafeRawBufferPointer(rebasing: view[..<4096]),
            last: UnsafeRawBufferPointer(rebasing: view[4096..<8192]), secret: context.secret,
            store: context.store, segment: context.segment, segmentPages: segmentPages)
        if !isSealed {
            for header in [life.header, life.copy] where header != nil && header != original {
                return .wrong("a changed header passes its check")
            }
        }
        if let footer = life.footer {
            guard footer.first > 0, footer.pages > 0,
                UInt64(footer.first) + UInt64(footer.pages) < UInt64(segmentPages)
            else { return .wrong("a footer outside its segment: \(footer)") }
        }
        guard life.generation < 1 << 63 || life.header == nil && life.copy == nil else {
            return .wrong("an impossible life: \(life.generation)")
        }
        return life.generation == 0 ? .refused(.damaged) : .accepted
    }
}

/// A page of descriptors, in front of a group or in a footer.
final class FuzzedDescriptors: FuzzedStructure {
    private let context: PageContext
    private let page: UInt32
    private let again = FuzzMemory(4096)
    private let kind: DescriptorPageKind

    init(_ choices: inout Choices, _ kind: DescriptorPageKind) {
        context = choices.context()
        self.kind = kind
        page = UInt32(1 + choices.below(1 << 20))
        super.init(4096)
        var writer = DescriptorPageWriter(memory: memory.base, pages: 1)
        var places = FuzzField.list(
            [(7, 1), (16, 8), (24, 8), (32, 4), (36, 4), (40, 4)],
            opaque: [
                (0, 4), (4, 2), (6, 1), (8, 8), (44, 2), (46, 2), (48, 2), (50, 2), (52, 4),
                (56, 8),
            ])
        var at = DescriptorPageHeader.bytes
        // Long keys make few records, short ones fill the page with them.
        let longest = [8, 32, 512][choices.below(3)]
        for _ in 0..<(1 + choices.below(40)) {
            let key = choices.bytes(1 + choices.below(longest))
            let parent = choices.bytes(choices.below(2) == 0 ? 0 : choices.below(longest))
            let descriptor = Self.descriptor(&choices, key.count, parent.count)
            let took = key.withUnsafeBytes { key in
                parent.withUnsafeBytes { writer.append(descriptor, key: key, parent: $0) }
            }
            guard took else { break }
            places += Self.places.map { FuzzField(at: $0.0 + at, width: $0.1) }
            places.append(FuzzField(at: at + 45, width: 1, opaque: true))
            places.append(FuzzField(at: at + Descriptor.fixedBytes, width: key.count))
            at += Descriptor.recordBytes(keyLength: key.count, parentLength: parent.count)
        }
        _ = writer.seal(
            kind: kind, context: context, firstPage: page, groupFirstPage: page,
            groupPages: 1 + UInt32(choices.below(256)), groupSequence: choices.next(), valueBase: 0,
            stream: UInt8(choices.below(6)))
        fields = places
    }

    private static let places = [
        (0, 8), (8, 8), (16, 4), (20, 4), (24, 4), (28, 4), (32, 4), (36, 2), (38, 2), (40, 2),
        (42, 2), (44, 1), (48, 4), (52, 4),
    ]

    static func descriptor(_ choices: inout Choices, _ key: Int, _ parent: Int) -> Descriptor {
        var made = Descriptor()
        made.version = choices.counter()
        made.namespaceInstance = choices.next()
        made.page = UInt32(choices.below(1 << 20))
        made.length = UInt32(1 + choices.below(FormatConstants.maxBlockBytes))
        made.storedPages = made.length / 4096 + 1 + UInt32(choices.below(3))
        made.checksum = choices.word32()
        made.expiry = choices.word32()
        made.shardCount = UInt16(choices.below(FormatConstants.maxShards))
        made.flags = [[], [], [.tombstone], [.supersede], [.aligned]][choices.below(5)]
        if !made.hasValue {
            made.length = 0
            made.storedPages = 0
        }
        if parent > 0 { made.flags.insert(.hasParent) }
        made.keyLength = UInt16(key)
        made.parentLength = UInt16(parent)
        made.rawLength = made.length
        return made
    }

    override func seal(_ choices: inout Choices) {
        Raw.seal(
            .init(rebasing: bytes[..<4096]),
            Raw.seed(
                context.secret, magic: Raw.magic("HDSC"), store: context.store,
                segment: context.segment, generation: context.generation, page: page))
    }

    override func decode(_ view: UnsafeRawBufferPointer) -> FuzzVerdict {
        do throws(FormatError) {
            var reader = try DescriptorPageReader(page: view, context: context, pageNumber: page)
            let header = reader.header
            guard header.page == page, header.generation == context.generation,
                header.descriptorIndex < header.descriptorPages,
                UInt64(header.groupFirstPage) + UInt64(header.descriptorIndex) == UInt64(page),
                header.groupPages >= UInt32(header.descriptorPages), header.usedBytes <= 4096
            else { return .wrong("an impossible page is taken: \(header)") }
            var writer = DescriptorPageWriter(memory: again.base, pages: 1)
            var records = 0
            while let record = reader.next() {
                if let text = Self.wrong(record) { return .wrong(text) }
                guard writer.append(record.descriptor, key: record.key, parent: record.parent)
                else { return .wrong("its records take more than a page") }
                records += 1
            }
            guard records == Int(header.recordCount) else { return .wrong("records are missing") }
            return writtenAgain(&writer, header)
        } catch { return .refused(error) }
    }

    private static func wrong(_ record: RecordView) -> String? {
        let descriptor = record.descriptor
        let lengths =
            (1...512).contains(record.key.count) && record.parent.count <= 512
            && descriptor.version > 0 && descriptor.version < 1 << 63
        let value =
            !descriptor.hasValue
            || descriptor.length > 0 && descriptor.length <= 64 << 20
                && UInt64(descriptor.storedPages) * 4096 >= UInt64(descriptor.length)
        return lengths && value ? nil : "an impossible record is taken: \(descriptor)"
    }

    /// The records' bytes come back as they were, but for padding and reserved ones.
    private func writtenAgain(
        _ writer: inout DescriptorPageWriter, _ header: DescriptorPageHeader
    ) -> FuzzVerdict {
        guard header.recordCount > 0 else { return .accepted }
        // A page in the middle of its group is written here as the first of one.
        let first = page
        guard
            writer.seal(
                kind: header.kind, context: context, firstPage: first, groupFirstPage: first,
                groupPages: header.groupPages, groupSequence: header.groupSequence, valueBase: 0,
                stream: header.stream) == 1
        else { return .wrong("written again it has another number of pages") }
        let second = UnsafeRawBufferPointer(again.bytes)
        do throws(FormatError) {
            var one = try DescriptorPageReader(
                page: UnsafeRawBufferPointer(rebasing: raw[..<4096]), context: context,
                pageNumber: page)
            var two = try DescriptorPageReader(page: second, context: context, pageNumber: page)
            guard two.header.usedBytes == header.usedBytes else {
                return .wrong("written again it has another length")
            }
            while let record = one.next() {
                guard let other = two.next(), record.descriptor == other.descriptor,
                    record.key.elementsEqual(other.key), record.parent.elementsEqual(other.parent)
                else { return .wrong("a record does not come back") }
            }
            return .accepted
        } catch { return .wrong("written again it is refused: \(error)") }
    }
}
