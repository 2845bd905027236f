// FioProbe: asks fio what a directory's disk does: one file is laid out, its blocks are read at
// random past the page cache at a few depths, in rounds, and it is removed again. A disk that
// others use, too, gives now half and now twice as much for seconds at a time: a depth's rate is
// the mean of rounds that go through all depths.

import Glibc

package struct FioProbe {
    private let directory: String
    private let blockBytes: Int
    private let seconds: Int
    private let rounds: Int
    private let fileBytes: Int
    private let depths: [Int]
    private let program: String

    /// Requests under way at once.
    package static let depths = [1, 2, 4, 8, 16, 32]
    /// fio reads no larger blocks here; a larger block is many requests anyway.
    private static let largest = 4 << 20

    package init(
        directory: String, blockBytes: Int, seconds: Int = 1, rounds: Int = 4,
        fileBytes: Int = 1 << 30, depths: [Int] = FioProbe.depths, program: String = "fio"
    ) {
        self.depths = depths
        self.program = program
        self.directory = directory
        self.blockBytes = blockBytes
        self.seconds = seconds
        self.rounds = rounds
        self.fileBytes = max(fileBytes, 16 * blockBytes)
    }

    /// The size that fio reads for blocks of so many bytes: whole pages, within bounds.
    package static func rounded(_ bytes: Double) -> Int {
        let pages = (bytes / 4096).rounded(.up)
        return min(largest, max(4096, Int(min(pages, 1e6)) * 4096))
    }

    package func fit() throws(BenchError) -> DeviceFit {
        let path = "\(directory)/hearth-fit.\(getpid())"
        defer {
            unlink(path)
            unlink(path + ".json")
        }
        let layout = try bandwidth(
            path, "write",
            [
                "--rw=write", "--bs=1m", "--iodepth=4", "--size=\(fileBytes)", "--end_fsync=1",
            ])
        var sums = [Double](repeating: 0, count: depths.count)
        for _ in 0..<rounds {
            for (index, depth) in depths.enumerated() {
                sums[index] += try bandwidth(
                    path, "read",
                    [
                        "--rw=randread", "--bs=\(blockBytes)", "--iodepth=\(depth)",
                        "--size=\(fileBytes)", "--time_based", "--runtime=\(seconds)",
                        "--randrepeat=0", "--readonly",
                    ])
            }
        }
        let points = zip(depths, sums).map {
            DevicePoint(depth: $0, bytesPerSecond: $1 / Double(rounds))
        }
        guard
            let fit = DeviceFit(blockBytes: blockBytes, points: points, writeBandwidth: layout)
        else { throw BenchError("fio in \(directory): nothing was read") }
        return fit
    }

    /// Bytes a second of one run.
    private func bandwidth(
        _ path: String, _ direction: String, _ options: [String]
    ) throws(BenchError) -> Double {
        let report = path + ".json"
        try Self.run(
            [
                program, "--name=fit", "--ioengine=io_uring", "--direct=1", "--filename=\(path)",
                "--output-format=json", "--output=\(report)",
            ] + options)
        let text = try TextFile.read(report)
        // Warnings stand before the document.
        let document = text.firstIndex(of: "{").map { String(text[$0...]) } ?? ""
        guard let value = JSONValue(parsing: document), case .array(let jobs)? = value["jobs"],
            let rate = jobs.first?[direction]?["bw_bytes"]?.double, rate > 0
        else { throw BenchError("fio in \(directory): its report tells no bandwidth") }
        return rate
    }

    /// Runs a program to its end; what it says goes to standard error only if it fails.
    private static func run(_ words: [String]) throws(BenchError) {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0)
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) }
        arguments.append(nil)
        defer { for argument in arguments { free(argument) } }
        var child = pid_t()
        let failure = posix_spawnp(&child, words[0], &actions, nil, arguments, environ)
        guard failure == 0 else {
            let reason =
                failure == ENOENT
                ? "is not installed; give the device as bw=,lat=,qd= or install it"
                : errorText(failure)
            throw BenchError("--device-model=fitted needs \(words[0]), which \(reason)")
        }
        var status: Int32 = 0
        while waitpid(child, &status, 0) < 0, errno == EINTR {}
        // Exited, and with 0.
        guard status & 0x7F == 0, status >> 8 & 0xFF == 0 else {
            throw BenchError("\(words.joined(separator: " ")): failed (status \(status))")
        }
    }
}
