// SegmentTable: the state of every segment of every device, by 20-bit id (device 5 bits | local
// number 15 bits). Owner thread only; the index is what other threads read.
//
// Invariants: `livePages` is the sum of the accounted pages of the index entries whose place lies
// in the segment; a segment with readers is not recycled; a generation is durable in the segment's
// header before anything is written under it.

package enum SegmentState: UInt8, Sendable {
    /// Within capacity, but no file yet.
    case uncreated
    /// Header durable under a new generation; nothing written.
    case clean
    case open
    case sealed
    /// Being emptied or given a new header.
    case reclaiming
    /// Takes no writes in this run: a write or flush of it failed.
    case quarantined
    /// Its device is absent or out.
    case absent
}

package struct Segment {
    package var state: SegmentState = .uncreated
    package var file: Int32 = -1
    package var generation: UInt64 = 0
    package var stream: UInt8 = 0
    /// Pages from the start that have been given out to groups (and footer, when sealed).
    package var writtenPages: UInt32 = 0
    /// Pages that are flushed: everything before it is durable.
    package var flushedPages: UInt32 = 0
    /// Pages of completed groups; a running flush covers up to here.
    package var completedPages: UInt32 = 0
    /// First page behind the blocks that the dump told of when the store was opened, padding in
    /// them not counted.
    package var dumpedPages: UInt32 = 0
    package var livePages: UInt32 = 0
    /// Header, descriptor and footer pages.
    package var metaPages: UInt32 = 0
    /// Pages at the end that no group could use, when sealed.
    package var lostPages: UInt32 = 0
    package var liveBlocks: UInt32 = 0
    package var groupsInFlight: Int32 = 0
    package var readers: Int32 = 0
    /// Values written here that wait for a flush before the index may point to them.
    package var unpublished: Int32 = 0
    package var minVersion: UInt64 = UInt64.max
    package var maxVersion: UInt64 = 0
    /// The lowest version of which a tombstone may be of a value here: the lowest of a value, but
    /// of a block that was moved here the store's version when it was still alive. Decides which
    /// tombstones are still needed.
    package var minValueVersion: UInt64 = UInt64.max
    /// The same of the life before this one, until this one's header is durable: a crash before
    /// that brings back what lay there.
    package var formerValueVersion: UInt64 = UInt64.max
    package var recordCount: UInt32 = 0
    /// Footer pages as the trailer tells; 0 when there is no readable trailer.
    package var footerFirstPage: UInt32 = 0
    package var footerPages: UInt32 = 0
    /// Of a clean segment: the page from which on a former life still lies in it; 0 for nowhere, or
    /// it stays.
    package var discardPage: UInt32 = 0
    package var needsFlush: Bool = false
    /// Its first page told nothing when the store was opened: a crash may have torn it.
    package var lacksHeader: Bool = false
    /// The running flush waits for it.
    package var isSyncing: Bool = false
    /// Blocks whose descriptors cannot be read, so that they cannot be moved in this run.
    package var holdsUnreadable: Bool = false
    /// A flush of it failed: what was written behind `flushedPages` by then may be lost, whatever a
    /// later flush says.
    package var flushFailed: Bool = false
    /// It was to be emptied and had to be left: of what left the index it still has the bytes.
    package var holdsForgotten: Bool = false
    /// Blocks were moved here and never flushed: the log may not forget where they came from.
    package var holdsLostMoves: Bool = false
    /// It has the older value of a key whose newer one was found at open and is not known to be
    /// flushed: it is not emptied before that.
    package var holdsContested: Bool = false
    /// Records in it may have no copy on another member: their twins lie here as well, or lay on a
    /// member that is gone for good. They are carried on into both streams.
    package var lacksTwins: Bool = false
    package init() {}
}

package final class SegmentTable {
    package static let deviceShift: UInt32 = 15
    package static let localMask: UInt32 = (1 << 15) - 1
    package static let maximumDevices = 32
    package static let maximumLocal = 1 << 15

    /// First slot of each device in `slots`, by device.
    @exclusivity(unchecked) private var starts: [Int] = []
    @exclusivity(unchecked) package private(set) var counts: [Int] = []
    @exclusivity(unchecked) private var slots: UnsafeMutablePointer<Segment>
    @exclusivity(unchecked) private var total = 0

    package init(counts: [Int]) {
        self.counts = counts
        for count in counts {
            starts.append(total)
            total += count
        }
        slots = .allocate(capacity: max(total, 1))
        slots.initialize(repeating: Segment(), count: max(total, 1))
    }

    deinit {
        slots.deinitialize(count: max(total, 1))
        slots.deallocate()
    }

    package static func id(device: Int, local: Int) -> UInt32 {
        UInt32(device) << deviceShift | UInt32(local)
    }
    @inline(__always)
    package static func device(_ id: UInt32) -> Int { Int(id >> deviceShift) }
    package static func local(_ id: UInt32) -> Int { Int(id & localMask) }

    /// Whether the id names a segment within the store's capacity.
    @inline(__always)
    package func isValid(_ id: UInt32) -> Bool {
        let device = Self.device(id)
        return device < counts.count && Self.local(id) < counts[device]
    }

    @inline(__always)
    package func pointer(_ id: UInt32) -> UnsafeMutablePointer<Segment> {
        precondition(isValid(id), "a segment id outside the table")
        return slots + starts[Self.device(id)] + Self.local(id)
    }

    @inline(__always)
    package subscript(id: UInt32) -> Segment {
        _read { yield pointer(id).pointee }
        _modify { yield &pointer(id).pointee }
    }

    /// Visits every segment id, device by device.
    package func forEach(_ body: (UInt32) -> Void) {
        for device in counts.indices {
            for local in 0..<counts[device] { body(Self.id(device: device, local: local)) }
        }
    }
}
