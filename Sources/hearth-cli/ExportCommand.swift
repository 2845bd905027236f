// `hearth export`: the live blocks of one namespace as a checksummed stream.

import ArgumentParser
import BlockIO
import Glibc
import LogStore
import SegmentFormat
import StoreTools

struct ExportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "export",
        abstract: "Write a namespace of a closed store as a checksummed stream.",
        discussion: """
            Every block is checked as it is read, and carries its version and the checksums of its \
            put. Blocks that are not whole are left out and told; the exit code is 1 then. A file \
            is there whole or not at all. docs/export-format.md tells the format.
            """)

    @OptionGroup var store: StoreArguments

    @Option(
        help: """
            The namespace: its instance number, field=value pairs that it has, or one of its \
            values. `hearth inspect --namespaces` lists them.
            """)
    var namespace: String

    @Option(help: "The file to write, or - for standard output.", completion: .file())
    var output: String

    @Flag(help: "Print a JSON document with the counts (to standard error with --output -).")
    var json = false

    func validate() throws {
        if output == "-", isatty(STDOUT_FILENO) == 1 {
            throw ValidationError("The stream is binary: give --output a file, or a pipe to -.")
        }
    }

    func run() throws {
        try reporting("export") {
            let (report, name) = try store.withStore("export") { closed in
                let space = try Self.choose(namespace, closed)
                return (
                    try output == "-" ? stream(closed, space) : file(closed, space),
                    NamespaceChoice.line(space)
                )
            }
            for finding in report.leftOut { Output.error(finding.line + keys(finding) + "\n") }
            let text = json ? document(report).description : summary(report, name)
            if output == "-" { Output.error(text) } else { Output.text(text) }
            if !report.leftOut.isEmpty { throw ToolExit.damage }
        }
    }

    /// The namespace that a person means.
    static func choose(_ text: String, _ closed: ClosedStore) throws -> NamespaceRecord {
        try choose(text, closed.namespaces.values.sorted { $0.instance < $1.instance })
    }

    static func choose(_ text: String, _ records: [NamespaceRecord]) throws -> NamespaceRecord {
        switch NamespaceChoice.find(text, among: records) {
        case .one(let record): return record
        case .none:
            throw Failure(
                ToolExit.notFound,
                "no namespace '\(text)'; there \(records.isEmpty ? "are none" : "is")"
                    + records.prefix(16).map { "\n  " + NamespaceChoice.line($0) }.joined())
        case .several(let found):
            throw Failure(
                ToolExit.notFound,
                "'\(text)' may be any of these; give the number:"
                    + found.prefix(16).map { "\n  " + NamespaceChoice.line($0) }.joined())
        }
    }

    private func keys(_ finding: Finding) -> String {
        finding.keys.map { ", key " + KeyText.of($0.bytes) }.joined()
    }

    private func stream(_ closed: ClosedStore, _ space: NamespaceRecord) throws -> ExportReport {
        let sink = DescriptorSink(descriptor: STDOUT_FILENO, path: "standard output")
        return try export(closed, space, sink)
    }

    private func file(_ closed: ClosedStore, _ space: NamespaceRecord) throws -> ExportReport {
        let part = output + ".part"
        let descriptor = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw OutputFile.failure(output) }
        var isDone = false
        defer { if !isDone { unlink(part) } }
        do {
            let sink = DescriptorSink(descriptor: descriptor, path: output)
            let report = try export(closed, space, sink)
            guard fsync(descriptor) == 0, close(descriptor) == 0, rename(part, output) == 0 else {
                throw OutputFile.failure(output)
            }
            isDone = true
            return report
        } catch {
            close(descriptor)
            throw error
        }
    }

    private func export(
        _ closed: ClosedStore, _ space: NamespaceRecord, _ sink: DescriptorSink
    ) throws -> ExportReport {
        let bar = ProgressBar("export")
        defer { bar.finish() }
        let report = try Exporter.run(
            closed, space, to: sink, now: SystemClock().wallSeconds
        ) { bar.update($0, of: $1) }
        try sink.flush()
        return report
    }

    private func summary(_ report: ExportReport, _ name: String) -> String {
        var text = "exported \(report.blocks) blocks, \(Figures.size(report.valueBytes)), of "
        text += name
        if report.expired > 0 { text += "; \(report.expired) were expired" }
        if !report.leftOut.isEmpty { text += "; \(report.leftOut.count) left out" }
        return text + "\n"
    }

    private func document(_ report: ExportReport) -> JSONText {
        .object([
            ("blocks", .count(report.blocks)), ("value_bytes", .count(report.valueBytes)),
            ("expired", .count(report.expired)), ("left_out", .count(report.leftOut.count)),
            ("findings", .array(report.leftOut.map(\.json))),
        ])
    }
}
