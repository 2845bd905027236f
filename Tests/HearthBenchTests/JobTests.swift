// Jobs: what a plan visits, whole runs against a target in memory and against real files, and the
// report's tree beside that of the installed fio.

import Glibc
import Testing

@testable import BenchKit

/// Runs a command and returns its standard output; nil when it failed.
func output(of command: String) -> String? {
    guard let pipe = popen(command, "r") else { return nil }
    var text: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
        let count = fread(&buffer, 1, buffer.count, pipe)
        if count == 0 { break }
        text += buffer[..<count]
    }
    return pclose(pipe) == 0 ? String(decoding: text, as: UTF8.self) : nil
}

/// The key tree of a JSON file, one `a.b type` a line, by Python's parser; what our extension adds
/// is left out.
func parsedJSON(_ path: String) throws -> Set<String> {
    let script = """
        import json, sys
        def walk(p, v):
            if isinstance(v, dict):
                for k, x in v.items():
                    if k not in ("kv", "job options"): walk(p + "." + k if p else k, x)
            elif isinstance(v, list):
                for x in v: walk(p + "[]", x)
            else: print(p, type(v).__name__)
        walk("", json.load(open(sys.argv[1])))
        """
    let text = try #require(output(of: "python3 -c '\(script)' \(path)"))
    return Set(text.split(separator: "\n").map(String.init))
}

let hasFio = output(of: "command -v fio") != nil
let hasPython = output(of: "command -v python3") != nil

/// A lock that the thread sanitizer sees: it knows pthread's, but not the slow path of
/// `Synchronization.Mutex`, which lies in the runtime library.
final class Guarded<Value>: @unchecked Sendable {
    // Unchecked: the value is only reached through `withLock`, under the lock.
    private var value: Value
    private let lock: UnsafeMutablePointer<pthread_mutex_t>

    init(_ value: sending Value) {
        self.value = value
        lock = .allocate(capacity: 1)
        pthread_mutex_init(lock, nil)
    }

    deinit {
        pthread_mutex_destroy(lock)
        lock.deallocate()
    }

    func withLock<Result>(_ body: (inout Value) throws -> Result) rethrows -> Result {
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        return try body(&value)
    }
}

/// A store in memory that can miss, damage and fail.
final class MemoryTarget: BenchTarget {
    struct State {
        var options = JobOptions()
        var values: [String: [UInt8]] = [:]
        var reads: [UInt64] = []
        var writes: [UInt64] = []
        var damaged: Set<UInt64> = []
        var failing: Set<UInt64> = []
        var resets = 0
        var closes = 0
        var absent: Set<UInt64> = []
    }
    let state = Guarded(State())
    let leases: Bool

    init(leases: Bool = false) { self.leases = leases }

    var engineName: String { "memory" }
    var insertsFreshKeys: Bool { state.withLock { $0.options.writeMode == .insert } }
    var isAsynchronous: Bool { true }

    func prepare(
        _ options: JobOptions, layout: Bool, progress: (UInt64, UInt64) -> Void
    ) throws(BenchError) -> UInt64 {
        guard case .bytes(let size) = options.size else { throw BenchError("no size") }
        let units = options.units(size: size)
        state.withLock { state in
            state.options = options
            guard layout else { return }
            for job in 0..<options.jobs {
                for key in 0..<units where state.values["\(job).\(key)"] == nil {
                    var value = [UInt8](repeating: 0, count: Int(options.blockBytes))
                    value.withUnsafeMutableBytes {
                        Payload.fill(
                            $0, namespace: options.namespace(job: job), key: key, revision: 0)
                    }
                    state.values["\(job).\(key)"] = value
                }
            }
        }
        return units
    }

    func firstFreshKey(job: Int) -> UInt64 { 0 }
    func makeEngine(
        job: Int, arena: UnsafeMutableRawBufferPointer
    ) throws(BenchError) -> any BenchEngine {
        MemoryEngine(target: self, job: job)
    }
    func resetStatistics() { state.withLock { $0.resets += 1 } }
    func report(job: Int) -> JSONValue? {
        .object([("per_job", .object([("gets", .unsigned(UInt64(job + 1)))]))])
    }
    func close() throws(BenchError) { state.withLock { $0.closes += 1 } }
}

final class MemoryEngine: BenchEngine {
    private let target: MemoryTarget
    private let job: Int
    private var queued: [BenchOperation] = []
    private var leased: [Int: UnsafeMutableRawBufferPointer] = [:]

    init(target: MemoryTarget, job: Int) {
        self.target = target
        self.job = job
    }

