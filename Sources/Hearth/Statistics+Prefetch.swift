// Statistics of prefetching: what each predictor asked for and what came of it.

import Prefetch

extension Statistics {
    /// Blocks brought into the DRAM tier before they were asked for.
    public struct Prefetch: Sendable, Equatable {
        /// Blocks whose reading began.
        public var issuedByPredictor: [String: UInt64] = [:]
        /// Of these, blocks that were asked for afterwards, or meanwhile.
        public var usefulByPredictor: [String: UInt64] = [:]
        /// Of these, blocks that were there when they were asked for.
        public var timelyByPredictor: [String: UInt64] = [:]
        /// Blocks that left, were cancelled or not needed, unused.
        public var wastedByPredictor: [String: UInt64] = [:]
        /// Blocks that could not be read, or were gone when they had been.
        public var failedByPredictor: [String: UInt64] = [:]
        /// Value bytes whose reading began.
        public var issuedBytes: UInt64 = 0
        /// Value bytes of those that were not used.
        public var wastedBytes: UInt64 = 0
        /// Gets that a device had to serve.
        public var demandMisses: UInt64 = 0
        /// Of these, gets of blocks that had made room for a prefetch.
        public var pollution: UInt64 = 0
        /// Useful over useful and demand misses.
        public var coverage: Double = 0
        /// Useful over issued.
        public var accuracy: Double = 0
        /// The share of useful blocks that were there when they were asked for.
        public var timely: Double = 0
        /// How late useful blocks were, those in time counted as 0; nanoseconds, the mean.
        public var latenessMean: UInt64 = 0
        /// The same, of the latest hundredth the earliest.
        public var latenessP99: UInt64 = 0
        /// Hinted keys that are not stored.
        public var hintedAbsent: UInt64 = 0
        /// Hinted keys that were in the DRAM tier already.
        public var hintedResident: UInt64 = 0
        /// Hinted keys that waited or were under way already.
        public var hintedTwice: UInt64 = 0
        /// Hinted keys that the bounded tables had no room for.
        public var overflowed: UInt64 = 0
        /// Keys hinted with too little confidence.
        public var unsure: UInt64 = 0
        /// Blocks taken back before their reading began.
        public var cancelled: UInt64 = 0
        /// Blocks not brought because their device is slow, and another one is not.
        public var avoided: UInt64 = 0
        /// Blocks that were asked for before their reading began.
        public var overtaken: UInt64 = 0
        /// Hinted blocks that had to be brought after all, since they left or were stored later.
        public var awakened: UInt64 = 0
        /// Hinted blocks in the DRAM tier or not stored that are no longer remembered.
        public var forgotten: UInt64 = 0
        /// Waiting sessions whose chain was worth bringing when they were looked at.
        public var sessionsBrought: UInt64 = 0
        /// Looks at waiting sessions at which it was not.
        public var sessionsLeft: UInt64 = 0
        /// Sessions that are remembered.
        public var sessions = 0
        /// Hinted blocks that are remembered, in the DRAM tier or not stored.
        public var dormant = 0
        /// Blocks that wait to be brought.
        public var waiting = 0
        /// Blocks under way.
        public var inFlight = 0
        /// Bytes brought that are protected and not used yet.
        public var unusedBytes = 0
        /// Useful blocks by powers of two of nanoseconds: how long those in time had been there,
        /// and how long the others were waited for.
        package var leads: [UInt64] = []
        package var lates: [UInt64] = []

        /// Nothing.
        public init() {}
    }
}

extension Statistics.Prefetch {
    init(_ core: PrefetchStatistics) {
        func named(_ value: (PredictorStatistics) -> UInt64) -> [String: UInt64] {
            var made: [String: UInt64] = [:]
            for kind in PredictorKind.allCases where value(core[kind]) > 0 {
                made["\(kind)"] = value(core[kind])
            }
            return made
        }
        issuedByPredictor = named(\.issued)
        usefulByPredictor = named(\.useful)
        timelyByPredictor = named(\.timely)
        wastedByPredictor = named(\.wasted)
        failedByPredictor = named(\.failed)
        issuedBytes = core.total.issuedBytes
        wastedBytes = core.total.wastedBytes
        demandMisses = core.demandMisses
        pollution = core.pollution
        coverage = core.coverage
        accuracy = core.total.accuracy
        timely = core.timeliness
        latenessMean = core.lateness.mean
        latenessP99 = core.lateness.percentile(0.99)
        hintedAbsent = core.hintedAbsent
        hintedResident = core.hintedResident
        hintedTwice = core.hintedTwice
        overflowed = core.overflowed
        unsure = core.unsure
        cancelled = core.cancelled
        avoided = core.avoided
        overtaken = core.overtaken
        awakened = core.awakened
        forgotten = core.forgotten
        sessionsBrought = core.sessionsBrought
        sessionsLeft = core.sessionsLeft
        sessions = core.sessions
        dormant = core.dormant
        waiting = core.waiting
        inFlight = core.inFlight
        unusedBytes = core.unusedBytes
        (leads, lates) = (core.lead.octaves, core.lateOctaves)
    }

    func write(_ text: inout some StatisticsText) {
        text.object {
            $0.counts("issuedByPredictor", issuedByPredictor)
            $0.counts("usefulByPredictor", usefulByPredictor)
            $0.counts("timelyByPredictor", timelyByPredictor)
            $0.counts("wastedByPredictor", wastedByPredictor)
            $0.counts("failedByPredictor", failedByPredictor)
            $0.number("issuedBytes", issuedBytes)
            $0.number("wastedBytes", wastedBytes)
            $0.number("demandMisses", demandMisses)
            $0.number("pollution", pollution)
            $0.number("coverage", coverage)
            $0.number("accuracy", accuracy)
            $0.number("timely", timely)
            $0.number("latenessMean", latenessMean)
            $0.number("latenessP99", latenessP99)
            $0.number("hintedAbsent", hintedAbsent)
            $0.number("hintedResident", hintedResident)
            $0.number("hintedTwice", hintedTwice)
            $0.number("overflowed", overflowed)
            $0.number("unsure", unsure)
            $0.number("cancelled", cancelled)
            $0.number("avoided", avoided)
            $0.number("overtaken", overtaken)
            $0.number("awakened", awakened)
            $0.number("forgotten", forgotten)
            $0.number("sessionsBrought", sessionsBrought)
            $0.number("sessionsLeft", sessionsLeft)
            $0.number("sessions", sessions)
            $0.number("dormant", dormant)
            $0.number("waiting", waiting)
            $0.number("inFlight", inFlight)
            $0.number("unusedBytes", unusedBytes)
        }
    }
}
