// ProgressLine: one line on standard error that is written over; off unless a terminal looks on, so
// that pipes and logs stay clean.

import Glibc

package final class ProgressLine {
    package let isOn: Bool
    private var width = 0

    package init(_ choice: ProgressChoice) {
        switch choice {
        case .auto: isOn = isatty(STDERR_FILENO) == 1
        case .always: isOn = true
        case .never: isOn = false
        }
    }

    package func show(_ text: String) {
        guard isOn else { return }
        let columns = Self.columns
        let line = String(text.prefix(columns))
        let padding = String(repeating: " ", count: max(0, width - line.count))
        writeAll(STDERR_FILENO, "\r\(line)\(padding)")
        width = line.count
    }

    package func clear() {
        guard isOn, width > 0 else { return }
        writeAll(STDERR_FILENO, "\r" + String(repeating: " ", count: width) + "\r")
        width = 0
    }

    private static var columns: Int {
        var size = winsize()
        guard ioctl(STDERR_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 1 else { return 79 }
        return Int(size.ws_col) - 1
    }
}

/// A bar with share, rate and time left, at most five times a second.
package final class ProgressRate {
    private let label: String
    private let unit: String
    private let line: ProgressLine
    private let begin = monotonicNanoseconds()
    private var last: UInt64 = 0

    package init(label: String, unit: String, line: ProgressLine) {
        (self.label, self.unit, self.line) = (label, unit, line)
    }

    /// `bytes` is what the rate counts, where that is not what `done` counts.
    package func update(done: UInt64, of all: UInt64, bytes: UInt64? = nil) {
        guard line.isOn else { return }
        let now = monotonicNanoseconds()
        guard now - last >= 200_000_000 else { return }
        last = now
        line.show(
            Self.text(
                label: label, done: done, of: all, bytes: bytes ?? done, unit: unit,
                seconds: Double(now - begin) / 1e9))
    }

    package static func text(
        label: String, done: UInt64, of all: UInt64, bytes: UInt64, unit: String, seconds: Double
    ) -> String {
        let share = all == 0 ? 0 : min(1, Double(done) / Double(all))
        let filled = Int(share * 20)
        let bar =
            String(repeating: "=", count: filled)
            + String(repeating: " ", count: 20 - filled)
        let rate = seconds > 0 ? UInt64(Double(bytes) / seconds) : 0
        let left = share > 0 ? UInt64(seconds / share - seconds) : 0
        return "\(label) [\(bar)] " + formatted("%3.0f%% ", share * 100)
            + "\(figure(rate, binary: unit == "B", unit: unit))/s, \(clockText(left)) left"
    }
}
