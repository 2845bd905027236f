// Fork: a second world in the same state as a dying one, so that many crashes can be tried from one
// moment; and scripted operations for scenarios.

import BlockIO
import LogStore
import SimulatedDisk
import Staging

extension World {
    /// A world with a copy of the machine and of what was expected, its store not opened. This
    /// one's driver is dead; it stays as it is.
    func fork() -> World? {
        guard let machine, let clock = simulatedClock else { return nil }
        let time = SimulatedClock()
        time.advance(to: clock.monotonic)
        time.wallJump = clock.wallJump
        let copy = World(swarm: swarm, machine: machine.copy(), clock: time)
        copy.model = model
        copy.model.evictedBefore += store?.log.statistics.evictedBlocks ?? 0
        copy.identities = identities
        copy.controls = controls
        copy.away = away
        copy.hardship = hardship
        copy.leftBeside = leftBeside
        copy.openings = openings + 1000
        copy.inheritedDurable = store?.durableVersion ?? 0
        return copy
    }

    // MARK: Scripts

    func scriptPut(
        _ key: Int, length: Int, shards: Int = 1, durability: Durability = .durable,
        replace: Bool = false, space: Int = 0
    ) {
        guard failure == nil, simulated?.dead != true, let client = begin(.put, space, key) else {
            return
        }
        let revision = makeRevision(space, key, length: length, shards: shards)
        client.cut(length, offset: 0, into: 1, pages: false)
        Payload.fill(revision.seed, from: 0, length, client.memory + client.start)
        client.raiseGuards(length)
        client.operation.length = revision.length
        client.operation.replace = replace
        client.operation.durability = durability
        if shards > 1 {
            revision.shardLengths(client.shards)
            client.operation.shardLengths = UnsafePointer(client.shards)
            client.operation.shardCount = shards
        }
        finishPut(client, revision)
    }

    func scriptDelete(_ key: Int, space: Int = 0) {
        guard failure == nil, simulated?.dead != true, let client = begin(.delete, space, key)
        else { return }
        client.start = 4096
        client.raiseGuards(0)
        submit(client)
    }

    func scriptPin(_ key: Int) {
        guard failure == nil, simulated?.dead != true, let client = begin(.pin, 0, key) else {
            return
        }
        client.start = 4096
        client.raiseGuards(0)
        client.operation.deadline = clock.monotonic + 3_600_000_000_000
        submit(client)
    }

    /// Asks for a key so often that it outlives its segment.
    func scriptTouch(_ key: Int) {
        for _ in 0..<8 {
            guard failure == nil, simulated?.dead != true, let client = begin(.touch, 0, key)
            else { return }
            client.start = 4096
            client.raiseGuards(0)
            submit(client)
        }
    }

    func scriptFlush() {
        guard simulated?.dead != true else { return }
        flush()
        drain()
    }

    func scriptCheckpoint() {
        guard simulated?.dead != true else { return }
        checkpoint()
        drain()
    }

    /// Namespaces beyond the first: opened by name when a script wants them.
    func scriptPurge(_ space: Int) {
        guard simulated?.dead != true, let store, let slot = model.namespaces[space].slot else {
            return
        }
        drain()
        model.namespaces[space].live = false
        let call = control(.purge(space: space))
        store.purge(token: call, namespaceSlot: slot)
        pump(until: { !self.controls.contains { $0.token == call } }, "a purge")
        guard failure == nil, simulated?.dead != true else { return }
        if lastPurge == .done { renew(space) }
        model.namespaces[space].live = true
        openSpace(space)
    }
}
