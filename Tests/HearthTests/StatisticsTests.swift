// Statistics: counters that tell what was done, JSON that parses, percentiles that are right.

import Foundation
import Testing

@testable import Hearth

@Suite struct StatisticsTests {
    @Test func theyTellWhatWasDone() async throws {
        let directory = TemporaryDirectory()
        let store = try await Small.open(directory)
        let space = try await store.namespace(Small.description)
        for number in 0..<10 {
            _ = await store.putBytes(
                Payload.key(number), [UInt8](repeating: 1, count: 5000), in: space)
        }
        _ = await store.getBytes(Payload.key(0), in: space, mode: .direct)
        _ = await store.getBytes(Payload.key(1), in: space, mode: .cached)
        _ = await store.getBytes(Payload.key(1), in: space, mode: .cached)
        _ = await store.getBytes("none", in: space, mode: .direct)
        _ = await store.delete([Payload.key(2)], in: space)
        let made = try await store.statistics()
        #expect(made.puts.byStatus == ["stored": 10])
        #expect(made.puts.admittedBytes == 50_000)
        #expect(made.puts.latency.count == 10)
        #expect(made.gets.hitsStaging + made.gets.hitsDevice == 3)
        #expect(made.gets.hitsOnCaller >= 1)
        #expect(made.gets.bytes == 15_000)
        #expect(made.gets.misses == 1 && made.gets.missesByReason == ["neverPut": 1])
        #expect(made.deletes.byStatus == ["deleted": 1])
        #expect(made.space.blocks == 9 && made.space.liveValueBytes == 45_000)
        #expect(made.space.sum == made.space.capacity)
        #expect(made.writes.totalBytes >= 50_000 && made.writes.amplification > 1)
        #expect(made.memory.index > 0 && made.memory.staging >= 4 << 20)
        let split = store.configuration.memorySplit
        #expect(made.memory.index <= split.index)
        #expect(made.memory.staging <= split.staging)
        #expect(made.memory.shardTables <= split.shardTables)
        #expect(made.memory.groupBuffers <= split.groupBuffers)
        #expect(made.memory.footers <= split.footers)
        #expect(made.memory.other <= split.other)
        #expect(made.devices.count == 1 && made.devices[0].state == "healthy")
        let parsed = try JSONSerialization.jsonObject(with: Data(made.json().utf8))
        let object = try #require(parsed as? [String: Any])
        #expect(
            object.keys.sorted() == [
                "deletes", "devices", "driver", "durableVersion", "gets", "hints", "memory",
                "prefetch", "prefixes", "puts", "reads", "reclaim", "recording", "recovery",
                "scrub", "space", "tiers",
                "trouble", "writes",
            ])
        let gets = try #require(object["gets"] as? [String: Any])
        #expect((gets["missesByReason"] as? [String: Int]) == ["neverPut": 1])
        let latency = try #require(gets["latencyDevice"] as? [String: Any])
        #expect(latency["p99"] != nil && latency["max"] != nil)
        let driver = try #require(object["driver"] as? [String: Any])
        #expect(driver["grants"] as? String == made.driver.grants)
        await store.close()
        await #expect(throws: HearthError.self) { try await store.statistics() }
    }

    @Test func textIsEscaped() throws {
        var made = Statistics()
        made.driver.grants = "a \"b\" \\ \n\t\u{1} ä"
        let parsed = try JSONSerialization.jsonObject(with: Data(made.json().utf8))
        let driver = try #require((parsed as? [String: Any])?["driver"] as? [String: Any])
        #expect(driver["grants"] as? String == made.driver.grants)
    }

    @Test func percentilesAreWithinThreePercent() {
        var histogram = LatencyHistogram()
        for value in 1...100_000 { histogram.record(UInt64(value) * 100) }
        let summary = histogram.summary
        #expect(summary.count == 100_000 && summary.max == 10_000_000)
        #expect(summary.mean == 5_000_050)
        for (found, exact) in [
            (summary.p50, 5e6), (summary.p90, 9e6), (summary.p99, 9.9e6), (summary.p999, 9.99e6),
        ] {
            #expect(abs(Double(found) - exact) / exact < 0.032)
        }
        let empty: LatencySummary = LatencyHistogram().summary
        #expect(empty.count == 0 && empty.p99 == 0 && empty.mean == 0)
        histogram.record(UInt64.max)
        #expect(histogram.summary.max == UInt64.max)
    }

    @Test func bucketsFollowOneAnother() {
        var last = -1
        let values: [UInt64] = (0..<5000).map { UInt64($0) } + [1 << 20, 1 << 30, (1 << 39) + 5]
        for value in values {
            let bucket = LatencyHistogram.bucket(value)
            #expect(bucket >= last)
            #expect(LatencyHistogram.upperBound(bucket) >= value)
            last = bucket
        }
    }
}
