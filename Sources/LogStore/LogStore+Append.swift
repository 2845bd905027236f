// Appending: a put takes its key, gets a version and a checksum, joins a group, and is published
// when the group has been written. A value below `bypassBytes` is copied first and then checked
// where it lies, so that a caller who changes the source meanwhile cannot make bytes and checksum
// differ; of a larger one, written from the caller's memory, such a change is found at the first
// read: a miss, never a wrong byte.

import BlockIO
import SegmentFormat

/// A block to be appended. Key and parent are copied; pieces and shard lengths must stay valid
/// until the outcome.
package struct AppendRequest {
    package var token: UInt64
    package var fingerprint: Fingerprint
    package var namespaceSlot: UInt16
    package var key: UnsafeRawBufferPointer
    package var parent: UnsafeRawBufferPointer
    package var pieces: UnsafePointer<Piece>
    package var pieceCount: Int
    /// Value bytes.
    package var length: UInt32
    package var shardCount: Int = 1
    /// `shardCount` lengths; nil for one shard.
    package var shardLengths: UnsafePointer<UInt32>?
    /// The pieces hold a stored image (padding and table included) with this checksum and version.
    package var sourceIsImage = false
    package var checksum: UInt32 = 0
    package var version: UInt64 = 0
    /// Unix seconds; 0 for none.
    package var expiry: UInt32 = 0
    package var replace = false
    package var durability: Durability = .written
    /// The log cannot write from this source: it may only be compared with a present copy. If there
    /// is none (any more), the outcome is `.throttled` with errno `LogStore.tryAgain`.
    package var comparesOnly = false

    package init(
        token: UInt64, fingerprint: Fingerprint, namespaceSlot: UInt16,
        key: UnsafeRawBufferPointer, parent: UnsafeRawBufferPointer,
        pieces: UnsafePointer<Piece>, pieceCount: Int, length: UInt32
    ) {
        self.token = token
        self.fingerprint = fingerprint
        self.namespaceSlot = namespaceSlot
        self.key = key
        self.parent = parent
        self.pieces = pieces
        self.pieceCount = pieceCount
        self.length = length
    }
}

extension LogStore {
    package static let tryAgain: Int32 = 11  // EAGAIN

    /// Whether the log can take this source as it lies: it fits a group buffer, or is aligned.
    /// Anything else has to be made into an image in staging first.
    package func canAppend(_ request: AppendRequest) -> Bool {
        if request.sourceIsImage { return true }
        let layout = BlockLayout(
            length: request.length, shardCount: request.shardCount,
            aligned: namespaces.aligned(request.namespaceSlot))
        if layout.storedBytes <= configuration.groupBytes {
            return request.shardCount == 1 || !namespaces.aligned(request.namespaceSlot)
                || storedBytes(request) <= configuration.groupBytes
        }
        return request.shardCount == 1
            && canWriteInPlace(request.pieces, request.pieceCount, request.length)
    }

    private func storedBytes(_ request: AppendRequest) -> Int {
        guard let lengths = request.shardLengths else {
            return BlockLayout(length: request.length, shardCount: 1, aligned: false).storedBytes
        }
        return BlockLayout.storedBytes(
            shardLengths: UnsafeBufferPointer(start: lengths, count: request.shardCount),
            aligned: namespaces.aligned(request.namespaceSlot))
    }

    /// Whether a write of the key is under way: one with a version of its own has to wait.
    package func isBusy(_ fingerprint: Fingerprint) -> Bool {
        pending.find(fingerprint, operations) >= 0
    }

