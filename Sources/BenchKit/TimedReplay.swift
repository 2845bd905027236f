// TimedReplay: plays a trace against a store in time, before one server that prefills requests in
// the order in which they come. When a request's turn comes, its claimed blocks are loaded while
// the rest of its prompt is computed; when its prefill ends, its new blocks are put. What arrives
// meanwhile is announced to the store at its own time.

/// What a replay in time counts.
package struct TimedResult: Equatable, Sendable {
    /// By request: seconds from arrival to first token, and of computing.
    package var timesToFirstToken: [Double] = []
    package var compute: [Double] = []
    /// Seconds of the server lost to loading, and requests that read the device.
    package var stall = 0.0
    package var readers = 0
    package var accesses: UInt64 = 0
    package var hitsDRAM: UInt64 = 0
    package var hitsSSD: UInt64 = 0
    package var wrong: UInt64 = 0
    package var prefixHits: UInt64 = 0
    /// Blocks that were there and were computed, as that was expected to be faster.
    package var declined: UInt64 = 0
    package var stored: UInt64 = 0
    package var unwritten: UInt64 = 0
    package var refused: UInt64 = 0
    package var deviceBytesWritten: UInt64 = 0
    /// Nanoseconds from the first arrival to the last first token.
    package var nanoseconds: UInt64 = 0
    package var prefetch = PrefetchFigures()
    package init() {}

    package var prefixHitRatio: Double {
        accesses == 0 ? 0 : Double(prefixHits) / Double(accesses)
    }
    package var computeSeconds: Double { compute.reduce(0, +) }
    /// Seconds of it for blocks that were there and were declined.
    package var declinedSeconds = 0.0
    /// Seconds that turns began after their time, since the replay itself was busy; 0 in virtual
    /// time. They are in the times to first token.
    package var slip = 0.0
    /// Share of the time in which the block device had something to do; nil in virtual time, and
    /// where its counters cannot be read.
    package var deviceBusy: Double?
}

