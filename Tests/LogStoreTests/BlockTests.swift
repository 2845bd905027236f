// Large blocks and many shards: stored, read whole, by shard and by byte range, right; and how
// little is lost at the ends of segments.

import BlockIO
import Glibc
import LogStore
import SimulatedDisk
import Staging
import Testing

@Suite(.serialized) struct BlockTests {
    private static let megabyte = 1 << 20

    private func world(block: Int, segments: Int = 9, staging: Int = 0) throws -> World {
        var configuration = World.configuration(
            segments: segments, staging: staging, block: block)
        configuration.log.groupBytes = 1 << 20
        return try World(configuration)
    }

    /// Reads of the whole, of single shards, of runs and of byte ranges that cross shards.
    private func check(
        _ world: World, _ space: UInt16, _ key: String, _ value: [UInt8], _ shards: [UInt32],
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        func same(
            _ answer: StoreAnswer, _ bytes: [UInt8], _ range: Range<Int>, _ what: String
        ) {
            #expect(answer.status == .hit, "\(what): \(answer)", sourceLocation: sourceLocation)
            #expect(answer.delivered == UInt64(range.count), sourceLocation: sourceLocation)
            let right = bytes.withUnsafeBytes { read in
                value.withUnsafeBytes {
                    read.count >= range.count
                        && memcmp(
                            read.baseAddress!, $0.baseAddress! + range.lowerBound, range.count)
                            == 0
                }
            }
            #expect(right, "wrong bytes: \(what)", sourceLocation: sourceLocation)
        }
        for mode in [GetMode.direct, .cached] {
            for aligned in [true, false] {
                let (answer, bytes) = world.get(
                    key, space, length: value.count, mode: mode, aligned: aligned)
                same(answer, bytes, 0..<value.count, "whole \(mode) \(aligned)")
            }
        }
        var starts = [0]
        for length in shards { starts.append(starts[starts.count - 1] + Int(length)) }
        let count = shards.count
        for (first, run) in [
            (0, 1), (count / 2, 1), (count - 1, 1), (count / 3, min(5, count / 2)),
        ]
        where run > 0 && count > 1 {
            let range = starts[first]..<starts[first + run]
            for (mode, aligned) in [(GetMode.direct, true), (.direct, false), (.cached, true)] {
                let (answer, bytes) = world.get(
                    key, space, length: range.count, mode: mode, aligned: aligned
                ) {
                    $0.firstShard = first
                    $0.shardCount = run
                }
                same(answer, bytes, range, "shards \(first)+\(run) \(mode) \(aligned)")
            }
        }
        let middle = value.count / 2
        for range in [
            0..<1, 4095..<4099, middle..<(middle + 70_001), (value.count - 5)..<value.count,
        ] {
            for mode in [GetMode.direct, .cached] {
                let (answer, bytes) = world.get(
                    key, space, length: range.count, mode: mode, aligned: false
                ) {
                    $0.byteOffset = UInt64(range.lowerBound)
                    $0.byteCount = UInt64(range.count)
                }
                same(answer, bytes, range, "bytes \(range) \(mode)")
            }
        }
    }

    private static func lengths(_ total: Int, _ count: Int) -> [UInt32] {
        let each = total / count
        var made = [UInt32](repeating: UInt32(each), count: count)
        // Uneven, so that neither offsets nor padding come out round.
        if count > 3 {
            made[1] += 7
            made[2] -= 7
        }
        made[count - 1] += UInt32(total - each * count)
        return made
    }

    @Test(arguments: [3_098_112, 64 << 20], [1, 64, 4096])
    func largeBlocks(bytes: Int, shards: Int) throws {
        for aligned in shards > 1 ? [false, true] : [false] {
            let world = try world(block: bytes, staging: 2 * bytes)
            let space = world.namespace(aligned: aligned)
            let lengths = Self.lengths(bytes, shards)
            let value = payload("big", revision: 0, length: bytes)
            let answer = world.put("big", space, value, shards: shards > 1 ? lengths : nil)
            // Aligned shards of odd lengths take more than the limit, which is on value bytes.
            #expect(answer.status == .stored, "\(answer)")
            check(world, space, "big", value, lengths)
            world.close()
            try world.open()
            check(world, space, "big", value, lengths)
            let (over, _) = world.get("big", space, length: 10) {
                $0.byteOffset = UInt64(bytes)
                $0.byteCount = 1
            }
            #expect(over.status == .invalid)
            world.checkAccounts()
            #expect(world.driver.violations.isEmpty)
        }
    }

