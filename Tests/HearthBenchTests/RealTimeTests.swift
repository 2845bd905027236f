// RealTimeTests: replays in real time against a store of files, and the model of a device that is
// fitted to what fio measures.

import BenchKit
import Glibc
import Testing

@testable import hearth_bench

@Suite struct RealTimeTests {
    /// A directory that goes again.
    private final class Scratch {
        let path: String

        init() throws {
            var name = Array("/var/tmp/hearth-bench-real-XXXXXX".utf8CString)
            try #require(mkdtemp(&name) != nil)
            path = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }

        var isEmpty: Bool { rmdir(path) == 0 && mkdir(path, 0o700) == 0 }
        deinit { ReplayDirectory.removeTree(path) }
    }

    private func settings(_ words: [String: String]) throws -> ReplayConfiguration {
        var given: [String: String?] = [
            "sessions": "30", "turns": "3", "seed": "3", "eta": "never", "dram": "20%",
            "load": "0.5", "block-tokens": "512", "prefill-rate": "1000000", "claim": "all",
        ]
        for (name, text) in words { given[name] = text }
        return try ReplayConfiguration(given: given, keep: false)
    }

    private func report(_ words: [String: String]) throws -> TimedReport {
        let settings = try settings(words)
        let run = try TimedRun(settings, open: TimedReplayCommand.open)
        let bounds = try run.bounds()
        return TimedReport(
            source: "chat", trace: run.trace, join: 1, plan: run.plan, model: run.model,
            hints: run.hintText, runs: try run.runs(bounds, load: settings.timed.loads.first),
            bounds: bounds)
    }

    @Test func arrivalsAndPrefillsAreWaitedForAndEveryByteIsRight() throws {
        let scratch = try Scratch()
        let begin = monotonicNanoseconds()
        let real = try report(
            ["time": "real", "directory": scratch.path, "block-bytes": "16k"])
        let passed = Double(monotonicNanoseconds() - begin) / 1e9
        let virtual = try report(["time": "virtual", "model-bytes-per-token": "32"])
        #expect(scratch.isEmpty, "a store that was not asked for goes again")

        let (main, other) = (real.runs.main, real.runs.withoutPrefetch)
        #expect(main.wrong == 0 && other.wrong == 0)
        // Most of what could be is found: a put that is still under way is not there yet, and what
        // the device had no time for may be gone.
        let most = real.bounds.oracle.prefixHits
        #expect(most == virtual.bounds.oracle.prefixHits && most > 200)
        for run in [main, other, virtual.runs.main] {
            #expect(run.prefixHits <= most && 4 * run.prefixHits >= 3 * most)
            #expect(run.stored >= UInt64(real.trace.unique) / 2)
        }
        #expect(other.hitsSSD > 50, "the workload reads the device")
        #expect(main.prefetch.useful > 0)

        // Both runs took their time, and no request was ready before it could be.
        let spent = Double(main.nanoseconds + other.nanoseconds) / 1e9
        #expect(passed >= spent && spent > 2 * main.computeSeconds)
        for (time, compute) in zip(main.timesToFirstToken, main.compute) {
            #expect(time >= compute)
        }
        #expect(main.slip >= 0 && virtual.runs.main.slip == 0)
        #expect(virtual.runs.main.deviceBusy == nil)
        if let busy = main.deviceBusy { #expect(busy > 0 && busy <= 1) }
        #expect(main.stall > 0 && other.stall > 0)
    }

    @Test func realAndVirtualReportsHaveTheSameKeys() throws {
        let scratch = try Scratch()
        let few = ["sessions": "4", "turns": "2"]
        let real = try report(
            few.merging(["time": "real", "directory": scratch.path, "prefetch": "off"]) { $1 })
        let virtual = try report(few.merging(["time": "virtual", "prefetch": "off"]) { $1 })
        // Only a block device has counters.
        #expect(keys(real.json).filter { $0 != "device_busy" } == keys(virtual.json))
        #expect(real.json["model"]?["time"] == .text("real"))
        // In real time what is modelled is what is read.
        #expect(real.json["model"]?["model_block_bytes"]?.double == Double(64 << 10))
    }

    private func keys(_ value: JSONValue) -> [String] {
        guard case .object(let members) = value else { return [] }
        return members.flatMap { [$0.0] + keys($0.1) }
    }

    @Test func blockByBlockComesInOrder() throws {
        let scratch = try Scratch()
        let real = try report([
            "time": "real", "directory": scratch.path, "prefetch": "successor", "sessions": "8",
            "block-bytes": "4k",
        ])
        #expect(real.runs.main.wrong == 0 && real.runs.main.prefixHits > 20)
    }

    @Test(arguments: [
        ("device-model", "bw=1g"), ("device-model", "fitted"), ("policy", "lru"),
        ("prefetch", "oracle"), ("decode", "gen"),
    ])
    func realTimeHasWhatIsThere(_ name: String, _ text: String) {
        #expect(throws: UsageError.self) { _ = try settings(["time": "real", name: text]) }
    }

    @Test func bytesThatAreReadAreBytesThatAreModelled() throws {
        let given = ["time": "real", "model-bytes-per-token": "32"]
        let run = try TimedRun(settings(given), open: TimedReplayCommand.open)
        #expect(run.plan.blockBytes == 16 << 10 && run.plan.modelBlockBytes == 16384)
        let other = try settings(given.merging(["block-bytes": "4k"]) { $1 })
        #expect(throws: BenchError.self) { _ = try TimedRun(other, open: TimedReplayCommand.open) }
        let large = try settings(["time": "real", "model-bytes-per-token": "1m"])
        #expect(throws: BenchError.self) { _ = try TimedRun(large, open: TimedReplayCommand.open) }
    }

    // MARK: Fitting

    /// What a device of the model gives at a depth.
    private func rate(_ model: DeviceModel, _ bytes: Int, _ depth: Int) -> Double {
        let alone = Double(model.latency) / 1e9 + Double(bytes) / model.readBandwidth
        return min(
            model.readBandwidth, Double(min(depth, model.depth) * bytes) / alone)
    }

    @Test(arguments: [
        "bw=7g,lat=80us,qd=64", "bw=1.2g,lat=300us,qd=8", "bw=100m,lat=2ms,qd=4",
        "bw=1g,lat=0,qd=1",
    ])
    func aModelIsFoundAgain(_ text: String) throws {
        let model = try DeviceModel(text)
        for bytes in [4096, 64 << 10, 1 << 20] {
            let points = FioProbe.depths.map {
                DevicePoint(depth: $0, bytesPerSecond: rate(model, bytes, $0))
            }
            let fit = try #require(
                DeviceFit(blockBytes: bytes, points: points, writeBandwidth: 5e8))
            #expect(fit.model.writeBandwidth == 5e8)
            #expect(fit.model.depth >= 32, "as many at once as were seen to be taken")
            for point in points {
                let made = rate(fit.model, bytes, point.depth)
                #expect(abs(made / point.bytesPerSecond - 1) < 0.04)
            }
            if rate(model, bytes, 32) == model.readBandwidth {
                #expect(abs(fit.model.readBandwidth / model.readBandwidth - 1) < 0.01)
                #expect(abs(Double(fit.model.latency) - Double(model.latency)) < 2000)
            }
        }
    }

