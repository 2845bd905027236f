// Answers: the oracle. Every answer is checked against the model as it was at submit and as it is
// now, then the model takes it in.

import BlockIO
import LogStore
import SegmentFormat
import SimulatedDisk
import Staging

extension World: StoreSink {
    func answered(_ answer: StoreAnswer) {
        let number = Int(answer.token & 0xFFFF)
        guard number < clients.count, clients[number].operation.token == answer.token,
            clients[number].state == .waiting
        else {
            fail("an answer to an operation that waits for none: \(answer)")
            return
        }
        let client = clients[number]
        outstanding -= 1
        note(client, answer)
        tally.add("answer \(client.operation.kind) \(answer.status)")
        if !client.guardsHold && !answer.memoryInUse {
            fail("bytes around the asked ones written: \(describe(client, answer))")
        }
        let reads = client.operation.kind == .get || client.operation.kind == .put
        if answer.memoryInUse && !reads {
            fail("memory in use after a \(client.operation.kind): \(describe(client, answer))")
        }
        if (answer.status == .cancelled) && !client.cancelled {
            fail("cancelled without being asked: \(describe(client, answer))")
        }
        if answer.status == .timedOut && client.operation.deadline == 0 {
            fail("timed out without a deadline: \(describe(client, answer))")
        }
        switch client.operation.kind {
        case .get: gotten(client, answer)
        case .put: putEnded(client, answer)
        case .delete: deleteEnded(client, answer)
        case .contains: containsEnded(client, answer)
        case .pin: pinEnded(client, answer)
        case .touch, .unpin:
            if answer.status != .done { fail("unexpected: \(describe(client, answer))") }
        case .prefetch: fail("a prefetch was answered")
        }
        if answer.memoryInUse {
            client.state = .releasing
            outstanding += 1
        } else if client.lease >= 0 {
            client.state = .leasing
            leases.append(number)
        } else {
            client.state = .free
            free.append(number)
        }
    }

    func released(_ token: UInt64) {
        let number = Int(token & 0xFFFF)
        guard number < clients.count, clients[number].operation.token == token,
            clients[number].state == .releasing
        else {
            fail("released, but the memory was not in use: token \(token)")
            return
        }
        if !clients[number].guardsHold {
            fail("bytes around the asked ones written by a late read")
        }
        outstanding -= 1
        clients[number].state = .free
        free.append(number)
        tally.add("released after answer")
    }

    func controlled(_ outcome: Outcome) {
        guard let index = controls.firstIndex(where: { $0.token == outcome.token }) else {
            fail("an outcome of a control call that nobody made: \(outcome)")
            return
        }
        let call = controls.remove(at: index)
        lastControl = outcome
        let excused =
            damage + errors > 0 || hardship || isTroubled(since: call.changesAt)
            || outcome.status == .readOnly
        switch call.kind {
        case .open(let space):
            guard outcome.status == .done else {
                if !excused { fail("a namespace cannot be opened: \(outcome)") }
                // After a purge: the old one is gone, and nothing has come in its place.
                model.namespaces[space].slot = nil
                return
            }
            model.namespaces[space].slot = UInt16(truncatingIfNeeded: outcome.version)
            if model.namespaces[space].uncertain {
                for key in model.namespaces[space].keys.indices {
                    model.namespaces[space].keys[key].must = false
                    model.namespaces[space].keys[key].mustDurable = false
                }
            }
        case .purge:
            lastPurge = outcome.status
            if outcome.status != .done && !excused { fail("a purge fails: \(outcome)") }
        case .flush:
            let tells = healthChanges > changesAtFlush || call.through <= versionAtChange
            if outcome.status != .done && !excused && !tells { fail("a flush fails: \(outcome)") }
            changesAtFlush = call.changesAt
        case .checkpoint:
            if outcome.status != .done && !excused && !holdsLostMoves {
                fail("a checkpoint fails: \(outcome)")
            }
        }
    }

    func happened(_ event: StoreEvent) {
        switch event {
        case .volatileLost(let version, _): volatileLost(version)
        case .deviceChanged(let index, let state):
            tally.add("devices \(state)")
            healthChanges += 1
            versionAtChange = store?.log.nextVersion ?? versionAtChange
            if verbose { say("-- device \(index) is \(state) at \(clock.monotonic)") }
            switch state {
            case .healthy, .slow: unreadable.remove(index)
            case .suspect, .absent, .struck: unreadable.insert(index)
            case .out: hardship = true
            }
        case .rotFound: tally.add("rot told")
        case .recovered: recoveredEvents += 1
        }
    }

