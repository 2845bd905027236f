// BatchData: the data that goes with a batch, and copying out of it. Every offset is checked before
// it is followed; nothing of a batch is kept by reference.

import BlockIO
import CHearth
import Hearth
import LogStore
import Staging

struct BatchData {
    private let base: UnsafeRawPointer?
    private let count: UInt64

    init(_ base: UnsafeRawPointer?, _ count: UInt64) throws(Failure) {
        if base == nil && count > 0 {
            throw .argument("data is NULL, but data_bytes is \(count).")
        }
        self.base = base
        self.count = count
    }

    // MARK: Checking

    private func holds(_ offset: UInt32, _ length: UInt64) -> Bool {
        UInt64(offset) + length <= count
    }

    func check(_ span: hearth_span, _ name: @autoclosure () -> String) throws(Failure) {
        if holds(span.offset, UInt64(span.length)) { return }
        throw .argument(
            "\(name()): \(span.length) bytes at \(span.offset) lie beyond the \(count) of data.")
    }

    /// Whether all operations can be read at all.
    func check(
        _ operations: UnsafePointer<hearth_operation>, _ number: Int
    ) throws(Failure) {
        for index in 0..<number { try check(operations[index], index) }
    }

    private func check(_ operation: hearth_operation, _ index: Int) throws(Failure) {
        let reserved = operation.reserved
        let words = reserved.0 | reserved.1 | reserved.2 | reserved.3 | reserved.4
        guard operation.reserved0 == 0, words == 0 else {
            throw .argument(
                "operations[\(index)]: a reserved field is not 0: clear the whole structure first.")
        }
        guard operation.tag < 1 << 63 else {
            throw .argument("operations[\(index)].tag: \(operation.tag) is not below 2^63.")
        }
        try check(operation.key, "operations[\(index)].key")
        try check(operation.parent, "operations[\(index)].parent")
        if operation.piece_count > 0 {
            guard operation.pieces % 8 == 0 else {
                throw .argument(
                    "operations[\(index)].pieces: \(operation.pieces) is not aligned to 8.")
            }
            guard holds(operation.pieces, UInt64(operation.piece_count) * 24) else {
                throw .argument(
                    "operations[\(index)].pieces: \(operation.piece_count) pieces at "
                        + "\(operation.pieces) lie beyond the \(count) bytes of data.")
            }
            for number in 0..<Int(operation.piece_count)
            where piece(operation.pieces, number).reserved != 0 {
                throw .argument(
                    "operations[\(index)], piece \(number): its reserved field is not 0.")
            }
        }
        if operation.kind == HEARTH_PUT.rawValue, operation.shard_count > 0 {
            guard operation.shard_lengths % 4 == 0 else {
                throw .argument(
                    "operations[\(index)].shard_lengths: \(operation.shard_lengths) is not aligned "
                        + "to 4.")
            }
            guard holds(operation.shard_lengths, UInt64(operation.shard_count) * 4) else {
                throw .argument(
                    "operations[\(index)].shard_lengths: \(operation.shard_count) lengths at "
                        + "\(operation.shard_lengths) lie beyond the \(count) bytes of data.")
            }
        }
    }

    // MARK: Reading what was checked

    @inline(__always)
    func bytes(_ span: hearth_span) -> UnsafeRawBufferPointer {
        guard span.length > 0, let base else { return UnsafeRawBufferPointer(start: nil, count: 0) }
        return UnsafeRawBufferPointer(start: base + Int(span.offset), count: Int(span.length))
    }

    @inline(__always)
    func piece(_ offset: UInt32, _ index: Int) -> hearth_piece {
        guard let base else { return hearth_piece() }
        return (base + Int(offset) + 24 * index).loadUnaligned(as: hearth_piece.self)
    }

    func source(_ offset: UInt32) -> UnsafeRawPointer? { base.map { $0 + Int(offset) } }

    /// Bytes that an operation's parts take, pieces and lengths aligned.
    static func copiedBytes(_ operation: hearth_operation) -> Int {
        let pieces = min(Int(operation.piece_count), MessageCopy.mostPieces)
        var bytes = pieces * MemoryLayout<Piece>.stride
        if operation.kind == HEARTH_PUT.rawValue {
            bytes += 4 * min(Int(operation.shard_count), MessageCopy.mostShards)
        }
        bytes += min(Int(operation.key.length), 512) + min(Int(operation.parent.length), 512)
        return (bytes + 7) & ~7
    }
}