    /// Segments are filled with blocks of one size, the worst of which just do not fit once more.
    @Test(arguments: [(16 << 20, 16 << 20), (64 << 20, 64 << 20), (64 << 20, 40_000_000)])
    func littleIsLostAtSegmentEnds(limit: Int, length: Int) throws {
        let world = try world(block: limit, segments: 9)
        let space = world.namespace()
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: limit, alignment: 4096)
        defer { memory.deallocate() }
        for word in 0..<(limit / 8) {
            memory.storeBytes(
                of: UInt64(word) &* 0x9E37_79B9_7F4A_7C15, toByteOffset: word * 8, as: UInt64.self)
        }
        let perSegment = world.configuration.log.segmentBytes / length
        let target = UnsafeMutableRawBufferPointer(rebasing: memory[0..<length])
        // Sparse, and each time the same bytes; two segments are filled, a third is begun.
        for number in 0..<(2 * perSegment + 1) {
            let answer = world.run(.put, "key-\(number)", space, bytes: target)
            #expect(answer.status == .stored)
        }
        let statistics = world.store.log.statistics
        #expect(statistics.sealedBytes >= UInt64(2 * world.configuration.log.segmentBytes))
        let share = Double(statistics.lostBytes) / Double(statistics.sealedBytes)
        print(
            "space lost at segment ends, blocks of \(length) of at most \(limit) bytes:",
            "\(statistics.lostBytes) of \(statistics.sealedBytes),",
            "\((share * 10_000).rounded() / 100) %")
        #expect(share < 0.03)
        world.checkAccounts()
    }

    /// Many puts at once are written in groups, and a group that is a third of a segment long
    /// leaves no third of it empty.
    @Test func aGroupEndsWithItsSegment() throws {
        var configuration = World.configuration(mode: .store, staging: 0)
        configuration.log.groupBytes = 1 << 20
        let world = try World(configuration)
        let space = world.namespace()
        let length = 60_000
        var value = payload("same", revision: 0, length: length)
        let tokens = try value.withUnsafeMutableBytes { bytes in
            var piece = Piece(
                region: .process, offset: UInt64(UInt(bitPattern: try #require(bytes.baseAddress))),
                length: UInt64(length))
            return withUnsafePointer(to: &piece) { pieces in
                let tokens = (0..<300).map { number in
                    let token = world.token()
                    Array("key-\(number)".utf8).withUnsafeBytes { key in
                        var operation = StoreOperation(
                            kind: .put, token: token, namespaceSlot: space, key: key)
                        operation.pieces = pieces
                        operation.pieceCount = 1
                        operation.length = UInt32(length)
                        while !world.store.submit(operation) {
                            if !world.store.pump() { world.pause(1_000_000) }
                        }
                    }
                    return token
                }
                world.settle()
                return tokens
            }
        }
        #expect(tokens.allSatisfy { world.sink.answers[$0]?.status == .stored })
        let statistics = world.store.log.statistics
        #expect(statistics.sealedBytes >= UInt64(4 * world.configuration.log.segmentBytes))
        #expect(Double(statistics.lostBytes) / Double(statistics.sealedBytes) < 0.03)
        for number in 0..<300 {
            let (answer, bytes) = world.get("key-\(number)", space, length: length)
            #expect(answer.status == .hit && bytes == value)
        }
        world.checkAccounts()
    }

    // MARK: Device memory

    /// Bytes go from and to memory that the CPU may not touch.
    @Test(arguments: [true, false]) func deviceMemory(staged: Bool) throws {
        let world = try World(World.configuration(staging: staged ? 4 << 20 : 0))
        let space = world.namespace()
        let memory = try FakeDeviceMemory(length: 1 << 20)
        let region = try #require(world.driver.regions.add(memory.region))
        defer { world.driver.regions.remove(region) }
        world.driver.register(region)
        for (number, length) in [4096, 40_960, 65_536, 50_001].enumerated() {
            let key = "d\(number)"
            let value = payload(key, revision: 0, length: length)
            memory.fill(offset: 4096, value)
            let source = Piece(region: region, offset: 4096, length: UInt64(length))
            #expect(run(world, .put, key, space, source).status == .stored)
            #expect(world.missed(key, space, revision: 0, length: length) == nil)
            for (mode, offset) in [
                (GetMode.direct, 524_288), (.cached, 524_288), (.direct, 524_291),
            ] {
                memory.fill(offset: 524_288, [UInt8](repeating: 0xEE, count: 70_000))
                let target = Piece(region: region, offset: UInt64(offset), length: UInt64(length))
                let answer = run(world, .get, key, space, target) { $0.mode = mode }
                #expect(answer.status == .hit, "\(answer)")
                #expect(memory.bytes(offset: offset, count: length) == value, "\(key) \(mode)")
                let behind = memory.bytes(offset: offset + length, count: 64)
                #expect(behind == [UInt8](repeating: 0xEE, count: 64), "nothing beyond the length")
            }
        }
        world.checkAccounts()
    }

    private func run(
        _ world: World, _ kind: StoreOperationKind, _ key: String, _ space: UInt16, _ piece: Piece,
        _ change: (inout StoreOperation) -> Void = { _ in }
    ) -> StoreAnswer {
        let pieces = UnsafeMutablePointer<Piece>.allocate(capacity: 1)
        defer { pieces.deallocate() }
        pieces.initialize(to: piece)
        return world.run(kind, key, space) {
            $0.pieces = UnsafePointer(pieces)
            $0.pieceCount = 1
            if kind == .put { $0.length = UInt32(piece.length) }
            change(&$0)
        }
    }
}
