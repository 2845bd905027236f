// ReplayCommand: the options of `hearth-bench replay`.

import ArgumentParser
import BenchKit
import Glibc

struct ReplayCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hearth-bench replay",
        abstract: "Plays a block trace against the store and checks every byte of every hit.",
        discussion: """
            Without --trace, a multi-turn chat workload is generated. Traces are JSON lines, \
            gzipped or not, in the compact form {"t","in","out","s","h":[[first,length],..]} or \
            Mooncake's {"timestamp","input_length","output_length","hash_ids"}. A share (N%) is \
            of the bytes of the trace's unique blocks. Partial tails are treated as full blocks.

            Exit status: 0 done, 1 an error or a wrong byte, 2 a wrong command line, 130 \
            interrupted.
            """,
        version: FioReport.fioVersion)

    @Option(help: ArgumentHelp("The trace to play.", valueName: "file"))
    var trace: String?
    @Option(
        help: ArgumentHelp(
            "The store's directory (default: a new one, removed unless --keep).", valueName: "dir"))
    var directory: String?
    @Option(
        name: .customLong("block-bytes"),
        help: ArgumentHelp(
            "Bytes of a block, such as 64k or 1m (64k; in virtual time 4k).", valueName: "size"))
    var blockBytes: String?
    @Option(help: ArgumentHelp("Blocks of the trace that make one.", valueName: "n"))
    var join = "1"
    @Option(help: ArgumentHelp("Slab bytes for read copies, or a share.", valueName: "size|n%"))
    var dram = "5%"
    @Option(help: ArgumentHelp("Value bytes on the device, or a share.", valueName: "size|n%"))
    var capacity = "100%"
    @Option(help: ArgumentHelp("Play only so many requests.", valueName: "n"))
    var requests: String?
    @Option(
        name: [.customLong("kv_mode")],
        help: ArgumentHelp("direct, cached or lease.", valueName: "mode"))
    var mode = "lease"
    @Option(help: ArgumentHelp("volatile, written or durable.", valueName: "class"))
    var durability = "written"
    @Flag(help: "Keep the new directory.")
    var keep = false
    @Option(
        name: .customLong("output-format"),
        help: ArgumentHelp("normal, json, or both with a comma.", valueName: "format"))
    var outputFormat = "normal"
    @Option(help: ArgumentHelp("The report goes there.", valueName: "file"))
    var output = ""
    @Option(help: ArgumentHelp("Progress: auto, always or never.", valueName: "when"))
    var eta = "auto"
    @Option(
        name: .customLong("put-log"),
        help: ArgumentHelp("Append each completed put's key (8 bytes).", valueName: "file"))
    var putLog: String?
    @Option(
        name: .customLong("verify-log"),
        help: ArgumentHelp("Look up all keys of a put log first.", valueName: "file"))
    var verifyLog: String?
    @Option(help: ArgumentHelp("Generated: how many sessions.", valueName: "n"))
    var sessions = "7373"
    @Option(help: ArgumentHelp("Generated: mean turns of a session.", valueName: "x"))
    var turns = "1.63"
    @Option(help: ArgumentHelp("Generated: the seed.", valueName: "n"))
    var seed = "1"

    @Option(
        help: ArgumentHelp(
            "Only simulate these on the trace: adaptive, lru, arc, s3fifo, fifo, belady.",
            valueName: "names"))
    var policy: String?
    @Option(help: ArgumentHelp("Sizes to simulate, or shares.", valueName: "size|n%,..."))
    var sizes: String?
    @Option(
        help: ArgumentHelp(
            "What engines tell: none, chain, pages:recall, or session[:missed,false], as shares.",
            valueName: "kind"))
    var hints: String?
    @OptionGroup(title: "In time")
    var timed: TimedReplayOptions

    static let names =
        TimedOptions.names + [
            "policy", "sizes", "hints",
            "trace", "directory", "block-bytes", "join", "dram", "capacity", "requests", "kv_mode",
            "durability", "keep", "output-format", "output", "eta", "put-log", "verify-log",
            "sessions",
            "turns", "seed", "help", "version",
        ]

    func settings() throws(UsageError) -> ReplayConfiguration {
        var given: [String: String?] = [
            "block-bytes": blockBytes, "join": join, "dram": dram, "capacity": capacity,
            "requests": requests, "kv_mode": mode, "durability": durability,
            "output-format": outputFormat, "output": output, "eta": eta, "trace": trace,
            "directory": directory, "put-log": putLog, "verify-log": verifyLog,
            "sessions": sessions, "turns": turns, "seed": seed, "policy": policy,
            "sizes": sizes, "hints": hints,
        ]
        for (name, value) in timed.given { given[name] = value }
        return try ReplayConfiguration(given: given, keep: keep)
    }

    /// The command from its words to the exit status.
    static func perform(_ words: [String]) -> Int32 {
        do throws(UsageError) {
            try ReplayConfiguration.checkNames(words, known: names)
            let settings: ReplayConfiguration
            do {
                var parsed = try parseAsRoot(words)
                guard let command = parsed as? ReplayCommand else {
                    // The help command, which leaves by an error.
                    try parsed.run()
                    return 0
                }
                settings = try command.settings()
            } catch let usage as UsageError {
                throw usage
            } catch {
                // --help and --version come this way too, with status 0.
                let code = exitCode(for: error)
                let text = fullMessage(for: error)
                writeAll(code == .success ? STDOUT_FILENO : STDERR_FILENO, text + "\n")
                return code == .success ? 0 : 2
            }
            if settings.isTimed { return TimedReplayCommand.run(settings) }
            if !settings.policies.isEmpty { return PolicyRun.run(settings) }
            return ReplayRun.run(settings, open: openReplayStore)
        } catch {
            writeAll(STDERR_FILENO, "hearth-bench replay: \(error)\n")
            return 2
        }
    }
}
