// FioCommandLine: `--option=value` words to one `JobOptions`. A wrong word is a usage error that
// names the nearest right one, a wrong value one that names what is allowed; both exit with 2.
// Options that fio has and we do not act on are returned as warnings, each once.

/// A command line that cannot be run; exit status 2.
package struct UsageError: Error, Equatable, CustomStringConvertible {
    package var description: String
    package init(_ description: String) { self.description = description }
}

package struct FioCommandLine {
    package var options = JobOptions()
    package var warnings: [String] = []
    /// `--help` and `--version` were asked for.
    package var wantsHelp = false
    package var wantsVersion = false
    private var readOnly = false

    private typealias Setter = (inout JobOptions, String?) throws(OptionProblem) -> Void

    /// Every option that is acted on.
    package static var names: [String] {
        table.map(\.name) + ["readwrite", "blocksize", "readonly", "help", "version"]
    }

    package init(_ words: [String]) throws(UsageError) {
        var words = words[...]
        var named = false
        while let word = words.popFirst() {
            let (name, inline) = try Self.split(word)
            if name == "help" || name == "version" {
                if name == "help" { wantsHelp = true } else { wantsVersion = true }
                continue
            }
            if name == "readonly" {
                readOnly = true
                continue
            }
            guard let entry = Self.table.first(where: { $0.name == name }) else {
                try noteIgnored(name, word: word, inline: inline, rest: &words)
                continue
            }
            var value = inline
            if value == nil, !entry.isFlag {
                value = words.popFirst()
                guard value != nil else { throw UsageError("--\(name) needs a value") }
            }
            if name == "name" {
                if value == "global" { continue }
                guard !named else {
                    throw UsageError("one --name a command; run the jobs one after another")
                }
                named = true
            }
            do throws(OptionProblem) {
                try entry.set(&options, value)
            } catch {
                throw UsageError("--\(name): \(error)")
            }
            options.given.append((name, value ?? "1"))
        }
        if !wantsHelp && !wantsVersion { try check() }
    }

    private static func split(_ word: String) throws(UsageError) -> (String, String?) {
        guard word.hasPrefix("-"), word.count > 1 else {
            throw UsageError(
                "'\(word)' is not an option; job files are not read, give --option=value")
        }
        let body = word.drop { $0 == "-" }
        guard let equals = body.firstIndex(of: "=") else { return (canonical(body), nil) }
        return (canonical(body[..<equals]), String(body[body.index(after: equals)...]))
    }

    private static func canonical(_ name: Substring) -> String {
        switch name {
        case "readwrite": "rw"
        case "blocksize": "bs"
        case "h": "help"
        case "v": "version"
        default: String(name)
        }
    }

    private mutating func noteIgnored(
        _ name: String, word: String, inline: String?, rest: inout ArraySlice<String>
    ) throws(UsageError) {
        guard FioVocabulary.ignored.contains(name) else {
            let near = nearest(to: name, among: Self.names + FioVocabulary.ignored) ?? "help"
            throw UsageError("unknown option '\(word)'; the nearest is '--\(near)'")
        }
        // `--thread --bs=4k` and `--mem malloc` both occur: a word that is no option is the value.
        if inline == nil, let next = rest.first, !next.hasPrefix("-") { rest.removeFirst() }
        let warning = "option --\(name) is known to fio but not supported here; ignored"
        if !warnings.contains(warning) { warnings.append(warning) }
    }

    private func check() throws(UsageError) {
        if options.size == nil, options.filename.isEmpty {
            throw UsageError("--size is needed: the bytes a job covers, such as --size=1g")
        }
        if readOnly, options.pattern.writes {
            throw UsageError("--rw=\(options.pattern.rawValue) writes, and --readonly forbids it")
        }
        if options.timeBased, options.runtime == 0 {
            throw UsageError("--time_based needs --runtime")
        }
        if case .bytes(let size) = options.size, size < options.blockBytes {
            throw UsageError(
                "--size: \(size) is smaller than one block (--bs), "
                    + "which is \(options.blockBytes)")
        }
        if options.completion == .inline, !options.mayCompleteInline {
            throw UsageError(
                "--kv_completion=inline is for one job of the store that only reads, with "
                    + "--kv_mode=direct and without --verify: use polled")
        }
        if options.engine == .kv {
            if !options.filename.isEmpty {
                throw UsageError(
                    "--filename is for --ioengine=io_uring or psync; "
                        + "the store takes --directory")
            }
            if case .share = options.size {
                throw UsageError("--size: the store takes bytes, not a share")
            }
            if options.blockBytes > 64 << 20 {
                throw UsageError("--bs: the store's blocks are at most 64m")
            }
        } else if options.direct, options.blockBytes % 512 != 0 {
            throw UsageError(
                "--bs: \(options.blockBytes) is no multiple of 512, "
                    + "which --direct=1 needs")
        }
    }
}

