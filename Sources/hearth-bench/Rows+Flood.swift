// The row about hints that are worth nothing: how long gets wait while somebody floods the store
// with them, and what memory that takes. Gets alone and gets under the flood run in turns, on one
// store; then the flood goes on until so many hints were given.

import BenchKit
import Dispatch
import Glibc
import Hearth
import Prefetch
import Staging
import Synchronization

/// Gives hints of every wrong kind, as fast as they are taken, on a thread of its own.
final class HintFlood: Sendable {
    private let kv: KvStore
    private let keyNamespace: UInt64
    private let units: UInt64
    private let stopping = Atomic<Bool>(false)
    private let stopped = DispatchSemaphore(value: 0)
    private let given = Atomic<UInt64>(0)
    private let dropped = Atomic<UInt64>(0)

    /// Keys that go with a hint of a chain.
    private static let chain = 16

    /// `units` blocks are stored under the numbers from 0 on; what lies behind is not.
    init(_ kv: KvStore, keyNamespace: UInt64, units: UInt64) {
        self.kv = kv
        self.keyNamespace = keyNamespace
        self.units = units
    }

    var hints: UInt64 { given.load(ordering: .relaxed) }
    /// Of these, hints for which there was no room.
    var hintsDropped: UInt64 { dropped.load(ordering: .relaxed) }

    func start(until limit: UInt64 = .max) {
        stopping.store(false, ordering: .relaxed)
        DispatchQueue.global().async { [self] in
            var random = SeededGenerator(seed: hints + 1)
            let keys = KeyRoom(capacity: Self.chain)
            while !stopping.load(ordering: .relaxed), hints < limit { give(&random, keys) }
            stopped.signal()
        }
    }

    func stop() {
        stopping.store(true, ordering: .relaxed)
        wait()
    }

    /// Until so many were given as `start` said.
    func wait() { stopped.wait() }

    private func give(_ random: inout SeededGenerator, _ keys: KeyRoom) {
        let number = random.below(8)
        var hint = Hint(.chain)
        var count = Self.chain
        // Few requests, so that hints of one contradict each other, or ever new ones.
        hint.request = number < 4 ? 1 + random.below(64) : 1 + random.next() >> 1
        hint.due = Self.due(&random, kv.store.monotonicNanoseconds)
        var first = random.below(units)
        switch number {
        case 0, 4: break
        case 1, 5: first = units + random.next() >> 16  // nothing of it is stored
        case 2:
            hint.kind = .cancel
            count = 0
        case 3:
            hint.kind = .progress
            (hint.step, hint.layer) = (UInt32.max, UInt32(random.below(1 << 20)))
            count = 0
        case 6:
            hint.kind = .pages
            (hint.firstShard, hint.shardCount) = (UInt32.max, UInt32.max)
            (hint.layer, hint.confidence) = (UInt32(random.below(256)), UInt32(random.below(65536)))
        default:
            hint.kind = .session
            hint.session = 1 + random.next() >> 1
            hint.state = random.below(2) == 0 ? .closed : .toolPending
        }
        for place in 0..<count { keys.set(place, first &+ UInt64(place), keyNamespace) }
        withUnsafeTemporaryAllocation(
            of: UnsafeRawBufferPointer.self, capacity: Self.chain
        ) { room in
            for place in 0..<count { room.initializeElement(at: place, to: keys[place]) }
            let taken = kv.store.give(
                hint, in: kv.namespace, keys: UnsafeBufferPointer(rebasing: room[..<count]))
            if !taken { dropped.add(1, ordering: .relaxed) }
        }
        kv.store.ringForHints()
        given.add(1, ordering: .relaxed)
    }

    /// At once, long ago, in a second, in centuries.
    private static func due(_ random: inout SeededGenerator, _ now: UInt64) -> UInt64 {
        switch random.below(4) {
        case 0: 0
        case 1: 1
        case 2: now + 1_000_000_000
        default: .max
        }
    }
}

enum FloodRow {
    struct Plan {
        var read: ReadPlan
        var hints: UInt64
        var slabs: UInt64
    }

