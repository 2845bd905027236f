// DeviceFit: the device's model from what fio measured at a few depths. The model serves so many
// requests at once, each after a latency of its own, and their bytes cross one bus: from some depth
// on the rate is the bus's, below it each request takes its latency and its time on the bus. Which
// depth that is is the one with which the model is closest to all that was measured; so that no
// single reading, as the highest on a restless disk, makes the model. Where the bus is the limit,
// how many are served at once changes no rate of reads, and the device was seen to take as many as
// were asked of it: that is the deepest that was measured. Fewer would make reads wait for writes,
// which the model's device serves beside them.

import Glibc

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

    /// `points` in the order of their depths, the first at depth 1; nil where they cannot be
    /// measurements.
    package init?(blockBytes: Int, points: [DevicePoint], writeBandwidth: Double) {
        guard let first = points.first, first.depth == 1, writeBandwidth > 0,
            points.allSatisfy({ $0.bytesPerSecond > 0 })
        else { return nil }
        self.blockBytes = blockBytes
        self.points = points
        let candidates = points.indices.map { Candidate(blockBytes, points, busFrom: $0) }
        let best = candidates.reduce(candidates[0]) { $1.error < $0.error ? $1 : $0 }
        // With fewer at once the model itself would not reach the rate.
        let least = Int((best.alone * best.bus / Double(blockBytes)).rounded(.up))
        let deepest = points.reduce(1) { max($0, $1.depth) }
        model = DeviceModel(
            readBandwidth: best.bus, writeBandwidth: writeBandwidth,
            latency: UInt64((best.alone - Double(blockBytes) / best.bus) * 1e9),
            depth: max(deepest, least))
    }

    /// The model in which the bus is the limit from one of the points on.
    private struct Candidate {
        /// Bytes a second.
        let bus: Double
        /// Seconds of a request that is alone.
        let alone: Double
        /// Sum of the squares of how far off it is, in logarithms.
        let error: Double

        init(_ blockBytes: Int, _ points: [DevicePoint], busFrom: Int) {
            let bytes = Double(blockBytes)
            let above = points[busFrom...]
            let bus = Self.middle(above.map(\.bytesPerSecond))
            let times = points[..<busFrom].map { Double($0.depth) * bytes / $0.bytesPerSecond }
            let alone = max(bytes / bus, times.isEmpty ? 0 : Self.middle(times))
            error = points.reduce(0) {
                let made = min(bus, Double($1.depth) * bytes / alone)
                let off = log(made / $1.bytesPerSecond)
                return $0 + off * off
            }
            (self.bus, self.alone) = (bus, alone)
        }

        /// The geometric mean.
        private static func middle(_ values: [Double]) -> Double {
            exp(values.reduce(0) { $0 + log($1) } / Double(max(1, values.count)))
        }
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