extension FioCommandLine {
    private struct Entry {
        var name: String
        var isFlag: Bool
        var help: String
        var set: Setter

        init(_ name: String, flag: Bool = false, _ help: String, _ set: @escaping Setter) {
            (self.name, isFlag, self.help, self.set) = (name, flag, help, set)
        }
    }

    private static var table: [Entry] { jobEntries + engineEntries + reportEntries }

    private static func required(_ text: String?) throws(OptionProblem) -> String {
        guard let text, !text.isEmpty else { throw OptionProblem("a value is needed") }
        return text
    }

    private static func file(_ text: String?) throws(OptionProblem) -> String {
        let text = try required(text)
        guard !text.utf8.contains(0) else { throw OptionProblem("a path has no zero byte") }
        return text
    }

    private static var jobEntries: [Entry] {
        [
            Entry("name", "=TEXT  name of the job; keys and payloads derive from it") {
                job, text throws(OptionProblem) in
                let text = try file(text)
                guard !text.contains("/") else { throw OptionProblem("a name has no '/'") }
                job.name = text
            },
            Entry("directory", "=DIR  where the store, or the raw files, are (default .)") {
                job, text throws(OptionProblem) in job.directory = try file(text)
            },
            Entry("filename", "=FILE  raw engines: the file instead of NAME.JOB.0") {
                job, text throws(OptionProblem) in job.filename = try file(text)
            },
            Entry("rw", "=read|write|randread|randwrite|randrw|rw  (default read)") {
                job, text throws(OptionProblem) in
                job.pattern = try OptionValue.choice(try required(text))
            },
            Entry("rwmixread", "=PERCENT  share of reads in a mix (default 50)") {
                job, text throws(OptionProblem) in
                job.readMix = try OptionValue.integer(try required(text), in: 0...100)
            },
            Entry("rwmixwrite", "=PERCENT  the same, told from the writes") {
                job, text throws(OptionProblem) in
                job.readMix = 100 - (try OptionValue.integer(try required(text), in: 0...100))
            },
            Entry("bs", "=SIZE  bytes of an operation, a block of the store (default 4k)") {
                job, text throws(OptionProblem) in
                job.blockBytes = try OptionValue.integer(try required(text), in: 1...(1 << 30))
            },
            Entry("iodepth", "=N  operations in flight a job (default 1)") {
                job, text throws(OptionProblem) in
                job.depth = Int(try OptionValue.integer(try required(text), in: 1...4096))
            },
            Entry("numjobs", "=N  jobs, each a thread with keys or a file of its own") {
                job, text throws(OptionProblem) in
                job.jobs = Int(try OptionValue.integer(try required(text), in: 1...256))
            },
            Entry("size", "=SIZE  bytes a job covers: live values, or its file") {
                job, text throws(OptionProblem) in
                job.size = try OptionValue.sizeOrShare(try required(text))
            },
            Entry("runtime", "=TIME  the longest a job runs; seconds, or with ms us m h") {
                job, text throws(OptionProblem) in
                job.runtime = try OptionValue.time(try required(text))
            },
            Entry("time_based", flag: true, "  run for all of --runtime, pass after pass") {
                job, text throws(OptionProblem) in job.timeBased = try OptionValue.flag(text)
            },
            Entry("ramp_time", "=TIME  run so long before measuring") {
                job, text throws(OptionProblem) in
                job.rampTime = try OptionValue.time(try required(text))
            },
            Entry("randseed", "=N  seed of all random choices") {
                job, text throws(OptionProblem) in
                job.randomSeed = try OptionValue.integer(try required(text), in: 0...UInt64.max)
            },
        ]
    }

