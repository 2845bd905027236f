// hearth-torture: tries to break the store. Five commands, each of which ends with exit code 0 when
// nothing was found, 1 on a violation (with the command that replays it), 2 on wrong options.

import Glibc

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
case "kill-child": exit(KillChild.run(arguments))
default:
    report(
        """
        usage: hearth-torture sim [--seeds N] [--operations M] [--first S0] [--seed S] [--no-faults]
               hearth-torture crash [--states N]
               hearth-torture kill [--kills N] [--directory D]
               hearth-torture parity [--seeds N] [--directory D]
               hearth-torture mutate [--mutations N] [--first S0] [--seed S]
        """)
    exit(2)
}
