// `hearth import`: the blocks of an export into a store.

import ArgumentParser
import BlockIO
import Glibc
import LogStore
import SegmentFormat
import StoreTools

struct ImportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "import",
        abstract: "Put the blocks of an export into a store.",
        discussion: """
            Everything is checked before it is put. A file is read through once first, and nothing \
            is put if anything in it is wrong; of a pipe, what came before the first bad record is \
            put, and nothing from it on. Blocks that are there already stay as they are, so an \
            import can be repeated. A block keeps its version where that is safe, else it gets a \
            new one. Interrupted, the store is whole, and the import can be run again.
            """)

    @OptionGroup var store: StoreArguments

    @Option(help: "The file to read, or - for standard input.", completion: .file())
    var input: String

    @Flag(help: "Only check the stream.")
    var dryRun = false

    @Flag(help: "Print one JSON document instead of text.")
    var json = false

    func run() throws {
        try reporting("import") {
            let descriptor = input == "-" ? STDIN_FILENO : open(input, O_RDONLY | O_CLOEXEC)
            guard descriptor >= 0 else {
                let code =
                    errno == EACCES
                    ? ToolExit.permission : errno == ENOENT ? ToolExit.missing : ToolExit.failed
                throw Failure(code, "\(input): \(String(cString: strerror(errno)))")
            }
            defer { if input != "-" { close(descriptor) } }
            let report = try run(
                DescriptorSource(
                    descriptor: descriptor, path: input == "-" ? "standard input" : input))
            Output.text(json ? document(report).description : summary(report))
            if report.refused > 0 || report.leftOut > 0 { throw ToolExit.damage }
        }
    }

    private func run(_ source: DescriptorSource) throws -> ImportReport {
        var random = SystemRandomNumberGenerator()
        var options = ImportOptions(
            entropy: (random.next(), random.next(), random.next(), random.next()))
        options.dryRun = dryRun
        options.allowAbsent = store.allowAbsent
        options.holder = StoreArguments.holder("import")
        let driver = try store.makeDriver()
        defer { driver.shutdown() }
        let bar = ProgressBar("import")
        defer { bar.finish() }
        do {
            return try Importer.run(
                store.directories, from: source, driver: driver, clock: SystemClock(),
                options: options
            ) { bar.update($0, of: $1) }
        } catch {
            bar.finish()
            switch error {
            case .store(let error): throw Failure(error)
            case .stream(let error):
                let name = input == "-" ? "standard input" : input
                throw Failure(
                    error.kind == .newerFormat ? ToolExit.newerFormat : ToolExit.badStream,
                    "\(name): \(error)")
            }
        }
    }

    private func summary(_ report: ImportReport) -> String {
        let size = Figures.size(report.valueBytes)
        if dryRun { return "the stream is whole: \(report.records) blocks, \(size)\n" }
        var text = "\(report.records) blocks, \(size): \(report.put) put"
        if report.newVersions > 0 { text += " (\(report.newVersions) under a new version)" }
        text += ", \(report.present) present, \(report.refused) refused"
        if report.expired > 0 { text += ", \(report.expired) expired" }
        text += "; namespace \(report.namespace)\(report.madeNamespace ? ", made" : "")\n"
        let reasons: [(UInt64, String)] = [
            (report.conflicts, "present with another length or other shards"),
            (report.tooLarge, "larger than the store's largest block"),
            (report.noSpace, "no space"), (report.notAdmitted, "beyond the namespace's cap"),
            (report.failed, "not written"), (report.leftOut, "not whole when it was exported"),
        ]
        for (count, reason) in reasons where count > 0 { text += "  \(count) \(reason)\n" }
        return text
    }

    private func document(_ report: ImportReport) -> JSONText {
        .object([
            ("records", .count(report.records)), ("value_bytes", .count(report.valueBytes)),
            ("namespace", .count(report.namespace)),
            ("made_namespace", .flag(report.madeNamespace)), ("put", .count(report.put)),
            ("new_versions", .count(report.newVersions)), ("present", .count(report.present)),
            ("expired", .count(report.expired)), ("refused", .count(report.refused)),
            ("conflicts", .count(report.conflicts)), ("too_large", .count(report.tooLarge)),
            ("no_space", .count(report.noSpace)), ("not_admitted", .count(report.notAdmitted)),
            ("failed", .count(report.failed)), ("left_out", .count(report.leftOut)),
            ("dry_run", .flag(dryRun)),
        ])
    }
}
