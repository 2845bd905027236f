// JobResult: what one job measured, in fio's terms, and how results of a group add up.

import Glibc

/// One direction of a job.
package struct DirectionResult: Sendable {
    package var bytes: UInt64 = 0
    package var operations: UInt64 = 0
    /// Gets that found nothing; they move no bytes and are in no other figure.
    package var misses: UInt64 = 0
    /// Nanoseconds.
    package var runtime: UInt64 = 0
    package var submission = SampleStatistic()
    package var completion = SampleStatistic()
    package var total = SampleStatistic()
    package var histogram = LatencyHistogram()
    /// KiB/s and operations/s, a sample each 500 ms.
    package var bandwidth = SampleStatistic()
    package var rate = SampleStatistic()

    package var milliseconds: UInt64 { (runtime + 500_000) / 1_000_000 }

    package var bytesPerSecond: UInt64 {
        runtime == 0 ? 0 : UInt64(Double(bytes) / (Double(runtime) / 1e9))
    }

    package var operationsPerSecond: Double {
        runtime == 0 ? 0 : Double(operations) / (Double(runtime) / 1e9)
    }

    package mutating func merge(_ other: DirectionResult) {
        bytes += other.bytes
        operations += other.operations
        misses += other.misses
        runtime = max(runtime, other.runtime)
        submission.merge(other.submission)
        completion.merge(other.completion)
        total.merge(other.total)
        histogram.merge(other.histogram)
        bandwidth.addParallel(other.bandwidth)
        rate.addParallel(other.rate)
    }
}

/// Counts by the bounds that fio prints.
package struct DepthMap: Sendable {
    package var counts = [UInt64](repeating: 0, count: 7)
    package var total: UInt64 = 0

    /// Operations in flight when one more was taken: 1, 2, 4, … >=64.
    @inline(__always)
    package mutating func addDepth(_ depth: Int) {
        let index = depth <= 1 ? 0 : min(6, 63 - UInt64(depth).leadingZeroBitCount)
        counts[index] += 1
        total += 1
    }

    /// Operations of one call: 0, up to 4, 8, … 64, more.
    @inline(__always)
    package mutating func addBatch(_ count: Int) {
        let index: Int
        switch count {
        case ..<1: index = 0
        case ...4: index = 1
        case ...8: index = 2
        case ...16: index = 3
        case ...32: index = 4
        case ...64: index = 5
        default: index = 6
        }
        counts[index] += 1
        total += 1
    }

    package mutating func merge(_ other: DepthMap) {
        for index in counts.indices { counts[index] += other.counts[index] }
        total += other.total
    }

    package var percents: [Double] {
        counts.map { total == 0 ? 0 : 100 * Double($0) / Double(total) }
    }
}

/// Shares of operations by latency, in the steps that fio prints.
package struct LatencySteps: Sendable {
    package static let bounds: [UInt64] = [2, 4, 10, 20, 50, 100, 250, 500, 750, 1000]
    package var nanoseconds = [UInt64](repeating: 0, count: 10)
    package var microseconds = [UInt64](repeating: 0, count: 10)
    package var milliseconds = [UInt64](repeating: 0, count: 12)

    @inline(__always)
    private static func step(_ value: UInt64) -> Int {
        switch value {
        case ..<2: 0
        case ..<4: 1
        case ..<10: 2
        case ..<20: 3
        case ..<50: 4
        case ..<100: 5
        case ..<250: 6
        case ..<500: 7
        case ..<750: 8
        case ..<1000: 9
        case ..<2000: 10
        default: 11
        }
    }

    @inline(__always)
    package mutating func add(_ value: UInt64) {
        if value < 1000 {
            nanoseconds[Self.step(value)] += 1
        } else if value < 1_000_000 {
            microseconds[Self.step(value / 1000)] += 1
        } else {
            milliseconds[Self.step(value / 1_000_000)] += 1
        }
    }

    package mutating func merge(_ other: LatencySteps) {
        for index in 0..<10 {
            nanoseconds[index] += other.nanoseconds[index]
            microseconds[index] += other.microseconds[index]
        }
        for index in 0..<12 { milliseconds[index] += other.milliseconds[index] }
    }
}

/// A difference of getrusage.
package struct ResourceUse: Sendable {
    /// Nanoseconds.
    package var user: Int64 = 0
    package var system: Int64 = 0
    package var switches: Int64 = 0
    package var majorFaults: Int64 = 0
    package var minorFaults: Int64 = 0

    package init() {}

    package static func now(thread: Bool) -> ResourceUse {
        var usage = rusage()
        // RUSAGE_THREAD is 1 and RUSAGE_SELF 0 on Linux; the former is not imported.
        let who: __rusage_who_t = thread ? 1 : 0
        getrusage(who, &usage)
        var result = ResourceUse()
        result.user =
            Int64(usage.ru_utime.tv_sec) * 1_000_000_000
            + Int64(usage.ru_utime.tv_usec) * 1000
        result.system =
            Int64(usage.ru_stime.tv_sec) * 1_000_000_000
            + Int64(usage.ru_stime.tv_usec) * 1000
        result.switches = Int64(usage.ru_nvcsw + usage.ru_nivcsw)
        result.majorFaults = Int64(usage.ru_majflt)
        result.minorFaults = Int64(usage.ru_minflt)
        return result
    }

    package static func - (left: ResourceUse, right: ResourceUse) -> ResourceUse {
        var result = left
        result.user -= right.user
        result.system -= right.system
        result.switches -= right.switches
        result.majorFaults -= right.majorFaults
        result.minorFaults -= right.minorFaults
        return result
    }

    package static func + (left: ResourceUse, right: ResourceUse) -> ResourceUse {
        left - (ResourceUse() - right)
    }
}

package struct JobResult: Sendable {
    package var name = ""
    package var job = 0
    package var jobs = 1
    package var read = DirectionResult()
    package var write = DirectionResult()
    package var depth = DepthMap()
    package var submitted = DepthMap()
    package var completed = DepthMap()
    package var steps = LatencySteps()
    /// Of the job's thread, and its share of what the engine's own threads used.
    package var use = ResourceUse()
    /// Nanoseconds.
    package var runtime: UInt64 = 0
    package var started: UInt64 = 0
    package var errors: UInt64 = 0
    package var firstError: Int32 = 0
    package var firstErrorText = ""
    package var verifyErrors: UInt64 = 0
    package var syncs: UInt64 = 0
    package var sync = SampleStatistic()
    package var kv: JSONValue?

    package init() {}

    package var milliseconds: UInt64 { (runtime + 500_000) / 1_000_000 }

    package mutating func fail(_ code: Int32, _ text: String) {
        errors += 1
        guard firstError == 0 else { return }
        firstError = code
        firstErrorText = text
    }

    /// Adds a job of the same group.
    package mutating func merge(_ other: JobResult) {
        jobs += other.jobs
        read.merge(other.read)
        write.merge(other.write)
        depth.merge(other.depth)
        submitted.merge(other.submitted)
        completed.merge(other.completed)
        steps.merge(other.steps)
        use = use + other.use
        runtime += other.runtime
        errors += other.errors
        verifyErrors += other.verifyErrors
        syncs += other.syncs
        sync.merge(other.sync)
        if firstError == 0 {
            firstError = other.firstError
            firstErrorText = other.firstErrorText
        }
    }
}
