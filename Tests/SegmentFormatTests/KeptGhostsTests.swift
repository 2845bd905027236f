// The file of ghosts: what was written is read, and nothing that is flipped, cut short, of a newer
// version or makes no sense passes for it.

import Testing

@testable import SegmentFormat

@Suite struct KeptGhostsTests {
    private let sample = KeptGhosts(
        store: Identity128(hi: 3, lo: 4), words: [9, 7 << 32 | 1, 0, 0, .max, 1 << 40 | 3])

    private func error(_ bytes: [UInt8]) -> FormatError? {
        do {
            _ = try bytes.withUnsafeBytes { try KeptGhosts.decode($0) }
            return nil
        } catch {
            return error as? FormatError
        }
    }

    private func sealed(
        _ bytes: [UInt8], _ change: (UnsafeMutableRawBufferPointer) -> Void
    ) -> [UInt8] {
        var made = bytes
        made.withUnsafeMutableBytes {
            change($0)
            $0.seal(KeptGhosts.seed, at: KeptGhosts.checkOffset)
        }
        return made
    }

    @Test func whatWasWrittenIsRead() throws {
        for ghosts in [sample, KeptGhosts(store: sample.store, words: [])] {
            let bytes = try #require(ghosts.encode())
            for more in [bytes, bytes + [1, 2, 3]] {
                #expect(try more.withUnsafeBytes { try KeptGhosts.decode($0) } == ghosts)
            }
        }
    }

    @Test func eachFlippedBitAndEachCutIsFound() throws {
        let bytes = try #require(sample.encode())
        for bit in 0..<(8 * bytes.count) {
            var changed = bytes
            changed[bit / 8] ^= 1 << UInt8(bit % 8)
            #expect(error(changed) != nil, "bit \(bit)")
        }
        for length in 0..<bytes.count { #expect(error(Array(bytes[..<length])) != nil) }
    }

    @Test func whatMakesNoSenseIsDamage() throws {
        let bytes = try #require(sample.encode())
        #expect(error(sealed(bytes) { $0.put(UInt16(2), 4) }) == .newerFormat(word: 2))
        for places in [0, 2, 4, UInt32.max] {
            #expect(error(sealed(bytes) { $0.put(places, 20) }) == .damaged)
        }
        #expect(KeptGhosts(store: sample.store, words: [1]).encode() == nil)
        let many = [UInt64](repeating: 0, count: KeptGhosts.mostBytes / 8)
        #expect(KeptGhosts(store: sample.store, words: many).encode() == nil)
    }
}
