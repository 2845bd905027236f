// Rewriting: whoever maintains a store writes its live blocks anew in an order of its own, one
// behind the other in the reinserted stream, with versions and checksums unchanged. Meanwhile
// reclaim only takes segments that hold nothing alive, and evicts nothing.
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
    /// hold nothing alive become clean one after the other.
    package func beginRewriting() { rewriting = true }

    /// Whether there is a segment that reclaim may empty now.
    package var hasVictim: Bool {
        devices.indices.contains { devices[$0].takesWrites && victim($0) != nil }
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
