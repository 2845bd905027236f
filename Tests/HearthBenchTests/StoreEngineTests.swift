// The store under the benchmark, on real files in a directory that goes again: replays against the
// model of exact LRU, jobs in each mode, a kept store found again.

import Glibc
import Testing

@testable import BenchKit
@testable import hearth_bench

/// A directory of its own for one test.
private final class Scratch {
    let path: String

    init() throws {
        var name = Array("/tmp/hearth-bench-test-XXXXXX".utf8CString)
        try #require(mkdtemp(&name) != nil)
        path = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { ReplayDirectory.removeTree(path) }
}

@Suite("The store under replays")
struct StoreReplayTests {
    private static let blockBytes = 16 << 10

    private static func plan(_ path: String, slabs: Int, _ mode: ReadMode) -> ReplayStorePlan {
        ReplayStorePlan(
            directory: path, blockBytes: blockBytes, capacity: 64 << 20,
            dram: UInt64(slabs * blockBytes), mode: mode, durability: .written)
    }

    private static func requests() throws -> [TraceRequest] {
        var options = ChatWorkload.Options()
        options.sessions = 60
        options.turns = 3
        options.seed = 11
        var source = ChatWorkload(options)
        var made: [TraceRequest] = []
        var request = TraceRequest()
        while try source.next(&request) { made.append(request) }
        return made
    }

    @Test(
        "Every hit is right, and DRAM serves exactly what LRU would",
        arguments: [
            ReadMode.lease, .cached,
        ])
    func matchesModel(mode: ReadMode) throws {
        let scratch = try Scratch()
        let slabs = 200
        let store = try HearthReplayStore(Self.plan(scratch.path, slabs: slabs, mode))
        var driver = ReplayDriver(store: store, blockBytes: Self.blockBytes)
        let model = ModelReplayStore(slabs: slabs, blockBytes: Self.blockBytes)
        var expected = ReplayDriver(store: model, blockBytes: Self.blockBytes)
        let requests = try Self.requests()
        for request in requests {
            try driver.play(request)
            try expected.play(request)
        }
        try store.close()
        let (made, wanted) = (driver.counters, expected.counters)
        #expect(made.wrong == 0)
        #expect(made.hitsDRAM > 100 && made.hitsSSD > 100, "the workload has to use both tiers")
        #expect(made.prefixHits == wanted.prefixHits)
        #expect(made.stored == wanted.stored)
        let hits = Double(wanted.hitsDRAM + wanted.hitsSSD)
        #expect(abs(Double(made.hitsDRAM) - Double(wanted.hitsDRAM)) <= 0.01 * hits)
    }

    @Test("A store that was closed has everything again, read directly too")
    func reopens() throws {
        let scratch = try Scratch()
        let requests = try Self.requests().prefix(40)
        var first = try HearthReplayStore(Self.plan(scratch.path, slabs: 100, .lease))
        var driver = ReplayDriver(store: first, blockBytes: Self.blockBytes)
        for request in requests { try driver.play(request) }
        #expect(driver.counters.stored > 0 && driver.counters.refused == 0)
        try first.close()
        first = try HearthReplayStore(Self.plan(scratch.path, slabs: 0, .direct))
        var again = ReplayDriver(store: first, blockBytes: Self.blockBytes)
        for request in requests { try again.play(request) }
        #expect(again.counters.wrong == 0)
        #expect(again.counters.prefixHits == again.counters.blockAccesses)
        #expect(again.counters.hitsDRAM == 0 && again.counters.stored == 0)
        try first.close()
    }

    @Test("Write amplification and footprint are told")
    func tells() throws {
        let scratch = try Scratch()
        let store = try HearthReplayStore(Self.plan(scratch.path, slabs: 64, .lease))
        let before = store.deviceBytesWritten
        var filled = 0
        try store.put(
            Array(0..<100)[...], parent: nil,
            fill: { _, bytes in
                filled += 1
                bytes.initializeMemory(as: UInt8.self, repeating: 3)
            }, completed: { _, stored in #expect(stored) })
        #expect(filled == 100)
        #expect(store.deviceBytesWritten - before >= UInt64(100 * Self.blockBytes))
        #expect(store.footprint.count >= 2)
        #expect(
            store.statistics["puts"]?["admittedBytes"] == .unsigned(UInt64(100 * Self.blockBytes)))
        try store.close()
    }
}

@Suite("The store under jobs")
struct StoreJobTests {
    private static func run(
        _ path: String, _ pattern: AccessPattern, _ change: (inout JobOptions) -> Void = { _ in }
    ) throws -> RunReport {
        var options = JobOptions()
        options.name = "t"
        options.directory = path
        options.pattern = pattern
        options.blockBytes = 16 << 10
        options.depth = 8
        options.size = .bytes(8 << 20)
        options.verify = true
        change(&options)
        return try JobRunner(
            options: options, target: KvTarget(options), progress: ProgressLine(.never)
        ).run()
    }

