// BlockDriver: the one protocol behind which all I/O happens — io_uring, threads, simulated disk.
//
// The store's core is a state machine on one thread (the owner). It prepares requests in batches,
// submits them, and reaps completions; nothing in this protocol calls back. Rules that every driver
// keeps, so that the core need not know which one it has:
//  - exactly one completion for each prepared request, whatever happens to it;
//  - a completion's result is the full length asked for, or a negative errno: the driver resumes
//    short transfers at an aligned offset, and turns no progress into -EIO;
//  - a request over `limits.transferBytes` is split and completes once;
//  - the memory of a request belongs to the driver from `prepare` until its completion is reaped;
//  - a completion that does not match a live request's slot generation is dropped and counted.
// Everything but `wake` is called on the owner thread.

/// What a driver is.
package enum DriverKind: String, Sendable {
    case ioUring = "io_uring"
    case threads
    case simulated
}

/// Names an open file (or directory, for fsync) of a driver.
package struct FileID: Hashable, Sendable {
    package var raw: Int32
    package init(_ raw: Int32) { self.raw = raw }
    package static let none = FileID(-1)
}

package enum IOOperation: UInt8, Sendable {
    case read
    case write
    /// fdatasync: data, and the metadata needed to read it back.
    case sync
    /// Preallocates [fileOffset, fileOffset + length), extending the file.
    case allocate
    /// Punches a hole: gives the range back to the device.
    case punchHole
}

/// One request. `piece` is the memory (ignored by sync, allocate and punchHole, whose range is
/// `fileOffset` and `piece.length`). With a file opened direct, offset, length and address are
/// multiples of the file's `FileInformation` alignments.
package struct IORequest: Sendable {
    package var tag: UInt64
    package var operation: IOOperation
    package var file: FileID
    package var fileOffset: UInt64
    package var piece: Piece
    /// Monotonic nanoseconds after which the driver tries to cancel it (-ETIME if it had not
    /// started, else -ECANCELED if the kernel lets go); 0 for none.
    package var deadline: UInt64

    package init(
        tag: UInt64, operation: IOOperation, file: FileID, fileOffset: UInt64, piece: Piece,
        deadline: UInt64 = 0
    ) {
        self.tag = tag
        self.operation = operation
        self.file = file
        self.fileOffset = fileOffset
        self.piece = piece
        self.deadline = deadline
    }
}

/// The end of one request.
package struct IOCompletion: Sendable {
    package var tag: UInt64
    /// Bytes moved (0 for sync, allocate, punchHole), or a negative errno.
    package var result: Int64
    /// Nanoseconds from handing to the kernel (or device) until reaped.
    package var deviceNanoseconds: UInt64

    package init(tag: UInt64, result: Int64, deviceNanoseconds: UInt64) {
        self.tag = tag
        self.result = result
        self.deviceNanoseconds = deviceNanoseconds
    }
}

package struct DriverLimits: Sendable {
    /// Requests in flight at once; `prepare` returns false beyond it.
    package var depth: Int
    /// The largest single transfer handed to the kernel; larger requests are split.
    package var transferBytes: Int
    package init(depth: Int, transferBytes: Int) {
        self.depth = depth
        self.transferBytes = transferBytes
    }
}

/// How a file was opened, as it turned out.
package struct FileInformation: Sendable {
    /// Whether O_DIRECT was granted; false is reported in the statistics.
    package var direct: Bool
    /// Alignment of addresses and of offsets and lengths, bytes (STATX_DIOALIGN; 1 if buffered).
    package var memoryAlignment: Int
    package var offsetAlignment: Int
    /// Bytes.
    package var size: UInt64
    package init(direct: Bool, memoryAlignment: Int, offsetAlignment: Int, size: UInt64) {
        self.direct = direct
        self.memoryAlignment = memoryAlignment
        self.offsetAlignment = offsetAlignment
        self.size = size
    }
}

package enum OpenFlags {
    /// Open an existing file; ENOENT otherwise.
    case existing
    /// Open or create (mode 0600).
    case create
    /// Create; EEXIST if it is there.
    case exclusive
}

