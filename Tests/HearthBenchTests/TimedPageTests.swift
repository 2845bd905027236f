// TimedPageTests: the page of plots is whole, stands by itself and tells the report's figures; and
// the scales of its plots hold what they are made for.

import Testing

@testable import BenchKit
@testable import hearth_bench

@Suite struct TimedPageTests {
    private func settings(_ words: [String: String] = [:]) throws -> ReplayConfiguration {
        var given: [String: String?] = [
            "time": "virtual", "sessions": "60", "turns": "3", "seed": "3", "eta": "never",
            "dram": "20%", "load": "0.1,0.5", "block-tokens": "512", "sizes": "2%,10%,50%",
        ]
        for (name, text) in words { given[name] = text }
        return try ReplayConfiguration(given: given, keep: false)
    }

    private func reports(_ settings: ReplayConfiguration) throws -> [TimedReport] {
        let run = try TimedRun(settings, open: TimedReplayCommand.open)
        let bounds = try run.bounds()
        var made: [TimedReport] = []
        for load in settings.timed.loads {
            made.append(
                TimedReport(
                    source: "a <trace> & \"more\"", trace: run.trace, join: 1, plan: run.plan,
                    model: run.model, hints: run.hintText, runs: try run.runs(bounds, load: load),
                    bounds: bounds))
        }
        return made
    }

    @Test func thePageIsWholeAndStandsByItself() throws {
        let settings = try settings()
        let reports = try reports(settings)
        #expect(reports.map(\.runs.load).allSatisfy { $0 > 0 } && reports.count == 2)
        let page = TimedPage(reports, settings)
        let html = page.html
        for word in ["http", "<script", "src=", "@import", "url("] {
            #expect(!html.contains(word), "\(word) would load something")
        }
        #expect(html.contains("prefers-color-scheme: dark"))
        #expect(html.contains("a &lt;trace&gt; &amp; &quot;more&quot;"))
        #expect(!html.contains("nan") && !html.contains("inf"))
        try checkTags(html)
        // Four plots: by load twice, by size, and of lead times.
        #expect(html.components(of: "<svg").count == 5)
        for report in reports {
            #expect(html.contains("<td>\(Plot.number(report.runs.times.mean))</td>"))
            #expect(html.contains("<td>\(Plot.number(report.runs.main.stall))</td>"))
        }
        // The ratios are those of the simulation, and nobody is above the best.
        #expect(page.ratios.map(\.policy) == [.adaptive, .lru, .belady])
        for points in zip(page.ratios[1].points, page.ratios[2].points) {
            #expect(points.0.ratio <= points.1.ratio)
        }
        let blocks = Int((Double(reports[0].trace.unique) / 10).rounded(.down))
        let alone = PolicySimulation(reports[0].trace, capacity: blocks).run(.lru)
        let ratio = Double(alone.prefixHits) / Double(reports[0].trace.accesses)
        #expect(abs(page.ratios[1].points[1].ratio - ratio) < 0.02)
    }

    @Test func leadsAreCountedOnce() throws {
        let settings = try settings(["load": "0.5", "claim": "all"])
        let early = try reports(settings)[0].runs.main.prefetch
        let inTime = early.leads.filter { $0.seconds > 0 }.reduce(0) { $0 + $1.count }
        let late = early.leads.filter { $0.seconds < 0 }.reduce(0) { $0 + $1.count }
        #expect(inTime == early.timely && early.timely > 0)
        #expect(late == early.useful - early.timely)
        #expect(early.leads.map(\.seconds) == early.leads.map(\.seconds).sorted())
    }

    @Test func oneLoadIsAReportAndSeveralAreAList() throws {
        let settings = try settings()
        let reports = try reports(settings)
        #expect(TimedReport.json([reports[0]]) == reports[0].json)
        guard case .array(let loads)? = TimedReport.json(reports)["loads"] else {
            Issue.record("no list")
            return
        }
        #expect(loads == reports.map(\.json))
        #expect(throws: UsageError.self) { _ = try self.settings(["load": "0.1,,0.2"]) }
        #expect(throws: UsageError.self) { _ = try self.settings(["load": ""]) }
    }

    @Test(arguments: [
        ([0.0], false), ([3.7, 0.2], false), ([1e-9], false), ([123_456, 7], false),
        ([0.001, 40], true), ([5], true), ([1, 10], true), ([0, 2], true),
    ])
    func scalesHoldTheirValues(_ values: [Double], _ isLogarithmic: Bool) {
        let scale = Plot.Scale(values, isLogarithmic: isLogarithmic)
        #expect(scale.ticks.count >= 2 && scale.ticks.count < 16)
        for value in values where !isLogarithmic || value > 0 {
            let place = scale.place(value) ?? -1
            #expect(place >= -1e-9 && place <= 1.001)
        }
        #expect(abs((scale.place(scale.ticks[0]) ?? 1)) < 1e-9)
        #expect(abs((scale.place(scale.high) ?? 0) - 1) < 1e-9)
        if isLogarithmic { #expect(scale.place(0) == nil) }
    }

    /// Every tag that is opened is closed, in order.
    private func checkTags(_ html: String) throws {
        var open: [String] = []
        for part in html.dropFirst("<!DOCTYPE html>".count).split(separator: "<").dropFirst() {
            let tag = String(part.prefix { $0 != ">" })
            if tag.hasPrefix("meta") || tag.hasSuffix("/") { continue }
            let name = String(tag.drop { $0 == "/" }.prefix { $0.isLetter || $0.isNumber })
            if tag.hasPrefix("/") {
                try #require(open.popLast() == name, "</\(name)>")
            } else {
                open.append(name)
            }
        }
        #expect(open.isEmpty)
    }
}

extension String {
    /// Parts between a word, without Foundation.
    fileprivate func components(of word: String) -> [Substring] {
        var made: [Substring] = []
        var rest = self[...]
        while let range = rest.firstRange(of: word) {
            made.append(rest[..<range.lowerBound])
            rest = rest[range.upperBound...]
        }
        return made + [rest]
    }
}
