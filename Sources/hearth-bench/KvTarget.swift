// KvTarget: the store as fio's engine. The store lies in `<directory>/<name>.hearth`, a namespace
// for all jobs; a job's keys follow from (name, job, counter). `--size` is the live value bytes of
// each job: capacity is that of all jobs with metadata and reserve on top, in cache mode, so that
// a run that writes for longer evicts.

import BenchKit
import Glibc
import Hearth
import Synchronization

final class KvTarget: BenchTarget {
    private struct State {
        var options = JobOptions()
        var kv: KvStore?
        var counters: [KvCounters] = []
        var wasEmpty = false
        var engineName = "kv"
        var before: [[(String, UInt64)]] = []
        var statisticsBefore: Statistics?
        var ownerBefore: UInt64 = 0
    }
    private let state = Mutex(State())

    var engineName: String { state.withLock { $0.engineName } }
    var insertsFreshKeys: Bool { state.withLock { $0.options.writeMode == .insert } }
    var isAsynchronous: Bool { true }

    init(_ options: JobOptions) {
        state.withLock { $0.options = options }
    }

    static func directory(_ options: JobOptions) -> String {
        "\(options.directory)/\(options.name).hearth"
    }

    static func shape(_ options: JobOptions, size: UInt64) -> KvShape {
        let whole = size * UInt64(options.jobs)
        var shape = KvShape(
            directory: directory(options), blockBytes: Int(options.blockBytes), valueBytes: whole)
        shape.operations = options.depth * options.jobs
        let image = shape.storedBytes
        // A quarter of the slabs may be leased, and puts of class volatile live in slabs.
        let inFlight = 5 * (shape.operations + 1) * image
        shape.inclusive = options.readMode != .direct || options.dram != nil
        if let dram = options.dram {
            shape.slabBytes = Int(dram.resolved(of: whole))
        } else if shape.inclusive {
            shape.slabBytes = max(512 << 20, inFlight)
        } else {
            // Nothing stays: what is put and read goes straight to and from the jobs' buffers.
            shape.slabBytes = options.durability == .volatile ? max(64 << 20, inFlight) : 1
        }
        return shape
    }

    func prepare(
        _ options: JobOptions, layout: Bool, progress: (UInt64, UInt64) -> Void
    ) throws(BenchError) -> UInt64 {
        guard case .bytes(let size)? = options.size else {
            throw BenchError("--size is needed: the live value bytes of a job")
        }
        if mkdir(options.directory, 0o755) != 0, errno != EEXIST {
            throw BenchError("--directory=\(options.directory): \(errorText(errno))", code: errno)
        }
        let units = options.units(size: size)
        let kv = try KvStore(Self.shape(options, size: size))
        let statistics = try kv.statistics()
        state.withLock {
            $0.options = options
            $0.kv = kv
            $0.wasEmpty = statistics.space.blocks == 0
            $0.counters = (0..<options.jobs).map { _ in KvCounters() }
            $0.engineName = "kv (\(statistics.driver.kind))"
        }
        if layout { try layOut(kv, options, units, progress) }
        try snapshot(kv)
        return units
    }

    private func layOut(
        _ kv: KvStore, _ options: JobOptions, _ units: UInt64,
        _ progress: (UInt64, UInt64) -> Void
    ) throws(BenchError) {
        var missing: [(job: Int, key: UInt64)] = []
        var keys: [Key] = []
        for job in 0..<options.jobs {
            let namespace = options.namespace(job: job)
            var start: UInt64 = 0
            while start < units {
                let end = min(units, start + 4096)
                keys.removeAll(keepingCapacity: true)
                for number in start..<end { keys.append(KvKey.key(number, namespace)) }
                let found = kv.store.contains(keys, in: kv.namespace)
                for (place, present) in found.enumerated() where !present {
                    missing.append((job, start + UInt64(place)))
                }
                start = end
            }
        }
        guard !missing.isEmpty else { return }
        let writer = try KvWriter(kv, blockBytes: Int(options.blockBytes))
        defer { writer.finish() }
        let total = UInt64(missing.count) * options.blockBytes
        let namespaces = (0..<options.jobs).map { options.namespace(job: $0) }
        try writer.put(count: missing.count) { number, buffer in
            let (job, key) = missing[number]
            Payload.fill(buffer, namespace: namespaces[job], key: key, revision: 0)
            return (key, namespaces[job])
        } completed: { done in
            progress(UInt64(done) * options.blockBytes, total)
        }
    }

