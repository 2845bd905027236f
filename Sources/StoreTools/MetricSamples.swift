// MetricSamples: the samples of a Prometheus text by name, as far as Hearth's own text goes: `name`
// or `name{label="value",…}`, a space, a number. What does not look like that is passed over.

package struct MetricSamples: Sendable {
    private struct Sample {
        var labels: [(name: String, value: String)]
        var value: Double
    }

    private var values: [String: Double] = [:]
    private var labelled: [String: [Sample]] = [:]

    package init(_ text: String) {
        for line in text.split(separator: "\n") where !line.hasPrefix("#") {
            guard let space = line.lastIndex(of: " "),
                let value = Double(line[line.index(after: space)...])
            else { continue }
            let name = line[..<space]
            guard let brace = name.firstIndex(of: "{"), name.last == "}" else {
                values[String(name)] = value
                continue
            }
            let labels = Self.labels(name[name.index(after: brace)...].dropLast())
            labelled[String(name[..<brace]), default: []].append(
                Sample(labels: labels, value: value))
        }
    }

    /// A sample without labels, by its name behind `hearth_`; 0 where there is none.
    package subscript(_ name: String) -> Double { values["hearth_" + name] ?? 0 }

    /// The same as a whole number.
    package func count(_ name: String) -> UInt64 { UInt64(clamping: Self.whole(self[name])) }

    /// A summary's quantile, such as "0.99".
    package func quantile(_ name: String, _ quantile: String) -> UInt64 {
        let found = labelled["hearth_" + name]?.first {
            $0.labels.contains { $0.name == "quantile" && $0.value == quantile }
        }
        return UInt64(clamping: Self.whole(found?.value ?? 0))
    }

    /// The samples of a metric by their first label's value, in their order.
    package func byLabel(_ name: String) -> [(label: String, value: UInt64)] {
        (labelled["hearth_" + name] ?? []).compactMap { sample in
            sample.labels.first.map { ($0.value, UInt64(clamping: Self.whole(sample.value))) }
        }
    }

    /// The words of an `_info` metric's samples.
    package func words(_ name: String) -> [[String: String]] {
        (labelled["hearth_" + name] ?? []).map { sample in
            Dictionary(
                sample.labels.map { ($0.name, $0.value) }, uniquingKeysWith: { one, _ in one })
        }
    }

    private static func whole(_ value: Double) -> Int64 {
        value.isFinite && value >= 0 && value < 9e18 ? Int64(value) : 0
    }

    /// `name="value"` pairs; a backslash makes the next character part of the value.
    private static func labels(_ text: Substring) -> [(name: String, value: String)] {
        var found: [(name: String, value: String)] = []
        var rest = text
        while let equals = rest.firstIndex(of: "=") {
            let name = String(rest[..<equals].drop { $0 == "," })
            rest = rest[equals...].dropFirst()
            guard rest.first == "\"" else { break }
            rest = rest.dropFirst()
            var value = ""
            while let next = rest.popFirst(), next != "\"" {
                if next != "\\" {
                    value.append(next)
                } else if let escaped = rest.popFirst() {
                    value.append(escaped == "n" ? "\n" : escaped)
                }
            }
            found.append((name, value))
        }
        return found
    }
}
