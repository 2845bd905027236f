// ThreadTables: what a ThreadDriver's owner and its workers share, behind one mutex.
//
// A worker takes one piece of the oldest submitted request at a time, so a large request is moved
// by several workers at once. A request ends when no piece of it is being moved and either all of
// it was taken or it failed. Every variable is read and written under the mutex only. Workers hold
// the tables, never the driver; the driver joins them before it goes.

import CPlatform
import Glibc

/// One logical request.
struct ThreadOp {
    var tag: UInt64 = 0
    /// 0 for none.
    var deadline: UInt64 = 0
    var started: UInt64 = 0
    var fileOffset: UInt64 = 0
    var length: UInt64 = 0
    /// Bytes that workers have taken.
    var taken: UInt64 = 0
    var address: UInt = 0
    var descriptor: Int32 = -1
    var offsetAlignment: UInt32 = 1
    var outstanding: Int32 = 0
    /// The first failure, negative errno; 0 for none.
    var failure: Int32 = 0
    var nextFree: Int32 = -1
    var operation: IOOperation = .read
    var isDirectory = false
    var used = false
    /// In one of the two queues.
    var queued = false
    var cancelled = false
}

/// A piece of a request, as a worker moves it outside the mutex.
struct ThreadPiece {
    var op: Int32
    var operation: IOOperation
    var isDirectory: Bool
    var descriptor: Int32
    var address: UInt
    var offset: UInt64
    var length: UInt64
    var alignment: Int
}

final class ThreadTables: @unchecked Sendable {
    // Unchecked: all mutable state is guarded by `mutex`, as the comment above says.
    let depth: Int
    let transferBytes: Int
    let shortTransferBytes: Int
    let ops: UnsafeMutablePointer<ThreadOp>
    let mutex: UnsafeMutablePointer<pthread_mutex_t>
    /// Work for the workers; a completion or a wake for the owner.
    let work = MonotonicCondition()
    let news = MonotonicCondition()
    var freeOp: Int32 = 0
    /// Prepared and not yet submitted, oldest first.
    var prepared: FixedQueue<Int32>
    /// Submitted requests with something left to take, oldest first.
    var queue: FixedQueue<Int32>
    var ready: FixedQueue<IOCompletion>
    var counters = DriverStatistics()
    var deadlines = 0
    var earliestDeadline = UInt64.max
    var idle = 0
    var ownerSleeps = false
    var woken = false
    var stopping = false

    init(depth: Int, transferBytes: Int, shortTransferBytes: Int) {
        self.depth = depth
        self.transferBytes = transferBytes
        self.shortTransferBytes = shortTransferBytes
        ops = .allocate(capacity: depth)
        ops.initialize(repeating: ThreadOp(), count: depth)
        for index in 0..<depth {
            ops[index].nextFree = index + 1 < depth ? Int32(index + 1) : -1
        }
        prepared = FixedQueue(capacity: depth, filler: -1)
        queue = FixedQueue(capacity: depth, filler: -1)
        ready = FixedQueue(
            capacity: depth, filler: IOCompletion(tag: 0, result: 0, deviceNanoseconds: 0))
        mutex = .allocate(capacity: 1)
        mutex.initialize(to: pthread_mutex_t())
        pthread_mutex_init(mutex, nil)
    }

    deinit {
        work.destroy()
        news.destroy()
        pthread_mutex_destroy(mutex)
        mutex.deallocate()
        ops.deallocate()
        prepared.deallocate()
        queue.deallocate()
        ready.deallocate()
    }

    @inline(__always)
    func locked<Result>(_ body: () -> Result) -> Result {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return body()
    }

    /// Sleeps on `news` until the monotonic time; the mutex is held before and after.
    func awaitNews(until time: UInt64) {
        ownerSleeps = true
        _ = news.wait(mutex, until: time)
        ownerSleeps = false
    }

    /// Adds a completion, the mutex held.
    func append(_ tag: UInt64, _ result: Int64, _ elapsed: UInt64) {
        counters.completed += 1
        if result < 0 {
            counters.failed += 1
            if result == Int64(-ECANCELED) || result == Int64(-ETIME) { counters.cancelled += 1 }
        }
        ready.append(IOCompletion(tag: tag, result: result, deviceNanoseconds: elapsed))
        if ownerSleeps { news.signal() }
    }

    /// Ends a request and frees its place, the mutex held.
    func finish(_ index: Int, _ now: UInt64) {
        let op = ops + index
        if op.pointee.queued { unqueue(index) }
        if op.pointee.deadline != 0 {
            deadlines -= 1
            if deadlines == 0 { earliestDeadline = .max }
        }
        let failure = op.pointee.failure
        let result =
            failure != 0
            ? Int64(failure) : op.pointee.operation.movesBytes ? Int64(op.pointee.length) : 0
        let started = op.pointee.started
        append(op.pointee.tag, result, started != 0 && now > started ? now - started : 0)
        op.pointee.used = false
        op.pointee.nextFree = freeOp
        freeOp = Int32(index)
    }

    func unqueue(_ index: Int) {
        ops[index].queued = false
        for position in 0..<prepared.count where prepared[position] == Int32(index) {
            prepared.remove(at: position)
            return
        }
        for position in 0..<queue.count where queue[position] == Int32(index) {
            queue.remove(at: position)
            return
        }
    }

