// TimedPage: reports of a replay in time as one page of HTML with plots: times to first token and
// stall by load, hit ratios by size beside LRU's and the best possible, and how early blocks came.
// Nothing is loaded from elsewhere and no script is in it, so that the file can be kept and sent.

package struct TimedPage: Sendable {
    /// One for each load, in order.
    package var reports: [TimedReport]
    /// Prefix hit ratios by size, for each policy.
    package var ratios: [HitRatios]

    package struct HitRatios: Sendable {
        package var policy: PolicyChoice
        /// Percent of the unique blocks, and the ratio.
        package var points: [(percent: Double, ratio: Double)]
    }

    /// Simulates the policy of the run, LRU and Belady's at the sizes that the configuration names.
    package init(
        _ reports: [TimedReport], _ configuration: ReplayConfiguration,
        progress: (String) -> Void = { _ in }
    ) {
        self.reports = reports
        ratios = []
        guard let first = reports.first else { return }
        let trace = first.trace
        var foretold: [Bool]?
        if case .session(let miss, let falseAlarm)? = configuration.hints {
            foretold = trace.foretold(
                miss: miss, falseAlarm: falseAlarm, seed: configuration.chat.seed)
        }
        var policies = [first.plan.policy]
        for other in [PolicyChoice.lru, .belady] where !policies.contains(other) {
            policies.append(other)
        }
        for policy in policies {
            var made = HitRatios(policy: policy, points: [])
            for size in configuration.sizes {
                progress(
                    "\(policy.rawValue) at \(made.points.count + 1) of "
                        + "\(configuration.sizes.count) sizes")
                let whole = UInt64(trace.unique) * UInt64(first.plan.blockBytes)
                let blocks = max(
                    1, Int(size.resolved(of: whole) / UInt64(max(1, first.plan.blockBytes))))
                let result = PolicySimulation(trace, capacity: blocks, foretold: foretold)
                    .run(policy)
                made.points.append(
                    (
                        100 * Double(blocks) / Double(max(1, trace.unique)),
                        Double(result.prefixHits) / Double(max(1, trace.accesses))
                    ))
            }
            made.points.sort { $0.percent < $1.percent }
            ratios.append(made)
        }
    }

    // MARK: The page

    package var html: String {
        let title = "hearth-bench replay: \(reports.first?.source ?? "")"
        var out =
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
            + "<meta name=\"viewport\" content=\"width=device-width\">\n"
            + "<title>\(Plot.escaped(title))</title>\n<style>\(Self.style)</style>\n</head>\n"
            + "<body>\n<h1>\(Plot.escaped(title))</h1>\n"
        if let first = reports.first { out += "<pre>\(Plot.escaped(first.head))</pre>\n" }
        out += times + stall + hits + leads
        return out + "</body>\n</html>\n"
    }

    private static let style = """

        :root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --faint: #d5d9de;
          --c0: #0b62c4; --c1: #b34700; --c2: #1a7f37; --c3: #8250df; --c4: #6e7781; }
        @media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117;
          --faint: #30363d; --c0: #6cb6ff; --c1: #ff9b50; --c2: #57d364; --c3: #c297ff;
          --c4: #9aa4ae; } }
        body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
          max-width: 760px; margin: 2em auto; padding: 0 1em; }
        h1 { font-size: 1.3em; } h2 { font-size: 1.1em; margin-top: 2em; }
        pre { overflow-x: auto; font-size: 13px; }
        svg { width: 100%; height: auto; }
        svg text { fill: var(--ink); font-size: 12px; text-anchor: middle; }
        svg text.end { text-anchor: end; }
        .grid { stroke: var(--faint); }
        .line { fill: none; stroke-width: 2; }
        .d1 { stroke-dasharray: 7 3; } .d2 { stroke-dasharray: 2 3; }
        .d3 { stroke-dasharray: 8 3 2 3; } .d4 { stroke-dasharray: 4 4; }
        .s0 { --c: var(--c0); } .s1 { --c: var(--c1); } .s2 { --c: var(--c2); }
        .s3 { --c: var(--c3); } .s4 { --c: var(--c4); }
        .line { stroke: var(--c); } .mark, .bar { fill: var(--c); }
        .legend span { margin-right: 1.5em; white-space: nowrap; }
        .key { display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.4em;
          background: var(--c); }
        .wide { overflow-x: auto; }
        table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
        th, td { text-align: right; padding: 0.15em 0.8em; border-bottom: 1px solid var(--faint); }

        """

    private func table(_ head: [String], _ rows: [[String]]) -> String {
        func row(_ cells: [String], _ kind: String) -> String {
            "<tr>" + cells.map { "<\(kind)>\(Plot.escaped($0))</\(kind)>" }.joined() + "</tr>\n"
        }
        return "<div class=\"wide\"><table>\n" + row(head, "th")
            + rows.map { row($0, "td") }.joined() + "</table></div>\n"
    }

    private func byLoad(_ value: (TimedRun.Runs) -> Double) -> [(x: Double, y: Double)] {
        reports.map { ($0.runs.load, value($0.runs)) }
    }

    private var times: String {
        let kinds: [(String, (TimedRun.Runs) -> TimeFigures)] = [
            ("this run", \.times), ("no prefetching", \.withoutPrefetchTimes),
            ("oracle", \.oracleTimes), ("recompute", \.recomputeTimes),
        ]
        let plot = Plot.lines(
            kinds.map { kind in Plot.Line(kind.0, byLoad { kind.1($0).mean }) },
            x: Plot.Axis("load"), y: Plot.Axis("mean seconds", isLogarithmic: true))
        let rows = reports.flatMap { report in
            kinds.map { kind -> [String] in
                let figures = kind.1(report.runs)
                return [
                    Plot.number(report.runs.load), kind.0, Plot.number(figures.mean),
                    Plot.number(figures.median), Plot.number(figures.p99),
                ]
            }
        }
        return "<h2>Time to first token by load</h2>\n" + plot
            + table(["load", "run", "mean s", "median s", "p99 s"], rows)
    }

    private var stall: String {
        let plot = Plot.lines(
            [
                Plot.Line("this run", byLoad { $0.main.stall }),
                Plot.Line("no prefetching", byLoad { $0.withoutPrefetch.stall }),
            ], x: Plot.Axis("load"), y: Plot.Axis("seconds"))
        let rows = reports.map { report in
            [
                Plot.number(report.runs.load), Plot.number(report.runs.main.stall),
                Plot.number(report.runs.withoutPrefetch.stall),
                formatted("%.1f %%", 100 * report.stallRemoved),
                Plot.number(report.runs.main.prefetch.coverage),
                Plot.number(report.runs.main.prefetch.accuracy),
            ]
        }
        return "<h2>The server's seconds lost to loading, by load</h2>\n" + plot
            + table(
                ["load", "stall s", "no prefetching s", "removed", "coverage", "accuracy"], rows)
    }

    private var hits: String {
        guard !ratios.isEmpty else { return "" }
        let plot = Plot.lines(
            ratios.map { Plot.Line($0.policy.rawValue, $0.points.map { ($0.percent, $0.ratio) }) },
            x: Plot.Axis("held, % of all blocks", isLogarithmic: true),
            y: Plot.Axis("prefix hit ratio"))
        let rows = (ratios.first?.points.indices ?? 0..<0).map { index in
            [Plot.number(ratios[0].points[index].percent)]
                + ratios.map { formatted("%.4f", $0.points[index].ratio) }
        }
        return "<h2>Hit ratio by size</h2>\n" + plot
            + table(["held %"] + ratios.map(\.policy.rawValue), rows)
    }

    private var leads: String {
        guard let report = reports.last, !report.runs.main.prefetch.leads.isEmpty else { return "" }
        let leads = report.runs.main.prefetch.leads
        let bars = leads.map { lead in
            (
                label: (lead.seconds < 0 ? "-" : "") + Self.time(abs(lead.seconds)),
                value: Double(lead.count), kind: lead.seconds < 0 ? 1 : 0
            )
        }
        return "<h2>How early what was brought early came, at load "
            + "\(Plot.number(report.runs.load))</h2>\n"
            + Plot.bars(
                bars, x: "before it was asked for, up to", y: "blocks",
                kinds: ["in time", "asked for already, and waited for up to"])
    }

    private static func time(_ seconds: Double) -> String {
        if seconds < 1e-3 { return Plot.number(seconds * 1e6) + " µs" }
        return seconds < 1 ? Plot.number(seconds * 1e3) + " ms" : Plot.number(seconds) + " s"
    }
}

extension PrefetchFigures {
    /// From counts by powers of two of nanoseconds: of blocks that waited to be used, and of blocks
    /// that were waited for. Those that were late come first, the latest of all first.
    package mutating func setLeads(early: [UInt64], late: [UInt64]) {
        func end(_ power: Int) -> Double {
            Double(sign: .plus, exponent: power + 1, significand: 1)
        }
        func range(_ counts: [UInt64]) -> ClosedRange<Int>? {
            guard let first = counts.firstIndex(where: { $0 > 0 }),
                let last = counts.lastIndex(where: { $0 > 0 })
            else { return nil }
            return first...last
        }
        leads = []
        if let range = range(late) {
            for power in range.reversed() { leads.append((-end(power) / 1e9, late[power])) }
        }
        if let range = range(early) {
            for power in range { leads.append((end(power) / 1e9, early[power])) }
        }
    }
}
