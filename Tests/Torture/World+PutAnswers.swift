// Answers to puts: what each status means for the model, and which are legal when.

import BlockIO
import LogStore
import Staging

extension World {
    func putEnded(_ client: Client, _ answer: StoreAnswer) {
        model.namespaces[client.space].keys[client.key].writesInFlight -= 1
        let excused = damage + errors > 0 || hardship || isTroubled(since: client.changesAt)
        switch answer.status {
        case .stored: stored(client, answer)
        case .alreadyPresent, .conflict: present(client, answer)
        case .throttled: refuse(client)
        case .noSpace:
            set(client, .maybe)
            if swarm.mode == .cache && !excused && !isWornDown {
                fail("no space in cache mode: \(describe(client, answer)). \(situation)")
            }
        case .failed:
            set(client, .maybe)
            if !excused { fail("a put fails: \(describe(client, answer))") }
        case .readOnly: refuse(client)
        case .cancelled, .timedOut: set(client, .maybe)
        case .invalid where !model.namespaces[client.space].live: set(client, .maybe)
        case .notFound where !model.namespaces[client.space].live: set(client, .maybe)
        default: fail("unexpected: \(describe(client, answer))")
        }
    }

    /// Whether devices that did not answer have cost so many segments that no device that may be
    /// written has more left than what records and moved blocks need, open segments and clean ones:
    /// a handful of each.
    private var isWornDown: Bool {
        guard let log = store?.log else { return false }
        var usable = [Int](repeating: 0, count: log.devices.count)
        var lost = false
        log.segments.forEach { id in
            switch log.segments[id].state {
            case .quarantined: lost = true
            case .absent: break
            default: usable[SegmentTable.device(id)] += 1
            }
        }
        return lost && usable.indices.allSatisfy { usable[$0] <= 4 || !log.devices[$0].takesWrites }
    }

    private func set(_ client: Client, _ state: RevisionState) {
        model.namespaces[client.space].keys[client.key].revisions[client.revision].state = state
    }

    private func refuse(_ client: Client) { set(client, .never) }

    private func stored(_ client: Client, _ answer: StoreAnswer) {
        let space = client.space
        let number = client.key
        let known = model.namespaces[space].keys[number].revisions[client.revision].version
        if known != 0 && known != answer.version {
            fail("a read saw version \(known), the put says \(answer.version)")
        }
        if answer.version <= client.highestAt {
            fail(
                "version \(answer.version) is not above \(client.highestAt), which was answered "
                    + "before the put: \(describe(client, answer))")
        }
        let mayBeAnew =
            client.operation.durability == .durable && healthChanges > changesAtOpen
        if !client.operation.replace, !mayBeAnew {
            // Something that had to be there was not.
            missed(client, "an insert found nothing")
        }
        var key = model.namespaces[space].keys[number]
        key.revisions[client.revision].version = answer.version
        key.revisions[client.revision].state = .stored
        key.revisions[client.revision].life = openings
        let expiring = key.revisions[client.revision].expires.seconds != 0
        let own = client.operation.timeToLive
        let general = model.namespaces[space].timeToLive
        if expiring {
            let seconds = own == 0 ? general : general == 0 ? own : min(own, general)
            key.revisions[client.revision].expires.end =
                clock.monotonic + UInt64(seconds) * 1_000_000_000 + 1_000_000_000
            key.revisions[client.revision].expires.life = openings
        }
        let newest = answer.version >= key.floor
        key.floor = max(key.floor, answer.version)
        let mayExpire = key.revisions.contains {
            ($0.state == .inFlight || $0.state == .maybe) && $0.expires.seconds != 0
        }
        let safe =
            key.deletesInFlight == 0 && !key.deleteLingers && !expiring && newest && !mayExpire
        if newest || !safe {
            key.must = safe
            key.missIsCounted = key.missedAt >= client.submittedAt
            if client.operation.durability == .durable {
                key.mustDurable = safe
            } else if !safe {
                key.mustDurable = false
            }
        }
        if client.operation.durability == .durable {
            key.revisions[client.revision].isDurable = true
        }
        model.namespaces[space].keys[number] = key
        model.highestVersion = max(model.highestVersion, answer.version)
    }

    /// The key was there: with the same shape, or another.
    private func present(_ client: Client, _ answer: StoreAnswer) {
        refuse(client)
        tally.add(answer.status == .conflict ? "conflicts" : "already present")
        let key = model.namespaces[client.space].keys[client.key]
        if client.operation.replace {
            fail("a replace says \(answer.status): \(describe(client, answer))")
        }
        if answer.version < min(client.floorAt, key.floor) {
            fail(
                "\(answer.status) with version \(answer.version) below \(client.floorAt): "
                    + describe(client, answer))
        }
        let own = key.revisions[client.revision]
        if let index = key.revision(version: answer.version) {
            let other = key.revisions[index]
            model.namespaces[client.space].keys[client.key].revisions[index].life = openings
            let same =
                other.length == own.length && other.shardCount == own.shardCount
                && (own.shardCount == 1 || sameShards(own, other))
            if same != (answer.status == .alreadyPresent) {
                fail("\(answer.status), but the shapes say otherwise: \(describe(client, answer))")
            }
            if answer.status == .alreadyPresent, client.operation.durability == .durable {
                model.namespaces[client.space].keys[client.key].revisions[index].isDurable = true
                if other.durability < .durable {
                    model.namespaces[client.space].keys[client.key].revisions[index].durability =
                        .durable
                }
                if key.must && answer.version >= key.floor {
                    model.namespaces[client.space].keys[client.key].mustDurable = true
                }
            }
        } else {
            let possible = key.revisions.contains {
                $0.version == 0 && ($0.state == .inFlight || $0.state == .maybe)
            }
            if !possible {
                fail("\(answer.status) with an unknown version: \(describe(client, answer))")
            }
        }
    }

    private func sameShards(_ one: Revision, _ other: Revision) -> Bool {
        let lengths = UnsafeMutablePointer<UInt32>.allocate(capacity: 2 * one.shardCount)
        defer { lengths.deallocate() }
        one.shardLengths(lengths)
        other.shardLengths(lengths + one.shardCount)
        for shard in 0..<one.shardCount
        where lengths[shard] != lengths[one.shardCount + shard] { return false }
        return true
    }
}
