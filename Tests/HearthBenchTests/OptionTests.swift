// Options: fio's numbers, the command line's good and bad words, and the nearest suggestion.

import Testing

@testable import BenchKit

@Suite struct OptionTests {
    @Test(
        arguments: [
            ("4096", 4096), ("4k", 4096), ("4K", 4096), ("4kb", 4096), ("64k", 65536),
            ("1m", 1 << 20),
            ("2g", 2 << 30), ("1t", 1 << 40), ("0x1000", 4096), ("0x10k", 16384), ("1ki", 1000),
            ("1mib", 1_000_000), ("512b", 512),
        ] as [(String, UInt64)])
    func sizes(text: String, bytes: UInt64) throws {
        #expect(try OptionValue.size(text) == bytes)
    }

    @Test(arguments: ["", "k", "4q", "-1", "1.5m", "4kk", "99999999999999999999", "20000000000g"])
    func badSizes(text: String) {
        #expect(throws: OptionProblem.self) { try OptionValue.size(text) }
    }

    @Test(
        arguments: [
            ("10", 10_000_000_000), ("10s", 10_000_000_000), ("500ms", 500_000_000),
            ("20us", 20_000), ("7usec", 7000), ("2m", 120_000_000_000), ("1h", 3_600_000_000_000),
            ("1d", 86_400_000_000_000),
        ] as [(String, UInt64)])
    func times(text: String, nanoseconds: UInt64) throws {
        #expect(try OptionValue.time(text) == nanoseconds)
    }

    @Test(arguments: ["", "s", "3x", "-2", "99999999999999999999d"])
    func badTimes(text: String) {
        #expect(throws: OptionProblem.self) { try OptionValue.time(text) }
    }

    @Test func shares() throws {
        #expect(try OptionValue.sizeOrShare("5%") == .share(5))
        #expect(try OptionValue.sizeOrShare("12.5%").resolved(of: 1000) == 125)
        #expect(try OptionValue.sizeOrShare("1g") == .bytes(1 << 30))
        for text in ["%", "-5%", "x%", "0%", "inf%"] {
            #expect(throws: OptionProblem.self) { try OptionValue.sizeOrShare(text) }
        }
    }

    @Test func wholeCommandLine() throws {
        let line = try FioCommandLine([
            "--name=n", "--directory=/d", "--rw=randrw", "--rwmixread=70", "--bs=64k",
            "--iodepth=32", "--numjobs", "2", "--size=1g", "--runtime=500ms", "--time_based",
            "--verify=crc32c", "--output-format=json,normal", "--ioengine=kv", "--kv_mode=lease",
            "--kv_write=replace", "--kv_dram=5%", "--kv_durability=durable", "--direct=1",
            "--group_reporting", "--ramp_time=2", "--randseed=7", "--end_fsync=1", "--eta=never",
        ])
        let job = line.options
        #expect(job.name == "n" && job.directory == "/d")
        #expect(job.pattern == .randrw && job.readMix == 70)
        #expect(job.blockBytes == 65536 && job.depth == 32 && job.jobs == 2)
        #expect(job.size == .bytes(1 << 30) && job.runtime == 500_000_000 && job.timeBased)
        #expect(job.verify && job.formats == [.json, .normal] && job.engine == .kv)
        #expect(job.readMode == .lease && job.writeMode == .replace && job.dram == .share(5))
        #expect(job.durability == .durable && job.groupReporting && job.rampTime == 2_000_000_000)
        #expect(job.randomSeed == 7 && job.endSync && job.progress == .never)
        #expect(line.warnings.isEmpty)
        #expect(job.given.first?.name == "name" && job.given.count == 23)
        #expect(job.given.contains { $0.name == "time_based" && $0.value == "1" })
    }

