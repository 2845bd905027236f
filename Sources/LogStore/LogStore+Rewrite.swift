// Rewriting: whoever maintains a store writes its live blocks anew in an order of its own, one
// behind the other in the reinserted stream, with versions and checksums unchanged. Meanwhile
// reclaim only takes segments that hold nothing alive, and evicts nothing. Repair takes the blocks
// out of damaged segments in the same way.
//
// Invariant: no segment is recycled until everything that was rewritten before is flushed, so at
// each moment a durable block has a durable copy.

import BlockIO
import SegmentFormat

/// A block to be written anew. Key and parent are copied; the pieces hold its stored image, checked
/// (as a read of whole pages leaves it), and must stay valid until the outcome.
package struct RewriteRequest {
    package var token: UInt64
    package var fingerprint: Fingerprint
    package var entry: IndexEntry
    package var key: UnsafeRawBufferPointer
    package var parent: UnsafeRawBufferPointer
    package var pieces: UnsafePointer<Piece>
    package var pieceCount: Int
    package var storedPages: UInt32

    package init(
        token: UInt64, fingerprint: Fingerprint, entry: IndexEntry, key: UnsafeRawBufferPointer,
        parent: UnsafeRawBufferPointer, pieces: UnsafePointer<Piece>, pieceCount: Int,
        storedPages: UInt32
    ) {
        self.token = token
        self.fingerprint = fingerprint
        self.entry = entry
        self.key = key
        self.parent = parent
        self.pieces = pieces
        self.pieceCount = pieceCount
        self.storedPages = storedPages
    }
}

extension LogStore {
    /// From here on, until the store is closed, blocks are rewritten (`rewrite`), and segments that
    /// hold nothing alive become clean one after the other. Of the segments in `leaving` something
    /// is damaged: nothing is written there before they have a new life, and they are emptied even
    /// where that gains no room, from `leaveSegments` on. To be called before the first turn.
    package func beginRewriting(leaving: Set<UInt32> = []) {
        rewriting = true
        condemned = leaving
    }

    /// What the damaged segments have lost of tombstones is safe elsewhere: they may go.
    package func leaveSegments() { mayLeave = true }

    /// Whether there is a segment that reclaim may empty now.
    package var hasVictim: Bool {
        devices.indices.contains { devices[$0].takesWrites && victim($0) != nil }
    }

    /// Seals the segments that blocks are written to: what is dead in them can go then, and what is
    /// rewritten next does not lie among it. Where something is under way it is left.
    package func sealBlocks() {
        for stream in streams.indices where !streams[stream].isRecords && isAtRest(stream) {
            closeSegment(stream)
        }
    }

    /// Seals the segments of records that no value is old enough to need. False: there are none.
    package func sealNeedlessRecords() -> Bool {
        var found = false
        for stream in streams.indices where streams[stream].isRecords && isAtRest(stream) {
            guard let segment = streams[stream].segment, segments[segment].recordCount > 0,
                segments[segment].minValueVersion == UInt64.max,
                oldestValue(except: segment) >= segments[segment].maxVersion
            else { continue }
            closeSegment(stream)
            found = true
        }
        return found
    }

    private func isAtRest(_ stream: Int) -> Bool {
        streams[stream].segment != nil && streams[stream].groupsInFlight == 0
            && streams[stream].waiting < 0 && streams[stream].gathering < 0
            && streams[stream].direct < 0 && streams[stream].queue.isEmpty
    }

    /// Clean segments of a device, those not made yet included, that rewriting may take.
    package func spareSegments(_ device: Int) -> Int {
        var made = reclaimers[device].clean.count
        if !devices[device].full {
            for local in 0..<segments.counts[device]
            where segments[SegmentTable.id(device: device, local: local)].state == .uncreated {
                made += 1
            }
        }
        return max(0, made - reservedForRecords(device))
    }

