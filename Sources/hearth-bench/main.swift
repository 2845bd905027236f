// hearth-bench: fio's command line with the store as default engine, `replay` for block
// traces, and `row` for what `make bench` measures beside.

import BenchKit
import Glibc

let words = Array(CommandLine.arguments.dropFirst())
// A closed pipe is an error of the write, not the end of the process.
signal(SIGPIPE, SIG_IGN)
if words.first == "replay" {
    exit(ReplayCommand.perform(Array(words.dropFirst())))
}
if words.first == "row" {
    exit(RowCommand.perform(Array(words.dropFirst())))
}
exit(FioCommand.run(words.isEmpty ? ["--help"] : words, makeTarget: makeTarget))
