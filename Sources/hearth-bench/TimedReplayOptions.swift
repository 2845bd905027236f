// TimedReplayOptions: the options of a replay in time, and what carries one out.

import ArgumentParser
import BenchKit
import Glibc

struct TimedReplayOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Plays in time, before one server that prefills: virtual.", valueName: "whose"))
    var time: String?
    @Option(
        help: ArgumentHelp(
            "Brought early: off, chain, successor, layer, all, or oracle, the bound (chain).",
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
            valueName: "share"))
    var load: String?
    @Option(
        name: .customLong("device-model"),
        help: ArgumentHelp(
            "bw=7g,lat=80us,qd=64 and wbw= for writes, decimal.",
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

    /// By option name, as `TimedOptions` takes them.
    var given: [String: String?] {
        [
            "time": time, "prefetch": prefetch, "speed": speed, "prefill-rate": prefillRate,
            "model-bytes-per-token": modelBytesPerToken, "load": load,
            "device-model": deviceModel, "block-tokens": blockTokens, "layers": layers,
            "decode": decode,
        ]
    }
}

enum TimedReplayCommand {
    /// 0 done, 1 an error or a wrong byte, 2 a wrong command line, 130 interrupted.
    static func run(_ settings: ReplayConfiguration) -> Int32 {
        if settings.policies.contains(.belady) || settings.policies.count > 1 {
            writeAll(
                STDERR_FILENO, "hearth-bench replay: in time, --policy is one of the store's own\n")
            return 2
        }
        ReplayRun.catchInterrupts()
        do throws(BenchError) {
            if settings.timed.decode != nil { return try DecodeReplay.perform(settings) }
            let run = try TimedRun(settings) { plan throws(BenchError) in
                try VirtualStore(plan)
            }
            let bounds = try run.bounds()
            let report = TimedReport(
                source: settings.trace ?? "generated chat", trace: run.trace, join: settings.join,
                plan: run.plan, model: run.model, hints: run.hintText,
                runs: try run.runs(bounds, load: settings.timed.load), bounds: bounds)
            var out = ""
            if settings.formats.contains(.json) { out += report.json.description + "\n" }
            if settings.formats.contains(.normal) { out += report.text }
            try Output.write(out, to: settings.output)
            return report.runs.main.wrong == 0 ? 0 : 1
        } catch {
            if replayInterrupted.load(ordering: .relaxed) { return 130 }
            writeAll(STDERR_FILENO, "hearth-bench: \(error)\n")
            return 1
        }
    }
}
