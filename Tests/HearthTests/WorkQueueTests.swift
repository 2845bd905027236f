// WorkQueueTests: which operations go ahead of others in the owner's queue, and what is known of
// what waits.

import LogStore
import Staging
import Testing

@testable import Hearth

@Suite struct WorkQueueTests {
    private static let target = CompletionTarget()
    private static let block = 1 << 20

    /// An operation on a numbered key, which its token tells.
    private func entry(
        _ kind: StoreOperationKind, _ key: UInt64, bytes: Int = block, deadline: UInt64 = 0
    ) -> InboxEntry {
        var operation = StoreOperation(
            kind: kind, token: key, namespaceSlot: 0,
            key: UnsafeRawBufferPointer(start: nil, count: 0))
        operation.length = UInt32(bytes)
        operation.deadline = deadline
        return InboxEntry(
            operation: operation, target: Unmanaged.passUnretained(Self.target), releases: false,
            instance: 0, submitted: 0)
    }

    private func push(_ entries: [InboxEntry], on queue: inout WorkQueue) {
        var entries = entries
        queue.push(&entries) {
            Fingerprint(hi: 1, lo: $0.token &* 0x9E37_79B9_7F4A_7C15 >> 7)
        }
        #expect(entries.isEmpty)
    }

    private func names(_ list: WorkQueue.List) -> [String] {
        (0..<list.count).map { "\(list[$0].operation.kind) \(list[$0].operation.token)" }
    }

    @Test func readsGoAheadOfLongPuts() {
        var queue = WorkQueue()
        push(
            [
                entry(.get, 9), entry(.put, 1), entry(.get, 2), entry(.put, 3), entry(.get, 1),
                entry(.delete, 5), entry(.contains, 4), entry(.touch, 6),
            ], on: &queue)
        #expect(names(queue.ahead) == ["get 9", "get 2", "contains 4"])
        #expect(names(queue.rest) == ["put 1", "put 3", "get 1", "delete 5", "touch 6"])
        // What comes later goes ahead, too, but of nothing of its own key.
        push([entry(.get, 5), entry(.get, 7)], on: &queue)
        #expect(names(queue.ahead).last == "get 7")
        #expect(names(queue.rest).last == "get 5")
    }

    @Test func whatTakesNoTimeKeepsItsOrder() {
        var queue = WorkQueue()
        push([entry(.put, 1, bytes: 4096), entry(.get, 2), entry(.delete, 3)], on: &queue)
        #expect(queue.ahead.isEmpty)
        #expect(names(queue.rest) == ["put 1", "get 2", "delete 3"])
        push([entry(.get, 4)], on: &queue)
        #expect(names(queue.rest).last == "get 4")
        #expect(queue.rest.turn(most: 10) == 4)
    }

    /// What was pushed before anything went ahead counts as well.
    @Test func keysOfWhatWaitsAreKnown() {
        var queue = WorkQueue()
        push([entry(.delete, 1), entry(.put, 2, bytes: 64)], on: &queue)
        push([entry(.put, 3), entry(.get, 1), entry(.get, 2), entry(.get, 4)], on: &queue)
        #expect(names(queue.ahead) == ["get 4"])
        #expect(names(queue.rest) == ["delete 1", "put 2", "put 3", "get 1", "get 2"])
        // Once all of it has started, its keys are free.
        queue.rest.removeFirst(5)
        push([entry(.put, 5), entry(.get, 2)], on: &queue)
        #expect(names(queue.ahead) == ["get 4", "get 2"])
    }

    @Test func aTurnCopiesLittleButOne() {
        var queue = WorkQueue()
        let small = WorkQueue.longTurn / 4
        push(
            [entry(.put, 1), entry(.delete, 2)] + (3..<9).map { entry(.put, $0, bytes: small) },
            on: &queue)
        #expect(queue.rest.turn(most: 100) == 1)
        queue.rest.removeFirst(1)
        #expect(queue.rest.turn(most: 100) == 5)
        #expect(queue.rest.turn(most: 3) == 3)
        #expect(queue.rest.putBytes == 6 * small)
    }

    @Test func deadlinesAndWhatIsTakenOut() {
        var queue = WorkQueue()
        push(
            [
                entry(.put, 1, deadline: 50), entry(.get, 2, deadline: 30),
                entry(.pin, 3, deadline: 10), entry(.get, 4),
            ], on: &queue)
        #expect(queue.deadline == 30)
        var out: [UInt64] = []
        queue.remove(where: { $0.operation.token != 3 }) { out.append($0.operation.token) }
        #expect(Set(out) == [1, 2, 4] && names(queue.rest) == ["pin 3"])
        #expect(queue.deadline == .max && queue.rest.putBytes == 0 && queue.ahead.isEmpty)
    }
}
