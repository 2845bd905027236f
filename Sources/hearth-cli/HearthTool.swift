// HearthTool: the program `hearth`: its commands, and what every one of them shares: the
// directories of a closed store (of an open one: StatCommand), the choice of driver, and how an
// error becomes a line and an exit code.

import ArgumentParser
import BlockIO
import Glibc
import LogStore
import StoreTools

@main
struct HearthTool: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hearth",
        abstract: "Looks after stores, and looks into those that are open.",
        discussion: """
            verify, inspect, compact, export, import and purge work on a closed store: they take \
            its lock, and say who has it where somebody does. A store of several devices is given \
            by the directories of all its members, in any order.

            stat, top, explain and metrics look into a store that a process has open, by its first \
            directory, without its lock.

            Exit codes: 0 fine; 1 damage found (verify), blocks lost to it (verify --repair) or \
            left out (export, import); \
            2 an I/O error, or no room; 3 no store there, or a member missing; 4 open elsewhere; \
            5 written by a newer Hearth; 6 not permitted; 7 no such namespace, key or segment; \
            8 the stream to import is damaged or no export; 9 nobody has the store open (top), or \
            its owner ended without closing it (stat); 64 wrong usage.
            """,
        version: "hearth \(toolVersion)",
        subcommands: [
            VerifyCommand.self, InspectCommand.self, ExportCommand.self, ImportCommand.self,
            PurgeCommand.self, CompactCommand.self, StatCommand.self, TopCommand.self,
            ExplainCommand.self, MetricsCommand.self,
        ])
}

/// That of hearth.h, which a test holds it to.
let toolVersion = "1.0"

/// What a command ends with.
enum ToolExit {
    static let damage = ExitCode(1)
    static let failed = ExitCode(2)
    static let missing = ExitCode(3)
    static let locked = ExitCode(4)
    static let newerFormat = ExitCode(5)
    static let permission = ExitCode(6)
    static let notFound = ExitCode(7)
    static let badStream = ExitCode(8)
    static let noOwner = ExitCode(9)

    static func code(_ error: StoreError) -> ExitCode {
        switch error.kind {
        case .locked: locked
        case .notAStore, .missing: missing
        case .newerFormat: newerFormat
        case .permission: permission
        case .damaged: damage
        case .configuration: ExitCode.validationFailure
        case .otherStore, .noSpace, .input, .resource, .closed: failed
        }
    }
}

/// The directories of a closed store, and how to read them.
struct StoreArguments: ParsableArguments {
    @Argument(
        help: "The store's directory; of a store of several devices, the directory of each member.",
        completion: .directory)
    var directories: [String]

    @OptionGroup var reading: ReadingArguments

    var allowAbsent: Bool { reading.allowAbsent }

    func validate() throws {
        guard directories.allSatisfy({ !$0.isEmpty }) else {
            throw ValidationError("An empty path is no directory.")
        }
    }

    /// How this program calls itself in the store's lock.
    static func holder(_ command: String) -> String { "hearth \(command), pid \(getpid())" }

    func makeDriver() throws -> any BlockDriver { try reading.makeDriver() }

    /// Runs the body on the closed store.
    func withStore<Answer>(
        _ command: String, _ body: (ClosedStore) throws -> Answer
    ) throws -> Answer {
        try reading.withStore(directories, command, body)
    }
}

/// How to read a closed store.
struct ReadingArguments: ParsableArguments {
    @Flag(help: "Go on although a member's directory is not given; its blocks are not spoken of.")
    var allowAbsent = false

    @Option(
        help: "The I/O driver: automatic, io_uring or threads.",
        completion: .list(["automatic", "io_uring", "threads"]))
    var driver = "automatic"

    func validate() throws {
        guard Self.choices[driver] != nil else {
            throw ValidationError("--driver is automatic, io_uring or threads, not '\(driver)'.")
        }
    }

    private static let choices: [String: DriverChoice] = [
        "automatic": .automatic, "io_uring": .ioUring, "threads": .threads,
    ]

    var choice: DriverChoice { Self.choices[driver] ?? .automatic }

    func makeDriver() throws -> any BlockDriver {
        do {
            return try BlockIO.makeDriver(choice, regions: RegionTable(), depth: 128)
        } catch {
            throw Failure(ToolExit.failed, "the I/O driver: \(error)")
        }
    }

    /// Runs the body on the closed store.
    func withStore<Answer>(
        _ directories: [String], _ command: String, _ body: (ClosedStore) throws -> Answer
    ) throws -> Answer {
        let driver = try makeDriver()
        defer { driver.shutdown() }
        do {
            let store = try ClosedStore.open(
                directories, allowAbsent: allowAbsent, driver: driver, clock: SystemClock(),
                holder: StoreArguments.holder(command))
            defer { store.close() }
            return try body(store)
        } catch let error as StoreError {
            throw Failure(error)
        }
    }
}

/// An error that was made a line for people, and an exit code for programs.
struct Failure: Error {
    var code: ExitCode
    var text: String

    init(_ code: ExitCode, _ text: String) {
        self.code = code
        self.text = text
    }

    init(_ error: StoreError) {
        code = ToolExit.code(error)
        text = "\(error.subject): \(error.advice)"
        if error.errno != 0, error.kind != .locked {
            text += " (\(String(cString: strerror(error.errno))))"
        }
    }
}

/// Runs a command's body: a failure becomes one line on standard error.
func reporting(_ command: String, _ body: () throws -> Void) throws {
    do {
        try body()
    } catch let failure as Failure {
        Output.error("hearth \(command): \(failure.text)\n")
        throw failure.code
    } catch let error as StoreError {
        let failure = Failure(error)
        Output.error("hearth \(command): \(failure.text)\n")
        throw failure.code
    }
}
