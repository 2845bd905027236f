// UringDriver: BlockDriver over io_uring. Owner thread only, but for `wake`.
//
// A request waits in `queue` until `submit`, goes to the kernel as transfers, and ends in `ready`,
// from where `reap` hands it out; a request holds its place against `limits.depth` until then.
// Sleeping: the owner stores `sleeping`, looks at `wakePending` once more, and only then blocks; a
// waker stores `wakePending` and writes the eventfd only if it took `sleeping` back.

import CLiburing
import CPlatform
import Glibc
import Synchronization

package final class UringDriver: BlockDriver {
    package var kind: DriverKind { .ioUring }
    package let limits: DriverLimits
    package let regions: RegionTable
    let options: UringOptions
    let files = HostFiles()
    @exclusivity(unchecked) var ring: UringRing?
    /// The ring's address, for the hot path; valid while `ring` is there.
    let io: UnsafeMutablePointer<io_uring>
    @exclusivity(unchecked) var tables: UringTables
    @exclusivity(unchecked) var counters = DriverStatistics()
    /// Requests prepared and not yet reaped.
    @exclusivity(unchecked) var inFlight = 0
    /// Transfers that the kernel has or that wait to go again.
    @exclusivity(unchecked) var withKernel = 0
    /// Live requests with a deadline, and a time before which none is due.
    @exclusivity(unchecked) var deadlines = 0
    @exclusivity(unchecked) var earliestDeadline = UInt64.max
    @exclusivity(unchecked) var buffers: UringBuffers
    @exclusivity(unchecked) var fileTableCapacity = 0
    let setupGrant: String
    let eventDescriptor: Int32
    var wakeArmed = false
    /// Whether the wake poll stays armed when it fires.
    private var multishot = true
    private static let more: UInt32 = 1 << 1  // IORING_CQE_F_MORE
    private let sleeping = Atomic<Bool>(false)
    private let wakePending = Atomic<Bool>(false)
    private let scratch: UnsafeMutablePointer<UnsafeMutablePointer<io_uring_cqe>?>
    private static let batch = 64
    /// A few requests are held back for the call that follows, `wait` more often than not, which
    /// hands them over and sleeps in one system call: a seventh less CPU where requests come one
    /// by one. So many calls of others may come before they are handed over after all.
    private var holds = 0
    private static let holdCalls = 3
    private static let holdLimit: UInt32 = 8

    package init(
        regions: RegionTable, depth: Int, options: UringOptions = UringOptions()
    ) throws(IOError) {
        precondition(depth > 0 && depth <= 16384, "a driver's depth is 1 to 16384")
        precondition(
            options.transferBytes >= 4096 && options.transferBytes <= 1 << 30
                && options.transferBytes % 4096 == 0, "transfers are whole pages up to 1 GiB")
        let tables = UringTables(depth: depth)
        let ring: UringRing
        do throws(IOError) {
            // Every transfer, a cancellation of each, and the wake poll: the completion queue,
            // twice this size, holds them all.
            ring = try UringRing(entries: tables.transferCapacity + 1, from: options.setup)
        } catch {
            tables.deallocate()
            throw error
        }
        eventDescriptor = hearth_eventfd(1)
        guard eventDescriptor >= 0 else {
            let number = errno
            tables.deallocate()
            throw IOError(operation: "eventfd", path: "", errno: number)
        }
        self.regions = regions
        self.options = options
        self.tables = tables
        limits = DriverLimits(depth: depth, transferBytes: options.transferBytes)
        io = ring.pointer
        setupGrant =
            "io_uring \(ring.setup.words)"
            + (ring.ringRegistered ? ", ring descriptor registered" : "")
        buffers = UringBuffers()
        scratch = .allocate(capacity: Self.batch)
        scratch.initialize(repeating: nil, count: Self.batch)
        self.ring = consume ring
        registerTables()
    }

    deinit {
        shutdown()
        scratch.deallocate()
        buffers.deallocate()
        tables.deallocate()
        // Only here: a waker may still hold the driver after shutdown.
        _ = Glibc.close(eventDescriptor)
    }

    package var statistics: DriverStatistics {
        var made = counters
        made.grants = grants
        return made
    }

    // MARK: Requests

    package func prepare(_ request: IORequest) -> Bool {
        guard inFlight < limits.depth, ring != nil else { return false }
        inFlight += 1
        let problem = files.refusal(of: request, regions)
        if problem != 0 || (request.piece.length == 0 && request.operation.movesBytes) {
            finishWithoutSlot(request.tag, problem)
            return true
        }
        let index = tables.freeOp
        let op = tables.ops + Int(index)
        tables.freeOp = op.pointee.nextFree
        op.pointee = UringOp()
        op.pointee.tag = request.tag
        op.pointee.operation = request.operation
        op.pointee.fileOffset = request.fileOffset
        op.pointee.used = true
        op.pointee.queued = true
        op.pointee.length = request.operation == .sync ? 0 : request.piece.length
        let file = files.entries[Int(request.file.raw)]
        op.pointee.fixedFile = Int(request.file.raw) < fileTableCapacity
        op.pointee.descriptor = op.pointee.fixedFile ? request.file.raw : file.descriptor
        op.pointee.offsetAlignment = file.offsetAlignment
        op.pointee.isDirectory = file.isDirectory
        if request.operation.movesBytes {
            op.pointee.address = UInt(bitPattern: regions.pointer(request.piece))
            op.pointee.regionOffset = request.piece.offset
            op.pointee.bufferSlot = buffers.firstSlot(request.piece.region)
        }
        if request.deadline != 0 {
            op.pointee.deadline = request.deadline
            deadlines += 1
            earliestDeadline = min(earliestDeadline, request.deadline)
        }
        tables.queue.append(index)
        return true
    }

    package func submit() {
        guard ring != nil else { return }
        tables.released = tables.queue.count
        let before = io_uring_sq_ready(io)
        issue(SystemClock.now())
        let waiting = io_uring_sq_ready(io)
        if waiting == 0 { return }
        if waiting >= Self.holdLimit || (before > 0 && waiting > before) {
            flush()
        } else if holds == 0 {
            holds = Self.holdCalls
        } else {
            hold()
        }
    }

    /// Another call has come that was not `wait`.
    private func hold() {
        if holds > 0 { holds -= 1 }
        if holds == 0 { flush() }
    }

    package func reap(_ into: UnsafeMutableBufferPointer<IOCompletion>) -> Int {
        guard let base = into.baseAddress, into.count > 0 else { return 0 }
        if withKernel > 0 || wakeArmed { drain() }
        if earliestDeadline != .max { expire(SystemClock.now()) }
        if tables.againHead >= 0 || tables.released > 0 {
            issue(SystemClock.now())
        }
        hold()
        let count = min(into.count, tables.ready.count)
        for index in 0..<count {
            (base + index).initialize(to: tables.ready.first)
            tables.ready.removeFirst()
        }
        inFlight -= count
        return count
    }

    package func wait(until deadline: UInt64) {
        guard ring != nil else { return }
        counters.waits += 1
        tables.released = tables.queue.count
        while true {
            drain()
            let now = SystemClock.now()
            expire(now)
            issue(now)
            if tables.ready.count > 0
                || wakePending.exchange(
                    false, ordering: .sequentiallyConsistent)
                || now >= deadline
            {
                flush()
                return
            }
            armWake()
            sleeping.store(true, ordering: .sequentiallyConsistent)
            if !wakePending.load(ordering: .sequentiallyConsistent) {
                block(min(deadline, earliestDeadline), now)
            }
            sleeping.store(false, ordering: .sequentiallyConsistent)
        }
    }

    package func wake() {
        wakePending.store(true, ordering: .sequentiallyConsistent)
        if sleeping.exchange(false, ordering: .sequentiallyConsistent) {
            var one: UInt64 = 1
            _ = write(eventDescriptor, &one, 8)
        }
    }

    package func shutdown() {
        guard ring != nil else { return }
        // The contract says nothing is in flight; what is all the same must let go of its memory
        // before the ring does.
        for index in 0..<limits.depth where tables.ops[index].used { giveUp(index, -ECANCELED) }
        while withKernel > 0 {
            issue(SystemClock.now())
            block(.max, 0)
            drain()
        }
        ring = nil
        files.closeAll()
    }

    // MARK: The kernel

    /// Sleeps for one completion, handing over what is in the submission queue.
    private func block(_ until: UInt64, _ now: UInt64) {
        var first: UnsafeMutablePointer<io_uring_cqe>?
        let result: Int32
        holds = 0
        if until == .max {
            result = io_uring_submit_and_wait_timeout(io, &first, 1, nil, nil)
        } else {
            let left = until > now ? until - now : 0
            var time = __kernel_timespec()
            time.tv_sec = Int64(left / 1_000_000_000)
            time.tv_nsec = Int64(left % 1_000_000_000)
            result = io_uring_submit_and_wait_timeout(io, &first, 1, &time, nil)
        }
        check(result)
    }

    /// Hands the submission queue to the kernel; what it does not take stays for the next call.
    func flush() {
        holds = 0
        guard ring != nil, io_uring_sq_ready(io) > 0 else { return }
        check(io_uring_submit(io))
    }

    private func check(_ result: Int32) {
        if result >= 0 { return }
        switch -result {
        case ETIME, EINTR, EBUSY: return
        case EAGAIN, ENOMEM, EBADR:
            // The kernel is out of memory for requests: let it breathe, the caller tries again.
            var pause = timespec(tv_sec: 0, tv_nsec: 1_000_000)
            nanosleep(&pause, nil)
        default:
            // EEXIST (SINGLE_ISSUER), or EBADF and EINVAL for the ring's registered descriptor.
            preconditionFailure("errno \(-result): a ring is used by the thread that made it")
        }
    }

    /// Processes every completion that is there. With DEFER_TASKRUN or COOP_TASKRUN the ring's
    /// TASKRUN flag tells liburing when a system call would bring more.
    func drain() {
        guard ring != nil else { return }
        var now: UInt64 = 0
        while true {
            let count = Int(io_uring_peek_batch_cqe(io, scratch, UInt32(Self.batch)))
            if count == 0 { return }
            if now == 0 { now = SystemClock.now() }
            for index in 0..<count {
                guard let cqe = scratch[index] else { continue }
                if cqe.pointee.user_data == UserData.wake {
                    wakeFired(cqe.pointee.res, more: cqe.pointee.flags & Self.more != 0)
                } else {
                    complete(cqe.pointee.user_data, cqe.pointee.res, now)
                }
            }
            io_uring_cq_advance(io, UInt32(count))
        }
    }

    /// Takes a submission entry, making room when the queue is full; nil if there is none.
    func entry() -> UnsafeMutablePointer<io_uring_sqe>? {
        if let entry = io_uring_get_sqe(io) { return entry }
        flush()
        return io_uring_get_sqe(io)
    }

    private func armWake() {
        guard !wakeArmed, let entry = entry() else { return }
        if multishot {
            io_uring_prep_poll_multishot(entry, eventDescriptor, UInt32(POLLIN))
        } else {
            io_uring_prep_poll_add(entry, eventDescriptor, UInt32(POLLIN))
        }
        io_uring_sqe_set_data64(entry, UserData.wake)
        wakeArmed = true
    }

    /// The wake poll fired. One that goes on firing does so at each write, whatever the counter
    /// says, so there is nothing to read or to arm; a poll that has ended is armed anew, with the
    /// counter emptied lest it fires at once.
    private func wakeFired(_ result: Int32, more: Bool) {
        if more { return }
        if result < 0, multishot { multishot = false }  // a kernel before 5.13
        wakeArmed = false
        var count: UInt64 = 0
        _ = read(eventDescriptor, &count, 8)
    }
}
