// BandwidthMeter: what the devices have been seen to give to reads. The rate over windows of some
// milliseconds; a window in which the device had little to do tells nothing, so what counts is the
// most that was seen, and that fades slowly.

package struct BandwidthMeter: Sendable {
    /// Windows are at least so long, nanoseconds.
    private static let window: UInt64 = 10_000_000
    /// What a window that saw less leaves of the estimate.
    private static let fading = 0.995

    package private(set) var bytesPerSecond: Double
    private var begun: UInt64 = 0
    private var bytes: UInt64 = 0
    private var hasMeasured = false

    package init(assumed: Double) { bytesPerSecond = assumed }

    /// `total` is all bytes read so far.
    package mutating func observe(total: UInt64, now: UInt64) {
        guard now >= begun + Self.window else { return }
        let (read, passed) = (total &- bytes, now - begun)
        defer { (begun, bytes) = (now, total) }
        // The first call, and one after a pause, only begin a window.
        guard begun > 0, passed < 4 * Self.window, read > 0 else { return }
        let rate = Double(read) / (Double(passed) * 1e-9)
        if rate >= bytesPerSecond {
            bytesPerSecond = rate
            hasMeasured = true
        } else {
            bytesPerSecond = max(rate, bytesPerSecond * (hasMeasured ? Self.fading : 0.9))
        }
    }
}
