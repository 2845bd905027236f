// Client: one caller's memory and the operation it has under way. Its memory has guard bytes on
// both sides of what is asked for, so that a byte written beyond the asked length is noticed.

import BlockIO
import Glibc
import LogStore
import Staging

enum ClientState: UInt8 {
    case free
    /// Submitted, not answered.
    case waiting
    /// Answered, but the device may still write into the memory.
    case releasing
    /// A lease is held.
    case leasing
}

/// What a get asked for, in bytes of the value.
struct Asked {
    var firstShard = 0
    var shardCount = 0
    var byteOffset = 0
    var byteCount = 0
    var isWhole: Bool { shardCount == 0 && byteOffset == 0 && byteCount == 0 }
}

final class Client {
    static let guardBytes = 64
    static let guardByte: UInt8 = 0xA7
    static let maximumShards = 64

    let number: Int
    let capacity: Int
    let memory: UnsafeMutableRawPointer
    let keyMemory: UnsafeMutableRawPointer
    let shards: UnsafeMutablePointer<UInt32>
    let pieces: UnsafeMutablePointer<Piece>
    static let maximumPieces = 4

    var state = ClientState.free
    var life: UInt64 = 0
    var operation: StoreOperation
    var space = 0
    var key = 0
    /// Of a put: the revision.
    var revision = 0
    var asked = Asked()
    /// Bytes of destination offered.
    var room = 0
    /// A destination outside `memory`, without guards around it.
    var window: UnsafeMutableRawPointer?
    /// Where the value starts in `memory`.
    var start = 0

    // What was known at submit.
    var submittedAt: UInt64 = 0
    var wallAt: UInt32 = 0
    var floorAt: UInt64 = 0
    var highestAt: UInt64 = 0
    var mustAt = false
    var pinnedAt = false
    var deletesAt = 0
    var lossesAt = 0
    /// Changes of devices' health until then.
    var changesAt = 0
    var cancelled = false
    /// Place in the journal.
    var entry = 0
    // A lease
    var lease: Int32 = -1
    var leaseOffset: UInt64 = 0
    var leased: Revision?

    init(number: Int, valueBytes: Int) {
        self.number = number
        capacity = valueBytes
        memory = .allocate(byteCount: valueBytes + 3 * 4096, alignment: 4096)
        keyMemory = .allocate(byteCount: Payload.maximumKeyBytes, alignment: 8)
        shards = .allocate(capacity: Self.maximumShards)
        pieces = .allocate(capacity: Self.maximumPieces)
        operation = StoreOperation(
            kind: .contains, token: 0, namespaceSlot: 0,
            key: UnsafeRawBufferPointer(start: nil, count: 0))
    }

    deinit {
        memory.deallocate()
        keyMemory.deallocate()
        shards.deallocate()
        pieces.deallocate()
    }

    var token: UInt64 { life << 16 | UInt64(number) }

    /// A new operation of this client.
    func begin(_ kind: StoreOperationKind, slot: UInt16, keyNumber: Int) {
        life += 1
        let length = Payload.key(keyNumber, into: keyMemory)
        operation = StoreOperation(
            kind: kind, token: token, namespaceSlot: slot,
            key: UnsafeRawBufferPointer(start: keyMemory, count: length))
        asked = Asked()
        cancelled = false
        lease = -1
        window = nil
    }

    /// Cuts `length` bytes at `offset` of the memory (a page or more from its start) into pieces.
    /// With `pages`, cuts fall on whole pages.
    func cut(_ length: Int, offset: Int, into count: Int, pages: Bool) {
        start = 4096 + offset
        var done = 0
        var number = 0
        while number < count, done < length {
            var part = (length - done + (count - number) - 1) / (count - number)
            if pages { part = (part + 4095) & ~4095 }
            if number == count - 1 { part = length - done }
            part = min(part, length - done)
            pieces[number] = Piece(
                region: .process, offset: UInt64(UInt(bitPattern: memory + start + done)),
                length: UInt64(part))
            done += part
            number += 1
        }
        if done < length { pieces[number - 1].length += UInt64(length - done) }
        operation.pieces = UnsafePointer(pieces)
        operation.pieceCount = number
    }

    /// Puts guard bytes around a destination of `length` bytes.
    func raiseGuards(_ length: Int) {
        room = length
        let low = memory + (start - Self.guardBytes)
        let high = memory + (start + length)
        memset(low, Int32(Self.guardByte), Self.guardBytes)
        memset(high, Int32(Self.guardByte), Self.guardBytes)
    }

    /// Whether nothing was written around the destination.
    var guardsHold: Bool {
        if window != nil { return true }
        for index in 0..<Self.guardBytes {
            let low = memory.load(
                fromByteOffset: start - Self.guardBytes + index, as: UInt8.self)
            let high = memory.load(fromByteOffset: start + room + index, as: UInt8.self)
            if low != Self.guardByte || high != Self.guardByte { return false }
        }
        return true
    }
}
