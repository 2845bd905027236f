// ThreadDriver: BlockDriver over pread and pwrite on worker threads, for hosts where io_uring is
// forbidden or its memory is not granted. The same contract: see BlockDriver. Idle workers and a
// waiting owner sleep on conditions; nothing spins.

import CPlatform
import Glibc

package struct ThreadOptions: Sendable {
    /// Worker threads: as many transfers run at once.
    package var workers = 8
    /// The largest single transfer, bytes; a multiple of 4096.
    package var transferBytes = 1 << 20
    /// For tests: each system call moves at most this much, so that it comes back short.
    package var shortTransferBytes = Int.max
    package init() {}
}

package final class ThreadDriver: BlockDriver {
    package var kind: DriverKind { .threads }
    package let limits: DriverLimits
    package let regions: RegionTable
    private let files = HostFiles()
    private let tables: ThreadTables
    private var workers: [pthread_t] = []
    private let grant: String
    private var grants = ""
    private var waits: UInt64 = 0
    /// Requests prepared and not yet reaped.
    private var inFlight = 0
    private var running = true

    /// `reason`: why not something faster, for the grants; empty for none.
    package init(
        regions: RegionTable, depth: Int, options: ThreadOptions = ThreadOptions(),
        reason: String = ""
    ) throws(IOError) {
        precondition(depth > 0 && depth <= 16384, "a driver's depth is 1 to 16384")
        precondition(options.workers > 0 && options.workers <= 256, "1 to 256 workers")
        precondition(
            options.transferBytes >= 4096 && options.transferBytes <= 1 << 30
                && options.transferBytes % 4096 == 0, "transfers are whole pages up to 1 GiB")
        self.regions = regions
        limits = DriverLimits(depth: depth, transferBytes: options.transferBytes)
        tables = ThreadTables(
            depth: depth, transferBytes: options.transferBytes,
            shortTransferBytes: options.shortTransferBytes)
        grant =
            "threads: pread and pwrite on \(options.workers) workers"
            + (reason.isEmpty ? "" : " (\(reason))")
        grants = grant
        for _ in 0..<options.workers {
            let result = startWorker()
            if result != 0 {
                stopWorkers()
                throw IOError(operation: "pthread_create", path: "", errno: result)
            }
        }
    }

    deinit {
        shutdown()
    }

    package var statistics: DriverStatistics {
        var result = tables.locked { tables.counters }
        result.waits = waits
        result.grants = grants
        return result
    }

    // MARK: Workers

    private func startWorker() -> Int32 {
        var thread = pthread_t()
        let context = Unmanaged.passRetained(tables).toOpaque()
        // Signals are for the program's own threads.
        var all = sigset_t()
        var before = sigset_t()
        sigfillset(&all)
        pthread_sigmask(SIG_SETMASK, &all, &before)
        let result = pthread_create(
            &thread, nil,
            { context in
                guard let context else { return nil }
                Unmanaged<ThreadTables>.fromOpaque(context).takeRetainedValue().run()
                return nil
            }, context)
        pthread_sigmask(SIG_SETMASK, &before, nil)
        if result == 0 {
            workers.append(thread)
        } else {
            Unmanaged<ThreadTables>.fromOpaque(context).release()
        }
        return result
    }

    private func stopWorkers() {
        tables.locked {
            tables.stopping = true
            tables.work.broadcast()
        }
        for worker in workers { pthread_join(worker, nil) }
        workers = []
        running = false
    }

    // MARK: Requests

    package func prepare(_ request: IORequest) -> Bool {
        guard running, inFlight < limits.depth else { return false }
        inFlight += 1
        let problem = files.refusal(of: request, regions)
        if problem != 0 || (request.piece.length == 0 && request.operation.movesBytes) {
            tables.locked { tables.append(request.tag, Int64(-problem), 0) }
            return true
        }
        let file = files.entries[Int(request.file.raw)]
        var op = ThreadOp()
        op.tag = request.tag
        op.operation = request.operation
        op.fileOffset = request.fileOffset
        op.length = request.operation == .sync ? 0 : request.piece.length
        op.deadline = request.deadline
        op.descriptor = file.descriptor
        op.offsetAlignment = file.offsetAlignment
        op.isDirectory = file.isDirectory
        op.used = true
        op.queued = true
        if request.operation.movesBytes {
            op.address = UInt(bitPattern: regions.pointer(request.piece))
        }
        tables.locked {
            let index = tables.freeOp
            tables.freeOp = tables.ops[Int(index)].nextFree
            tables.ops[Int(index)] = op
            if op.deadline != 0 {
                tables.deadlines += 1
                tables.earliestDeadline = min(tables.earliestDeadline, op.deadline)
            }
            tables.prepared.append(index)
        }
        return true
    }

    package func submit() {
        let now = SystemClock.now()
        tables.locked { release(now) }
    }

    /// Gives the prepared requests to the workers, the mutex held.
    private func release(_ now: UInt64) {
        if tables.prepared.count == 0 { return }
        if tables.earliestDeadline != .max { tables.expire(now) }
        var pieces = 0
        while tables.prepared.count > 0 {
            let index = tables.prepared.first
            tables.prepared.removeFirst()
            let op = tables.ops + Int(index)
            op.pointee.started = now
            tables.queue.append(index)
            tables.counters.submitted += 1
            pieces += 1
            if op.pointee.operation.movesBytes {
                pieces += Int(clamping: (op.pointee.length - 1) / UInt64(limits.transferBytes))
            }
        }
        for _ in 0..<min(pieces, tables.idle) { tables.work.signal() }
    }

    package func reap(_ into: UnsafeMutableBufferPointer<IOCompletion>) -> Int {
        guard let base = into.baseAddress, into.count > 0 else { return 0 }
        let count: Int = tables.locked {
            if tables.earliestDeadline != .max { tables.expire(SystemClock.now()) }
            let count = min(into.count, tables.ready.count)
            for index in 0..<count {
                (base + index).initialize(to: tables.ready.first)
                tables.ready.removeFirst()
            }
            return count
        }
        inFlight -= count
        return count
    }

    package func cancel(tag: UInt64) {
        let now = SystemClock.now()
        tables.locked {
            for index in 0..<limits.depth
            where tables.ops[index].used && tables.ops[index].tag == tag {
                tables.giveUp(index, -ECANCELED, now)
            }
        }
    }

    package func wait(until deadline: UInt64) {
        guard running else { return }
        waits += 1
        tables.locked {
            release(SystemClock.now())
            while true {
                let now = SystemClock.now()
                tables.expire(now)
                if tables.ready.count > 0 { return }
                if tables.woken {
                    tables.woken = false
                    return
                }
                if now >= deadline { return }
                tables.awaitNews(until: min(deadline, tables.earliestDeadline))
            }
        }
    }

    package func wake() {
        tables.locked {
            tables.woken = true
            if tables.ownerSleeps { tables.news.signal() }
        }
    }

    package func shutdown() {
        guard running else { return }
        let now = SystemClock.now()
        tables.locked {
            for index in 0..<limits.depth where tables.ops[index].used {
                tables.giveUp(index, -ECANCELED, now)
            }
        }
        // Workers finish what they are moving before they are joined.
        stopWorkers()
        files.closeAll()
    }
}

