// Queue: operations in, completions out. A caller's operations take slots and go to the owner
// thread; their completions come back through a ring that only the owner writes and callers read
// under the lock. What is decided on the caller's own thread (resident blocks, operations that are
// not right) goes to a second ring, under the lock.
//
// Invariants: `used` counts slots and completions of the second ring, never above `capacity`; an
// operation has at most two completions, so that neither ring overflows; a slot is free again when
// its last completion has been taken; the owner takes the lock only to wake somebody who sleeps,
// or to hand completions to a callback.

import BlockIO
import CHearth
import CPlatform
import Glibc
import Hearth
import Staging
import Synchronization

/// A completion in a ring, and the slot that is free when it has been taken, -1 for none.
struct Arrival {
    var completion: hearth_completion
    var slot: Int32
}

/// An operation under way, or not yet told of.
struct Slot {
    var tag: UInt64 = 0
    /// Its number among all that were submitted.
    var sequence: UInt64 = 0
    var buffer: Int32 = -1
    var next: Int32 = -1
    var isUsed = false
    var pieceCount: Int32 = 0
    var pieces: UnsafePointer<Piece>?
    // What a lease asked for.
    var firstShard: UInt32 = 0
    var shardCount: UInt32 = 0
    var byteOffset: UInt64 = 0
    var byteCount: UInt64 = 0
}

final class Queue: @unchecked Sendable {
    // Unchecked: `slots`, the second ring, `head`, `used`, `memory` and `scratch` are only touched
    // under `lock` (a used slot is read by the owner without it: it was written before the
    // operation was pushed, and is not written again until its last completion has been taken);
    // `ownTail` and `finals` are the owner's; everything else is constant or atomic.
    enum Phase: Int {
        case open
        /// Its handle was given back.
        case closing
        case storeClosing
        case closed
    }

    let store: OpenStore
    let capacity: Int
    let callback: hearth_callback?
    let context: UnsafeMutableRawPointer?

    let lock: UnsafeMutablePointer<pthread_mutex_t>
    private let ready = MonotonicCondition()
    /// Threads that sleep on `ready`.
    private let waiters = Atomic<Int>(0)
    private let phaseWord = Atomic<Int>(Phase.open.rawValue)
    /// Operations that the owner has and, with a callback, completions not handed to it yet.
    let underWay = Atomic<Int>(0)
    private let eventDescriptor = Atomic<Int32>(-1)

    let slots: UnsafeMutablePointer<Slot>
    var freeSlot: Int32 = 0
    var used = 0
    private var sequence: UInt64 = 0
    /// Calls of submit between taking room and having handed over.
    var submitting = 0
    var memory = MessageMemory()
    var scratch: [Scratch] = []

    private let ring: UnsafeMutablePointer<Arrival>
    private let ringMask: Int
    private var head = 0
    private let tail = Atomic<Int>(0)
    private var ownTail = 0
    /// Final completions since the last publication. Owner thread.
    private var finals = 0

    private let local: UnsafeMutablePointer<Arrival>
    private let localMask: Int
    private var localHead = 0
    private var localTail = 0

    private var made: CallbackTarget?

    init(
        _ store: OpenStore, capacity: Int, callback: hearth_callback?,
        context: UnsafeMutableRawPointer?
    ) {
        self.store = store
        self.capacity = capacity
        self.callback = callback
        self.context = context
        var size = 2
        while size < 2 * capacity { size <<= 1 }
        ringMask = size - 1
        ring = .allocate(capacity: size)
        localMask = size / 2 - 1
        local = .allocate(capacity: size / 2)
        slots = .allocate(capacity: capacity)
        slots.initialize(repeating: Slot(), count: capacity)
        for index in 0..<capacity {
            slots[index].next = index + 1 < capacity ? Int32(index + 1) : -1
        }
        lock = .allocate(capacity: 1)
        pthread_mutex_init(lock, nil)
        made = CallbackTarget(
            store.store, take: { [unowned self] in take($0) },
            taken: { [unowned self] in publish() })
    }

