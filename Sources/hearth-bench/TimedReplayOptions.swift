// TimedReplayOptions: the options of a replay in time, and what carries one out.

import ArgumentParser
import BenchKit
import Glibc

struct TimedReplayOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Plays in time, before one server that prefills: virtual, or real on files.",
            valueName: "whose"))
    var time: String?
    @Option(
        help: ArgumentHelp(
            "Brought early: off, chain, successor, session, layer, all, or oracle (chain).",
            valueName: "what"))
    var prefetch: String?
    @Option(help: ArgumentHelp("Requests come so many times as fast.", valueName: "x"))
    var speed: String?
    @Option(
        name: .customLong("prefill-rate"),
        help: ArgumentHelp("The server computes (20000).", valueName: "tokens/s"))
    var prefillRate: String?
    @Option(
        name: .customLong("model-bytes-per-token"),
        help: ArgumentHelp("KV bytes of a token in the time model (128k).", valueName: "size"))
    var modelBytesPerToken: String?
    @Option(
        help: ArgumentHelp(
            "Prefill over trace time, were every hit free; arrivals are scaled to it.",
            valueName: "share,..."))
    var load: String?
    @Option(
        name: .customLong("device-model"),
        help: ArgumentHelp(
            "bw=7g,lat=80us,qd=64 and wbw= for writes, decimal; or fitted, to fio here.",
            valueName: "parts"))
    var deviceModel: String?
    @Option(
        name: .customLong("block-tokens"),
        help: ArgumentHelp("Tokens of a block (told by the trace).", valueName: "n"))
    var blockTokens: String?
    @Option(help: ArgumentHelp("Layers of the model (32).", valueName: "n"))
    var layers: String?
    @Option(
        help: ArgumentHelp(
            "Decodes instead: gen:steps=150,overlap=0.75/0.6, or a file of picks.",
            valueName: "picks"))
    var decode: String?

    @Option(
        help: ArgumentHelp(
            "Taken of what is there: all, profitable, or residents (profitable).",
            valueName: "what"))
    var claim: String?

    @Option(
        help: ArgumentHelp(
            "A page with plots, by load, by size and of lead times, goes there.",
            valueName: "file"))
    var report: String?

    /// By option name, as `TimedOptions` takes them.
    var given: [String: String?] {
        [
            "time": time, "prefetch": prefetch, "speed": speed, "prefill-rate": prefillRate,
            "model-bytes-per-token": modelBytesPerToken, "load": load,
            "device-model": deviceModel, "block-tokens": blockTokens, "layers": layers,
            "claim": claim, "decode": decode, "report": report,
        ]
    }
}

enum TimedReplayCommand {
    /// The store behind a run: on files where the plan names a place for them.
    static func open(_ plan: TimedStorePlan) throws(BenchError) -> any TimedStore {
        if let directory = plan.directory { return try RealStore(plan, in: directory) }
        return try VirtualStore(plan)
    }

    /// With the device's model fitted to the disk of the directory, where that was asked for.
    private static func fitted(
        _ settings: ReplayConfiguration
    ) throws(BenchError) -> ReplayConfiguration {
        guard settings.timed.deviceFitted else { return settings }
        var tokens = settings.timed.blockTokens ?? 0
        if tokens == 0 { tokens = try PolicyRun.load(settings).blockTokens }
        let bytes = Double(settings.timed.modelBytesPerToken) * Double(max(1, tokens))
        let fit = try FioProbe(
            directory: settings.directory ?? ".", blockBytes: FioProbe.rounded(bytes)
        ).fit()
        writeAll(STDERR_FILENO, fit.text)
        var made = settings
        made.timed.device = fit.model
        return made
    }

    /// 0 done, 1 an error or a wrong byte, 2 a wrong command line, 130 interrupted.
    static func run(_ settings: ReplayConfiguration) -> Int32 {
        if settings.policies.contains(.belady) || settings.policies.count > 1 {
            writeAll(
                STDERR_FILENO, "hearth-bench replay: in time, --policy is one of the store's own\n")
            return 2
        }
        ReplayRun.catchInterrupts()
        do throws(BenchError) {
            let settings = try fitted(settings)
            if settings.timed.decode != nil { return try DecodeReplay.perform(settings) }
            let run = try TimedRun(settings, open: open)
            let bounds = try run.bounds()
            let loads: [Double?] =
                settings.timed.loads.isEmpty ? [nil] : settings.timed.loads
            var reports: [TimedReport] = []
            for load in loads {
                reports.append(
                    TimedReport(
                        source: settings.trace ?? "generated chat", trace: run.trace,
                        join: settings.join, plan: run.plan, model: run.model,
                        hints: run.hintText, runs: try run.runs(bounds, load: load),
                        bounds: bounds))
            }
            var out = ""
            if settings.formats.contains(.json) {
                out += TimedReport.json(reports).description + "\n"
            }
            if settings.formats.contains(.normal) { out += reports.map(\.text).joined() }
            try Output.write(out, to: settings.output)
            if let path = settings.timed.report {
                let line = ProgressLine(settings.progress)
                let page = TimedPage(reports, settings) { line.show("simulating \($0)") }
                line.clear()
                try Output.write(page.html, to: path)
            }
            return reports.allSatisfy { $0.runs.main.wrong == 0 } ? 0 : 1
        } catch {
            if replayInterrupted.load(ordering: .relaxed) { return 130 }
            writeAll(STDERR_FILENO, "hearth-bench: \(error)\n")
            return 1
        }
    }
}
