// JobRunner: runs one job description: lays out what is to be read, starts a thread a job, lets
// them begin together, watches them, and hands back a result each.

import Glibc
import Synchronization

/// What a run came to.
package struct RunReport: Sendable {
    package var options: JobOptions
    package var units: UInt64
    package var engineName: String
    package var results: [JobResult]
    package var disks: [DiskUse]
    /// Seconds from the start of the command, layout included.
    package var elapsed: UInt64

    package var failed: Bool { results.contains { $0.errors > 0 } }
}

/// Runs a closure on a thread of its own; join with `pthread_join`.
private func startThread(_ body: @escaping () -> Void) throws(BenchError) -> pthread_t {
    final class Box {
        let body: () -> Void
        init(_ body: @escaping () -> Void) { self.body = body }
    }
    var thread = pthread_t()
    let box = Unmanaged.passRetained(Box(body))
    let code = pthread_create(
        &thread, nil,
        { pointer in
            guard let pointer else { return nil }
            Unmanaged<Box>.fromOpaque(pointer).takeRetainedValue().body()
            return nil
        }, box.toOpaque())
    guard code == 0 else {
        box.release()
        throw BenchError("no thread for a job: \(errorText(code))", code: code)
    }
    return thread
}

/// Holds threads until all have come.
private final class Gate {
    private let barrier: UnsafeMutablePointer<pthread_barrier_t>
    init(_ count: Int) {
        barrier = .allocate(capacity: 1)
        pthread_barrier_init(barrier, nil, UInt32(count))
    }
    func pass() { pthread_barrier_wait(barrier) }
    deinit {
        pthread_barrier_destroy(barrier)
        barrier.deallocate()
    }
}

package struct JobRunner {
    private let options: JobOptions
    private let target: any BenchTarget
    private let progress: ProgressLine

    package init(options: JobOptions, target: any BenchTarget, progress: ProgressLine) {
        self.options = options
        self.target = target
        self.progress = progress
    }

    /// Closes the target, whatever happens.
    package func run() throws(BenchError) -> RunReport {
        let begin = monotonicNanoseconds()
        let units: UInt64
        do throws(BenchError) {
            let rate = ProgressRate(label: "laying out", unit: "B", line: progress)
            units = try target.prepare(options, layout: options.pattern.reads) { done, all in
                rate.update(done: done, of: all)
            }
            progress.clear()
        } catch {
            try? target.close()
            throw error
        }
        let disk = DiskWatch(path: options.directory)
        let threads = (0..<options.jobs).map { job in
            Worker(options: options, job: job, units: units, target: target)
        }
        let board = JobBoard()
        let ran: [JobThread]
        do throws(BenchError) {
            ran = try start(threads, board, units: units)
        } catch {
            try? target.close()
            throw error
        }
        let disks = disk.finish()
        var results = ran.map(\.result)
        share(&results, process: ResourceUse.now(thread: false) - ran[0].processBaseline)
        for index in results.indices { results[index].kv = target.report(job: index) }
        let name = target.engineName
        try target.close()
        let elapsed = (monotonicNanoseconds() - begin + 999_999_999) / 1_000_000_000
        return RunReport(
            options: options, units: units, engineName: name, results: results, disks: disks,
            elapsed: elapsed)
    }

    private struct Worker {
        var options: JobOptions
        var job: Int
        var units: UInt64
        var target: any BenchTarget
    }

    private func start(
        _ workers: [Worker], _ board: JobBoard, units: UInt64
    ) throws(BenchError) -> [JobThread] {
        let jobs = workers.map {
            JobThread(
                options: $0.options, job: $0.job, units: $0.units, target: $0.target, board: board)
        }
        let gate = Gate(jobs.count)
        board.running.store(jobs.count, ordering: .relaxed)
        var threads: [pthread_t] = []
        for job in jobs {
            do throws(BenchError) {
                threads.append(try startThread { job.run { gate.pass() } })
            } catch {
                // The threads that did start wait for the others: let them through, then stop.
                board.stop.store(true, ordering: .relaxed)
                for _ in threads.count..<jobs.count {
                    _ = try? startThread { gate.pass() }
                }
                throw error
            }
        }
        watch(board, units: units)
        for thread in threads { pthread_join(thread, nil) }
        progress.clear()
        return jobs
    }

    /// Shows progress until the last job has ended; nothing to do where nobody looks.
    private func watch(_ board: JobBoard, units: UInt64) {
        guard progress.isOn else { return }
        let begin = monotonicNanoseconds()
        let whole = Double(units * UInt64(options.jobs) * options.blockBytes)
        var last: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
        var lastTime = begin
        while board.running.load(ordering: .relaxed) > 0 {
            var pause = timespec(tv_sec: 0, tv_nsec: 250_000_000)
            nanosleep(&pause, nil)
            let now = monotonicNanoseconds()
            let read = board.bytesRead.load(ordering: .relaxed)
            let written = board.bytesWritten.load(ordering: .relaxed)
            let readCount = board.operationsRead.load(ordering: .relaxed)
            let writeCount = board.operationsWritten.load(ordering: .relaxed)
            let seconds = Double(now - begin) / 1e9
            let limit = Double(options.runtime + options.rampTime) / 1e9
            var done = limit > 0 ? seconds / limit : 0
            if !options.timeBased { done = max(done, Double(read + written) / max(1, whole)) }
            done = min(1, done)
            let step = max(0.001, Double(now - lastTime) / 1e9)
            func per(_ value: UInt64, _ before: UInt64) -> UInt64 {
                UInt64(Double(value - before) / step)
            }
            let left = done > 0.001 ? UInt64(seconds / done - seconds) : 0
            let rates =
                "r=\(figure(per(read, last.0), binary: true, unit: "B"))/s,"
                + "w=\(figure(per(written, last.1), binary: true, unit: "B"))/s"
            let counts =
                "r=\(figure(per(readCount, last.2), binary: false)),"
                + "w=\(figure(per(writeCount, last.3), binary: false)) IOPS"
            progress.show(
                "Jobs: \(board.running.load(ordering: .relaxed)) (f=\(options.jobs)): "
                    + formatted("[%.1f%%]", done * 100)
                    + "[\(rates)][\(counts)][eta \(clockText(left))]")
            last = (read, written, readCount, writeCount)
            lastTime = now
        }
    }

    /// Gives each job its share of what the engine's own threads used, so that usr and sys are the
    /// whole cost of the job, as they are for an engine without threads.
    private func share(_ results: inout [JobResult], process: ResourceUse) {
        var others = process
        for result in results { others = others - result.use }
        let count = Int64(results.count)
        for index in results.indices {
            results[index].use.user += max(0, others.user) / count
            results[index].use.system += max(0, others.system) / count
        }
    }
}
