// Owner: the thread that owns a store. It makes the driver, opens the store, and then turns in a
// loop: take what callers pushed, hand it to the store, pump, publish the answers, sleep when there
// was nothing to do. It is the only one that touches the store's state machine.
//
// Invariants: each operation taken from the inbox is answered exactly once, when the store closes
// too; operations on one key start in the order in which they were pushed (WorkQueue); a target is
// published at most once a turn.

import BlockIO
import Glibc
import LogStore
import SegmentFormat
import Staging
import Tiering

/// An operation that the store has.
private struct InFlight {
    var target: Unmanaged<CompletionTarget>?
    var releases = false
    var token: UInt64 = 0
    var kind = StoreOperationKind.contains
    var submitted: UInt64 = 0
    var started: UInt64 = 0
    /// Answered; `released` is still to come.
    var isAnswered = false
}

final class Owner {
    let engine: Engine
    let driver: any BlockDriver
    let tiered: TieredStore
    /// The part of it that stores.
    let store: StagedStore
    let configuration: Configuration
    @exclusivity(unchecked) var counts = OwnerCounts()
    var eventSinks: [EventSink] = []
    @exclusivity(unchecked) var lifecycle = Lifecycle()
    @exclusivity(unchecked) var hintWork = HintWork()
    private(set) lazy var promotions = Promotions(self)

    private let slots: UnsafeMutablePointer<InFlight>
    private let slotCount: Int
    private let freeSlots: UnsafeMutablePointer<Int32>
    @exclusivity(unchecked) private var freeCount: Int
    @exclusivity(unchecked) private var taken = Engine.Inbox()
    /// Taken and not yet started.
    @exclusivity(unchecked) private var work = WorkQueue()
    /// Turns one after the other that put off the hints.
    @exclusivity(unchecked) private var turnsWithoutHints = 0
    @exclusivity(unchecked) private var dirty: [Unmanaged<CompletionTarget>] = []
    private var replies: [UInt64: (Outcome) -> Void] = [:]
    private var nextReply: UInt64 = 1

    init(
        engine: Engine, driver: any BlockDriver, store: TieredStore, configuration: Configuration
    ) {
        self.engine = engine
        self.driver = driver
        tiered = store
        self.store = store.staged
        self.configuration = configuration
        slotCount = configuration.operationsInFlight + 1
        slots = .allocate(capacity: slotCount)
        slots.initialize(repeating: InFlight(), count: slotCount)
        freeSlots = .allocate(capacity: slotCount)
        for index in 0..<slotCount { freeSlots[index] = Int32(slotCount - 1 - index) }
        freeCount = slotCount
        dirty.reserveCapacity(1024)
        self.store.sink = self
    }

    deinit {
        slots.deallocate()
        freeSlots.deallocate()
    }

    private var inFlight: Int { slotCount - freeCount }

    // MARK: The loop

    /// Returns when the store is closed.
    func run() {
        while lifecycle.phase != .closed {
            // Before what came otherwise: a hint finds done what was asked for before it was given,
            // such as setting the function by which announced blocks go up.
            takeHints()
            var busy = takeInbox()
            let hasStarted = startWork()
            busy = hasStarted || busy
            busy = hintsMayCome(hasStarted) && applyHints() || busy
            busy = tiered.pump() || busy
            publish()
            if lifecycle.phase != .open { advanceClosing() }
            if !busy && lifecycle.phase != .closed { sleep() }
        }
    }

    /// The longest sleep while something is under way: the state machines move on completions, and
    /// this bounds what a step that needs another pump, but no I/O, can wait for.
    private static let longestSleep: UInt64 = 20_000_000

    private func sleep() {
        var until = min(tiered.nextDeadline, work.deadline)
        if inFlight > 0 || !work.isEmpty || !replies.isEmpty || !tiered.isIdle {
            until = min(until, engine.clock.monotonic + Self.longestSleep)
        }
        engine.sleep(driver, until: until)
    }

    private func takeInbox() -> Bool {
        guard engine.take(&taken) else { return false }
        if !taken.entries.isEmpty { work.push(&taken.entries) { store.fingerprint($0) } }
        for lease in taken.leases { store.endLease(lease) }
        for task in taken.tasks { task(self) }
        taken.tasks.removeAll(keepingCapacity: true)
        taken.leases.removeAll(keepingCapacity: true)
        return true
    }

