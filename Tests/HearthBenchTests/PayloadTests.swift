// Payload: the same for the same key, different for any other, every wrong byte found where it is,
// and nothing to compress.

import CZlib
import Testing

@testable import BenchKit

@Suite struct PayloadTests {
    private func bytes(_ count: Int, _ key: UInt64, _ revision: UInt64 = 0) -> [UInt8] {
        var result = [UInt8](repeating: 0, count: count)
        result.withUnsafeMutableBytes {
            Payload.fill($0, namespace: 7, key: key, revision: revision)
        }
        return result
    }

    private func mismatch(_ value: [UInt8], _ key: UInt64, _ revision: UInt64 = 0) -> Int? {
        value.withUnsafeBytes {
            Payload.firstMismatch($0, namespace: 7, key: key, revision: revision)
        }
    }

    @Test(arguments: [1, 7, 8, 9, 63, 64, 65, 4095, 4096, 4097, 4160, 12_345, 65_536])
    func lengths(count: Int) {
        let value = bytes(count, 5)
        #expect(value == bytes(count, 5))
        #expect(mismatch(value, 5) == nil)
        var random = SeededGenerator(seed: UInt64(count))
        for place in [0, count - 1, count / 2, Int(random.below(UInt64(count)))] {
            var wrong = value
            wrong[place] ^= UInt8(1 << random.below(8))
            #expect(mismatch(wrong, 5) == place)
        }
        if count >= 8 {
            #expect(mismatch(value, 6) != nil)
            #expect(mismatch(value, 5, 1) != nil)
        }
    }

    @Test func revisionCanBeRead() {
        for revision in [0, 1, 77, UInt64.max] {
            let value = bytes(4096, 9, revision)
            let claimed = value.withUnsafeBytes {
                Payload.claimedRevision($0, namespace: 7, key: 9)
            }
            #expect(claimed == revision)
        }
    }

    @Test func keysShareNoPage() {
        var pages: Set<[UInt8]> = []
        for key in 0..<64 as Range<UInt64> {
            for revision in 0..<2 as Range<UInt64> {
                let value = bytes(8192, key, revision)
                pages.insert(Array(value[..<4096]))
                pages.insert(Array(value[4096...]))
            }
        }
        #expect(pages.count == 256)
    }

    @Test func doesNotCompress() {
        let value = bytes(65536, 11)
        var length = compressBound(65536)
        var packed = [UInt8](repeating: 0, count: Int(length))
        #expect(compress2(&packed, &length, value, 65536, 9) == Z_OK)
        #expect(length >= 65536)
    }
}