    /// Whether a device is neither read nor written, or may have been for a moment since a change.
    func isTroubled(since changes: Int) -> Bool { !unreadable.isEmpty || healthChanges > changes }

    /// Blocks were moved to a device whose flush then failed: no dump may tell of their places.
    private var holdsLostMoves: Bool {
        var found = false
        store?.log.segments.forEach { id in
            guard let segment = store?.log.segments[id] else { return }
            if segment.holdsLostMoves && segment.liveBlocks > 0 { found = true }
        }
        return found
    }

    /// A volatile block is gone: what was before it may be seen again.
    private func volatileLost(_ version: UInt64) {
        model.volatileLostCount += 1
        for space in model.namespaces.indices {
            for key in model.namespaces[space].keys.indices {
                guard let index = model.namespaces[space].keys[key].revision(version: version)
                else { continue }
                model.namespaces[space].keys[key].lost(index, life: openings)
                return
            }
        }
        // Of a namespace purged meanwhile, whose keys the model has let go.
        if purged { return }
        fail("a volatile block of unknown version \(version) was lost")
    }

    // MARK: Gets

    private func gotten(_ client: Client, _ answer: StoreAnswer) {
        switch answer.status {
        case .hit:
            if !answer.memoryInUse { hit(client, answer) }
        case .miss: missed(client, "miss for reason \(answer.reason)", answer.reason)
        case .invalid:
            // A part that the present revision does not have, or a destination too short for it.
            if client.asked.isWhole && client.room >= swarm.maximumBlock && client.window == nil {
                fail("invalid: \(describe(client, answer))")
            }
        case .timedOut, .cancelled, .throttled: break
        case .tooLarge where client.operation.mode == .lease: break
        case .failed where damage + errors > 0 || hardship || isTroubled(since: client.changesAt):
            break
        default: fail("unexpected: \(describe(client, answer))")
        }
    }

    private func hit(_ client: Client, _ answer: StoreAnswer) {
        let key = model.namespaces[client.space].keys[client.key]
        tally.add(answer.tier == .staging ? "hits from staging" : "hits from device")
        // The floor falls when a volatile block is lost while the get is under way.
        let floor = min(client.floorAt, key.floor)
        if answer.version < floor {
            if let known = key.revision(version: answer.version) {
                fail(
                    "version \(answer.version) (\(key.revisions[known].state)) seen, though "
                        + "\(client.floorAt) came after: \(describe(client, answer))")
            } else {
                fail(
                    "unknown version \(answer.version) seen below \(client.floorAt): "
                        + describe(client, answer))
            }
            return
        }
        let found = matching(client, answer)
        guard let index = found.first else {
            fail("wrong bytes: \(describe(client, answer))")
            return
        }
        // A byte or none can be that of several revisions: nothing is learnt then.
        if found.count > 1 {
            if answer.lease >= 0 { hold(client, answer, index) }
            return
        }
        let revision = key.revisions[index]
        if revision.expires.seconds != 0, expiredForSure(revision, client) {
            fail("expired, yet a hit: \(describe(client, answer))")
        }
        if answer.length != revision.length || answer.shardCount != revision.shardCount {
            fail("wrong length or shard count: \(describe(client, answer))")
        }
        model.namespaces[client.space].keys[client.key].revisions[index].version = answer.version
        model.namespaces[client.space].keys[client.key].revisions[index].life = openings
        // What was evicted meanwhile would not be seen.
        if answer.version >= key.floor {
            model.namespaces[client.space].keys[client.key].missIsCounted = false
        }
        if revision.state == .maybe {
            model.namespaces[client.space].keys[client.key].revisions[index].state = .stored
        }
        model.namespaces[client.space].keys[client.key].floor = max(
            model.namespaces[client.space].keys[client.key].floor, answer.version)
        if revision.expires.seconds != 0 {
            model.namespaces[client.space].keys[client.key].must = false
            model.namespaces[client.space].keys[client.key].mustDurable = false
        }
        model.highestVersion = max(model.highestVersion, answer.version)
        if answer.lease >= 0 { hold(client, answer, index) }
    }

