// DeviceFit: the device's model from what fio measured at a few depths. The model serves so many
// requests at once, each after a latency of its own, and their bytes cross one bus: so the highest
// rate is the bus, what a request takes at depth 1 beyond its time on the bus is the latency, and
// the depth is the least at which the rate was all but the highest.

/// What fio measured at one depth.
package struct DevicePoint: Equatable, Sendable {
    package var depth: Int
    package var bytesPerSecond: Double
    package init(depth: Int, bytesPerSecond: Double) {
        (self.depth, self.bytesPerSecond) = (depth, bytesPerSecond)
    }
}

package struct DeviceFit: Equatable, Sendable {
    package let blockBytes: Int
    package let points: [DevicePoint]
    package let model: DeviceModel

    /// A rate is the highest from this share of it on.
    private static let allButHighest = 0.97

    /// `points` in the order of their depths, the first at depth 1; nil where they cannot be
    /// measurements.
    package init?(blockBytes: Int, points: [DevicePoint], writeBandwidth: Double) {
        guard let first = points.first, first.depth == 1, first.bytesPerSecond > 0,
            let highest = points.map(\.bytesPerSecond).max(), writeBandwidth > 0
        else { return nil }
        self.blockBytes = blockBytes
        self.points = points
        let onBus = Double(blockBytes) / highest
        let alone = Double(blockBytes) / first.bytesPerSecond
        let latency = max(0, alone - onBus)
        let enough = points.first { $0.bytesPerSecond >= Self.allButHighest * highest }
        // With fewer at once the model itself would not reach the rate.
        let least = Int((alone / onBus).rounded(.up))
        model = DeviceModel(
            readBandwidth: highest, writeBandwidth: writeBandwidth,
            latency: UInt64(latency * 1e9), depth: max(least, enough?.depth ?? least))
    }

    package var text: String {
        var out =
            "device fitted to fio, random reads of "
            + figure(UInt64(blockBytes), binary: true, unit: "B") + ":"
        for point in points {
            out += formatted(" %.0f MB/s", point.bytesPerSecond / 1e6) + " at \(point.depth),"
        }
        return out + formatted(" written %.0f MB/s", model.writeBandwidth / 1e6)
            + "\n  --device-model \(model.text)\n"
    }
}
