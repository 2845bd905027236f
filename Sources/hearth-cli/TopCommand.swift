// `hearth top`: what the owner of an open store does now, again and again.

import ArgumentParser
import BlockIO
import Glibc
import StoreTools

struct TopCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "top",
        abstract: "Show what the owner of an open store does, live.",
        discussion: """
            Rates since the last sample: gets, hits by tier, puts, bytes by cause, write \
            amplification; latencies; space and memory by part. On a terminal a screen that is \
            drawn anew, in a pipe a line a sample. Ends with 9 when nobody has the store open.
            """)

    @OptionGroup var page: PageArguments

    @Option(help: "Seconds between two samples, 0.1 to 3600.")
    var interval = 1.0

    @Option(help: "End after so many samples; without it, never.")
    var count: Int?

    func validate() throws {
        guard (0.1...3600).contains(interval) else {
            throw ValidationError("--interval is 0.1 to 3600 seconds, not \(interval).")
        }
        if let count, count < 1 { throw ValidationError("--count is at least 1, not \(count).") }
    }

    func run() throws {
        try reporting("top") {
            let isTerminal = isatty(STDOUT_FILENO) == 1
            var before = try open()
            var samples = 0
            while count.map({ samples < $0 }) ?? true {
                let began = SystemClock().monotonic
                let after = try next(before)
                let seconds = Double(SystemClock().monotonic - began) / 1e9
                let rates = RateReport(from: before, to: after, seconds: seconds)
                if isTerminal {
                    // Home, each line with what was behind it cleared, and what was below it.
                    let screen = rates.screen.split(
                        separator: "\n", omittingEmptySubsequences: false)
                    Output.text("\u{1B}[H" + screen.joined(separator: "\u{1B}[K\n") + "\u{1B}[J")
                } else {
                    if samples % 20 == 0 { Output.text(RateReport.headline) }
                    Output.text(rates.line)
                }
                before = after
                samples += 1
            }
        }
    }

    private func open() throws -> StatisticsReport {
        let report = try page.report()
        guard report.source.isOpen else { throw report.nobody }
        return report
    }

    /// The next sample: after the interval, and then until the owner has written anew or has had
    /// the time to.
    private func next(_ before: StatisticsReport) throws -> StatisticsReport {
        usleep(UInt32(interval * 1e6))
        while true {
            let report = try open()
            let page = report.source.page
            let age = SystemClock().monotonic &- page.monotonic
            let isNew =
                page.sequence != before.source.page.sequence
                || page.openedSeconds != before.source.page.openedSeconds
            if isNew || age > UInt64(page.periodMilliseconds) * 1_500_000 { return report }
            usleep(20_000)
        }
    }
}