    /// One reading that is far off, wherever it is, moves the bus by its share, not to itself.
    @Test(arguments: 0..<6, [0.5, 2])
    func oneReadingDoesNotMakeTheModel(_ index: Int, _ factor: Double) throws {
        let model = try DeviceModel("bw=1g,lat=2ms,qd=16")
        var points = FioProbe.depths.map {
            DevicePoint(depth: $0, bytesPerSecond: rate(model, 1 << 20, $0))
        }
        points[index].bytesPerSecond *= factor
        let fit = try #require(
            DeviceFit(blockBytes: 1 << 20, points: points, writeBandwidth: 1e9))
        #expect(fit.model.readBandwidth > 0.75e9 && fit.model.readBandwidth < 1.35e9)
    }

    @Test func whatIsNoMeasurementIsNoModel() {
        let one = DevicePoint(depth: 1, bytesPerSecond: 1e9)
        #expect(DeviceFit(blockBytes: 4096, points: [], writeBandwidth: 1) == nil)
        #expect(DeviceFit(blockBytes: 4096, points: [one], writeBandwidth: 0) == nil)
        let later = DevicePoint(depth: 2, bytesPerSecond: 1e9)
        #expect(DeviceFit(blockBytes: 4096, points: [later], writeBandwidth: 1) == nil)
        let none = DevicePoint(depth: 1, bytesPerSecond: 0)
        #expect(DeviceFit(blockBytes: 4096, points: [none], writeBandwidth: 1) == nil)
        #expect(FioProbe.rounded(1) == 4096 && FioProbe.rounded(65_537) == 69_632)
        #expect(FioProbe.rounded(1e12) == 4 << 20)
    }

    @Test func fioMeasuresThisDisk() throws {
        let scratch = try Scratch()
        let fit = try FioProbe(
            directory: scratch.path, blockBytes: 64 << 10, rounds: 2, fileBytes: 32 << 20,
            depths: [1, 4]
        ).fit()
        #expect(fit.points.map(\.depth) == [1, 4])
        #expect(fit.model.readBandwidth >= 1e6 && fit.model.readBandwidth < 1e12)
        #expect(fit.model.latency < 1_000_000_000 && fit.model.depth >= 1)
        #expect(fit.text.contains("--device-model bw="))
        #expect(scratch.isEmpty, "its file goes again")
    }

    @Test func withoutFioItIsSaid() throws {
        let scratch = try Scratch()
        let error = #expect(throws: BenchError.self) {
            _ = try FioProbe(
                directory: scratch.path, blockBytes: 4096, program: "hearth-has-no-such-program"
            ).fit()
        }
        #expect(error?.description.contains("not installed") == true)
    }
}
