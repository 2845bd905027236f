// Engine: what callers and the owner thread share. Callers push operations into the inbox, a
// mutex-guarded array that the owner takes whole, and wake the owner only if it sleeps. Everything
// else that changes the store is a closure that the owner runs.

import BlockIO
import Glibc
import LogStore
import SegmentFormat
import Staging
import Synchronization

/// An operation on its way to the owner, and where its answer goes.
struct InboxEntry: @unchecked Sendable {
    // Unchecked: see StoreOperation; the target is a Sendable class.
    var operation: StoreOperation
    var target: Unmanaged<CompletionTarget>
    /// Whether each answer lets go of one reference of the target.
    var releases: Bool
    /// Instance of the namespace meant, 0 for whatever is in the slot.
    var instance: UInt64
    var submitted: UInt64
}

package final class Engine: Sendable {
    typealias Task = @Sendable (Owner) -> Void

    struct Inbox {
        var entries: [InboxEntry] = []
        var tasks: [Task] = []
        var leases: [Int32] = []
        var isClosed = false
        var isEmpty: Bool { entries.isEmpty && tasks.isEmpty && leases.isEmpty }
    }

    /// Sendable: of the driver only `wake` is called, which any thread may.
    private struct Waker: @unchecked Sendable {
        let driver: any BlockDriver
    }

    package let clock = SystemClock()
    let inbox = Mutex(Inbox())
    let hints = HintQueue()
    /// Something was pushed since the owner last took the inbox.
    private let pushed = Atomic<Bool>(false)
    private let sleeping = Atomic<Bool>(false)
    private let waker = Mutex<Waker?>(nil)
    /// How often the owner went to sleep, and how often it took what was pushed; it alone counts.
    private let rests = Atomic<UInt64>(0)
    private let takes = Atomic<UInt64>(0)

    // MARK: Any thread

    /// Pushes a batch. False when the store is closed: nothing was taken. With `retainEach` every
    /// operation holds the target until its last completion; otherwise one reference is held, until
    /// the target's `publish` says that no more comes.
    func submit(
        _ operations: UnsafeBufferPointer<StoreOperation>, to target: CompletionTarget,
        retainEach: Bool = false, instance: UInt64 = 0
    ) -> Bool {
        let now = clock.monotonic
        // Neither is Sendable; the closure runs on this thread before we return.
        nonisolated(unsafe) let operations = operations
        let taken = inbox.withLock { inbox in
            guard !inbox.isClosed else { return false }
            for operation in operations {
                let reference =
                    retainEach ? Unmanaged.passRetained(target) : Unmanaged.passUnretained(target)
                inbox.entries.append(
                    InboxEntry(
                        operation: operation, target: reference, releases: retainEach,
                        instance: instance, submitted: now))
            }
            if !retainEach { _ = Unmanaged.passRetained(target) }
            return true
        }
        if taken { ring() }
        return taken
    }

    /// Runs a closure on the owner thread, after what was pushed before. False: closed.
    func perform(_ task: @escaping Task) -> Bool {
        let taken = inbox.withLock { inbox in
            guard !inbox.isClosed else { return false }
            inbox.tasks.append(task)
            return true
        }
        if taken { ring() }
        return taken
    }

    /// Asks the owner something that it answers through a callback, now or later. Nil: closed.
    func ask<Answer: Sendable>(
        _ body: @escaping @Sendable (Owner, @escaping @Sendable (Answer) -> Void) -> Void
    ) async -> Answer? {
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Answer?, Never>) in
            let taken = perform { owner in body(owner) { continuation.resume(returning: $0) } }
            if !taken { continuation.resume(returning: nil) }
        }
    }

    package func endLease(_ lease: Int32) {
        let taken = inbox.withLock { inbox in
            guard !inbox.isClosed else { return false }
            inbox.leases.append(lease)
            return true
        }
        if taken { ring() }
    }

    package func cancel(_ target: ObjectIdentifier, _ tokens: ClosedRange<UInt64>) {
        _ = perform { owner in owner.cancel(target, tokens) }
    }

    /// How far the owner has come, and whether it sleeps. Two equal answers of a sleeping owner:
    /// it slept all the while between them.
    var progress: (rests: UInt64, takes: UInt64, isAsleep: Bool) {
        let rests = self.rests.load(ordering: .relaxed)
        let takes = self.takes.load(ordering: .relaxed)
        return (rests, takes, sleeping.load(ordering: .sequentiallyConsistent))
    }

    func ring() {
        pushed.store(true, ordering: .sequentiallyConsistent)
        guard sleeping.load(ordering: .sequentiallyConsistent),
            sleeping.exchange(false, ordering: .sequentiallyConsistent)
        else { return }
        waker.withLock { $0?.driver.wake() }
    }

    // MARK: Owner thread

    func setDriver(_ driver: (any BlockDriver)?) {
        let made = driver.map(Waker.init(driver:))
        waker.withLock { $0 = made }
    }

    /// Takes what was pushed, in exchange for empty arrays that keep their room.
    func take(_ other: inout Inbox) -> Bool {
        guard pushed.exchange(false, ordering: .sequentiallyConsistent) else { return false }
        takes.store(takes.load(ordering: .relaxed) &+ 1, ordering: .relaxed)
        var mine = other
        other = Inbox()
        inbox.withLock { inbox in
            swap(&inbox.entries, &mine.entries)
            swap(&inbox.tasks, &mine.tasks)
            swap(&inbox.leases, &mine.leases)
        }
        other = mine
        return true
    }

    /// Sleeps in the driver until something comes, unless something came already.
    func sleep(_ driver: any BlockDriver, until deadline: UInt64) {
        rests.store(rests.load(ordering: .relaxed) &+ 1, ordering: .relaxed)
        sleeping.store(true, ordering: .sequentiallyConsistent)
        if !pushed.load(ordering: .sequentiallyConsistent) { driver.wait(until: deadline) }
        sleeping.store(false, ordering: .sequentiallyConsistent)
    }

    /// Takes nothing from here on; returns what was still in the inbox.
    func shut() -> Inbox {
        inbox.withLock { inbox in
            inbox.isClosed = true
            hints.close()
            let rest = inbox
            inbox.entries = []
            inbox.tasks = []
            inbox.leases = []
            return rest
        }
    }
}