// MARK: - Control calls

extension ThreadDriver {
    package func openDirectory(_ path: String, create: Bool) throws(IOError) -> FileID {
        try files.openDirectory(path, create: create)
    }

    package func lock(_ directory: FileID, holder: String) throws(IOError) {
        try files.lock(directory, holder: holder)
    }

    package func list(_ directory: FileID) throws(IOError) -> [String] {
        try files.list(directory)
    }

    package func open(
        _ directory: FileID, _ name: String, _ flags: OpenFlags
    ) throws(IOError) -> FileID {
        let file = try files.open(directory, name, flags)
        grants = grant + files.grants
        return file
    }

    package func information(_ file: FileID) throws(IOError) -> FileInformation {
        try files.information(file)
    }

    package func remove(_ directory: FileID, _ name: String) throws(IOError) {
        try files.remove(directory, name)
    }

    package func availableBytes(_ directory: FileID) throws(IOError) -> UInt64 {
        try files.availableBytes(directory)
    }

    package func setWriteHint(_ file: FileID, _ hint: Int32) { files.setWriteHint(file, hint) }

    package func close(_ file: FileID) { files.close(file) }

    /// Nothing to register: every transfer names plain memory.
    package func register(_ region: RegionID) {}
    package func unregister(_ region: RegionID) {}
}
