// fuzz: structures of the format and messages of the C interface, changed a few fields at a time,
// a hundred thousand and more a second. Each seed makes one valid structure and mutates it many
// times; nothing may trap, no change pass a check, and what is taken must come back when it is
// written again. A failure prints the command that makes this one mutation.

import Glibc
import Synchronization

enum FuzzCommand {
    /// Mutations of one structure.
    static let each = 512
    /// From so many mutations on, every structure must have met each edge at least `least` times.
    private static let fullRun = 1_000_000
    private static let least = 100

    private struct Sums {
        var tally = FuzzTally()
        var failures = 0
    }

    static func run(_ arguments: Arguments) -> Int32 {
        arguments.only([
            "--mutations", "--messages", "--first", "--seed", "--mutation", "--threads",
            "--directory",
        ])
        let single = arguments.string("--seed") != nil
        let first = arguments.number(single ? "--seed" : "--first", 1)
        let wanted = arguments.number("--mutations", 1_000_000)
        let only = arguments.string("--mutation").flatMap { Int($0) }
        let messages = arguments.number("--messages", single ? 0 : wanted / 20)
        let began = secondsNow()
        let sums = Mutex(Sums())
        let seeds = single ? 1 : (wanted + each - 1) / each
        Workers.run(first..<(first + seeds), threads: arguments.number("--threads", 2)) {
            worker, seed in
            let (tally, failed) = Self.try(worker, seed, only)
            return sums.withLock { sums in
                sums.tally.add(tally)
                sums.failures += failed ? 1 : 0
                return !failed || arguments.has("--keep-going")
            }
        }
        let (tally, failures) = sums.withLock { ($0.tally, $0.failures) }
        let seconds = secondsNow() - began
        say(table(tally))
        say(
            "fuzz: \(tally.mutations) mutations of \(seeds) structures in \(decimal(seconds)) s, "
                + "\(Int(Double(tally.mutations) / max(seconds, 0.001))) a second, "
                + "\(failures) failed")
        if failures > 0 { return 1 }
        if tally.mutations >= fullRun, !isComplete(tally) { return 1 }
        return messages > 0 ? InterfaceFuzz.run(messages, UInt64(first), arguments) : 0
    }

    private static func `try`(
        _ worker: Int, _ seed: Int, _ only: Int?
    ) -> (FuzzTally, failed: Bool) {
        var tally = FuzzTally()
        CrashNote.set(worker, "replay: hearth-torture fuzz --seed \(seed)")
        let number = FuzzCatalog.number(seed: seed)
        var making = Choices(seed: UInt64(bitPattern: Int64(seed)) &* 0x9E37_79B9)
        var mutator = Mutator(FuzzCatalog.make(number, &making), number)
        var failure = mutator.untouched()
        var place: Int?
        for mutation in 0..<each where failure == nil {
            if let only, only != mutation { continue }
            var choices = Choices(seed: UInt64(truncatingIfNeeded: seed &* 1_000_003 &+ mutation))
            failure = mutator.mutate(&choices, &tally)
            if failure != nil { place = mutation }
        }
        if failure == nil { failure = mutator.untouched() }
        if let failure {
            report(
                "\(FuzzCatalog.names[number]): \(failure)\n  replay: hearth-torture fuzz "
                    + "--seed \(seed)" + (place.map { " --mutation \($0)" } ?? ""))
        }
        return (tally, failure != nil)
    }

    private static func isComplete(_ tally: FuzzTally) -> Bool {
        var missing = 0
        for number in FuzzCatalog.names.indices {
            for edge in FuzzTally.Edge.required where tally[number, edge] < least {
                report("met too seldom: \(FuzzCatalog.names[number]), \(edge)")
                missing += 1
            }
            if tally.refusals(number) < least {
                report("met too seldom: \(FuzzCatalog.names[number]), sealed anew and refused")
                missing += 1
            }
        }
        return missing == 0
    }

    /// A line a structure: how often each edge was met.
    private static func table(_ tally: FuzzTally) -> String {
        func column(_ text: String, _ width: Int) -> String {
            String(repeating: " ", count: max(1, width - text.count)) + text
        }
        let heads = [
            "by check", "cut", "longer", "same", "taken", "damaged", "strange", "elsewhere",
            "newer",
        ]
        var lines = [
            "structures, and how mutations came out: found by the check; cut short, made longer;",
            "unchanged; with the check made anew: taken, refused by reason",
            column("", 20) + heads.map { column($0, 10) }.joined(),
        ]
        for (number, name) in FuzzCatalog.names.enumerated() {
            let counts = FuzzTally.Edge.allCases.map { column(String(tally[number, $0]), 10) }
            lines.append(name + column("", 20 - name.count) + counts.joined())
        }
        return lines.joined(separator: "\n")
    }
}
