// Sessions: what an engine tells of them, when they come back, and whose chain is worth bringing
// before it does. A waiting session is looked at when it begins to wait and at each doubling of how
// long it has; where it is told when it is expected, in time before that. Its chain is brought if
// the chance that it comes back while the blocks would stay in memory outweighs what they cost: the
// device's time, as far as others want it, and the reads of what they displace.

import Heat
import LogStore
import Staging

/// What bringing costs others; learnt a little at each look.
struct SessionCosts {
    /// The share of looks that found the device at work for somebody who waits.
    var busy: Float = 0
    /// Blocks that made room for prefetches.
    var displaced: UInt64 = 0
}

extension Prefetcher {
    /// The first look after a session has begun to wait; the next ones at each doubling.
    private static let firstLook: UInt64 = 1_000_000_000
    /// No further looks beyond that age, nanoseconds.
    private static let lastLook: UInt64 = 1 << 45
    private static let looksATurn = 4
    private static let latestTouch: UInt64 = 100_000_000
    /// Keys of a session that become wanted in one turn.
    private static let keysATurn = 128
    /// How long before and after the time told for its return a session counts as on time.
    private static let grace: UInt64 = 10_000_000_000
    /// The least time that a chain is begun before its session is due.
    private static let leastLead: UInt64 = 250_000_000

    var tracksSessions: Bool { configuration.predictors.contains(.session) }

    // MARK: What is told

    /// A session has come into a state; its keys come in one or several parts.
    func session(_ hint: Hint, _ keys: UnsafeBufferPointer<UnsafeRawBufferPointer>) {
        guard tracksSessions, hint.session != 0 else { return }
        var index = sessions.find(hint.session)
        if !hint.continues {
            if index >= 0 {
                if hint.state == .closed {
                    sessionIsOver(index)
                } else if sessions.sessions[Int(index)].since > 0 {
                    sessionIsBack(index)
                }
                sessions.renew(index)
            } else {
                if !sessions.hasRoom { dropSession(sessions.oldest) }
                index = sessions.insert(hint.session)
            }
            begin(index, hint)
            if !keys.isEmpty { sessions.dropKeys(index) }
        }
        guard index >= 0 else { return }
        keepKeys(of: index, hint, keys)
        guard sessions.sessions[Int(index)].since > 0 else { return }
        sessions.schedule(index, at: firstLook(index, log.clock.monotonic))
    }

    private func keepKeys(
        of index: Int32, _ hint: Hint, _ keys: UnsafeBufferPointer<UnsafeRawBufferPointer>
    ) {
        guard log.namespaces.isLive(hint.namespaceSlot), !keys.isEmpty else { return }
        let session = sessions.sessions + Int(index)
        session.pointee.namespaceSlot = hint.namespaceSlot
        session.pointee.instanceLow = UInt32(
            truncatingIfNeeded: log.namespaces.instance(hint.namespaceSlot))
        for key in keys where !keep(key, of: index) { counts.overflowed += 1 }
        if let leaf = keys.last {
            sessions.setLeaf(log.fingerprint(hint.namespaceSlot, leaf), of: index)
        }
    }

    private func begin(_ index: Int32, _ hint: Hint) {
        let session = sessions.sessions + Int(index)
        let now = log.clock.monotonic
        session.pointee.state = hint.state
        session.pointee.due = hint.state == .toolPending ? hint.due : 0
        session.pointee.wasBrought = false
        session.pointee.learnt = 0
        guard hint.state != .open else { return }
        session.pointee.turns &+= 1
        session.pointee.since = max(1, now)
        session.pointee.kind = SessionReturns.kind(hint.state, turns: session.pointee.turns)
    }

    private func firstLook(_ index: Int32, _ now: UInt64) -> UInt64 {
        let due = sessions.sessions[Int(index)].due
        guard due > now else { return now &+ Self.firstLook }
        return max(now &+ 1, due &- min(due, lead(index)))
    }

    /// How long bringing the chain may take, with some to spare.
    private func lead(_ index: Int32) -> UInt64 {
        let blocks = Double(sessions.sessions[Int(index)].keys)
        let seconds = 4 * blocks * meanBlockBytes / max(1, bandwidth)
        return max(Self.leastLead, UInt64(min(seconds, 30) * 1e9))
    }

    /// Keeps a key of the session; others', told longer ago, make way.
    private func keep(_ key: UnsafeRawBufferPointer, of index: Int32) -> Bool {
        if !sessions.hasFreeKey, sessions.oldest != index { dropSession(sessions.oldest) }
        return sessions.append(key, to: index)
    }

    /// Forgets a session; that it has not come back is known of it.
    private func dropSession(_ index: Int32) {
        let session = sessions.sessions[Int(index)]
        if session.since > 0 {
            learnWait(index, until: log.clock.monotonic &- session.since)
            sessionReturns.gone()
        }
        letGo(of: index)
        sessions.remove(index)
    }

    private func letGo(of index: Int32) {
        let request = sessions.sessions[Int(index)].request
        guard request >= 0 else { return }
        sessions.sessions[Int(index)].request = -1
        sessions.sessions[Int(index)].cursor = -1
        queue.release(request)
    }

    // MARK: Coming back

    /// Something of the session's is asked for, as far as its last key tells.
    func noteLeaf(_ access: Access) {
        let index = sessions.find(leaf: access.fingerprint)
        guard index >= 0, case let since = sessions.sessions[Int(index)].since, since > 0 else {
            return
        }
        // Touches come a turn late: this one may be of the turn before the session began to wait.
        if access.kind == .touch, log.clock.monotonic &- since < Self.latestTouch { return }
        sessionIsBack(index)
    }