    @Test("A mix reads what it wrote, in each mode", arguments: ReadMode.allCases)
    func mixes(mode: ReadMode) throws {
        let scratch = try Scratch()
        let report = try Self.run(scratch.path, .randrw) {
            $0.readMode = mode
            $0.jobs = 2
        }
        #expect(!report.failed)
        for result in report.results {
            #expect(result.read.misses == 0 && result.verifyErrors == 0)
            #expect(result.read.operations > 100 && result.write.operations > 100)
            let perJob = try #require(result.kv?["per_job"])
            #expect(perJob["puts_stored"] == .unsigned(result.write.operations))
        }
    }

    @Test("What a write job stored is there for the next run of its name")
    func readsBack() throws {
        let scratch = try Scratch()
        let written = try Self.run(scratch.path, .randwrite)
        #expect(!written.failed && written.results[0].write.operations == 512)
        let read = try Self.run(scratch.path, .randread)
        #expect(!read.failed && read.results[0].read.operations == 512)
        // Nothing had to be laid out: no put since the store was opened.
        #expect(read.results[0].kv?["statistics"]?["puts"]?["admittedBytes"] == .unsigned(0))
    }

    @Test("Replacing goes to the same keys, and reads return what is current")
    func replaces() throws {
        let scratch = try Scratch()
        let report = try Self.run(scratch.path, .randrw) {
            $0.writeMode = .replace
            $0.runtime = 500_000_000
            $0.timeBased = true
        }
        #expect(!report.failed && report.results[0].read.misses == 0)
        #expect(report.results[0].write.operations > 0)
    }

    @Test("On the store's thread or on its own, a job reads the same")
    func completes() throws {
        let scratch = try Scratch()
        for choice in CompletionChoice.allCases {
            let report = try Self.run(scratch.path, .randread) {
                $0.verify = false
                $0.completion = choice
                #expect($0.completesInline == (choice == .inline))
            }
            let result = report.results[0]
            #expect(!report.failed && result.read.misses == 0)
            #expect(result.read.operations == 512)
        }
        var options = JobOptions()
        options.pattern = .randread
        options.blockBytes = 16 << 10
        #expect(!options.completesInline)
        options.blockBytes = 64 << 10
        #expect(options.completesInline)
        for change in [
            { $0.jobs = 2 }, { $0.verify = true }, { $0.readMode = .lease },
            { $0.pattern = .randrw }, { $0.engine = .ioUring },
        ] as [(inout JobOptions) -> Void] {
            var changed = options
            changed.completion = .inline
            change(&changed)
            #expect(!changed.completesInline)
        }
    }

    @Test("A directory of something else is an error that says so")
    func refuses() throws {
        let scratch = try Scratch()
        #expect(mkdir(scratch.path + "/t.hearth", 0o700) == 0)
        let file = fopen(scratch.path + "/t.hearth/letter.txt", "w")
        #expect(file != nil)
        if let file { fclose(file) }
        let error = #expect(throws: BenchError.self) { try Self.run(scratch.path, .write) }
        #expect(error?.description.contains("t.hearth") == true)
    }
}

@Suite("Rows")
struct RowTests {
    @Test("Options are told apart, and the nearest is named")
    func options() throws {
        let words = ["--size=2g", "--keys=7"][...]
        let options = try RowOptions(words, known: ["size", "keys"])
        #expect(try options.size("size", default: 1) == 2 << 30)
        #expect(try options.integer("keys", default: 1, in: 1...10) == 7)
        #expect(throws: UsageError.self) { try options.integer("keys", default: 1, in: 1...6) }
        #expect(throws: UsageError.self) { try options.text("directory") }
        let error = #expect(throws: UsageError.self) {
            try RowOptions(["--sise=1"], known: ["size", "keys"])
        }
        #expect(error?.description.contains("--size") == true)
        #expect(RowCommand.perform(["alocations"]) == 2)
    }

    @Test("The index's memory is counted with every entry in it")
    func index() throws {
        let row = JSONValue.object(try IndexRow.measure(100_000))
        #expect(row["entries"] == .unsigned(100_000))
        guard case .number(let bytes)? = row["bytes_per_entry"] else {
            Issue.record("no bytes")
            return
        }
        #expect(bytes > 32 && bytes < 60)
    }

    @Test("Keys differ by counter and by namespace, and come back the same")
    func keys() {
        var seen: Set<[UInt8]> = []
        for namespace in 0..<4 as Range<UInt64> {
            for counter in 0..<1000 as Range<UInt64> {
                seen.insert(KvKey.key(counter, namespace).bytes)
            }
        }
        #expect(seen.count == 4000)
        #expect(seen.allSatisfy { $0.count == KvKey.bytes })
        #expect(KvKey.key(5, 9).bytes == KvKey.key(5, 9).bytes)
    }
}