    private static var engineEntries: [Entry] {
        [
            Entry("ioengine", "=kv|io_uring|psync  the store (default), or a raw baseline") {
                job, text throws(OptionProblem) in
                job.engine = try OptionValue.choice(try required(text))
            },
            Entry("direct", flag: true, "=0|1  raw engines: O_DIRECT (default 1)") {
                job, text throws(OptionProblem) in job.direct = try OptionValue.flag(text)
            },
            Entry("buffered", flag: true, "=0|1  the opposite of --direct") {
                job, text throws(OptionProblem) in job.direct = !(try OptionValue.flag(text))
            },
            Entry("verify", "=0|1|crc32c|...  check every byte that is read") {
                job, text throws(OptionProblem) in
                job.verify = try verifyChoice(try required(text))
            },
            Entry("do_verify", flag: true, "=0|1  a verifying write job reads back (default 1)") {
                job, text throws(OptionProblem) in
                job.verifyAfterWrite = try OptionValue.flag(text)
            },
            Entry("end_fsync", flag: true, "=0|1  flush at the end of a job") {
                job, text throws(OptionProblem) in job.endSync = try OptionValue.flag(text)
            },
            Entry("kv_mode", "=direct|cached|lease  how the store reads (default direct)") {
                job, text throws(OptionProblem) in
                job.readMode = try OptionValue.choice(try required(text))
            },
            Entry("kv_completion", "=inline|polled  on the store's thread, or on the job's own") {
                job, text throws(OptionProblem) in
                job.completion = try OptionValue.choice(try required(text))
            },
            Entry("kv_write", "=insert|replace  fresh keys (default), or the same again") {
                job, text throws(OptionProblem) in
                job.writeMode = try OptionValue.choice(try required(text))
            },
            Entry("kv_dram", "=SIZE|N%  slab bytes, or a share of the live value bytes") {
                job, text throws(OptionProblem) in
                job.dram = try OptionValue.sizeOrShare(try required(text))
            },
            Entry("kv_durability", "=volatile|written|durable  class of a put (written)") {
                job, text throws(OptionProblem) in
                job.durability = try OptionValue.choice(try required(text))
            },
        ]
    }

    private static var reportEntries: [Entry] {
        [
            Entry("group_reporting", flag: true, "  one report for all jobs") {
                job, text throws(OptionProblem) in
                job.groupReporting = try OptionValue.flag(text)
            },
            Entry("output-format", "=normal|json|normal,json") {
                job, text throws(OptionProblem) in
                var formats: [OutputFormat] = []
                for word in try required(text).split(separator: ",") {
                    let format: OutputFormat = try OptionValue.choice(String(word))
                    if !formats.contains(format) { formats.append(format) }
                }
                guard !formats.isEmpty else { throw OptionProblem("allowed: normal, json") }
                job.formats = formats
            },
            Entry("output", "=FILE  the report goes there") {
                job, text throws(OptionProblem) in job.output = try file(text)
            },
            Entry("eta", "=auto|always|never  the progress line") {
                job, text throws(OptionProblem) in
                job.progress = try OptionValue.choice(try required(text))
            },
        ]
    }

    private static func verifyChoice(_ text: String) throws(OptionProblem) -> Bool {
        let kinds = [
            "crc32c", "crc32c-intel", "crc32", "crc64", "crc16", "crc7", "md5", "sha1", "sha256",
            "sha512", "sha3-224", "sha3-256", "sha3-384", "sha3-512", "xxhash", "pattern", "meta",
        ]
        if text == "0" || text == "null" { return false }
        // Whatever is asked for, all bytes are compared with the payload of that key.
        if text == "1" || kinds.contains(text) { return true }
        throw OptionProblem(
            "'\(text)' is not allowed; allowed: 0, 1, \(kinds.joined(separator: ", "))")
    }

    package static var help: String {
        var text = """
            hearth-bench: fio's command line, with the Hearth store as its default engine.

            usage: hearth-bench --name=TEXT --rw=... --bs=SIZE --size=SIZE [--option=value ...]
                   hearth-bench replay [--trace FILE] ...      (hearth-bench replay --help)

            Sizes take k m g t (powers of 1024); times are seconds, or take ms us m h.


            """
        for (title, entries) in [
            ("job", jobEntries), ("engine", engineEntries), ("report", reportEntries),
        ] {
            text += "\(title):\n"
            for entry in entries { text += "  --\(entry.name)\(entry.help)\n" }
        }
        text += """
              --readonly, --help, --version

            Other fio options are accepted with a warning. Exit status: 0 done, 1 an error while
            running, 2 a wrong command line.

            """
        return text
    }
}