    /// A request names the session.
    func noteSession(_ id: UInt64) {
        guard tracksSessions, id != 0 else { return }
        let index = sessions.find(id)
        if index >= 0, sessions.sessions[Int(index)].since > 0 { sessionIsBack(index) }
    }

    private func sessionIsBack(_ index: Int32) {
        let session = sessions.sessions[Int(index)]
        let now = log.clock.monotonic
        let age = now &- session.since
        learnWait(index, until: age)
        sessionReturns.returned(session.kind, age: age)
        if session.due > 0 {
            sessionReturns.heldTold(
                now &+ Self.grace >= session.due && now <= session.due &+ Self.grace)
        }
        sessions.sessions[Int(index)].since = 0
        sessions.unschedule(index)
        letGo(of: index)
    }

    /// It has not come back, and what was brought for it leaves first.
    private func sessionIsOver(_ index: Int32) {
        let session = sessions.sessions[Int(index)]
        if session.since > 0 {
            learnWait(index, until: log.clock.monotonic &- session.since)
            sessionReturns.gone()
            sessions.sessions[Int(index)].since = 0
            sessions.unschedule(index)
        }
        if session.request >= 0 { takeBack(session.request) }
        letGo(of: index)
    }

    private func learnWait(_ index: Int32, until age: UInt64) {
        let session = sessions.sessions + Int(index)
        guard age > session.pointee.learnt else { return }
        sessionReturns.waited(session.pointee.kind, from: session.pointee.learnt, to: age)
        session.pointee.learnt = age
    }

    // MARK: Looking

    /// Looks at sessions whose time has come, a few at once. Whether any became wanted.
    func lookAtSessions() -> Bool {
        let now = log.clock.monotonic
        var begun = false
        for _ in 0..<Self.looksATurn where sessions.nextLook <= now {
            let index = sessions.first
            let session = sessions.sessions + Int(index)
            if session.pointee.cursor >= 0 {
                begun = bring(index) || begun
            } else {
                look(index, now)
                begun = true
            }
            if session.pointee.cursor >= 0 {
                sessions.schedule(index, at: now)
            } else {
                let age = now &- session.pointee.since
                if age < Self.lastLook {
                    sessions.schedule(index, at: now &+ max(Self.firstLook, age))
                } else {
                    sessions.unschedule(index)
                }
            }
        }
        return begun
    }

    private func look(_ index: Int32, _ now: UInt64) {
        let session = sessions.sessions + Int(index)
        learnWait(index, until: now &- session.pointee.since)
        measureCosts(now)
        guard !session.pointee.wasBrought, session.pointee.firstKey >= 0 else { return }
        let stay = staying
        let chance: Float
        var due = session.pointee.due
        if due > now {
            chance = due &- now <= max(stay, 2 * lead(index)) ? sessionReturns.trust : 0
        } else {
            chance = sessionReturns.chance(
                session.pointee.kind, age: now &- session.pointee.since, within: stay)
            due = now &+ stay
        }
        guard chance > leastChance else {
            counts.sessionsLeft += 1
            return
        }
        let request = request(0, due: due)
        guard request >= 0 else {
            counts.overflowed += 1
            return
        }
        queue.retain(request)
        session.pointee.request = request
        session.pointee.wasBrought = true
        session.pointee.cursor = session.pointee.firstKey
        counts.sessionsBrought += 1
    }

    /// Makes the next keys of the session's chain wanted.
    private func bring(_ index: Int32) -> Bool {
        let session = sessions.sessions + Int(index)
        let slot = session.pointee.namespaceSlot
        guard log.namespaces.isLive(slot), session.pointee.request >= 0,
            UInt32(truncatingIfNeeded: log.namespaces.instance(slot))
                == session.pointee.instanceLow
        else {
            session.pointee.cursor = -1
            return false
        }
        for _ in 0..<Self.keysATurn where session.pointee.cursor >= 0 {
            let node = session.pointee.cursor
            session.pointee.cursor = sessions.keys[Int(node)].next
            if node == session.pointee.lastKey { session.pointee.cursor = -1 }
            let key = sessions.key(node)
            let wanted = want(
                session.pointee.request, log.fingerprint(slot, key), key, namespaceSlot: slot,
                .session)
            if wanted == .overflowed { counts.overflowed += 1 }
            // What lies behind a gap is of no use.
            if wanted == .overflowed || wanted == .absent { session.pointee.cursor = -1 }
        }
        return true
    }

    // MARK: What it costs

    /// Of the chance that a session comes back: with the device idle and nothing displaced that
    /// was wanted, what is read is used more often than a given share; otherwise more often than
    /// those who would wait for it are held up.
    private var leastChance: Float {
        let displaced = Float(counts.pollution) / Float(sessionCosts.displaced + 16)
        let busy = sessionCosts.busy
        return max(configuration.leastReturn, (busy + min(1, displaced)) / (1 + busy))
    }

    /// How long a block that is brought would stay: until others have taken its place, but as long
    /// as it is protected, nanoseconds.
    private var staying: UInt64 {
        min(2 * configuration.patience, max(Self.firstLook, turnover.stay(bytes: arena.bytes)))
    }

    private func measureCosts(_ now: UInt64) {
        sessionCosts.busy += ((log.demandWaits ? 1 : 0) - sessionCosts.busy) / 32
        turnover.observe(evicted: arena.evictedBytes, now: now)
    }

    /// Bytes of a block, of those in staging.
    private var meanBlockBytes: Double {
        let all = arena.cleanBytes + arena.dirtyBytes
        return Double(all) / Double(max(1, arena.residentCount))
    }
}
