// Operations: what the callers do. Each draws a key and parameters from the run's own stream of
// chance, notes what the model knows at that moment, and submits; a store without room is pumped.

import BlockIO
import LogStore
import SimulatedDisk
import Staging

extension World {
    /// A caller without an operation; pumps until there is one.
    func takeClient() -> Client? {
        if free.isEmpty {
            if leases.count >= clients.count / 2 + 1, let lease = leases.first { endLease(lease) }
            pump(
                until: {
                    if self.outstanding == 0, let lease = self.leases.first { self.endLease(lease) }
                    return !self.free.isEmpty
                }, "a free caller")
        }
        return free.popLast().map { clients[$0] }
    }

    func drawKey() -> (space: Int, key: Int) {
        let space = random.below(model.namespaces.count)
        let count = model.namespaces[space].keys.count
        // Half of all operations go to a few keys.
        let key = random.chance(0.5) ? random.below(min(4, count)) : random.below(count)
        return (space, key)
    }

    /// Starts an operation on a key and notes what is known now; nil if the namespace is closed.
    func begin(_ kind: StoreOperationKind, _ space: Int, _ key: Int) -> Client? {
        guard let client = takeClient() else { return nil }
        guard let slot = model.namespaces[space].slot else {
            free.append(client.number)
            return nil
        }
        client.begin(kind, slot: slot, keyNumber: key)
        client.space = space
        client.key = key
        return client
    }

    /// Hands the operation over, pumping while there is no room.
    func submit(_ client: Client) {
        guard store != nil else { return }
        let key = model.namespaces[client.space].keys[client.key]
        client.state = .waiting
        client.submittedAt = clock.monotonic
        client.wallAt = clock.wallSeconds
        client.floorAt = key.floor
        client.highestAt = model.highestVersion
        client.mustAt = key.must && model.namespaces[client.space].live
        client.changesAt = healthChanges
        client.pinnedAt = key.pinnedUntil > clock.monotonic
        client.lossesAt = key.losses
        client.deletesAt = key.deletesInFlight == 0 ? key.deletesBegun : -1
        outstanding += 1
        if journal != nil {
            client.entry = journal?.count ?? 0
            journal?.append(0)
        }
        if client.operation.kind == .delete {
            model.namespaces[client.space].keys[client.key].deletesBegun += 1
            model.namespaces[client.space].keys[client.key].deletesInFlight += 1
            model.namespaces[client.space].keys[client.key].must = false
            model.namespaces[client.space].keys[client.key].pinnedUntil = 0
            model.namespaces[client.space].keys[client.key].mustDurable = false
        }
        if client.operation.kind == .put {
            model.namespaces[client.space].keys[client.key].writesInFlight += 1
        }
        tally.add("submitted \(client.operation.kind)")
        var taken = tiered?.submit(client.operation) ?? true
        if !taken {
            pump(
                until: {
                    taken = self.tiered?.submit(client.operation) ?? true
                    return taken
                }, "room for an operation")
        }
    }

    // MARK: Puts

    func put(replace: Bool) {
        let (space, key) = drawKey()
        guard let client = begin(.put, space, key) else { return }
        let revision = drawRevision(client)
        preparePut(client, revision, replace: replace)
        let durability = random.below(10)
        client.operation.durability =
            durability < 3 ? .volatile : durability < 7 ? .written : .durable
        if random.chance(0.08) { client.operation.timeToLive = UInt32(1 + random.below(2_000)) }
        if random.chance(swarm.deadlineChance / 4) { drawDeadline(client) }
        finishPut(client, revision)
    }

    /// A revision of the client's key: now and then like one before, to meet `alreadyPresent`.
    private func drawRevision(_ client: Client) -> Revision {
        let revisions = model.namespaces[client.space].keys[client.key].revisions
        if random.chance(0.4), let last = revisions.last(where: { $0.state == .stored }) {
            var same = makeRevision(
                client.space, client.key, length: Int(last.length), shards: last.shardCount)
            same.shape = last.shape
            return same
        }
        let length = swarm.length(&random)
        let aligned = model.namespaces[client.space].aligned
        var shards = 1
        if random.chance(swarm.manyShards) {
            // Aligned shards take a page each: few of them, or the image outgrows small groups.
            shards = aligned ? 2 + random.below(6) : 2 + random.below(Client.maximumShards - 1)
        }
        return makeRevision(client.space, client.key, length: length, shards: shards)
    }

