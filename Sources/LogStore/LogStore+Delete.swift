// Deleting: a tombstone (key and version, no value) is written to two segments and flushed before
// the delete is acknowledged, so that a deleted key stays deleted over crash and damage. The same
// records, marked supersede, protect a replaced key from its older version. Works on a full store:
// records have segments in reserve.

import BlockIO
import SegmentFormat

package struct PinTable {
    /// Pinned blocks: the monotonic time at which each pin ends, and the bytes it was counted with.
    var held: [Fingerprint: (deadline: UInt64, bytes: UInt64)] = [:]
    var bytes: UInt64 = 0
}

extension LogStore {
    /// Deletes a key. Outcome: `.deleted`, `.notFound` or `.failed`. False: no room now.
    package func delete(
        token: UInt64, fingerprint: Fingerprint, namespaceSlot: UInt16,
        key: UnsafeRawBufferPointer
    ) -> Bool {
        guard hasRoom() else { return false }
        let operation = operations.take(.delete, token: token)
        guard operation >= 0 else { return false }
        operations[operation].fingerprint = fingerprint
        operations[operation].namespaceSlot = namespaceSlot
        operations[operation].phase = .waitingForKey
        operations.setKey(operation, key, parent: UnsafeRawBufferPointer(start: nil, count: 0))
        if readOnly || closing {
            finish(operation, .readOnly)
            return true
        }
        operations[operation].phase = .idle
        if beginKey(operation) { startWrite(operation) }
        return true
    }

    func startDelete(_ operation: Int32) {
        let fingerprint = operations[operation].fingerprint
        let found = index.find(fingerprint) != nil || quarantinedKeys.contains(fingerprint)
        // What is not in the index may still be found on disk after a crash: on a member that is
        // away, or in a victim not yet overwritten, or left as it was; in the former life of a
        // segment whose header is not known to be durable; in a copy that a failed write left.
        guard
            found || anyMemberAway || leftVictims > 0 || flush.isFirst || hidesValues
                || reclaimers.contains(where: { $0.phase != .idle })
        else {
            finish(operation, .notFound)
            return
        }
        operations[operation].raising = found
        operations[operation].version = takeVersion()
        operations[operation].phase = .waitingForRecords
        guard
            writeRecords(
                owner: operation, version: operations[operation].version, supersede: false)
        else {
            finish(operation, .throttled)
            return
        }
    }

    /// Both records of an operation have ended.
    func recordsEnded(_ operation: Int32) {
        let slot = operations.slots + Int(operation)
        if slot.pointee.kind == .relocate {
            carriedRecordEnded(operation)
            return
        }
        if slot.pointee.errno != 0 && slot.pointee.acknowledged && slot.pointee.raising {
            // The new value is written, flushed and published; only the second guard against its
            // older version is missing.
            statistics.unguardedReplaces += 1
            slot.pointee.errno = 0
            finish(operation, .stored)
            return
        }
        if slot.pointee.errno != 0 {
            finish(operation, slot.pointee.errno == 28 ? .noSpace : .failed)
            return
        }
        if slot.pointee.kind == .delete || slot.pointee.durability == .durable {
            slot.pointee.phase = .waitingForFlush
            waitForFlush(operation)
        } else {
            finish(operation, .stored)
        }
    }

    func deleteSettled(_ operation: Int32) {
        let fingerprint = operations[operation].fingerprint
        let removed = unpublish(fingerprint)
        if removed != nil { ghosts.note(fingerprint, .deleted, seconds: wallSeconds) }
        tables.forget(fingerprint)
        removePin(fingerprint)
        quarantinedKeys.remove(fingerprint)
        statistics.deletes += 1
        if let removed { operations[operation].length = removed.length }
        // Gone meanwhile (evicted, or found damaged), it is deleted all the same.
        finish(operation, operations[operation].raising ? .deleted : .notFound)
    }

    var anyMemberAway: Bool { devices.contains { $0.state == .absent || $0.state == .out } }

    // MARK: Pins

    /// Protects a stored block from eviction until a monotonic time. Outcome status at once:
    /// `.done`, `.notFound`, or `.throttled` when pins would hold over a quarter of the capacity.
    package func pin(_ fingerprint: Fingerprint, until deadline: UInt64) -> Status {
        guard let entry = present(fingerprint) else { return .notFound }
        let bytes = pins.held[fingerprint]?.bytes ?? UInt64(entry.length)
        if pins.held[fingerprint] == nil {
            guard pins.bytes + bytes <= manifest.capacityBytes / 4 else { return .throttled }
            pins.bytes += bytes
        }
        pins.held[fingerprint] = (deadline, bytes)
        return .done
    }

    package func unpin(_ fingerprint: Fingerprint) { removePin(fingerprint) }

    func removePin(_ fingerprint: Fingerprint) {
        guard let pin = pins.held.removeValue(forKey: fingerprint) else { return }
        pins.bytes -= pin.bytes
    }

    /// Whether a block is pinned now; a pin past its time is dropped.
    func isPinned(_ fingerprint: Fingerprint) -> Bool {
        guard !pins.held.isEmpty, let pin = pins.held[fingerprint] else { return false }
        if pin.deadline > clock.monotonic { return true }
        removePin(fingerprint)
        return false
    }
}
