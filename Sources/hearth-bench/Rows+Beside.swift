// The row about priorities: how long gets wait beside a writer, and what the writer keeps. Gets
// alone, the writer alone and both together run in turns, each pair on a store of its own.

import BenchKit
import Dispatch
import Glibc
import Hearth
import Synchronization

/// Puts fresh keys on a thread of its own until it is told to stop.
final class BackgroundWriter: Sendable {
    private let kv: KvStore
    private let blockBytes: Int
    private let room: UInt64
    private let keyNamespace = stableHash("beside")
    private let stopping = Atomic<Bool>(false)
    private let stopped = DispatchSemaphore(value: 0)
    private let state = Mutex<(next: UInt64, failure: BenchError?)>((0, nil))

    /// At most `room` value bytes are put in all.
    init(_ kv: KvStore, blockBytes: Int, room: UInt64) {
        self.kv = kv
        self.blockBytes = blockBytes
        self.room = room
    }

    /// Bytes put so far.
    var bytes: UInt64 { state.withLock { $0.next } * UInt64(blockBytes) }

    func start() {
        stopping.store(false, ordering: .relaxed)
        DispatchQueue.global().async { [self] in
            do throws(BenchError) {
                let writer = try KvWriter(kv, blockBytes: blockBytes)
                defer { writer.finish() }
                while !stopping.load(ordering: .relaxed) { try put(writer) }
            } catch {
                state.withLock { $0.failure = error }
            }
            stopped.signal()
        }
    }

    private static let batch = 2048

    private func put(_ writer: KvWriter) throws(BenchError) {
        let first = state.withLock { $0.next }
        guard (first + UInt64(Self.batch)) * UInt64(blockBytes) <= room else {
            throw BenchError("the writer has no room left: raise --room or lower --seconds")
        }
        try writer.put(count: Self.batch) { number, buffer in
            let key = first + UInt64(number)
            // What is measured is the device, not how fast payloads are made.
            buffer.storeBytes(of: key, as: UInt64.self)
            return (key, keyNamespace)
        } completed: { done in
            state.withLock { $0.next = first + UInt64(done) }
        }
    }

    func stop() throws(BenchError) {
        stopping.store(true, ordering: .relaxed)
        stopped.wait()
        if let failure = state.withLock({ $0.failure }) { throw failure }
    }
}

enum BesideRow {
    struct Plan {
        var read: ReadPlan
        var room: UInt64
    }

    static let options = ReadPlan.options + ["pairs", "room"]

    static func plan(_ options: RowOptions) throws(UsageError) -> Plan {
        var read = try ReadPlan(options)
        read.depth = Int(try options.integer("iodepth", default: 4, in: 1...4096))
        read.size = try options.size("size", default: 1 << 30)
        read.seconds = Double(try options.integer("seconds", default: 2, in: 1...3600))
        read.pairs = Int(try options.integer("pairs", default: 3, in: 1...1000))
        return Plan(read: read, room: try options.size("room", default: 12 << 30))
    }

    static func measure(_ plan: Plan) throws(BenchError) -> [(String, JSONValue)] {
        var alone: [UInt64] = []
        var beside: [UInt64] = []
        var solo: [Double] = []
        var kept: [Double] = []
        for _ in 0..<plan.read.pairs {
            let pair = try measurePair(plan)
            alone.append(pair.alone)
            beside.append(pair.beside)
            solo.append(pair.solo)
            kept.append(pair.kept)
        }
        func numbers(_ list: [UInt64]) -> JSONValue { .array(list.map { .unsigned($0) }) }
        func rates(_ list: [Double]) -> JSONValue { .array(list.map { .number($0) }) }
        let waits = zip(beside, alone).map { Double($0) / Double(max(1, $1)) }
        let shares = zip(kept, solo).map { $0 / $1 }
        let (ratio, share) = (Bootstrap.interval(waits), Bootstrap.interval(shares))
        return [
            ("p99_alone_ns", numbers(alone)), ("p99_beside_ns", numbers(beside)),
            ("writer_alone_bytes_per_second", rates(solo)),
            ("writer_beside_bytes_per_second", rates(kept)),
            ("p99_ratio", .number(ratio.median)),
            ("p99_ratio_interval", rates([ratio.low, ratio.high])),
            ("writer_share", .number(share.median)),
            ("writer_share_interval", rates([share.low, share.high])),
        ]
    }

    private struct Pair {
        /// The 99th percentile of a get's time, nanoseconds.
        var alone: UInt64 = 0
        var beside: UInt64 = 0
        /// Bytes a second that the writer puts.
        var solo: Double = 0
        var kept: Double = 0
    }

    /// Each pair on a store of its own: a writer of keys that are there already would write
    /// nothing, and one store would have to hold the fresh ones of all.
    private static func measurePair(_ plan: Plan) throws(BenchError) -> Pair {
        let read = plan.read
        let directory = try ReplayDirectory(within: read.directory, keep: false)
        defer { directory.finish() }
        let shape = KvShape(
            directory: directory.path + "/beside.hearth", blockBytes: Int(read.blockBytes),
            valueBytes: read.size + plan.room)
        let kv = try KvStore(shape, namespace: "beside")
        defer { kv.close() }
        let options = read.directGets("beside")
        let units = read.size / read.blockBytes
        try layOut(kv, options, units)
        let writer = BackgroundWriter(kv, blockBytes: Int(read.blockBytes), room: plan.room)
        var pair = Pair()
        pair.alone = try p99(kv, options, units, read.seconds)
        pair.solo = try written(writer) { () throws(BenchError) in
            _ = sleep(UInt32(read.seconds))
        }
        pair.kept = try written(writer) { () throws(BenchError) in
            pair.beside = try p99(kv, options, units, read.seconds)
        }
        return pair
    }

    static func layOut(
        _ kv: KvStore, _ options: JobOptions, _ units: UInt64
    ) throws(BenchError) {
        let space = options.namespace(job: 0)
        let writer = try KvWriter(kv, blockBytes: Int(options.blockBytes))
        defer { writer.finish() }
        try writer.put(count: Int(units)) { number, buffer in
            Payload.fill(buffer, namespace: space, key: UInt64(number), revision: 0)
            return (UInt64(number), space)
        } completed: { _ in
        }
        try kv.flush()
    }

    /// The 99th percentile of a get's time, nanoseconds.
    static func p99(
        _ kv: KvStore, _ options: JobOptions, _ units: UInt64, _ seconds: Double
    ) throws(BenchError) -> UInt64 {
        let loop = try GetLoop(kv, options, units: units, timed: true)
        _ = try loop.run(seconds: seconds)
        return loop.waits.percentiles([99]).first ?? 0
    }

    /// Bytes a second that the writer puts while `body` runs.
    private static func written(
        _ writer: BackgroundWriter, _ body: () throws(BenchError) -> Void
    ) throws(BenchError) -> Double {
        writer.start()
        usleep(200_000)
        let before = writer.bytes
        let begin = monotonicNanoseconds()
        do throws(BenchError) {
            try body()
        } catch {
            try? writer.stop()
            throw error
        }
        let bytes = writer.bytes - before
        let seconds = Double(monotonicNanoseconds() - begin) / 1e9
        try writer.stop()
        return Double(bytes) / seconds
    }
}
