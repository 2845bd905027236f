// Statistics as Prometheus text (exposition format 0.0.4). Names are those of the JSON, in snake
// case behind `hearth_`: `gets.hitsStaging` is `hearth_gets_hits_staging`. Counts by name become
// labels, latencies summaries in nanoseconds, words labels of an `_info` metric.

extension Statistics {
    /// The statistics as Prometheus text.
    public func prometheus() -> String {
        var writer = PrometheusText()
        write(&writer)
        return writer.text
    }
}

struct PrometheusText: StatisticsText {
    private enum Kind: String {
        case counter, gauge, summary
    }

    private struct Metric {
        var name: String
        var kind: Kind
        var help: String
        var samples: [String] = []
    }

    /// In the order of their first sample; a metric's samples stand together.
    private var metrics: [Metric] = []
    private var places: [String: Int] = [:]
    private var path: [String] = []
    /// The element of an array that is being written, as a label.
    private var element: (name: String, value: Int)?
    private var words: [(name: String, value: String)] = []

    var text: String {
        var made = ""
        for metric in metrics {
            made += "# HELP \(metric.name) \(metric.help)\n# TYPE \(metric.name) \(metric.kind)\n"
            for sample in metric.samples { made += sample + "\n" }
        }
        return made
    }

    // MARK: StatisticsText

    mutating func object(_ body: (inout PrometheusText) -> Void) {
        let outer = words
        words = []
        body(&self)
        if !words.isEmpty {
            let name = (path + ["info"]).joined(separator: "_")
            add(name, .gauge, "Always 1; the words are in the labels.", labels: words, "1")
        }
        words = outer
    }

    mutating func array<Element>(
        _ elements: [Element], _ body: (inout PrometheusText, Element) -> Void
    ) {
        let name = path.last.map { $0.hasSuffix("s") ? String($0.dropLast()) : $0 } ?? "element"
        for (number, value) in elements.enumerated() {
            element = (name, number)
            body(&self, value)
        }
        element = nil
    }

    mutating func field(_ name: String, _ value: (inout PrometheusText) -> Void) {
        path.append(Self.snake(name))
        value(&self)
        path.removeLast()
    }

    mutating func number(_ name: String, _ value: some FixedWidthInteger) {
        add(name, String(value))
    }

    mutating func number(_ name: String, _ value: Double) {
        add(name, value.isFinite ? "\(value)" : "0")
    }

    mutating func flag(_ name: String, _ value: Bool) { add(name, value ? "1" : "0") }

    mutating func string(_ name: String, _ value: String) {
        words.append((Self.snake(name), value))
    }

    mutating func counts(_ name: String, _ counts: [String: UInt64]) {
        let snake = Self.snake(name)
        let label = snake.split(separator: "_").last.map(String.init) ?? "name"
        let full = (path + [snake]).joined(separator: "_")
        for (key, value) in counts.sorted(by: { $0.key < $1.key }) {
            add(
                full, .counter, Self.help(path, name) + ", by \(label)",
                labels: [(label, Self.snake(key))], String(value))
        }
    }

    mutating func latency(_ name: String, _ summary: LatencySummary) {
        let full = (path + [Self.snake(name)]).joined(separator: "_")
        let help = Self.help(path, name) + ", nanoseconds"
        let quantiles = [
            ("0.5", summary.p50), ("0.9", summary.p90), ("0.99", summary.p99),
            ("0.999", summary.p999), ("1", summary.max),
        ]
        for (quantile, value) in quantiles {
            add(full, .summary, help, labels: [("quantile", quantile)], String(value))
        }
        add(full, .summary, help, suffix: "_sum", String(summary.sum))
        add(full, .summary, help, suffix: "_count", String(summary.count))
    }

    // MARK: Metrics

    /// What only grows while the store is open is a counter; these parts tell how things are.
    private static let states: Set<String> = [
        "space", "memory", "devices", "recovery", "durable_version", "amplification",
        "mean_device_nanoseconds", "coverage", "accuracy", "timely", "lateness_mean",
        "lateness_p99", "waiting", "in_flight", "unused_bytes", "sessions",
        "capacity", "used", "held", "bytes_per_second", "copying",
    ]

    private mutating func add(_ name: String, _ value: String) {
        let snake = Self.snake(name)
        let isState = Self.states.contains(path.first ?? snake) || Self.states.contains(snake)
        add(
            (path + [snake]).joined(separator: "_"), isState ? .gauge : .counter,
            Self.help(path, name), value)
    }

    private mutating func add(
        _ name: String, _ kind: Kind, _ help: String, labels: [(name: String, value: String)] = [],
        suffix: String = "", _ value: String
    ) {
        let full = "hearth_" + name
        var labels = labels
        if let element { labels.insert((element.name, String(element.value)), at: 0) }
        let list = labels.map { "\($0.name)=\"\(Self.escaped($0.value))\"" }.joined(separator: ",")
        let sample = full + suffix + (list.isEmpty ? "" : "{\(list)}") + " " + value
        if let place = places[full] {
            metrics[place].samples.append(sample)
        } else {
            places[full] = metrics.count
            metrics.append(Metric(name: full, kind: kind, help: help + ".", samples: [sample]))
        }
    }

    private static func escaped(_ value: String) -> String {
        var made = ""
        for scalar in value.unicodeScalars {
            switch scalar {
            case "\\": made += "\\\\"
            case "\"": made += "\\\""
            case "\n": made += "\\n"
            default: made.unicodeScalars.append(scalar)
            }
        }
        return made
    }

    /// camelCase to snake_case; a status's own words too.
    static func snake(_ name: String) -> String {
        var made = ""
        for scalar in name.unicodeScalars {
            if ("A"..."Z").contains(scalar) {
                if !made.isEmpty { made += "_" }
                made += String(scalar).lowercased()
            } else {
                made.unicodeScalars.append(scalar)
            }
        }
        return made
    }

    /// "gets, hits staging": the part, then the name in words.
    private static func help(_ path: [String], _ name: String) -> String {
        let words = snake(name).split(separator: "_").joined(separator: " ")
        let parts = path.map { $0.split(separator: "_").joined(separator: " ") }
        let all = (parts + [words]).joined(separator: ": ")
        return all.prefix(1).uppercased() + all.dropFirst()
    }
}
