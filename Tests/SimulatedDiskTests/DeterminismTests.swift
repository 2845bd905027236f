// The same seed gives the same run.

import BlockIO
import Glibc
import SimulatedDisk
import Testing

@Suite("One seed, one run")
struct DeterminismTests {
    /// A thousand random operations, up to 16 in flight, under a swarm of faults.
    private func run(seed: UInt64, operations: UInt64) -> (hash: UInt64, faults: UInt64) {
        let machine = SimulatedMachine()
        let file = Rig(machine: machine)
        _ = file.durableFile(pages: 256)
        let plan = FaultPlan.swarm(seed: seed)
        let rig = Rig(machine: machine, faults: plan, latency: .nvme, seed: seed)
        guard let directory = try? rig.driver.openDirectory("/d", create: false),
            let file = try? rig.driver.open(directory, "f", .existing)
        else { fatalError("no file") }
        var random = SimulatedRandom(seed: operations)
        for index in 0..<1_000 {
            let pages = 1 + random.below(4)
            let page = random.below(256 - pages)
            let place = rig.piece(16_384 * (index % 16), pages * 4096)
            switch random.below(10) {
            case 0: rig.start(.sync, file, piece: rig.piece(0, 0))
            case 1..<5: rig.start(.write, file, at: page * 4096, piece: place)
            default: rig.start(.read, file, at: page * 4096, piece: place)
            }
            if index % 16 == 15 { _ = rig.drain() }
        }
        _ = rig.drain()
        #expect(rig.driver.inFlight == 0)
        #expect(rig.driver.statistics.completed == 1_000)
        #expect(rig.driver.violations.isEmpty)
        return (rig.driver.traceHash, rig.driver.faultCounts.values.reduce(0, +))
    }

    @Test func sameSeedSameTrace() {
        var hashes: Set<UInt64> = []
        var faults: UInt64 = 0
        for seed in UInt64(1)...20 {
            let first = run(seed: seed, operations: seed)
            let second = run(seed: seed, operations: seed)
            #expect(first == second)
            hashes.insert(first.hash)
            faults += first.faults
        }
        #expect(hashes.count == 20)
        #expect(faults > 500)
    }

    @Test func purposesAreSplit() {
        let same = run(seed: 5, operations: 5).hash
        #expect(run(seed: 6, operations: 5).hash != same)
        #expect(run(seed: 5, operations: 6).hash != same)
        var operations = SimulatedRandom(seed: 9, purpose: .operations)
        var faults = SimulatedRandom(seed: 9, purpose: .faults)
        #expect((0..<4).map { _ in operations.next() } != (0..<4).map { _ in faults.next() })
    }

    @Test func numbersStayInTheirRange() {
        var random = SimulatedRandom(seed: 3)
        var seen: Set<Int> = []
        for _ in 0..<1_000 {
            seen.insert(random.below(7))
            #expect((10...12).contains(random.uniform(10, 12)))
        }
        #expect(seen == Set(0..<7))
        #expect(random.uniform(4, 4) == 4 && random.below(0) == 0)
        // The reference value of SplitMix64 for seed 0.
        var mix = SplitMix64(seed: 0)
        #expect(mix.next() == 0xE220_A839_7B1D_CDAF)
    }
}
