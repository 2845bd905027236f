// PrefetchStatistics: what each predictor asked for and what came of it. Counters since open.

/// One predictor's, or all together.
package struct PredictorStatistics: Sendable, Equatable {
    /// Blocks whose reading began, and their value bytes.
    package var issued: UInt64 = 0
    package var issuedBytes: UInt64 = 0
    /// Of these, blocks that were used, and those that were there when asked for.
    package var useful: UInt64 = 0
    package var timely: UInt64 = 0
    /// Left, cancelled or grown old without use.
    package var wasted: UInt64 = 0
    package var wastedBytes: UInt64 = 0
    /// Could not be read, or were gone when they had been.
    package var failed: UInt64 = 0
    package init() {}

    package static func += (sum: inout PredictorStatistics, more: PredictorStatistics) {
        sum.issued += more.issued
        sum.issuedBytes += more.issuedBytes
        sum.useful += more.useful
        sum.timely += more.timely
        sum.wasted += more.wasted
        sum.wastedBytes += more.wastedBytes
        sum.failed += more.failed
    }

    /// Useful over issued; 0 before anything was.
    package var accuracy: Double { issued == 0 ? 0 : Double(useful) / Double(issued) }
}

package struct PrefetchStatistics: Sendable {
    package private(set) var predictors = [PredictorStatistics](
        repeating: PredictorStatistics(), count: PredictorKind.allCases.count)
    /// Gets that the device had to serve, of blocks that were there.
    package var demandMisses: UInt64 = 0
    /// Of these, blocks that had made room for a prefetch not long before.
    package var pollution: UInt64 = 0
    /// How late useful blocks were; those in time are in it as 0.
    package var lateness = LatenessHistogram()
    /// How long useful blocks that were in time had been there before they were asked for.
    package var lead = LatenessHistogram()
    /// Keys that were hinted: not stored, in staging already, waiting or under way already.
    package var hintedAbsent: UInt64 = 0
    package var hintedResident: UInt64 = 0
    package var hintedTwice: UInt64 = 0
    /// Keys that the bounded tables had no room for.
    package var overflowed: UInt64 = 0
    /// Keys hinted with too little confidence.
    package var unsure: UInt64 = 0
    /// Taken back before their reading began.
    package var cancelled: UInt64 = 0
    /// Not brought, because their device did badly and another one did not.
    package var avoided: UInt64 = 0
    /// Asked for before their reading began.
    package var overtaken: UInt64 = 0
    /// Hinted blocks that were looked at again and had to be brought after all, and those that the
    /// queue no longer remembers.
    package var awakened: UInt64 = 0
    package var forgotten: UInt64 = 0
    /// Waiting sessions whose chain was worth bringing when they were looked at, and looks at which
    /// it was not.
    package var sessionsBrought: UInt64 = 0
    package var sessionsLeft: UInt64 = 0
    /// Gauges.
    package var sessions = 0
    package var waiting = 0
    /// Hinted and not to be brought as things are.
    package var dormant = 0
    package var inFlight = 0
    package var unusedBytes = 0
    package init() {}

    package subscript(kind: PredictorKind) -> PredictorStatistics {
        get { predictors[Int(kind.rawValue)] }
        set { predictors[Int(kind.rawValue)] = newValue }
    }

    package mutating func change(
        _ kind: PredictorKind, _ body: (inout PredictorStatistics) -> Void
    ) {
        body(&predictors[Int(kind.rawValue)])
    }

    package var total: PredictorStatistics {
        predictors.reduce(into: PredictorStatistics()) { $0 += $1 }
    }

    /// How late those were that were late, by powers of two of nanoseconds.
    package var lateOctaves: [UInt64] {
        var made = lateness.octaves
        made[0] -= lateness.zeros
        return made
    }

    /// Useful over useful and demand misses.
    package var coverage: Double {
        let useful = total.useful
        return useful + demandMisses == 0 ? 0 : Double(useful) / Double(useful + demandMisses)
    }

    /// The share of useful blocks that were there when asked for.
    package var timeliness: Double {
        let all = total
        return all.useful == 0 ? 0 : Double(all.timely) / Double(all.useful)
    }
}

/// Nanoseconds in buckets of powers of two, each halved four times: percentiles to an eighth.
package struct LatenessHistogram: Sendable {
    private var counts = [UInt64](repeating: 0, count: 64 * 8)
    package private(set) var count: UInt64 = 0
    package private(set) var sum: UInt64 = 0
    package private(set) var maximum: UInt64 = 0

    package init() {}

    package mutating func record(_ nanoseconds: UInt64) {
        counts[Self.bucket(nanoseconds)] += 1
        count += 1
        sum = sum.addingReportingOverflow(nanoseconds).partialValue
        maximum = max(maximum, nanoseconds)
    }

    private static func bucket(_ value: UInt64) -> Int {
        if value < 8 { return Int(value) }
        let top = 63 - value.leadingZeroBitCount
        return (top - 2) * 8 + Int(value >> UInt64(top - 3) & 7)
    }

    private static func upperEnd(_ bucket: Int) -> UInt64 {
        if bucket < 8 { return UInt64(bucket) }
        let top = bucket / 8 + 2
        return (UInt64(bucket % 8) + 9) << UInt64(top - 3) &- 1
    }

    /// Counts by powers of two: in place n those from 2^n to below 2^(n+1), 0 with 1.
    package var octaves: [UInt64] {
        var made = [UInt64](repeating: 0, count: 64)
        for bucket in counts.indices where counts[bucket] > 0 {
            let end = Self.upperEnd(bucket)
            made[end < 2 ? 0 : 63 - end.leadingZeroBitCount] += counts[bucket]
        }
        return made
    }

    /// Of these, those of 0.
    package var zeros: UInt64 { counts[0] }

    package var mean: UInt64 { count == 0 ? 0 : sum / count }

    package func percentile(_ share: Double) -> UInt64 {
        if count == 0 { return 0 }
        let wanted = max(1, UInt64((Double(count) * share).rounded(.up)))
        var seen: UInt64 = 0
        for bucket in counts.indices {
            seen += counts[bucket]
            if seen >= wanted { return min(maximum, Self.upperEnd(bucket)) }
        }
        return maximum
    }
}
