// Keeping what an engine told although it need not be brought as things are: blocks sleep in the
// queue while they are in staging or not stored yet, their residents leave after others, and what
// leaves all the same, or is stored, is brought again if somebody still wants it.

import LogStore
import Staging

extension Prefetcher {
    /// Keeps a block that need not be brought now.
    func sleep(
        _ request: Int32, _ fingerprint: Fingerprint, _ key: UnsafeRawBufferPointer,
        namespaceSlot: UInt16, _ predictor: PredictorKind
    ) {
        // One place is left for the block that waits, or is under way, now.
        guard queue.dormants(fingerprint).count < PrefetchQueue.dormantsABlock - 1 else { return }
        if append(request, fingerprint, key, namespaceSlot, predictor, .dormant) {
            reconsider(fingerprint)
        }
    }

    /// Something has changed for a block: who sleeps over it may have to have it brought, and its
    /// resident is needed when the first of them is due.
    func reconsider(_ fingerprint: Fingerprint) {
        if upper?.holds(fingerprint) == true {
            if let found = arena.find(fingerprint.stagingKey) {
                arena.setAwaited(found.slot, until: 0)
            }
            return
        }
        let first = queue.dormants(fingerprint).first
        if let found = arena.find(fingerprint.stagingKey) {
            var due: UInt64 = 0
            if first >= 0 {
                due = max(1, queue.due(first))
            } else if unused.isMarked(found.slot.index) {
                let mark = unused.marks[Int(found.slot.index)]
                due = mark.isInWindow ? max(1, mark.due) : 0
            }
            arena.setAwaited(found.slot, until: due)
            return
        }
        guard first >= 0, queue.find(fingerprint) < 0,
            let entry = log.lookup(fingerprint).entry, !entry.isDamaged
        else { return }
        queue.wake(first)
        counts.awakened += 1
    }

    /// Somebody has read the block: the one that was to do so first.
    func consume(_ fingerprint: Fingerprint) {
        let first = queue.dormants(fingerprint).first
        guard first >= 0 else { return }
        drop(first)
        reconsider(fingerprint)
    }

    /// Gives a dormant block up.
    func forget(_ index: Int32) {
        let fingerprint = queue.blocks[Int(index)].fingerprint
        counts.forgotten += 1
        drop(index)
        reconsider(fingerprint)
    }

    /// Gives up those whose time has passed, a few at once.
    func forgetAged() {
        let now = log.clock.monotonic
        for _ in 0..<Self.mostForgotten {
            let oldest = queue.oldestDormant
            guard oldest >= 0 else { return }
            let came = queue.blocks[Int(oldest)].came
            let due = min(max(queue.due(oldest), came), came &+ Self.longestDormancy)
            guard due &+ configuration.patience < now else { return }
            forget(oldest)
        }
    }
}
