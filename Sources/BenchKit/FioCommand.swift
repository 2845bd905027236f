// FioCommand: the fio-style command from its words to its exit status: 0 done, 1 an error while
// running (of I/O, of a check, of the set-up), 2 a wrong command line.

import Glibc

package enum FioCommand {
    package static func run(
        _ words: [String], makeTarget: (JobOptions) throws(BenchError) -> any BenchTarget
    ) -> Int32 {
        let line: FioCommandLine
        do throws(UsageError) {
            line = try FioCommandLine(words)
        } catch {
            writeAll(STDERR_FILENO, "hearth-bench: \(error)\n")
            return 2
        }
        if line.wantsHelp {
            writeAll(STDOUT_FILENO, FioCommandLine.help)
            return 0
        }
        if line.wantsVersion {
            writeAll(STDOUT_FILENO, "\(FioReport.fioVersion)\n")
            return 0
        }
        for warning in line.warnings {
            writeAll(STDERR_FILENO, "hearth-bench: warning: \(warning)\n")
        }
        do throws(BenchError) {
            let target = try makeTarget(line.options)
            let runner = JobRunner(
                options: line.options, target: target, progress: ProgressLine(line.options.progress)
            )
            let report = try runner.run()
            try Output.write(text(report), to: line.options.output)
            for result in report.results where result.firstError != 0 {
                writeAll(STDERR_FILENO, "hearth-bench: \(result.firstErrorText)\n")
            }
            return report.failed ? 1 : 0
        } catch {
            writeAll(STDERR_FILENO, "hearth-bench: \(error)\n")
            return 1
        }
    }

    /// JSON first where both are asked for, as fio orders them.
    package static func text(_ report: RunReport) -> String {
        var out = ""
        if report.options.formats.contains(.json) {
            out += FioReport.json(report).description + "\n"
        }
        if report.options.formats.contains(.normal) { out += FioText.report(report) }
        return out
    }
}

package enum Output {
    /// To standard output, or to a file that appears whole: written beside it, then renamed.
    package static func write(_ text: String, to path: String) throws(BenchError) {
        guard !path.isEmpty else {
            writeAll(STDOUT_FILENO, text)
            return
        }
        var information = stat()
        if stat(path, &information) == 0, information.st_mode & S_IFMT != S_IFREG {
            // A device or pipe is written to, never replaced by a file.
            let descriptor = open(path, O_WRONLY | O_CLOEXEC)
            guard descriptor >= 0, writeAll(descriptor, text) else {
                throw BenchError("--output=\(path): \(errorText(errno))", code: errno)
            }
            close(descriptor)
            return
        }
        let temporary = "\(path).\(getpid()).tmp"
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else {
            throw BenchError("--output=\(path): \(errorText(errno))", code: errno)
        }
        let written = writeAll(descriptor, text)
        let code = errno
        close(descriptor)
        guard written, rename(temporary, path) == 0 else {
            let reason = written ? errno : code
            unlink(temporary)
            throw BenchError("--output=\(path): \(errorText(reason))", code: reason)
        }
    }
}