    private func hold(_ client: Client, _ answer: StoreAnswer, _ index: Int) {
        client.lease = answer.lease
        client.leaseOffset = answer.leaseOffset
        client.leased = model.namespaces[client.space].keys[client.key].revisions[index]
        tally.add("leases")
        checkLease(client)
    }

    private func expiredForSure(_ revision: Revision, _ client: Client) -> Bool {
        revision.expires.life == openings && client.submittedAt >= revision.expires.end
    }

    /// The revisions that a hit may be of: the one of its version, or those of unknown version with
    /// these bytes.
    private func matching(_ client: Client, _ answer: StoreAnswer) -> [Int] {
        let key = model.namespaces[client.space].keys[client.key]
        if let known = key.revision(version: answer.version) {
            guard key.revisions[known].state != .never else { return [] }
            return matches(client, answer, key.revisions[known]) ? [known] : []
        }
        return key.revisions.indices.reversed().filter { index in
            let revision = key.revisions[index]
            guard revision.version == 0,
                revision.state == .inFlight || revision.state == .maybe,
                revision.length == answer.length, revision.shardCount == answer.shardCount
            else { return false }
            return matches(client, answer, revision)
        }
    }

    private func matches(_ client: Client, _ answer: StoreAnswer, _ revision: Revision) -> Bool {
        let range = askedRange(client, revision)
        if range.upperBound > Int(revision.length) { return false }
        if answer.lease >= 0 {
            return isLeased(client, answer.lease, at: answer.leaseOffset, revision)
        }
        guard Int(answer.delivered) == range.count, range.count <= client.room else { return false }
        return Payload.matches(
            revision.seed, from: range.lowerBound, range.count,
            UnsafeRawPointer(client.window ?? client.memory + client.start))
    }

    func askedRange(_ client: Client, _ revision: Revision) -> Range<Int> {
        let asked = client.asked
        if asked.byteCount > 0 { return asked.byteOffset..<(asked.byteOffset + asked.byteCount) }
        guard asked.shardCount > 0, asked.firstShard + asked.shardCount <= revision.shardCount
        else { return 0..<Int(revision.length) }
        let lengths = UnsafeMutablePointer<UInt32>.allocate(capacity: revision.shardCount)
        defer { lengths.deallocate() }
        revision.shardLengths(lengths)
        var start = 0
        for shard in 0..<asked.firstShard { start += Int(lengths[shard]) }
        var end = start
        for shard in asked.firstShard..<(asked.firstShard + asked.shardCount) {
            end += Int(lengths[shard])
        }
        return start..<end
    }

    // MARK: Misses

    /// A key was not found that perhaps should have been.
    func missed(_ client: Client, _ what: String, _ reason: MissReason = .none) {
        let key = model.namespaces[client.space].keys[client.key]
        guard client.mustAt, key.must, model.namespaces[client.space].live,
            client.deletesAt == key.deletesBegun, client.lossesAt == key.losses
        else { return }
        // A put that was given up, with a time to live, may have taken effect since.
        let mayExpire = key.revisions.contains {
            ($0.state == .maybe || $0.state == .inFlight) && $0.expires.seconds != 0
        }
        if reason == .expired || mayExpire {
            model.namespaces[client.space].keys[client.key].must = false
            model.namespaces[client.space].keys[client.key].mustDurable = false
            if mayExpire { return }
        }
        if reason == .recovering, store?.isRecovered == false { return }
        if damage > 0 || hardship || anyAway || errors > 0 || isTroubled(since: client.changesAt) {
            tally.add("misses excused by faults")
            return
        }
        if client.pinnedAt && key.pinnedUntil > clock.monotonic {
            fail("a pinned block is gone (\(what)): key \(client.space)/\(client.key)")
        }
        model.namespaces[client.space].keys[client.key].must = false
        model.namespaces[client.space].keys[client.key].mustDurable = false
        if key.missIsCounted { return }
        model.namespaces[client.space].keys[client.key].missedAt = clock.monotonic
        model.missed += 1
        let evicted = model.evictedBefore + (store?.log.statistics.evictedBlocks ?? 0)
        if UInt64(model.missed) > evicted {
            fail(
                "lost (\(what)): key \(client.space)/\(client.key), floor \(key.floor); "
                    + "\(model.missed) keys missed, \(evicted) evicted")
        }
    }

