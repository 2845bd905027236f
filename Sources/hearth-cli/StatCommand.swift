// `hearth stat`: what the owner of an open store counts and measures, from its page; of a closed
// one the last figures.

import ArgumentParser
import BlockIO
import LogStore
import StoreTools

/// The directory of a store that another process may have open.
struct PageArguments: ParsableArguments {
    @Argument(
        help: "The store's directory; of a store of several devices, the first.",
        completion: .directory)
    var directory: String

    func validate() throws {
        guard !directory.isEmpty else { throw ValidationError("An empty path is no directory.") }
    }

    func report() throws -> StatisticsReport {
        StatisticsReport(try OwnerPage.read(directory, clock: SystemClock()))
    }
}

extension StatisticsReport {
    /// Who wants to look on finds nobody there.
    var nobody: Failure {
        Failure(
            ToolExit.noOwner,
            source.owner == .closed
                ? "\(source.directory): the store is closed: hearth stat tells its last figures"
                : "\(source.directory): process \(source.page.process), which had the store open, "
                    + "ended without closing it: hearth stat tells its last figures")
    }
}

struct StatCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stat",
        abstract: "Tell what the owner of an open store counts and measures.",
        discussion: """
            Reads the page that the owner writes about once a second; the store is not touched, \
            and its lock not taken. Of a closed store the last figures are told, with their age; \
            of one whose owner ended without closing it, too, and the exit code is 9.
            """)

    @OptionGroup var page: PageArguments

    @Flag(help: "Print one JSON document instead of text.")
    var json = false

    @Flag(help: "Print Prometheus text, as `hearth metrics` serves it.")
    var prometheus = false

    func validate() throws {
        guard !(json && prometheus) else {
            throw ValidationError("Give --json or --prometheus, not both.")
        }
    }

    func run() throws {
        try reporting("stat") {
            let report = try page.report()
            Output.text(
                json ? report.json.description : prometheus ? report.prometheus : report.text)
            if report.source.owner == .gone { throw ToolExit.noOwner }
        }
    }
}
