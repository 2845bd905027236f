// Device: one member directory of the store, its files, and its health in this run.

import BlockIO
import SegmentFormat

package enum DeviceState: UInt8, Sendable {
    case healthy
    /// Answers late: values are written to others first.
    case slow
    /// Silent, or full of errors: takes no writes and is not read until probes are answered.
    case suspect
    /// Gone in this run: its blocks are misses.
    case out
    /// Missing at open.
    case absent
    /// Taken out of the membership for good.
    case struck

    var isPresent: Bool { self != .absent && self != .struck }
}

extension LogStore {
    /// The directories of the members that are here.
    package var presentPaths: [String] { devices.filter { $0.state.isPresent }.map(\.path) }
}

package struct Device {
    package let index: Int
    package let path: String
    package var id: Identity128
    package var health = DeviceHealth()
    /// `absent` or `struck`; nil for a member that is here, whose state is its health.
    private var away: DeviceState?
    var directory = FileID.none
    var manifestFile = FileID.none
    /// Checkpoint files, on the first device.
    var checkpointFiles = (FileID.none, FileID.none)
    /// Whether the file system granted O_DIRECT.
    package var direct = true
    package var segmentCount = 0
    /// No more space for files: the store has shrunk to what there is.
    package var full = false
    /// The segment of the last error, and how many came from it in a row.
    private var erringSegment: UInt32?
    private var errorsOfSegment = 0
    /// Copies of the running manifest epoch that have been written or tried, and those that failed.
    var manifestWrites = 0
    var manifestFailures = 0
    /// Requests of the manifest under way, and whether their epoch has given them up: the next one
    /// goes without this member until they have ended.
    var manifestRequests = 0
    var manifestGivenUp = false

    init(index: Int, path: String, id: Identity128) {
        self.index = index
        self.path = path
        self.id = id
    }

    package var state: DeviceState {
        if let away { return away }
        switch health.grade {
        case .healthy: return .healthy
        case .slow: return .slow
        case .suspect: return .suspect
        case .out: return .out
        }
    }

    mutating func leave(_ state: DeviceState) { away = state }

    package var takesWrites: Bool { isReadable }

    @inline(__always)
    var isReadable: Bool {
        away == nil && health.grade.rawValue <= DeviceHealth.Grade.slow.rawValue
    }

    package var errors: UInt64 { health.errors }

    static let goneErrors: [Int32] = [6, 19, 108, 116]  // ENXIO, ENODEV, ESHUTDOWN, ESTALE

    /// Notes a failed I/O. A device that is gone, or fails again and again, is out; one segment
    /// alone (its file cut short, say) does not take the device with it.
    mutating func failed(errno: Int32, segment: UInt32?, hasOthers: Bool, at now: UInt64) {
        if let segment, segment == erringSegment {
            errorsOfSegment += 1
        } else {
            erringSegment = segment
            errorsOfSegment = 1
        }
        // Of one segment, too few to make a device suspect that has others to be judged by.
        let most = hasOthers ? DeviceHealth.errorsForSuspect / 2 : 12
        health.failed(
            isGone: Self.goneErrors.contains(errno),
            counts: segment == nil || errorsOfSegment <= most, hasOthers: hasOthers, at: now)
    }
}