    /// Starts a put. False when there is no room for another operation: try again after `pump`.
    package func append(_ request: AppendRequest) -> Bool {
        guard hasRoom() else { return false }
        let operation = operations.take(.append, token: request.token)
        guard operation >= 0 else { return false }
        let slot = operations.slots + Int(operation)
        slot.pointee.fingerprint = request.fingerprint
        slot.pointee.namespaceSlot = request.namespaceSlot
        slot.pointee.length = request.length
        slot.pointee.shardCount = request.shardCount
        slot.pointee.shardLengths = request.shardLengths
        slot.pointee.pieces = request.pieces
        slot.pointee.pieceCount = request.pieceCount
        slot.pointee.sourceIsImage = request.sourceIsImage
        slot.pointee.checksum = request.checksum
        slot.pointee.version = request.version
        slot.pointee.expiry = request.expiry
        slot.pointee.replace = request.replace
        slot.pointee.comparesOnly = request.comparesOnly
        slot.pointee.acknowledged = request.durability == .volatile
        slot.pointee.durability = max(request.durability, .written)
        slot.pointee.aligned = namespaces.aligned(request.namespaceSlot)
        operations.setKey(operation, request.key, parent: request.parent)
        slot.pointee.phase = .waitingForKey  // until the key is taken: `finish` must not end it
        if request.length == 0 || Int(request.length) > Int(manifest.maxBlockBytes) {
            finish(operation, request.length == 0 ? .invalid : .tooLarge)
            return true
        }
        if readOnly || closing {
            finish(operation, .readOnly)
            return true
        }
        slot.pointee.phase = .idle
        slot.pointee.storedPages = UInt32(
            (storedBytes(request) + FormatConstants.pageBytes - 1) / FormatConstants.pageBytes)
        if beginKey(operation) { startWrite(operation) }
        return true
    }

    func startAppend(_ operation: Int32) {
        let slot = operations.slots + Int(operation)
        guard namespaces.isLive(slot.pointee.namespaceSlot) else {
            finish(operation, .invalid)
            return
        }
        if let existing = present(slot.pointee.fingerprint) {
            // A copy that is damaged, or cannot be read in this run, is replaced: it must not come
            // back.
            let device = SegmentTable.device(existing.place.segment)
            if existing.isDamaged || !devices[device].isReadable { slot.pointee.replace = true }
            if !slot.pointee.replace {
                foundPresent(operation, existing)
                return
            }
            if slot.pointee.version != 0, fullVersion(existing) > slot.pointee.version {
                // Overtaken by a higher version, which wins.
                finish(operation, .stored)
                return
            }
        } else {
            slot.pointee.replace = quarantinedKeys.contains(slot.pointee.fingerprint)
            guard index.count + appending < index.capacity else {
                indexFull(operation)
                return
            }
        }
        if slot.pointee.comparesOnly {
            slot.pointee.errno = Self.tryAgain
            finish(operation, .throttled)
            return
        }
        let cap = namespaces.cap(slot.pointee.namespaceSlot)
        if cap > 0,
            namespaces.bytes(slot.pointee.namespaceSlot) + UInt64(slot.pointee.length) > cap
        {
            finish(operation, configuration.mode == .cache ? .notAdmitted : .noSpace)
            return
        }
        if slot.pointee.version == 0 { slot.pointee.version = takeVersion() }
        enqueue(operation, kind: .fresh)
    }

    /// The unexpired entry under a fingerprint.
    @inline(__always)
    func present(_ fingerprint: Fingerprint) -> IndexEntry? {
        guard let entry = index.find(fingerprint) else { return nil }
        if entry.expiry != 0, entry.isExpired(at: wallSeconds) { return nil }
        return entry
    }

    private func indexFull(_ operation: Int32) {
        if configuration.mode == .cache {
            wantReclaim = true
            operations[operation].errno = 0
            finish(operation, .throttled)
        } else {
            finish(operation, .noSpace)
        }
    }

    /// A put of a present key: a conflict, or a touch that raises durability.
    private func foundPresent(_ operation: Int32, _ existing: IndexEntry) {
        let slot = operations.slots + Int(operation)
        slot.pointee.entry = existing
        heat.touched(slot.pointee.fingerprint)
        if existing.length != slot.pointee.length
            || existing.shardCount != slot.pointee.shardCount
        {
            slot.pointee.version = fullVersion(existing)
            finish(operation, .conflict)
            return
        }
        if existing.shardCount > 1, slot.pointee.shardLengths != nil {
            fetchTable(operation)
            return
        }
        raiseDurability(operation)
    }