/// Copies operations into a buffer and makes the core's messages of them.
struct MessageCopy {
    /// Far more than a block has pages.
    static let mostPieces = 1 << 16
    static let mostShards = 4096

    private var at: UnsafeMutableRawPointer

    init(_ base: UnsafeMutableRawPointer) { at = base }

    /// Everything but the pieces; nil for an operation that is not right.
    mutating func message(
        _ operation: hearth_operation, _ data: BatchData, _ space: Namespace, _ now: UInt64
    ) -> StoreOperation? {
        guard let kind = StoreOperationKind(rawValue: operation.kind),
            (1...512).contains(operation.key.length), operation.parent.length <= 512,
            Int(operation.piece_count) <= Self.mostPieces,
            let mode = GetMode(rawValue: operation.mode),
            let durability = Durability(rawValue: operation.durability),
            UInt32(operation.flags) & ~HEARTH_REPLACE == 0, Self.isRight(operation, kind, mode)
        else { return nil }
        var made = StoreOperation(
            kind: kind, token: 0, namespaceSlot: space.slot,
            key: UnsafeRawBufferPointer(start: nil, count: 0))
        made.namespaceInstance = space.instance
        made.mode = mode
        made.durability = durability
        made.replace = UInt32(operation.flags) & HEARTH_REPLACE != 0
        made.timeToLive = operation.time_to_live_s
        made.byteOffset = operation.byte_offset
        made.byteCount = operation.byte_length
        if kind == .get {
            made.firstShard = Int(operation.first_shard)
            made.shardCount = Int(operation.shard_count)
        }
        if operation.timeout_ns > 0 {
            let (sum, overflow) = now.addingReportingOverflow(operation.timeout_ns)
            // No later than a signed clock can tell.
            made.deadline = overflow ? UInt64(Int64.max) : min(sum, UInt64(Int64.max))
        }
        return made
    }

    private static func isRight(
        _ operation: hearth_operation, _ kind: StoreOperationKind, _ mode: GetMode
    ) -> Bool {
        switch kind {
        case .get:
            if mode == .lease && operation.piece_count > 0 { return false }
            let isRange = operation.byte_offset > 0 || operation.byte_length > 0
            if isRange && (operation.shard_count > 0 || operation.first_shard > 0) { return false }
            return operation.flags == 0
        case .put:
            return operation.shard_count <= UInt32(mostShards) && operation.byte_offset == 0
                && operation.byte_length == 0 && operation.first_shard == 0
        case .pin:
            return operation.timeout_ns > 0 && operation.piece_count == 0 && operation.flags == 0
        case .delete, .touch, .unpin, .contains:
            return operation.piece_count == 0 && operation.flags == 0
        case .prefetch: return false  // the store's own
        }
    }

    /// Pieces, shard lengths, key and parent; false when a piece is not right.
    mutating func pieces(
        _ operation: hearth_operation, _ data: BatchData, into message: inout StoreOperation,
        _ convert: (hearth_piece) -> Piece?
    ) -> Bool {
        let start = at
        let pieces = at.assumingMemoryBound(to: Piece.self)
        var total: UInt64 = 0
        for index in 0..<Int(operation.piece_count) {
            guard let piece = convert(data.piece(operation.pieces, index)) else { return false }
            let (sum, overflow) = total.addingReportingOverflow(piece.length)
            if overflow || sum > UInt64(Int64.max) { return false }
            total = sum
            pieces.advanced(by: index).initialize(to: piece)
        }
        at += Int(operation.piece_count) * MemoryLayout<Piece>.stride
        message.pieces = operation.piece_count > 0 ? UnsafePointer(pieces) : nil
        message.pieceCount = Int(operation.piece_count)
        if message.kind == .put {
            message.length = UInt32(clamping: total)
            if operation.shard_count > 0, let source = data.source(operation.shard_lengths) {
                let count = Int(operation.shard_count)
                at.copyMemory(from: source, byteCount: 4 * count)
                message.shardLengths = UnsafePointer(at.assumingMemoryBound(to: UInt32.self))
                message.shardCount = count
                at += 4 * count
            }
        }
        message.key = copy(data.bytes(operation.key))
        message.parent = copy(data.bytes(operation.parent))
        let used = (at - start + 7) & ~7
        at = start + used
        return true
    }

    private mutating func copy(_ bytes: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        guard let source = bytes.baseAddress else { return bytes }
        at.copyMemory(from: source, byteCount: bytes.count)
        let made = UnsafeRawBufferPointer(start: at, count: bytes.count)
        at += bytes.count
        return made
    }
}