    /// Hands waiting operations to the store, until it has no room, or until so much was put that
    /// others are looked at before the rest.
    private func startWork() -> Bool {
        guard !work.isEmpty else { return false }
        let now = engine.clock.monotonic
        var started = start(&work.ahead, work.ahead.count, now)
        started = start(&work.rest, work.rest.turn(most: freeCount), now) || started
        if work.isEmpty || now >= work.deadline {
            if !work.isEmpty {
                endWork(.timedOut) { $0.endsAtDeadline && now >= $0.operation.deadline }
            }
            work.noteDeadlines()
        }
        return started
    }

    /// Starts so many of a list, in order, until the store has no room. Whether any started.
    private func start(_ list: inout WorkQueue.List, _ most: Int, _ now: UInt64) -> Bool {
        var left = most
        while left > 0, freeCount > 0 {
            let count = startSome(list, min(Self.lookAhead, left, freeCount), now)
            if count == 0 { break }
            list.removeFirst(count)
            left -= count
        }
        return left < most
    }

    /// Hints find done what was asked for before they were given; but they wait neither for puts
    /// that have no room nor for ever for puts that never end.
    private func hintsMayCome(_ hasStarted: Bool) -> Bool {
        let mayCome =
            work.rest.putBytes == 0 || !hasStarted
            || turnsWithoutHints == Self.mostTurnsWithoutHints
        turnsWithoutHints = mayCome ? 0 : turnsWithoutHints + 1
        return mayCome
    }

    private static let mostTurnsWithoutHints = 16

    /// Operations whose lookups are begun together: the index is large and read at random, so a
    /// lookup alone is two or three misses of cache and page table one after the other.
    private static let lookAhead = 16

    /// Starts so many waiting operations, or until the store has no room; returns how many.
    private func startSome(_ list: WorkQueue.List, _ count: Int, _ now: UInt64) -> Int {
        withUnsafeTemporaryAllocation(of: Fingerprint.self, capacity: count) { fingerprints in
            for index in 0..<count {
                let fingerprint = store.fingerprint(list[index].operation)
                fingerprints.initializeElement(at: index, to: fingerprint)
                store.prefetch(fingerprint)
            }
            for fingerprint in fingerprints { store.prefetchNext(fingerprint) }
            for index in 0..<count {
                let continues = index > 0 && continues(list[index], list[index - 1])
                if !start(list[index], fingerprints[index], continues: continues, now) {
                    return index
                }
            }
            return count
        }
    }

    /// False when the store has no room for it now.
    private func start(
        _ entry: InboxEntry, _ fingerprint: Fingerprint, continues: Bool, _ now: UInt64
    ) -> Bool {
        freeCount -= 1
        let slot = freeSlots[freeCount]
        slots[Int(slot)] = InFlight(
            target: entry.target, releases: entry.releases, token: entry.operation.token,
            kind: entry.operation.kind, submitted: entry.submitted, started: now)
        var refusal: Status?
        if lifecycle.refuses {
            refusal = .failed
        } else if entry.instance != 0,
            store.log.namespaces.instance(entry.operation.namespaceSlot) != entry.instance
        {
            refusal = .invalid
        } else if entry.operation.kind != .pin, entry.operation.deadline > 0,
            now >= entry.operation.deadline
        {
            refusal = .timedOut
        }
        if let refusal {
            var answer = StoreAnswer(token: UInt64(slot), status: refusal)
            if refusal == .failed { answer.errno = ESHUTDOWN }
            answered(answer)
            return true
        }
        var operation = entry.operation
        operation.token = UInt64(slot)
        operation.continues = continues
        if tiered.submit(operation, fingerprint) { return true }
        freeSlots[freeCount] = slot
        freeCount += 1
        return false
    }

    /// Whether the operation's key follows, in its chain, the one before: they came in one batch.
    private func continues(_ entry: InboxEntry, _ before: InboxEntry) -> Bool {
        entry.submitted == before.submitted && entry.operation.kind == before.operation.kind
            && entry.operation.namespaceSlot == before.operation.namespaceSlot
            && entry.target.toOpaque() == before.target.toOpaque()
    }

    /// Answers waiting operations that match, without starting them.
    private func endWork(
        _ status: Status, errno: Int32 = 0, where matches: (InboxEntry) -> Bool
    ) {
        work.remove(where: matches) { entry in
            var answer = StoreAnswer(token: entry.operation.token, status: status)
            answer.errno = errno
            deliver(
                StoreCompletion(token: entry.operation.token, answer: answer), to: entry.target)
            if entry.releases { releases.append(entry.target) }
        }
    }

