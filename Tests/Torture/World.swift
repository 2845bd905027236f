// World: one store under test with all that is around it: machine (or real directory), driver,
// clock, callers, and the model that says what may be answered. Nothing is shared between worlds,
// so that each thread runs its own. The first violation is kept and ends the run.

import BlockIO
import LogStore
import Prefetch
import SimulatedDisk
import Staging
import Tiering

/// A control call under way.
struct ControlCall {
    enum Kind { case open(space: Int), purge(space: Int), flush, checkpoint }
    var token: UInt64
    var kind: Kind
    /// As in `Client`.
    var changesAt = 0
    /// What a flush was asked for.
    var through: UInt64 = 0
}

final class World {
    var swarm: Swarm
    let machine: SimulatedMachine?
    var clock: any Clock
    var driver: (any BlockDriver)?
    var simulated: SimulatedDriver?
    /// What is pumped, and its part that stores.
    var tiered: TieredStore?
    var store: StagedStore? { tiered?.staged }
    /// For a world on real files.
    var realDriver: DriverChoice?

    var model = Model()
    var random: SimulatedRandom
    var clients: [Client] = []
    var free: [Int] = []
    var leases: [Int] = []
    var outstanding = 0
    var controls: [ControlCall] = []
    var controlCount: UInt64 = 0
    var lastControl: Outcome?
    var lastPurge = Status.done
    var identities: UInt64 = 0
    var openings: UInt64 = 0

    var failure: String?
    var tally = Tally()
    /// Faults that touched data so far, in all drivers of this world.
    var damageBefore: UInt64 = 0
    var errorsBefore: UInt64 = 0
    var away: [Bool] = [false, false]
    /// Space was taken away, or a device: puts may fail.
    var hardship = false
    /// A life ended with both copies of a record on one member: the next one cannot always tell.
    var leftBeside = false
    /// Changes of devices' health, and those that are neither read nor written at present.
    var healthChanges = 0
    /// How many there had been at the last opening: what a silent device took with it since then
    /// is written anew when it is put to be durable.
    var changesAtOpen = 0
    /// How many there had been when the last flush began that has ended: what was lost since then
    /// the next one tells.
    var changesAtFlush = 0
    /// The latest version given out when a device's health changed last: a flush that names one up
    /// to there is told whenever it asks.
    var versionAtChange: UInt64 = 0
    var unreadable: Set<Int> = []
    var faultsOff = false
    var recoveredEvents = 0
    var purged = false
    /// What was answered, in order: for comparing runs and drivers.
    var journal: [UInt64]?
    var traceHash: UInt64 = 0
    /// Boundaries of drivers before the present one.
    var boundariesBefore = 0
    /// A boundary at which drivers made from now on die too; for scenarios that reopen.
    var crashAt = 0
    /// Of a fork: the watermark of the store that died.
    var inheritedDurable: UInt64 = 0
    var verbose = false

    init(swarm: Swarm, machine: SimulatedMachine?, clock: any Clock) {
        self.swarm = swarm
        self.machine = machine
        self.clock = clock
        random = SimulatedRandom(seed: swarm.seed, purpose: .operations)
        for number in 0..<swarm.concurrency {
            clients.append(Client(number: number, valueBytes: swarm.maximumBlock + 4096))
            free.append(number)
        }
        for space in swarm.spaces.indices { addSpace(space) }
    }

    /// A world on a new simulated machine.
    convenience init(swarm: Swarm) {
        let machine = SimulatedMachine()
        if swarm.devices == 2 {
            machine.addDevice("/a")
            machine.addDevice("/b")
        }
        self.init(swarm: swarm, machine: machine, clock: SimulatedClock())
    }

    var simulatedClock: SimulatedClock? { clock as? SimulatedClock }

    func fail(_ message: @autoclosure () -> String) {
        if failure == nil { failure = message() }
    }

    private func addSpace(_ index: Int) {
        let shape = swarm.spaces[index % swarm.spaces.count]
        identities += 1
        var space = NamespaceModel(
            identity: identities, name: "n\(index)", aligned: shape.aligned,
            timeToLive: shape.timeToLive)
        for number in 0..<swarm.keysPerSpace { space.keys.append(KeyModel(number: number)) }
        model.namespaces.append(space)
    }

    /// A purged namespace begins anew: nothing of the old one may be seen in it.
    func renew(_ index: Int) {
        purged = true
        identities += 1
        model.namespaces[index].identity = identities
        model.namespaces[index].uncertain = false
        for key in model.namespaces[index].keys.indices {
            model.namespaces[index].keys[key] = KeyModel(number: key)
        }
    }

    // MARK: Faults so far

    var damage: UInt64 {
        guard let simulated else { return damageBefore }
        return damageBefore + Swarm.damaging.reduce(0) { $0 + simulated.faultCount($1) }
    }

