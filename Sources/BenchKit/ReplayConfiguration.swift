// ReplayConfiguration: what `replay` was asked for, from the words of its options. Wrong names and
// values are usage errors (exit 2) that name the nearest, or what is allowed.

package struct ReplayConfiguration: Sendable {
    /// nil: the generated chat workload.
    package var trace: String?
    /// nil: a new one under the working directory.
    package var directory: String?
    package var blockBytes = 64 << 10
    package var join = 1
    package var dram = SizeOrShare.share(5)
    package var capacity = SizeOrShare.share(100)
    package var requests: UInt64?
    package var mode = ReadMode.lease
    package var durability = DurabilityChoice.written
    package var keep = false
    package var formats: [OutputFormat] = [.normal]
    package var output = ""
    package var progress = ProgressChoice.auto
    package var putLog: String?
    package var verifyLog: String?
    package var chat = ChatWorkload.Options()
    /// Not empty: policies are simulated on the trace alone.
    package var policies: [PolicyChoice] = []
    package var sizes: [SizeOrShare] = [0.2, 0.5, 1, 2, 5, 10, 25].map { .share($0) }
    /// nil: as prefetching needs them.
    package var hints: HintChoice?
    package var timed = TimedOptions()
    package init() {}

    /// Whether the replay is one in time, with a model of the server.
    package var isTimed: Bool { timed.isAsked }

    /// From option names (without dashes) to their words; nil where one was not given.
    package init(given: [String: String?], keep: Bool) throws(UsageError) {
        self.keep = keep
        // In a fixed order, so that of two wrong values the same one is always named.
        for (name, text) in given.sorted(by: { $0.key < $1.key }) {
            guard let text else { continue }
            do throws(OptionProblem) {
                try set(name, text)
            } catch {
                throw UsageError("--\(name): \(error)")
            }
        }
        if isTimed, (given["block-bytes"] ?? nil) == nil { blockBytes = 4096 }
    }

    private mutating func set(_ name: String, _ text: String) throws(OptionProblem) {
        switch name {
        case _ where TimedOptions.names.contains(name): try timed.set(name, text)
        case "trace": trace = text
        case "directory": directory = text
        case "put-log": putLog = text
        case "verify-log": verifyLog = text
        case "output": output = text
        case "block-bytes": blockBytes = Int(try OptionValue.integer(text, in: 1...(64 << 20)))
        case "join": join = Int(try OptionValue.integer(text, in: 1...65536))
        case "dram": dram = try OptionValue.sizeOrShare(text)
        case "capacity": capacity = try OptionValue.sizeOrShare(text)
        case "requests": requests = try OptionValue.integer(text, in: 1...UInt64.max)
        case "kv_mode": mode = try OptionValue.choice(text)
        case "durability": durability = try OptionValue.choice(text)
        case "eta": progress = try OptionValue.choice(text)
        case "output-format":
            formats = []
            for word in text.split(separator: ",") {
                formats.append(try OptionValue.choice(String(word)))
            }
            if formats.isEmpty { throw OptionProblem("allowed: normal, json") }
        case "policy":
            for word in text.split(separator: ",") {
                policies.append(try OptionValue.choice(String(word)))
            }
        case "sizes":
            sizes = []
            for word in text.split(separator: ",") {
                sizes.append(try OptionValue.sizeOrShare(String(word)))
            }
            if sizes.isEmpty { throw OptionProblem("sizes or shares with commas") }
        case "hints": hints = try HintChoice(text)
        case "sessions": chat.sessions = Int(try OptionValue.integer(text, in: 1...10_000_000))
        case "seed": chat.seed = try OptionValue.integer(text, in: 0...UInt64.max)
        case "turns":
            guard let turns = Double(text), (1...1000).contains(turns) else {
                throw OptionProblem("'\(text)' is not a mean number of turns, 1 to 1000")
            }
            chat.turns = turns
        default: preconditionFailure("no option --\(name)")
        }
    }

    /// Refuses the first word that looks like an option and is none, naming the nearest.
    package static func checkNames(_ words: [String], known: [String]) throws(UsageError) {
        for word in words where word.hasPrefix("-") && word.count > 1 {
            let name = String(word.drop { $0 == "-" }.prefix { $0 != "=" })
            if word == "-h" || known.contains(name) && word.hasPrefix("--") { continue }
            let near = nearest(to: name, among: known) ?? "help"
            throw UsageError("unknown option '\(word)'; the nearest is '--\(near)'")
        }
    }
}