package struct TimedReplay {
    package struct Hints: Equatable, Sendable {
        /// Requests are announced when they come.
        package var chain = false
        /// For each request, whether its session is said to go on; nil: nothing is said.
        package var foretold: [Bool]?
        package init(chain: Bool = false, foretold: [Bool]? = nil) {
            self.chain = chain
            self.foretold = foretold
        }
    }

    private let trace: TraceTable
    private let model: PrefillModel
    private let arrivals: [UInt64]
    private let hints: Hints
    private var result = TimedResult()

    /// The next request that has not come.
    private var arriving = 0
    /// By request that has come: seconds that its turn is expected to take.
    private var expected: [Double]
    private var waitingSeconds = 0.0
    /// Of requests that have had their turn, the latest ones counting most: seconds that it took,
    /// and was expected to take. What requests ahead in the queue are going to store is there by
    /// their turn and was not when they came.
    private var taken = 0.0
    private var foreseen = 0.0
    /// When the one that came last was told to be due: those that come later are not due before.
    private var latestDue: UInt64 = 0
    private var serverFree: UInt64 = 0

    package init(
        _ trace: TraceTable, _ model: PrefillModel, arrivals: [UInt64], hints: Hints
    ) {
        self.trace = trace
        self.model = model
        self.arrivals = arrivals
        self.hints = hints
        expected = .init(repeating: 0, count: trace.requests)
    }

    /// Plays all of it; `progress` is told how many requests are done, and says whether to go on.
    package static func run(
        _ replay: consuming TimedReplay, on store: any TimedStore,
        progress: (Int) -> Bool = { _ in true }
    ) throws(BenchError) -> TimedResult {
        var replay = replay
        for request in 0..<replay.trace.requests {
            try replay.serve(request, store)
            if !progress(request + 1) { throw BenchError("interrupted", code: 4) }
        }
        var result = replay.result
        result.nanoseconds = replay.serverFree
        result.prefetch = store.prefetchFigures
        (result.stored, result.unwritten, result.refused) = store.puts
        result.deviceBytesWritten = store.deviceBytesWritten
        return result
    }

    /// A request's weight among those before it.
    private static let forgetting = 1 / 64.0

    // MARK: One request

    private mutating func serve(_ request: Int, _ store: any TimedStore) throws(BenchError) {
        let start = max(serverFree, arrivals[request])
        try pass(until: start, store)
        waitingSeconds -= expected[request]
        let range = trace.accesses(of: request)
        let blocks = trace.blocks[range]
        let tokens = trace.inputTokens[request]
        let claim = store.claim(blocks, tokens: tokens)
        let begun = store.now
        // Until it is known better, for what arrives meanwhile.
        serverFree =
            begun + Self.nanoseconds(model.compute(tokens: tokens, cachedBlocks: claim.claimed))
        var load = TimedLoad()
        var seconds = 0.0
        var isAnnounced = hints.chain
        if claim.claimed > 0 {
            try store.load(blocks.prefix(claim.claimed))
            while !store.isLoaded {
                // What was not claimed is not to be brought any more.
                if isAnnounced, store.isAsked {
                    store.withdraw(request)
                    isAnnounced = false
                }
                let next = arriving < arrivals.count ? arrivals[arriving] : UInt64.max
                try store.pass(until: next, loading: true)
                arrive(store)
            }
            seconds = Double(store.now - begun) / 1e9
            load = try store.loaded()
        }
        if isAnnounced { store.withdraw(request) }
        count(request, claim, load, begun: begun, loadSeconds: seconds)
        result.slip += Double(begun - min(begun, start)) / 1e9
        // A block that is less than full is another one next time.
        let whole = trace.endsPartial[request] ? blocks.dropLast() : blocks
        let new = whole.dropFirst(load.usable)
        if !new.isEmpty { try store.prepare(new) }
        try pass(until: serverFree, store)
        if !new.isEmpty {
            let usable = load.usable
            try store.put(new, parent: usable > 0 ? blocks[blocks.startIndex + usable - 1] : -1)
        }
        store.ended(request, whole)
        if let foretold = hints.foretold {
            store.told(trace.sessions[request], goesOn: foretold[request], whole)
        }
    }

    private mutating func count(
        _ request: Int, _ claim: TimedClaim, _ load: TimedLoad, begun: UInt64, loadSeconds: Double
    ) {
        let compute = model.compute(
            tokens: trace.inputTokens[request], cachedBlocks: load.usable)
        let service = model.service(compute: compute, load: loadSeconds)
        taken += service - taken * Self.forgetting
        foreseen += expected[request] - foreseen * Self.forgetting
        serverFree = begun + Self.nanoseconds(service)
        result.compute.append(compute)
        result.timesToFirstToken.append(Double(serverFree - arrivals[request]) / 1e9)
        // Against a device that gives at once all that is there: to compute what was not worth
        // loading is time lost to the device, too.
        let free = model.compute(
            tokens: trace.inputTokens[request], cachedBlocks: max(claim.present, load.usable))
        result.stall += service - free
        if load.hitsSSD > 0 { result.readers += 1 }
        result.accesses += UInt64(trace.accesses(of: request).count)
        result.hitsDRAM += UInt64(load.hitsDRAM)
        result.hitsSSD += UInt64(load.hitsSSD)
        result.wrong += UInt64(load.wrong)
        result.prefixHits += UInt64(load.usable)
        result.declined += UInt64(claim.present - claim.claimed)
        result.declinedSeconds += max(0, compute - free)
    }

    // MARK: Time

    private static func nanoseconds(_ seconds: Double) -> UInt64 { UInt64(seconds * 1e9) }

    private mutating func pass(until time: UInt64, _ store: any TimedStore) throws(BenchError) {
        while arriving < arrivals.count, arrivals[arriving] <= time {
            try store.pass(until: arrivals[arriving], loading: false)
            arrive(store)
        }
        try store.pass(until: time, loading: false)
    }

    /// Takes in what has come by now.
    private mutating func arrive(_ store: any TimedStore) {
        let now = store.now
        while arriving < arrivals.count, arrivals[arriving] <= now {
            let request = arriving
            arriving += 1
            let blocks = trace.blocks[trace.accesses(of: request)]
            if hints.chain, !blocks.isEmpty {
                expected[request] = store.forecast(
                    blocks, tokens: trace.inputTokens[request])
                let pace = foreseen > 0 ? taken / foreseen : 1
                let free = max(now, serverFree) + Self.nanoseconds(max(0, pace * waitingSeconds))
                latestDue = max(latestDue, free)
                store.announce(request, blocks, due: latestDue)
            }
            waitingSeconds += expected[request]
        }
    }
}
