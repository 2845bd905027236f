// LeaseTable: the leases that a store's completions have told of and that were not given back. A
// lease's number is its slot and the slot's generation, so that one given back twice is an error.

import CHearth
import Hearth
import Synchronization

final class LeaseTable: Sendable {
    struct Held: Sendable {
        var view: LeaseView
        var firstShard: Int
        var shardCount: Int
        var byteOffset: UInt64
        var byteCount: UInt64
    }

    private struct Entry {
        var generation: UInt32 = 1
        var held: Held?
    }

    private struct Table {
        var entries: [Entry] = []
        var free: [Int] = []
    }

    private let table = Mutex(Table())

    func add(_ held: Held) -> UInt64 {
        table.withLock { table in
            let slot: Int
            if let free = table.free.popLast() {
                slot = free
            } else {
                slot = table.entries.count
                table.entries.append(Entry())
            }
            table.entries[slot].held = held
            return UInt64(table.entries[slot].generation) << 32 | UInt64(slot)
        }
    }

    /// Where the bytes of a lease lie; nil when they are not within its block. Under the lock: the
    /// lease does not end, and the store's tables do not go, while they are read.
    func runs(
        _ lease: UInt64, of store: OpenStore
    ) throws(Failure) -> [UnsafeRawBufferPointer]? {
        let found: [UnsafeRawBufferPointer]?? = table.withLock { table in
            guard !store.isClosing, let slot = Self.slot(lease, table),
                let held = table.entries[slot].held
            else { return nil }
            nonisolated(unsafe) let runs = held.view.runs(
                firstShard: held.firstShard, shardCount: held.shardCount,
                byteOffset: held.byteOffset, byteCount: held.byteCount, in: store.store)
            return .some(runs)
        }
        guard let found else { throw store.isClosing ? Failure.closed : Self.refusal }
        return found
    }

    /// Returns when nobody reads a lease's bytes' places; the store has begun to close, so that
    /// nobody begins to.
    func settle() { table.withLock { _ in } }

    func remove(_ lease: UInt64) throws(Failure) -> Held {
        let held: Held? = table.withLock { table in
            guard let slot = Self.slot(lease, table) else { return nil }
            let held = table.entries[slot].held
            table.entries[slot].held = nil
            table.entries[slot].generation &+= 1
            if table.entries[slot].generation == 0 { table.entries[slot].generation = 1 }
            table.free.append(slot)
            return held
        }
        guard let held else { throw Self.refusal }
        return held
    }

    private static func slot(_ lease: UInt64, _ table: borrowing Table) -> Int? {
        let slot = Int(lease & 0xFFFF_FFFF)
        guard slot < table.entries.count, table.entries[slot].held != nil,
            UInt64(table.entries[slot].generation) == lease >> 32
        else { return nil }
        return slot
    }

    private static let refusal = Failure(
        HEARTH_E_HANDLE, "There is no such lease: it was ended, or is of another store.")
}
