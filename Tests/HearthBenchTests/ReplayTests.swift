// Replay: counters against a model store, wrong bytes and holes, the put log, the command's exit
// statuses, and the conversation trace's known ratios.

import Glibc
import Testing

@testable import BenchKit

@Suite(.serialized) struct ReplayTests {
    private func play(
        _ store: ModelReplayStore, _ prompts: [[UInt64]], log: PutLog? = nil
    ) throws -> ReplayCounters {
        var driver = ReplayDriver(store: store, blockBytes: 100, log: log)
        for blocks in prompts { try driver.play(TraceRequest(blocks: blocks)) }
        return driver.counters
    }

    @Test func countsHitsAndMisses() throws {
        let store = ModelReplayStore(slabs: 3, blockBytes: 100)
        let counters = try play(store, [[1, 2, 3, 4], [1, 2, 3, 4, 5], [], [6], [1, 2]])
        #expect(counters.requests == 5 && counters.blockAccesses == 12)
        // After the first, 4's copy is pushed out by nothing: 1 is, then touch leaves 2, 3, 4.
        #expect(counters.hitsDRAM + counters.hitsSSD == 6)
        #expect(counters.prefixHits == 6 && counters.misses == 6 && counters.wrong == 0)
        #expect(counters.stored == 6 && counters.writtenBytes == 600)
        #expect(counters.readBytes == 600 && counters.prefixHitRatio == 0.5)
        #expect(counters.hitsDRAM >= 3)
    }

    @Test func wrongBytesAreCountedAndEndThePrefix() throws {
        let store = ModelReplayStore(slabs: 10, blockBytes: 100)
        store.damaged = [2]
        let counters = try play(store, [[1, 2, 3], [1, 2, 3]])
        #expect(counters.wrong == 1 && counters.prefixHits == 1)
        #expect(counters.present == 2 && counters.stored == 3)
    }

    @Test func aBlockThatVanishesEndsThePrefix() throws {
        let store = ModelReplayStore(slabs: 10, blockBytes: 100)
        store.vanishing = [2]
        store.refused = [9]
        let counters = try play(store, [[1, 2, 3], [1, 2, 3], [9]])
        #expect(counters.prefixHits == 1 && counters.hitsDRAM == 2 && counters.misses == 5)
        #expect(counters.refused == 1)
    }

    @Test func putLogHoldsWhatCompleted() throws {
        let scratch = ScratchDirectory()
        let path = scratch.path + "/log"
        let store = ModelReplayStore(slabs: 10, blockBytes: 100)
        store.refused = [3]
        _ = try play(store, [[1, 2, 3, 4]], log: PutLog(path: path))
        _ = try play(store, [[1, 2, 7]], log: PutLog(path: path))
        #expect(try PutLog.read(path) == [1, 2, 4, 7])
        // A torn last record was never promised.
        let descriptor = open(path, O_WRONLY | O_APPEND)
        #expect(write(descriptor, "abc", 3) == 3)
        close(descriptor)
        #expect(try PutLog.read(path) == [1, 2, 4, 7])
        let driver = ReplayDriver(store: store, blockBytes: 100)
        var check = try driver.check(log: [1, 2, 4, 7])
        #expect(check.hits == 4 && check.wrong == 0 && check.share == 1)
        store.vanishing = [2]
        store.damaged = [7]
        check = try driver.check(log: [1, 2, 4, 7])
        #expect(check.hits == 3 && check.wrong == 1 && check.share == 0.75)
        #expect(throws: BenchError.self) { try PutLog.read(scratch.path + "/absent") }
    }

    @Test func commandReportsAndCleansUp() throws {
        let scratch = ScratchDirectory()
        var configuration = ReplayConfiguration()
        configuration.chat.sessions = 50
        configuration.blockBytes = 256
        configuration.output = scratch.path + "/report"
        configuration.formats = [.json]
        configuration.progress = .never
        configuration.directory = scratch.path + "/store"
        var opened: ReplayStorePlan?
        var store: ModelReplayStore?
        let status = ReplayRun.run(configuration) { plan in
            opened = plan
            let made = ModelReplayStore(slabs: Int(plan.dram) / 256, blockBytes: 256)
            store = made
            return made
        }
        #expect(status == 0 && store?.closed == true)
        var chat = ChatWorkload(configuration.chat)
        let summary = try TraceSummary(&chat, join: 1, requests: nil)
        #expect(opened?.capacity == summary.unique * 256)
        #expect(opened?.dram == UInt64((Double(summary.unique) * 256 * 0.05).rounded()))
        let report = try parsedJSON(configuration.output)
        #expect(report.contains("replay.prefix_hit_ratio float"))
        #expect(report.contains("replay.hits_ssd int"))
        #expect(report.contains("statistics.resident int"))
        // A store that lies is told by the exit status.
        let wrong = ReplayRun.run(configuration) { _ in
            let made = ModelReplayStore(slabs: 5, blockBytes: 256)
            made.damaged = [0]
            return made
        }
        #expect(wrong == 1)
        let failing = ReplayRun.run(configuration) { _ throws(BenchError) in
            throw BenchError("held")
        }
        #expect(failing == 1)
        configuration.trace = scratch.path + "/absent"
        #expect(
            ReplayRun.run(configuration) { _ in ModelReplayStore(slabs: 1, blockBytes: 1) } == 1)
    }

    @Test func newDirectoryGoesUnlessKept() throws {
        let made = try ReplayDirectory(nil, keep: false)
        #expect(mkdir(made.path + "/sub", 0o700) == 0)
        let descriptor = open(made.path + "/sub/file", O_WRONLY | O_CREAT, 0o600)
        close(descriptor)
        made.finish()
        #expect(access(made.path, F_OK) != 0)
        let kept = try ReplayDirectory(nil, keep: true)
        kept.finish()
        #expect(access(kept.path, F_OK) == 0)
        ReplayDirectory.removeTree(kept.path)
    }

    @Test func progressText() {
        let text = ProgressRate.text(
            label: "replay", done: 250, of: 1000, bytes: 3 << 30, unit: "B", seconds: 2)
        #expect(text == "replay [=====               ]  25% 1536MiB/s, 00m:06s left")
    }

    @Test(.enabled(if: conversation != nil, "the shared traces are not beside the repository"))
    func conversationAtFivePercent() throws {
        var reader = try TraceReader(path: #require(conversation))
        let summary = try TraceSummary(&reader, join: 1, requests: nil)
        let store = ModelReplayStore(slabs: Int(summary.unique) * 5 / 100, blockBytes: 16)
        var driver = ReplayDriver(store: store, blockBytes: 16)
        var request = TraceRequest()
        while try reader.next(&request) { try driver.play(request) }
        let counters = driver.counters
        #expect(counters.wrong == 0 && counters.blockAccesses == 288_500)
        #expect(abs(counters.prefixHitRatio - 0.366) < 0.0005)
        // LRU at 5 %: .196 of all blocks, 53 % of the hits.
        let inDRAM = Double(counters.hitsDRAM) / Double(counters.blockAccesses)
        #expect(abs(inDRAM - 0.196) < 0.002)
        #expect(abs(counters.dramShare - 0.534) < 0.005)
    }
}