    var errors: UInt64 {
        guard let simulated else { return errorsBefore }
        return errorsBefore + Swarm.errors.reduce(0) { $0 + simulated.faultCount($1) }
    }

    var boundaries: Int { boundariesBefore + (simulated?.boundaryCount ?? 0) }

    var anyAway: Bool { away[0] || away[1] }

    // MARK: Opening and stopping

    /// Opens the store (again), retrying without faults when damage stands in the way. False and a
    /// failure when it cannot be opened.
    @discardableResult
    func open() -> Bool {
        openings += 1
        changesAtOpen = healthChanges
        if verbose { say("-- open \(openings)") }
        for attempt in 0..<4 {
            guard makeDriver(faults: attempt < 2 && !faultsOff) else { return false }
            switch openOnce() {
            case .opened: return true
            case .refused(let error):
                if simulated?.dead == true { return false }
                collectFaults()
                tally.add("opens refused")
                let excused = damage > 0 || errors > 0 || anyAway || hardship
                if !excused || attempt == 3 {
                    fail("open refused: \(error)")
                    return false
                }
            }
        }
        return false
    }

    private enum OpenResult {
        case opened
        case refused(StoreError)
    }

    private func openOnce() -> OpenResult {
        guard let driver else { return .refused(Self.noDriver) }
        var configuration = StagedConfiguration(
            log: swarm.log, stagingBytes: swarm.stagingBytes, inclusive: swarm.inclusive)
        configuration.slabBytes = swarm.slabBytes
        do throws(StoreError) {
            let made = try TieredStore.open(
                swarm.tiered(configuration), driver: driver, clock: clock)
            made.sink = self
            tiered = made
            let opened = made.staged
            if opened.log.statistics.damage.absentDevices > 0 {
                tally.add("opens without a member")
            }
            if opened.log.statistics.damage.manifestCopies > 0
                || opened.log.statistics.damage.staleDevices > 0
            {
                tally.add("opens with damage")
            }
            return .opened
        } catch { return .refused(error) }
    }

    private static let noDriver = StoreError(
        .resource, operation: "open", subject: "driver", advice: "No driver.")

    private func makeDriver(faults: Bool) -> Bool {
        let regions = RegionTable()
        if let realDriver {
            do throws(IOError) {
                driver = try BlockIO.makeDriver(realDriver, regions: regions, depth: swarm.depth)
                return true
            } catch {
                fail("no driver \(realDriver): \(error)")
                return false
            }
        }
        guard let machine, let clock = simulatedClock else { return false }
        let made = SimulatedDriver(
            machine: machine, regions: regions, clock: clock, faults: swarm.plan,
            latency: swarm.latency, seed: swarm.seed &* 31 &+ openings,
            limits: DriverLimits(depth: swarm.depth, transferBytes: swarm.transferBytes))
        made.faultsEnabled = faults && !(swarm.singleDamage && damageBefore > 0)
        if crashAt > 0, boundariesBefore < crashAt {
            made.crashAfterBoundary = crashAt - boundariesBefore
        }
        simulated = made
        driver = made
        return true
    }

    /// Adds the present driver's faults to the sums and lets go of it.
    func collectFaults() {
        guard let simulated else { return }
        for kind in FaultKind.allCases { tally.add("fault \(kind)", simulated.faultCount(kind)) }
        if let violation = simulated.violations.first { fail("memory rule broken: \(violation)") }
        damageBefore = damage
        errorsBefore = errors
        traceHash = Payload.mix(traceHash ^ simulated.traceHash)
        boundariesBefore += simulated.boundaryCount
        self.simulated = nil
        driver = nil
    }

    /// Waits for recovery and opens every namespace again.
    func settleIn() {
        guard let store else { return }
        for space in model.namespaces.indices where failure == nil {
            openSpace(space)
        }
        if failure != nil { return }
        pump(until: { store.isRecovered }, "recovery")
        if verbose { say("-- recovered; \(store.log.statistics.recovery); \(situation)") }
        tally.add("recoveries")
    }

    func openSpace(_ index: Int) {
        guard let store else { return }
        let space = model.namespaces[index]
        let call = control(.open(space: index))
        store.openNamespace(
            token: call, fields: [("model", space.name), ("layout", "\(space.aligned)")],
            aligned: space.aligned, timeToLive: space.timeToLive, capBytes: 0)
        pump(until: { !self.controls.contains { $0.token == call } }, "opening a namespace")
    }

    func control(_ kind: ControlCall.Kind, through version: UInt64 = 0) -> UInt64 {
        controlCount += 1
        let token = 1 << 40 | controlCount
        controls.append(
            ControlCall(token: token, kind: kind, changesAt: healthChanges, through: version))
        return token
    }

