// HintedKeys: the keys that go with a hint of a replay's blocks, and the hints that a replay in
// time gives, whatever the store.

import BenchKit
import Staging

struct HintedKeys {
    private var room = KeyRoom(capacity: 1024)
    private var pointers: [UnsafeRawBufferPointer] = []

    /// Calls the body with the keys of blocks, which live for as long.
    mutating func with(
        _ blocks: ArraySlice<Int32>,
        _ body: (UnsafeBufferPointer<UnsafeRawBufferPointer>) -> Void
    ) {
        if room.capacity < blocks.count { room = KeyRoom(capacity: 2 * blocks.count) }
        pointers.removeAll(keepingCapacity: true)
        for (place, block) in blocks.enumerated() {
            room.set(place, UInt64(block), HearthReplayStore.keyNamespace)
            pointers.append(room[place])
        }
        pointers.withUnsafeBufferPointer(body)
    }
}

extension Hint {
    static func announcing(_ request: Int, due: UInt64, slot: UInt16 = 0) -> Hint {
        var made = Hint(.chain, namespaceSlot: slot)
        (made.request, made.due) = (UInt64(request) + 1, due)
        return made
    }

    static func withdrawing(_ request: Int, slot: UInt16 = 0) -> Hint {
        var made = Hint(.cancel, namespaceSlot: slot)
        made.request = UInt64(request) + 1
        return made
    }

    static func ending(_ request: Int, slot: UInt16 = 0) -> Hint {
        var made = Hint(.ended, namespaceSlot: slot)
        made.request = UInt64(request) + 1
        return made
    }

    static func telling(_ session: Int32, goesOn: Bool, slot: UInt16 = 0) -> Hint {
        var made = Hint(.session, namespaceSlot: slot)
        (made.session, made.state) = (UInt64(session) + 1, goesOn ? .idle : .oneShot)
        return made
    }
}
