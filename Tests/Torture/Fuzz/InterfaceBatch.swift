// Batches for the C interface: operations that are right, then changed field by field, and then
// held to what a caller promises.

import CHearth
import Glibc

enum InterfaceBatch {
    private static let keyBytes = 24
    private static let keyRoom = 1024
    private static let pieceStart = 1024
    private static let lengthStart = 3072

    /// The fields of an operation: offset and width.
    private static let fields: [(Int, Int)] = [
        (0, 8), (8, 8), (16, 1), (17, 1), (18, 1), (19, 1), (20, 4), (24, 4), (28, 4), (32, 4),
        (36, 4), (40, 4), (44, 4), (48, 4), (52, 4), (56, 4), (60, 4), (64, 8), (72, 8), (80, 8),
        (88, 8), (120, 8),
    ]

    /// `count` operations with their data. Returns the bytes of data in use.
    static func fill(_ world: FuzzedInterface, _ count: Int, _ choices: inout Choices) -> Int {
        let data = world.data
        // 40 keys of 24 bytes, of which a few are asked for again and again.
        for number in 0..<40 {
            memset(data.base + number * keyBytes, Int32(number + 1), keyBytes)
        }
        var piece = pieceStart
        var lengths = lengthStart
        for number in 0..<count {
            var operation = hearth_operation()
            operation.tag = UInt64(choices.below(1 << 20))
            operation.space = world.spaces[choices.below(world.spaces.count)]
            operation.kind = UInt8([0, 0, 0, 1, 1, 1, 2, 3, 4, 5, 6][choices.below(11)])
            operation.key = hearth_span(
                offset: UInt32(choices.below(40) * keyBytes), length: UInt32(keyBytes))
            let isGet = UInt32(operation.kind) == HEARTH_GET.rawValue
            let isPut = UInt32(operation.kind) == HEARTH_PUT.rawValue
            if isGet { operation.mode = UInt8(choices.below(3)) }
            if isGet && UInt32(operation.mode) != HEARTH_LEASE.rawValue || isPut {
                let pieces = 1 + choices.below(3)
                operation.pieces = UInt32(piece)
                operation.piece_count = UInt32(pieces)
                let length = choices.below(24 << 10)
                for _ in 0..<pieces {
                    put(world, piece, length, &choices)
                    piece += 24
                }
                if isPut {
                    operation.durability = UInt8(choices.below(3))
                    operation.flags = UInt8(choices.below(2))
                    if choices.below(4) == 0 { operation.parent = operation.key }
                    if choices.below(3) == 0 {
                        operation.shard_lengths = UInt32(lengths)
                        operation.shard_count = UInt32(pieces)
                        for _ in 0..<pieces {
                            Raw.put(data.bytes, UInt32(length), lengths)
                            lengths += 4
                        }
                    }
                }
            }
            if UInt32(operation.kind) == HEARTH_PIN.rawValue || choices.below(16) == 0 {
                operation.timeout_ns = 1 + UInt64(choices.below(1 << 24))
            }
            world.list.advanced(by: number).initialize(to: operation)
        }
        return lengths
    }

    private static func put(
        _ world: FuzzedInterface, _ at: Int, _ length: Int, _ choices: inout Choices
    ) {
        let place = UInt64(choices.below(FuzzedInterface.memoryBytes - length))
        let inRegion = choices.below(2) == 0
        Raw.put(world.data.bytes, inRegion ? place : world.base + place, at)
        Raw.put(world.data.bytes, UInt64(length), at + 8)
        Raw.put(world.data.bytes, inRegion ? world.region : 0, at + 16)
        Raw.put(world.data.bytes, UInt32(0), at + 20)
    }

    /// Changes a field of an operation, or of its data.
    static func smudge(_ world: FuzzedInterface, _ count: Int, _ choices: inout Choices) {
        let value = choices.word()
        if choices.below(3) == 0 {
            let at = choices.below(FuzzedInterface.dataBytes / 4 - 1) * 4
            if choices.below(2) == 0 {
                Raw.put(world.data.bytes, value, at)
            } else {
                Raw.put(world.data.bytes, UInt32(truncatingIfNeeded: value), at)
            }
            return
        }
        let (at, width) = fields[choices.below(fields.count)]
        let operation = UnsafeMutableRawPointer(world.list + choices.below(count))
        Raw.store(value, width, at: operation + at)
    }

    /// Pieces of region 0 into the test's own memory, unless no memory can be meant. False when
    /// they lie one over the other in a way that cannot be put right.
    static func keepPromises(_ world: FuzzedInterface, _ count: Int, _ used: Int) -> Bool {
        for _ in 0..<8 {
            var changed = false
            for number in 0..<count {
                let operation = world.list[number]
                let start = Int(operation.pieces)
                let pieces = Int(operation.piece_count)
                guard start % 8 == 0, pieces > 0, start + 24 * pieces <= used else { continue }
                for piece in 0..<pieces where isForeign(world, start + 24 * piece) {
                    Raw.put(world.data.bytes, world.base, start + 24 * piece)
                    Raw.put(world.data.bytes, UInt64(64), start + 24 * piece + 8)
                    changed = true
                }
            }
            if !changed { return true }
        }
        return false
    }

    private static func isForeign(_ world: FuzzedInterface, _ at: Int) -> Bool {
        let data = UnsafeRawBufferPointer(world.data.bytes)
        let (offset, length) = (Raw.u64(data, at), Raw.u64(data, at + 8))
        guard Raw.u32(data, at + 16) == 0 else { return false }
        let (end, overflow) = offset.addingReportingOverflow(length)
        if offset == 0 || overflow || end > UInt64(Int64.max) { return false }
        return offset < world.base || end > world.base + UInt64(FuzzedInterface.memoryBytes)
    }
}
