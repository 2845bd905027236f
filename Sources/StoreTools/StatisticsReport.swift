// StatisticsReport: an owner's page for people, for programs, and for Prometheus. The figures are
// the owner's own texts; what is added tells whose they are and how old.

import LogStore
import SegmentFormat

package struct StatisticsReport: Sendable {
    package let source: OwnerPage
    package let samples: MetricSamples

    package init(_ source: OwnerPage) {
        self.source = source
        samples = MetricSamples(source.page.prometheus)
    }

    // MARK: For programs

    package var json: JSONText {
        let page = source.page
        return .object([
            ("directory", .text(source.directory)),
            ("store", .text(Figures.identity(page.store))),
            ("owner", .text(source.owner.rawValue)),
            ("process", .integer(Int64(page.process))), ("user", .count(UInt64(page.user))),
            ("opened_at", .count(UInt64(page.openedSeconds))),
            ("written_at", .count(UInt64(page.wallSeconds))),
            ("age_seconds", .count(source.age)), ("stale", .flag(source.isStale)),
            ("period_milliseconds", .count(UInt64(page.periodMilliseconds))),
            (
                "descriptors",
                .object([
                    ("index", .integer(Int64(page.descriptors.index))),
                    ("ghosts", .integer(Int64(page.descriptors.ghosts))),
                    ("residents", .integer(Int64(page.descriptors.residents))),
                    ("slabs", .integer(Int64(page.descriptors.slabs))),
                ])
            ),
            ("statistics", .raw(page.json)),
        ])
    }

    /// The owner's text, and whether it is up. Of a store that nobody has open the figures are left
    /// out: a counter that has ended is not one that stands still.
    package var prometheus: String {
        let page = source.page
        var text = Self.up(source.isOpen)
        text += "# HELP hearth_store_info Always 1; the words are in the labels.\n"
        text += "# TYPE hearth_store_info gauge\n"
        text += "hearth_store_info{store=\"\(Figures.identity(page.store))\","
        text += "owner=\"\(source.owner.rawValue)\",process=\"\(page.process)\"} 1\n"
        text += "# HELP hearth_page_age_seconds Seconds since the figures were collected.\n"
        text += "# TYPE hearth_page_age_seconds gauge\n"
        text += "hearth_page_age_seconds \(source.age)\n"
        text += "# HELP hearth_opened_seconds Unix seconds at which the store was opened.\n"
        text += "# TYPE hearth_opened_seconds gauge\n"
        text += "hearth_opened_seconds \(page.openedSeconds)\n"
        return source.isOpen ? text + page.prometheus : text
    }

    /// What is said when there is no page to be had.
    package static func up(_ isUp: Bool) -> String {
        "# HELP hearth_up Whether a process has the store open.\n# TYPE hearth_up gauge\n"
            + "hearth_up \(isUp ? 1 : 0)\n"
    }

    // MARK: For people

    /// Whose figures these are, in one line.
    package var headline: String {
        let page = source.page
        let name = "\(source.directory) (\(Figures.identity(page.store)))"
        let ago = Figures.clock(source.age) + " ago"
        let opened = "open since " + Figures.time(page.openedSeconds)
        switch source.owner {
        case .running where source.isStale:
            return "\(name): process \(page.process), \(opened); nothing written since \(ago): "
                + "it stands still, or cannot write"
        case .running: return "\(name): process \(page.process), \(opened); figures of \(ago)"
        case .elsewhere: return "\(name): in another container, \(opened); figures of \(ago)"
        case .closed: return "\(name): closed; the last figures, of \(ago)"
        case .gone:
            return "\(name): process \(page.process) ended without closing it; the last figures, "
                + "of \(ago)"
        }
    }

    package var text: String {
        headline + "\n\n" + operations + "\n" + latencies + "\n" + bytes + "\n" + trouble
    }

    private func size(_ name: String) -> String { Figures.size(samples.count(name)) }

    private func named(_ name: String) -> String {
        samples.byLabel(name).map { "\($0.label) \($0.value)" }.joined(separator: ", ")
    }

    private func lines(_ rows: [(String, String)]) -> String {
        let width = rows.map(\.0.count).max() ?? 0
        return rows.filter { !$0.1.isEmpty }.map { name, value in
            name + String(repeating: " ", count: width - name.count + 2) + value + "\n"
        }.joined()
    }

    private var operations: String {
        let staging = samples.count("gets_hits_staging")
        let device = samples.count("gets_hits_device")
        let misses = samples.count("gets_misses")
        let all = staging + device + misses
        return lines([
            (
                "gets",
                "\(staging) hits in DRAM, \(device) on devices, \(misses) misses; "
                    + "\(Figures.percent(staging + device, of: all)) hit; "
                    + size("gets_bytes") + " delivered"
            ),
            ("misses", named("gets_misses_by_reason")),
            ("gets, other", named("gets_other_by_status")),
            ("puts", named("puts_by_status")),
            ("", size("puts_admitted_bytes") + " admitted"),
            ("deletes", named("deletes_by_status")),
            (
                "reclaim",
                "\(samples.count("reclaim_segments")) segments emptied, "
                    + "\(samples.count("reclaim_evicted_blocks")) blocks evicted "
                    + "(\(samples.count("reclaim_expired_blocks")) of them expired), "
                    + "\(samples.count("writes_reinserted_blocks")) written again"
            ),
            ("hints", named("hints_by_kind")),
        ])
    }

    /// The latencies that were measured, by what they are of.
    static let latencyNames: [(name: String, metric: String)] = [
        ("get, DRAM", "gets_latency_staging"), ("get, device", "gets_latency_device"),
        ("get, miss", "gets_latency_miss"), ("put", "puts_latency"),
        ("delete", "deletes_latency"),
    ]

    private var latencies: String {
        let rows = Self.latencyNames.compactMap { name, metric -> [String]? in
            let count = samples.count(metric + "_count")
            guard count > 0 else { return nil }
            let mean = samples.count(metric + "_sum") / count
            return [name, String(count), Self.duration(mean)]
                + ["0.5", "0.9", "0.99", "0.999", "1"].map {
                    Self.duration(samples.quantile(metric, $0))
                }
        }
        guard !rows.isEmpty else { return "" }
        return Figures.table(
            ["latency", "count", "mean", "p50", "p90", "p99", "p99.9", "longest"], rows)
    }

    private var bytes: String {
        let capacity = samples.count("space_capacity")
        let space = ["live", "dead", "free", "open", "metadata", "reserve", "quarantined"]
            .map { "\($0) \(Figures.percent(samples.count("space_\($0)"), of: capacity))" }
        let memory = [
            ("index", "index"), ("staging", "staging"), ("shard_tables", "shard tables"),
            ("group_buffers", "group buffers"), ("footers", "footers"), ("other", "other"),
        ].map { "\($1) \(size("memory_\($0)"))" }
        let driver = samples.words("driver_info").first ?? [:]
        return lines([
            (
                "read",
                size("reads_bytes") + " for gets, " + size("reads_moved_bytes") + " for reclaim"
            ),
            (
                "scrubbed",
                samples.count("scrub_bytes") == 0
                    ? ""
                    : size("scrub_bytes") + ", \(samples.count("scrub_passes")) passes; rotten: "
                        + "\(samples.count("scrub_damaged_blocks")) blocks, "
                        + "\(samples.count("scrub_damaged_pages")) pages"
            ),
            (
                "written",
                size("writes_total_bytes") + ": groups " + size("writes_group_bytes")
                    + " (written again " + size("writes_reinserted_bytes") + "), metadata "
                    + size("writes_metadata_bytes") + ", checkpoints "
                    + size("writes_checkpoint_bytes") + "; amplification "
                    + Figures.decimal(samples["writes_amplification"], 2)
            ),
            (
                "space",
                Figures.size(capacity) + ": " + space.joined(separator: ", ")
            ),
            (
                "blocks",
                "\(samples.count("space_blocks")), " + size("space_live_value_bytes") + " of values"
            ),
            ("memory", size("memory_limit") + " at most: " + memory.joined(separator: ", ")),
            (
                "slabs",
                "dirty " + size("memory_dirty_bytes") + ", clean " + size("memory_clean_bytes")
                    + ", leased " + size("memory_leased_bytes")
            ),
            ("driver", driver["kind"].map { "\($0): \(driver["grants"] ?? "")" } ?? ""),
        ])
    }

    /// What counts above 0, and devices that do not serve.
    private var trouble: String {
        let names = [
            "check_failures", "read_errors", "write_errors", "flush_errors", "manifest_errors",
            "checkpoint_errors", "rewrites", "unguarded_replaces", "quarantined_blocks",
            "quarantined_segments", "damaged_pages", "allocation_failures", "shrunk_segments",
            "damaged_manifests", "damaged_manifest_copies", "absent_members", "stale_members",
            "page_errors",
        ]
        var told = names.compactMap { name -> String? in
            let count = samples.count("trouble_\(name)")
            let words = name.split(separator: "_").joined(separator: " ")
            return count == 0 ? nil : "\(words) \(count)"
        }
        for device in samples.words("devices_info") where device["state"] != "healthy" {
            told.append("device \(device["device"] ?? "?") is \(device["state"] ?? "?")")
        }
        if samples["recovery_is_complete"] == 0 { told.append("the index is being rebuilt") }
        return lines([("trouble", told.isEmpty ? "none" : told.joined(separator: ", "))])
    }

    /// Nanoseconds with a unit.
    package static func duration(_ nanoseconds: UInt64) -> String {
        let value = Double(nanoseconds)
        if nanoseconds < 1000 { return "\(nanoseconds) ns" }
        if value < 1e6 { return Figures.decimal(value / 1e3, 1) + " us" }
        if value < 1e9 { return Figures.decimal(value / 1e6, 1) + " ms" }
        return Figures.decimal(value / 1e9, 2) + " s"
    }
}
