// Bootstrap: the interval of a median by resampling, from a fixed seed, so that the same figures
// always give the same interval.

package struct Interval: Equatable, Sendable {
    package var median: Double
    package var low: Double
    package var high: Double

    package init(median: Double, low: Double, high: Double) {
        (self.median, self.low, self.high) = (median, low, high)
    }
}

package enum Bootstrap {
    package static func median(_ values: [Double]) -> Double {
        guard !values.isEmpty else { return 0 }
        let sorted = values.sorted()
        let middle = sorted.count / 2
        return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    }

    /// The median and its 95 % interval.
    package static func interval(_ values: [Double], resamples: Int = 4000) -> Interval {
        let middle = median(values)
        guard values.count > 1 else { return Interval(median: middle, low: middle, high: middle) }
        var random = SeededGenerator(seed: 1)
        var medians: [Double] = []
        medians.reserveCapacity(resamples)
        for _ in 0..<resamples {
            medians.append(
                median(values.map { _ in values[Int(random.below(UInt64(values.count)))] }))
        }
        medians.sort()
        let low = medians[Int(Double(resamples) * 0.025)]
        let high = medians[min(resamples - 1, Int(Double(resamples) * 0.975))]
        return Interval(median: middle, low: low, high: high)
    }
}
