// `hearth verify`: every checksum and structure of a closed store, and what is damaged; with
// `--repair` it puts right what can be, and says what is lost.

import ArgumentParser
import BlockIO
import Glibc
import LogStore
import SegmentFormat
import StoreTools

struct VerifyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Check every checksum and structure of a closed store, and repair it if asked.",
        discussion: """
            Reads all of it, front to back: manifest copies, segment headers, descriptor pages, \
            footers, checkpoints, the newest checkpoint's entries against the log, and each value \
            and shard. Prints what is damaged, where, and which keys it concerns. Exit code 0 when \
            all is well, 1 when damage was found. Nothing is changed.

            With --repair, damaged blocks are deleted, and their keys told; everything that tells \
            of blocks is made anew; all other blocks stay. A store in which nothing is damaged is \
            left as it is. It may be interrupted at any moment, also by force: run it again. Exit \
            code 0 when the store verifies afterwards and nothing was lost, 1 when blocks were \
            lost or damage is left.
            """)

    @OptionGroup var store: StoreArguments

    @Option(help: "Threads that check, besides the one that reads; default one a core, at most 8.")
    var threads: Int?

    @Flag(help: "Repair what is damaged, and tell what is lost by it.")
    var repair = false

    @Flag(help: "Print one JSON document instead of text.")
    var json = false

    func validate() throws {
        if let threads, !(0...256).contains(threads) {
            throw ValidationError("--threads is 0 to 256, not \(threads).")
        }
    }

    private var options: VerifyOptions {
        var options = VerifyOptions()
        options.threads = threads ?? max(1, min(8, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))))
        return options
    }

    func run() throws {
        try reporting("verify") {
            if repair {
                try runRepair()
                return
            }
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

    private func runRepair() throws {
        var random = SystemRandomNumberGenerator()
        var repairing = RepairOptions(
            entropy: (random.next(), random.next(), random.next(), random.next()))
        repairing.verify = options
        repairing.allowAbsent = store.allowAbsent
        repairing.holder = StoreArguments.holder("verify --repair")
        let driver = try store.makeDriver()
        defer { driver.shutdown() }
        let bar = ProgressBar("repair")
        defer { bar.finish() }
        let report = try Repairer.run(
            store.directories, driver: driver, clock: SystemClock(), options: repairing
        ) { bar.update($0, of: $1) }
        bar.finish()
        Output.text(json ? report.json.description : report.text())
        if !report.isWhole { throw ToolExit.damage }
    }
}
