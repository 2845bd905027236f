// DecodeReplay: `replay --decode`: steps of decoding in virtual time, with what was asked for
// beside no prefetching. An oracle, which has every page in time, stalls for nothing.

import BenchKit
import Glibc
import Heat
import Prefetch

enum DecodeReplay {
    struct Report {
        var source: String
        var plan: DecodePlan
        var prefetch: PrefetchChoice
        var main: DecodeResult
        var without: DecodeResult
    }

    /// Somebody has to count; nothing is predicted of sessions.
    private static let nothing = PredictorSet.session

    static func measure(_ settings: ReplayConfiguration) throws(BenchError) -> Report {
        let plan = try plan(settings)
        let main = try DecodeStore(plan).run()
        var bare = plan
        (bare.predictors, bare.recall) = (nothing, nil)
        let without = try DecodeStore(bare).run()
        return Report(
            source: settings.timed.decode?.text ?? "", plan: plan,
            prefetch: settings.timed.prefetch ?? .all, main: main, without: without)
    }

    private static func plan(_ settings: ReplayConfiguration) throws(BenchError) -> DecodePlan {
        var options = DecodeOptions()
        let picks: DecodePicks
        switch settings.timed.decode {
        case .generated(let given):
            options = given
            picks = DecodePicks(given, seed: settings.chat.seed)
        case .file(let path): picks = try DecodePicks(lines: TextFile.read(path))
        case nil: throw BenchError("no picks to decode")
        }
        var recall: Double?
        if case .pages(let share)? = settings.hints { recall = share }
        let predictors: PredictorSet
        switch settings.timed.prefetch {
        case .off?: predictors = nothing
        case .layer?: predictors = recall == nil ? .layer : [.layer, .pages]
        case nil: predictors = recall == nil ? .layer : .pages
        case .all?: predictors = .all
        case .chain?, .successor?, .session?, .oracle?:
            throw BenchError("--decode goes with --prefetch off, layer or all")
        }
        let kind = settings.policies.first.flatMap { ReplacementKind(rawValue: $0.rawValue) }
        return DecodePlan(
            picks: picks, options: options, device: settings.timed.device,
            modelBytesPerToken: settings.timed.modelBytesPerToken,
            modelLayers: settings.timed.layers, predictors: predictors,
            policy: kind ?? .adaptive, recall: recall, seed: settings.chat.seed)
    }

    static func perform(_ settings: ReplayConfiguration) throws(BenchError) -> Int32 {
        let report = try measure(settings)
        var out = ""
        if settings.formats.contains(.json) { out += json(report).description + "\n" }
        if settings.formats.contains(.normal) { out += text(report) }
        try Output.write(out, to: settings.output)
        return report.main.wrong + report.without.wrong == 0 ? 0 : 1
    }

    private static func perStep(_ result: DecodeResult) -> Double {
        result.steps == 0 ? 0 : result.stall / Double(result.steps)
    }

    private static func figures(_ result: DecodeResult) -> JSONValue {
        .object([
            ("picks", .unsigned(result.picks)), ("misses", .unsigned(result.misses)),
            (
                "miss_share",
                .number(Double(result.misses) / Double(max(1, result.picks)))
            ),
            ("issued", .unsigned(result.issued)), ("useful", .unsigned(result.useful)),
            ("coverage", .number(result.coverage)), ("accuracy", .number(result.accuracy)),
            ("in_time", .number(result.inTime)), ("stall_s_per_token", .number(perStep(result))),
            ("wrong", .unsigned(result.wrong)),
        ])
    }

    static func json(_ report: Report) -> JSONValue {
        let picks = report.plan.picks
        return .object([
            ("hearth-bench version", .text(benchVersion)),
            (
                "decode",
                .object([
                    ("source", .text(report.source)), ("steps", .integer(Int64(picks.steps))),
                    ("layers", .integer(Int64(picks.layers))),
                    ("pages", .integer(Int64(picks.pages))),
                    ("picks_a_layer", .number(picks.picksALayer)),
                    ("cache_picks", .number(report.plan.options.cache)),
                    ("overlap_steps", .number(picks.overlap(steps: 1))),
                    ("overlap_layers", .number(picks.overlap(layers: 1))),
                    ("page_bytes", .number(report.plan.modelPageBytes)),
                    ("layer_time_s", .number(Double(report.plan.options.layerTime) / 1e9)),
                    ("device", .text(report.plan.device.text)),
                    ("prefetch", .text(report.prefetch.rawValue)),
                    ("hinted_recall", .number(report.plan.recall ?? 0)),
                    ("policy", .text(report.plan.policy.rawValue)),
                    ("run", figures(report.main)), ("noprefetch", figures(report.without)),
                    ("issued_per_miss", .number(issuedPerMiss(report))),
                    ("stall_removed", .number(stallRemoved(report))),
                ])
            ),
        ])
    }

    /// What was brought early, in multiples of what would be missed without.
    static func issuedPerMiss(_ report: Report) -> Double {
        Double(report.main.issued) / Double(max(1, report.without.misses))
    }

    static func stallRemoved(_ report: Report) -> Double {
        report.without.stall <= 0 ? 0 : 1 - report.main.stall / report.without.stall
    }

    private static func text(_ report: Report) -> String {
        let (picks, main) = (report.plan.picks, report.main)
        func line(_ name: String, _ result: DecodeResult) -> String {
            formatted(
                "  \(name)stall %.6f s a token, misses %.4f of the picks\n", perStep(result),
                Double(result.misses) / Double(max(1, result.picks)))
        }
        return "decode: \(report.source)\n"
            + "  picks        \(picks.steps) steps, \(picks.layers) layers, "
            + formatted(
                "%.1f of \(picks.pages) pages, overlap %.3f by step and %.3f by layer\n",
                picks.picksALayer, picks.overlap(steps: 1), picks.overlap(layers: 1))
            + formatted(
                "  model        pages of %.0f bytes a layer, %.6f s a layer, ",
                report.plan.modelPageBytes, Double(report.plan.options.layerTime) / 1e9)
            + "\(report.plan.device.text)\n" + line("this run     ", main)
            + line("no prefetch  ", report.without)
            + formatted(
                "  early        coverage %.4f, accuracy %.4f, in time %.4f, ", main.coverage,
                main.accuracy, main.inTime)
            + formatted("%.3f times the misses; ", issuedPerMiss(report))
            + formatted("stall gone %.1f %%\n", 100 * stallRemoved(report))
    }
}