    /// Writes a block anew. The outcome is `.stored`, `.notFound` when the key has moved on since,
    /// or `.noSpace`. False: no room for another operation: try again after `pump`.
    package func rewrite(_ request: RewriteRequest) -> Bool {
        guard hasRoom() else { return false }
        let operation = operations.take(.relocate, token: request.token)
        guard operation >= 0 else { return false }
        let slot = operations.slots + Int(operation)
        slot.pointee.fingerprint = request.fingerprint
        slot.pointee.namespaceSlot = request.entry.namespaceSlot
        slot.pointee.reinsertion = true
        slot.pointee.isRewrite = true
        slot.pointee.entry = request.entry
        slot.pointee.version = fullVersion(request.entry)
        slot.pointee.heldSince =
            isBusy(request.fingerprint) ? slot.pointee.version : nextVersion
        slot.pointee.length = request.entry.length
        slot.pointee.shardCount = request.entry.shardCount
        slot.pointee.checksum = request.entry.checksum
        slot.pointee.expiry = request.entry.expiry
        slot.pointee.aligned = namespaces.aligned(request.entry.namespaceSlot)
        slot.pointee.storedPages = request.storedPages
        slot.pointee.pieces = request.pieces
        slot.pointee.pieceCount = request.pieceCount
        slot.pointee.sourceIsImage = true
        operations.setKey(operation, request.key, parent: request.parent)
        if readOnly || closing {
            finish(operation, .readOnly)
        } else {
            enqueue(operation, kind: .reinserted)
        }
        return true
    }

    /// Writes a tombstone or supersede anew, twice as at first, since a copy of it was lost. The
    /// outcome is `.stored` once both are flushed, `.failed`, or `.notFound` when no value is left
    /// that it could be needed against. False: no room: try again after `pump`.
    package func guardAgain(
        token: UInt64, fingerprint: Fingerprint, namespaceSlot: UInt16,
        key: UnsafeRawBufferPointer, version: UInt64, supersede: Bool
    ) -> Bool {
        guard hasRoom(3) else { return false }
        let operation = operations.take(.relocate, token: token)
        guard operation >= 0 else { return false }
        operations[operation].fingerprint = fingerprint
        operations[operation].namespaceSlot = namespaceSlot
        operations[operation].version = version
        operations[operation].isRewrite = true
        operations[operation].phase = .waitingForRecords
        operations.setKey(operation, key, parent: UnsafeRawBufferPointer(start: nil, count: 0))
        if readOnly || closing {
            finish(operation, .readOnly)
        } else if oldestValue(except: UInt32.max) >= version {
            finish(operation, .notFound)
        } else if !writeRecords(owner: operation, version: version, supersede: supersede) {
            operations.give(operation)
            return false
        }
        return true
    }

    /// Takes a block out of the index of which the log has no record any more, so that nobody can
    /// write it anew. Durable with the next checkpoint and the next life of its segment.
    package func forget(_ fingerprint: Fingerprint) {
        unpublish(fingerprint)
        tables.forget(fingerprint)
    }

    /// Segments that were to be left and have not yet begun a new life, rising.
    package var segmentsToLeave: [UInt32] { condemned.sorted() }

    func rewriteEnded(_ operation: Int32, published: Bool) {
        let slot = operations.slots + Int(operation)
        if published {
            statistics.reinsertedBlocks += 1
            statistics.reinsertedBytes += UInt64(slot.pointee.length)
            let end = slot.pointee.page + slot.pointee.storedPages
            if let last = rewritten.indices.last,
                rewritten[last].segment == slot.pointee.segment
            {
                rewritten[last].end = max(rewritten[last].end, end)
            } else {
                rewritten.append((slot.pointee.segment, end))
            }
            finish(operation, .stored)
            return
        }
        let there = slot.pointee.entry.isSameBlock(as: index.find(slot.pointee.fingerprint))
        finish(operation, there ? .noSpace : .notFound)
    }

    /// Forgets what has been flushed; the first that has not, if there is one.
    func firstUnflushedRewrite() -> (segment: UInt32, end: UInt32)? {
        while let first = rewritten.first {
            if segments[first.segment].flushedPages < first.end { return first }
            rewritten.removeFirst()
        }
        return nil
    }
}
