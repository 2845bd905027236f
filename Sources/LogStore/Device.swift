// Device: one member directory of the store, its files, and its health in this run.

import BlockIO
import SegmentFormat

package enum DeviceState: UInt8, Sendable {
    case healthy
    /// Errors seen: takes no writes until it has answered well for a while.
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
    package var state: DeviceState = .healthy
    var directory = FileID.none
    var manifestFile = FileID.none
    /// Checkpoint files, on the first device.
    var checkpointFiles = (FileID.none, FileID.none)
    /// Whether the file system granted O_DIRECT.
    package var direct = true
    package var segmentCount = 0
    /// No more space for files: the store has shrunk to what there is.
    package var full = false
    package var errors: UInt64 = 0
    var consecutiveErrors = 0
    /// The segment of the last error, and how many came from it in a row.
    private var erringSegment: UInt32?
    private var errorsOfSegment = 0
    /// Copies of the running manifest epoch that have been written.
    var manifestWrites = 0

    init(index: Int, path: String, id: Identity128) {
        self.index = index
        self.path = path
        self.id = id
    }

    package var takesWrites: Bool { state == .healthy }
    var isReadable: Bool { state == .healthy || state == .suspect }

    static let goneErrors: [Int32] = [6, 19, 108, 116]  // ENXIO, ENODEV, ESHUTDOWN, ESTALE

    /// Notes a failed I/O. A device that is gone, or fails again and again, is out; one segment
    /// alone (its file cut short, say) does not take the device with it.
    mutating func failed(errno: Int32, segment: UInt32? = nil) {
        errors += 1
        if let segment, segment == erringSegment {
            errorsOfSegment += 1
        } else {
            erringSegment = segment
            errorsOfSegment = 1
        }
        if segment == nil || errorsOfSegment <= 12 { consecutiveErrors += 1 }
        if Self.goneErrors.contains(errno) || consecutiveErrors >= 32 {
            state = .out
        }
    }

    @inline(__always)
    mutating func answered() {
        if consecutiveErrors != 0 { consecutiveErrors = 0 }
    }
}
