// ReplayRun: the replay command from its configuration to its exit status. It counts the trace in a
// first pass (shares are of the unique blocks' bytes), opens the store, looks up a put log if there
// is one, plays the requests, and leaves the directory as it found it unless told to keep it.

import Glibc
import Synchronization

package enum ReplayRun {
    package typealias Opener = (ReplayStorePlan) throws(BenchError) -> any ReplayStore

    /// 0 done, 1 an error or a wrong byte, 130 interrupted.
    package static func run(_ configuration: ReplayConfiguration, open: Opener) -> Int32 {
        catchInterrupts()
        do throws(BenchError) {
            let report = try measure(configuration, open: open)
            var out = ""
            if configuration.formats.contains(.json) { out += report.json.description + "\n" }
            if configuration.formats.contains(.normal) { out += report.text }
            try Output.write(out, to: configuration.output)
            if report.interrupted { return 130 }
            return report.counters.wrong + (report.logCheck?.wrong ?? 0) == 0 ? 0 : 1
        } catch {
            writeAll(STDERR_FILENO, "hearth-bench: \(error)\n")
            return 1
        }
    }

    package static func measure(
        _ configuration: ReplayConfiguration, open: Opener
    ) throws(BenchError) -> ReplayReport {
        guard let path = configuration.trace else {
            var chat = ChatWorkload(configuration.chat)
            return try play(&chat, configuration, open)
        }
        var reader = try mapping { () throws(TraceError) in try TraceReader(path: path) }
        return try play(&reader, configuration, open)
    }

    private static func mapping<Value: ~Copyable>(
        _ body: () throws(TraceError) -> Value
    ) throws(BenchError) -> Value {
        do throws(TraceError) {
            return try body()
        } catch {
            throw BenchError(error.description)
        }
    }

    private static func play<Source: TraceSource & ~Copyable>(
        _ source: inout Source, _ configuration: ReplayConfiguration, _ open: Opener
    ) throws(BenchError) -> ReplayReport {
        let line = ProgressLine(configuration.progress)
        line.show("reading the trace ...")
        let summary = try mapping { () throws(TraceError) in
            try TraceSummary(
                &source, join: configuration.join, requests: configuration.requests)
        }
        line.clear()
        guard summary.accesses > 0 else {
            throw BenchError("\(source.description): no request has a block")
        }
        let whole = summary.unique * UInt64(configuration.blockBytes)
        let directory = try ReplayDirectory(configuration.directory, keep: configuration.keep)
        let plan = ReplayStorePlan(
            directory: directory.path, blockBytes: configuration.blockBytes,
            capacity: configuration.capacity.resolved(of: whole),
            dram: configuration.dram.resolved(of: whole), mode: configuration.mode,
            durability: configuration.durability)
        var report = ReplayReport(
            source: source.description, summary: summary, plan: plan, join: configuration.join)
        let failure: BenchError?
        do throws(BenchError) {
            let store = try open(plan)
            do throws(BenchError) {
                report.footprint = store.footprint
                if line.isOn { writeAll(STDERR_FILENO, report.head) }
                try replay(&source, configuration, store, line, &report)
            } catch {
                line.clear()
                try? store.close()
                throw error
            }
            report.statistics = store.statistics
            try store.close()
            failure = nil
        } catch {
            failure = error
        }
        line.clear()
        directory.finish()
        if let failure { throw failure }
        return report
    }

    private static func replay<Source: TraceSource & ~Copyable>(
        _ source: inout Source, _ configuration: ReplayConfiguration, _ store: any ReplayStore,
        _ line: ProgressLine, _ report: inout ReplayReport
    ) throws(BenchError) {
        if let path = configuration.verifyLog {
            let keys = try PutLog.read(path)
            let rate = ProgressRate(label: "put log", unit: "", line: line)
            report.logCheck = try ReplayDriver(store: store, blockBytes: configuration.blockBytes)
                .check(log: keys) { rate.update(done: $0, of: UInt64(keys.count)) }
        }
        var log: PutLog?
        if let path = configuration.putLog { log = try PutLog(path: path) }
        var driver = ReplayDriver(store: store, blockBytes: configuration.blockBytes, log: log)
        let rate = ProgressRate(label: "replay", unit: "B", line: line)
        let before = store.deviceBytesWritten
        let begin = monotonicNanoseconds()
        var request = TraceRequest()
        let limit = configuration.requests ?? UInt64.max
        while driver.counters.requests < limit {
            let more = try mapping { () throws(TraceError) in try source.next(&request) }
            guard more else { break }
            if replayInterrupted.load(ordering: .relaxed) {
                report.interrupted = true
                break
            }
            request.join(configuration.join)
            try driver.play(request)
            let counters = driver.counters
            rate.update(
                done: counters.blockAccesses, of: report.summary.accesses,
                bytes: counters.readBytes + counters.writtenBytes)
        }
        report.nanoseconds = monotonicNanoseconds() - begin
        report.counters = driver.counters
        report.deviceBytesWritten = store.deviceBytesWritten &- before
    }

    package static func catchInterrupts() {
        for number in [SIGINT, SIGTERM] {
            signal(number) { _ in replayInterrupted.store(true, ordering: .relaxed) }
        }
    }
}

/// The directory of a replay's store: the user's, or a new one that goes again.
package struct ReplayDirectory {
    package let path: String
    private let remove: Bool

    package init(_ given: String?, keep: Bool) throws(BenchError) {
        if let given {
            if mkdir(given, 0o700) != 0, errno != EEXIST {
                throw BenchError("--directory=\(given): \(errorText(errno))", code: errno)
            }
            (path, remove) = (given, false)
            return
        }
        var name = Array("hearth-replay-XXXXXX".utf8CString)
        guard mkdtemp(&name) != nil else {
            throw BenchError("a directory under the working one: \(errorText(errno))", code: errno)
        }
        path = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        remove = !keep
    }

    package func finish() {
        if remove { Self.removeTree(path) }
    }

    /// Removes a directory and what is in it; links are removed, not followed.
    package static func removeTree(_ path: String) {
        if let directory = opendir(path) {
            while let entry = readdir(directory) {
                let name = withUnsafePointer(to: &entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                if name == "." || name == ".." { continue }
                let child = path + "/" + name
                if unlink(child) != 0, errno == EISDIR || errno == EPERM { removeTree(child) }
            }
            closedir(directory)
        }
        rmdir(path)
    }
}
