// WriteStream: one line of writing into one open segment at a time. Each device has streams of
// fresh blocks, which namespaces are dealt to, and one of blocks rewritten by reclaim; two streams
// of records (tombstones and supersedes) lie in two segments, on two devices where there are two.
//
// Invariants: pages of a segment are given to groups front to back; the footer of the open segment
// is kept in memory and always fits behind what has been given out.

import BlockIO
import SegmentFormat

package enum StreamKind: UInt8, Sendable {
    case fresh = 0
    case reinserted
    case recordsA
    case recordsB
}

package struct WriteStream {
    let kind: StreamKind
    let device: Int
    /// Which one of the device's streams of fresh blocks; 0 of another kind.
    let number: Int
    /// The open segment, or nil.
    var segment: UInt32?
    var nextPage: UInt32 = 0
    var footerChunk: Int32 = -1
    var footer: DescriptorPageWriter?
    var queue = OperationList()
    /// Groups being filled: one that gathers in its buffer, one whose images lie elsewhere.
    var gathering: Int32 = -1
    var direct: Int32 = -1
    /// A sealed group that waits for a segment; nothing is sealed past it.
    var waiting: Int32 = -1
    var groupsInFlight = 0

    init(kind: StreamKind, device: Int, number: Int) {
        self.kind = kind
        self.device = device
        self.number = number
    }

    var isRecords: Bool { kind == .recordsA || kind == .recordsB }

    /// How long the device is told that what is written lives, as Linux's F_SET_RW_HINT has it:
    /// records go once nothing older is left, what was moved has proved to be wanted.
    var writeHint: Int32 {
        switch kind {
        case .fresh: 3  // medium
        case .reinserted: 4  // long
        case .recordsA, .recordsB: 2  // short
        }
    }

    /// Footers in memory: one of each stream's open segment, and of some that are being written.
    package static func footers(devices: Int, fresh: Int) -> Int { devices * (fresh + 1) + 4 }

    /// Pages kept for the footer of a segment, in memory. A segment of records is nothing but
    /// descriptors, which are all in its footer again: half of it, as long as that is not too much
    /// to keep until it is sealed; never less than one of values.
    package static func footerPages(_ segmentPages: UInt32, records: Bool) -> Int {
        let pages = Int(segmentPages)
        return max(4, pages / 32, records ? min(pages / 2, mostFooterPages) : 0)
    }

    /// 16 MiB: a segment of 32 MiB is full of records when they are.
    private static let mostFooterPages = 4096
}

/// One batch of blocks, written at once: descriptor pages, then values.
struct Group {
    /// Room in front of the values for descriptor pages.
    static let gapPages = 32
    static let gapBytes = gapPages * FormatConstants.pageBytes

    let memory: UnsafeMutableRawPointer
    let chunk: Int32
    var writer: DescriptorPageWriter
    var inUse = false
    var stream = -1
    var isDirect = false
    var operations = OperationList()
    /// Value bytes so far, a multiple of the page.
    var valueBytes = 0
    /// Of its records so far; all ones and 0 for none.
    var minVersion = UInt64.max
    var maxVersion: UInt64 = 0
    var pendingIO: Int32 = 0
    var errno: Int32 = 0
    var segment: UInt32 = 0
    var firstPage: UInt32 = 0
    var pages: UInt32 = 0
    var descriptorPages = 0
    var issued = false
    /// Its operations have gone elsewhere; the device still has the buffer.
    var isOrphan = false

    init(memory: UnsafeMutableRawPointer, chunk: Int32) {
        self.memory = memory
        self.chunk = chunk
        writer = DescriptorPageWriter(memory: memory, pages: Self.gapPages)
    }

    var values: UnsafeMutableRawPointer { memory + Self.gapBytes }
}