    func makeRevision(_ space: Int, _ key: Int, length: Int, shards: Int) -> Revision {
        identities += 1
        let seed = Payload.seed(
            namespace: model.namespaces[space].identity, key: key, revision: Int(identities))
        return Revision(
            seed: seed, shape: seed, length: UInt32(length), shardCount: shards)
    }

    /// Fills the client's memory with the revision's bytes.
    func preparePut(_ client: Client, _ revision: Revision, replace: Bool) {
        let length = Int(revision.length)
        let shape = random.below(4)
        client.cut(
            length, offset: shape == 0 ? 1 + random.below(4000) : 0,
            into: shape < 2 ? 1 + random.below(3) : 1, pages: shape == 1)
        Payload.fill(revision.seed, from: 0, length, client.memory + client.start)
        client.raiseGuards(length)
        client.operation.length = revision.length
        client.operation.replace = replace
        if revision.shardCount > 1 {
            revision.shardLengths(client.shards)
            client.operation.shardLengths = UnsafePointer(client.shards)
            client.operation.shardCount = revision.shardCount
        }
    }

    func finishPut(_ client: Client, _ drawn: Revision) {
        var revision = drawn
        revision.durability = client.operation.durability
        let own = client.operation.timeToLive
        let general = model.namespaces[client.space].timeToLive
        if own > 0 || general > 0 {
            let seconds = own == 0 ? general : general == 0 ? own : min(own, general)
            revision.expires.seconds = seconds
        }
        let watched = clients.contains {
            ($0.state == .waiting || $0.state == .releasing) && $0.space == client.space
                && $0.key == client.key
        }
        if !watched {
            model.prune(client.space, client.key)
        }
        client.revision = model.addRevision(client.space, client.key, revision)
        submit(client)
    }

    private func drawDeadline(_ client: Client) {
        client.operation.deadline = clock.monotonic + 1 + UInt64(random.below(400_000))
    }

    // MARK: Gets

    func get() {
        let (space, key) = drawKey()
        guard let client = begin(.get, space, key) else { return }
        let mode = random.below(10)
        client.operation.mode =
            mode < 5 ? .direct : mode < 8 || swarm.stagingBytes == 0 ? .cached : .lease
        ask(client)
        if random.chance(swarm.deadlineChance) { drawDeadline(client) }
        submit(client)
    }

    /// A whole get of a key, into aligned memory.
    func getWhole(_ space: Int, _ key: Int, mode: GetMode = .direct) {
        guard let client = begin(.get, space, key) else { return }
        client.operation.mode = mode
        offer(client, bytes: swarm.maximumBlock, unaligned: false)
        submit(client)
    }

    private func ask(_ client: Client) {
        let revisions = model.namespaces[client.space].keys[client.key].revisions
        var bytes = swarm.maximumBlock
        if let last = revisions.last, random.chance(0.5) {
            // A part, of what was put last: an answer about another revision may be `invalid`.
            if last.shardCount > 1 && random.chance(0.7) {
                client.asked.firstShard = random.below(last.shardCount)
                client.asked.shardCount =
                    1 + random.below(last.shardCount - client.asked.firstShard)
                client.operation.firstShard = client.asked.firstShard
                client.operation.shardCount = client.asked.shardCount
            } else if last.length > 1 {
                client.asked.byteOffset = random.below(Int(last.length))
                if random.chance(0.3) { client.asked.byteOffset = client.asked.byteOffset & ~4095 }
                client.asked.byteCount =
                    1 + random.below(Int(last.length) - client.asked.byteOffset)
                client.operation.byteOffset = UInt64(client.asked.byteOffset)
                client.operation.byteCount = UInt64(client.asked.byteCount)
                bytes = client.asked.byteCount
            }
        } else if let last = revisions.last, random.chance(0.5) {
            bytes = Int(last.length)
        }
        offer(client, bytes: bytes, unaligned: random.chance(0.25))
    }

    private func offer(_ client: Client, bytes: Int, unaligned: Bool) {
        if client.operation.mode == .lease {
            client.start = 4096
            client.raiseGuards(0)
            return
        }
        client.cut(
            bytes, offset: unaligned ? 1 + random.below(4000) : 0,
            into: random.chance(0.3) ? 1 + random.below(3) : 1, pages: random.chance(0.7))
        client.raiseGuards(bytes)
    }

