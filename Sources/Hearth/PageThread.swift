// PageThread: a thread that works until it is told to end, is then given one last thing to do, and
// is waited for only so long: what it does may stand still for as long as a file system does, and
// nobody who closes a store is to stand still with it. Left behind, it goes on by itself and ends
// when it can.

import BlockIO
import Glibc

final class PageThread: @unchecked Sendable {
    // Unchecked: what changes is only touched under the lock.
    typealias Work = @Sendable (PageThread) -> Void

    private let name: StaticString
    private let work: Work
    private let lock: UnsafeMutablePointer<pthread_mutex_t>
    private let changed = MonotonicCondition()
    private var last: (@Sendable () -> Void)?
    private var isEnding = false
    private var hasEnded = false

    /// Starts it. Nil: the process may have no more threads.
    init?(_ name: StaticString, _ work: @escaping Work) {
        self.name = name
        self.work = work
        lock = .allocate(capacity: 1)
        pthread_mutex_init(lock, nil)
        let reference = Unmanaged.passRetained(self)
        var made = pthread_t()
        let failure = pthread_create(
            &made, nil,
            { argument in
                if let argument {
                    Unmanaged<PageThread>.fromOpaque(argument).takeRetainedValue().main()
                }
                return nil
            }, reference.toOpaque())
        guard failure == 0 else {
            reference.release()
            return nil
        }
        pthread_detach(made)
    }

    deinit {
        changed.destroy()
        pthread_mutex_destroy(lock)
        lock.deallocate()
    }

    // MARK: The thread

    private func main() {
        OwnerThread.nameThread(name)
        work(self)
        pthread_mutex_lock(lock)
        while !isEnding { changed.wait(lock) }
        let last = last
        self.last = nil
        pthread_mutex_unlock(lock)
        last?()
        pthread_mutex_lock(lock)
        hasEnded = true
        changed.broadcast()
        pthread_mutex_unlock(lock)
    }

    /// On the thread: rests until this monotonic time. False: it is to end.
    func rest(until deadline: UInt64) -> Bool {
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        while !isEnding, changed.wait(lock, until: deadline) {}
        return !isEnding
    }

    // MARK: Anybody else

    /// Tells it to end, with `last` as the last thing that it does, and waits for that. False: it
    /// was not through after so long; it still will be.
    func end(within nanoseconds: UInt64, last: @escaping @Sendable () -> Void) -> Bool {
        let deadline = SystemClock().monotonic &+ nanoseconds
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        self.last = last
        isEnding = true
        changed.broadcast()
        while !hasEnded, changed.wait(lock, until: deadline) {}
        return hasEnded
    }
}
