// Carrying on: what a victim holds and must outlive it. Tombstones and supersedes that an older
// value somewhere could still need are written anew to two segments; pinned blocks are read,
// checked and written into the reinserted stream with version and checksum unchanged. A source is
// given up only when all of that has been flushed.

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
        operations.setKey(operation, view.key, parent: UnsafeRawBufferPointer(start: nil, count: 0))
        guard
            writeRecords(
                owner: operation, version: view.descriptor.version,
                supersede: view.descriptor.flags.contains(.supersede),
                only: StreamKind(rawValue: segments[reclaimers[device].segment].stream)
                    .flatMap { $0 == .recordsA || $0 == .recordsB ? $0 : nil })
        else {
            operations.give(operation)
            return false
        }
        statistics.carriedRecords += 1
        reclaimers[device].pending += 1
        return true
    }

    /// Both copies of a carried record have been written: it counts when flushed.
    func carriedRecordEnded(_ operation: Int32) {
        if operations[operation].errno != 0 {
            // The source still has it: the victim keeps its place and is tried again later.
            reclaimFailed(Int(operations[operation].token))
            carryingEnded(operation)
            return
        }
        waitForFlush(operation)
    }

    func relocate(
        _ device: Int, _ fingerprint: Fingerprint, _ slot: UInt16, _ view: RecordView,
        _ entry: IndexEntry
    ) -> Bool {
        guard operations.inUse + 4 < operations.capacity else { return false }
        let operation = operations.take(.relocate, token: UInt64(device))
        guard operation >= 0 else { return false }
        let bytes = Int(view.descriptor.storedPages) * Self.pageBytes
        let piece = UnsafeMutablePointer<Piece>.allocate(capacity: 1)
        let memory = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 4096)
        piece.initialize(
            to: Piece(
                region: .process, offset: UInt64(UInt(bitPattern: memory)), length: UInt64(bytes)))
        let op = operations.slots + Int(operation)
        op.pointee.fingerprint = fingerprint
        op.pointee.namespaceSlot = slot
        op.pointee.reinsertion = true
        op.pointee.entry = entry
        op.pointee.version = view.descriptor.version
        op.pointee.length = entry.length
        op.pointee.shardCount = entry.shardCount
        op.pointee.checksum = entry.checksum
        op.pointee.expiry = entry.expiry
        op.pointee.aligned = namespaces.aligned(slot)
        op.pointee.storedPages = view.descriptor.storedPages
        op.pointee.shards = entry.shardCount
        op.pointee.rangeEnd = bytes
        op.pointee.pagesMode = true
        op.pointee.tableFromImage = entry.shardCount > 1
        op.pointee.pieces = UnsafePointer(piece)
        op.pointee.pieceCount = 1
        operations.setKey(operation, view.key, parent: view.parent)
        segments[entry.place.segment].readers += 1
        reclaimers[device].pending += 1
        startRead(operation)
        return true
    }

    /// A pinned block has been read and checked (or not): write it into the reinserted stream.
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
        guard index.find(slot.pointee.fingerprint) == slot.pointee.entry else { return false }
        return publish(slot.pointee.fingerprint, entry(operation))
    }

    func reinsertionEnded(_ operation: Int32, published: Bool) {
        guard published else {
            // Still only in the victim, and pinned: the victim has to stay.
            if index.find(operations[operation].fingerprint) == operations[operation].entry {
                reclaimFailed(Int(operations[operation].token))
            }
            carryingEnded(operation)
            return
        }
        statistics.reinsertedBytes += UInt64(operations[operation].length)
        waitForFlush(operation)
    }

    func reinsertionFlushed(_ operation: Int32, failed: Bool) {
        if failed { reclaimFailed(Int(operations[operation].token)) }
        carryingEnded(operation)
    }

    private func carryingEnded(_ operation: Int32) {
        let device = Int(operations[operation].token)
        if operations[operation].reinsertion, let piece = operations[operation].pieces {
            UnsafeMutableRawPointer(bitPattern: UInt(piece.pointee.offset))?.deallocate()
            UnsafeMutablePointer(mutating: piece).deallocate()
        }
        operations.give(operation)
        reclaimers[device].pending -= 1
    }

    /// What had to be carried on could not be: the victim may not be overwritten. It is left sealed
    /// (and tried again), so that the tombstones in it stay on disk.
    func reclaimFailed(_ device: Int) {
        let segment = reclaimers[device].segment
        guard segments[segment].state == .reclaiming else { return }
        reclaimers[device].failed = true
    }
}
