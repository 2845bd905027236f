// TieredStore: the staged store with those above it that decide who stays and who comes early: the
// one value that an owner thread, or a simulation, pumps. Owner thread only; nothing happens but
// inside a call, and clock, randomness and I/O come from outside, as in all the core.

import BlockIO
import Heat
import LogStore
import Prefetch
import Staging

package struct TieredConfiguration: Sendable {
    package var staged: StagedConfiguration
    package var prefetch = PrefetchConfiguration()
    /// The engine's own memory.
    package var engine = EngineTierConfiguration()
    /// Who leaves staging first.
    package var replacement = ReplacementKind.adaptive
    /// What volatile puts do when more come than the devices write.
    package var overload = WriteOverload.waits
    /// When volatile puts are written; the others are when they come.
    package var writeMoment = WriteMoment.insert
    /// All bytes written a day, the store's own included; 0: no budget.
    package var writeBudget: UInt64 = 0

    package init(_ staged: StagedConfiguration) { self.staged = staged }
}

/// What volatile puts do when more come than the devices write.
package enum WriteOverload: UInt8, CaseIterable, Sendable {
    /// They wait until they can be written.
    case waits
    /// They stay in memory alone, and are lost when they leave it.
    case staysInMemory
}

package final class TieredStore {
    package let staged: StagedStore
    /// Nil where there is no staging, or nothing is to be predicted.
    package let prefetcher: Prefetcher?
    package let configuration: TieredConfiguration
    /// Nil where there is no staging, or nothing is told of the engine's memory.
    package let tiers: TierManager?
    /// Decides how much of a prefix is worth loading.
    package let judge = PrefixJudge()
    private var looked: UInt64 = 0
    private var backlog: WriteBacklog?
    private var admission: WriteAdmission
    package private(set) var wear: WearBudget?
    /// What the manifest was last written for.
    private var keptBalance = 0.0

    package static func open(
        _ configuration: TieredConfiguration, driver: any BlockDriver, clock: any Clock
    ) throws(StoreError) -> TieredStore {
        TieredStore(
            staged: try StagedStore.open(
                configuration.staged, driver: driver, clock: clock,
                policy: configuration.replacement.makePolicy()),
            configuration)
    }

    private init(staged: StagedStore, _ configuration: TieredConfiguration) {
        self.staged = staged
        self.configuration = configuration
        admission = WriteAdmission(moment: configuration.writeMoment)
        prefetcher = Prefetcher(staged, configuration.prefetch)
        tiers = TierManager(staged, prefetcher, configuration.engine)
        prefetcher?.upper = tiers
        backlog = Self.backlog(staged, configuration)
        if let backlog { staged.dirtyLimit = backlog.limit }
        staged.observer = self
        if configuration.writeBudget > 0 {
            let (manifest, log) = (staged.log.manifest, staged.log.statistics)
            wear = WearBudget(
                bytesPerDay: configuration.writeBudget, balance: manifest.writeBalance,
                balanceSeconds: manifest.writeBalanceSeconds, now: staged.log.wallSeconds,
                written: log.writtenBytes, admitted: log.admittedBytes)
        }
        if configuration.writeBudget > 0 || configuration.writeMoment != .insert {
            staged.gate = self
        }
    }

    /// Seconds of writing that may wait under `.staysInMemory`, and the most that may wait, as a
    /// share of staging: 1 / this.
    private static let longestBacklog = 10.0
    private static let backlogShare = 2

    private static func backlog(
        _ staged: StagedStore, _ configuration: TieredConfiguration
    ) -> WriteBacklog? {
        guard configuration.overload == .staysInMemory, let arena = staged.arena else { return nil }
        let most = arena.bytes / backlogShare
        return WriteBacklog(
            longest: longestBacklog, floor: min(configuration.staged.log.groupBytes, most),
            ceiling: most)
    }

    deinit {
        prefetcher?.upper = nil
        staged.observer = nil
        staged.gate = nil
    }

    // MARK: The pump

    /// Does what there is to do; whether anything moved.
    @discardableResult
    package func pump() -> Bool {
        // Up from staging before up into it: what is copied makes room for what comes.
        let copied = tiers?.advance() ?? false
        let begun = prefetcher?.advance() ?? false
        let progressed = staged.pump() || begun || copied
        let now = staged.log.clock.monotonic
        // What was begun early stands before whatever is claimed from now on.
        if begun || now >= looked &+ Self.lookPeriod {
            looked = now
            look(now)
        }
        return progressed
    }

    /// Nanoseconds between two looks at what the devices take.
    private static let lookPeriod: UInt64 = 1_000_000

    private func look(_ now: UInt64) {
        judge.update(staged.log.meters, away: staged.log.unreadableDevices)
        if wear != nil { account() }
        guard backlog != nil, let arena = staged.arena else { return }
        backlog?.readingGain = judge.readingGain
        backlog?.observe(
            total: staged.log.statistics.groupBytes, waiting: arena.dirtyBytes, now: now)
        staged.dirtyLimit = backlog?.limit ?? Int.max
    }

    /// A manifest is not written for fewer bytes than these.
    private static let leastKept = 128.0 * 1024 * 1024

    /// Keeps the account of writes, in the manifest too: at the end, and whenever it has changed by
    /// a two hundredth of the budget, so that a crash does not forget more than that.
    private func account() {
        let log = staged.log.statistics
        guard
            wear?.observe(
                written: log.writtenBytes, admitted: log.admittedBytes,
                now: staged.log.wallSeconds) == true, let wear
        else { return }
        admission.share = wear.share
        let isFar =
            abs(wear.balance - keptBalance) > max(Self.leastKept, Double(wear.bytesPerDay) / 200)
        if isFar { keptBalance = wear.balance }
        staged.log.keepWriteBalance(Int64(wear.balance), seconds: wear.seconds, soon: isFar)
    }

    /// Decides how much of a prefix to load, from what is so now. Owner thread; callers of an open
    /// store ask `judge`, which knows what was so a millisecond ago.
    package func decide(
        _ ask: PrefixAsk, namespaceSlot: UInt16, keys: Int, claims: Bool,
        find: (Int) -> PrefixBlock?
    ) -> PrefixDecision {
        judge.update(staged.log.meters, away: staged.log.unreadableDevices)
        let now = staged.log.clock.monotonic
        return claims
            ? judge.decide(ask, namespaceSlot: namespaceSlot, keys: keys, now: now, find: find)
            : judge.forecast(ask, namespaceSlot: namespaceSlot, keys: keys, now: now, find: find)
    }

    /// When the owner has to be awake next, monotonic nanoseconds.
    package var nextDeadline: UInt64 {
        min(staged.nextDeadline, prefetcher?.nextWake ?? .max)
    }

    /// Whether nothing is under way; blocks that wait to be brought early do not count.
    package var isIdle: Bool { staged.isIdle && tiers?.isIdle ?? true }

    package var isRecovered: Bool { staged.isRecovered }

    /// Receives the answers; not owned.
    package var sink: (any StoreSink)? {
        get { staged.sink }
        set { staged.sink = newValue }
    }

    // MARK: Operations

    /// Takes an operation and its key's fingerprint. False: no room now; try again after `pump`.
    package func submit(_ operation: StoreOperation, _ fingerprint: Fingerprint) -> Bool {
        staged.submit(operation, fingerprint)
    }

    package func submit(_ operation: StoreOperation) -> Bool {
        submit(operation, staged.fingerprint(operation))
    }

    package func endLease(_ lease: Int32) { staged.endLease(lease) }

    package func cancel(token: UInt64) { staged.cancel(token: token) }

    // MARK: Hints

    /// Takes a hint with its keys, whose memory is good during the call only. Never fails, never
    /// waits; what it cannot use it counts.
    package func hint(_ hint: Hint, keys: UnsafeBufferPointer<UnsafeRawBufferPointer>) {
        switch hint.kind {
        case .touched:
            guard staged.log.namespaces.isLive(hint.namespaceSlot) else { return }
            // The tail first, so that the head ends the most recent.
            for key in keys.reversed() { touch(key, hint) }
        case .admitted, .evicted: engineTold(hint, keys)
        case .session:
            foretell(hint, keys)
            prefetcher?.hint(hint, keys: keys)
        case .ended:
            reorder(hint, keys)
            prefetcher?.hint(hint, keys: keys)
        default: prefetcher?.hint(hint, keys: keys)
        }
    }

    /// The engine has taken blocks into its own memory, or let them go.
    private func engineTold(_ hint: Hint, _ keys: UnsafeBufferPointer<UnsafeRawBufferPointer>) {
        guard let tiers else { return }
        if hint.kind == .evicted, keys.isEmpty, !hint.continues { return tiers.evictedAll() }
        guard staged.log.namespaces.isLive(hint.namespaceSlot) else { return }
        // The tail first, so that the head ends the most recent, or leaves last.
        for key in keys.reversed() {
            let fingerprint = staged.log.fingerprint(hint.namespaceSlot, key)
            if hint.kind == .admitted {
                tiers.admitted(fingerprint)
            } else {
                tiers.evicted(fingerprint)
            }
        }
    }

    /// What a request has read when it began is older than what it has put when it ended, although
    /// that is of no use without it.
    private func reorder(_ hint: Hint, _ keys: UnsafeBufferPointer<UnsafeRawBufferPointer>) {
        forEachResident(of: keys, hint) { arena, slot, continues in
            arena.reorder(slot, continues: continues)
        }
    }

    /// Calls the body with the visible residents of a chain, from the head on, and whether it was
    /// called for one before in the chain.
    private func forEachResident(
        of keys: UnsafeBufferPointer<UnsafeRawBufferPointer>, _ hint: Hint,
        _ body: (StagingArena, ResidentSlot, Bool) -> Void
    ) {
        guard let arena = staged.arena, staged.log.namespaces.isLive(hint.namespaceSlot) else {
            return
        }
        var continues = hint.continues
        for key in keys {
            let name = staged.log.fingerprint(hint.namespaceSlot, key).stagingKey
            guard let found = arena.find(name), found.state.isVisible else { continue }
            body(arena, found.slot, continues)
            continues = true
        }
    }

    /// What is said of a session is said of its blocks: it orders who leaves staging first.
    private func foretell(_ hint: Hint, _ keys: UnsafeBufferPointer<UnsafeRawBufferPointer>) {
        let outlook: Outlook =
            switch hint.state {
            case .open, .idle: .returns
            case .toolPending: .returnsSoon
            case .oneShot, .closed: .ends
            }
        forEachResident(of: keys, hint) { arena, slot, continues in
            arena.foretell(slot, outlook, continues: continues)
        }
    }

    /// The key was used elsewhere, or some of its shards were.
    private func touch(_ key: UnsafeRawBufferPointer, _ hint: Hint) {
        let fingerprint = staged.log.fingerprint(hint.namespaceSlot, key)
        guard hint.shardCount > 0 else {
            guard tiers?.touched(fingerprint) == true else { return staged.touch(fingerprint) }
            // Used above: that is no reason to keep it in staging, too.
            staged.log.touched(fingerprint)
            accessed(Access(kind: .touch, fingerprint: fingerprint))
            return
        }
        staged.touch(fingerprint.part(Int(hint.firstShard), Int(hint.shardCount)))
        var access = Access(kind: .touch, fingerprint: fingerprint)
        access.namespaceSlot = hint.namespaceSlot
        access.key = key
        access.firstShard = hint.firstShard
        access.shardCount = hint.shardCount
        prefetcher?.picked(access)
    }

    /// Bytes of the tables beside the staged store's own.
    package var memoryBytes: Int {
        guard let arena = staged.arena else { return 0 }
        let tables = TierManager.memoryBytes(configuration.engine)
        guard prefetcher != nil else { return tables }
        return tables
            + Prefetcher.memoryBytes(
                configuration.prefetch, residents: arena.residentCapacity)
    }

    /// What was predicted, and what came of it.
    package var prefetchStatistics: PrefetchStatistics {
        prefetcher?.statistics ?? PrefetchStatistics()
    }

    // MARK: The end

    /// Refuses new writes, and brings nothing early, from now on.
    package func beginClose() {
        prefetcher?.stop()
        tiers?.stop()
        if let wear {
            staged.log.keepWriteBalance(Int64(wear.balance), seconds: wear.seconds, soon: true)
        }
        staged.beginClose()
    }

    package func shutdown() {
        prefetcher?.upper = nil
        staged.observer = nil
        staged.gate = nil
        staged.shutdown()
    }
}

