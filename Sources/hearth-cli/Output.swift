// Output: what the program prints: text whole or not at all to standard output, messages to
// standard error, and there a progress bar with rate and time left while a terminal looks on.

import Glibc
import StoreTools

enum Output {
    static func text(_ text: String) { write(STDOUT_FILENO, text) }
    static func error(_ text: String) { write(STDERR_FILENO, text) }

    private static func write(_ descriptor: Int32, _ text: String) {
        var text = text
        text.withUTF8 { bytes in
            var done = 0
            while done < bytes.count {
                let count = Glibc.write(
                    descriptor, bytes.baseAddress.map { $0 + done }, bytes.count - done)
                if count < 0 {
                    if errno == EINTR { continue }
                    return
                }
                done += count
            }
        }
    }
}

/// A bar with share, rate and time left, at most five times a second; nothing in a pipe.
final class ProgressBar {
    private let label: String
    private let isOn: Bool
    private let began = ProgressBar.now()
    private var last: UInt64 = 0
    private var width = 0

    init(_ label: String, quiet: Bool = false) {
        self.label = label
        isOn = !quiet && isatty(STDERR_FILENO) == 1
    }

    private static func now() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// `all` of 0: how much there is is not known.
    func update(_ done: UInt64, of all: UInt64) {
        guard isOn else { return }
        let time = Self.now()
        guard time - last >= 200_000_000 else { return }
        last = time
        let seconds = Double(time - began) / 1e9
        let rate = seconds > 0 ? UInt64(Double(done) / seconds) : 0
        var line = "\(label) "
        if all > 0 {
            let share = min(1, Double(done) / Double(all))
            let filled = Int(share * 24)
            line += "[" + String(repeating: "=", count: filled)
            line += String(repeating: " ", count: 24 - filled) + "] "
            line += Figures.padded(Figures.decimal(share * 100, 0), 3) + " %  "
            line += Figures.size(rate) + "/s"
            let left = share > 0 ? UInt64(seconds / share - seconds) : 0
            line += ", " + Figures.clock(left) + " left"
        } else {
            line += Figures.size(done) + "  " + Figures.size(rate) + "/s"
        }
        show(line)
    }

    func finish() {
        guard isOn, width > 0 else { return }
        Output.error("\r" + String(repeating: " ", count: width) + "\r")
        width = 0
    }

    private func show(_ line: String) {
        var size = winsize()
        let told = ioctl(STDERR_FILENO, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 1
        let text = String(line.prefix(told ? Int(size.ws_col) - 1 : 79))
        let padding = String(repeating: " ", count: max(0, width - text.count))
        Output.error("\r\(text)\(padding)")
        width = text.count
    }
}
