// ReplayReport: what a replay came to, as JSON and as lines to read.

package struct ReplayReport: Sendable {
    package var source: String
    package var summary: TraceSummary
    package var plan: ReplayStorePlan
    package var join: Int
    package var counters = ReplayCounters()
    package var logCheck: LogCheck?
    package var deviceBytesWritten: UInt64 = 0
    package var footprint: [String] = []
    package var statistics = JSONValue.object([])
    package var nanoseconds: UInt64 = 0
    package var interrupted = false

    package init(source: String, summary: TraceSummary, plan: ReplayStorePlan, join: Int) {
        self.source = source
        self.summary = summary
        self.plan = plan
        self.join = join
    }

    package static let tailNote =
        "partial tails are treated as full blocks: every block of a request counts and is stored"

    private static let joinNote =
        "the last blocks of a request may join fewer, and count as a full block"
    private var note: String { Self.tailNote + (join > 1 ? "; " + Self.joinNote : "") }

    /// Device bytes over value bytes; 0 where nothing was put.
    package var writeAmplification: Double {
        counters.writtenBytes == 0
            ? 0 : Double(deviceBytesWritten) / Double(counters.writtenBytes)
    }

    package var json: JSONValue {
        var replay: [(String, JSONValue)] = [
            ("requests", .unsigned(counters.requests)),
            ("block_accesses", .unsigned(counters.blockAccesses)),
            ("hits_dram", .unsigned(counters.hitsDRAM)),
            ("hits_ssd", .unsigned(counters.hitsSSD)),
            ("misses", .unsigned(counters.misses)),
            ("wrong", .unsigned(counters.wrong)),
            ("prefix_hit_ratio", .number(counters.prefixHitRatio)),
            ("read_bytes", .unsigned(counters.readBytes)),
            ("written_bytes", .unsigned(counters.writtenBytes)),
            ("write_amplification", .number(writeAmplification)),
            ("seconds", .number(Double(nanoseconds) / 1e9)),
            ("dram_share_of_hits", .number(counters.dramShare)),
            ("prefix_hits", .unsigned(counters.prefixHits)),
            ("puts_stored", .unsigned(counters.stored)),
            ("puts_present", .unsigned(counters.present)),
            ("puts_refused", .unsigned(counters.refused)),
            ("device_bytes_written", .unsigned(deviceBytesWritten)),
            ("interrupted", .flag(interrupted)),
        ]
        if let logCheck {
            replay.append(
                (
                    "put_log",
                    .object([
                        ("keys", .unsigned(logCheck.keys)), ("hits", .unsigned(logCheck.hits)),
                        ("wrong", .unsigned(logCheck.wrong)), ("share", .number(logCheck.share)),
                    ])
                ))
        }
        return .object([
            ("hearth-bench version", .text(benchVersion)),
            (
                "trace",
                .object([
                    ("source", .text(source)), ("join", .integer(Int64(join))),
                    ("requests", .unsigned(summary.requests)),
                    ("block_accesses", .unsigned(summary.accesses)),
                    ("unique_blocks", .unsigned(summary.unique)),
                    ("ceiling", .number(summary.ceiling)), ("note", .text(note)),
                ])
            ),
            (
                "store",
                .object([
                    ("directory", .text(plan.directory)),
                    ("block_bytes", .integer(Int64(plan.blockBytes))),
                    ("capacity_bytes", .unsigned(plan.capacity)),
                    ("dram_bytes", .unsigned(plan.dram)),
                    ("mode", .text(plan.mode.rawValue)),
                    ("durability", .text(plan.durability.rawValue)),
                    ("on_top", .array(footprint.map { .text($0) })),
                ])
            ),
            ("replay", .object(replay)),
            ("statistics", statistics),
        ])
    }

    package var head: String {
        func bytes(_ count: UInt64) -> String { figure(count, binary: true, unit: "B") }
        let whole = summary.unique * UInt64(plan.blockBytes)
        var out =
            "replay: \(source)\n"
            + "  trace        : \(summary.requests) requests, \(summary.accesses) block accesses, "
            + "\(summary.unique) unique blocks of \(bytes(UInt64(plan.blockBytes))) "
            + "= \(bytes(whole)), ceiling \(formatted("%.3f", summary.ceiling))\n"
            + "                 \(Self.tailNote)\n"
        if join > 1 {
            out +=
                "  join         : \(join) blocks of the trace make one; "
                + "\(Self.joinNote)\n"
        }
        out +=
            "  store        : \(plan.directory), capacity \(bytes(plan.capacity)) of values, "
            + "DRAM \(bytes(plan.dram)) of slabs, \(plan.mode.rawValue), "
            + "\(plan.durability.rawValue)\n"
        for line in footprint { out += "     on top    : \(line)\n" }
        return out
    }

    package var text: String {
        func bytes(_ count: UInt64) -> String { figure(count, binary: true, unit: "B") }
        let seconds = max(1e-9, Double(nanoseconds) / 1e9)
        var out = head
        if let logCheck {
            out +=
                "  put log      : \(logCheck.hits) of \(logCheck.keys) keys hit "
                + formatted("(%.4f%%), ", logCheck.share * 100) + "\(logCheck.wrong) wrong\n"
        }
        out +=
            "  hits         : "
            + formatted("prefix hit ratio %.3f, ", counters.prefixHitRatio)
            + "\(counters.hitsDRAM) DRAM + \(counters.hitsSSD) SSD "
            + formatted("(%.1f%% DRAM), ", counters.dramShare * 100)
            + "\(counters.misses) misses, \(counters.wrong) wrong\n"
        out +=
            "  bytes        : read \(bytes(counters.readBytes)), "
            + "written \(bytes(counters.writtenBytes)), "
            + formatted("write amplification %.3f\n", writeAmplification)
        out +=
            "  puts         : \(counters.stored) stored, \(counters.present) already present, "
            + "\(counters.refused) refused\n"
        let moved = Double(counters.readBytes + counters.writtenBytes) / seconds
        out +=
            "  time         : " + formatted("%.2f s, ", seconds)
            + "\(figure(UInt64(Double(counters.requests) / seconds), binary: false)) requests/s, "
            + "\(figure(UInt64(moved), binary: true, unit: "B"))/s"
            + (interrupted ? ", interrupted\n" : "\n")
        return out
    }
}
