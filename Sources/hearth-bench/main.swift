// hearth-bench: fio's command line with the store as default engine, and `replay` for block traces.

import BenchKit
import Glibc

let words = Array(CommandLine.arguments.dropFirst())
// A closed pipe is an error of the write, not the end of the process.
signal(SIGPIPE, SIG_IGN)
if words.first == "replay" {
    exit(ReplayCommand.perform(Array(words.dropFirst())))
}
exit(FioCommand.run(words.isEmpty ? ["--help"] : words, makeTarget: makeTarget))