    @Test(arguments: [
        ("--nmae=x", "--name"), ("--rwmixred=5", "--rwmixread"), ("--io-depth=4", "--iodepth"),
        ("--kv_moed=direct", "--kv_mode"), ("--blocksiez=4k", "--blocksize"),
        ("--thred", "--thread"),
    ])
    func nearestIsNamed(word: String, near: String) {
        #expect {
            try FioCommandLine(["--name=x", "--size=1m", word])
        } throws: { error in
            "\(error)" == "unknown option '\(word)'; the nearest is '\(near)'"
        }
    }

    @Test(arguments: [
        ("--rw=randred", "did you mean 'randread'?"), ("--rw=trim", "allowed: read, write"),
        ("--bs=4q", "--bs: '4q' is not a size"), ("--iodepth=0", "out of range: 1 to 4096"),
        ("--rwmixread=101", "0 to 100"), ("--verify=foo", "allowed: 0, 1, crc32c"),
        ("--ioengine=libaoi", "allowed: kv, io_uring, psync"), ("--direct=2", "allowed: 0, 1"),
        ("--output-format=xml", "allowed: normal, json"), ("--runtime=soon", "is not a time"),
        ("--kv_durability=never", "allowed: volatile, written, durable"),
        ("job.fio", "job files are not read"), ("--size=1k", "smaller than one block"),
        ("--size=10%", "the store takes bytes"), ("--time_based", "needs --runtime"),
        ("--filename=f", "the store takes --directory"),
    ])
    func badValues(word: String, says: String) {
        #expect {
            try FioCommandLine(["--name=x", "--size=1m", word])
        } throws: { error in "\(error)".contains(says) }
    }

    @Test func fioOptionsNotSupportedWarnOnce() throws {
        let line = try FioCommandLine([
            "--name=x", "--size=1m", "--thread", "--rate=10m", "--mem", "malloc", "--thread=1",
        ])
        #expect(line.warnings.count == 3)
        #expect(line.warnings[0].contains("--thread"))
    }

    @Test func readOnlyForbidsWrites() throws {
        #expect(throws: UsageError.self) {
            try FioCommandLine(["--name=x", "--size=1m", "--rw=write", "--readonly"])
        }
        _ = try FioCommandLine(["--name=x", "--size=1m", "--rw=read", "--readonly"])
    }

    @Test func inlineIsForReaders() throws {
        let words = ["--name=x", "--size=1m", "--kv_completion=inline"]
        #expect(try FioCommandLine(words + ["--rw=randread"]).options.completesInline)
        for word in ["--rw=randrw", "--verify=1", "--numjobs=2", "--kv_mode=lease"] {
            #expect(throws: UsageError.self) { try FioCommandLine(words + [word]) }
        }
    }

    @Test func distances() {
        #expect(editDistance("", "abc") == 3)
        #expect(editDistance("kitten", "sitting") == 3)
        #expect(editDistance("nmae", "name") == 1)
        #expect(editDistance("same", "same") == 0)
        #expect(nearest(to: "time-based", among: ["runtime", "time_based"]) == "time_based")
        #expect(nearest(to: "x", among: []) == nil)
    }

    @Test func replayOptions() throws {
        let configuration = try ReplayConfiguration(
            given: [
                "trace": "t", "block-bytes": "1m", "join": "8", "dram": "5%", "capacity": "2g",
                "requests": "10", "kv_mode": "cached", "durability": "durable", "turns": "2.5",
                "output-format": "json", "directory": nil,
            ], keep: true)
        #expect(configuration.trace == "t" && configuration.blockBytes == 1 << 20)
        #expect(configuration.join == 8 && configuration.dram == .share(5))
        #expect(configuration.capacity == .bytes(2 << 30) && configuration.requests == 10)
        #expect(configuration.mode == .cached && configuration.durability == .durable)
        #expect(configuration.keep && configuration.formats == [.json])
        #expect(configuration.directory == nil && configuration.chat.turns == 2.5)
    }

    @Test(arguments: [
        ("block-bytes", "65m", "out of range"), ("kv_mode", "leese", "did you mean 'lease'?"),
        ("join", "0", "out of range"), ("turns", "nan", "mean number of turns"),
        ("dram", "5%%", "not a share"), ("output-format", "", "allowed: normal, json"),
    ])
    func badReplayOptions(name: String, text: String, says: String) {
        #expect {
            try ReplayConfiguration(given: [name: text], keep: false)
        } throws: { error in
            "\(error)".contains(says) && "\(error)".hasPrefix("--\(name): ")
        }
    }

    @Test func unknownReplayOption() throws {
        let known = ["trace", "put-log", "kv_mode"]
        #expect {
            try ReplayConfiguration.checkNames(["--trace", "f", "--putlog=x"], known: known)
        } throws: { error in "\(error)".contains("the nearest is '--put-log'") }
        try ReplayConfiguration.checkNames(["--trace=-", "f", "--kv_mode", "x"], known: known)
    }
}