    func firstFreshKey(job: Int) -> UInt64 {
        // Of an empty store, the first; else above whatever any earlier run can have counted to.
        state.withLock { $0.wasEmpty } ? 0 : wallMilliseconds() << 20
    }

    func makeEngine(
        job: Int, arena: UnsafeMutableRawBufferPointer
    ) throws(BenchError) -> any BenchEngine {
        let kv = try opened()
        let (options, counters) = state.withLock { ($0.options, $0.counters) }
        return try KvEngine(
            kv: kv, manner: KvManner(options), keyNamespace: options.namespace(job: job),
            counters: counters[job], arena: arena)
    }

    /// The store that `prepare` opened.
    func opened() throws(BenchError) -> KvStore {
        guard let kv = state.withLock({ $0.kv }) else { throw BenchError("the store is not open") }
        return kv
    }

    /// Without a ramp, what `prepare` noted stands: other jobs may be under way by now.
    func resetStatistics() {
        let (held, ramp) = state.withLock { ($0.kv, $0.options.rampTime) }
        guard let kv = held, ramp > 0 else { return }
        try? snapshot(kv)
    }

    private func snapshot(_ kv: KvStore) throws(BenchError) {
        let statistics = try kv.statistics()
        let owner = kv.ownerProcessorNanoseconds()
        state.withLock {
            $0.before = $0.counters.map(\.all)
            $0.statisticsBefore = statistics
            $0.ownerBefore = owner
        }
    }

    func report(job: Int) -> JSONValue? {
        guard let kv = state.withLock({ $0.kv }), let now = try? kv.statistics() else { return nil }
        let owner = kv.ownerProcessorNanoseconds()
        return state.withLock { state in
            guard let before = state.statisticsBefore else { return nil }
            let counts = zip(state.counters[job].all, state.before[job]).map {
                ($0.0, JSONValue.unsigned($0.1 - $1.1))
            }
            let admitted = now.puts.admittedBytes - before.puts.admittedBytes
            let written = now.writes.totalBytes - before.writes.totalBytes
            let moved = now.gets.bytes - before.gets.bytes + admitted
            let seconds = Double(owner - min(owner, state.ownerBefore)) / 1e9
            let gib = Double(moved) / Double(1 << 30)
            return .object([
                ("kv_mode", .text(state.options.readMode.rawValue)),
                ("per_job", .object(counts)),
                (
                    "write_amplification",
                    .number(
                        admitted == 0 ? 0 : Double(written) / Double(admitted))
                ),
                (
                    "check_failures",
                    .unsigned(
                        now.trouble.checkFailures - before.trouble.checkFailures)
                ),
                ("owner_cpu_seconds", .number(seconds)),
                ("owner_cpu_seconds_per_gib", .number(gib > 0 ? seconds / gib : 0)),
                ("capacity_bytes", .unsigned(kv.configuration.capacityBytes)),
                ("memory_limit_bytes", .unsigned(UInt64(kv.configuration.memoryLimitBytes))),
                ("slabs", .unsigned(UInt64(kv.configuration.stagingBytes ?? 0))),
                ("statistics", JSONValue(parsing: now.json()) ?? .text(now.json())),
            ])
        }
    }

    func close() throws(BenchError) {
        let kv = state.withLock { state in
            let held = state.kv
            state.kv = nil
            return held
        }
        kv?.close()
    }
}
