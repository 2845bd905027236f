// compact-kill: a store of scattered chains on real files is compacted by another process, which is
// killed at a random moment and begun again, over and over, until one run comes to its end. After
// every other kill the store is opened in between and every block looked at; after the last run
// all blocks must be there, byte for byte, the deleted ones gone, the store verify, nothing dead be
// left and the chains lie together.
//
// The process is this program, or with --program the tool `hearth`.

import Glibc
import SimulatedDisk
import StoreTools

enum CompactKillCommand {
    private struct Sums {
        var kills = 0
        var rounds = 0
        /// Runs that ended before they were killed.
        var ended = 0
        var looks = 0
        var looked = 0
        /// Kills by how much was in order by then: nothing more than before, a part, all.
        var nothing = 0
        var part = 0
        var all = 0
        var extentsBefore = 0.0
        var extentsAfter = 0.0
        /// How long a run takes, in microseconds: kills come within that.
        var longest = 0

        mutating func note(_ extents: Double, _ before: Double) {
            if extents <= mostExtents {
                all += 1
            } else if extents == before {
                nothing += 1
            } else {
                part += 1
            }
        }
    }

    /// Runs of one store that may be killed; each goes on where the one before was.
    private static let mostRuns = 12
    /// Dead bytes, as a share, that may be left: the segments that are open, and tombstones.
    private static let deadShare = 0.25
    /// Extents a chain that may be left.
    private static let mostExtents = 4.0

    static func run(_ arguments: Arguments) -> Int32 {
        arguments.only(["--kills", "--directory", "--seed", "--program"])
        let kills = arguments.number("--kills", 100)
        let directory = arguments.string("--directory") ?? "torture-compact"
        let seed = UInt64(arguments.number("--seed", Int(getpid())))
        mkdir(directory, 0o700)
        let began = secondsNow()
        var sums = Sums()
        var random = SplitMix64(seed: seed)
        // The first round is not killed: it tells how long a run takes.
        while sums.kills < kills {
            let shape = ChainShape(
                seed: seed &+ UInt64(sums.rounds), mode: sums.rounds % 2 == 0 ? .cache : .store)
            let store = directory + "/store"
            KillCommand.removeStore(store)
            let failure = round(
                shape, store, arguments.string("--program"),
                sums.rounds == 0 ? 0 : kills - sums.kills, &random, &sums)
            if let failure {
                report("compact-kill: round \(sums.rounds): \(failure)")
                report("  the store is left in \(store)")
                report(
                    "  replay: hearth-torture compact-kill --kills \(kills) --seed \(seed) "
                        + "--directory D")
                return 1
            }
            KillCommand.removeStore(store)
            sums.rounds += 1
        }
        say(
            "compact-kill: \(sums.kills) kills of compact in \(sums.rounds) stores, "
                + "\(sums.nothing) before it had moved anything, \(sums.part) in the middle, "
                + "\(sums.all) with all in order, \(sums.ended) runs ended before; "
                + "\(sums.looks) looks at \(sums.looked) blocks, 0 lost, 0 wrong; "
                + "extents a chain \(decimal(sums.extentsBefore)) before, "
                + "\(decimal(sums.extentsAfter)) after at the most; in "
                + "\(decimal(secondsNow() - began)) s")
        return 0
    }

    /// Fills a store, compacts it with kills, and looks. What is wrong, or nil.
    private static func round(
        _ shape: ChainShape, _ store: String, _ program: String?, _ most: Int,
        _ random: inout SplitMix64, _ sums: inout Sums
    ) -> String? {
        do {
            let filled = try ChainStore(store, shape)
            let failures = filled.fill()
            filled.close()
            if let first = failures.first { return "filling: \(first)" }
            let before = try CompactChild.shape(store)
            sums.extentsBefore = max(sums.extentsBefore, before.extentsPerChain)
            var known = before.extentsPerChain
            var killed = 0
            for _ in 0..<mostRuns where killed < most {
                guard let child = spawn(program, store, &random) else { return "cannot begin" }
                // Half of them early: with every run there is less left to be done.
                let within = random.below(2) == 0 ? sums.longest : max(1, sums.longest / 3)
                usleep(UInt32(random.below(within)))
                Glibc.kill(child, SIGKILL)
                let status = KillCommand.reap(child)
                if status == 0 {
                    // It was faster: on a machine less busy than in the first round, say.
                    sums.longest = max(20_000, sums.longest * 3 / 4)
                    sums.ended += 1
                    break
                }
                guard status == SIGKILL else { return "compact ended with status \(status)" }
                killed += 1
                sums.kills += 1
                let now = try CompactChild.shape(store)
                guard now.blocks == before.blocks else {
                    return "kill \(sums.kills): \(before.blocks) blocks before, \(now.blocks) now"
                }
                sums.note(now.extentsPerChain, known)
                known = now.extentsPerChain
                if random.below(2) == 0, let failure = try look(store, shape, &sums) {
                    return "after kill \(sums.kills): \(failure)"
                }
                // With all in order a kill meets little: mostly the next store, then.
                if known <= mostExtents, random.below(4) > 0 { break }
            }
            let start = secondsNow()
            guard let last = spawn(program, store, &random) else { return "cannot begin" }
            let status = KillCommand.reap(last)
            guard status == 0 else { return "the last compact ended with status \(status)" }
            if most == 0 { sums.longest = max(20_000, Int((secondsNow() - start) * 1e6)) }
            return try judge(store, shape, before, &sums)
        } catch {
            return "\(error)"
        }
    }

    private static func look(
        _ store: String, _ shape: ChainShape, _ sums: inout Sums
    ) throws -> String? {
        let opened = try ChainStore(store, shape)
        let look = opened.look()
        opened.close()
        sums.looks += 1
        sums.looked += look.present + look.gone
        if let first = look.failures.first {
            return "\(look.failures.count) blocks are not as they were: \(first)"
        }
        return look.present + look.gone == shape.count ? nil : "a block gave no answer"
    }

    private static func judge(
        _ store: String, _ shape: ChainShape, _ before: StoreShape, _ sums: inout Sums
    ) throws -> String? {
        let damage = try CompactChild.damage(store)
        if let first = damage.first { return "it does not verify: \(first)" }
        let after = try CompactChild.shape(store)
        sums.extentsAfter = max(sums.extentsAfter, after.extentsPerChain)
        guard after.blocks == before.blocks else {
            return "\(before.blocks) blocks before, \(after.blocks) after"
        }
        guard after.deadShare <= deadShare, after.deadShare < before.deadShare else {
            return "dead share \(before.deadShare) before, \(after.deadShare) after"
        }
        guard after.extentsPerChain <= mostExtents else {
            return "\(after.extentsPerChain) extents a chain are left"
        }
        return try look(store, shape, &sums)
    }

    private static func spawn(
        _ program: String?, _ store: String, _ random: inout SplitMix64
    ) -> pid_t? {
        if let program { return KillCommand.spawn(program, ["compact", store], quiet: true) }
        return KillCommand.spawn(
            "/proc/self/exe",
            [
                "compact-child", "--directory", store, "--seed", String(random.below(1 << 30)),
                "--window", String((1 + random.below(8)) << 18),
            ])
    }
}