    /// Closes as the contract says. False: it could not be closed cleanly, which counts as a crash.
    func close() -> Bool {
        endLeases()
        guard let store, failure == nil else { return false }
        let failures = store.log.statistics.writeErrors + store.log.statistics.flushErrors
        tiered?.beginClose()
        pump(until: { store.isIdle && self.outstanding == 0 }, "closing")
        guard failure == nil, simulated?.dead != true else { return false }
        let everything = UInt64.max >> 1
        var call = control(.flush, through: everything)
        store.flush(token: call, through: everything)
        pump(until: { !self.controls.contains { $0.token == call } }, "the last flush")
        guard simulated?.dead != true else { return false }
        var clean = lastControl?.status == .done
        call = control(.checkpoint)
        store.checkpoint(token: call)
        pump(until: { !self.controls.contains { $0.token == call } }, "the last checkpoint")
        pump(until: { self.nothingInFlight && store.isIdle }, "quiet after closing")
        guard failure == nil, simulated?.dead != true else { return false }
        if store.log.statistics.writeErrors + store.log.statistics.flushErrors != failures {
            clean = false
        }
        tiered?.shutdown()
        driver?.shutdown()
        stopped(clean: clean)
        return clean
    }

    var nothingInFlight: Bool { simulated.map { $0.inFlight == 0 } ?? true }

    /// Stops the machine at once, keeping a subset of what was not flushed.
    func crash(keep: CrashKeep, tearSeed: UInt64? = nil) {
        guard let machine else { return }
        for number in leases { clients[number].state = .free }
        leases = []
        machine.crash(keep: keep, tearSeed: tearSeed)
        tiered?.shutdown()
        stopped(clean: false)
        tally.add("crashes")
    }

    /// The store is gone: what the model may still expect.
    private func stopped(clean: Bool) {
        let durable = store?.durableVersion ?? inheritedDurable
        if verbose { say("-- stopped, clean \(clean), durable \(durable); \(situation)") }
        if let store {
            collectStatistics(store)
            model.evictedBefore += store.log.statistics.evictedBlocks
            // Of a member that was known to be away the next life knows what it lacks.
            let known = store.log.devices.contains { $0.state == .absent || $0.state == .out }
            if store.isRecovered, !known, !store.log.recordsAreSpread { leftBeside = true }
        }
        tiered = nil
        unreadable = []
        collectFaults()
        for client in clients where client.state != .free {
            client.state = .free
        }
        free = Array(clients.indices)
        leases = []
        outstanding = 0
        for call in controls {
            if case .purge(let space) = call.kind {
                model.namespaces[space].uncertain = true
                model.namespaces[space].live = true
            }
        }
        controls = []
        model.stopped(
            clean: clean, durableVersion: durable, damage: damage, deviceAway: anyAway || hardship)
    }

    // MARK: Pumping

    /// One step of the owner's loop: false when nothing can happen any more by itself.
    @discardableResult
    func step() -> Bool {
        guard let tiered, let driver else { return false }
        if tiered.pump() { return true }
        if simulated != nil {
            let before = clock.monotonic
            let wasInFlight = !nothingInFlight
            driver.wait(until: min(tiered.nextDeadline, before + 1_000_000_000))
            return wasInFlight || tiered.nextDeadline != UInt64.max
        }
        driver.wait(until: min(tiered.nextDeadline, clock.monotonic + 1_000_000))
        return true
    }

    /// Pumps until the condition holds. Everything has to end in bounded steps.
    func pump(until done: () -> Bool, _ what: @autoclosure () -> String) {
        var idle = 0
        var steps = 0
        while failure == nil, !done() {
            steps += 1
            if simulated?.dead == true { return }
            if step() { idle = 0 } else { idle += 1 }
            if idle > 2_000 {
                fail("stuck: \(what()) does not end; nothing is in flight. \(situation)")
            }
            if steps > 2_000_000 {
                fail("endless: \(what()) takes over 2,000,000 steps. \(situation)")
            }
        }
    }

    /// Waits for every operation and control call.
    func drain() {
        pump(until: { self.outstanding == 0 && self.controls.isEmpty }, "draining")
    }

    func endLeases() {
        while let number = leases.last { endLease(number) }
    }

    var situation: String {
        var text = "outstanding \(outstanding), controls \(controls.count)"
        for client in clients where client.state == .waiting || client.state == .releasing {
            text +=
                "; \(client.operation.kind) \(client.operation.mode) "
                + "\(client.operation.durability) length \(client.operation.length) "
                + "key \(client.space)/\(client.key) \(client.state)"
        }
        if let store {
            text += "; \(store.log.diagnosis)"
            text += "; log idle \(store.log.isIdle), read-only \(store.log.readOnly)"
            store.log.segments.forEach { id in
                let segment = store.log.segments[id]
                text +=
                    "; seg \(id) \(segment.state) g\(segment.generation) "
                    + "w\(segment.writtenPages) live \(segment.livePages) r\(segment.readers) "
                    + "f\(segment.groupsInFlight)"
            }
        }
        return text
    }
}
