// sim: model-based random operations on the simulated disk, many seeds, two threads. Ends with the
// table of what was met; exit 1 on the first violation, with the one command that replays it.

import Glibc
import Synchronization

enum SimCommand {
    /// Seeds from which the counts of the table have to reach `leastCount`.
    static let fullRun = 2_000
    static let leastCount: UInt64 = 100
    /// Every so many seeds one is run twice: the same seed gives the same trace.
    private static let twiceEvery = 64

    static func run(_ arguments: Arguments) -> Int32 {
        arguments.only(["--seeds", "--operations", "--seed", "--first", "--threads", "--seconds"])
        let operations = arguments.number("--operations", 1_000)
        let faults = !arguments.has("--no-faults")
        if arguments.string("--seed") != nil {
            let seed = UInt64(arguments.number("--seed", 1))
            return one(seed, operations, faults, arguments)
        }
        let first = arguments.number("--first", 1)
        let seeds = arguments.number("--seeds", 200)
        let shared = Mutex<(tally: Tally, failures: [String], done: Int)>((Tally(), [], 0))
        let keepGoing = arguments.has("--keep-going")
        // No seed is begun after so many seconds; 0 for all that were asked for.
        let seconds = Double(arguments.number("--seconds", 0))
        let began = secondsNow()
        Workers.run(first..<(first + seeds), threads: arguments.number("--threads", 2)) {
            worker, piece in
            let command = replay(piece, operations, faults)
            CrashNote.set(worker, "seed \(piece); replay: \(command)")
            let result = Seed.run(
                UInt64(piece), operations: operations, faults: faults, verbose: false)
            var failure = result.failure
            if failure == nil, piece % twiceEvery == 0 {
                let again = Seed.run(
                    UInt64(piece), operations: operations, faults: faults, verbose: false)
                if again.traceHash != result.traceHash {
                    failure = "the same seed gave two different traces"
                }
            }
            if let failure { report("seed \(piece): \(failure)\n  replay: \(command)") }
            return shared.withLock { state in
                state.tally.add(result.tally)
                state.done += 1
                if let failure { state.failures.append("\(piece): \(failure)") }
                let isOver = seconds > 0 && secondsNow() - began > seconds
                return (failure == nil || keepGoing) && !isOver
            }
        }
        let (tally, failures, done) = shared.withLock { ($0.tally, $0.failures, $0.done) }
        say(tally.table(faults: faults))
        say(
            "sim: \(done) seeds of \(operations) operations in "
                + "\(decimal(secondsNow() - began)) s, \(failures.count) failed")
        if !failures.isEmpty { return 1 }
        return seeds >= fullRun && faults && seconds == 0 ? complete(tally) : 0
    }

    private static func complete(_ tally: Tally) -> Int32 {
        let missing = tally.below(leastCount, faults: true)
        for name in missing { report("met too seldom: \(name), \(tally[name]) times") }
        return missing.isEmpty ? 0 : 1
    }

    private static func one(
        _ seed: UInt64, _ operations: Int, _ faults: Bool, _ arguments: Arguments
    ) -> Int32 {
        CrashNote.set(0, "seed \(seed); replay: \(replay(Int(seed), operations, faults))")
        let result = Seed.run(
            seed, operations: operations, faults: faults, verbose: arguments.has("--verbose"))
        if !arguments.has("--quiet") { say(result.tally.table(faults: faults)) }
        say("seed \(seed): " + (result.failure ?? "no violation"))
        return result.failure == nil ? 0 : 1
    }

    private static func replay(_ seed: Int, _ operations: Int, _ faults: Bool) -> String {
        "hearth-torture sim --seed \(seed) --operations \(operations)"
            + (faults ? "" : " --no-faults")
    }
}