    deinit {
        // Whoever has the handle, a call or an operation under way holds the queue: nobody does.
        closeDescriptor()
        ready.destroy()
        pthread_mutex_destroy(lock)
        lock.deallocate()
        slots.deallocate()
        local.deallocate()
        ring.deallocate()
    }

    var target: CallbackTarget {
        guard let made else { preconditionFailure("a queue has its target from its making on") }
        return made
    }

    var phase: Phase { Phase(rawValue: phaseWord.load(ordering: .acquiring)) ?? .closed }

    /// Refuses once the queue or its store has begun to close.
    func checkOpen() throws(Failure) {
        switch phase {
        case .open: return
        case .closing: throw Failure(HEARTH_E_CLOSED, "The queue was closed by another thread.")
        case .storeClosing, .closed: throw .closed
        }
    }

    // MARK: Under the lock

    /// Adds a completion that was made on this thread.
    func addLocal(_ completion: hearth_completion) {
        local.advanced(by: localTail & localMask).initialize(
            to: Arrival(completion: completion, slot: -1))
        localTail += 1
    }

    func takeSlot() -> Int32 {
        let slot = freeSlot
        freeSlot = slots[Int(slot)].next
        slots[Int(slot)].isUsed = true
        sequence += 1
        slots[Int(slot)].sequence = sequence
        return slot
    }

    func giveSlot(_ slot: Int32) {
        memory.release(slots[Int(slot)].buffer)
        slots[Int(slot)].isUsed = false
        slots[Int(slot)].buffer = -1
        slots[Int(slot)].pieces = nil
        slots[Int(slot)].next = freeSlot
        freeSlot = slot
    }

    private var waiting: Int {
        tail.load(ordering: .sequentiallyConsistent) - head + localTail - localHead
    }

    /// Moves up to `room` completions out of the rings, and frees what they held.
    private func takeArrivals(_ room: Int, _ each: (hearth_completion) -> Void) -> Int {
        var taken = 0
        while taken < room, localHead < localTail {
            each(local[localHead & localMask].completion)
            localHead += 1
            used -= 1
            taken += 1
        }
        let end = tail.load(ordering: .acquiring)
        while taken < room, head < end {
            let arrival = ring[head & ringMask]
            each(arrival.completion)
            head += 1
            if arrival.slot >= 0 {
                giveSlot(arrival.slot)
                used -= 1
            }
            taken += 1
        }
        return taken
    }

    // MARK: Polling

    func poll(
        _ into: UnsafeMutablePointer<hearth_completion>, room: Int, timeout: UInt64
    ) throws(Failure) -> Int {
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        if waiting == 0 && timeout > 0 && phase == .open { sleep(timeout) }
        if phase != .open { try checkOpen() }
        var count = 0
        count = takeArrivals(room) {
            into.advanced(by: count).initialize(to: $0)
            count += 1
        }
        settleDescriptor()
        return count
    }

    /// Until something waits, the time is over, or the queue closes.
    private func sleep(_ nanoseconds: UInt64) {
        let (sum, overflow) = store.store.monotonicNanoseconds.addingReportingOverflow(nanoseconds)
        let end = overflow ? UInt64.max : sum
        waiters.add(1, ordering: .sequentiallyConsistent)
        while waiting == 0, phase == .open, ready.wait(lock, until: end) {}
        waiters.subtract(1, ordering: .sequentiallyConsistent)
    }

    /// Sleeps until the condition, which is looked at under the lock, holds.
    private func sleep(until condition: () -> Bool) {
        pthread_mutex_lock(lock)
        waiters.add(1, ordering: .sequentiallyConsistent)
        while !condition() { ready.wait(lock) }
        waiters.subtract(1, ordering: .sequentiallyConsistent)
        pthread_mutex_unlock(lock)
    }

    /// Wakes those who sleep, if any. Not under the lock.
    private func wake() {
        guard waiters.load(ordering: .sequentiallyConsistent) > 0 else { return }
        pthread_mutex_lock(lock)
        ready.broadcast()
        pthread_mutex_unlock(lock)
    }

