// DeviceShares: how many prefetched blocks are under way on each device, and their bytes. Fixed
// size; nothing allocates after open.

import LogStore

final class DeviceShares {
    private let shares: UnsafeMutablePointer<(blocks: Int, bytes: Int)>

    init() {
        shares = .allocate(capacity: SegmentTable.maximumDevices)
        shares.initialize(repeating: (0, 0), count: SegmentTable.maximumDevices)
    }

    func deallocate() { shares.deallocate() }

    func add(_ device: UInt8, _ bytes: Int) {
        shares[Int(device)].blocks += 1
        shares[Int(device)].bytes += bytes
    }

    func remove(_ block: QueuedBlock) {
        shares[Int(block.device)].blocks -= 1
        shares[Int(block.device)].bytes -= Int(block.bytes)
    }

    /// Of all devices, or of those of a log that are not spared.
    func sum(_ log: LogStore?) -> (blocks: Int, bytes: Int) {
        var sum = (blocks: 0, bytes: 0)
        for device in 0..<(log?.devices.count ?? SegmentTable.maximumDevices)
        where !(log?.isSpared(device) ?? false) {
            sum.blocks += shares[device].blocks
            sum.bytes += shares[device].bytes
        }
        return sum
    }
}
