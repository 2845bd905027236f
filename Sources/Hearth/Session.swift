// Session: the allocation-free way in and out, under the async API and a C ABI: submit a batch of
// operations, poll for their completions. Any thread may do either. The ring of completions is made
// once; at most `capacity` operations are under way, each with at most two completions, so it never
// overflows.

import BlockIO
import Glibc
import Staging
import Synchronization

package final class Session: CompletionTarget, @unchecked Sendable {
    // Unchecked: `gathered` is the owner thread's; the ring is only touched under `lock`; the rest
    // never changes or is atomic.
    package let engine: Engine
    let shared: SharedStore
    package let capacity: Int

    private let ring: UnsafeMutablePointer<StoreCompletion>
    private let ringMask: Int
    private var head = 0
    private var tail = 0
    private var waiters = 0
    private let gathered: UnsafeMutablePointer<StoreCompletion>
    private var gatheredCount = 0
    private let outstanding = Atomic<Int>(0)
    private let lock: UnsafeMutablePointer<pthread_mutex_t>
    private let ready = MonotonicCondition()

    init(engine: Engine, shared: SharedStore, capacity: Int) {
        precondition(capacity > 0 && capacity <= 1 << 20, "a session needs a capacity")
        self.engine = engine
        self.shared = shared
        self.capacity = capacity
        var size = 2
        while size < 2 * capacity { size <<= 1 }
        ringMask = size - 1
        ring = .allocate(capacity: size)
        gathered = .allocate(capacity: size)
        lock = .allocate(capacity: 1)
        pthread_mutex_init(lock, nil)
    }

    deinit {
        // Each submission holds a reference, so nothing is under way here.
        ready.destroy()
        pthread_mutex_destroy(lock)
        lock.deallocate()
        gathered.deallocate()
        ring.deallocate()
    }

    /// Operations under way or not yet polled.
    package var count: Int { outstanding.load(ordering: .relaxed) }

    /// Takes as many operations as there is room for, from the front, and returns how many: fewer
    /// when `capacity` are under way, none when the store is closed. What the operations point to
    /// stays as it is until their last completion.
    package func submit(_ operations: UnsafeBufferPointer<StoreOperation>) -> Int {
        var taken = 0
        var seen = outstanding.load(ordering: .relaxed)
        while true {
            taken = min(operations.count, capacity - seen)
            guard taken > 0 else { return 0 }
            let (exchanged, original) = outstanding.compareExchange(
                expected: seen, desired: seen + taken, ordering: .relaxed)
            if exchanged { break }
            seen = original
        }
        let part = UnsafeBufferPointer(rebasing: operations[..<taken])
        if engine.submit(part, to: self, retainEach: true) { return taken }
        outstanding.subtract(taken, ordering: .relaxed)
        return 0
    }

    /// Takes completions, oldest first. With `nanoseconds` above 0 waits up to that long (`.max`:
    /// without bound) for the first one. Returns how many were written.
    package func poll(
        into: UnsafeMutableBufferPointer<StoreCompletion>, wait nanoseconds: UInt64 = 0
    ) -> Int {
        guard let target = into.baseAddress, into.count > 0 else { return 0 }
        pthread_mutex_lock(lock)
        if head == tail && nanoseconds > 0 { sleep(nanoseconds) }
        let count = min(tail - head, into.count)
        var finals = 0
        for index in 0..<count {
            let completion = ring[(head + index) & ringMask]
            if completion.isFinal { finals += 1 }
            target.advanced(by: index).initialize(to: completion)
        }
        head += count
        pthread_mutex_unlock(lock)
        if finals > 0 { outstanding.subtract(finals, ordering: .relaxed) }
        return count
    }

    /// Asks for operations to be given up, by their tokens; their completions still come. The owner
    /// gets to it later: a token of the range that is used again meanwhile is given up as well.
    package func cancel(_ tokens: ClosedRange<UInt64>) {
        engine.cancel(ObjectIdentifier(self), tokens)
    }

    /// Gives back a lease that a completion told of.
    package func endLease(_ lease: Int32) { engine.endLease(lease) }

    private func sleep(_ nanoseconds: UInt64) {
        let (sum, overflow) = engine.clock.monotonic.addingReportingOverflow(nanoseconds)
        let end = overflow ? UInt64.max : sum
        waiters += 1
        while head == tail, ready.wait(lock, until: end) {}
        waiters -= 1
    }

    // MARK: Owner thread

    override func complete(_ completion: StoreCompletion) {
        gathered.advanced(by: gatheredCount).initialize(to: completion)
        gatheredCount += 1
    }

    override func publish() -> Bool {
        guard gatheredCount > 0 else { return false }
        pthread_mutex_lock(lock)
        for index in 0..<gatheredCount {
            ring.advanced(by: (tail + index) & ringMask).initialize(to: gathered[index])
        }
        tail += gatheredCount
        let wake = waiters > 0
        pthread_mutex_unlock(lock)
        gatheredCount = 0
        if wake { ready.broadcast() }
        return false
    }
}
