// ArrivalPlan: when the requests of a trace come in a replay in time. Traces are often quantised:
// many requests bear one time and none comes until the next. Those are spread, from a seed, over
// what lies between, since a burst of a bucket is the recorder's and not the service's. Then time
// is stretched as a whole, by a speed or so that the replay reaches a load.

package struct ArrivalPlan: Sendable {
    /// Seconds from the first, in the trace's own time, not falling.
    package private(set) var seconds: [Double]

    /// `times` as the trace has them, not falling.
    package init(times: [Double], seed: UInt64) {
        seconds = []
        seconds.reserveCapacity(times.count)
        let quantum = Self.quantum(of: times)
        var random = SeededGenerator(seed: scrambled(seed ^ 0xA221_7A15))
        var start = 0
        while start < times.count {
            var end = start + 1
            while end < times.count, times[end] == times[start] { end += 1 }
            if end - start == 1 {
                seconds.append(times[start])
            } else {
                let gap = end < times.count ? times[end] - times[start] : quantum
                let width = min(gap, quantum)
                let places = (start..<end).map { _ in random.unit() }.sorted()
                for place in places { seconds.append(times[start] + place * width) }
            }
            start = end
        }
        let first = seconds.first ?? 0
        for index in seconds.indices { seconds[index] -= first }
    }

    /// The median of what lies between two times that differ: the width of a recorder's bucket, and
    /// for a trace with exact times a small thing, so that no request is moved far.
    private static func quantum(of times: [Double]) -> Double {
        var gaps: [Double] = []
        for index in times.indices.dropFirst() where times[index] > times[index - 1] {
            gaps.append(times[index] - times[index - 1])
        }
        gaps.sort()
        return gaps.isEmpty ? 0 : gaps[gaps.count / 2]
    }

    /// Seconds from the first to the last.
    package var span: Double { seconds.last ?? 0 }

    /// By what trace time is multiplied, so that so many seconds of work are `load` of it.
    package func factor(load: Double, work: Double) -> Double {
        span > 0 && load > 0 ? work / load / span : 1
    }

    /// Nanoseconds from the first, trace time times `factor`.
    package func nanoseconds(factor: Double) -> [UInt64] {
        seconds.map { UInt64(max(0, $0 * factor * 1e9)) }
    }
}
