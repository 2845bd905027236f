// What is told of the store: reads that meet predictions, prefetches that end, and residents that
// leave; and what that means for blocks that sleep.

import LogStore
import SegmentFormat
import Staging

extension Prefetcher: AccessObserver {
    package func accessed(_ access: Access) {
        if access.shardCount > 0, access.kind != .miss { picked(access) }
        note(access)
        if sessions.count > 0, access.shardCount == 0 { noteLeaf(access) }
        if followsStreams, access.shardCount == 0 { follow(access) }
    }

    /// The name under which what is asked for may be in the queue.
    private func own(_ access: Access) -> Fingerprint {
        access.shardCount == 0
            ? access.fingerprint
            : access.fingerprint.part(Int(access.firstShard), Int(access.shardCount))
    }

    private func note(_ access: Access) {
        switch access.kind {
        case .touch: if unused.isMarked(access.resident) { used(access.resident) }
        case .resident:
            if unused.isMarked(access.resident) { used(access.resident) }
            if queue.dormant > 0 { consume(access.fingerprint) }
        case .joined:
            var index = queue.find(own(access))
            if index < 0 { index = queue.find(access.fingerprint) }
            if index >= 0, queue.blocks[Int(index)].demanded == 0 {
                queue.blocks[Int(index)].demanded = max(1, log.clock.monotonic)
            }
        case .device:
            let own = own(access)
            if displaced.remove(own.hi, own.lo) { counts.pollution += 1 }
            if let predictor = overtake(own) {
                raised.insert(own, predictor, now: log.clock.monotonic)
            } else {
                if queue.dormant > 0 { consume(access.fingerprint) }
                counts.demandMisses += 1
            }
        case .miss, .put: _ = overtake(access.fingerprint)
        }
    }

    /// Somebody was faster: a waiting block need not be brought. Who had asked for it.
    private func overtake(_ fingerprint: Fingerprint) -> PredictorKind? {
        guard queue.waiting > 0 else { return nil }
        let index = queue.find(fingerprint)
        guard index >= 0, !queue.blocks[Int(index)].isInFlight else { return nil }
        let predictor = queue.blocks[Int(index)].predictor
        counts.overtaken += 1
        drop(index)
        return predictor
    }

    /// A raised read was foretold rightly and came late by all of its own time.
    package func deviceReadEnded(_ fingerprint: Fingerprint, bytes: UInt32, isHit: Bool) {
        // Whoever else wants it and does not find it in staging has to have it brought.
        if queue.dormant > 0 { reconsider(fingerprint) }
        guard counts.overtaken > 0, let read = raised.remove(fingerprint) else { return }
        guard isHit else {
            counts.demandMisses += 1
            return
        }
        counts.change(read.predictor) {
            $0.issued += 1
            $0.issuedBytes += UInt64(bytes)
            $0.useful += 1
        }
        counts.lateness.record(log.clock.monotonic - read.since)
    }

    func used(_ slot: Int32) {
        let mark = unused.unmark(slot, in: queue)
        arena.setAwaited(ResidentSlot(slot), until: 0)
        counts.change(mark.predictor) {
            $0.useful += 1
            $0.timely += 1
        }
        counts.lateness.record(0)
        counts.lead.record(log.clock.monotonic &- mark.came)
    }

    package func prefetchEnded(
        _ token: UInt64, _ status: Status, resident: Int32, bytes: UInt32
    ) {
        let index = Int32(truncatingIfNeeded: token)
        let block = queue.blocks[Int(index)]
        if status == .throttled {
            putBack(index)
            return
        }
        underWay.remove(block)
        (pause, pausedUntil) = (0, 0)
        let isIssued = status != .alreadyPresent && bytes > 0
        if isIssued {
            counts.change(block.predictor) {
                $0.issued += 1
                $0.issuedBytes += UInt64(bytes)
            }
        }
        switch status {
        case .hit where block.demanded > 0:
            let late = log.clock.monotonic - block.demanded
            counts.change(block.predictor) { $0.useful += 1 }
            counts.lateness.record(late)
        case .hit:
            let (due, now) = (queue.due(index), log.clock.monotonic)
            if block.shardCount > 0 { partCame(after: now &- block.came) }
            unused.mark(
                resident,
                UnusedBlock(
                    predictor: block.predictor, bytes: bytes, request: block.request, due: due,
                    came: now),
                in: queue)
            if block.predictor == .layer {
                // A guess is a resident like others: its budget bounds what it takes.
                unused.displace(resident)
                unused.detach(resident, in: queue)
            } else {
                arena.setAwaited(ResidentSlot(resident), until: max(1, due))
            }
            if block.predictor == .chain {
                queue.putToSleep(index)
                upper?.isReady(block.fingerprint, due: due)
                return
            }
        case .cancelled where isIssued:
            waste(UnusedBlock(predictor: block.predictor, bytes: bytes))
        case .alreadyPresent: counts.hintedResident += 1
        default: if isIssued { counts.change(block.predictor) { $0.failed += 1 } }
        }
        drop(index)
    }

    package func residentLeft(
        _ resident: Int32, _ key: StagingKey, _ departure: ResidentDeparture
    ) {
        if departure == .evictedForPrefetch {
            displaced.insert(key.hi, key.lo)
            sessionCosts.displaced += 1
        }
        if unused.isMarked(resident) { waste(unused.unmark(resident, in: queue)) }
        if queue.dormant > 0 { reconsider(Fingerprint(hi: key.hi, lo: key.lo)) }
    }

    package func putEnded(_ fingerprint: Fingerprint) {
        if queue.dormant > 0 { reconsider(fingerprint) }
    }
}
