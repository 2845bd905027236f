// hearth-bench: fio's command line with the store as default engine, and `replay` for block traces.

import BenchKit
import Glibc

let words = Array(CommandLine.arguments.dropFirst())
signal(SIGPIPE, SIG_IGN)
exit(FioCommand.run(words, makeTarget: makeTarget))
