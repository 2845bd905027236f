// TimedReport: what a replay in time came to, as JSON and as lines to read, with the same members
// for virtual and real time. In virtual time nothing in it depends on the machine, so that equal
// options give equal reports.

package struct TimedReport: Sendable {
    package var source: String
    package var trace: TraceTable
    package var join: Int
    package var plan: TimedStorePlan
    package var model: PrefillModel
    package var hints: String
    package var runs: TimedRun.Runs
    package var bounds: TimedRun.Bounds

    package init(
        source: String, trace: TraceTable, join: Int, plan: TimedStorePlan, model: PrefillModel,
        hints: String, runs: TimedRun.Runs, bounds: TimedRun.Bounds
    ) {
        self.source = source
        self.trace = trace
        self.join = join
        self.plan = plan
        self.model = model
        self.hints = hints
        self.runs = runs
        self.bounds = bounds
    }

    /// The share of the stall without prefetching that is gone.
    package var stallRemoved: Double {
        let before = runs.withoutPrefetch.stall
        return before <= 0 ? 0 : 1 - runs.main.stall / before
    }

    /// One load's report as it is; several as a list.
    package static func json(_ reports: [TimedReport]) -> JSONValue {
        if let only = reports.first, reports.count == 1 { return only.json }
        return .object([
            ("hearth-bench version", .text(benchVersion)), ("loads", .array(reports.map(\.json))),
        ])
    }

    private var time: String { plan.directory == nil ? "virtual" : "real" }

    private var device: String {
        if let directory = plan.directory { return "the one of \(directory)" }
        return plan.device?.text ?? "none"
    }

    package var json: JSONValue {
        .object([
            ("hearth-bench version", .text(benchVersion)),
            (
                "trace",
                .object([
                    ("source", .text(source)), ("join", .integer(Int64(join))),
                    ("requests", .integer(Int64(trace.requests))),
                    ("block_accesses", .integer(Int64(trace.accesses))),
                    ("unique_blocks", .integer(Int64(trace.unique))),
                    ("block_tokens", .integer(Int64(model.blockTokens))),
                ])
            ),
            (
                "model",
                .object([
                    ("time", .text(time)), ("load", .number(runs.load)),
                    ("prefill_rate", .number(model.rate)),
                    ("layers", .integer(Int64(model.layers))),
                    ("block_bytes", .integer(Int64(plan.blockBytes))),
                    ("model_block_bytes", .number(plan.modelBlockBytes)),
                    ("device", .text(device)),
                    ("prefetch", .text(plan.prefetch.rawValue)), ("hints", .text(hints)),
                    ("claim", .text(plan.claims.rawValue)),
                    ("policy", .text(plan.policy.rawValue)),
                    ("capacity_bytes", .unsigned(plan.capacity)),
                    ("dram_bytes", .unsigned(plan.dram)),
                ])
            ),
            ("replay", .object(replay)),
        ])
    }

    private var replay: [(String, JSONValue)] {
        let main = runs.main
        let perReader = main.readers == 0 ? 0 : main.stall / Double(main.readers)
        var members: [(String, JSONValue)] = [
            ("requests", .integer(Int64(main.compute.count))),
            ("block_accesses", .unsigned(main.accesses)),
            ("hits_dram", .unsigned(main.hitsDRAM)), ("hits_ssd", .unsigned(main.hitsSSD)),
            ("misses", .unsigned(main.accesses - main.hitsDRAM - main.hitsSSD)),
            ("declined", .unsigned(main.declined)), ("wrong", .unsigned(main.wrong)),
            ("prefix_hits", .unsigned(main.prefixHits)),
            ("prefix_hit_ratio", .number(main.prefixHitRatio)),
            ("puts_stored", .unsigned(main.stored)), ("puts_refused", .unsigned(main.refused)),
            ("puts_unwritten", .unsigned(main.unwritten)),
            ("device_bytes_written", .unsigned(main.deviceBytesWritten)),
            ("seconds", .number(Double(main.nanoseconds) / 1e9)),
            ("ttft_mean_s", .number(runs.times.mean)), ("ttft_p50_s", .number(runs.times.median)),
            ("ttft_p99_s", .number(runs.times.p99)), ("stall_s", .number(main.stall)),
            ("stall_per_reading_request_s", .number(perReader)),
            ("stall_removed", .number(stallRemoved)),
            ("prefill_s", .number(main.computeSeconds)),
            ("declined_s", .number(main.declinedSeconds)), ("slip_s", .number(main.slip)),
            ("oracle_prefix_hit_ratio", .number(bounds.oracle.prefixHitRatio)),
            ("recompute_prefix_hit_ratio", .number(bounds.recompute.prefixHitRatio)),
        ]
        members += beside("oracle", runs.oracleTimes, stall: 0)
        members += beside(
            "noprefetch", runs.withoutPrefetchTimes, stall: runs.withoutPrefetch.stall)
        members += beside("recompute", runs.recomputeTimes, stall: 0)
        if let busy = main.deviceBusy { members.append(("device_busy", .number(busy))) }
        members.append(("prefetch", prefetch(main.prefetch)))
        return members
    }

    private func beside(
        _ name: String, _ times: TimeFigures, stall: Double
    ) -> [(String, JSONValue)] {
        [
            ("\(name)_ttft_mean_s", .number(times.mean)),
            ("\(name)_ttft_p50_s", .number(times.median)),
            ("\(name)_ttft_p99_s", .number(times.p99)), ("\(name)_stall_s", .number(stall)),
        ]
    }

    private func prefetch(_ figures: PrefetchFigures) -> JSONValue {
        .object([
            ("coverage", .number(figures.coverage)), ("accuracy", .number(figures.accuracy)),
            ("timely", .number(figures.timeliness)), ("staged", .number(figures.staged)),
            ("lateness_mean_s", .number(figures.latenessMean)),
            ("lateness_p99_s", .number(figures.latenessP99)),
            ("wasted_bytes", .unsigned(figures.wastedBytes)),
            ("pollution", .unsigned(figures.pollution)), ("issued", .unsigned(figures.issued)),
            ("useful", .unsigned(figures.useful)),
            ("demand_misses", .unsigned(figures.demandMisses)),
            (
                "leads",
                .array(
                    figures.leads.map {
                        .array([.number($0.seconds), .unsigned($0.count)])
                    })
            ),
        ])
    }

    /// What was played, and before what.
    package var head: String {
        "replay: \(source)\n"
            + "  trace        \(trace.requests) requests, \(trace.accesses) block accesses, "
            + "\(trace.unique) blocks of \(model.blockTokens) tokens\n"
            + "  model        \(time) time, "
            + formatted("load %.3f, %.0f tokens/s, ", runs.load, model.rate)
            + "\(model.layers) layers, a block "
            + figure(UInt64(plan.modelBlockBytes), binary: true, unit: "B") + " for "
            + figure(UInt64(plan.blockBytes), binary: true, unit: "B") + "\n"
            + "  device       \(device)\n"
            + "  prefetch     \(plan.prefetch.rawValue), hints \(hints), claims "
            + "\(plan.claims.rawValue), policy \(plan.policy.rawValue)\n"
    }

    package var text: String {
        func times(_ name: String, _ figures: TimeFigures, _ stall: Double) -> String {
            "  " + name + String(repeating: " ", count: max(1, 13 - name.count))
                + formatted(
                    "ttft mean %.3f s, p50 %.3f, p99 %.3f; stall %.2f s\n", figures.mean,
                    figures.median, figures.p99, stall)
        }
        let main = runs.main
        let early = main.prefetch
        var out = head
        out +=
            formatted("  hits         prefix hit ratio %.4f, ", main.prefixHitRatio)
            + "\(main.hitsDRAM) DRAM + \(main.hitsSSD) SSD, \(main.declined) declined, "
            + "\(main.wrong) wrong\n"
            + "  puts         \(main.stored) stored, \(main.unwritten) of them in memory alone, "
            + "\(main.refused) refused\n"
        if let busy = main.deviceBusy {
            out += formatted("  device       busy %.1f %% of the time\n", 100 * busy)
        }
        out += times("this run", runs.times, main.stall)
        out += times("no prefetch", runs.withoutPrefetchTimes, runs.withoutPrefetch.stall)
        out += times("oracle", runs.oracleTimes, 0)
        out += times("recompute", runs.recomputeTimes, 0)
        out += formatted("  stall gone   %.1f %%\n", 100 * stallRemoved)
        out += formatted(
            "  early        coverage %.4f, accuracy %.4f, timely %.4f, late %.4f s mean %.4f p99, ",
            early.coverage, early.accuracy, early.timeliness, early.latenessMean,
            early.latenessP99)
        out +=
            figure(early.wastedBytes, binary: true, unit: "B")
            + " wasted, pollution \(early.pollution)\n"
        return out
    }
}
