// LatencyHistogram: counts of durations in buckets that grow with them, 32 to each power of two, so
// that a percentile is right to about 3 %. A fixed 9 KiB, no allocation after init, from 1 ns to
// about 18 minutes; what is longer counts as that.

struct LatencyHistogram: Sendable {
    private static let subBits = 5
    private static let sub = 1 << subBits
    private static let maxBits = 40
    private static let bucketCount = (maxBits - subBits + 1) << subBits

    private var counts = [UInt64](repeating: 0, count: bucketCount)
    private(set) var count: UInt64 = 0
    private(set) var sum: UInt64 = 0
    private(set) var largest: UInt64 = 0

    @inline(__always)
    mutating func record(_ nanoseconds: UInt64) {
        counts[Self.bucket(nanoseconds)] &+= 1
        count &+= 1
        sum &+= nanoseconds
        if nanoseconds > largest { largest = nanoseconds }
    }

    mutating func add(_ other: LatencyHistogram) {
        for index in counts.indices { counts[index] &+= other.counts[index] }
        count &+= other.count
        sum &+= other.sum
        largest = max(largest, other.largest)
    }

    /// Values below 32 have a bucket each; from there on, 32 buckets a power of two.
    @inline(__always)
    static func bucket(_ value: UInt64) -> Int {
        if value < UInt64(sub) { return Int(value) }
        let top = 63 - value.leadingZeroBitCount
        if top >= maxBits { return bucketCount - 1 }
        let shift = top - subBits
        return (shift + 1) << subBits | Int(value >> UInt64(shift)) & (sub - 1)
    }

    /// The largest value that falls into a bucket.
    static func upperBound(_ bucket: Int) -> UInt64 {
        if bucket < sub { return UInt64(bucket) }
        let shift = bucket >> subBits - 1
        let mantissa = UInt64(bucket & (sub - 1) | sub)
        return (mantissa + 1) << UInt64(shift) - 1
    }

    /// The value at or below which the share of all values lies; 0 when there are none.
    func percentile(_ share: Double) -> UInt64 {
        guard count > 0 else { return 0 }
        let wanted = max(1, UInt64((Double(count) * share).rounded(.up)))
        var seen: UInt64 = 0
        for index in counts.indices where counts[index] > 0 {
            seen += counts[index]
            if seen >= wanted { return min(largest, Self.upperBound(index)) }
        }
        return largest
    }

    var summary: LatencySummary {
        LatencySummary(
            count: count, sum: sum, mean: count == 0 ? 0 : sum / count, p50: percentile(0.5),
            p90: percentile(0.9), p99: percentile(0.99), p999: percentile(0.999), max: largest)
    }
}

/// A latency distribution in brief; nanoseconds.
public struct LatencySummary: Sendable, Equatable {
    /// How many were measured.
    public var count: UInt64 = 0
    /// All of them added up.
    public var sum: UInt64 = 0
    /// The arithmetic mean.
    public var mean: UInt64 = 0
    /// Median.
    public var p50: UInt64 = 0
    /// 90th percentile.
    public var p90: UInt64 = 0
    /// 99th percentile.
    public var p99: UInt64 = 0
    /// 99.9th percentile.
    public var p999: UInt64 = 0
    /// The longest.
    public var max: UInt64 = 0
}
