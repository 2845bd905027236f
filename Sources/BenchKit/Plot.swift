// Plot: a chart as SVG text that stands in a page by itself: lines over a scale, or bars over
// words. Colours come from the page's style (`s0`, `s1`, ...), so that they follow light and dark;
// lines differ in dashes and marks, too, and every mark tells its figures.

package struct Plot: Sendable {
    package struct Line: Sendable {
        package var name: String
        package var points: [(x: Double, y: Double)]
        package init(_ name: String, _ points: [(x: Double, y: Double)]) {
            (self.name, self.points) = (name, points)
        }
    }

    package struct Axis: Sendable {
        package var label: String
        /// Powers of ten at equal distances; what is not above 0 is left out.
        package var isLogarithmic = false
        package init(_ label: String, isLogarithmic: Bool = false) {
            (self.label, self.isLogarithmic) = (label, isLogarithmic)
        }
    }

    private static let (width, height) = (680.0, 320.0)
    private static let (left, right, top, bottom) = (64.0, 16.0, 12.0, 44.0)

    // MARK: Scales

    /// From values to places, with the values that are named on the axis.
    struct Scale {
        var low: Double
        var high: Double
        var isLogarithmic: Bool
        var ticks: [Double] = []

        /// Around these values; a linear scale begins at 0.
        init(_ values: [Double], isLogarithmic: Bool) {
            self.isLogarithmic = isLogarithmic
            let usable = values.filter { $0.isFinite && (!isLogarithmic || $0 > 0) }
            let most = usable.max() ?? 1
            if isLogarithmic {
                let least = usable.min() ?? 1
                var (first, last) = (0, 0)
                while Scale.power(first) > least { first -= 1 }
                while Scale.power(first + 1) <= least { first += 1 }
                last = first
                while Scale.power(last) < most { last += 1 }
                last = max(last, first + 1)
                (low, high) = (Scale.power(first), Scale.power(last))
                for exponent in first...last { ticks.append(Scale.power(exponent)) }
            } else {
                let step = Scale.step(max(most, 1e-9) / 5)
                low = 0
                high = 0
                while high < most * 0.999 || high == 0 { high += step }
                var tick = 0.0
                while tick <= high * 1.0001 {
                    ticks.append(tick)
                    tick += step
                }
            }
        }

        static func power(_ exponent: Int) -> Double {
            var made = 1.0
            for _ in 0..<abs(exponent) { made *= 10 }
            return exponent < 0 ? 1 / made : made
        }

        /// 1, 2 or 5 times a power of ten, not below.
        private static func step(_ least: Double) -> Double {
            var exponent = 0
            while power(exponent) > least { exponent -= 1 }
            while power(exponent + 1) <= least { exponent += 1 }
            let unit = power(exponent)
            return ([1, 2, 5, 10].first { $0 * unit >= least * 0.9999 } ?? 10) * unit
        }

        /// 0 to 1; nil for what is not on it.
        func place(_ value: Double) -> Double? {
            guard value.isFinite, !isLogarithmic || value > 0 else { return nil }
            if !isLogarithmic { return (value - low) / (high - low) }
            return (Self.log2(value) - Self.log2(low)) / (Self.log2(high) - Self.log2(low))
        }

        /// Without a library of mathematics: exponent and a series of the significand.
        private static func log2(_ value: Double) -> Double {
            let z = (value.significand - 1) / (value.significand + 1)
            var (term, sum) = (z, 0.0)
            for odd in stride(from: 1, through: 41, by: 2) {
                sum += term / Double(odd)
                term *= z * z
            }
            return Double(value.exponent) + 2 * sum / 0.693_147_180_559_945_3
        }
    }

    // MARK: Lines

    package static func lines(_ lines: [Line], x: Axis, y: Axis) -> String {
        let across = Scale(lines.flatMap { $0.points.map(\.x) }, isLogarithmic: x.isLogarithmic)
        let up = Scale(lines.flatMap { $0.points.map(\.y) }, isLogarithmic: y.isLogarithmic)
        var out = begin() + frame(up, y.label)
        for tick in across.ticks {
            guard let place = across.place(tick) else { continue }
            out += label(number(tick), x: left + place * plotWidth, y: height - bottom + 16)
        }
        out += label(x.label, x: left + plotWidth / 2, y: height - 8)
        for (index, line) in lines.enumerated() {
            let places = line.points.compactMap { point -> (x: Double, y: Double, text: String)? in
                guard let right = across.place(point.x), let high = up.place(point.y) else {
                    return nil
                }
                return (
                    left + right * plotWidth, height - bottom - high * plotHeight,
                    "\(line.name): \(number(point.x)), \(number(point.y))"
                )
            }
            out += path(places.map { ($0.x, $0.y) }, index)
            for place in places { out += mark(place.x, place.y, index, place.text) }
        }
        return out + "</svg>\n" + legend(lines.map(\.name))
    }

    private static func path(_ places: [(Double, Double)], _ index: Int) -> String {
        guard places.count > 1 else { return "" }
        let points = places.map { formatted("%.1f,%.1f", $0.0, $0.1) }.joined(separator: " ")
        return "<polyline class=\"line s\(index % 5) d\(index % 5)\" points=\"\(points)\"/>\n"
    }

    /// A circle, a square, a diamond or a triangle.
    private static func mark(_ x: Double, _ y: Double, _ index: Int, _ text: String) -> String {
        let title = "<title>\(escaped(text))</title>"
        let kind = "class=\"mark s\(index % 5)\""
        switch index % 4 {
        case 0:
            return formatted("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" ", x, y)
                + "\(kind)>\(title)</circle>\n"
        case 1:
            return formatted("<rect x=\"%.1f\" y=\"%.1f\" width=\"8\" height=\"8\" ", x - 4, y - 4)
                + "\(kind)>\(title)</rect>\n"
        case 2:
            return formatted(
                "<polygon points=\"%.1f,%.1f %.1f,%.1f %.1f,%.1f %.1f,%.1f\" ", x, y - 5, x + 5, y,
                x, y + 5, x - 5, y) + "\(kind)>\(title)</polygon>\n"
        default:
            return formatted(
                "<polygon points=\"%.1f,%.1f %.1f,%.1f %.1f,%.1f\" ", x, y - 5, x + 5, y + 4,
                x - 5, y + 4) + "\(kind)>\(title)</polygon>\n"
        }
    }

    // MARK: Bars

    /// Bars over words; those of a second kind have another colour.
    package static func bars(
        _ bars: [(label: String, value: Double, kind: Int)], x: String, y: String, kinds: [String]
    ) -> String {
        let up = Scale(bars.map(\.value), isLogarithmic: false)
        var out = begin() + frame(up, y) + label(x, x: left + plotWidth / 2, y: height - 8)
        let each = plotWidth / Double(max(1, bars.count))
        for (index, bar) in bars.enumerated() {
            let tall = (up.place(bar.value) ?? 0) * plotHeight
            let start = left + Double(index) * each
            out +=
                formatted(
                    "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" ", start + 1,
                    height - bottom - tall, max(1, each - 2), tall)
                + "class=\"bar s\(bar.kind % 5)\"><title>\(escaped(bar.label)): "
                + "\(number(bar.value))</title></rect>\n"
            // Not more words than there is room for.
            if index % max(1, Int((48 / each).rounded(.up))) == 0 {
                out += label(bar.label, x: start + each / 2, y: height - bottom + 16)
            }
        }
        return out + "</svg>\n" + legend(kinds)
    }

    // MARK: Parts

    private static var plotWidth: Double { width - left - right }
    private static var plotHeight: Double { height - top - bottom }

    private static func begin() -> String {
        formatted("<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\">\n", width, height)
    }

    private static func frame(_ up: Scale, _ name: String) -> String {
        var out = ""
        for tick in up.ticks {
            let y = height - bottom - (up.place(tick) ?? 0) * plotHeight
            out += formatted(
                "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n", left,
                width - right, y, y)
            out +=
                formatted("<text class=\"end\" x=\"%.1f\" y=\"%.1f\">", left - 6, y + 4)
                + "\(number(tick))</text>\n"
        }
        let middle = top + plotHeight / 2
        return out
            + formatted("<text transform=\"translate(14 %.1f) rotate(-90)\">", middle)
            + escaped(name) + "</text>\n"
    }

    private static func label(_ text: String, x: Double, y: Double) -> String {
        formatted("<text x=\"%.1f\" y=\"%.1f\">", x, y) + escaped(text) + "</text>\n"
    }

    private static func legend(_ names: [String]) -> String {
        let items = names.enumerated().map { index, name in
            "<span><i class=\"key s\(index % 5)\"></i>\(escaped(name))</span>"
        }
        return "<p class=\"legend\">\(items.joined(separator: "\n"))</p>\n"
    }

    /// Four figures, without noughts at the end.
    package static func number(_ value: Double) -> String { formatted("%.4g", value) }

    package static func escaped(_ text: String) -> String {
        var out = ""
        for letter in text {
            switch letter {
            case "&": out += "&amp;"
            case "<": out += "&lt;"
            case ">": out += "&gt;"
            case "\"": out += "&quot;"
            default: out.append(letter)
            }
        }
        return out
    }
}
