// ResidentBatch: reads of resident blocks on the caller's thread, many at a time: the time is asked
// for once, and touches and counts are handed over once, when the batch ends. For one caller at a
// time.

import BlockIO
import LogStore
import Staging

package final class ResidentBatch {
    /// Reads whose touches are kept before they are handed over.
    private static let most = 128

    private let session: Session
    private let touched: UnsafeMutablePointer<StagingKey>
    private var count = 0
    private var bytes = 0
    private var start: UInt64 = 0
    private var wallSeconds: UInt32 = 0

    package init(_ session: Session) {
        self.session = session
        touched = .allocate(capacity: Self.most)
    }

    deinit { touched.deallocate() }

    package func begin() {
        start = session.engine.clock.monotonic
        wallSeconds = session.engine.clock.wallSeconds
    }

    /// Serves a cached get as `Session.copyResident` does. Nil: submit it.
    package func copy(_ operation: StoreOperation, in namespace: Namespace) -> StoreAnswer? {
        guard
            let (answer, key) = session.residentAnswer(operation, in: namespace, now: wallSeconds)
        else { return nil }
        touched.advanced(by: count).initialize(to: key)
        count += 1
        bytes += Int(answer.delivered)
        if count == Self.most { handOver() }
        return answer
    }

    package func end() { if count > 0 { handOver() } }

    private func handOver() {
        session.shared.touches.push(UnsafeBufferPointer(start: touched, count: count))
        let now = session.engine.clock.monotonic
        session.shared.noteHits(count, bytes: bytes, nanoseconds: now - start)
        start = now
        count = 0
        bytes = 0
    }
}
