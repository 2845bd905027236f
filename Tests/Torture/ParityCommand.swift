// parity: the same operations on io_uring, on threads and on the simulated disk give the same
// answers: statuses, lengths, bytes (each checked against its payload) and the same keys present at
// the end. Operations go in batches on different keys, so that what is answered does not hang on
// timing.

import BlockIO
import Glibc
import LogStore
import SimulatedDisk
import Staging

enum ParityCommand {
    static func run(_ arguments: Arguments) -> Int32 {
        arguments.only(["--seeds", "--first", "--seed", "--operations", "--directory"])
        let single = arguments.string("--seed") != nil
        let first = arguments.number(single ? "--seed" : "--first", 1)
        let seeds = single ? 1 : arguments.number("--seeds", 20)
        let operations = arguments.number("--operations", 400)
        let directory = arguments.string("--directory") ?? "torture-parity"
        mkdir(directory, 0o700)
        defer { rmdir(directory) }
        let began = secondsNow()
        var answers = 0
        for seed in first..<(first + seeds) {
            let replay = "hearth-torture parity --seed \(seed) --operations \(operations)"
            CrashNote.set(0, replay)
            var journals: [(name: String, journal: [UInt64])] = []
            for driver in [nil, DriverChoice.ioUring, .threads] {
                let name = driver?.rawValue ?? "simulated"
                let path = directory + "/" + name
                KillCommand.removeStore(path)
                defer { KillCommand.removeStore(path) }
                let world = self.world(UInt64(seed), driver, path)
                world.runParity(operations)
                if let failure = world.failure {
                    report("seed \(seed) on \(name): \(failure)\n  replay: \(replay)")
                    return 1
                }
                journals.append((name, world.journal ?? []))
            }
            let reference = journals[0]
            answers += reference.journal.count
            for other in journals.dropFirst() where other.journal != reference.journal {
                let place = zip(reference.journal, other.journal).enumerated().first {
                    $0.element.0 != $0.element.1
                }
                report(
                    "seed \(seed): \(other.name) differs from \(reference.name) at answer "
                        + "\(place.map { "\($0.offset): \($0.element)" } ?? "the end")\n"
                        + "  replay: \(replay)")
                return 1
            }
        }
        say(
            "parity: \(seeds) seeds, \(answers) answers the same on three drivers, in "
                + "\(decimal(secondsNow() - began)) s")
        return 0
    }

    private static func world(_ seed: UInt64, _ driver: DriverChoice?, _ path: String) -> World {
        var swarm = Swarm(seed: seed, faults: false)
        swarm.devices = 1
        swarm.log.directories = [path]
        swarm.mode = .cache
        swarm.log.mode = .cache
        // Room for everything: what is evicted hangs on when groups are written.
        swarm.extraSegments = 24
        swarm.keysPerSpace = min(swarm.keysPerSpace, 48)
        swarm.log.indexEntries = 4096
        swarm.spaces = swarm.spaces.map { (aligned: $0.aligned, timeToLive: 0) }
        swarm.stagingBytes = seed % 3 == 0 ? 0 : 8 << 20
        swarm.concurrency = 8
        swarm.depth = 32
        let clock: any Clock = driver == nil ? SimulatedClock() : SystemClock()
        let world = World(
            swarm: swarm, machine: driver == nil ? SimulatedMachine() : nil, clock: clock)
        world.realDriver = driver
        world.fitCapacity()
        world.journal = []
        return world
    }
}

extension World {
    /// Batches of operations on different keys, each brought to its end; reopenings between.
    func runParity(_ operations: Int) {
        guard failure == nil, open() else { return }
        settleIn()
        var done = 0
        while done < operations, failure == nil {
            var taken: Set<Int> = []
            for _ in 0..<(1 + random.below(6)) {
                done += 1
                let (space, key) = drawKey()
                guard taken.insert(space << 16 | key).inserted else { continue }
                paritySubmit(space, key)
            }
            restFully()
            if random.chance(0.02) { scriptCheckpoint() }
            if random.chance(0.02) { scriptFlush() }
            if random.chance(0.01), failure == nil {
                _ = close()
                guard failure == nil, open() else { return }
                settleIn()
            }
        }
        for space in model.namespaces.indices {
            for key in model.namespaces[space].keys.indices where failure == nil {
                getWhole(space, key)
                restFully()
            }
        }
        if failure == nil { _ = close() }
    }

    private func restFully() {
        guard let store else { return }
        drain()
        pump(until: { store.isIdle }, "quiet")
    }

    private func paritySubmit(_ space: Int, _ key: Int) {
        let drawn = random.below(100)
        switch drawn {
        case 0..<50:
            let revision = makeRevision(
                space, key, length: swarm.length(&random),
                shards: random.chance(0.3) ? 2 + random.below(5) : 1)
            guard let client = begin(.put, space, key) else { return }
            preparePut(client, revision, replace: drawn < 20)
            let durability = random.below(3)
            client.operation.durability = [.volatile, .written, .durable][durability]
            finishPut(client, revision)
        case 50..<90: getWhole(space, key, mode: random.chance(0.5) ? .direct : .cached)
        default:
            guard let client = begin(drawn < 95 ? .delete : .contains, space, key) else { return }
            client.start = 4096
            client.raiseGuards(0)
            submit(client)
        }
    }
}
