// hearth-torture: tries to break the store. Its commands, each of which ends with exit code 0 when
// nothing was found, 1 on a violation (with the command that replays it), 2 on wrong options.

import Glibc

// libFuzzer reads its own options.
if CommandLine.arguments.count > 1, CommandLine.arguments[1] == "guided" {
    exit(GuidedFuzz.run(Array(CommandLine.arguments.dropFirst(2))))
}
let arguments = Arguments(
    CommandLine.arguments,
    flags: [
        "--no-faults", "--verbose", "--quiet", "--keep-going", "--no-handler", "--evicts",
        "--verify",
    ])
if !arguments.has("--no-handler") { CrashNote.install() }
switch arguments.command {
case "sim": exit(SimCommand.run(arguments))
case "crash": exit(CrashCommand.run(arguments))
case "kill": exit(KillCommand.run(arguments))
case "mutate": exit(MutateCommand.run(arguments))
case "parity": exit(ParityCommand.run(arguments))
case "fuzz": exit(FuzzCommand.run(arguments))
case "kill-child": exit(KillChild.run(arguments))
case "compact-kill": exit(CompactKillCommand.run(arguments))
case "compact-child": exit(CompactChild.run(arguments))
default:
    report(
        """
        usage: hearth-torture sim [--seeds N] [--operations M] [--first S0] [--seed S] [--no-faults]
               hearth-torture crash [--states N]
               hearth-torture kill [--kills N] [--directory D]
               hearth-torture compact-kill [--kills N] [--directory D] [--program HEARTH]
               hearth-torture parity [--seeds N] [--directory D]
               hearth-torture mutate [--mutations N] [--first S0] [--seed S]
               hearth-torture fuzz [--mutations N] [--messages N] [--first S0] [--seed S]
               hearth-torture guided [libFuzzer's options]       (built by tools/fuzz)
        """)
    exit(2)
}
