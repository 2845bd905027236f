// Blocking: waits on this thread for what the store offers as async calls. For opening, closing and
// asking, never inside a measured loop; and only on threads of our own, not on those of the pool.

import BenchKit
import Dispatch
import Hearth
import Synchronization

private final class Reply<Value: Sendable>: Sendable {
    let value = Mutex<Result<Value, HearthError>?>(nil)
    let ready = DispatchSemaphore(value: 0)
}

func blocking<Value: Sendable>(
    _ body: @escaping @Sendable () async throws(HearthError) -> Value
) throws(BenchError) -> Value {
    let reply = Reply<Value>()
    Task.detached {
        let result: Result<Value, HearthError>
        do throws(HearthError) {
            result = .success(try await body())
        } catch {
            result = .failure(error)
        }
        reply.value.withLock { $0 = result }
        reply.ready.signal()
    }
    reply.ready.wait()
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
