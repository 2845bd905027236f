// DescriptorPageWriter: records at the limits, and when it is full.

import Testing

@testable import SegmentFormat

@Suite struct WriterTests {
    private func append(_ record: Record, _ writer: inout DescriptorPageWriter) -> Bool {
        record.key.withUnsafeBytes { key in
            record.parent.withUnsafeBytes { parent in
                writer.append(record.descriptor, key: key, parent: parent)
            }
        }
    }

    @Test func recordSizes() {
        #expect(Descriptor.recordBytes(keyLength: 1, parentLength: 0) == 72)
        #expect(Descriptor.recordBytes(keyLength: 8, parentLength: 0) == 72)
        #expect(Descriptor.recordBytes(keyLength: 8, parentLength: 1) == 80)
        #expect(Descriptor.recordBytes(keyLength: 512, parentLength: 512) == 1088)
    }

    /// 4096 - 64 = 4032 bytes a page: 56 of the smallest records, 3 of the largest.
    @Test(arguments: [(1, 0, 56), (512, 512, 3), (512, 0, 7), (1, 512, 6)])
    func pagesAreFilledAndNoRecordSpans(key: Int, parent: Int, perPage: Int) throws {
        var numbers = Numbers(UInt64(key * 1000 + parent))
        let buffer = Buffer(3 * 4096)
        numbers.fill(buffer.bytes)
        let base = try #require(buffer.bytes.baseAddress)
        let context = numbers.context()
        var writer = DescriptorPageWriter(memory: base, pages: 3)
        let size = Descriptor.recordBytes(keyLength: key, parentLength: parent)
        #expect(writer.hasRoom(recordBytes: size))
        var records: [Record] = []
        while records.count < 1000 {
            let record = numbers.record(keys: key...key, parents: parent...parent)
            let room = writer.hasRoom(recordBytes: size)
            let took = append(record, &writer)
            #expect(took == room)
            if !took { break }
            records.append(record)
            #expect(writer.recordCount == records.count)
            #expect(writer.pageCount == (records.count + perPage - 1) / perPage)
        }
        #expect(records.count == 3 * perPage)
        let pages = writer.seal(
            kind: .group, context: context, firstPage: 9, groupFirstPage: 9, groupPages: 3,
            groupSequence: 1, valueBase: 0)
        #expect(pages == 3)
        var read: [Record] = []
        for page in 0..<3 {
            read += try readPage(buffer.raw(page), context, 9 + UInt32(page))
        }
        #expect(read == records)
    }

    @Test func aSmallerRecordMayFitWhereALargerDoesNot() throws {
        var numbers = Numbers(12)
        let buffer = Buffer()
        var writer = DescriptorPageWriter(memory: try #require(buffer.bytes.baseAddress), pages: 1)
        for _ in 0..<3 {
            #expect(append(numbers.record(keys: 512...512, parents: 512...512), &writer))
        }
        #expect(!writer.hasRoom(recordBytes: 1088))
        #expect(!append(numbers.record(keys: 512...512, parents: 512...512), &writer))
        #expect(writer.recordCount == 3)
        // 4032 - 3 * 1088 = 768.
        #expect(writer.hasRoom(recordBytes: 768))
        #expect(!writer.hasRoom(recordBytes: 776))
        #expect(append(numbers.record(keys: 512...512, parents: 192...192), &writer))
        #expect(!append(numbers.record(keys: 1...1, parents: 0...0), &writer))
    }

    @Test func noPagesMeansNoRoom() throws {
        var numbers = Numbers(13)
        let buffer = Buffer()
        var writer = DescriptorPageWriter(memory: try #require(buffer.bytes.baseAddress), pages: 0)
        #expect(!writer.hasRoom(recordBytes: 72))
        #expect(!append(numbers.record(), &writer))
        let pages = writer.seal(
            kind: .group, context: numbers.context(), firstPage: 1, groupFirstPage: 1,
            groupPages: 1, groupSequence: 1, valueBase: 1)
        #expect(pages == 0)
    }

    @Test func resetStartsOver() throws {
        var numbers = Numbers(14)
        let buffer = Buffer(2 * 4096)
        let context = numbers.context()
        var writer = DescriptorPageWriter(memory: try #require(buffer.bytes.baseAddress), pages: 2)
        while append(numbers.record(), &writer) {}
        writer.reset()
        #expect(writer.pageCount == 0)
        #expect(writer.recordCount == 0)
        let record = numbers.record()
        #expect(append(record, &writer))
        #expect(
            writer.seal(
                kind: .group, context: context, firstPage: 5, groupFirstPage: 5, groupPages: 1,
                groupSequence: 1, valueBase: 0) == 1)
        #expect(try readPage(buffer.raw(0), context, 5) == [record])
        // Nothing of what was there before is left behind the record.
        let used =
            64
            + Descriptor.recordBytes(
                keyLength: record.key.count, parentLength: record.parent.count)
        #expect(buffer.raw(0)[used...].allSatisfy { $0 == 0 })
    }
}