    /// Neighbours: fresh blocks put together, then got together into adjacent memory, so that the
    /// log may join the reads.
    func batch() {
        let space = random.below(model.namespaces.count)
        let count = min(6, model.namespaces[space].keys.count, swarm.concurrency)
        let pages = max(1, min(4, swarm.maximumBlock / 4096))
        guard count > 1, swarm.maximumBlock >= 4096, !model.namespaces[space].aligned else {
            return
        }
        let length = pages * 4096
        for key in 0..<count {
            guard let client = begin(.put, space, key) else { return }
            let revision = makeRevision(space, key, length: length, shards: 1)
            preparePut(client, revision, replace: true)
            finishPut(client, revision)
        }
        drain()
        endLeases()
        guard failure == nil, free.count >= count else { return }
        let memory = UnsafeMutableRawPointer.allocate(byteCount: count * length, alignment: 4096)
        for key in 0..<count {
            guard let client = begin(.get, space, key) else { break }
            client.window = memory + key * length
            client.start = 4096
            client.raiseGuards(0)
            client.room = length
            client.pieces[0] = Piece(
                region: .process, offset: UInt64(UInt(bitPattern: memory + key * length)),
                length: UInt64(length))
            client.operation.pieces = UnsafePointer(client.pieces)
            client.operation.pieceCount = 1
            submit(client)
        }
        drain()
        // A crash boundary may have left reads under way: their memory stays.
        if outstanding == 0 { memory.deallocate() }
    }

    // MARK: Others

    func simple(_ kind: StoreOperationKind) {
        let (space, key) = drawKey()
        guard let client = begin(kind, space, key) else { return }
        client.start = 4096
        client.raiseGuards(0)
        if kind == .pin {
            client.operation.deadline =
                clock.monotonic + UInt64(random.below(2_000_000_000)) + 1_000_000
        }
        if kind == .unpin { model.namespaces[space].keys[key].pinnedUntil = 0 }
        submit(client)
    }

    func endLease(_ number: Int) {
        let client = clients[number]
        checkLease(client)
        leases.removeAll { $0 == number }
        client.state = .free
        free.append(number)
        store?.endLease(client.lease)
    }

    func flush() {
        let version = random.chance(0.5) ? model.highestVersion : UInt64.max >> 1
        let call = control(.flush, through: version)
        store?.flush(token: call, through: version)
    }

    func checkpoint() {
        let call = control(.checkpoint)
        store?.checkpoint(token: call)
    }

    func purge() {
        let space = random.below(model.namespaces.count)
        guard let store, let slot = model.namespaces[space].slot else { return }
        if random.chance(0.5) { drain() }
        if failure != nil { return }
        for number in leases where clients[number].space == space { endLease(number) }
        model.namespaces[space].live = false
        let call = control(.purge(space: space))
        store.purge(token: call, namespaceSlot: slot)
        pump(until: { !self.controls.contains { $0.token == call } }, "a purge")
        drain()
        guard failure == nil, simulated?.dead != true else { return }
        endLeases()
        if lastPurge == .done {
            renew(space)
            tally.add("purges")
        } else {
            model.namespaces[space].uncertain = true
        }
        model.namespaces[space].live = true
        openSpace(space)
    }

    func cancelOne() {
        let waiting = clients.filter { $0.state == .waiting }
        guard !waiting.isEmpty else { return }
        let client = waiting[random.below(waiting.count)]
        client.cancelled = true
        store?.cancel(token: client.operation.token)
    }

    func detach() {
        guard let machine, swarm.devices == 2, !anyAway, !leftBeside else { return }
        // Deletes made while the other one was out are not yet safe without this one.
        guard let store else { return }
        for _ in 0..<400 where !store.log.recordsAreSpread { step() }
        guard failure == nil, store.log.recordsAreSpread else {
            tally.add("devices not detached yet")
            return
        }
        let device = random.below(2)
        machine.detach(swarm.log.directories[device])
        away[device] = true
        hardship = true
        tally.add("devices detached")
    }

    func attach() {
        guard let machine else { return }
        for device in 0..<swarm.devices where away[device] {
            machine.attach(swarm.log.directories[device])
        }
        // What the store took for lost stays lost until it is opened again.
    }

    func changeSpace() {
        guard let machine else { return }
        tally.add("space runs out")
        hardship = true
        let path = swarm.log.directories[random.below(swarm.devices)]
        let bytes = UInt64(1 + random.below(24)) << 20
        machine.setCapacity(path, bytes: random.chance(0.4) ? 1 << 40 : bytes)
    }

    func jumpWall() {
        guard let clock = simulatedClock else { return }
        tally.add("wall jumps")
        clock.wallJump += Int64(random.below(4_000)) - (random.chance(0.3) ? 2_000 : 0)
    }
}
