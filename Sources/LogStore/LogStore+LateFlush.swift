// LateFlush: a flush does not wait for a device that does badly. Once only such devices have not
// ended their part, it ends without them: what concerns none of them is settled, the rest waits for
// their syncs, which go on. Until these have ended, later flushes leave those devices out.
//
// Invariants: what is told durable has been flushed on every device that it concerns, records on
// all of them; a flush without some device raises no watermark and makes no dump count.

import SegmentFormat

struct LateFlush {
    /// Segments whose sync has not ended, and a bit for each of their devices.
    var segments: [UInt32] = []
    var devices: UInt32 = 0
    /// The flush that they belong to, and its barrier; 0 if it was itself one without some device.
    var number: UInt64 = 0
    var barrier: UInt64 = 0
    var failedDevices: UInt32 = 0
    /// What waits for them.
    var covered = OperationList()
    var callers: [FlushCaller] = []
    var isEmpty: Bool { segments.isEmpty }

    func holds(_ device: Int) -> Bool { devices & (1 << UInt32(device)) != 0 }
}

extension LogStore {
    /// Ends the running flush without the devices that keep it. Whether it did.
    func leaveLateBehind() -> Bool {
        guard devices.count > 1, flush.late.isEmpty, !flush.isFirst, flush.failedDevices == 0
        else { return false }
        var late: UInt32 = 0
        for segment in flush.running where segments[segment].isSyncing {
            let device = SegmentTable.device(segment)
            if isHealthy(device) { return false }
            late |= 1 << UInt32(device)
        }
        guard late != 0, devices.indices.contains(where: { isHealthy($0) }) else { return false }
        flush.late.devices = late
        flush.late.number = flush.begun
        flush.late.barrier = flush.barrier
        flush.late.segments = flush.running.filter { segments[$0].isSyncing }
        flush.late.callers = flush.coveredCallers
        flush.coveredCallers.removeAll(keepingCapacity: true)
        var covered = flush.covered
        flush.covered = OperationList()
        while case let operation = covered.popFirst(operations), operation >= 0 {
            if waitsForLate(operation) {
                flush.late.covered.append(operation, operations)
            } else {
                flush.covered.append(operation, operations)
            }
        }
        flush.barrier = 0
        flush.pendingSyncs = 0
        statistics.partedFlushes += 1
        endFlush()
        return true
    }

    /// Whether an operation's flush concerns a device that is late.
    private func waitsForLate(_ operation: Int32) -> Bool {
        let slot = operations.slots + Int(operation)
        switch slot.pointee.kind {
        case .append where !slot.pointee.replace:
            return flush.late.holds(SegmentTable.device(slot.pointee.segment))
        case .relocate where slot.pointee.version == 0 && !slot.pointee.isRewrite && !rewriting:
            // Blocks that were moved out of a victim; carried records have a version.
            return reclaimers[Int(slot.pointee.token)].movedTo.contains {
                flush.late.holds(SegmentTable.device($0.segment))
                    && segments[$0.segment].flushedPages < $0.end
            }
        default:
            return true
        }
    }

    /// Whether a flush without the late devices would settle something that waits.
    var waitsBesideLate: Bool {
        var operation = flush.waiting.head
        while operation >= 0 {
            if !waitsForLate(operation) { return true }
            operation = operations[operation].next
        }
        return false
    }

    /// A flush begins: it covers what waits, but for what concerns late devices, and leaves what
    /// was written there as it is.
    func coverBesideLate() {
        var waiting = flush.waiting
        flush.waiting = OperationList()
        while case let operation = waiting.popFirst(operations), operation >= 0 {
            if waitsForLate(operation) {
                flush.waiting.append(operation, operations)
            } else {
                flush.covered.append(operation, operations)
            }
        }
        flush.dirty.append(
            contentsOf: flush.running.filter { flush.late.holds(SegmentTable.device($0)) })
        flush.running.removeAll { flush.late.holds(SegmentTable.device($0)) }
    }

    /// A late segment's sync has ended, or was given up.
    func lateFlushed(_ segment: UInt32, failed: Bool) {
        if failed { flush.late.failedDevices |= 1 << UInt32(SegmentTable.device(segment)) }
        flush.late.segments.removeAll { $0 == segment }
        guard flush.late.isEmpty else { return }
        var late = flush.late
        flush.late = LateFlush()
        if late.failedDevices == 0 {
            flush.durableVersion = max(flush.durableVersion, late.barrier)
        } else {
            flush.lastFailed = flush.begun
        }
        while case let operation = late.covered.popFirst(operations), operation >= 0 {
            flushed(operation, failed: late.failedDevices)
        }
        tell(late.callers, failed: late.failedDevices, barrier: late.barrier)
    }
}
