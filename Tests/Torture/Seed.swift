// Seed: one seed's run from its first open to the last look at every key, with faults off at the
// end so that everything has to come to rest.

import BlockIO
import LogStore
import SimulatedDisk
import Staging

struct SeedResult {
    var failure: String?
    var tally: Tally
    var traceHash: UInt64
}

enum Seed {
    static func run(_ seed: UInt64, operations: Int, faults: Bool, verbose: Bool) -> SeedResult {
        let world = World(swarm: Swarm(seed: seed, faults: faults))
        world.verbose = verbose
        world.fitCapacity()
        if world.failure == nil, world.open() {
            world.settleIn()
            world.work(operations)
            world.finish()
        }
        world.collectFaults()
        return SeedResult(
            failure: world.failure, tally: world.tally, traceHash: world.traceHash)
    }
}

extension World {
    /// The least capacity that the store accepts, and a few segments more.
    func fitCapacity() {
        let segment = UInt64(swarm.log.segmentBytes)
        var capacity = UInt64(6 * swarm.devices) * segment
        let faultsWereOff = faultsOff
        faultsOff = true
        for _ in 0..<200 {
            swarm.log.capacityBytes = capacity
            let trial = SimulatedMachine()
            let regions = RegionTable()
            let driver = SimulatedDriver(
                machine: trial, regions: regions, clock: SimulatedClock(), seed: 1)
            do throws(StoreError) {
                let store = try LogStore.open(
                    swarm.log, driver: driver, clock: SimulatedClock())
                trial.crash(keep: .none)
                store.shutdown()
                swarm.log.capacityBytes =
                    capacity + UInt64(swarm.extraSegments * swarm.devices) * segment
                faultsOff = faultsWereOff
                return
            } catch {
                guard error.kind == .configuration else {
                    fail("a trial open fails: \(error)")
                    return
                }
                capacity += 1 << 20
            }
        }
        fail("no capacity is enough")
    }

    func work(_ operations: Int) {
        var count = 0
        while count < operations, failure == nil {
            count += 1
            act(swarm.action(&random))
            if swarm.singleDamage, damage > 0 { simulated?.faultsEnabled = false }
            if failure == nil, random.chance(0.4) { tiered?.pump() }
        }
    }

    private func act(_ action: Action) {
        switch action {
        case .put: put(replace: false)
        case .replace: put(replace: true)
        case .get: get()
        case .batch: batch()
        case .contains: simple(.contains)
        case .delete: simple(.delete)
        case .touch: simple(.touch)
        case .pin: simple(.pin)
        case .unpin: simple(.unpin)
        case .flush: flush()
        case .checkpoint: checkpoint()
        case .purge: purge()
        case .cancel: cancelOne()
        case .endLease: if let lease = leases.randomElement(using: &random) { endLease(lease) }
        case .pumpSome: for _ in 0..<random.below(12) { step() }
        case .drain: if random.chance(0.2) { checkAccounting() } else { drain() }
        case .closeReopen: closeAndReopen()
        case .crashReopen: crashAndReopen()
        case .detach: detach()
        case .attach: attach()
        case .space: changeSpace()
        case .wallJump: jumpWall()
        case .hint: hint()
        }
    }

    private func closeAndReopen() {
        if close() { tally.add("clean reopens") }
        reopen()
    }

    private func crashAndReopen() {
        endLeases()
        crash(keep: .random(seed: random.next()))
        reopen()
        // Now and then again, in the middle of recovery.
        while failure == nil, random.chance(0.3) {
            crash(keep: .random(seed: random.next()))
            tally.add("crashes in recovery")
            guard failure == nil, open() else { return }
            for _ in 0..<random.below(20) { step() }
            if random.chance(0.5) { break }
        }
        if failure == nil, store?.isRecovered != true || model.namespaces[0].slot == nil {
            settleIn()
        }
    }

    private func reopen() {
        guard failure == nil else { return }
        // A device that is away comes back half of the time.
        if anyAway, random.chance(0.5) { bringBack() }
        guard open() else { return }
        if random.chance(0.3) {
            // Work while it recovers.
            for space in model.namespaces.indices where failure == nil { openSpace(space) }
            for _ in 0..<random.below(20) where failure == nil {
                act(random.chance(0.5) ? .get : .put)
            }
        }
        settleIn()
    }

    func bringBack() {
        attach()
        away = [false, false]
    }

    /// Faults off, everything back: all must come to rest, be right, and be usable.
    func finish() {
        simulated?.faultsEnabled = false
        faultsOff = true
        guard failure == nil else { return }
        machine?.release(swarm.log.directories[0])
        drain()
        endLeases()
        if random.chance(0.5) {
            _ = close()
        } else {
            crash(keep: .random(seed: random.next()))
        }
        guard failure == nil else { return }
        for path in swarm.log.directories { machine?.setCapacity(path, bytes: 1 << 40) }
        bringBack()
        guard open() else { return }
        settleIn()
        readEverything()
        checkAccounting()
        checkUsable()
        guard failure == nil else { return }
        if close() { tally.add("clean reopens") }
        guard failure == nil, open() else { return }
        settleIn()
        readEverything()
        if failure == nil { crash(keep: .none) }
    }
}
