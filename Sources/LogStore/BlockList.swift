// BlockList: one part of a listing of a namespace's blocks, as its caller gets it: how much room
// there is, where to go on, and what has been found.
//
// The cursor is opaque to callers: 0 to begin with and when all has been told. In between, its top
// bit says that blocks which are only in memory are being told, by the number of their operation;
// else bit 62 is set, and below it stand segment and page: what is told next is the first block
// that lies there or behind it. A block's page does not change when its segment is sealed.

package struct ListedBlock: Equatable, Sendable {
    /// Where the key begins in the list's bytes.
    package var keyOffset: Int
    package var keyLength: Int
    package var length: UInt32
    package var version: UInt64
    package var shardCount: Int
}

/// Where a listing goes on.
package enum ListPlace: Equatable, Sendable {
    case memory(operation: Int)
    case segment(UInt32, page: UInt32)
    case end

    private static let memoryBit: UInt64 = 1 << 63
    private static let segmentBit: UInt64 = 1 << 62

    /// Nil for a number that no listing gave.
    package init?(cursor: UInt64) {
        if cursor == 0 {
            self = .memory(operation: 0)
        } else if cursor & Self.memoryBit != 0 {
            let operation = cursor & ~Self.memoryBit
            guard operation < 1 << 32 else { return nil }
            self = .memory(operation: Int(operation))
        } else {
            let segment = cursor & ~Self.segmentBit
            guard cursor & Self.segmentBit != 0, segment < 1 << 40 else { return nil }
            self = .segment(UInt32(segment >> 20), page: UInt32(segment & 0xF_FFFF))
        }
    }

    package var cursor: UInt64 {
        switch self {
        case .memory(let operation): Self.memoryBit | UInt64(operation)
        case .segment(let segment, let page):
            Self.segmentBit | UInt64(segment) << 20 | UInt64(page)
        case .end: 0
        }
    }
}

package final class BlockList: @unchecked Sendable {
    // Unchecked: the caller's until it is handed to the owner thread, the owner's until the call
    // has ended, the caller's again.
    package let namespaceSlot: UInt16
    package let instance: UInt64
    /// Blocks that there is room for, and bytes of keys.
    package let room: Int
    package let keyRoom: Int
    package var place: ListPlace
    package private(set) var blocks: [ListedBlock] = []
    package private(set) var keys: [UInt8] = []

    package init(
        namespaceSlot: UInt16, instance: UInt64, from place: ListPlace, room: Int, keyRoom: Int
    ) {
        self.namespaceSlot = namespaceSlot
        self.instance = instance
        self.place = place
        self.room = room
        self.keyRoom = keyRoom
    }

    /// False: there is no room for it.
    package func add(
        _ key: UnsafeRawBufferPointer, length: UInt32, version: UInt64, shardCount: Int
    ) -> Bool {
        guard blocks.count < room, keys.count + key.count <= keyRoom else { return false }
        blocks.append(
            ListedBlock(
                keyOffset: keys.count, keyLength: key.count, length: length, version: version,
                shardCount: shardCount))
        keys.append(contentsOf: key)
        return true
    }
}
