// Statistics as JSON: written by hand, since the core takes no Foundation. Names are those of the
// Swift properties.

extension Statistics {
    /// The statistics as one JSON object, with the names of the Swift properties.
    public func json() -> String {
        var writer = JSONText()
        write(&writer)
        return writer.text
    }

    func write(_ text: inout some StatisticsText) {
        text.object {
            $0.field("gets") { gets.write(&$0) }
            $0.field("puts") { puts.write(&$0) }
            $0.field("deletes") { deletes.write(&$0) }
            $0.field("reads") { reads.write(&$0) }
            $0.field("scrub") { scrub.write(&$0) }
            $0.field("writes") { writes.write(&$0) }
            $0.field("space") { space.write(&$0) }
            $0.field("reclaim") { reclaim.write(&$0) }
            $0.field("trouble") { trouble.write(&$0) }
            $0.field("memory") { memory.write(&$0) }
            $0.field("hints") { hints.write(&$0) }
            $0.field("prefetch") { prefetch.write(&$0) }
            $0.field("tiers") { tiers.write(&$0) }
            $0.field("prefixes") { prefixes.write(&$0) }
            $0.field("recording") { recording.write(&$0) }
            $0.field("driver") { driver.write(&$0) }
            $0.field("devices") { $0.array(devices) { $1.write(&$0) } }
            $0.field("recovery") { recovery.write(&$0) }
            $0.number("durableVersion", durableVersion)
        }
    }
}

/// A form that statistics are written in, name by name.
protocol StatisticsText {
    mutating func object(_ body: (inout Self) -> Void)
    mutating func array<Element>(_ elements: [Element], _ body: (inout Self, Element) -> Void)
    mutating func field(_ name: String, _ value: (inout Self) -> Void)
    mutating func number(_ name: String, _ value: some FixedWidthInteger)
    mutating func number(_ name: String, _ value: Double)
    mutating func flag(_ name: String, _ value: Bool)
    mutating func string(_ name: String, _ value: String)
    mutating func counts(_ name: String, _ counts: [String: UInt64])
    mutating func latency(_ name: String, _ summary: LatencySummary)
}

/// Builds JSON text.
struct JSONText: StatisticsText {
    private(set) var text = ""
    private var needsComma = false

    mutating func object(_ body: (inout JSONText) -> Void) {
        text += "{"
        needsComma = false
        body(&self)
        text += "}"
        needsComma = true
    }

    mutating func array<Element>(
        _ elements: [Element], _ body: (inout JSONText, Element) -> Void
    ) {
        text += "["
        needsComma = false
        for element in elements {
            if needsComma { text += "," }
            body(&self, element)
            needsComma = true
        }
        text += "]"
        needsComma = true
    }

    mutating func field(_ name: String, _ value: (inout JSONText) -> Void) {
        if needsComma { text += "," }
        quote(name)
        text += ":"
        value(&self)
        needsComma = true
    }

    mutating func number(_ name: String, _ value: some FixedWidthInteger) {
        field(name) { $0.text += String(value) }
    }

    mutating func number(_ name: String, _ value: Double) {
        field(name) { $0.text += value.isFinite ? "\(value)" : "0" }
    }

    mutating func flag(_ name: String, _ value: Bool) {
        field(name) { $0.text += value ? "true" : "false" }
    }

    mutating func string(_ name: String, _ value: String) { field(name) { $0.quote(value) } }

    mutating func counts(_ name: String, _ counts: [String: UInt64]) {
        field(name) { writer in
            writer.object { object in
                for (key, value) in counts.sorted(by: { $0.key < $1.key }) {
                    object.number(key, value)
                }
            }
        }
    }

    mutating func latency(_ name: String, _ summary: LatencySummary) {
        field(name) { writer in
            writer.object {
                $0.number("count", summary.count)
                $0.number("sum", summary.sum)
                $0.number("mean", summary.mean)
                $0.number("p50", summary.p50)
                $0.number("p90", summary.p90)
                $0.number("p99", summary.p99)
                $0.number("p999", summary.p999)
                $0.number("max", summary.max)
            }
        }
    }

    private mutating func quote(_ value: String) {
        text += "\""
        for scalar in value.unicodeScalars {
            switch scalar {
            case "\"": text += "\\\""
            case "\\": text += "\\\\"
            case "\n": text += "\\n"
            case "\r": text += "\\r"
            case "\t": text += "\\t"
            default:
                if scalar.value < 0x20 {
                    let digits = String(scalar.value, radix: 16)
                    text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
                } else {
                    text.unicodeScalars.append(scalar)
                }
            }
        }
        text += "\""
    }
}
