// Blocking: waits on this thread for what the store offers as async calls, and runs them on this
// very thread while it waits: so it needs no thread of the pool, and may itself be called on one.
// For opening, closing and asking, never inside a measured loop.

import BenchKit
import Dispatch
import Hearth
import Synchronization

/// Runs the jobs of one call on the thread that waits for it.
private final class WaitingThread: TaskExecutor {
    private let jobs = Mutex<[UnownedJob]>([])
    private let ready = DispatchSemaphore(value: 0)

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        jobs.withLock { $0.append(job) }
        ready.signal()
    }

    /// The call has its answer.
    func end() { ready.signal() }

    func run(until isOver: () -> Bool) {
        while !isOver() {
            ready.wait()
            let job = jobs.withLock { $0.isEmpty ? nil : $0.removeFirst() }
            job?.runSynchronously(on: asUnownedTaskExecutor())
        }
    }
}

private final class Reply<Value: Sendable>: Sendable {
    let value = Mutex<Result<Value, HearthError>?>(nil)
}

func blocking<Value: Sendable>(
    _ body: @escaping @Sendable () async throws(HearthError) -> Value
) throws(BenchError) -> Value {
    let reply = Reply<Value>()
    let thread = WaitingThread()
    Task.detached(executorPreference: thread) {
        let result: Result<Value, HearthError>
        do throws(HearthError) {
            result = .success(try await body())
        } catch {
            result = .failure(error)
        }
        reply.value.withLock { $0 = result }
        thread.end()
    }
    thread.run { reply.value.withLock { $0 != nil } }
    switch reply.value.withLock({ $0 }) {
    case .success(let value): return value
    case .failure(let error): throw BenchError(error)
    case nil: throw BenchError("a call of the store ended without an answer")
    }
}

/// The same where nothing can fail.
func blockingAlways<Value: Sendable>(_ body: @escaping @Sendable () async -> Value) -> Value? {
    try? blocking { () async throws(HearthError) in await body() }
}

extension BenchError {
    init(_ error: HearthError) {
        self.init(error.description, code: error.errno)
    }
}
