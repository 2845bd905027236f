// Following streams: after each read, what followed it the last time is wanted, as far ahead as the
// stream's confirmed steps allow. What was predicted for a stream that then takes another way is
// taken back.

import LogStore
import Staging

extension Prefetcher {
    /// Blocks that one read makes wanted at the most, so that a read costs no more than that.
    private static let mostPredicted = 8

    /// Teaches the table, and predicts after a read.
    func follow(_ access: Access) {
        guard access.key.count > 0 else { return }
        let parent =
            access.parent.count > 0
            ? log.fingerprint(access.namespaceSlot, access.parent) : nil
        switch access.kind {
        case .put:
            successors.put(
                access.fingerprint, access.key, namespaceSlot: access.namespaceSlot,
                parent: parent, parentKey: access.parent, continues: access.continues)
        case .resident, .joined, .device:
            let step = successors.read(
                access.fingerprint, access.key, namespaceSlot: access.namespaceSlot,
                parent: parent, continues: access.continues)
            if step.stream >= 0 { predict(step) }
        case .miss, .touch: break
        }
    }

    private func predict(_ step: SuccessorTable.Step) {
        let stream = Int(step.stream)
        if step.isNew {
            letGo(stream)
        } else if step.hasStrayed, streamRequests[stream] >= 0 {
            takeBack(streamRequests[stream])
            letGo(stream)
        }
        for _ in 0..<Self.mostPredicted {
            let next = successors.predict(step.stream)
            guard next >= 0 else { return }
            guard let request = request(of: stream) else {
                counts.overflowed += 1
                return
            }
            let slot = successors.namespaceSlot(next)
            let key = successors.key(next)
            let wanted = want(
                request, log.fingerprint(slot, key), key, namespaceSlot: slot, .successor)
            if wanted == .overflowed { counts.overflowed += 1 }
            if wanted == .absent || wanted == .overflowed {
                successors.end(step.stream)
                return
            }
        }
    }

    /// The queue's request that stands for a stream, needed at once.
    private func request(of stream: Int) -> Int32? {
        let now = log.clock.monotonic
        let present = streamRequests[stream]
        if present >= 0 {
            if queue.requests[Int(present)].head < 0 { queue.setDue(present, now) }
            return present
        }
        let made = queue.request(0, due: now)
        guard made >= 0 else { return nil }
        queue.retain(made)
        streamRequests[stream] = made
        return made
    }

    private func letGo(_ stream: Int) {
        guard streamRequests[stream] >= 0 else { return }
        queue.release(streamRequests[stream])
        streamRequests[stream] = -1
    }
}
