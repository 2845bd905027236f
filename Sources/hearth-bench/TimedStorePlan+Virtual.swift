// TimedStorePlan: what a replay in virtual time opens: a store of small blocks on a simulated disk
// whose buses are slowed down by as much as the model's blocks are larger.

import BenchKit
import Hearth
import Heat
import LogStore
import Prefetch
import SimulatedDisk
import Staging
import Tiering

extension TimedStorePlan {
    /// Simulated bytes a second, for so many of the model.
    private func scaled(_ rate: Double) -> UInt64 {
        max(1, UInt64(rate * Double(blockBytes) / modelBlockBytes))
    }

    /// Whole blocks of the store, for so many bytes of the model.
    private func scaled(bytes: Int) -> Int {
        Int(Double(bytes) / max(1, modelBlockBytes)) * blockBytes
    }

    var latency: LatencyModel {
        guard let device else { return .constant(0) }
        var made = LatencyModel.constant(
            device.latency, bytesPerSecond: scaled(device.readBandwidth), channels: device.depth)
        made.writeBytesPerSecond = scaled(device.writeBandwidth)
        made.metadata = .constant(0)
        return made
    }

    var configuration: TieredConfiguration {
        var shape = Configuration(directory: "/replay", capacityBytes: 1 << 30)
        shape.maximumBlockBytes = max(blockBytes, 64 << 10)
        shape.expectedBlockBytes = blockBytes
        // Reclaim goes by segments: one of many, as on a drive.
        let sixtyFourth = Int(clamping: capacity / 64)
        shape.minimumSegmentBytes =
            min(256 << 20, max(2 << 20, sixtyFourth)) / (1 << 20) * (1 << 20)
        shape.groupBytes = max(64 << 10, blockBytes)
        let bytes = shape.capacity(
            forValueBytes: max(capacity, UInt64(blockBytes)), blockBytes: blockBytes,
            blocksPerGroup: 8)
        let entries = Int(clamping: bytes / UInt64(blockBytes)) / 10 * 11 + 4096
        var entropy = SeededGenerator(seed: seed)
        var log = LogStoreConfiguration(
            directories: ["/replay"], capacityBytes: bytes, indexEntries: entries,
            entropy: (entropy.next(), entropy.next(), entropy.next(), entropy.next()))
        log.maximumBlockBytes = shape.maximumBlockBytes
        log.minimumSegmentBytes = shape.minimumSegmentBytes
        log.groupBytes = shape.groupBytes
        log.joinedReadBytes = max(blockBytes, scaled(bytes: 1 << 20))
        log.operations = 8192
        log.tableCacheBytes = 1 << 20
        let slab = (blockBytes + 4095) / 4096 * 4096
        var staged = StagedConfiguration(
            log: log, stagingBytes: Int(dram) / slab * slab, inclusive: true)
        staged.slabBytes = slab
        var made = TieredConfiguration(staged)
        made.replacement = ReplacementKind(rawValue: policy.rawValue) ?? .adaptive
        made.prefetch = prefetching
        // A device that gives everything at once takes everything at once.
        made.overload = device == nil ? .waits : .staysInMemory
        return made
    }

    private var prefetching: PrefetchConfiguration {
        var made = PrefetchConfiguration()
        made.predictors =
            switch prefetch {
            case .off, .oracle: []
            case .chain: .chain
            case .successor: .successor
            case .layer: [.layer, .pages]
            case .session: .session
            case .all: .all
            }
        made.successors = Int(clamping: capacity / UInt64(max(1, blockBytes))) / 10 * 12 + 1024
        made.sessionKeys = 1 << 17
        made.bytesInFlight = max(4 * blockBytes, scaled(bytes: made.bytesInFlight))
        made.burstBytes = max(blockBytes, scaled(bytes: made.burstBytes))
        if let device { made.assumedBandwidth = Double(scaled(device.readBandwidth)) }
        return made
    }
}
