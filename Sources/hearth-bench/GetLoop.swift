// GetLoop: gets of a job's keys, `depth` of them in flight, for a while or once through all: the
// reading half of a row, on the engine that a job uses.

import BenchKit
import Glibc
import Hearth

final class GetLoop {
    private let engine: KvEngine
    private let memory: UnsafeMutableRawBufferPointer
    private let blockBytes: Int
    private let depth: Int
    private let units: UInt64
    private let completions: UnsafeMutableBufferPointer<BenchCompletion>
    private var random: SeededGenerator
    /// When the get of each slot was handed over; empty if gets are not timed.
    private var begun: [UInt64]
    /// Nanoseconds from handing a get over to its end.
    private(set) var waits = LatencyHistogram()

    init(
        _ kv: KvStore, _ options: JobOptions, units: UInt64, seed: UInt64 = 1, timed: Bool = false
    ) throws(BenchError) {
        begun = timed ? [UInt64](repeating: 0, count: options.depth) : []
        blockBytes = Int(options.blockBytes)
        depth = options.depth
        self.units = units
        random = SeededGenerator(seed: seed)
        memory = .allocate(
            byteCount: (blockBytes + 4095) / 4096 * 4096 * depth, alignment: 2 << 20)
        memory.initializeMemory(as: UInt8.self, repeating: 1)
        completions = .allocate(capacity: depth)
        completions.initialize(repeating: BenchCompletion(tag: 0))
        engine = try KvEngine(
            kv: kv, manner: KvManner(options), keyNamespace: options.namespace(job: 0),
            counters: KvCounters(), arena: memory)
    }

    deinit {
        engine.finish()
        memory.deallocate()
        completions.deallocate()
    }

    /// Random keys until the time is over.
    func run(seconds: Double) throws(BenchError) -> LoopResult {
        let end = monotonicNanoseconds() + UInt64(seconds * 1e9)
        return try run { [self] in
            monotonicNanoseconds() < end ? random.below(units) : nil
        }
    }

    /// Every key once, in order; `step` is called now and then.
    func runThrough(step: () -> Void) throws(BenchError) -> LoopResult {
        var next: UInt64 = 0
        return try run { [units] in
            guard next < units else { return nil }
            defer { next += 1 }
            if next % 256 == 0 { step() }
            return next
        }
    }

    private func run(next: () -> UInt64?) throws(BenchError) -> LoopResult {
        var result = LoopResult()
        let processor = LoopResult.processNanoseconds()
        let begin = monotonicNanoseconds()
        var inFlight = 0
        var started = false
        var failure: BenchError?
        func issue(_ slot: Int) -> Bool {
            guard failure == nil, let key = next() else { return false }
            let stride = memory.count / depth
            let start = slot * stride
            if !begun.isEmpty { begun[slot] = monotonicNanoseconds() }
            engine.submit(
                BenchOperation(
                    direction: .read, tag: slot, key: key, replace: false,
                    buffer: UnsafeMutableRawBufferPointer(
                        rebasing: memory[start..<start + blockBytes]),
                    arenaOffset: UInt64(start)))
            inFlight += 1
            return true
        }
        func turn(_ ended: UnsafeBufferPointer<BenchCompletion>) -> Bool {
            for completion in ended {
                inFlight -= 1
                if !begun.isEmpty {
                    waits.add(monotonicNanoseconds() - begun[completion.tag])
                }
                engine.release(tag: completion.tag)
                if completion.error != 0 {
                    failure = BenchError(
                        "a get failed: \(errorText(completion.error))", code: completion.error)
                } else if !completion.hit {
                    failure = BenchError("a get missed in a store that holds every key")
                }
                result.bytes += UInt64(blockBytes)
                _ = issue(completion.tag)
            }
            if !started {
                started = true
                for slot in 0..<depth where !issue(slot) { break }
            }
            engine.flush()
            return inFlight > 0
        }
        if !engine.drive(turn) {
            var count = 0
            while turn(UnsafeBufferPointer(rebasing: completions[..<count])) {
                count = engine.reap(completions, wait: true)
            }
        }
        if let failure { throw failure }
        result.nanoseconds = monotonicNanoseconds() - begin
        result.processor = LoopResult.processNanoseconds() - processor
        return result
    }
}

/// The store that a read job of this shape lays out, opened for a row.
struct RowStore {
    let kv: KvStore
    let options: JobOptions
    let units: UInt64

    /// Lays out what is absent, as the job would.
    init(
        directory: String, name: String = "rows", blockBytes: UInt64, depth: Int, size: UInt64,
        mode: ReadMode = .direct
    ) throws(BenchError) {
        var options = JobOptions()
        options.name = name
        options.directory = directory
        options.blockBytes = blockBytes
        options.depth = depth
        options.size = .bytes(size)
        options.readMode = mode
        options.pattern = .randread
        let target = KvTarget(options)
        units = try target.prepare(options, layout: true) { _, _ in }
        kv = try target.opened()
        self.options = options
    }
}