    func submit(_ operation: BenchOperation) { queued.append(operation) }
    func flush() {}
    func reap(_ into: UnsafeMutableBufferPointer<BenchCompletion>, wait: Bool) -> Int {
        // Backwards, and half of them: completions come in any order.
        let count = max(1, queued.count / 2)
        for index in 0..<count { into[index] = perform(queued.removeLast()) }
        return count
    }

    private func perform(_ operation: BenchOperation) -> BenchCompletion {
        let name = "\(job).\(operation.key)"
        let fails = target.state.withLock { $0.failing.contains(operation.key) }
        if fails { return BenchCompletion(tag: operation.tag, error: EIO) }
        if operation.direction == .write {
            let bytes = Array(operation.buffer)
            target.state.withLock { state in
                state.writes.append(operation.key)
                state.values[name] = bytes
            }
            return BenchCompletion(tag: operation.tag)
        }
        let found = target.state.withLock { state -> [UInt8]? in
            state.reads.append(operation.key)
            var value = state.absent.contains(operation.key) ? nil : state.values[name]
            if state.damaged.contains(operation.key) { value?[100] ^= 1 }
            return value
        }
        guard let found else { return BenchCompletion(tag: operation.tag, hit: false) }
        guard target.leases else {
            operation.buffer.copyBytes(from: found)
            return BenchCompletion(tag: operation.tag)
        }
        let view = UnsafeMutableRawBufferPointer.allocate(byteCount: found.count, alignment: 16)
        view.copyBytes(from: found)
        leased[operation.tag] = view
        return BenchCompletion(tag: operation.tag, leased: UnsafeRawBufferPointer(view))
    }

    func release(tag: Int) { leased.removeValue(forKey: tag)?.deallocate() }
    func sync() -> Int32 { 0 }
    func finish() { precondition(leased.isEmpty && queued.isEmpty) }
}

@Suite(.serialized) struct JobTests {
    private func run(
        _ words: [String], _ target: any BenchTarget = MemoryTarget()
    ) throws -> RunReport {
        let line = try FioCommandLine(["--name=t", "--eta=never"] + words)
        return try JobRunner(
            options: line.options, target: target, progress: ProgressLine(.never)
        ).run()
    }

    private func steps(
        _ pattern: AccessPattern, units: UInt64, endless: Bool = false, fresh: Bool = true,
        base: UInt64 = 0, count: Int = 10_000, done: Bool = true
    ) -> [JobPlan.Step] {
        var plan = JobPlan(
            pattern: pattern, readMix: 50, units: units, endless: endless, fresh: fresh,
            freshBase: base, seed: 1)
        var result: [JobPlan.Step] = []
        while result.count < count, let step = plan.next() {
            result.append(step)
            if done, step.direction == .write { plan.completed(step.key) }
        }
        return result
    }

    @Test func planOrders() {
        #expect(steps(.read, units: 5).map(\.key) == [0, 1, 2, 3, 4])
        let random = steps(.randread, units: 100)
        #expect(Set(random.map(\.key)).count == 100 && random.map(\.key) != Array(0..<100))
        let twice = steps(.randread, units: 50, endless: true, count: 100).map(\.key)
        #expect(Set(twice[..<50]).count == 50 && Set(twice[50...]).count == 50)
        #expect(Array(twice[..<50]) != Array(twice[50...]))
        #expect(steps(.write, units: 3, base: 10).map(\.key) == [10, 11, 12])
        let fresh = steps(.randwrite, units: 40, endless: true, base: 7, count: 120).map(\.key)
        #expect(Set(fresh) == Set(7..<127) && Set(fresh[..<40]) == Set(7..<47))
        let again = steps(.randwrite, units: 40, endless: true, fresh: false, count: 80).map(\.key)
        #expect(Set(again[..<40]) == Set(0..<40) && Set(again[40...]) == Set(0..<40))
        #expect(steps(.read, units: 0).isEmpty)
    }

    @Test func mixReadsWhatIsPresent() {
        var written: UInt64 = 0
        var reads = 0
        for step in steps(.randrw, units: 100, endless: true, base: 100, count: 5000) {
            if step.direction == .write {
                #expect(step.key == 100 + written)
                written += 1
            } else {
                reads += 1
                // Numbered in order of writing, with those laid out first, the latest 100.
                #expect(step.key >= written && step.key < 100 + written)
            }
        }
        #expect((2300...2700).contains(reads))
        // A write still under way is not read.
        let held = steps(.randrw, units: 10, endless: true, base: 10, count: 500, done: false)
        #expect(held.allSatisfy { $0.direction == .write || $0.key < 10 })
    }