    /// Tells of completions that were added on this thread. Not under the lock.
    func announceLocal() {
        guard let callback else {
            // Under the lock, under which whoever closes the descriptor does.
            pthread_mutex_lock(lock)
            signalDescriptor()
            pthread_mutex_unlock(lock)
            return wake()
        }
        let isTaken = store.store.perform { [self] in
            callBack(callback)
            wake()
        }
        if !isTaken {
            // Closed: nobody calls back any more.
            pthread_mutex_lock(lock)
            let before = used
            _ = takeArrivals(Int.max) { _ in }
            underWay.subtract(before - used, ordering: .sequentiallyConsistent)
            pthread_mutex_unlock(lock)
            wake()
        }
    }

    // MARK: The event descriptor

    func descriptor() throws(Failure) -> Int32 {
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        try checkOpen()
        let known = eventDescriptor.load(ordering: .relaxed)
        if known >= 0 { return known }
        let new = hearth_eventfd(1)
        guard new >= 0 else {
            throw Failure(
                HEARTH_E_RESOURCE, "eventfd: errno \(errno): raise the limit of open descriptors.")
        }
        eventDescriptor.store(new, ordering: .sequentiallyConsistent)
        if waiting > 0 { signalDescriptor() }
        return new
    }

    private func signalDescriptor() {
        let descriptor = eventDescriptor.load(ordering: .sequentiallyConsistent)
        guard descriptor >= 0 else { return }
        var one: UInt64 = 1
        _ = Glibc.write(descriptor, &one, 8)
    }

    /// After a poll: readable if something is left, else not. Under the lock.
    private func settleDescriptor() {
        let descriptor = eventDescriptor.load(ordering: .relaxed)
        guard descriptor >= 0 else { return }
        if waiting == 0 {
            var count: UInt64 = 0
            _ = Glibc.read(descriptor, &count, 8)
        }
        // Something may have come between looking and reading; its signal is read away then.
        if waiting > 0 { signalDescriptor() }
    }

    private func closeDescriptor() {
        let descriptor = eventDescriptor.exchange(-1, ordering: .sequentiallyConsistent)
        if descriptor >= 0 { _ = Glibc.close(descriptor) }
    }

    // MARK: Closing

    func close() {
        phaseWord.store(Phase.closing.rawValue, ordering: .sequentiallyConsistent)
        wake()
        // A submission that was under way has handed over before the cancel is.
        waitForSubmissions()
        cancel(first: 0, last: UInt64.max)
        sleep { underWay.load(ordering: .sequentiallyConsistent) == 0 }
        pthread_mutex_lock(lock)
        _ = takeArrivals(Int.max) { completion in
            guard completion.lease != 0, let held = try? store.leases.remove(completion.lease)
            else { return }
            store.store.engine.endLease(held.view.slot)
        }
        closeDescriptor()
        pthread_mutex_unlock(lock)
    }

    func storeIsClosing() {
        _ = phaseWord.compareExchange(
            expected: Phase.open.rawValue, desired: Phase.storeClosing.rawValue,
            ordering: .sequentiallyConsistent)
        wake()
    }

    func storeIsClosed() {
        pthread_mutex_lock(lock)
        phaseWord.store(Phase.closed.rawValue, ordering: .sequentiallyConsistent)
        closeDescriptor()
        ready.broadcast()
        pthread_mutex_unlock(lock)
    }

    /// Returns when no call of submit is between taking room and having handed over.
    func waitForSubmissions() { sleep { submitting == 0 } }

    func submissionEnded() { wake() }

    /// Whether an operation under way, or one not yet polled, names the region.
    func uses(_ region: UInt32) -> Bool {
        waitForSubmissions()
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        for index in 0..<capacity where slots[index].isUsed {
            guard let pieces = slots[index].pieces else { continue }
            for piece in 0..<Int(slots[index].pieceCount)
            where UInt32(pieces[piece].region.raw) == region { return true }
        }
        return false
    }