    /// Gives a request up, the mutex held: what no worker has taken never is.
    func giveUp(_ index: Int, _ reason: Int32, _ now: UInt64) {
        let op = ops + index
        guard op.pointee.used, !op.pointee.cancelled else { return }
        op.pointee.cancelled = true
        if op.pointee.taken < op.pointee.length || op.pointee.outstanding == 0,
            op.pointee.failure == 0
        {
            op.pointee.failure = reason
        }
        if op.pointee.queued { unqueue(index) }
        if op.pointee.outstanding == 0 { finish(index, now) }
    }

    /// Gives up the requests whose time is over, the mutex held.
    func expire(_ now: UInt64) {
        guard now >= earliestDeadline else { return }
        var next = UInt64.max
        for index in 0..<depth
        where ops[index].used && ops[index].deadline != 0 && !ops[index].cancelled {
            let deadline = ops[index].deadline
            if deadline <= now {
                let untouched = ops[index].taken == 0 && ops[index].outstanding == 0
                giveUp(index, untouched ? -ETIME : -ECANCELED, now)
            } else {
                next = min(next, deadline)
            }
        }
        earliestDeadline = next
    }
}

// MARK: - Workers

extension ThreadTables {
    /// A worker's life.
    func run() {
        pthread_mutex_lock(mutex)
        while true {
            if earliestDeadline != .max { expire(SystemClock.now()) }
            guard let piece = take() else {
                if stopping { break }
                idle += 1
                work.wait(mutex)
                idle -= 1
                continue
            }
            pthread_mutex_unlock(mutex)
            var resumed: UInt64 = 0
            let result = move(piece, &resumed)
            pthread_mutex_lock(mutex)
            counters.shortResumed += resumed
            let op = ops + Int(piece.op)
            if result < 0, op.pointee.failure == 0 {
                op.pointee.failure = result
                if op.pointee.queued { unqueue(Int(piece.op)) }
            }
            op.pointee.outstanding -= 1
            if op.pointee.outstanding == 0,
                op.pointee.failure != 0 || op.pointee.taken == op.pointee.length
            {
                finish(Int(piece.op), SystemClock.now())
            }
        }
        pthread_mutex_unlock(mutex)
    }

    /// The next piece of the oldest request, the mutex held.
    private func take() -> ThreadPiece? {
        guard queue.count > 0 else { return nil }
        let index = queue.first
        let op = ops + Int(index)
        let bytes = op.pointee.operation.movesBytes
        let left = op.pointee.length - op.pointee.taken
        let length = bytes ? min(left, UInt64(transferBytes)) : left
        let piece = ThreadPiece(
            op: index, operation: op.pointee.operation, isDirectory: op.pointee.isDirectory,
            descriptor: op.pointee.descriptor, address: op.pointee.address + UInt(op.pointee.taken),
            offset: op.pointee.fileOffset + op.pointee.taken, length: length,
            alignment: Int(op.pointee.offsetAlignment))
        if op.pointee.taken == 0, length < op.pointee.length { counters.splitRequests += 1 }
        if bytes { counters.unregisteredOps += 1 }
        op.pointee.taken += length
        op.pointee.outstanding += 1
        if op.pointee.taken == op.pointee.length {
            queue.removeFirst()
            op.pointee.queued = false
        }
        return piece
    }

    /// Does one piece, without the mutex: 0 or a negative errno.
    private func move(_ piece: ThreadPiece, _ resumed: inout UInt64) -> Int32 {
        switch piece.operation {
        case .read, .write: return transfer(piece, &resumed)
        case .sync:
            // A directory's new names are not data: they need the whole fsync.
            let result = piece.isDirectory ? fsync(piece.descriptor) : fdatasync(piece.descriptor)
            return result == 0 ? 0 : -errno
        case .allocate, .punchHole:
            let punch: Int32 = piece.operation == .punchHole ? 1 : 0
            for _ in 0..<64 {
                let result = hearth_fallocate(
                    piece.descriptor, punch, Int64(piece.offset), Int64(piece.length))
                if result == 0 { return 0 }
                if errno != EINTR { return -errno }
            }
            return -EINTR
        }
    }

    /// Moves one piece's bytes; short transfers go on at an aligned offset.
    private func transfer(_ piece: ThreadPiece, _ resumed: inout UInt64) -> Int32 {
        let length = Int(piece.length)
        var done = 0
        var stalls = 0
        var retries = 0
        while true {
            let memory = UnsafeMutableRawPointer(bitPattern: piece.address + UInt(done))
            let offset = off_t(piece.offset) + off_t(done)
            let count = min(length - done, shortTransferBytes)
            let moved =
                piece.operation == .read
                ? pread(piece.descriptor, memory, count, offset)
                : pwrite(piece.descriptor, memory, count, offset)
            if moved == length - done { return 0 }
            if moved < 0 {
                let number = errno
                retries += 1
                if (number == EINTR || number == EAGAIN) && retries <= 64 { continue }
                return -number
            }
            // Nothing at all is the end of the file.
            if moved == 0 && piece.operation == .read { return -EIO }
            resumed += 1
            let aligned = moved / piece.alignment * piece.alignment
            if aligned == 0 {
                stalls += 1
                if stalls >= 3 { return -EIO }
            } else {
                stalls = 0
                done += aligned
            }
        }
    }
}
