// Compaction of a store that runs: in store mode nothing may be evicted, room comes only from what
// died, and a put that finds none is refused. A store that is nearly full goes on being replaced in
// without end, whichever keys it hits and however few puts there are at a time.

import BlockIO
import SegmentFormat
import SimulatedDisk
import Staging
import Testing

@testable import LogStore

@Suite struct CompactionTests {
    struct Case: Sendable {
        /// Puts at a time.
        var depth: Int
        /// A fifth of the keys get nine tenths of the puts.
        var skewed: Bool
        /// Bytes of a block.
        var length = 16 << 10
        var segments = 72
        /// Puts, in turns over what the store holds.
        var turns = 5
    }

    static let cases = [
        Case(depth: 1, skewed: false), Case(depth: 1, skewed: true),
        Case(depth: 16, skewed: false), Case(depth: 16, skewed: true),
        Case(depth: 1, skewed: false, length: 64 << 10, segments: 40, turns: 3),
    ]

    /// Puts of numbered keys, `depth` at a time; each has its number and turn as its value.
    private final class Writer {
        let world: World
        let space: UInt16
        let memory: UnsafeMutableRawPointer
        let pieces: UnsafeMutablePointer<Piece>
        let depth: Int
        let length: Int
        /// The last put of each key that was stored, -1 for none; and puts that were not.
        var turns: [Int] = []
        var refused = 0
        /// A key has to stay where it is until its put has been answered.
        let names = (0..<6000).map { Array("key-\($0)".utf8) }

        init(_ world: World, _ space: UInt16, depth: Int, length: Int) {
            self.world = world
            self.space = space
            self.depth = depth
            self.length = length
            memory = .allocate(byteCount: depth * length, alignment: 4096)
            pieces = .allocate(capacity: depth)
            for slot in 0..<depth {
                (pieces + slot).initialize(
                    to: Piece(
                        region: .process,
                        offset: UInt64(UInt(bitPattern: memory + slot * length)),
                        length: UInt64(length)))
            }
        }

        deinit {
            memory.deallocate()
            pieces.deallocate()
        }

        /// Puts until there are `count` answers or `next` has no more keys.
        func run(count: Int, replace: Bool, next: () -> Int?) throws {
            var (asked, answered) = (0, 0)
            var slots: [UInt64: (slot: Int, key: Int)] = [:]
            var free = Array(0..<depth)
            while answered < count {
                while let slot = free.last, asked < count, let key = next() {
                    // One put of a key at a time, so that the last one is known.
                    if slots.values.contains(where: { $0.key == key }) { continue }
                    free.removeLast()
                    while turns.count <= key { turns.append(-1) }
                    let place = UnsafeMutableRawBufferPointer(
                        start: memory + slot * length, count: length)
                    place.copyBytes(
                        from: payload("key-\(key)", revision: turns[key] + 1, length: length)[
                            ..<length])
                    let token = world.token()
                    let taken = names[key].withUnsafeBytes { bytes in
                        var operation = StoreOperation(
                            kind: .put, token: token, namespaceSlot: space, key: bytes)
                        operation.pieces = UnsafePointer(pieces + slot)
                        operation.pieceCount = 1
                        operation.length = UInt32(length)
                        operation.replace = replace
                        operation.durability = .written
                        return world.store.submit(operation)
                    }
                    try #require(taken)
                    slots[token] = (slot, key)
                    asked += 1
                }
                if slots.isEmpty { return }
                if !world.store.pump() { world.pause(10_000_000) }
                for (token, answer) in world.sink.answers {
                    guard let (slot, key) = slots.removeValue(forKey: token) else { continue }
                    if answer.status == .stored { turns[key] += 1 } else { refused += 1 }
                    free.append(slot)
                    answered += 1
                }
                world.sink.answers.removeAll(keepingCapacity: true)
            }
        }
    }

    /// As many puts as the store holds five times over, of nine tenths of the keys that fit into
    /// it, with the store closed and opened again, or killed, in the middle: none is refused, what
    /// it costs is bounded, and every block is there afterwards.
    @Test(arguments: cases) func aNearlyFullStoreGoesOn(_ given: Case) throws {
        var configuration = World.configuration(
            segments: given.segments, mode: .store, staging: 0, block: given.length)
        configuration.log.indexEntries = 1 << 14
        let world = try World(configuration)
        let space = world.namespace()
        let writer = Writer(world, space, depth: given.depth, length: given.length)
        var keys = 0
        try writer.run(count: Int.max, replace: false) {
            guard writer.refused == 0 else { return nil }
            keys += 1
            return keys - 1
        }
        let full = writer.turns.filter { $0 == 0 }.count
        world.settle()
        let kept = full / 10 * 9
        for key in 0..<keys where key >= kept || writer.turns[key] < 0 {
            if writer.turns[key] == 0 { #expect(world.remove("key-\(key)", space) == .deleted) }
            writer.turns[key] = -1
        }
        var random = SplitMix64(seed: 11)
        writer.refused = 0
        var (written, admitted): (UInt64, UInt64) = (0, 0)
        for half in 0..<2 {
            let before = world.store.log.statistics
            try writer.run(count: given.turns * full / 2, replace: true) {
                let hot = !given.skewed || random.below(10) == 0 ? kept : kept / 5
                return random.below(hot)
            }
            let after = world.store.log.statistics
            written += after.writtenBytes - before.writtenBytes
            admitted += after.admittedBytes - before.admittedBytes
            #expect(writer.refused == 0, "\(world.store.log.diagnosis)")
            #expect(after.evictedBlocks == 0)
            world.settle()
            if half == 0 {
                if given.skewed { world.kill() } else { world.close() }
                try world.open()
            }
        }
        let cost = Double(written) / Double(admitted)
        print(
            "nine tenths of \(full) blocks of \(given.length) replaced, \(given.depth) at a time, "
                + "\(given.skewed ? "a fifth of them mostly" : "at random"): "
                + "\(cost) bytes written a byte")
        #expect(cost < 10)
        for key in 0..<kept {
            let missed = world.missed(
                "key-\(key)", space, revision: writer.turns[key], length: given.length)
            #expect(missed == nil)
        }
        world.checkAccounts()
    }

    @Test(arguments: [8, 256, 1024, 8192, 16_384, 139_264, 524_288])
    func footersOfRecordsAreNeverShorterThanThoseOfValues(pages: UInt32) {
        let values = WriteStream.footerPages(pages, records: false)
        let records = WriteStream.footerPages(pages, records: true)
        #expect(values >= 4 && records >= values && records <= max(4, Int(pages) / 2))
    }
}
