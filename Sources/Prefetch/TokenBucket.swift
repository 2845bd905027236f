// TokenBucket: bytes that may go, at a rate that changes with what the device is measured to give.
// A taker may overdraw it by one block, since blocks are whole, and waits until that is paid back.

package struct TokenBucket: Sendable {
    package private(set) var tokens: Double
    package let limit: Double
    private var filled: UInt64 = 0

    package init(burstBytes: Int) {
        limit = Double(burstBytes)
        tokens = limit
    }

    /// Adds what has come since the last call.
    package mutating func fill(bytesPerSecond: Double, now: UInt64) {
        if now > filled {
            let seconds = Double(now - filled) * 1e-9
            tokens = min(limit, tokens + bytesPerSecond * min(seconds, 3600))
        }
        filled = max(filled, now)
    }

    package var isEmpty: Bool { tokens <= 0 }

    package mutating func take(_ bytes: Int) { tokens -= Double(bytes) }

    /// Nanoseconds until there is something to take.
    package func wait(bytesPerSecond: Double) -> UInt64 {
        guard tokens <= 0, bytesPerSecond > 0 else { return 0 }
        return UInt64(min(-tokens / bytesPerSecond * 1e9 + 1, 1e9))
    }
}