    func cancel(first: UInt64, last: UInt64) {
        guard first <= last else { return }
        // The owner gets to it later, and may have taken more operations by then.
        pthread_mutex_lock(lock)
        let submitted = sequence
        pthread_mutex_unlock(lock)
        target.cancel { [self] in slotRanges(first...last, submitted) }
    }

    /// Slots in use whose tags are within, of operations up to the number; as few ranges, since
    /// free slots between them do no harm.
    private func slotRanges(
        _ tags: ClosedRange<UInt64>, _ submitted: UInt64
    ) -> [ClosedRange<UInt64>] {
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        var ranges: [ClosedRange<UInt64>] = []
        var start = -1
        var end = -1
        for index in 0..<capacity where slots[index].isUsed {
            if tags.contains(slots[index].tag), slots[index].sequence <= submitted {
                if start < 0 { start = index }
                end = index
            } else if start >= 0 {
                ranges.append(UInt64(start)...UInt64(end))
                start = -1
            }
        }
        if start >= 0 { ranges.append(UInt64(start)...UInt64(end)) }
        return ranges
    }

    // MARK: Owner thread

    private func take(_ completion: StoreCompletion) {
        let slot = Int(completion.token)
        var made = hearth_completion(completion, tag: slots[slot].tag)
        if completion.answer.lease >= 0 {
            made.lease = store.leases.add(
                LeaseTable.Held(
                    view: LeaseView(completion), firstShard: Int(slots[slot].firstShard),
                    shardCount: Int(slots[slot].shardCount), byteOffset: slots[slot].byteOffset,
                    byteCount: slots[slot].byteCount))
        }
        ring.advanced(by: ownTail & ringMask).initialize(
            to: Arrival(completion: made, slot: completion.isFinal ? Int32(slot) : -1))
        ownTail += 1
        if completion.isFinal { finals += 1 }
    }

    private func publish() {
        tail.store(ownTail, ordering: .sequentiallyConsistent)
        let ended = finals
        finals = 0
        if let callback {
            callBack(callback)
        } else {
            signalDescriptor()
            if ended > 0 { underWay.subtract(ended, ordering: .sequentiallyConsistent) }
        }
        wake()
    }

    /// Hands what waits now to the callback, in parts; slots are free before it is called, so that
    /// it may submit. What it submits is told of in a later turn, even if it is decided at once:
    /// the store's thread has other work.
    private func callBack(_ callback: hearth_callback) {
        let part = 64
        withUnsafeTemporaryAllocation(of: hearth_completion.self, capacity: part) { room in
            guard let base = room.baseAddress else { return }
            var left = Int.max
            while left > 0 {
                pthread_mutex_lock(lock)
                left = min(left, waiting)
                let before = used
                var count = 0
                count = takeArrivals(min(part, left)) {
                    base.advanced(by: count).initialize(to: $0)
                    count += 1
                }
                let ended = before - used
                pthread_mutex_unlock(lock)
                if count == 0 { return }
                left -= count
                let number = hearth_thread_number()
                number?.pointee += 1
                callback(context, base, UInt32(count))
                number?.pointee -= 1
                if ended > 0 { underWay.subtract(ended, ordering: .sequentiallyConsistent) }
            }
        }
    }
}

extension hearth_completion {
    init(_ completion: StoreCompletion, tag: UInt64) {
        self.init(completion.answer, tag: tag)
        queue_ns = completion.queueNanoseconds
        service_ns = completion.serviceNanoseconds
        if completion.isRelease { flags = UInt8(HEARTH_RELEASE) }
    }

    /// The core's numbers of status, reason and tier are the header's; a test holds them to it.
    init(_ answer: StoreAnswer, tag: UInt64) {
        self.init()
        self.tag = tag
        status = answer.status.rawValue
        reason = answer.reason.rawValue
        tier = answer.tier.rawValue
        flags = answer.memoryInUse ? UInt8(HEARTH_MEMORY_IN_USE) : 0
        system_error = answer.errno
        version = answer.version
        length = UInt64(answer.length)
        delivered = answer.delivered
        shard_count = UInt32(clamping: answer.shardCount)
        retry_ns = answer.retryNanoseconds
    }
}
