// TimedRun: `replay --time ...` from its configuration to its report. Beside the run that was asked
// for stand three others, of the same requests at the same times: an oracle, to which whatever the
// device holds is there at once; one that computes what is not in DRAM; and one without
// prefetching. The first two lose no time to loading, so that what they find depends on the order
// of requests alone: each is played once, and a load is a matter of arithmetic. So they are played
// in virtual time even where the others are played in real time.

import Glibc
import Heat
import Synchronization

package struct TimedRun {
    package typealias Opener = (TimedStorePlan) throws(BenchError) -> any TimedStore

    package let configuration: ReplayConfiguration
    package let options: TimedOptions
    package let trace: TraceTable
    package let model: PrefillModel
    package let plan: TimedStorePlan
    package let schedule: ArrivalPlan
    private let hints: TimedReplay.Hints
    private let open: Opener
    private let line: ProgressLine

    /// The runs at one load.
    package struct Runs: Sendable {
        package var factor = 1.0
        package var load = 0.0
        package var main = TimedResult()
        package var times = TimeFigures([])
        package var withoutPrefetch = TimedResult()
        package var withoutPrefetchTimes = TimeFigures([])
        package var oracleTimes = TimeFigures([])
        package var recomputeTimes = TimeFigures([])
    }

    package init(
        _ configuration: ReplayConfiguration, open: @escaping Opener
    ) throws(BenchError) {
        self.configuration = configuration
        options = configuration.timed
        self.open = open
        line = ProgressLine(configuration.progress)
        line.show("reading the trace ...")
        var trace = try PolicyRun.load(configuration)
        line.clear()
        let blockTokens = options.blockTokens ?? trace.blockTokens
        trace.assume(blockTokens: blockTokens)
        self.trace = trace
        guard blockTokens > 0 else {
            throw BenchError("the trace tells no input tokens; give --block-tokens")
        }
        model = PrefillModel(
            rate: options.prefillRate, layers: options.layers, blockTokens: blockTokens)
        schedule = ArrivalPlan(times: trace.times, seed: configuration.chat.seed)
        let modelBlockBytes = Double(options.modelBytesPerToken) * Double(blockTokens)
        let blockBytes = try Self.blockBytes(configuration, modelBlockBytes)
        let whole = UInt64(trace.unique) * UInt64(blockBytes)
        var plan = TimedStorePlan(
            blockBytes: blockBytes,
            modelBlockBytes: options.time == .real ? Double(blockBytes) : modelBlockBytes,
            capacity: configuration.capacity.resolved(of: whole),
            dram: configuration.dram.resolved(of: whole), device: options.device,
            prefetch: options.prefetch ?? .chain, policy: configuration.policies.first ?? .adaptive,
            claims: options.claim, model: model, seed: configuration.chat.seed)
        // Who does not know the chain at once reveals it block by block.
        plan.asksSingly = plan.prefetch == .successor
        plan.widest = trace.widest
        if options.time == .real { plan.directory = configuration.directory ?? "." }
        self.plan = plan
        hints = Self.hints(configuration, plan.prefetch, trace)
    }

    /// Bytes of a block of the store. In real time what is read is what is modelled.
    private static func blockBytes(
        _ configuration: ReplayConfiguration, _ modelled: Double
    ) throws(BenchError) -> Int {
        let options = configuration.timed
        guard options.time == .real, options.modelBytesGiven else {
            return configuration.blockBytes
        }
        guard modelled <= Double(64 << 20) else {
            throw BenchError(
                "--model-bytes-per-token makes blocks of " + formatted("%.0f", modelled)
                    + " bytes; in real time they are stored, and 64 MiB is the most")
        }
        let bytes = Int(modelled)
        if configuration.blockBytesGiven, configuration.blockBytes != bytes {
            throw BenchError(
                "--block-bytes is \(configuration.blockBytes) and --model-bytes-per-token makes "
                    + "\(bytes): in real time both are what is read, so give one of them")
        }
        return bytes
    }

    private static func hints(
        _ configuration: ReplayConfiguration, _ prefetch: PrefetchChoice, _ trace: TraceTable
    ) -> TimedReplay.Hints {
        var made = TimedReplay.Hints()
        switch configuration.hints {
        case nil:
            made.chain = prefetch.announces
            if prefetch == .session {
                made.foretold = trace.foretold(
                    miss: 0, falseAlarm: 0, seed: configuration.chat.seed)
            }
        case .none?, .pages?: break
        case .chain?: made.chain = true
        case .session(let miss, let falseAlarm)?:
            made.chain = prefetch.announces
            made.foretold = trace.foretold(
                miss: miss, falseAlarm: falseAlarm, seed: configuration.chat.seed)
        }
        return made
    }

    package var hintText: String {
        var words: [String] = hints.chain ? ["chain"] : []
        if case .session? = configuration.hints, let told = configuration.hints {
            words.append(told.text)
        } else if hints.foretold != nil {
            words.append("session")
        }
        return words.isEmpty ? "none" : words.joined(separator: "+")
    }

    // MARK: Runs

    /// Plays the trace once.
    package func play(
        _ label: String, arrivals: [UInt64], hints: TimedReplay.Hints? = nil,
        change: (inout TimedStorePlan) -> Void = { _ in }
    ) throws(BenchError) -> TimedResult {
        var plan = plan
        change(&plan)
        let rate = ProgressRate(label: label, unit: "", line: line)
        // Each run has a store of its own.
        let scratch: ReplayDirectory? =
            if let parent = plan.directory {
                try ReplayDirectory(within: parent, keep: configuration.keep)
            } else {
                nil
            }
        defer { scratch?.finish() }
        if let scratch { plan.directory = scratch.path }
        let store = try open(plan)
        let disk = plan.directory.map { DiskWatch(path: $0) }
        var result: TimedResult
        do throws(BenchError) {
            result = try TimedReplay.run(
                TimedReplay(
                    trace, model, arrivals: arrivals, hints: hints ?? self.hints), on: store
            ) { done in
                rate.update(done: UInt64(done), of: UInt64(trace.requests))
                return !replayInterrupted.load(ordering: .relaxed)
            }
        } catch {
            line.clear()
            try? store.close()
            throw error
        }
        line.clear()
        result.deviceBusy = disk?.finish().first.map { $0.busy / 100 }
        try store.close()
        return result
    }

    /// What the oracle, and a store without a device tier, compute for each request.
    package struct Bounds: Sendable {
        package var oracle: TimedResult
        package var recompute: TimedResult
    }

    package func bounds() throws(BenchError) -> Bounds {
        let arrivals = schedule.nanoseconds(factor: 1)
        let session = TimedReplay.Hints(foretold: hints.foretold)
        func bound(_ plan: inout TimedStorePlan) {
            plan.device = nil
            guard plan.directory != nil else { return }
            // As many blocks, small ones.
            plan.directory = nil
            let each = UInt64(plan.blockBytes)
            (plan.capacity, plan.dram) = (plan.capacity / each * 4096, plan.dram / each * 4096)
            plan.blockBytes = 4096
        }
        let oracle = try play("oracle", arrivals: arrivals, hints: session) {
            bound(&$0)
            ($0.prefetch, $0.claims) = (.oracle, .all)
        }
        let recompute = try play("recompute", arrivals: arrivals, hints: session) {
            bound(&$0)
            ($0.prefetch, $0.claims) = (.off, .residents)
        }
        return Bounds(oracle: oracle, recompute: recompute)
    }

    /// All runs at the load that was asked for, or at the trace's own times.
    package func runs(_ bounds: Bounds, load: Double?) throws(BenchError) -> Runs {
        var made = Runs()
        let work = bounds.oracle.computeSeconds
        made.factor =
            load.map { schedule.factor(load: $0, work: work) } ?? 1 / max(1e-9, options.speed)
        let span = schedule.span * made.factor
        made.load = span > 0 ? work / span : 0
        let arrivals = schedule.nanoseconds(factor: made.factor)
        func times(_ result: TimedResult) -> TimeFigures {
            TimeFigures(PrefillModel.queue(arrivals: arrivals, service: result.compute))
        }
        made.oracleTimes = times(bounds.oracle)
        made.recomputeTimes = times(bounds.recompute)
        if plan.prefetch == .oracle {
            made.main = bounds.oracle
            made.times = made.oracleTimes
        } else {
            made.main = try play("replay", arrivals: arrivals)
            made.times = TimeFigures(made.main.timesToFirstToken)
        }
        if plan.prefetch == .off, plan.claims == .all {
            made.withoutPrefetch = made.main
        } else {
            // Layer by layer on demand: all that is there, at the request's turn.
            made.withoutPrefetch = try play(
                "no prefetch", arrivals: arrivals,
                hints: TimedReplay.Hints(foretold: hints.foretold)
            ) { ($0.prefetch, $0.claims) = (.off, .all) }
        }
        made.withoutPrefetchTimes = TimeFigures(made.withoutPrefetch.timesToFirstToken)
        return made
    }
}
