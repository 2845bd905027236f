// Opening a store as it is, from its manifest alone: whatever the size of its owner's index, each
// device keeps exactly the segments that it has, or the owner could not open it again.

import SegmentFormat
import Testing

@testable import LogStore

@Suite struct ConfigurationTests {
    /// Segments that each device gets, as opening shares them out.
    private func share(_ manifest: Manifest, entries: Int) -> Int {
        let configuration = LogStoreConfiguration(
            directories: [], capacityBytes: manifest.capacityBytes, indexEntries: entries,
            entropy: (1, 2, 3, 4))
        let metadata = Opener.metadataBytes(
            manifest, configuration, devices: manifest.devices.count)
        guard manifest.capacityBytes > metadata else { return 0 }
        let members = manifest.devices.count { $0.state != DeviceRecord.struck }
        return Int((manifest.capacityBytes - metadata) / manifest.segmentBytes) / members
    }

    @Test func theShareOutStays() {
        var dice = Dice(state: 12)
        var checked = 0
        for _ in 0..<3000 {
            var manifest = Manifest()
            manifest.segmentBytes = UInt64(1 + dice.next(400)) << 20
            let entries = 1024 + dice.next(1 << (10 + dice.next(17)))
            for index in 0..<(1 + dice.next(6)) {
                let state = index > 0 && dice.next(5) == 0 ? DeviceRecord.struck : 0
                manifest.devices.append(
                    DeviceRecord(
                        id: Identity128(hi: 1, lo: UInt64(index)), index: UInt8(index),
                        state: state, segmentCount: 0, membershipEpoch: 1))
            }
            manifest.capacityBytes = UInt64(1 + dice.next(1 << 20)) << 20
            let owner = share(manifest, entries: entries)
            guard owner >= 8, owner < SegmentTable.maximumLocal else { continue }
            for index in manifest.devices.indices
            where manifest.devices[index].state != DeviceRecord.struck {
                manifest.devices[index].segmentCount = UInt32(owner)
            }
            // The owner's index held so many: ours must have room for them.
            let blocks = dice.next(entries)
            let made = LogStoreConfiguration.indexEntries(manifest, blocks: blocks)
            #expect(made >= blocks, "\(blocks) of \(entries): \(made)")
            #expect(share(manifest, entries: made) == owner, "\(manifest.devices.count) devices")
            checked += 1
        }
        #expect(checked > 1000)
    }
}
