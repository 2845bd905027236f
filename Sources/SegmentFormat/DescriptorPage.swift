// DescriptorPage: 4 KiB of descriptors, written once, checked as a whole. The same page serves in
// front of a group and in a segment's footer. Records never span pages, so that each page stands
// for itself: a damaged one costs its records and nothing else.

import Glibc

package enum DescriptorPageKind: UInt8, Sendable {
    case group = 1
    case footer = 2
}

package struct DescriptorPageHeader: Equatable, Sendable {
    package static let bytes = 64
    package var kind = DescriptorPageKind.group
    /// The stream that wrote it, by the store's numbers.
    package var stream: UInt8 = 0
    /// This page's number in its segment.
    package var page: UInt32 = 0
    package var groupFirstPage: UInt32 = 0
    /// All pages of the group, descriptors and values.
    package var groupPages: UInt32 = 0
    package var descriptorIndex: UInt16 = 0
    package var descriptorPages: UInt16 = 0
    package var recordCount: UInt16 = 0
    /// Bytes of the page that are used, header included.
    package var usedBytes: UInt16 = 0
    package var groupSequence: UInt64 = 0
    package var generation: UInt64 = 0

    static let checkOffset = 8

    func encode(_ to: UnsafeMutableRawBufferPointer) {
        to.put(FormatConstants.descriptorMagic, 0)
        to.put(FormatConstants.version, 4)
        to.put(kind.rawValue, 6)
        to.put(stream, 7)
        to.put(generation, 16)
        to.put(groupSequence, 24)
        to.put(page, 32)
        to.put(groupFirstPage, 36)
        to.put(groupPages, 40)
        to.put(descriptorIndex, 44)
        to.put(descriptorPages, 46)
        to.put(recordCount, 48)
        to.put(usedBytes, 50)
        to.put(UInt32(0), 52)
        to.put(UInt64(0), 56)
    }
}

/// Fills descriptor pages in memory of the caller. No allocation.
package struct DescriptorPageWriter {
    private let memory: UnsafeMutableRawPointer
    private let capacity: Int
    /// Pages begun; 0 for an empty writer.
    package private(set) var pageCount = 0
    package private(set) var recordCount = 0
    private var used = DescriptorPageHeader.bytes
    private var recordsInPage: UInt16 = 0

    package init(memory: UnsafeMutableRawPointer, pages: Int) {
        self.memory = memory
        capacity = pages
    }

    package mutating func reset() {
        pageCount = 0
        recordCount = 0
        used = DescriptorPageHeader.bytes
        recordsInPage = 0
    }

    private func page(_ index: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(
            start: memory + index * FormatConstants.pageBytes, count: FormatConstants.pageBytes)
    }

    /// Whether a record of this size still fits.
    package func hasRoom(recordBytes: Int) -> Bool {
        if pageCount == 0 { return capacity > 0 }
        return used + recordBytes <= FormatConstants.pageBytes || pageCount < capacity
    }

    /// Adds a record; false when there is no room. The counts of a finished page are kept in its
    /// header field until `seal` writes the rest.
    package mutating func append(
        _ descriptor: Descriptor, key: UnsafeRawBufferPointer, parent: UnsafeRawBufferPointer
    ) -> Bool {
        let bytes = Descriptor.recordBytes(keyLength: key.count, parentLength: parent.count)
        guard hasRoom(recordBytes: bytes) else { return false }
        if pageCount == 0 || used + bytes > FormatConstants.pageBytes {
            if pageCount > 0 { closePage() }
            pageCount += 1
            used = DescriptorPageHeader.bytes
            recordsInPage = 0
        }
        let target = UnsafeMutableRawBufferPointer(
            rebasing: page(pageCount - 1)[used..<(used + bytes)])
        descriptor.encode(target)
        guard let base = target.baseAddress else { return false }
        if let from = key.baseAddress {
            (base + Descriptor.fixedBytes).copyMemory(from: from, byteCount: key.count)
        }
        if let from = parent.baseAddress, parent.count > 0 {
            (base + Descriptor.fixedBytes + key.count).copyMemory(
                from: from, byteCount: parent.count)
        }
        let end = Descriptor.fixedBytes + key.count + parent.count
        if end < bytes {
            memset(base + end, 0, bytes - end)
        }
        used += bytes
        recordsInPage += 1
        recordCount += 1
        return true
    }

    private func closePage() {
        let memory = page(pageCount - 1)
        memory.put(recordsInPage, 48)
        memory.put(UInt16(used), 50)
        UnsafeMutableRawBufferPointer(rebasing: memory[used...]).zero()
    }

    /// Finishes all pages: headers, checks, and `valueBase` added to the page of each record that
    /// has a value. Returns the number of pages.
    package mutating func seal(
        kind: DescriptorPageKind, context: PageContext, firstPage: UInt32, groupFirstPage: UInt32,
        groupPages: UInt32, groupSequence: UInt64, valueBase: UInt32, stream: UInt8 = 0
    ) -> Int {
        guard pageCount > 0 else { return 0 }
        closePage()
        for index in 0..<pageCount {
            let memory = page(index)
            var header = DescriptorPageHeader()
            header.kind = kind
            header.stream = stream
            header.page = firstPage + UInt32(index)
            header.groupFirstPage = groupFirstPage
            header.groupPages = groupPages
            header.descriptorIndex = UInt16(index)
            header.descriptorPages = UInt16(pageCount)
            header.recordCount = UnsafeRawBufferPointer(memory).u16(48)
            header.usedBytes = UnsafeRawBufferPointer(memory).u16(50)
            header.groupSequence = groupSequence
            header.generation = context.generation
            header.encode(memory)
            if valueBase > 0 { Self.move(memory, header, by: valueBase) }
            memory.seal(
                context.seed(FormatConstants.descriptorMagic, page: header.page),
                at: DescriptorPageHeader.checkOffset)
        }
        return pageCount
    }

    private static func move(
        _ memory: UnsafeMutableRawBufferPointer, _ header: DescriptorPageHeader, by base: UInt32
    ) {
        var at = DescriptorPageHeader.bytes
        for _ in 0..<header.recordCount {
            let record = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(memory)[at...])
            let descriptor = Descriptor(record)
            if descriptor.hasValue { memory.put(descriptor.page + base, at + 16) }
            at += Descriptor.recordBytes(
                keyLength: Int(descriptor.keyLength), parentLength: Int(descriptor.parentLength))
        }
    }
}

