// FIFOPolicy: the oldest arrival leaves first, whatever is used. For comparison.

import Staging

package final class FIFOPolicy: ReplacementPolicy {
    private var queues = SlotQueues(capacity: 1, queues: 1)

    package init() {}

    package func resize(capacity: Int) { queues = SlotQueues(capacity: capacity, queues: 1) }
    package var memoryBytes: Int { queues.bytes }

    package func inserted(_ slot: Int32, _ arrival: Arrival) {
        precondition(!queues.holds(slot), "slot held already")
        queues.push(slot, to: 0)
    }

    package func touched(_ slot: Int32, continues: Bool) {}

    package func removed(_ slot: Int32) {
        if queues.holds(slot) { queues.unlink(slot, from: 0) }
    }

    package func demoted(_ slot: Int32) {
        guard queues.holds(slot) else { return }
        queues.unlink(slot, from: 0)
        queues.pushOldest(slot, to: 0)
    }

    package func victim(after slot: Int32?) -> Int32? {
        let candidate = slot.map { queues.holds($0) ? queues.younger($0) : -1 } ?? queues.oldest(0)
        return candidate < 0 ? nil : candidate
    }
}