    /// References to let go of once their targets have been published.
    @exclusivity(unchecked) private var releases: [Unmanaged<CompletionTarget>] = []

    private func deliver(
        _ completion: StoreCompletion, to reference: Unmanaged<CompletionTarget>
    ) {
        reference._withUnsafeGuaranteedRef { target in
            target.complete(completion)
            if !target.isDirty {
                target.isDirty = true
                dirty.append(reference)
            }
        }
    }

    private func publish() {
        for reference in dirty {
            let isLast = reference._withUnsafeGuaranteedRef { target in
                target.isDirty = false
                return target.publish()
            }
            if isLast { reference.release() }
        }
        dirty.removeAll(keepingCapacity: true)
        for reference in releases { reference.release() }
        releases.removeAll(keepingCapacity: true)
    }

    // MARK: Cancelling

    func cancel(_ target: ObjectIdentifier, _ tokens: ClosedRange<UInt64>) {
        func isMeant(_ reference: Unmanaged<CompletionTarget>, _ token: UInt64) -> Bool {
            tokens.contains(token)
                && reference._withUnsafeGuaranteedRef { ObjectIdentifier($0) == target }
        }
        // The inbox is taken before tasks run, so what was submitted before is here or in flight.
        endWork(.cancelled) { isMeant($0.target, $0.operation.token) }
        for slot in 0..<slotCount {
            guard let reference = slots[slot].target, !slots[slot].isAnswered,
                isMeant(reference, slots[slot].token)
            else { continue }
            store.cancel(token: UInt64(slot))
        }
    }

    // MARK: Control

    /// A token for a control call whose outcome goes to `reply`.
    func control(_ reply: @escaping (Outcome) -> Void) -> UInt64 {
        let token = nextReply
        nextReply += 1
        replies[token] = reply
        return token
    }

    var isQuiet: Bool {
        inFlight == 0 && work.isEmpty && replies.isEmpty && tiered.isIdle
    }

    /// Whether only what hangs on a silent device is under way: closing does not wait for that.
    /// What had no answer yet gets one.
    func leaveSilent() -> Bool {
        guard store.log.anySilent, work.isEmpty, replies.isEmpty,
            store.isIdleBesideSilent
        else { return false }
        store.leaveSilent()
        publish()
        return true
    }

    /// Answers everything that is still waiting in the inbox.
    func endRest() {
        var rest = engine.shut()
        work.push(&rest.entries) { store.fingerprint($0) }
        endWork(.failed, errno: ESHUTDOWN) { _ in true }
        for lease in rest.leases { store.endLease(lease) }
        for task in rest.tasks { task(self) }
        publish()
    }
}

extension Owner: StoreSink {
    func answered(_ answer: StoreAnswer) {
        let slot = Int(answer.token)
        guard slot < slotCount, let target = slots[slot].target else { return }
        let now = engine.clock.monotonic
        let entry = slots[slot]
        var completion = StoreCompletion(token: entry.token, answer: answer)
        completion.answer.token = entry.token
        completion.queueNanoseconds = entry.started &- entry.submitted
        completion.serviceNanoseconds = now &- entry.started
        if answer.lease >= 0, let arena = store.arena {
            completion.leased = arena.pieces(ResidentSlot(answer.lease))
            completion.leasedAligned = arena.info(ResidentSlot(answer.lease)).aligned
        }
        counts.note(entry.kind, completion)
        if answer.memoryInUse { slots[slot].isAnswered = true }
        deliver(completion, to: target)
        if !answer.memoryInUse { free(slot) }
    }

    func released(_ token: UInt64) {
        let slot = Int(token)
        guard slot < slotCount, let target = slots[slot].target else { return }
        var completion = StoreCompletion(
            token: slots[slot].token, answer: StoreAnswer(token: token, status: .timedOut))
        completion.isRelease = true
        deliver(completion, to: target)
        free(slot)
    }

    func controlled(_ outcome: Outcome) {
        guard let reply = replies.removeValue(forKey: outcome.token) else { return }
        reply(outcome)
    }

    func happened(_ event: StoreEvent) {
        if case .recovered = event { lifecycle.recovered() }
        if case .volatileLost = event { counts.volatileLost += 1 }
        for sink in eventSinks { sink.take(Event(event)) }
    }

    private func free(_ slot: Int) {
        if slots[slot].releases, let target = slots[slot].target { releases.append(target) }
        slots[slot].target = nil
        freeSlots[freeCount] = Int32(slot)
        freeCount += 1
    }
}