    /// The table of the present block has arrived (or could not be read): compare the lengths.
    func compareTables(_ operation: Int32, _ lengths: UnsafePointer<UInt32>?) {
        let slot = operations.slots + Int(operation)
        guard let lengths, let wanted = slot.pointee.shardLengths else {
            // The present copy cannot be trusted: this put takes its place. Of a copy that has
            // taken the place of the one that was read nothing is known: its turn comes now.
            if slot.pointee.entry.isSameBlock(as: index.find(slot.pointee.fingerprint)) {
                index.markDamaged(slot.pointee.fingerprint)
            } else {
                slot.pointee.retried = false
            }
            giveBounce(operation)
            startAppend(operation)
            return
        }
        for shard in 0..<slot.pointee.shardCount where lengths[shard] != wanted[shard] {
            slot.pointee.version = fullVersion(slot.pointee.entry)
            finish(operation, .conflict)
            return
        }
        raiseDurability(operation)
    }

    private func raiseDurability(_ operation: Int32) {
        let slot = operations.slots + Int(operation)
        let entry = slot.pointee.entry
        if slot.pointee.durability == .durable, isBeyondFlush(entry) {
            // What the caller brings takes its place.
            giveBounce(operation)
            slot.pointee.replace = true
            startAppend(operation)
            return
        }
        slot.pointee.version = fullVersion(entry)
        slot.pointee.checksum = entry.checksum
        if slot.pointee.durability != .durable || isDurable(entry) {
            finish(operation, .alreadyPresent)
        } else {
            slot.pointee.phase = .waitingForFlush
            slot.pointee.kind = .append
            slot.pointee.segment = entry.place.segment
            slot.pointee.page = entry.place.page
            slot.pointee.raising = true
            waitForFlush(operation)
        }
    }

    /// Whether a block will never be durable where it lies: its segment is flushed no more.
    package func isBeyondFlush(_ entry: IndexEntry) -> Bool {
        segments[entry.place.segment].state == .quarantined && !isDurable(entry)
    }

    func isDurable(_ entry: IndexEntry) -> Bool {
        entry.place.page < segments[entry.place.segment].flushedPages
    }

    // MARK: Records

    /// Writes a tombstone or supersede record for `owner`'s key to two segments; `recordsWritten`
    /// is called when both have been written. False: no operation slots; try again later.
    /// Reclaim carries a copy on into the stream that it lies in (`only`): its twin is elsewhere,
    /// or beside it (`besideTwin`).
    func writeRecords(
        owner: Int32, version: UInt64, supersede: Bool, only: StreamKind? = nil,
        besideTwin: Bool = false
    ) -> Bool {
        let wanted = only == nil ? 2 : 1
        guard operations.inUse + wanted <= operations.capacity else { return false }
        operations[owner].pendingRecords = Int32(wanted)
        operations[owner].recordPlaces = (nil, nil)
        for copy in 0..<wanted {
            let kind = only ?? (copy == 0 ? .recordsA : .recordsB)
            let record = operations.take(.record, token: 0)
            let slot = operations.slots + Int(record)
            slot.pointee.owner = owner
            slot.pointee.fingerprint = operations[owner].fingerprint
            slot.pointee.namespaceSlot = operations[owner].namespaceSlot
            slot.pointee.version = version
            slot.pointee.supersede = supersede
            slot.pointee.flags = supersede ? [.supersede] : [.tombstone]
            slot.pointee.besideTwin = besideTwin && only != nil
            operations.setKey(
                record, operations.key(owner), parent: UnsafeRawBufferPointer(start: nil, count: 0))
            enqueue(record, kind: kind)
        }
        return true
    }

    /// One of them has been written.
    func noteRecord(_ owner: Int32, _ place: Place) {
        let slot = operations.slots + Int(owner)
        if slot.pointee.recordPlaces.0 == nil {
            slot.pointee.recordPlaces.0 = place
        } else {
            slot.pointee.recordPlaces.1 = place
        }
    }
}

extension Int32 {
    /// Passes a chunk number on, if there is one, and forgets it.
    mutating func withChunk(_ body: (Int32) -> Void) {
        if self >= 0 { body(self) }
        self = -1
    }
}