    @Test func readsEachOnceAndChecks() throws {
        for words in [["--rw=read"], ["--rw=randread", "--iodepth=7"]] {
            let target = MemoryTarget(leases: words.count == 2)
            let report = try run(words + ["--size=1m", "--bs=4k", "--verify=1"], target)
            let result = report.results[0]
            #expect(result.read.operations == 256 && result.read.bytes == 1 << 20)
            #expect(result.verifyErrors == 0 && result.errors == 0 && result.read.misses == 0)
            #expect(result.read.histogram.total == 256 && result.write.operations == 0)
            #expect(result.steps.microseconds.reduce(0, +) <= 256 && result.depth.total == 256)
            target.state.withLock { state in
                #expect(state.reads.sorted() == Array(0..<256) && state.closes == 1)
            }
        }
    }

    @Test func wrongBytesAndErrorsAreReported() throws {
        let target = MemoryTarget()
        target.state.withLock { $0.damaged = [17] }
        var report = try run(["--rw=read", "--size=1m", "--bs=4k", "--verify=crc32c"], target)
        #expect(report.failed && report.results[0].verifyErrors == 1)
        #expect(report.results[0].firstError == EILSEQ)
        #expect(report.results[0].firstErrorText.contains("block 17"))
        let failing = MemoryTarget()
        failing.state.withLock { $0.failing = [3] }
        report = try run(["--rw=read", "--size=1m", "--bs=4k"], failing)
        #expect(report.results[0].firstError == EIO && report.results[0].read.operations < 256)
    }

    @Test func missesAreNotBandwidth() throws {
        let target = MemoryTarget()
        target.state.withLock { $0.absent = [1, 5, 9] }
        let report = try run(["--rw=randread", "--size=400k", "--bs=4k", "--verify=1"], target)
        let read = report.results[0].read
        #expect(read.operations == 97 && read.misses == 3 && read.bytes == 97 * 4096)
        #expect(read.histogram.total == 97 && !report.failed)
        #expect(FioReport.json(report).description.contains("\"cachehit\" : 97.000000"))
    }

