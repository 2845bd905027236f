// Figures: numbers, sizes and times as people read them, and columns of text.

import Glibc
import SegmentFormat

package enum Figures {
    /// Bytes with a binary unit: "1.5 GiB".
    package static func size(_ bytes: UInt64) -> String {
        let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
        var value = Double(bytes)
        var unit = 0
        while value >= 1024, unit + 1 < units.count {
            value /= 1024
            unit += 1
        }
        return unit == 0 ? "\(bytes) B" : "\(decimal(value, value < 10 ? 2 : 1)) \(units[unit])"
    }

    /// A number with so many places behind the point.
    package static func decimal(_ value: Double, _ places: Int) -> String {
        guard value.isFinite, abs(value) < 1e15 else { return "0" }
        var scale = 1.0
        for _ in 0..<places { scale *= 10 }
        let all = Int64((abs(value) * scale).rounded())
        let sign = value < 0 && all != 0 ? "-" : ""
        if places == 0 { return sign + String(all) }
        let whole = all / Int64(scale)
        let rest = all % Int64(scale)
        return sign + "\(whole)." + padded(String(rest), places, with: "0")
    }

    package static func percent(_ part: UInt64, of all: UInt64) -> String {
        decimal(all == 0 ? 0 : 100 * Double(part) / Double(all), 1) + " %"
    }

    /// Padded at its front.
    package static func padded(_ text: String, _ width: Int, with filler: String = " ") -> String {
        String(repeating: filler, count: max(0, width - text.count)) + text
    }

    /// Unix seconds as UTC; a dash for none.
    package static func time(_ seconds: UInt32) -> String {
        guard seconds != 0 else { return "-" }
        var moment = time_t(seconds)
        var parts = tm()
        gmtime_r(&moment, &parts)
        func two(_ value: Int32) -> String { padded(String(value), 2, with: "0") }
        return "\(parts.tm_year + 1900)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday))T"
            + "\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec))Z"
    }

    /// Seconds as a clock shows them.
    package static func clock(_ seconds: UInt64) -> String {
        let (hours, rest) = seconds.quotientAndRemainder(dividingBy: 3600)
        let minutes = padded(String(rest / 60), 2, with: "0")
        let last = padded(String(rest % 60), 2, with: "0")
        return hours > 0 ? "\(hours):\(minutes):\(last)" : "\(minutes):\(last)"
    }

    package static func identity(_ id: Identity128) -> String {
        padded(String(id.hi, radix: 16), 16, with: "0")
            + padded(String(id.lo, radix: 16), 16, with: "0")
    }

    /// Rows under their heads; the columns in `left` begin at the left, others end at the right.
    package static func table(
        _ heads: [String], _ rows: [[String]], left: Set<Int> = [0]
    ) -> String {
        var widths = heads.map(\.count)
        for row in rows {
            for (column, cell) in row.enumerated() where column < widths.count {
                widths[column] = max(widths[column], cell.count)
            }
        }
        func line(_ cells: [String]) -> String {
            var out = ""
            for (column, cell) in cells.enumerated() {
                if column > 0 { out += "  " }
                let filler = String(repeating: " ", count: max(0, widths[column] - cell.count))
                out += left.contains(column) ? cell + filler : filler + cell
            }
            while out.hasSuffix(" ") { out.removeLast() }
            return out + "\n"
        }
        return line(heads) + rows.map(line).joined()
    }
}
