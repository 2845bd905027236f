// RateReport: what an owner did between two of its pages, for `hearth top`: a screen for people who
// look on, or a line for a log. Rates are by the owner's own clock; latencies are since it opened
// the store, but for the mean, which is of the interval.

package struct RateReport: Sendable {
    private let before: StatisticsReport
    private let after: StatisticsReport
    private let seconds: Double

    package init(from before: StatisticsReport, to after: StatisticsReport, seconds: Double) {
        self.before = before
        self.after = after
        // Two pages tell when they were made; of one that stood still only we know.
        let (first, last) = (before.source.page.monotonic, after.source.page.monotonic)
        self.seconds = last > first ? Double(last - first) / 1e9 : seconds
    }

    private func change(_ name: String) -> Double {
        max(0, after.samples[name] - before.samples[name])
    }

    private func rate(_ name: String) -> Double { seconds > 0 ? change(name) / seconds : 0 }

    private func rate(byLabel name: String) -> Double {
        func sum(_ report: StatisticsReport) -> Double {
            report.samples.byLabel(name).reduce(0) { $0 + Double($1.value) }
        }
        return seconds > 0 ? max(0, sum(after) - sum(before)) / seconds : 0
    }

    private func perSecond(_ name: String) -> String {
        Figures.size(UInt64(max(0, min(rate(name), 1e18)))) + "/s"
    }

    private var hitRate: Double { rate("gets_hits_staging") + rate("gets_hits_device") }

    private var hitShare: String {
        let all = hitRate + rate("gets_misses")
        return all > 0 ? Figures.decimal(100 * hitRate / all, 1) + " %" : "-"
    }

    /// Bytes written over value bytes admitted, of the interval.
    private var amplification: String {
        let admitted = change("puts_admitted_bytes")
        return admitted > 0 ? Figures.decimal(change("writes_total_bytes") / admitted, 2) : "-"
    }

    private static func number(_ value: Double) -> String {
        Figures.decimal(value, value > 0 && value < 10 ? 1 : 0)
    }

    // MARK: A line

    package static let heads = [
        "time", "gets/s", "hit", "DRAM/s", "device/s", "miss/s", "puts/s", "out", "read",
        "written", "ampl.", "get p50", "get p99", "put p99", "blocks", "live",
    ]

    private static let widths = [20, 8, 7, 8, 8, 8, 8, 12, 12, 12, 5, 8, 8, 8, 9, 7]

    package static var headline: String { line(heads) }

    private static func line(_ cells: [String]) -> String {
        zip(cells, widths).map { Figures.padded($0, $1) }.joined(separator: " ") + "\n"
    }

    /// One line under `headline`.
    package var line: String {
        let samples = after.samples
        return Self.line([
            Figures.time(after.source.page.wallSeconds),
            Self.number(hitRate + rate("gets_misses")), hitShare,
            Self.number(rate("gets_hits_staging")), Self.number(rate("gets_hits_device")),
            Self.number(rate("gets_misses")), Self.number(rate(byLabel: "puts_by_status")),
            perSecond("gets_bytes"), perSecond("reads_bytes"), perSecond("writes_total_bytes"),
            amplification,
            StatisticsReport.duration(samples.quantile("gets_latency_device", "0.5")),
            StatisticsReport.duration(samples.quantile("gets_latency_device", "0.99")),
            StatisticsReport.duration(samples.quantile("puts_latency", "0.99")),
            String(samples.count("space_blocks")),
            Figures.percent(samples.count("space_live"), of: samples.count("space_capacity")),
        ])
    }

    // MARK: A screen

    package var screen: String {
        let samples = after.samples
        let gets = Figures.table(
            ["per second", "all", "DRAM", "device", "miss", "hit", "bytes out"],
            [
                [
                    "gets", Self.number(hitRate + rate("gets_misses")),
                    Self.number(rate("gets_hits_staging")), Self.number(rate("gets_hits_device")),
                    Self.number(rate("gets_misses")), hitShare, perSecond("gets_bytes"),
                ]
            ])
        let puts = Figures.table(
            ["", "all", "admitted", "deletes", "evicted", "written again"],
            [
                [
                    "puts", Self.number(rate(byLabel: "puts_by_status")),
                    perSecond("puts_admitted_bytes"),
                    Self.number(rate(byLabel: "deletes_by_status")),
                    Self.number(rate("reclaim_evicted_blocks")),
                    Self.number(rate("writes_reinserted_blocks")),
                ]
            ])
        let bytes = Figures.table(
            ["", "all", "gets", "reclaim", "groups", "metadata", "checkpoints", "amplification"],
            [
                ["read", "", perSecond("reads_bytes"), perSecond("reads_moved_bytes")],
                [
                    "written", perSecond("writes_total_bytes"), "",
                    perSecond("writes_reinserted_bytes"), perSecond("writes_group_bytes"),
                    perSecond("writes_metadata_bytes"), perSecond("writes_checkpoint_bytes"),
                    amplification,
                ],
            ])
        let latencies = StatisticsReport.latencyNames.compactMap { name, metric -> [String]? in
            guard samples.count(metric + "_count") > 0 else { return nil }
            let count = change(metric + "_count")
            let mean = count > 0 ? change(metric + "_sum") / count : 0
            return [
                name, count > 0 ? StatisticsReport.duration(UInt64(mean)) : "-",
                StatisticsReport.duration(samples.quantile(metric, "0.5")),
                StatisticsReport.duration(samples.quantile(metric, "0.99")),
                StatisticsReport.duration(samples.quantile(metric, "1")),
            ]
        }
        var text = after.headline + "\n\n" + gets + puts + "\n" + bytes + "\n"
        if !latencies.isEmpty {
            text += Figures.table(
                ["latency", "mean now", "p50", "p99", "longest since open"], latencies)
            text += "\n"
        }
        return text + parts
    }

    /// Space and memory by part.
    private var parts: String {
        let samples = after.samples
        func row(_ label: String, _ prefix: String, _ names: [String], of all: UInt64) -> String {
            let parts = names.map { name in
                let words = name.split(separator: "_").joined(separator: " ")
                return "\(words) \(Figures.size(samples.count("\(prefix)_\(name)")))"
            }
            return "\(label)  \(Figures.size(all)): " + parts.joined(separator: ", ") + "\n"
        }
        return row(
            "space ", "space",
            ["live", "dead", "free", "open", "metadata", "reserve", "quarantined"],
            of: samples.count("space_capacity"))
            + row(
                "memory", "memory",
                ["index", "staging", "shard_tables", "group_buffers", "footers", "other"],
                of: samples.count("memory_limit"))
            + row(
                "slabs ", "memory", ["dirty_bytes", "clean_bytes", "leased_bytes"],
                of: samples.count("memory_staging"))
    }
}
