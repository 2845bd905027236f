// Owner: the thread that owns a store. It makes the driver, opens the store, and then turns in a
// loop: take what callers pushed, hand it to the store, pump, publish the answers, sleep when there
// was nothing to do. It is the only one that touches the store's state machine.
//
// Invariants: each operation taken from the inbox is answered exactly once, when the store closes
// too; operations start in the order in which they were pushed; a target is published at most once
// a turn.

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
    /// Taken and not yet started, from `workHead` on.
    @exclusivity(unchecked) private var work: [InboxEntry] = []
    @exclusivity(unchecked) private var workHead = 0
    /// The earliest deadline in `work`.
    @exclusivity(unchecked) private var workDeadline = UInt64.max
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
            busy = startWork() || busy
            busy = applyHints() || busy
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
        var until = min(tiered.nextDeadline, workDeadline)
        if inFlight > 0 || workHead < work.count || !replies.isEmpty || !tiered.isIdle {
            until = min(until, engine.clock.monotonic + Self.longestSleep)
        }
        engine.sleep(driver, until: until)
    }

    private func takeInbox() -> Bool {
        guard engine.take(&taken) else { return false }
        if workHead == work.count {
            workHead = 0
            work.removeAll(keepingCapacity: true)
            swap(&work, &taken.entries)
        } else {
            work.append(contentsOf: taken.entries)
        }
        noteDeadlines()
        for lease in taken.leases { store.endLease(lease) }
        for task in taken.tasks { task(self) }
        taken.entries.removeAll(keepingCapacity: true)
        taken.tasks.removeAll(keepingCapacity: true)
        taken.leases.removeAll(keepingCapacity: true)
        return true
    }

    private func noteDeadlines() {
        workDeadline = UInt64.max
        for index in workHead..<work.count where work[index].operation.deadline > 0 {
            if work[index].operation.kind != .pin {
                workDeadline = min(workDeadline, work[index].operation.deadline)
            }
        }
    }

    /// Hands waiting operations to the store, in order, until it has no room.
    private func startWork() -> Bool {
        guard workHead < work.count else { return false }
        let now = engine.clock.monotonic
        var started = false
        while workHead < work.count, freeCount > 0 {
            let count = startSome(min(Self.lookAhead, work.count - workHead, freeCount), now)
            if count == 0 { break }
            workHead += count
            started = true
        }
        if workHead == work.count {
            workDeadline = UInt64.max
        } else if now >= workDeadline {
            endWork(.timedOut) { $0.deadline > 0 && $0.kind != .pin && now >= $0.deadline }
            noteDeadlines()
        }
        return started
    }

    /// Operations whose lookups are begun together: the index is large and read at random, so a
    /// lookup alone is two or three misses of cache and page table one after the other.
    private static let lookAhead = 16

    /// Starts so many waiting operations, or until the store has no room; returns how many.
    private func startSome(_ count: Int, _ now: UInt64) -> Int {
        withUnsafeTemporaryAllocation(of: Fingerprint.self, capacity: count) { fingerprints in
            for index in 0..<count {
                let fingerprint = store.fingerprint(work[workHead + index].operation)
                fingerprints.initializeElement(at: index, to: fingerprint)
                store.prefetch(fingerprint)
            }
            for fingerprint in fingerprints { store.prefetchNext(fingerprint) }
            for index in 0..<count where !start(workHead + index, fingerprints[index], now) {
                return index
            }
            return count
        }
    }

    /// False when the store has no room for it now.
    private func start(_ index: Int, _ fingerprint: Fingerprint, _ now: UInt64) -> Bool {
        let entry = work[index]
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
        operation.continues = continues(index)
        if tiered.submit(operation, fingerprint) { return true }
        freeSlots[freeCount] = slot
        freeCount += 1
        return false
    }

    /// Whether the operation's key follows, in its chain, the one before: they came in one batch.
    private func continues(_ index: Int) -> Bool {
        guard index > workHead else { return false }
        let (entry, before) = (work[index], work[index - 1])
        return entry.submitted == before.submitted && entry.operation.kind == before.operation.kind
            && entry.operation.namespaceSlot == before.operation.namespaceSlot
            && entry.target.toOpaque() == before.target.toOpaque()
    }

    /// Answers waiting operations that match, without starting them.
    private func endWork(
        _ status: Status, errno: Int32 = 0, where matches: (StoreOperation) -> Bool
    ) {
        var kept: [InboxEntry] = []
        for index in workHead..<work.count {
            let entry = work[index]
            guard matches(entry.operation) else {
                kept.append(entry)
                continue
            }
            var answer = StoreAnswer(token: entry.operation.token, status: status)
            answer.errno = errno
            deliver(
                StoreCompletion(token: entry.operation.token, answer: answer), to: entry.target)
            if entry.releases { releases.append(entry.target) }
        }
        work = kept
        workHead = 0
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
        var index = workHead
        var kept: [InboxEntry] = []
        while index < work.count {
            let entry = work[index]
            index += 1
            guard isMeant(entry.target, entry.operation.token) else {
                kept.append(entry)
                continue
            }
            deliver(
                StoreCompletion(
                    token: entry.operation.token,
                    answer: StoreAnswer(token: entry.operation.token, status: .cancelled)),
                to: entry.target)
            if entry.releases { releases.append(entry.target) }
        }
        work = kept
        workHead = 0
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
        inFlight == 0 && workHead == work.count && replies.isEmpty && tiered.isIdle
    }

    /// Whether only what hangs on a silent device is under way: closing does not wait for that.
    /// What had no answer yet gets one.
    func leaveSilent() -> Bool {
        guard store.log.anySilent, workHead == work.count, replies.isEmpty,
            store.isIdleBesideSilent
        else { return false }
        store.leaveSilent()
        publish()
        return true
    }

    /// Answers everything that is still waiting in the inbox.
    func endRest() {
        let rest = engine.shut()
        work.append(contentsOf: rest.entries)
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
