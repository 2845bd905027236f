// RecordedTraceTests: what a store records of its own use is a trace that is played.

import BenchKit
import Glibc
import Hearth
import Testing

@testable import hearth_bench

@Suite struct RecordedTraceTests {
    /// What a store recorded of its own use is a trace to play.
    @Test func aRecordedFileIsPlayed() async throws {
        var name = Array("/var/tmp/hearth-bench-rec-XXXXXX".utf8CString)
        try #require(mkdtemp(&name) != nil)
        let path = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        defer { ReplayDirectory.removeTree(path) }
        var shape = KvShape(directory: path + "/store", blockBytes: 4096, valueBytes: 16 << 20)
        shape.slabBytes = 4 << 20
        var configuration = shape.configuration()
        configuration.recordFile = path + "/trace.jsonl"
        configuration.memoryLimitBytes += 64 << 20
        let store = try await Store.open(configuration)
        let space = try await store.namespace(NamespaceDescription([("model", "m")]))
        func block(_ number: Int) -> Key { Key("block-\(number)") }
        // Ten requests, each of what was there and two blocks more.
        for request in 0..<10 {
            let known = (0..<2 * request).map(block)
            if !known.isEmpty {
                let leases = await store.lease(known, in: space)
                let hits = leases.results.filter(\.isHit).count
                #expect(hits == known.count)
            }
            let new = (2 * request..<2 * request + 2).map { number in
                var item = PutItem(key: block(number), bytes: [UInt8](repeating: 7, count: 4096))
                if number > 0 { item.parent = block(number - 1) }
                return item
            }
            for result in await store.put(new, in: space) { #expect(result.status == .stored) }
        }
        await store.close()
        var reader = try TraceReader(path: path + "/trace.jsonl")
        let table = try TraceTable(&reader, join: 1, requests: nil)
        #expect(table.requests == 10 && table.unique == 20)
        #expect(table.times == table.times.sorted())
        for request in 0..<10 {
            #expect(table.accesses(of: request).count == 2 * request + 2)
        }
        let settings = try ReplayConfiguration(
            given: [
                "trace": path + "/trace.jsonl", "time": "virtual", "block-tokens": "16",
                "eta": "never", "load": "0.5", "claim": "all", "dram": "100%",
            ], keep: false)
        let run = try TimedRun(settings, open: TimedReplayCommand.open)
        let result = try run.runs(run.bounds(), load: 0.5).main
        #expect(result.compute.count == 10 && result.wrong == 0)
        // All but the new blocks of each is found again.
        #expect(result.prefixHits == 90)
    }
}
