// Taking hints: what an engine told, made into blocks that are wanted, or not any more. A hint that
// means nothing, such as one of a purged namespace, is counted and has no effect.

import LogStore
import Staging

extension Prefetcher {
    package func hint(_ hint: Hint, keys: UnsafeBufferPointer<UnsafeRawBufferPointer>) {
        switch hint.kind {
        case .chain: chain(hint, keys)
        case .pages: pages(hint, keys)
        case .progress: progress(hint)
        case .cancel, .ended: cancel(hint.request)
        case .release:
            guard log.namespaces.isLive(hint.namespaceSlot) else { return }
            for key in keys { release(log.fingerprint(hint.namespaceSlot, key)) }
        case .session: session(hint, keys)
        case .touched, .admitted, .evicted: break
        }
    }

    /// A queued request will read the keys, in this order.
    private func chain(_ hint: Hint, _ keys: UnsafeBufferPointer<UnsafeRawBufferPointer>) {
        guard configuration.predictors.contains(.chain),
            log.namespaces.isLive(hint.namespaceSlot), !keys.isEmpty
        else { return }
        noteSession(hint.session)
        // Not known: first come, first served, among those that are due at once.
        let due = hint.due == 0 ? log.clock.monotonic : hint.due
        let request = request(hint.request, due: due)
        guard request >= 0 else {
            counts.overflowed += UInt64(keys.count)
            return
        }
        queue.retain(request)
        for key in keys {
            let fingerprint = log.fingerprint(hint.namespaceSlot, key)
            count(want(request, fingerprint, key, namespaceSlot: hint.namespaceSlot, .chain))
        }
        queue.release(request)
    }

    /// What became of a hinted key.
    func count(_ wanted: Wanted) {
        switch wanted {
        case .queued: break
        case .absent: counts.hintedAbsent += 1
        case .resident: counts.hintedResident += 1
        case .twice: counts.hintedTwice += 1
        case .overflowed: counts.overflowed += 1
        }
    }
}