extension TieredStore: WriteGate {
    package func admits(keyHash: UInt64, bytes: UInt32, again: Bool) -> Bool {
        let verdict = admission.verdict(
            keyHash: keyHash, uses: again ? 2 : 1, outlook: .unknown, isPartial: false,
            isLeaving: false)
        // What waits for its second put is not asked for yet.
        if verdict == .write || verdict == .overShare { wear?.asked(bytes) }
        return verdict == .write
    }
}

extension TieredStore: AccessObserver {
    package func accessed(_ access: Access) {
        prefetcher?.accessed(access)
        // A block that is there already was not computed because it was missing here.
        if access.kind == .put, !staged.isPresent(access.fingerprint) {
            judge.stored(access.namespaceSlot, now: staged.log.clock.monotonic)
        }
    }

    package func deviceReadEnded(_ fingerprint: Fingerprint, bytes: UInt32, isHit: Bool) {
        prefetcher?.deviceReadEnded(fingerprint, bytes: bytes, isHit: isHit)
    }

    package func putEnded(_ fingerprint: Fingerprint) { prefetcher?.putEnded(fingerprint) }

    package func prefetchEnded(
        _ token: UInt64, _ status: Status, resident: Int32, bytes: UInt32
    ) {
        prefetcher?.prefetchEnded(token, status, resident: resident, bytes: bytes)
    }

    package func residentLeft(
        _ resident: Int32, _ key: StagingKey, _ departure: ResidentDeparture
    ) {
        prefetcher?.residentLeft(resident, key, departure)
    }
}
