// Discarder: tells the devices that what lay in a recycled segment is gone, so that they need not
// carry it along when they clean up: holes are punched into the segment's file, and the room is
// taken again at once, a stretch at a time, at a set rate, behind everything else.
//
// Invariants: only clean segments, whose new header is durable, so that nothing reads what lies
// between the two headers, in this run or after a crash; a segment is not written to while a
// stretch of it is under way; one whose room could not be taken again takes no writes in this run.

import BlockIO
import SegmentFormat

enum DiscardPhase: UInt8 {
    case resting
    case punching
    case allocating
}

struct Discarder {
    /// Bytes of one hole.
    static let stretchBytes = 16 << 20
    /// How long it waits for a device that is busy before it looks again, and how often it does so
    /// before it takes its turn all the same.
    static let pause: UInt64 = 2_000_000
    static let patience = 50
    /// What says that a file system punches no holes: EOPNOTSUPP, ENOSYS, EINVAL.
    static let refusals: [Int32] = [95, 38, 22]
    /// What says that there is no room, which is no fault of the device: ENOSPC, EDQUOT.
    static let noRoom: [Int32] = [28, 122]

    var phase = DiscardPhase.resting
    /// The segment and the pages of the stretch under way.
    var segment: UInt32 = 0
    var pages: Range<UInt32> = 0..<0
    /// Monotonic time before which nothing is discarded.
    var nextAt: UInt64 = 0
    var postponed = 0
    var isStopped = false
    /// A bit for each device whose files take no holes, or have not got their room back.
    var refused: UInt32 = 0

    var isUnderWay: Bool { phase != .resting }

    func holds(_ id: UInt32) -> Bool { isUnderWay && segment == id }
}

extension LogStore {
    func advanceDiscard() {
        guard mayDiscard, clock.monotonic >= discard.nextAt, let segment = nextDiscarded else {
            return
        }
        let now = clock.monotonic
        if isBusyInFront(SegmentTable.device(segment)), discard.postponed < Discarder.patience {
            discard.postponed += 1
            discard.nextAt = now + Discarder.pause
            return
        }
        discard.postponed = 0
        let stretch = UInt32(Discarder.stretchBytes / FormatConstants.pageBytes)
        let last = segmentPages - 1
        let state = segments.pointer(segment)
        discard.segment = segment
        discard.pages =
            state.pointee.discardPage..<min(state.pointee.discardPage + stretch, last)
        state.pointee.discardPage =
            discard.pages.upperBound == last ? 0 : discard.pages.upperBound
        discard.phase = .punching
        issueDiscard(.punchHole)
        // What was not done in time is not made up for.
        let rate = Double(configuration.discardBytesPerSecond)
        discard.nextAt = now + UInt64(Double(discardBytes) / rate * 1e9)
    }

    private var mayDiscard: Bool {
        configuration.discardBytesPerSecond > 0 && !discard.isUnderWay && !discard.isStopped
            && !readOnly
    }

    /// When there is something to be discarded next.
    var nextDiscardAt: UInt64 {
        mayDiscard && nextDiscarded != nil ? discard.nextAt : UInt64.max
    }

    /// The clean segment that will be taken last, of those that still have what lay in them.
    private var nextDiscarded: UInt32? {
        for device in devices.indices
        where discard.refused & (1 << UInt32(device)) == 0 && isHealthy(device) {
            for segment in reclaimers[device].clean.reversed()
            where segments[segment].discardPage > 0 { return segment }
        }
        return nil
    }

    private var discardBytes: UInt64 { Self.offset(page: UInt32(discard.pages.count)) }

    private func issueDiscard(_ operation: IOOperation) {
        issue(
            IORequest(
                tag: Self.tag(.discard, 0), operation: operation, file: file(discard.segment),
                fileOffset: Self.offset(page: discard.pages.lowerBound),
                piece: Piece(region: .process, offset: 0, length: discardBytes)),
            on: SegmentTable.device(discard.segment))
    }

    func discardEnded(_ completion: IOCompletion) {
        let device = SegmentTable.device(discard.segment)
        let errno = completion.result < 0 ? Int32(truncatingIfNeeded: -completion.result) : 0
        if errno != 0 {
            statistics.discardErrors += 1
            segments[discard.segment].discardPage = 0
        }
        switch discard.phase {
        case .resting: break
        case .punching:
            if Discarder.refusals.contains(errno) { discard.refused |= 1 << UInt32(device) }
            // Given up before the device had it, or not taken: nothing has changed.
            if errno == Self.givenUp || Discarder.refusals.contains(errno) {
                discard.phase = .resting
                return
            }
            if errno == 0 {
                statistics.discardedBytes += discardBytes
            } else {
                deviceFailed(device, errno: errno, segment: discard.segment)
            }
            // Also after an error: a part of the hole may be there.
            discard.phase = .allocating
            issueDiscard(.allocate)
        case .allocating:
            if errno != 0 {
                discard.refused |= 1 << UInt32(device)
                if !Discarder.noRoom.contains(errno) {
                    deviceFailed(device, errno: errno, segment: discard.segment)
                }
                quarantine(discard.segment)
            }
            discard.phase = .resting
        }
    }
}
