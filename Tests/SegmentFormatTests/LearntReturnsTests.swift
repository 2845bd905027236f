// The file of what was learnt: what was written is read, and nothing that is flipped, cut short, of
// a newer version or makes no sense passes for it.

import Testing

@testable import SegmentFormat

@Suite struct LearntReturnsTests {
    private func sample() -> LearntReturns {
        var made = LearntReturns()
        made.store = Identity128(hi: 3, lo: 4)
        made.bins = 3
        made.returns = 77
        made.trust = 0.5
        made.namespaces = [
            LearntReturns.Namespace(instance: 9, group: 0),
            LearntReturns.Namespace(instance: 1 << 40, group: 15),
        ]
        made.blocks = [
            LearntReturns.Class(number: 2, sums: [1, 2, 3, 4, 5, 6]),
            LearntReturns.Class(number: 200, sums: [0, 0.25, 1e30, 0, 0, 9]),
        ]
        made.sessions = [LearntReturns.Class(number: 0, sums: [6, 5, 4, 3, 2, 1])]
        return made
    }

    private func decode(_ bytes: [UInt8]) throws -> LearntReturns {
        try bytes.withUnsafeBytes { try LearntReturns.decode($0) }
    }

    private func error(_ bytes: [UInt8]) -> FormatError? {
        do {
            _ = try decode(bytes)
            return nil
        } catch {
            return error as? FormatError
        }
    }

    /// The bytes with a change that the check covers.
    private func sealed(
        _ bytes: [UInt8], _ change: (UnsafeMutableRawBufferPointer) -> Void
    ) -> [UInt8] {
        var made = bytes
        made.withUnsafeMutableBytes {
            change($0)
            $0.seal(LearntReturns.seed, at: LearntReturns.checkOffset)
        }
        return made
    }

    @Test func whatWasWrittenIsRead() throws {
        let bytes = try #require(sample().encode())
        #expect(try decode(bytes) == sample())
        #expect(try decode(bytes + [1, 2, 3]) == sample())
        #expect(try decode(#require(LearntReturns().encode())) == LearntReturns())
    }

    @Test func eachFlippedBitAndEachCutIsFound() throws {
        let bytes = try #require(sample().encode())
        for bit in 0..<(8 * bytes.count) {
            var changed = bytes
            changed[bit / 8] ^= 1 << UInt8(bit % 8)
            #expect(error(changed) != nil, "bit \(bit)")
        }
        for length in 0..<bytes.count { #expect(error(Array(bytes[..<length])) != nil) }
    }

    @Test func whatMakesNoSenseIsDamage() throws {
        let bytes = try #require(sample().encode())
        #expect(error(sealed(bytes) { $0.put(UInt16(2), 4) }) == .newerFormat(word: 2))
        // Trust of 2, and of no number.
        #expect(error(sealed(bytes) { $0.put(Float(2).bitPattern, 48) }) == .damaged)
        #expect(error(sealed(bytes) { $0.put(Float.nan.bitPattern, 48) }) == .damaged)
        // More classes, namespaces or bins than there are bytes.
        #expect(error(sealed(bytes) { $0.put(UInt16(3), 52) }) == .damaged)
        #expect(error(sealed(bytes) { $0.put(UInt16(65_535), 22) }) == .damaged)
        #expect(error(sealed(bytes) { $0.put(UInt16(65_535), 20) }) == .damaged)
        // Sums that are none, and a class twice.
        let first = 64 + 2 * 16
        for wrong in [Float.infinity, -1, .nan] {
            #expect(error(sealed(bytes) { $0.put(wrong.bitPattern, first + 8) }) == .damaged)
        }
        #expect(error(sealed(bytes) { $0.put(UInt16(200), first) }) == .damaged)
    }

    @Test func whatIsTooMuchIsNotWritten() {
        var made = sample()
        made.blocks[0].sums.removeLast()
        #expect(made.encode() == nil)
        made = sample()
        made.bins = 2000
        let sums = [Float](repeating: 1, count: 4000)
        made.sessions = []
        made.blocks = (0..<100).map { LearntReturns.Class(number: $0, sums: sums) }
        #expect(made.encode() == nil)
    }
}
