// LatencyModel: how long the simulated device takes. An operation waits for one of `channels`, is
// served for its own latency, and then its bytes cross one bus, so that small requests are bound by
// channels and large ones by bandwidth, as on a drive. Writes can have a bus of their own: where
// blocks stand for ones many times their size, a group of them would hold up reads for longer than
// any request of a real drive does.

package enum LatencyDistribution: Sendable {
    case constant(UInt64)
    /// Nanoseconds, both ends included.
    case uniform(UInt64, UInt64)

    @inline(__always)
    func draw(_ random: inout SimulatedRandom) -> UInt64 {
        switch self {
        case .constant(let nanoseconds): nanoseconds
        case .uniform(let low, let high): random.uniform(low, high)
        }
    }
}

package struct LatencyModel: Sendable {
    package var read: LatencyDistribution
    package var write: LatencyDistribution
    package var sync: LatencyDistribution
    /// Allocate and punch.
    package var metadata: LatencyDistribution
    /// Of each device, all its requests together; 0 for no bound.
    package var bytesPerSecond: UInt64
    /// Of writes, on a bus of their own; 0: they share the one of reads.
    package var writeBytesPerSecond: UInt64 = 0
    /// Requests that one device serves at once.
    package var channels: Int

    package init(
        read: LatencyDistribution, write: LatencyDistribution, sync: LatencyDistribution,
        metadata: LatencyDistribution, bytesPerSecond: UInt64 = 0, channels: Int = 64
    ) {
        self.read = read
        self.write = write
        self.sync = sync
        self.metadata = metadata
        self.bytesPerSecond = bytesPerSecond
        self.channels = max(1, channels)
    }

    /// Every operation takes the same time; completions keep the order of submission.
    package static func constant(
        _ nanoseconds: UInt64, bytesPerSecond: UInt64 = 0, channels: Int = 64
    ) -> LatencyModel {
        LatencyModel(
            read: .constant(nanoseconds), write: .constant(nanoseconds),
            sync: .constant(nanoseconds), metadata: .constant(nanoseconds),
            bytesPerSecond: bytesPerSecond, channels: channels)
    }

    /// Every operation takes its own time, so that completions come in any order.
    package static func uniform(
        _ low: UInt64, _ high: UInt64, bytesPerSecond: UInt64 = 0, channels: Int = 64
    ) -> LatencyModel {
        LatencyModel(
            read: .uniform(low, high), write: .uniform(low, high), sync: .uniform(low, high),
            metadata: .uniform(low, high), bytesPerSecond: bytesPerSecond, channels: channels)
    }

    /// A fast NVMe drive: reads of 60-120 µs, writes of 15-60 µs into its cache, 6 GB/s.
    package static let nvme = LatencyModel(
        read: .uniform(60_000, 120_000), write: .uniform(15_000, 60_000),
        sync: .uniform(200_000, 1_000_000), metadata: .uniform(20_000, 200_000),
        bytesPerSecond: 6_000_000_000, channels: 64)
}