/// A failed control call: the operation, what it was on, and the errno.
package struct IOError: Error, Equatable, Sendable, CustomStringConvertible {
    package var operation: String
    package var path: String
    package var errno: Int32
    /// More to say, such as who holds a lock; empty for none.
    package var detail: String
    package init(operation: String, path: String, errno: Int32, detail: String = "") {
        self.operation = operation
        self.path = path
        self.errno = errno
        self.detail = detail
    }
    package var description: String {
        "\(operation) \(path): errno \(errno)" + (detail.isEmpty ? "" : " (\(detail))")
    }
}

/// Counters of a driver; all since it was made.
package struct DriverStatistics: Sendable {
    package var submitted: UInt64 = 0
    package var completed: UInt64 = 0
    package var failed: UInt64 = 0
    package var shortResumed: UInt64 = 0
    package var staleDropped: UInt64 = 0
    package var splitRequests: UInt64 = 0
    package var cancelled: UInt64 = 0
    package var waits: UInt64 = 0
    package var registeredBufferOps: UInt64 = 0
    package var unregisteredOps: UInt64 = 0
    /// What was granted, in words: ring flags, registered files and buffers, why a fallback.
    package var grants: String = ""
    package init() {}
}

package protocol BlockDriver: AnyObject {
    var kind: DriverKind { get }
    var limits: DriverLimits { get }
    var statistics: DriverStatistics { get }
    var regions: RegionTable { get }

    // MARK: Control calls: synchronous, rare

    /// Opens (and with `create` makes, mode 0700) a directory; the result can be synced as a file.
    func openDirectory(_ path: String, create: Bool) throws(IOError) -> FileID
    /// Takes the exclusive lock on the directory's `LOCK` file and writes `holder` into it. EAGAIN
    /// with the present holder's text in `detail` when somebody has it. Held until `close`.
    func lock(_ directory: FileID, holder: String) throws(IOError)
    func list(_ directory: FileID) throws(IOError) -> [String]
    /// Opens a file for direct I/O where the file system grants it, else buffered.
    func open(_ directory: FileID, _ name: String, _ flags: OpenFlags) throws(IOError) -> FileID
    func information(_ file: FileID) throws(IOError) -> FileInformation
    func remove(_ directory: FileID, _ name: String) throws(IOError)
    /// Bytes that could still be allocated in the directory's file system.
    func availableBytes(_ directory: FileID) throws(IOError) -> UInt64
    /// Closes a file or directory (and its lock). It must have no request in flight.
    func close(_ file: FileID)
    /// Registers the region's memory for I/O where that is possible; a refusal (memlock) falls
    /// back to unregistered transfers and is reported in `statistics.grants`. Region already added.
    func register(_ region: RegionID)
    func unregister(_ region: RegionID)
    /// Tells the device how long the file's data will live (Linux's F_SET_RW_HINT: 0 unknown,
    /// 1 none, 2 short ... 5 extreme). Advice only; a refusal is not an error.
    func setWriteHint(_ file: FileID, _ hint: Int32)

    // MARK: Requests

    /// Queues a request; false when `limits.depth` are in flight (nothing was taken).
    func prepare(_ request: IORequest) -> Bool
    /// Hands all prepared requests to the device, at the latest with the third call that follows.
    func submit()
    /// Takes finished requests, without waiting; returns how many were written to `into`.
    func reap(_ into: UnsafeMutableBufferPointer<IOCompletion>) -> Int
    /// Asks for a request to be given up. Its completion still comes.
    func cancel(tag: UInt64)
    /// Submits, then sleeps until a completion is ready, `wake` was called, or the monotonic time
    /// is reached (`UInt64.max`: no bound).
    func wait(until deadline: UInt64)
    /// Ends a `wait` now or the next one at once. Any thread.
    func wake()
    /// Releases everything; nothing is in flight.
    func shutdown()
}

extension BlockDriver {
    package func setWriteHint(_ file: FileID, _ hint: Int32) {}
}
