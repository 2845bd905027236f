// crash: every scenario, a crash at each write and flush boundary of its script, and from there
// many subsets of what was not flushed: all of them when they are few, else samples. Each state is
// recovered, looked at and used; some are crashed again while they recover, up to three deep.

import LogStore
import SimulatedDisk
import Staging
import Synchronization

enum CrashCommand {
    /// One boundary of one scenario.
    private struct Point: Sendable {
        var scenario: Int
        var boundary: Int
        var unflushed: Int
    }

    private struct Sums {
        var states = 0
        var exhaustive = 0
        var nested = 0
        var failures: [String] = []
        var perScenario: [Int]
        var tally = Tally()
    }

    private static let exhaustiveLimit = 12

    static func run(_ arguments: Arguments) -> Int32 {
        arguments.only(["--states", "--scenario", "--boundary", "--subset", "--threads", "--seed"])
        let wanted = arguments.number("--states", 20_000)
        let seed = UInt64(arguments.number("--seed", 1))
        let only = arguments.string("--scenario").flatMap { Int($0) }
        let began = secondsNow()
        let threads = arguments.number("--threads", 2)
        let numbers = CrashScenario.all.indices.filter { number in
            only.map { $0 == number } ?? true
        }
        var points: [Point] = []
        var broken = 0
        for number in numbers {
            guard let found = boundaries(number, seed) else {
                broken += 1
                continue
            }
            points += found
        }
        if let boundary = arguments.string("--boundary").flatMap({ Int($0) }) {
            points = points.filter { $0.boundary == boundary }
        }
        points = countUnflushed(points, seed, threads: threads)
        let (limit, samples) = plan(points, wanted)
        let sums = Mutex(Sums(perScenario: Array(repeating: 0, count: CrashScenario.all.count)))
        let subset = arguments.string("--subset").flatMap { UInt64($0) }
        let list = points
        Workers.run(0..<list.count, threads: threads) { worker, piece in
            let point = list[piece]
            CrashNote.set(worker, replay(point, seed, nil))
            let made = Self.try(point, seed, bits: limit, samples: samples, only: subset)
            return sums.withLock { sums in
                sums.states += made.states
                sums.exhaustive += made.exhaustive
                sums.nested += made.nested
                sums.perScenario[point.scenario] += made.states
                sums.failures += made.failures
                sums.tally.add(made.tally)
                return made.failures.isEmpty || arguments.has("--keep-going")
            }
        }
        let result = sums.withLock { $0 }
        for number in CrashScenario.all.indices where result.perScenario[number] > 0 {
            let count = points.count { $0.scenario == number }
            say(
                "  \(CrashScenario.all[number].name): \(count) boundaries, "
                    + "\(result.perScenario[number]) states")
        }
        say(
            "crash: \(points.count) boundaries, \(result.states) states, \(result.exhaustive) of "
                + "exhaustive boundaries (up to \(limit) unflushed), "
                + "\(result.nested) crashed again "
                + "in recovery, in \(decimal(secondsNow() - began)) s, "
                + "\(result.failures.count) failed")
        if !result.failures.isEmpty || broken > 0 { return 1 }
        if only == nil, arguments.string("--boundary") == nil, result.states < wanted {
            report("only \(result.states) states of \(wanted)")
            return 1
        }
        return 0
    }

    /// How many unflushed changes are still tried in every combination (as many as keep these
    /// states within what was asked for, twelve at most), and how many samples each boundary gets
    /// that has more: what is missing, four at least.
    private static func plan(_ points: [Point], _ wanted: Int) -> (bits: Int, samples: Int) {
        func exhaustive(_ bits: Int) -> Int {
            points.reduce(0) { $0 + ($1.unflushed <= bits ? 1 << $1.unflushed : 0) }
        }
        var bits = exhaustiveLimit
        while bits > 2, exhaustive(bits) > wanted { bits -= 1 }
        let sampled = max(1, points.count { $0.unflushed > bits })
        return (bits, max(4, (wanted - exhaustive(bits) + sampled - 1) / sampled))
    }

    /// Runs a scenario undisturbed to find its boundaries.
    private static func boundaries(_ number: Int, _ seed: UInt64) -> [Point]? {
        let scenario = CrashScenario.all[number]
        let world = begin(scenario, seed)
        let base = world.boundaries
        scenario.script(world)
        let end = world.boundaries
        if let failure = world.failure {
            report("scenario \(scenario.name) fails without a crash: \(failure)")
            return nil
        }
        world.crash(keep: .none)
        return (1...max(1, end - base)).map {
            Point(scenario: number, boundary: $0, unflushed: 0)
        }
    }

