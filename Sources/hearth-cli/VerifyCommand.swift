// `hearth verify`: every checksum and structure of a closed store, and what is damaged.

import ArgumentParser
import Glibc
import SegmentFormat
import StoreTools

struct VerifyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Check every checksum and structure of a closed store.",
        discussion: """
            Reads all of it, front to back: manifest copies, segment headers, descriptor pages, \
            footers, checkpoints, the newest checkpoint's entries against the log, and each value \
            and shard. Prints what is damaged, where, and which keys it concerns. Exit code 0 when \
            all is well, 1 when damage was found. Nothing is changed.
            """)

    @OptionGroup var store: StoreArguments

    @Option(help: "Threads that check, besides the one that reads; default one a core, at most 8.")
    var threads: Int?

    @Flag(help: "Print one JSON document instead of text.")
    var json = false

    func validate() throws {
        if let threads, !(0...256).contains(threads) {
            throw ValidationError("--threads is 0 to 256, not \(threads).")
        }
    }

    func run() throws {
        try reporting("verify") {
            var options = VerifyOptions()
            options.threads = threads ?? max(1, min(8, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))))
            let bar = ProgressBar("verify")
            let (report, id) = try store.withStore("verify") { closed in
                let report = try Verifier.run(closed, options) { bar.update($0, of: $1) }
                return (report, Figures.identity(closed.manifest.store))
            }
            bar.finish()
            Output.text(json ? report.json(store: id).description : report.text())
            if !report.isClean { throw ToolExit.damage }
        }
    }
}
