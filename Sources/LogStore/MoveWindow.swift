// MoveWindow: the blocks that are carried out of a victim at once. They are read front to back in
// runs that step over small gaps, one request at a time, checked where they then lie, and written
// from there into the reinserted stream.
//
// Invariants: the buffer is given back only when every block of the window has been written or
// given up; each operation in it holds a reader's reference on the victim until it has been read.

import BlockIO
import SegmentFormat

/// Neighbouring pages of a victim that are read with one request.
struct MoveRun {
    var page: UInt32
    var pages: UInt32
    /// Where they go in the buffer, pages.
    var place: UInt32
    /// Blocks in it.
    var blocks: Int
}

struct MoveWindow {
    /// Bytes of the buffer of each device.
    static let bufferBytes = 4 << 20
    /// The most bytes of one request, which bounds how long a demand read waits behind it.
    static let runBytes = 1 << 20
    /// Pages between two blocks that are read rather than stepped over.
    static let gapPages: UInt32 = 16
    static let mostBlocks = 256

    /// Of the pool; -1 while there is none.
    var chunk: Int32 = -1
    /// For one block that is larger than the buffer.
    var large: UnsafeMutableRawPointer?
    var largePages: UInt32 = 0
    /// Blocks that have not been read yet, in the order of the runs.
    var blocks = OperationList()
    var runs: [MoveRun] = []
    var nextRun = 0
    /// Pages of the buffer that are spoken for.
    var used: UInt32 = 0
    /// Blocks neither written nor given up.
    var left = 0

    init() { runs.reserveCapacity(Self.mostBlocks) }

    var isEmpty: Bool { runs.isEmpty }

    var room: UInt32 {
        large == nil ? UInt32(Self.bufferBytes / FormatConstants.pageBytes) : largePages
    }

    /// Makes room for a block behind those that are there: its place in the buffer, pages, or nil
    /// when the window is full.
    mutating func add(page: UInt32, pages: UInt32) -> UInt32? {
        if blocks.count >= Self.mostBlocks { return nil }
        if let last = runs.last, page >= last.page + last.pages {
            let gap = page - last.page - last.pages
            let length = last.pages + gap + pages
            if gap <= Self.gapPages, Int(length) * FormatConstants.pageBytes <= Self.runBytes,
                used + gap + pages <= room
            {
                used += gap + pages
                runs[runs.count - 1].pages = length
                runs[runs.count - 1].blocks += 1
                return used - pages
            }
        }
        guard used + pages <= room else { return nil }
        runs.append(MoveRun(page: page, pages: pages, place: used, blocks: 1))
        used += pages
        return used - pages
    }

    /// Empty again; the buffer has been given back.
    mutating func reset() {
        runs.removeAll(keepingCapacity: true)
        nextRun = 0
        used = 0
    }
}

extension LogStore {
    private static let pageBytes = FormatConstants.pageBytes

    /// Adds a block of the victim to the window. False: come back to the same record when the
    /// window has been emptied, or when there is room for operations.
    func move(
        _ device: Int, _ fingerprint: Fingerprint, _ slot: UInt16, _ view: RecordView,
        _ entry: IndexEntry
    ) -> Bool {
        let pages = view.descriptor.storedPages
        guard operations.inUse + 4 < operations.capacity, takeBuffer(device, pages: pages) else {
            if !reclaimers[device].window.isEmpty { readWindow(device) }
            return false
        }
        guard let place = reclaimers[device].window.add(page: view.descriptor.page, pages: pages)
        else {
            readWindow(device)
            return false
        }
        let operation = operations.take(.relocate, token: UInt64(device))
        let bytes = Int(pages) * Self.pageBytes
        let op = operations.slots + Int(operation)
        op.pointee.fingerprint = fingerprint
        op.pointee.namespaceSlot = slot
        op.pointee.reinsertion = true
        op.pointee.phase = .reading
        op.pointee.entry = entry
        op.pointee.version = view.descriptor.version
        // Alive now, so only what is deleted from here on needs its tombstone because of this
        // copy; but a delete or replace under way may have its version already.
        op.pointee.heldSince = isBusy(fingerprint) ? view.descriptor.version : nextVersion
        op.pointee.length = entry.length
        op.pointee.shardCount = entry.shardCount
        op.pointee.checksum = entry.checksum
        op.pointee.expiry = entry.expiry
        op.pointee.aligned = namespaces.aligned(slot)
        op.pointee.storedPages = pages
        op.pointee.shards = entry.shardCount
        op.pointee.rangeEnd = bytes
        op.pointee.pagesMode = true
        op.pointee.tableFromImage = entry.shardCount > 1
        op.pointee.ownPiece = windowPiece(device, place: place, bytes: bytes)
        op.pointee.pieces = operations.ownPiece(operation)
        op.pointee.pieceCount = 1
        operations.setKey(operation, view.key, parent: view.parent)
        segments[entry.place.segment].readers += 1
        reclaimers[device].pending += 1
        reclaimers[device].window.left += 1
        reclaimers[device].window.blocks.append(operation, operations)
        return true
    }

