// kill: a child process works on a real store; it is killed at a random moment, the store opened
// again by another child and looked at against the expected state kept here; over and over. Half of
// the kills are on a store that never evicts, where nothing acknowledged may be missing; in the
// other half what is missing must have been evicted.

import Glibc
import SimulatedDisk

enum KillCommand {
    private struct Sums {
        var kills = 0
        var acknowledged: UInt64 = 0
        var checked: UInt64 = 0
        var present: UInt64 = 0
        var missing: UInt64 = 0
        var evicted: UInt64 = 0
        var wrong: UInt64 = 0
        var resurrected: UInt64 = 0
    }

    static func run(_ arguments: Arguments) -> Int32 {
        arguments.only(["--kills", "--directory", "--seed", "--driver"])
        let kills = arguments.number("--kills", 50)
        let directory = arguments.string("--directory") ?? "torture-kill"
        let seed = UInt64(arguments.number("--seed", Int(getpid())))
        mkdir(directory, 0o700)
        let began = secondsNow()
        var sums = Sums()
        for (evicts, share) in [(false, (kills + 1) / 2), (true, kills / 2)] where share > 0 {
            guard
                rounds(
                    share, directory, seed: seed, evicts: evicts, arguments.string("--driver"),
                    &sums)
            else {
                report(
                    "  replay: hearth-torture kill --kills \(kills) --seed \(seed) --directory D")
                return 1
            }
        }
        say(
            "kill: \(sums.kills) kills, \(sums.acknowledged) writes acknowledged, \(sums.checked) "
                + "keys looked at, \(sums.present) present, \(sums.missing) missing of "
                + "\(sums.evicted) evicted, \(sums.wrong) wrong, \(sums.resurrected) resurrected, "
                + "in \(decimal(secondsNow() - began)) s")
        return 0
    }

    private static func rounds(
        _ count: Int, _ directory: String, seed: UInt64, evicts: Bool, _ driver: String?,
        _ sums: inout Sums
    ) -> Bool {
        let store = directory + (evicts ? "/evicting" : "/roomy")
        let path = store + ".state"
        removeStore(store)
        unlink(path)
        guard let state = ExpectedState(path: path) else {
            report("kill: cannot make \(path)")
            return false
        }
        defer {
            removeStore(store)
            unlink(path)
        }
        var random = SplitMix64(seed: seed)
        for round in 0..<count {
            var words = ["kill-child", "--directory", store, "--state", path]
            if evicts { words.append("--evicts") }
            if let driver { words += ["--driver", driver] }
            state[.ready] = 0
            let before = state[.answered]
            guard
                let worker = spawn(words + ["--seed", String(seed &+ UInt64(round) & 0xFFFF_FFFF)])
            else { return false }
            guard wait(for: state, worker) else { return false }
            usleep(UInt32(50_000 + random.below(350_000)))
            Glibc.kill(worker, SIGKILL)
            let status = reap(worker)
            if status != SIGKILL {
                report("kill: the child ended by itself with status \(status)")
                return false
            }
            sums.acknowledged += state[.answered] - before
            sums.kills += 1
            let missing = state[.missing]
            guard let verifier = spawn(words + ["--verify"]) else { return false }
            let verdict = reap(verifier)
            if verdict != 0 {
                report(
                    "kill: round \(round), evicts \(evicts): the look ended with \(verdict >> 8)")
                return false
            }
            if !evicts && state[.missing] > missing { return false }
        }
        sums.checked += state[.checked]
        sums.present += state[.present]
        sums.missing += state[.missing]
        sums.evicted += state[.evicted]
        sums.wrong += state[.wrong]
        sums.resurrected += state[.resurrected]
        // Evictions are counted a moment late: one group's worth for each kill is granted.
        if evicts && Double(state[.missing]) > Double(state[.evicted]) * 1.001 + Double(count) {
            report("kill: \(state[.missing]) missing, only \(state[.evicted]) evicted")
            return false
        }
        return state[.wrong] + state[.resurrected] == 0
    }

    private static func wait(for state: ExpectedState, _ child: pid_t) -> Bool {
        for _ in 0..<6_000 {
            if state.ready { return true }
            var status: Int32 = 0
            if waitpid(child, &status, WNOHANG) == child {
                report("kill: the child did not open the store, status \(status)")
                return false
            }
            usleep(5_000)
        }
        report("kill: the store did not open within 30 s")
        Glibc.kill(child, SIGKILL)
        _ = reap(child)
        return false
    }

    private static func spawn(_ words: [String]) -> pid_t? { spawn("/proc/self/exe", words) }

    /// Begins a program; `quiet`: nobody hears what it says on standard output.
    static func spawn(_ program: String, _ words: [String], quiet: Bool = false) -> pid_t? {
        var child: pid_t = 0
        var argv: [UnsafeMutablePointer<CChar>?] = ([program] + words).map { strdup($0) }
        argv.append(nil)
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        if quiet { posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0) }
        defer {
            for word in argv { free(word) }
            posix_spawn_file_actions_destroy(&actions)
        }
        let error = posix_spawn(&child, program, &actions, nil, &argv, environ)
        if error != 0 {
            report("kill: posix_spawn: errno \(error)")
            return nil
        }
        return child
    }

    static func reap(_ child: pid_t) -> Int32 {
        var status: Int32 = 0
        while waitpid(child, &status, 0) < 0, errno == EINTR {}
        return status
    }

    /// Removes the files of a store directory, and it.
    static func removeStore(_ directory: String) {
        guard let opened = opendir(directory) else { return }
        while let entry = readdir(opened) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != "." && name != ".." { unlink(directory + "/" + name) }
        }
        closedir(opened)
        rmdir(directory)
    }
}
