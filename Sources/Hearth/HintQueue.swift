// HintQueue: hints on their way from any thread to the owner, in order, in a bounded number of
// bytes: beyond it they are dropped and counted, since a hint is worth less than the memory of a
// flood. The owner takes the whole queue by a swap and applies a part of it a turn, so that however
// much is hinted, whoever waits for a read does not wait for that.

import Staging
import Synchronization

/// A hint with the instance of its namespace, and how many keys follow for it.
struct QueuedHint {
    var hint: Hint
    var instance: UInt64
    var keyCount: Int
}

/// Hints with their keys, each key's length apart from its bytes.
struct HintBatch {
    var hints: [QueuedHint] = []
    var lengths: [UInt16] = []
    var keys: [UInt8] = []

    var bytes: Int {
        hints.count * MemoryLayout<QueuedHint>.stride + 2 * lengths.count + keys.count
    }

    mutating func removeAll() {
        hints.removeAll(keepingCapacity: true)
        lengths.removeAll(keepingCapacity: true)
        keys.removeAll(keepingCapacity: true)
    }

    mutating func reserve(_ bytes: Int) {
        hints.reserveCapacity(bytes / MemoryLayout<QueuedHint>.stride)
        lengths.reserveCapacity(bytes / 8)
        keys.reserveCapacity(bytes)
    }
}

final class HintQueue: Sendable {
    /// Bytes that may wait; the owner has as much again in work.
    static let byteLimit = 1 << 20
    /// Of both, with what the arrays set aside beyond what they hold.
    static let memoryBytes = 2 * (byteLimit + byteLimit / 4 + byteLimit)

    private struct Pending {
        var batch = HintBatch()
        var dropped: UInt64 = 0
        var isClosed = false
    }

    private let pending = Mutex(Pending())
    private let hasSome = Atomic<Bool>(false)

    /// Any thread. False: no room, and it is counted.
    func push(
        _ hint: Hint, instance: UInt64, keys: UnsafeBufferPointer<UnsafeRawBufferPointer>
    ) -> Bool {
        // Not Sendable; the closure runs on this thread before we return.
        nonisolated(unsafe) let keys = keys
        var size = MemoryLayout<QueuedHint>.stride
        for key in keys { size += 2 + key.count }
        let needed = size
        return pending.withLock { state in
            guard !state.isClosed, state.batch.bytes + needed <= Self.byteLimit else {
                state.dropped += 1
                return false
            }
            if state.batch.hints.capacity == 0 { state.batch.reserve(Self.byteLimit) }
            state.batch.hints.append(
                QueuedHint(hint: hint, instance: instance, keyCount: keys.count))
            for key in keys {
                state.batch.lengths.append(UInt16(key.count))
                state.batch.keys.append(contentsOf: key)
            }
            hasSome.store(true, ordering: .releasing)
            return true
        }
    }

    /// The owner: takes what waits, in exchange for a batch that is empty. False: nothing waits.
    func take(_ other: inout HintBatch) -> Bool {
        guard hasSome.exchange(false, ordering: .acquiringAndReleasing) else { return false }
        var mine = other
        other = HintBatch()
        pending.withLock { swap(&$0.batch, &mine) }
        other = mine
        return true
    }

    /// Takes nothing from here on.
    func close() {
        pending.withLock {
            $0.isClosed = true
            $0.batch = HintBatch()
        }
    }

    var dropped: UInt64 { pending.withLock { $0.dropped } }
}
