// TouchQueue: what reader threads used, on its way to the owner, who tells the policy. Order is
// kept, since recency order is the policy; beyond the bound touches are dropped and counted, so
// that an owner who does not drain costs no memory. The owner takes the whole array by a swap.

import Synchronization

package final class TouchQueue: Sendable {
    private struct Pending {
        var keys: [StagingKey]
        var dropped: UInt64
    }

    package let bound: Int
    private let pending: Mutex<Pending>

    package init(bound: Int) {
        precondition(bound > 0, "a queue needs a bound")
        self.bound = bound
        var keys: [StagingKey] = []
        keys.reserveCapacity(bound)
        pending = Mutex(Pending(keys: keys, dropped: 0))
    }

    /// An empty array with room for the whole queue, for `drain` to swap in: made once.
    package func makeBuffer() -> [StagingKey] {
        var keys: [StagingKey] = []
        keys.reserveCapacity(bound)
        return keys
    }

    /// Any thread. False when the queue was full.
    @discardableResult
    package func push(_ key: StagingKey) -> Bool {
        pending.withLock { state in
            guard state.keys.count < bound else {
                state.dropped += 1
                return false
            }
            state.keys.append(key)
            return true
        }
    }

    /// Pushes a batch under one lock, in order; returns how many were taken. Any thread.
    @discardableResult
    package func push(_ keys: UnsafeBufferPointer<StagingKey>) -> Int {
        // A buffer pointer is not Sendable; the closure runs on this thread before we return.
        nonisolated(unsafe) let keys = keys
        return pending.withLock { state in
            let taken = min(keys.count, bound - state.keys.count)
            state.keys.append(contentsOf: keys.prefix(taken))
            state.dropped += UInt64(keys.count - taken)
            return taken
        }
    }

    /// Swaps the queued touches, oldest first, into `buffer`, whose contents are forgotten.
    package func drain(into buffer: inout [StagingKey]) {
        buffer.removeAll(keepingCapacity: true)
        var mine = buffer
        buffer = []
        pending.withLock { state in swap(&state.keys, &mine) }
        buffer = mine
    }

    /// Touches dropped because the queue was full.
    package var dropped: UInt64 { pending.withLock { $0.dropped } }
    package var count: Int { pending.withLock { $0.keys.count } }
}
