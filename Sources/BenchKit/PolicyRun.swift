// PolicyRun: `replay --policy ... --sizes ...`: policies against each other at several sizes, on
// the trace alone, as a table and as JSON; and what a session's hint is worth for what is written.

import Glibc
import Heat

/// What engines are taken to tell: nothing, what a queued request will read, or of each request
/// whether its session goes on.
package enum HintChoice: Equatable, Sendable {
    case none
    case chain
    case session(miss: Double, falseAlarm: Double)
    /// Pages of the next layer, and which share of them is right.
    case pages(recall: Double)

    /// `none`, `session`, or `session:0.1,0.2`: the shares that are wrong.
    package init(_ text: String) throws(OptionProblem) {
        let words = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        if text == "none" || text == "chain" {
            self = text == "none" ? .none : .chain
            return
        }
        if words.first == "pages" {
            let recall = words.count == 2 ? Double(words[1]) : 0.9
            guard let recall, (0...1).contains(recall) else {
                throw OptionProblem("'\(text)' is not pages:recall with a share of 0 to 1")
            }
            self = .pages(recall: recall)
            return
        }
        var shares = [0.0, 0.0]
        if words.count == 2 {
            shares = words[1].split(separator: ",", omittingEmptySubsequences: false)
                .compactMap { Double($0) }.filter { (0...1).contains($0) }
        }
        guard words.first == "session", shares.count == 2 else {
            throw OptionProblem(
                "'\(text)' is not none, chain, pages:recall, session or session:miss,false with "
                    + "shares of 0 to 1")
        }
        self = .session(miss: shares[0], falseAlarm: shares[1])
    }

    var text: String {
        switch self {
        case .none: "none"
        case .chain: "chain"
        case .session(let miss, let falseAlarm):
            "session:" + formatted("%g", miss) + "," + formatted("%g", falseAlarm)
        case .pages(let recall): "pages:" + formatted("%g", recall)
        }
    }
}

