// LatencyHistogram: fio's own histogram of nanoseconds, bucket for bucket, so that percentiles and
// bins from here and from fio can be compared and merged. 29 groups of 64 buckets: values below 128
// are exact, above that the error is below 1/64. A bucket is reported by its middle.

package struct LatencyHistogram: Sendable {
    package static let groupBits = 6
    package static let groupSize = 64
    package static let groups = 29
    package static let buckets = groupSize * groups

    package private(set) var counts = [UInt64](repeating: 0, count: buckets)
    package private(set) var total: UInt64 = 0

    package init() {}

    @inline(__always)
    package static func bucket(_ value: UInt64) -> Int {
        let top = value == 0 ? 0 : 63 - value.leadingZeroBitCount
        if top <= groupBits { return Int(value) }
        let errorBits = top - groupBits
        let base = (errorBits + 1) << groupBits
        let offset = (groupSize - 1) & Int(truncatingIfNeeded: value >> UInt64(errorBits))
        return min(base + offset, buckets - 1)
    }

    /// The middle of a bucket.
    package static func value(_ bucket: Int) -> UInt64 {
        if bucket < groupSize << 1 { return UInt64(bucket) }
        let errorBits = (bucket >> groupBits) - 1
        let base: UInt64 = 1 << UInt64(errorBits + groupBits)
        let place = Double(bucket % groupSize) + 0.5
        return base + UInt64(place * Double(UInt64(1) << UInt64(errorBits)))
    }

    @inline(__always)
    package mutating func add(_ value: UInt64) {
        counts[Self.bucket(value)] += 1
        total += 1
    }

    package mutating func merge(_ other: LatencyHistogram) {
        for index in 0..<Self.buckets { counts[index] += other.counts[index] }
        total += other.total
    }

    /// fio's default list, percent.
    package static let defaultPercentiles: [Double] = [
        1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 99.5, 99.9, 99.95, 99.99,
    ]

    /// The value at each of the ascending percentages: the first bucket at which the running count
    /// reaches that share.
    package func percentiles(_ list: [Double] = defaultPercentiles) -> [UInt64] {
        guard total > 0 else { return list.map { _ in 0 } }
        var result: [UInt64] = []
        var sum: UInt64 = 0
        for index in 0..<Self.buckets {
            sum += counts[index]
            while result.count < list.count,
                Double(sum) >= list[result.count] / 100 * Double(total)
            {
                result.append(Self.value(index))
            }
            if result.count == list.count { break }
        }
        return result
    }
}
