// SampleStatistic: minimum, maximum, mean and deviation of samples, computed as fio does (Welford's
// recurrence), and merged in fio's two ways: as one population, or, for rates of jobs that ran at
// the same time, by adding the rates up.

package struct SampleStatistic: Sendable {
    package private(set) var count: UInt64 = 0
    package private(set) var minimum = UInt64.max
    package private(set) var maximum: UInt64 = 0
    package private(set) var mean = 0.0
    private var squares = 0.0

    package init() {}

    @inline(__always)
    package mutating func add(_ value: UInt64) {
        count += 1
        minimum = min(minimum, value)
        maximum = max(maximum, value)
        let delta = Double(value) - mean
        mean += delta / Double(count)
        squares += delta * (Double(value) - mean)
    }

    package var deviation: Double {
        count > 1 ? (squares / Double(count - 1)).squareRoot() : 0
    }

    /// 0 where there is no sample.
    package var smallest: UInt64 { count == 0 ? 0 : minimum }

    package mutating func merge(_ other: SampleStatistic) {
        guard other.count > 0 else { return }
        guard count > 0 else {
            self = other
            return
        }
        let delta = other.mean - mean
        let both = Double(count + other.count)
        squares += other.squares + delta * delta * Double(count) * Double(other.count) / both
        mean = (mean * Double(count) + other.mean * Double(other.count)) / both
        count += other.count
        minimum = min(minimum, other.minimum)
        maximum = max(maximum, other.maximum)
    }

    /// Adds the rates of a job that ran beside this one.
    package mutating func addParallel(_ other: SampleStatistic) {
        guard other.count > 0 else { return }
        guard count > 0 else {
            self = other
            return
        }
        minimum += other.minimum
        maximum += other.maximum
        mean += other.mean
        squares += other.squares
        count += other.count
    }
}