package enum PolicyRun {
    /// One cell of the table.
    struct Cell {
        var policy: PolicyChoice
        var capacity: Int
        var result: PolicyResult
    }

    /// 0 done, 1 an error.
    package static func run(_ configuration: ReplayConfiguration) -> Int32 {
        do throws(BenchError) {
            let trace = try load(configuration)
            try Output.write(report(trace, configuration), to: configuration.output)
            return 0
        } catch {
            writeAll(STDERR_FILENO, "hearth-bench: \(error)\n")
            return 1
        }
    }

    package static func load(
        _ configuration: ReplayConfiguration
    ) throws(BenchError) -> TraceTable {
        do throws(TraceError) {
            let table: TraceTable
            if let path = configuration.trace {
                var reader = try TraceReader(path: path)
                table = try TraceTable(
                    &reader, join: configuration.join, requests: configuration.requests)
            } else {
                var chat = ChatWorkload(configuration.chat)
                table = try TraceTable(
                    &chat, join: configuration.join, requests: configuration.requests)
            }
            guard table.accesses > 0 else {
                throw TraceError(
                    file: configuration.trace ?? "chat", problem: "no request has a block")
            }
            return table
        } catch {
            throw BenchError(error.description)
        }
    }

    static func report(_ trace: TraceTable, _ configuration: ReplayConfiguration) -> String {
        var foretold: [Bool]?
        if case .session(let miss, let falseAlarm) = configuration.hints {
            foretold = trace.foretold(
                miss: miss, falseAlarm: falseAlarm, seed: configuration.chat.seed)
        }
        var cells: [Cell] = []
        for policy in configuration.policies {
            for size in configuration.sizes {
                let whole = UInt64(trace.unique) * UInt64(configuration.blockBytes)
                let bytes = size.resolved(of: whole)
                // Whole blocks, rounded down.
                let capacity: Int
                if case .share(let percent) = size {
                    capacity = Int(Double(trace.unique) * percent / 100)
                } else {
                    capacity = Int(bytes / UInt64(configuration.blockBytes))
                }
                let simulation = PolicySimulation(trace, capacity: capacity, foretold: foretold)
                cells.append(
                    Cell(
                        policy: policy, capacity: max(1, capacity), result: simulation.run(policy)))
            }
        }
        let admission = AdmissionSimulation(trace)
        let all = admission.runWritingAll()
        let hinted = admission.run(WriteAdmission(), foretold: foretold)
        let second = admission.run(WriteAdmission(moment: .secondTouch), foretold: foretold)
        let writes = [("all", all), ("insert", hinted), ("second-touch", second)]
        var out = ""
        if configuration.formats.contains(.json) {
            out += json(trace, configuration, cells, writes).description + "\n"
        }
        if configuration.formats.contains(.normal) {
            out += text(trace, configuration, cells, writes)
        }
        return out
    }

    private static func text(
        _ trace: TraceTable, _ configuration: ReplayConfiguration, _ cells: [Cell],
        _ writes: [(String, AdmissionResult)]
    ) -> String {
        var out =
            "\(trace.requests) requests, \(trace.accesses) block accesses, \(trace.unique) blocks, "
            + "hints \((configuration.hints ?? .none).text)\n"
        out += "prefix hit ratio (block hit ratio, insertions an access) by blocks held\n"
        let columns = configuration.sizes.count
        out += pad("", 10)
        for column in 0..<columns { out += pad(String(cells[column].capacity), 24) }
        out += "\n"
        for (row, policy) in configuration.policies.enumerated() {
            out += pad(policy.rawValue, 10)
            for column in 0..<columns {
                let result = cells[row * columns + column].result
                let all = Double(trace.accesses)
                out += pad(
                    formatted(
                        "%.4f (%.4f, %.3f)", Double(result.prefixHits) / all,
                        Double(result.blockHits) / all, Double(result.insertions) / all), 24)
            }
            out += "\n"
        }
        let all = writes[0].1
        out += "written to a device without limits, beside all blocks\n"
        for (name, result) in writes {
            out += pad(name, 14)
            out += formatted(
                "writes %.3f, hits %.3f, never read %.3f\n",
                share(result.writes, all.writes), share(result.prefixHits, all.prefixHits),
                share(result.unread, result.writes))
        }
        return out
    }

    private static func share(_ part: Int, _ whole: Int) -> Double {
        whole == 0 ? 0 : Double(part) / Double(whole)
    }

    private static func pad(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(1, width - text.count))
    }

    private static func json(
        _ trace: TraceTable, _ configuration: ReplayConfiguration, _ cells: [Cell],
        _ writes: [(String, AdmissionResult)]
    ) -> JSONValue {
        let accesses = Double(trace.accesses)
        let rows = cells.map { cell in
            JSONValue.object([
                ("policy", .text(cell.policy.rawValue)),
                ("blocks", .integer(Int64(cell.capacity))),
                ("share", .number(Double(cell.capacity) / Double(max(1, trace.unique)))),
                ("prefix_hit_ratio", .number(Double(cell.result.prefixHits) / accesses)),
                ("block_hit_ratio", .number(Double(cell.result.blockHits) / accesses)),
                ("insertions", .integer(Int64(cell.result.insertions))),
            ])
        }
        let written = writes.map { name, result in
            JSONValue.object([
                ("admission", .text(name)), ("writes", .integer(Int64(result.writes))),
                ("prefix_hits", .integer(Int64(result.prefixHits))),
                ("never_read", .integer(Int64(result.unread))),
            ])
        }
        return .object([
            (
                "policies",
                .object([
                    ("requests", .integer(Int64(trace.requests))),
                    ("accesses", .integer(Int64(trace.accesses))),
                    ("unique", .integer(Int64(trace.unique))),
                    ("hints", .text((configuration.hints ?? .none).text)),
                    ("results", .array(rows)),
                    ("admission", .array(written)),
                ])
            )
        ])
    }
}