    @Test func writesFreshKeysAndReadsBack() throws {
        let target = MemoryTarget()
        let report = try run(
            [
                "--rw=randwrite", "--size=1m", "--bs=4k", "--verify=1", "--iodepth=5",
                "--end_fsync=1",
            ],
            target)
        let result = report.results[0]
        #expect(result.write.operations == 256 && result.read.operations == 256)
        #expect(result.verifyErrors == 0 && result.syncs == 1 && result.read.misses == 0)
        target.state.withLock { #expect($0.writes.sorted() == Array(0..<256)) }
    }

    @Test func replacesAreCheckedByRevision() throws {
        let target = MemoryTarget()
        let report = try run(
            [
                "--rw=randrw", "--size=256k", "--bs=4k", "--verify=1", "--iodepth=4",
                "--kv_write=replace", "--time_based", "--runtime=200ms",
            ], target)
        let result = report.results[0]
        #expect(result.write.operations > 64 && result.verifyErrors == 0)
        target.state.withLock { #expect($0.writes.allSatisfy { $0 < 64 }) }
    }

    @Test func groupAndRamp() throws {
        // All jobs of a run can be starved of the processor, but not in each of several runs.
        var longest: UInt64 = 0
        for _ in 0..<5 where longest < 190_000_000 { longest = try max(longest, rampedGroup()) }
        #expect(longest >= 190_000_000)
    }

    /// The longest time that a job of it measured, nanoseconds.
    private func rampedGroup() throws -> UInt64 {
        let target = MemoryTarget()
        let report = try run(
            [
                "--rw=randread", "--size=256k", "--bs=4k", "--numjobs=3", "--group_reporting",
                "--time_based", "--runtime=200ms", "--ramp_time=50ms",
            ], target)
        target.state.withLock { #expect($0.resets == 2) }
        let group = FioReport.groups(report)
        #expect(group.count == 1 && group[0].jobs == 3)
        #expect(
            group[0].read.operations == report.results.reduce(0) { $0 + $1.read.operations })
        #expect(group[0].kv?["per_job"]?["gets"] == .unsigned(6))
        return report.results.map(\.runtime).max() ?? 0
    }

    @Test func rawEnginesOnFiles() throws {
        let scratch = ScratchDirectory()
        for engine in ["io_uring", "psync"] {
            let common = [
                "--directory=\(scratch.path)", "--size=2m", "--bs=16k", "--ioengine=\(engine)",
                "--iodepth=8", "--verify=1", "--numjobs=2",
            ]
            let write = try run(common + ["--rw=randwrite", "--end_fsync=1"], RawTarget())
            #expect(!write.failed, "\(write.results[0].firstErrorText)")
            #expect(write.results.allSatisfy { $0.write.operations == 128 })
            #expect(write.results.allSatisfy { $0.read.operations == 128 && $0.syncs == 1 })
            let read = try run(common + ["--rw=randread"], RawTarget())
            #expect(!read.failed && read.results.allSatisfy { $0.read.operations == 128 })
        }
        let shared = try run(
            [
                "--directory=\(scratch.path)", "--filename=shared", "--size=1m", "--bs=16k",
                "--ioengine=psync", "--rw=read", "--verify=1", "--numjobs=2",
            ], RawTarget())
        #expect(!shared.failed && shared.results.allSatisfy { $0.read.operations == 64 })
        // Laid out where absent; and damage is found.
        let one = [
            "--name=one", "--directory=\(scratch.path)", "--size=1m", "--bs=64k", "--rw=read",
            "--ioengine=psync", "--verify=1",
        ]
        let first = try JobRunner(
            options: FioCommandLine(one).options, target: RawTarget(),
            progress: ProgressLine(.never)
        ).run()
        #expect(!first.failed && first.results[0].read.operations == 16)
        let descriptor = open(scratch.path + "/one.0.0", O_WRONLY)
        #expect(pwrite(descriptor, "x", 1, 300_000) == 1)
        close(descriptor)
        let second = try JobRunner(
            options: FioCommandLine(one).options, target: RawTarget(),
            progress: ProgressLine(.never)
        ).run()
        #expect(second.results[0].firstErrorText.contains("block 4 "))
    }

    @Test func missingDirectoryIsAnError() {
        #expect(throws: BenchError.self) {
            try run(
                ["--directory=/absent/x", "--size=1m", "--ioengine=psync", "--rw=read"], RawTarget()
            )
        }
    }

    @Test(.enabled(if: hasFio && hasPython, "fio and python3 are needed to compare"))
    func treeIsFios() throws {
        let scratch = ScratchDirectory()
        let words = [
            "--directory=\(scratch.path)", "--rw=randrw", "--bs=16k", "--size=2m", "--iodepth=4",
            "--ioengine=psync", "--output-format=json", "--eta=never",
        ]
        _ = output(of: "fio --name=f \(words.joined(separator: " ")) --output=\(scratch.path)/fio")
        let status = FioCommand.run(
            ["--name=h", "--output=\(scratch.path)/ours"] + words.filter { $0 != "--eta=never" }
        ) { _ in RawTarget() }
        #expect(status == 0)
        let fio = try parsedJSON(scratch.path + "/fio")
        let ours = try parsedJSON(scratch.path + "/ours")
        #expect(fio.subtracting(ours).isEmpty, "absent: \(fio.subtracting(ours))")
        #expect(ours.subtracting(fio).isEmpty, "added: \(ours.subtracting(fio))")
    }

    @Test func normalOutputHasFiosLines() throws {
        let report = try run(["--rw=randrw", "--size=2m", "--bs=4k", "--iodepth=4"])
        let text = FioText.report(report)
        for line in [
            "t: (g=0): rw=randrw, bs=(R) 4096B-4096B", "Starting 1 thread", "  read: IOPS=",
            "  write: IOPS=", "    slat (", "    clat (", "     lat (", "    clat percentiles (",
            "     |  1.00th=[", "  lat (", "  cpu          : usr=", "  IO depths    : 1=",
            "     submit    : 0=", "     complete  : 0=", "     issued rwts: total=",
            "Run status group 0 (all jobs):", "   READ: bw=", "  WRITE: bw=",
        ] {
            #expect(text.contains("\n" + line) || text.hasPrefix(line), "\(line)")
        }
    }

    @Test func exitStatuses() {
        #expect(FioCommand.run(["--nmae=x"]) { _ in MemoryTarget() } == 2)
        #expect(FioCommand.run(["--name=x", "--rw=foo", "--size=1m"]) { _ in MemoryTarget() } == 2)
        let failing = MemoryTarget()
        failing.state.withLock { $0.failing = [0] }
        #expect(
            FioCommand.run(["--name=x", "--size=64k", "--output=/dev/null"]) { _ in failing } == 1)
    }

    @Test func jsonEscapes() {
        let value = JSONValue.object([
            ("a\"b", .text("x\\\n\u{1}é")), ("n", .number(.infinity)), ("e", .array([])),
        ])
        #expect(
            value.description
                == "{\n  \"a\\\"b\" : \"x\\\\\\n\\u0001é\",\n  \"n\" : 0.000000,\n  \"e\" : []\n}")
    }
}
