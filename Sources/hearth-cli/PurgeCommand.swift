// `hearth purge`: retires a namespace for good, and erases, if asked, what it left on disk.

import ArgumentParser
import BlockIO
import Glibc
import LogStore
import SegmentFormat
import StoreTools

struct PurgeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "purge",
        abstract: "Retire a namespace of a closed store, durably.",
        discussion: """
            None of its blocks comes back, whatever happens after. With --erase the value bytes of \
            everything dead in the store (purged, deleted and replaced blocks, and leftovers of \
            earlier lives of segments) are punched out of the files and read as zeros. Keys stay \
            in descriptor pages until their segments are recycled; nothing is promised of the \
            device's own cells, of snapshots, or of copies elsewhere. --erase without --namespace \
            erases what is dead already.
            """)

    @OptionGroup var store: StoreArguments

    @Option(
        help: """
            The namespace: its instance number, field=value pairs that it has, or one of its \
            values.
            """)
    var namespace: String?

    @Flag(help: "Punch the value bytes of everything dead out of the files.")
    var erase = false

    @Flag(help: "Only tell what would go.")
    var dryRun = false

    @Flag(help: "Print one JSON document instead of text.")
    var json = false

    func validate() throws {
        guard namespace != nil || erase else {
            throw ValidationError("Give --namespace, or --erase, or both.")
        }
        guard !(dryRun && namespace == nil) else {
            throw ValidationError("--dry-run tells of a namespace: give --namespace.")
        }
    }

    func run() throws {
        try reporting("purge") {
            var report = PurgeReport()
            if let namespace { report = try dryRun ? look(namespace) : purge(namespace) }
            if erase && !dryRun {
                try store.withStore("purge") { closed in
                    let bar = ProgressBar("erase")
                    defer { bar.finish() }
                    let bytes = closed.manifest.segmentBytes
                    try Purger.erase(closed, report: &report) {
                        bar.update($0 * bytes, of: $1 * bytes)
                    }
                }
            }
            Output.text(json ? document(report).description : summary(report))
        }
    }

    private func look(_ namespace: String) throws -> PurgeReport {
        try store.withStore("purge") { closed in
            var report = PurgeReport()
            let record = try ExportCommand.choose(namespace, closed)
            report.instance = record.instance
            for block in try Catalog(closed).blocks.values where block.slot == record.slot {
                report.blocks += 1
                report.valueBytes += UInt64(block.length)
            }
            return report
        }
    }

    private func purge(_ namespace: String) throws -> PurgeReport {
        var random = SystemRandomNumberGenerator()
        let driver = try store.makeDriver()
        defer { driver.shutdown() }
        var refused: (any Error)?
        do {
            let report = try Purger.purge(
                store.directories, allowAbsent: store.allowAbsent, driver: driver,
                clock: SystemClock(), holder: StoreArguments.holder("purge"),
                entropy: (random.next(), random.next(), random.next(), random.next())
            ) { records in
                do {
                    return try ExportCommand.choose(namespace, records)
                } catch {
                    refused = error
                    return nil
                }
            }
            if let refused { throw refused }
            return report
        } catch let error as StoreError {
            throw Failure(error)
        }
    }

    private func summary(_ report: PurgeReport) -> String {
        var text = ""
        if namespace != nil {
            text += dryRun ? "would purge" : "purged"
            text += " namespace \(report.instance): \(report.blocks) blocks, "
            text += "\(Figures.size(report.valueBytes))\n"
        }
        if erase && !dryRun {
            text += "erased \(Figures.size(report.erasedBytes)) of dead and unwritten bytes"
            if report.skippedSegments > 0 {
                text += "; \(report.skippedSegments) segments with damage were left as they are"
            }
            text += "\n"
        }
        return text
    }

    private func document(_ report: PurgeReport) -> JSONText {
        .object([
            ("namespace", .count(report.instance)), ("purged", .flag(report.purged)),
            ("blocks", .count(report.blocks)), ("value_bytes", .count(report.valueBytes)),
            ("erased_bytes", .count(report.erasedBytes)),
            ("skipped_segments", .count(report.skippedSegments)), ("dry_run", .flag(dryRun)),
        ])
    }
}
