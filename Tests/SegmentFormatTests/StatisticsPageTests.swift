// The page of statistics: what was written is read, the newest whole place counts, and nothing that
// is torn, flipped, cut short or of a newer version passes for a page.

import Testing

@testable import SegmentFormat

@Suite struct StatisticsPageTests {
    private func page(_ sequence: UInt64, _ text: String = "{}") -> StatisticsPage {
        var page = StatisticsPage()
        page.sequence = sequence
        page.process = 4711
        page.user = 1000
        page.processStart = 99
        page.monotonic = 12_345_678_901
        page.wallSeconds = 1_700_000_000
        page.openedSeconds = 1_600_000_000
        page.periodMilliseconds = 1000
        page.store = Identity128(hi: 3, lo: 4)
        page.descriptors.index = 7
        page.descriptors.ghosts = 8
        page.descriptors.slabs = 9
        page.json = text
        page.prometheus = "hearth_up 1\n"
        return page
    }

    /// A file with these places.
    private func file(_ places: [UInt8]...) -> [UInt8] {
        var made: [UInt8] = []
        for place in places {
            made += place
            if place != places.last {
                made += [UInt8](repeating: 0, count: StatisticsPage.slotBytes - place.count)
            }
        }
        return made
    }

    private func newest(_ bytes: [UInt8]) throws -> StatisticsPage {
        try bytes.withUnsafeBytes { try StatisticsPage.newest(in: $0) }
    }

    @Test func whatWasWrittenIsRead() throws {
        var made = page(5, "{\"ä\": 1}")
        made.state = .closed
        let bytes = try #require(made.encode())
        #expect(try newest(bytes) == made)
        #expect(made.descriptors.residents == -1)
    }

    @Test func theNewestWholePlaceCounts() throws {
        let old = try #require(page(7, "old").encode())
        let new = try #require(page(8, "new text that is longer").encode())
        #expect(try newest(file(new, old)).sequence == 8)
        #expect(try newest(file(old, new)).sequence == 8)
        // The owner is in the middle of the newer one.
        var torn = new
        torn[140] ^= 1
        #expect(try newest(file(torn, old)).json == "old")
        #expect(try newest(file(old, torn)).json == "old")
        #expect(try newest(file(old, Array(new.dropLast(9)))).json == "old")
    }

    @Test func noFlippedBitPasses() throws {
        let whole = try #require(page(1).encode())
        for bit in 0..<(whole.count * 8) {
            var bytes = whole
            bytes[bit / 8] ^= 1 << UInt8(bit % 8)
            #expect(throws: FormatError.self, "bit \(bit)") { try newest(bytes) }
        }
        for length in 0..<whole.count {
            #expect(throws: FormatError.self, "\(length) bytes") {
                try newest(Array(whole[..<length]))
            }
        }
        #expect(throws: FormatError.notHearth) { try newest([]) }
        #expect(throws: FormatError.notHearth) { try newest([UInt8](repeating: 0, count: 4096)) }
    }

    @Test func aNewerVersionIsToldAsSuch() throws {
        var newer = try #require(page(1).encode())
        newer[4] = 2
        newer.withUnsafeMutableBytes {
            $0.seal(StatisticsPage.seed, at: StatisticsPage.checkOffset)
        }
        #expect(throws: FormatError.newerFormat(word: 2)) { try newest(newer) }
        #expect(throws: FormatError.newerFormat(word: 2)) { try newest(file(newer, [1, 2])) }
    }

    /// Text that is none is not mended: what was read could be longer than what was there.
    @Test func whatIsNoTextIsDamage() throws {
        for place in [128, 130] {
            var bytes = try #require(page(1, "abcdef").encode())
            bytes[place] = 0xFF
            bytes.withUnsafeMutableBytes {
                $0.seal(StatisticsPage.seed, at: StatisticsPage.checkOffset)
            }
            #expect(throws: FormatError.damaged) { try newest(bytes) }
        }
    }

    @Test func aPageThatIsTooLargeIsNotMade() {
        let most = String(repeating: "x", count: StatisticsPage.slotBytes)
        #expect(page(1, most).encode() == nil)
    }
}
