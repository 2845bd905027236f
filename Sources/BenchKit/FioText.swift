// FioText: results in fio's normal output, line for line, so that whatever reads fio's reads ours.

import Glibc

package enum FioText {
    package static func header(_ report: RunReport) -> String {
        let options = report.options
        let size = figure(options.blockBytes, digits: 4, binary: true, unit: "B")
        let range = "\(size)-\(size)"
        let more = options.jobs > 1 ? "...\n" : ""
        let threads = options.jobs == 1 ? "1 thread" : "\(options.jobs) threads"
        return "\(options.name): (g=0): rw=\(options.pattern.fioName), "
            + "bs=(R) \(range), (W) \(range), (T) \(range), "
            + "ioengine=\(options.engine.rawValue), iodepth=\(options.depth)\n"
            + "\(more)\(FioReport.fioVersion)\nStarting \(threads)\n"
    }

    package static func report(_ report: RunReport) -> String {
        var out = header(report)
        let groups = FioReport.groups(report)
        for result in groups { out += job(result, report) }
        out += "\nRun status group 0 (all jobs):\n"
        out += group("READ", report.results.map(\.read))
        out += group("WRITE", report.results.map(\.write))
        if !report.disks.isEmpty { out += "\nDisk stats (read/write):\n" }
        for disk in report.disks {
            out +=
                "  \(disk.name): ios=\(disk.reads)/\(disk.writes), "
                + "merge=\(disk.readMerges)/\(disk.writeMerges), "
                + "ticks=\(disk.readTicks)/\(disk.writeTicks), in_queue=\(disk.queueTicks), "
                + formatted("util=%3.2f%%\n", disk.busy)
        }
        return out
    }

    private static func job(_ result: JobResult, _ report: RunReport) -> String {
        var out = "\n\(result.name): (groupid=0, jobs=\(result.jobs)): "
        if result.firstError != 0 {
            out += formatted("err=%2d (", result.firstError) + result.firstErrorText + ")"
        } else {
            out += "err= 0"
        }
        out += ": pid=\(getpid()): \(calendarText(Int(wallMilliseconds() / 1000)))\n"
        out += direction("read", result.read, "")
        out += direction("write", result.write, "; 0 zone resets")
        out += latencySteps(result)
        let runtime = Double(max(1, result.runtime))
        out += formatted(
            "  cpu          : usr=%3.2f%%, sys=%3.2f%%, ctx=%lld, majf=%lld, minf=%lld\n",
            100 * Double(result.use.user) / runtime, 100 * Double(result.use.system) / runtime,
            result.use.switches, result.use.majorFaults, result.use.minorFaults)
        out += "  IO depths    : " + depths(FioReport.depthLabels, result.depth.percents)
        out += "     submit    : " + depths(FioReport.batchLabels, result.submitted.percents)
        out += "     complete  : " + depths(FioReport.batchLabels, result.completed.percents)
        out +=
            "     issued rwts: total=\(result.read.operations),\(result.write.operations),0,"
            + "\(result.syncs) short=0,0,0,0 dropped=0,0,0,0\n"
        out +=
            "     latency   : target=0, window=0, percentile=100.00%, "
            + "depth=\(report.options.depth)\n"
        out += store(result, report)
        return out
    }

    /// The one block of lines that fio does not have.
    private static func store(_ result: JobResult, _ report: RunReport) -> String {
        var out =
            "  kv           : engine=\(report.engineName), misses=\(result.read.misses), "
            + "verify_errors=\(result.verifyErrors)\n"
        guard case .object(let members)? = result.kv else { return out }
        var words: [String] = []
        for (name, value) in members {
            switch value {
            case .object, .array: continue
            case .number(let number): words.append("\(name)=\(formatted("%.3f", number))")
            case .text(let text): words.append("\(name)=\(text)")
            default: words.append("\(name)=\(value.description)")
            }
        }
        while !words.isEmpty {
            out += "     " + words.prefix(4).joined(separator: ", ") + "\n"
            words.removeFirst(min(4, words.count))
        }
        return out
    }

    private static func depths(_ labels: [String], _ values: [Double]) -> String {
        zip(labels, values).map { formatted("\($0)=%3.1f%%", $1) }.joined(separator: ", ") + "\n"
    }

    static func bandwidth(_ bytesPerSecond: UInt64) -> (binary: String, decimal: String) {
        (
            figure(bytesPerSecond, binary: true, unit: "B/s"),
            figure(bytesPerSecond, binary: false, unit: "B/s")
        )
    }

    private static func direction(
        _ name: String, _ result: DirectionResult, _ tail: String
    ) -> String {
        guard result.operations > 0 else { return "" }
        let rate = bandwidth(result.bytesPerSecond)
        var out =
            "  \(name): IOPS=\(figure(UInt64(result.operationsPerSecond), binary: false)), "
            + "BW=\(rate.binary) (\(rate.decimal))"
            + "(\(figure(result.bytes, binary: true, unit: "B"))/\(result.milliseconds)msec)"
            + "\(tail)\n"
        if result.submission.count > 0 { out += latency("slat", result.submission) }
        out += latency("clat", result.completion)
        out += latency(" lat", result.total)
        out += percentiles(result.histogram)
        out += samples(result)
        return out
    }

    private static func latency(_ name: String, _ sample: SampleStatistic) -> String {
        var (low, high, mean, deviation) = (
            sample.smallest, sample.maximum, sample.mean, sample.deviation
        )
        var unit = "nsec"
        for next in ["usec", "msec"] where low > 2000 && high > 99_999 && deviation > 1000 {
            (low, high, mean, deviation) = (low / 1000, high / 1000, mean / 1000, deviation / 1000)
            unit = next
        }
        return "    \(name) (\(unit)): min=\(figure(low, digits: 6, binary: false)), "
            + "max=\(figure(high, digits: 6, binary: false)), "
            + formatted("avg=%5.2f, stdev=%5.2f\n", mean, deviation)
    }

    private static func percentiles(_ histogram: LatencyHistogram) -> String {
        let list = LatencyHistogram.defaultPercentiles
        let values = histogram.percentiles(list)
        let low = values.min() ?? 0
        let high = values.max() ?? 0
        var (unit, step): (String, UInt64) = ("nsec", 1)
        if low > 2_000_000, high > 99_999_999 {
            (unit, step) = ("msec", 1_000_000)
        } else if low > 2000, high > 99_999 {
            (unit, step) = ("usec", 1000)
        }
        var out = "    clat percentiles (\(unit)):\n     |"
        let perLine = 4
        for (index, pair) in zip(list, values).enumerated() {
            if index > 0, index % perLine == 0 { out += "     |" }
            let value = step == 1 ? pair.1 : (pair.1 + step - 1) / step
            out += formatted(" %5.2fth=[%5llu]", pair.0, value)
            let last = index == list.count - 1
            out += last ? "\n" : (index % perLine == perLine - 1 ? ",\n" : ",")
        }
        return out
    }

    private static func samples(_ result: DirectionResult) -> String {
        guard result.bandwidth.count > 0 else { return "" }
        var (low, high, mean, deviation) = (
            result.bandwidth.smallest, result.bandwidth.maximum, result.bandwidth.mean,
            result.bandwidth.deviation
        )
        var unit = "  KiB/s"
        if low > 99_999, high > 999_999 {
            (low, high, mean, deviation) = (low / 1024, high / 1024, mean / 1024, deviation / 1024)
            unit = "  MiB/s"
        }
        let share = result.shareOfAggregate
        return "   bw (\(unit)): min=\(leading(low)), max=\(leading(high)), "
            + formatted(
                "per=%3.2f%%, avg=%5.2f, stdev=%5.2f, samples=%llu\n", share, mean, deviation,
                result.bandwidth.count)
            + "   iops        : min=\(leading(result.rate.smallest)), "
            + "max=\(leading(result.rate.maximum)), "
            + formatted(
                "avg=%5.2f, stdev=%5.2f, samples=%llu\n", result.rate.mean, result.rate.deviation,
                result.rate.count)
    }

    private static func leading(_ value: UInt64) -> String { formatted("%5llu", value) }

    private static func latencySteps(_ result: JobResult) -> String {
        let all = Double(max(1, result.read.operations + result.write.operations))
        var out = ""
        for (unit, counts) in [
            ("nsec", result.steps.nanoseconds), ("usec", result.steps.microseconds),
            ("msec", result.steps.milliseconds),
        ] {
            let words = zip(FioReport.stepLabels, counts).filter { $1 > 0 }.map { label, count in
                // fio never rounds what occurred down to nothing.
                formatted("\(label)=%3.2f%%", max(0.01, 100 * Double(count) / all))
            }
            for start in stride(from: 0, to: words.count, by: 5) {
                let line = words[start..<min(start + 5, words.count)].joined(separator: ", ")
                out += "  lat (\(unit))   : \(line)\n"
            }
        }
        return out
    }

    private static func group(_ name: String, _ results: [DirectionResult]) -> String {
        let active = results.filter { $0.operations > 0 }
        guard !active.isEmpty else { return "" }
        let bytes = active.reduce(0) { $0 + $1.bytes }
        let longest = active.map(\.runtime).max() ?? 1
        let all = bandwidth(UInt64(Double(bytes) / (Double(max(1, longest)) / 1e9)))
        let rates = active.map(\.bytesPerSecond)
        let low = bandwidth(rates.min() ?? 0)
        let high = bandwidth(rates.max() ?? 0)
        let times = active.map(\.milliseconds)
        return String(repeating: " ", count: 7 - name.count) + name
            + ": bw=\(all.binary) (\(all.decimal)), \(low.binary)-\(high.binary) "
            + "(\(low.decimal)-\(high.decimal)), "
            + "io=\(figure(bytes, binary: true, unit: "B")) "
            + "(\(figure(bytes, binary: false, unit: "B"))), "
            + "run=\(times.min() ?? 0)-\(times.max() ?? 0)msec\n"
    }
}
