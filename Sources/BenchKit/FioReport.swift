// FioReport: results as fio's JSON tree, key for key, type for type; what is ours stands under one
// further key, "kv", of each job.

package let benchVersion = "0.1.0"

package enum FioReport {
    package static let fioVersion = "fio-3.33-hearth-\(benchVersion)"

    /// The results to show: one a job, or one for all.
    package static func groups(_ report: RunReport) -> [JobResult] {
        guard report.options.groupReporting, var merged = report.results.first else {
            return report.results
        }
        for other in report.results.dropFirst() { merged.merge(other) }
        merged.kv = mergedReport(report.results.compactMap(\.kv))
        return [merged]
    }

    /// Numbers of several jobs that stand for the same store are the same: the first job's are kept
    /// unless every job counted for itself, which the target says by a "per_job" object.
    private static func mergedReport(_ reports: [JSONValue]) -> JSONValue? {
        guard let first = reports.first, case .object(var members) = first else { return nil }
        for (place, member) in members.enumerated() where member.0 == "per_job" {
            guard case .object(let counters) = member.1 else { continue }
            members[place].1 = .object(
                counters.map { name, _ in
                    (name, sum(reports.compactMap { $0["per_job"]?[name] }))
                })
        }
        return .object(members)
    }

    private static func sum(_ values: [JSONValue]) -> JSONValue {
        var total: UInt64 = 0
        var real = 0.0
        for value in values {
            switch value {
            case .unsigned(let count): total += count
            case .integer(let count): total += UInt64(max(0, count))
            case .number(let number): real += number
            default: return values[0]
            }
        }
        return real == 0 ? .unsigned(total) : .number(real + Double(total))
    }

    package static func json(_ report: RunReport) -> JSONValue {
        let now = wallMilliseconds()
        return .object([
            ("fio version", .text(fioVersion)),
            ("timestamp", .unsigned(now / 1000)),
            ("timestamp_ms", .unsigned(now)),
            ("time", .text(calendarText(Int(now / 1000)))),
            ("jobs", .array(groups(report).map { job($0, report) })),
            ("disk_util", .array(report.disks.map(disk))),
        ])
    }

    private static func job(_ result: JobResult, _ report: RunReport) -> JSONValue {
        let options = report.options.given.filter { $0.name != "group_reporting" }
        // fio's list of options has the job's own, not those of the report.
        let ofReport = ["output", "output-format", "eta"]
        let totalRuntime = Double(max(1, result.runtime))
        var members: [(String, JSONValue)] = [
            ("jobname", .text(result.name)),
            ("groupid", .integer(0)),
            ("error", .integer(Int64(result.firstError))),
            ("eta", .integer(result.errors > 0 ? 2_147_483_647 : 0)),
            ("elapsed", .unsigned(max(1, report.elapsed))),
            (
                "job options",
                .object(
                    options.filter { !ofReport.contains($0.name) }.map {
                        ($0.name, .text($0.value))
                    })
            ),
            ("read", direction(result.read)),
            ("write", direction(result.write)),
            ("trim", direction(DirectionResult())),
            (
                "sync",
                .object([
                    ("total_ios", .unsigned(result.syncs)), ("lat_ns", statistic(result.sync)),
                ])
            ),
            ("job_runtime", .unsigned(result.milliseconds)),
            ("usr_cpu", .number(100 * Double(result.use.user) / totalRuntime)),
            ("sys_cpu", .number(100 * Double(result.use.system) / totalRuntime)),
            ("ctx", .integer(result.use.switches)),
            ("majf", .integer(result.use.majorFaults)),
            ("minf", .integer(result.use.minorFaults)),
            ("iodepth_level", labelled(depthLabels, result.depth.percents)),
            ("iodepth_submit", labelled(batchLabels, result.submitted.percents)),
            ("iodepth_complete", labelled(batchLabels, result.completed.percents)),
        ]
        let all = result.read.operations + result.write.operations
        members += [
            ("latency_ns", steps(result.steps.nanoseconds, all)),
            ("latency_us", steps(result.steps.microseconds, all)),
            ("latency_ms", steps(result.steps.milliseconds, all)),
        ]
        if result.errors > 0 {
            members += [
                ("total_err", .unsigned(result.errors)),
                ("first_error", .integer(Int64(result.firstError))),
            ]
        }
        members += [
            ("latency_depth", .integer(Int64(report.options.depth))),
            ("latency_target", .integer(0)),
            ("latency_percentile", .number(100)),
            ("latency_window", .integer(0)),
            ("kv", extensionObject(result, report)),
        ]
        return .object(members)
    }

    private static func extensionObject(_ result: JobResult, _ report: RunReport) -> JSONValue {
        var members: [(String, JSONValue)] = [
            ("engine", .text(report.engineName)),
            ("misses", .unsigned(result.read.misses)),
            ("verify_errors", .unsigned(result.verifyErrors)),
        ]
        if case .object(let more)? = result.kv { members += more }
        return .object(members)
    }

    static let depthLabels = ["1", "2", "4", "8", "16", "32", ">=64"]
    static let batchLabels = ["0", "4", "8", "16", "32", "64", ">=64"]
    static let stepLabels =
        LatencySteps.bounds.map { String($0) } + ["2000", ">=2000"]

    private static func labelled(_ labels: [String], _ values: [Double]) -> JSONValue {
        .object(zip(labels, values).map { ($0, .number($1)) })
    }

    private static func steps(_ counts: [UInt64], _ all: UInt64) -> JSONValue {
        // zip ends with the shorter: the steps up to 1000 ns and us have no further label.
        labelled(stepLabels, counts.map { all == 0 ? 0 : 100 * Double($0) / Double(all) })
    }

    private static func statistic(
        _ sample: SampleStatistic, histogram: LatencyHistogram? = nil
    ) -> JSONValue {
        var members: [(String, JSONValue)] = [
            ("min", .unsigned(sample.smallest)),
            ("max", .unsigned(sample.maximum)),
            ("mean", .number(sample.mean)),
            ("stddev", .number(sample.deviation)),
            ("N", .unsigned(sample.count)),
        ]
        if let histogram, histogram.total > 0 {
            let list = LatencyHistogram.defaultPercentiles
            members.append(
                (
                    "percentile",
                    .object(
                        zip(list, histogram.percentiles(list)).map {
                            (formatted("%f", $0), .unsigned($1))
                        })
                ))
        }
        return .object(members)
    }

    private static func direction(_ result: DirectionResult) -> JSONValue {
        var members: [(String, JSONValue)] = [
            ("io_bytes", .unsigned(result.bytes)),
            ("io_kbytes", .unsigned(result.bytes >> 10)),
            ("bw_bytes", .unsigned(result.bytesPerSecond)),
            ("bw", .unsigned(result.bytesPerSecond >> 10)),
            ("iops", .number(result.operationsPerSecond)),
            ("runtime", .unsigned(result.milliseconds)),
            ("total_ios", .unsigned(result.operations)),
            ("short_ios", .unsigned(0)),
            ("drop_ios", .unsigned(0)),
            ("slat_ns", statistic(result.submission)),
            ("clat_ns", statistic(result.completion, histogram: result.histogram)),
            ("lat_ns", statistic(result.total)),
            ("bw_min", .unsigned(result.bandwidth.smallest)),
            ("bw_max", .unsigned(result.bandwidth.maximum)),
            ("bw_agg", .number(result.shareOfAggregate)),
            ("bw_mean", .number(result.bandwidth.mean)),
            ("bw_dev", .number(result.bandwidth.deviation)),
            ("bw_samples", .unsigned(result.bandwidth.count)),
            ("iops_min", .unsigned(result.rate.smallest)),
            ("iops_max", .unsigned(result.rate.maximum)),
            ("iops_mean", .number(result.rate.mean)),
            ("iops_stddev", .number(result.rate.deviation)),
            ("iops_samples", .unsigned(result.rate.count)),
        ]
        if result.misses > 0 {
            let all = Double(result.misses + result.operations)
            members.append(("cachehit", .number(100 * Double(result.operations) / all)))
        }
        return .object(members)
    }

    private static func disk(_ use: DiskUse) -> JSONValue {
        .object([
            ("name", .text(use.name)),
            ("read_ios", .unsigned(use.reads)),
            ("write_ios", .unsigned(use.writes)),
            ("read_merges", .unsigned(use.readMerges)),
            ("write_merges", .unsigned(use.writeMerges)),
            ("read_ticks", .unsigned(use.readTicks)),
            ("write_ticks", .unsigned(use.writeTicks)),
            ("in_queue", .unsigned(use.queueTicks)),
            ("util", .number(use.busy)),
        ])
    }
}

extension DirectionResult {
    /// Percent of the whole that the samples' mean is; at most 100, 0 without samples.
    var shareOfAggregate: Double {
        guard bandwidth.count > 0, bytesPerSecond > 0 else { return 0 }
        return min(100, bandwidth.mean * 100 / (Double(bytesPerSecond) / 1024))
    }
}