    static let options = ReadPlan.options + ["pairs", "hints", "staging"]

    static func plan(_ options: RowOptions) throws(UsageError) -> Plan {
        var read = try ReadPlan(options)
        read.depth = Int(try options.integer("iodepth", default: 4, in: 1...4096))
        read.size = try options.size("size", default: 1 << 30)
        read.seconds = Double(try options.integer("seconds", default: 2, in: 1...3600))
        read.pairs = Int(try options.integer("pairs", default: 8, in: 1...1000))
        return Plan(
            read: read,
            hints: try options.integer("hints", default: 10_000_000, in: 1...1_000_000_000),
            slabs: try options.size("staging", default: 128 << 20))
    }

    static func measure(_ plan: Plan) throws(BenchError) -> [(String, JSONValue)] {
        let read = plan.read
        var shape = KvShape(
            directory: read.directory + "/flood.hearth", blockBytes: Int(read.blockBytes),
            valueBytes: read.size + read.size / 4)
        shape.slabBytes = Int(plan.slabs)
        var configuration = shape.configuration()
        configuration.prefetch = .all
        configuration.memoryLimitBytes += 64 << 20
        let kv = try KvStore(configuration, namespace: "flood")
        defer { kv.close() }
        let options = read.directGets("flood")
        let units = read.size / read.blockBytes
        try BesideRow.layOut(kv, options, units)
        let flood = HintFlood(kv, keyNamespace: options.namespace(job: 0), units: units)
        // Tables and buffers are touched for the first time before anything is compared.
        flood.start()
        _ = try BesideRow.p99(kv, options, units, read.seconds)
        flood.stop()
        let before = residentBytes()
        var alone: [UInt64] = []
        var under: [UInt64] = []
        for pair in 0..<read.pairs {
            for floods in pair % 2 == 0 ? [false, true] : [true, false] {
                if floods { flood.start() }
                defer { if floods { flood.stop() } }
                let wait = try BesideRow.p99(kv, options, units, read.seconds)
                if floods { under.append(wait) } else { alone.append(wait) }
            }
        }
        if flood.hints < plan.hints {
            flood.start(until: plan.hints)
            flood.wait()
        }
        let after = residentBytes()
        return try members(kv, flood, alone, under, before, after)
    }

    private static func members(
        _ kv: KvStore, _ flood: HintFlood, _ alone: [UInt64], _ under: [UInt64], _ before: UInt64,
        _ after: UInt64
    ) throws(BenchError) -> [(String, JSONValue)] {
        func numbers(_ list: [UInt64]) -> JSONValue { .array(list.map { .unsigned($0) }) }
        let ratios = zip(under, alone).map { Double($0) / Double(max(1, $1)) }
        let told = try kv.statistics()
        return [
            ("p99_alone_ns", numbers(alone)), ("p99_flooded_ns", numbers(under)),
            ("p99_ratio", .number(Bootstrap.interval(ratios).median)),
            ("hints", .unsigned(flood.hints)), ("hints_dropped", .unsigned(flood.hintsDropped)),
            ("hints_counted", .unsigned(told.hints.byKind.values.reduce(0, +))),
            ("hints_dropped_counted", .unsigned(told.hints.dropped)),
            ("issued_bytes", .unsigned(told.prefetch.issuedBytes)),
            ("wasted_bytes", .unsigned(told.prefetch.wastedBytes)),
            ("overflowed", .unsigned(told.prefetch.overflowed)),
            ("resident_before_bytes", .unsigned(before)),
            ("resident_after_bytes", .unsigned(after)),
            ("limit_bytes", .integer(Int64(kv.configuration.memoryLimitBytes))),
        ]
    }

    /// What the process has in memory.
    private static func residentBytes() -> UInt64 {
        guard let text = try? TextFile.read("/proc/self/statm") else { return 0 }
        let words = text.split(separator: " ")
        return words.count > 1 ? (UInt64(words[1]) ?? 0) * UInt64(sysconf(Int32(_SC_PAGESIZE))) : 0
    }
}