    /// Makes sure that the window has a buffer that takes the block, if it is empty.
    private func takeBuffer(_ device: Int, pages: UInt32) -> Bool {
        if reclaimers[device].window.chunk >= 0 || reclaimers[device].window.large != nil {
            return true
        }
        let bytes = Int(pages) * Self.pageBytes
        if bytes > MoveWindow.bufferBytes {
            reclaimers[device].window.large = .allocate(byteCount: bytes, alignment: 4096)
            reclaimers[device].window.largePages = pages
            return true
        }
        reclaimers[device].window.chunk = movePool.take()
        return reclaimers[device].window.chunk >= 0
    }

    private func windowPiece(_ device: Int, place: UInt32, bytes: Int) -> Piece {
        let offset = Int(place) * Self.pageBytes
        if let large = reclaimers[device].window.large {
            return Piece(
                region: .process, offset: UInt64(UInt(bitPattern: large + offset)),
                length: UInt64(bytes))
        }
        return movePool.piece(reclaimers[device].window.chunk, offset: offset, length: bytes)
    }

    /// Reads what is in the window; the reclaim goes on from its present phase when all of it has
    /// been written.
    func readWindow(_ device: Int) {
        reclaimers[device].resume = reclaimers[device].phase
        reclaimers[device].phase = .moving
        readRun(device)
    }

    private func readRun(_ device: Int) {
        let run = reclaimers[device].window.runs[reclaimers[device].window.nextRun]
        issueReclaim(
            device,
            IORequest(
                tag: Self.tag(.moveRead, Int32(device)), operation: .read,
                file: file(reclaimers[device].segment), fileOffset: Self.offset(page: run.page),
                piece: windowPiece(
                    device, place: run.place, bytes: Int(run.pages) * Self.pageBytes)))
    }

    /// A run has arrived: each of its blocks is checked and goes its way; what fails is read once
    /// more by itself.
    func runRead(_ device: Int, _ completion: IOCompletion) {
        let part = completion.result < 0 ? Int32(truncatingIfNeeded: -completion.result) : 0
        guard let errno = reclaimReadEnded(device, part) else { return }
        let run = reclaimers[device].window.runs[reclaimers[device].window.nextRun]
        reclaimers[device].window.nextRun += 1
        if reclaimers[device].window.nextRun < reclaimers[device].window.runs.count {
            readRun(device)
        }
        if errno == 0 { statistics.movedReadBytes += UInt64(Int(run.pages) * Self.pageBytes) }
        for _ in 0..<run.blocks {
            let operation = reclaimers[device].window.blocks.popFirst(operations)
            guard operation >= 0 else { break }
            operations[operation].errno = errno
            readEnded(operation)
        }
    }

    /// Gives up what has not begun to be read, of a device that takes no more writes.
    func abandonWindow(_ device: Int) {
        guard !reclaimers[device].window.isEmpty, reclaimers[device].phase != .moving else {
            return
        }
        reclaimers[device].failed = true
        reclaimers[device].window.nextRun = reclaimers[device].window.runs.count
        reclaimers[device].resume = reclaimers[device].phase
        while true {
            let operation = reclaimers[device].window.blocks.popFirst(operations)
            if operation < 0 { return }
            segments[operations[operation].entry.place.segment].readers -= 1
            carryingEnded(operation)
        }
    }

    /// A block of the window has been written or given up.
    func leftWindow(_ device: Int) {
        reclaimers[device].window.left -= 1
        guard reclaimers[device].window.left == 0,
            reclaimers[device].window.nextRun == reclaimers[device].window.runs.count
        else { return }
        reclaimers[device].window.chunk.withChunk { movePool.give($0) }
        reclaimers[device].window.large?.deallocate()
        reclaimers[device].window.large = nil
        reclaimers[device].window.reset()
        reclaimers[device].phase = reclaimers[device].resume
    }
}
