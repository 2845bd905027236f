// BlockLayout against an image built shard by shard, as docs/FORMAT.md draws it.

import Testing

@testable import SegmentFormat

@Suite struct LayoutTests {
    private struct Image {
        var table = 0
        var data = 0
        var bytes = 0
    }

    /// Lays the shards out one after the other, counting bytes.
    private func slow(_ shards: [Int], aligned: Bool) -> Image {
        func fill(_ at: Int, _ unit: Int) -> Int {
            var at = at
            while at % unit != 0 { at += 1 }
            return at
        }
        var image = Image()
        var at = 0
        if shards.count == 1 {
            image.bytes = fill(shards[0], 4096)
        } else if aligned {
            for _ in shards { at += 8 }
            at = fill(at, 4096)
            image.data = at
            for shard in shards { at = fill(at + shard, 4096) }
            image.bytes = at
        } else {
            for shard in shards { at += shard }
            at = fill(at, 8)
            image.table = at
            for _ in shards { at += 8 }
            image.bytes = fill(at, 4096)
        }
        return image
    }

    private func check(_ shards: [Int], aligned: Bool) {
        let expected = slow(shards, aligned: aligned)
        let lengths = shards.map { UInt32($0) }
        let sum = shards.reduce(0, +)
        let layout = BlockLayout(
            length: UInt32(sum), shardCount: shards.count, aligned: aligned)
        #expect(layout.tableOffset == expected.table)
        #expect(layout.dataOffset == expected.data)
        #expect(layout.hasTable == (shards.count > 1))
        #expect(layout.tableBytes == (shards.count > 1 ? 8 * shards.count : 0))
        let stored = lengths.withUnsafeBufferPointer {
            BlockLayout.storedBytes(shardLengths: $0, aligned: aligned)
        }
        #expect(stored == expected.bytes, "\(shards) aligned \(aligned)")
        let whole = shards.dropLast().allSatisfy { $0 % 4096 == 0 }
        if !aligned || shards.count == 1 || whole {
            #expect(layout.storedBytes == expected.bytes)
        } else {
            #expect(layout.storedBytes <= expected.bytes)
        }
    }

    @Test(arguments: [false, true]) func matchesTheSlowReference(aligned: Bool) {
        var numbers = Numbers(aligned ? 5 : 6)
        for edge in [1, 4095, 4096, 4097, 8192] {
            for count in [1, 2, 3, 512, 513] {
                check([Int](repeating: edge, count: count), aligned: aligned)
            }
        }
        check([Int](repeating: 1, count: FormatConstants.maxShards), aligned: aligned)
        check([FormatConstants.maxBlockBytes], aligned: aligned)
        for _ in 0..<2000 {
            let pages = numbers.below(2) == 0
            let shards = (0..<(1 + numbers.below(40))).map { _ in
                pages ? 4096 * (1 + numbers.below(9)) : 1 + numbers.below(20000)
            }
            check(shards, aligned: aligned)
        }
    }

    @Test func oneShardIsNeverAligned() {
        let one = BlockLayout(length: 5000, shardCount: 1, aligned: true)
        #expect(!one.aligned)
        #expect(one == BlockLayout(length: 5000, shardCount: 1, aligned: false))
        #expect(one.storedBytes == 8192)
    }
}