/// One record of a page; key and parent point into it.
package struct RecordView {
    package let descriptor: Descriptor
    package let key: UnsafeRawBufferPointer
    package let parent: UnsafeRawBufferPointer
}

/// Reads a page that verifies; all records were found to lie inside before the first is given out.
package struct DescriptorPageReader {
    package let header: DescriptorPageHeader
    private let page: UnsafeRawBufferPointer
    private var at = DescriptorPageHeader.bytes
    private var left: UInt16

    /// A quick look, for scans: worth trying to read.
    package static func looksLike(_ page: UnsafeRawBufferPointer) -> Bool {
        page.count == FormatConstants.pageBytes && page.u32(0) == FormatConstants.descriptorMagic
    }

    /// Whether a page gives itself out for a descriptor page of this life and place.
    package static func claims(
        _ page: UnsafeRawBufferPointer, generation: UInt64, pageNumber: UInt32
    ) -> Bool {
        looksLike(page) && page.u64(16) == generation && page.u32(32) == pageNumber
    }

    /// Whether a page that does not verify was written as a descriptor page of this life and place,
    /// and only its magic, generation or page number changed since: with them put right, it
    /// verifies. So it is told from pages of earlier lives, which do not claim this one either.
    package static func isSpoilt(
        _ page: UnsafeRawBufferPointer, context: PageContext, pageNumber: UInt32
    ) -> Bool {
        guard page.count == FormatConstants.pageBytes else { return false }
        return withUnsafeTemporaryAllocation(
            byteCount: FormatConstants.pageBytes, alignment: 8
        ) { copy in
            copy.copyMemory(from: page)
            copy.put(FormatConstants.descriptorMagic, 0)
            copy.put(context.generation, 16)
            copy.put(pageNumber, 32)
            return UnsafeRawBufferPointer(copy).verifies(
                context.seed(FormatConstants.descriptorMagic, page: pageNumber),
                at: DescriptorPageHeader.checkOffset)
        }
    }

    package init(
        page: UnsafeRawBufferPointer, context: PageContext, pageNumber: UInt32
    ) throws(FormatError) {
        guard Self.looksLike(page) else { throw .notHearth }
        guard
            page.verifies(
                context.seed(FormatConstants.descriptorMagic, page: pageNumber),
                at: DescriptorPageHeader.checkOffset)
        else { throw .damaged }
        guard let kind = DescriptorPageKind(rawValue: page.u8(6)) else { throw .damaged }
        var header = DescriptorPageHeader()
        header.kind = kind
        header.stream = page.u8(7)
        header.generation = page.u64(16)
        header.groupSequence = page.u64(24)
        header.page = page.u32(32)
        header.groupFirstPage = page.u32(36)
        header.groupPages = page.u32(40)
        header.descriptorIndex = page.u16(44)
        header.descriptorPages = page.u16(46)
        header.recordCount = page.u16(48)
        header.usedBytes = page.u16(50)
        guard header.page == pageNumber, header.generation == context.generation else {
            throw .wrongPlace
        }
        guard Self.isInGroup(header), Self.recordsLieInside(page, header) else { throw .damaged }
        self.header = header
        self.page = page
        left = header.recordCount
    }

    /// Whether the page is where its group says: scans count on from these fields.
    private static func isInGroup(_ header: DescriptorPageHeader) -> Bool {
        header.descriptorIndex < header.descriptorPages
            && UInt64(header.groupFirstPage) + UInt64(header.descriptorIndex)
                == UInt64(header.page)
            && header.groupPages >= UInt32(header.descriptorPages)
    }

    private static func recordsLieInside(
        _ page: UnsafeRawBufferPointer, _ header: DescriptorPageHeader
    ) -> Bool {
        var at = DescriptorPageHeader.bytes
        let end = Int(header.usedBytes)
        guard end <= page.count else { return false }
        for _ in 0..<header.recordCount {
            guard at + Descriptor.fixedBytes <= end else { return false }
            let descriptor = Descriptor(UnsafeRawBufferPointer(rebasing: page[at...]))
            guard descriptor.isPlausible else { return false }
            at += Descriptor.recordBytes(
                keyLength: Int(descriptor.keyLength), parentLength: Int(descriptor.parentLength))
            guard at <= end else { return false }
        }
        return at == end
    }

    package mutating func next() -> RecordView? {
        guard left > 0 else { return nil }
        left -= 1
        let descriptor = Descriptor(UnsafeRawBufferPointer(rebasing: page[at...]))
        let key = at + Descriptor.fixedBytes
        let parent = key + Int(descriptor.keyLength)
        let end = parent + Int(descriptor.parentLength)
        at += Descriptor.recordBytes(
            keyLength: Int(descriptor.keyLength), parentLength: Int(descriptor.parentLength))
        return RecordView(
            descriptor: descriptor,
            key: UnsafeRawBufferPointer(rebasing: page[key..<parent]),
            parent: UnsafeRawBufferPointer(rebasing: page[parent..<end]))
    }
}