    /// Runs to each boundary to count what is unflushed there.
    private static func countUnflushed(
        _ points: [Point], _ seed: UInt64, threads: Int
    ) -> [Point] {
        let counted = Mutex(points)
        Workers.run(0..<points.count, threads: threads) { worker, piece in
            let point = points[piece]
            CrashNote.set(worker, replay(point, seed, nil))
            let scenario = CrashScenario.all[point.scenario]
            let world = begin(scenario, seed)
            run(scenario, world, to: point.boundary)
            let unflushed = world.machine?.unflushedCount ?? 0
            counted.withLock { $0[piece].unflushed = unflushed }
            world.crash(keep: .none)
            return true
        }
        return counted.withLock { $0 }
    }

    private static func begin(_ scenario: CrashScenario, _ seed: UInt64) -> World {
        let world = scenario.world(seed: seed)
        if scenario.opened, world.failure == nil, world.open() {
            world.settleIn()
            scenario.setup(world)
        }
        return world
    }

    private static func run(_ scenario: CrashScenario, _ world: World, to boundary: Int) {
        world.crashAt = world.boundaries + boundary
        world.simulated?.crashAfterBoundary = world.crashAt - world.boundariesBefore
        scenario.script(world)
    }

    private struct Made {
        var states = 0
        var exhaustive = 0
        var nested = 0
        var failures: [String] = []
        var tally = Tally()
    }

    private static func `try`(
        _ point: Point, _ seed: UInt64, bits: Int, samples: Int, only: UInt64?
    ) -> Made {
        let scenario = CrashScenario.all[point.scenario]
        let world = begin(scenario, seed)
        run(scenario, world, to: point.boundary)
        var made = Made()
        if let failure = world.failure {
            made.failures.append(failure)
            report("\(failure)\n  replay: \(replay(point, seed, nil))")
            return made
        }
        let all = point.unflushed <= bits
        let count = all ? 1 << point.unflushed : samples
        for number in 0..<count {
            if let only, only != UInt64(number) { continue }
            guard let fork = world.fork() else { return made }
            var random = SplitMix64(seed: seed &+ UInt64(point.boundary) << 20 &+ UInt64(number))
            let keep: CrashKeep = all ? .subset(UInt64(number)) : .random(seed: random.next())
            // Every third exhaustive state has its kept writes torn.
            fork.crash(keep: keep, tearSeed: all && number % 3 == 2 ? random.next() : nil)
            if number % 6 == 5 {
                nest(fork, &random)
                made.nested += 1
            }
            look(fork)
            made.states += 1
            if all { made.exhaustive += 1 }
            made.tally.add(fork.tally)
            if let failure = fork.failure {
                made.failures.append(failure)
                report("\(scenario.name): \(failure)\n  replay: \(replay(point, seed, number))")
                break
            }
        }
        world.crash(keep: .none)
        return made
    }

    /// Crashes again in the middle of recovering, up to three times.
    private static func nest(_ world: World, _ random: inout SplitMix64) {
        for _ in 0..<(1 + random.below(3)) {
            guard world.failure == nil, world.open() else { return }
            world.simulated?.crashAfterBoundary = 1 + random.below(12)
            for _ in 0..<2_000 where world.simulated?.dead != true {
                world.step()
                if world.store?.isRecovered == true, world.nothingInFlight { break }
            }
            world.crash(keep: .random(seed: random.next()))
        }
    }

    /// Recovers the state, checks every key, and uses the store.
    private static func look(_ world: World) {
        guard world.failure == nil, world.open() else { return }
        world.settleIn()
        if world.failure == nil { world.readEverything() }
        if world.failure == nil { world.checkAccounting() }
        if world.failure == nil { world.checkUsable() }
        if world.failure == nil { world.crash(keep: .none) }
    }

    private static func replay(_ point: Point, _ seed: UInt64, _ subset: Int?) -> String {
        "hearth-torture crash --scenario \(point.scenario) --boundary \(point.boundary) "
            + "--seed \(seed)" + (subset.map { " --subset \($0)" } ?? "")
    }
}