    // MARK: Deletes and the rest

    private func deleteEnded(_ client: Client, _ answer: StoreAnswer) {
        var key = model.namespaces[client.space].keys[client.key]
        key.deletesInFlight -= 1
        switch answer.status {
        case .deleted:
            if answer.version <= client.highestAt {
                fail("a delete's version \(answer.version) is not above \(client.highestAt)")
            }
            // It ends a pin, also one that was set after the delete had been submitted.
            key.pinnedUntil = 0
            key.deletedFloor = max(key.deletedFloor, answer.version)
            key.floor = max(key.floor, answer.version)
            model.highestVersion = max(model.highestVersion, answer.version)
        case .notFound:
            model.namespaces[client.space].keys[client.key] = key
            if client.mustAt { notFoundDelete(client) }
            return
        case .failed, .noSpace:
            let excused =
                damage + errors > 0 || hardship || isTroubled(since: client.changesAt)
            if !excused { fail("a delete fails: \(describe(client, answer)). \(situation)") }
        case .throttled, .readOnly: break
        case .cancelled, .timedOut: key.deleteLingers = true
        case .invalid where !model.namespaces[client.space].live: break
        default: fail("unexpected: \(describe(client, answer))")
        }
        model.namespaces[client.space].keys[client.key] = key
    }

    /// `submit` noted the delete as begun, which takes the key's `must` away: judged by what was
    /// known before.
    private func notFoundDelete(_ client: Client) {
        let key = model.namespaces[client.space].keys[client.key]
        guard client.deletesAt + 1 == key.deletesBegun, damage + errors == 0, !hardship,
            model.namespaces[client.space].live
        else { return }
        // Its volatile block was lost meanwhile, and the loss was told.
        if key.floor < client.floorAt { return }
        model.missed += 1
        let evicted = model.evictedBefore + (store?.log.statistics.evictedBlocks ?? 0)
        if UInt64(model.missed) > evicted {
            fail("lost (a delete found nothing): key \(client.space)/\(client.key)")
        }
    }

    private func containsEnded(_ client: Client, _ answer: StoreAnswer) {
        let key = model.namespaces[client.space].keys[client.key]
        switch answer.status {
        case .hit:
            if !key.mayBePresent(floor: client.floorAt) {
                fail("contains a key that cannot be there: \(describe(client, answer))")
            }
        case .miss: missed(client, "contains says no", answer.reason)
        default: fail("unexpected: \(describe(client, answer))")
        }
    }

    private func pinEnded(_ client: Client, _ answer: StoreAnswer) {
        switch answer.status {
        case .done:
            tally.add("pins")
            model.namespaces[client.space].keys[client.key].pinnedUntil =
                client.operation.deadline
        case .notFound:
            // A volatile block is in staging alone: there is nothing to pin on the device yet.
            break
        case .throttled: break
        default: fail("unexpected: \(describe(client, answer))")
        }
    }

    func describe(_ client: Client, _ answer: StoreAnswer) -> String {
        let key = model.namespaces[client.space].keys[client.key]
        var text =
            "\(client.operation.kind) \(client.operation.mode) \(client.operation.durability) "
            + "replace \(client.operation.replace) key \(client.space)/\(client.key) "
            + "asked \(client.asked) room \(client.room) answer \(answer) floor at submit "
            + "\(client.floorAt), now \(key.floor), deleted \(key.deletedFloor), must "
            + "\(client.mustAt)/\(key.must); revisions:"
        for revision in key.revisions.suffix(8) {
            text +=
                " [v\(revision.version) \(revision.state) \(revision.durability) "
                + "len \(revision.length)x\(revision.shardCount) durable \(revision.isDurable)]"
        }
        return text + "; damage \(damage) errors \(errors)"
    }

    private func note(_ client: Client, _ answer: StoreAnswer) {
        if verbose {
            say("  \(clock.monotonic) \(describe(client, answer))")
        }
        guard journal != nil else { return }
        let status = UInt64(answer.status.rawValue) << 56
        let kind = UInt64(client.operation.kind.rawValue) << 48
        let bytes = answer.status == .hit ? answer.delivered : 0
        journal?[client.entry] = status | kind | bytes
    }
}
