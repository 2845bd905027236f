// Carrying on: what a victim holds and is to outlive it. Tombstones and supersedes that an older
// value somewhere could still need are written anew to two segments; blocks worth keeping are read,
// checked and written into the reinserted stream with version and checksum unchanged (MoveWindow).
// A source is given up only when all of that has been flushed.

import BlockIO
import SegmentFormat

extension LogStore {
    private static let pageBytes = FormatConstants.pageBytes

    // MARK: Carrying on

    func carryRecord(
        _ device: Int, _ fingerprint: Fingerprint, _ slot: UInt16, _ view: RecordView
    ) -> Bool {
        guard operations.inUse + 4 < operations.capacity else { return false }
        let operation = operations.take(.relocate, token: UInt64(device))
        guard operation >= 0 else { return false }
        operations[operation].fingerprint = fingerprint
        operations[operation].namespaceSlot = slot
        operations[operation].phase = .waitingForRecords
        operations[operation].version = view.descriptor.version
        operations.setKey(operation, view.key, parent: UnsafeRawBufferPointer(start: nil, count: 0))
        guard
            writeRecords(
                owner: operation, version: view.descriptor.version,
                supersede: view.descriptor.flags.contains(.supersede),
                only: streamOfTwin(segments[reclaimers[device].segment]),
                besideTwin: segments[reclaimers[device].segment].lacksTwins)
        else {
            operations.give(operation)
            return false
        }
        statistics.carriedRecords += 1
        reclaimers[device].pending += 1
        return true
    }

    /// The one stream that a record of a segment is carried on into, its twin being elsewhere; nil
    /// where it is to have two copies again.
    func streamOfTwin(_ segment: Segment) -> StreamKind? {
        if segment.lacksTwins, spreading.homes.first != spreading.homes.second { return nil }
        return StreamKind(rawValue: segment.stream)
            .flatMap { $0 == .recordsA || $0 == .recordsB ? $0 : nil }
    }

    /// Both copies of a carried record have been written: it counts when flushed.
    func carriedRecordEnded(_ operation: Int32) {
        if operations[operation].errno != 0 {
            if operations[operation].isRewrite {
                if operations[operation].abandoned { statistics.unguardedReplaces += 1 }
                finish(operation, .failed)
                return
            }
            // The source still has it: the victim keeps its place and is tried again later.
            reclaimFailed(Int(operations[operation].token))
            carryingEnded(operation)
            return
        }
        waitForFlush(operation)
    }

    /// A block of the victim has been read and checked (or not): write it into the reinserted
    /// stream.
    func relocationRead(_ operation: Int32, hit: Bool) {
        guard hit else {
            carryingEnded(operation)
            return
        }
        operations[operation].sourceIsImage = true
        enqueue(operation, kind: .reinserted)
    }

    /// Moves the index to the copy just written, unless the key has moved on meanwhile.
    func republish(_ operation: Int32) -> Bool {
        let slot = operations.slots + Int(operation)
        // A segment whose flush failed while this was being written will not be flushed again.
        guard segments[slot.pointee.segment].state != .quarantined,
            let present = index.find(slot.pointee.fingerprint),
            present.isSameBlock(as: slot.pointee.entry)
        else { return false }
        var made = entry(operation)
        made.flags = present.flags
        return publish(slot.pointee.fingerprint, made)
    }

    /// A block has been written elsewhere (or could not be). The victim keeps its place until all
    /// that was moved out of it has been flushed (`movedIsDurable`).
    func reinsertionEnded(_ operation: Int32, published: Bool) {
        let slot = operations.slots + Int(operation)
        if slot.pointee.isRewrite {
            rewriteEnded(operation, published: published)
            return
        }
        let device = Int(slot.pointee.token)
        if published {
            statistics.reinsertedBlocks += 1
            statistics.reinsertedBytes += UInt64(slot.pointee.length)
            reclaimers[device].note(
                moved: slot.pointee.segment, end: slot.pointee.page + slot.pointee.storedPages)
        } else if namespaces.isLive(slot.pointee.namespaceSlot),
            let present = index.find(slot.pointee.fingerprint),
            present.isSameBlock(as: slot.pointee.entry)
        {
            // Still only in the victim: a block that may be evicted is, for another the victim has
            // to stay.
            if configuration.mode == .cache && !isPinned(slot.pointee.fingerprint) {
                evict(slot.pointee.fingerprint, present)
            } else {
                reclaimFailed(device)
            }
        }
        carryingEnded(operation)
    }

    /// Whether everything that was moved out of a victim is durable where it now lies. If not yet,
    /// a flush is under way, or it is known that it never will be.
    func movedIsDurable(_ device: Int) -> Bool {
        let moved = reclaimers[device].movedTo.first {
            segments[$0.segment].flushedPages < $0.end
        }
        guard let moved = moved ?? firstUnflushedRewrite() else { return true }
        if segments[moved.segment].state == .quarantined {
            reclaimers[device].failed = true
        } else {
            flushForReclaim(device)
        }
        return false
    }

    /// Whether it is known of everything that was moved out of a victim that it is flushed, or that
    /// it never will be: a victim that is left is looked at anew later, by the index alone.
    func movedIsSettled(_ device: Int) -> Bool {
        let isOpen = reclaimers[device].movedTo.contains {
            segments[$0.segment].flushedPages < $0.end
                && segments[$0.segment].state != .quarantined
        }
        if isOpen { flushForReclaim(device) }
        return !isOpen
    }

    /// A segment is used again: what another device's victim moved into it has gone on from there,
    /// and is durable where it went, or was evicted. Who waited for its flush would do so for ever.
    func forgetMoves(into segment: UInt32) {
        for device in reclaimers.indices {
            reclaimers[device].movedTo.removeAll { $0.segment == segment }
        }
    }

    private func flushForReclaim(_ device: Int) {
        guard reclaimers[device].pending == 0 else { return }
        let barrier = operations.take(.relocate, token: UInt64(device))
        guard barrier >= 0 else { return }
        reclaimers[device].pending += 1
        waitForFlush(barrier)
    }

    /// A flush that carrying waited for has ended.
    func carryingFlushed(_ operation: Int32, failed: Bool) {
        if operations[operation].isRewrite {
            // What recovery decided on, for which nobody waits.
            if failed, operations[operation].abandoned { statistics.unguardedReplaces += 1 }
            finish(operation, failed ? .failed : .stored)
            return
        }
        // Moved blocks are looked at one by one (`movedIsDurable`); records are not.
        if failed && operations[operation].version != 0 {
            reclaimFailed(Int(operations[operation].token))
        }
        carryingEnded(operation)
    }

    func carryingEnded(_ operation: Int32) {
        let device = Int(operations[operation].token)
        let moved = operations[operation].reinsertion
        operations.give(operation)
        reclaimers[device].pending -= 1
        if moved { leftWindow(device) }
    }

    /// What had to be carried on could not be: the victim may not be overwritten. It is left sealed
    /// (and tried again), so that the tombstones in it stay on disk.
    func reclaimFailed(_ device: Int) { reclaimers[device].failed = true }
}
