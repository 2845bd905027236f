// RowCommand: `hearth-bench row NAME`: the rows of the budget that fio's options cannot say, each
// one measurement that prints one JSON document with an object `row`. bench/README.md tells them.

import BenchKit
import Glibc

enum RowCommand {
    /// A row: the options that it takes, and what it does with them.
    struct Row {
        var name: String
        var options: [String]
        var run: (RowOptions) throws(RowFailure) -> [(String, JSONValue)]
    }

    enum RowFailure: Error {
        case usage(UsageError)
        case bench(BenchError)
    }

    static var rows: [Row] {
        [
            Row(name: "raw", options: RawRow.options, run: attempt(RawRow.plan, RawRow.measure)),
            Row(
                name: "ring", options: RingRow.options,
                run: attempt(RingRow.plan, RingRow.measure)),
            Row(name: "cpu", options: CPURow.options, run: attempt(CPURow.plan, CPURow.measure)),
            Row(
                name: "layers", options: LayersRow.options,
                run: attempt(LayersRow.plan, LayersRow.measure)),
            Row(
                name: "beside", options: BesideRow.options,
                run: attempt(BesideRow.plan, BesideRow.measure)),
            Row(
                name: "contains", options: ContainsRow.options,
                run: attempt(ContainsRow.plan, ContainsRow.measure)),
            Row(
                name: "index-memory", options: IndexRow.options,
                run: attempt(IndexRow.plan, IndexRow.measure)),
            Row(
                name: "memory", options: MemoryRow.options,
                run: attempt(MemoryRow.plan, MemoryRow.measure)),
            Row(
                name: "open", options: OpenRow.options,
                run: attempt(OpenRow.plan, OpenRow.measure)),
            Row(
                name: "allocations", options: AllocationsRow.options,
                run: attempt(AllocationsRow.plan, AllocationsRow.measure)),
            Row(
                name: "events", options: EventsRow.options,
                run: attempt(EventsRow.plan, EventsRow.measure)),
            Row(
                name: "churn", options: ChurnRow.options,
                run: attempt(ChurnRow.plan, ChurnRow.measure)),
            Row(
                name: "replace", options: ReplaceRow.options,
                run: attempt(ReplaceRow.plan, ReplaceRow.measure)),
            Row(
                name: "compact", options: CompactRow.options,
                run: attempt(CompactRow.plan, CompactRow.measure)),
            Row(name: "abi", options: ABIRow.options, run: attempt(ABIRow.plan, ABIRow.measure)),
            Row(
                name: "abi-batch", options: ABIBatchRow.options,
                run: attempt(ABIBatchRow.plan, ABIBatchRow.measure)),
        ]
    }

    /// Usage errors are found before anything is measured, when the options are made a plan.
    private static func attempt<Plan>(
        _ makePlan: @escaping (RowOptions) throws(UsageError) -> Plan,
        _ measure: @escaping (Plan) throws(BenchError) -> [(String, JSONValue)]
    ) -> (RowOptions) throws(RowFailure) -> [(String, JSONValue)] {
        { (options) throws(RowFailure) in
            let plan: Plan
            do throws(UsageError) {
                plan = try makePlan(options)
            } catch {
                throw .usage(error)
            }
            do throws(BenchError) {
                return try measure(plan)
            } catch {
                throw .bench(error)
            }
        }
    }

    static func perform(_ words: [String]) -> Int32 {
        let names = rows.map(\.name)
        guard let name = words.first, name != "--help", name != "-h" else {
            let text = "usage: hearth-bench row NAME [--OPTION=VALUE ...]\n\n"
            let list = rows.map { row in
                "  \(row.name)" + row.options.map { " [--\($0)=…]" }.joined() + "\n"
            }
            writeAll(words.isEmpty ? STDERR_FILENO : STDOUT_FILENO, text + list.joined())
            return words.isEmpty ? 2 : 0
        }
        guard let row = rows.first(where: { $0.name == name }) else {
            let near = nearest(to: name, among: names) ?? names[0]
            writeAll(
                STDERR_FILENO, "hearth-bench row: no row '\(name)'; the nearest is '\(near)'\n")
            return 2
        }
        do throws(RowFailure) {
            let options: RowOptions
            do throws(UsageError) {
                options = try RowOptions(words.dropFirst(), known: row.options)
            } catch {
                throw .usage(error)
            }
            show(try row.run(options), row: name)
            return 0
        } catch {
            switch error {
            case .usage(let usage):
                writeAll(STDERR_FILENO, "hearth-bench row \(name): \(usage)\n")
                return 2
            case .bench(let problem):
                writeAll(STDERR_FILENO, "hearth-bench row \(name): \(problem)\n")
                return 1
            }
        }
    }

    static func show(_ members: [(String, JSONValue)], row name: String) {
        let document = JSONValue.object([
            ("hearth-bench version", .text(benchVersion)), ("name", .text(name)),
            ("row", .object(members)),
        ])
        writeAll(STDOUT_FILENO, document.description + "\n")
    }
}

/// A new directory under the working one that goes again.
struct ScratchDirectory {
    private let directory: ReplayDirectory
    var path: String { directory.path }
    init() throws(BenchError) { directory = try ReplayDirectory(nil, keep: false) }
    func remove() { directory.finish() }
}
