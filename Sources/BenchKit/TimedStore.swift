// TimedStore: the calls through which a replay in time uses a store, in virtual time. Time
// passes only in `pass`; what was begun goes on meanwhile. Blocks are the numbers of a trace table.

/// What a request may take from the store, decided when its turn comes.
package struct TimedClaim: Equatable, Sendable {
    /// Blocks from the first that are there.
    package var present = 0
    /// Of these, blocks from the first that are worth loading.
    package var claimed = 0
    package init(present: Int = 0, claimed: Int = 0) {
        self.present = present
        self.claimed = claimed
    }
}

/// What came of loading a request's blocks.
package struct TimedLoad: Equatable, Sendable {
    package var hitsDRAM = 0
    package var hitsSSD = 0
    /// Hits whose bytes were not the payload's.
    package var wrong = 0
    /// Blocks from the first that came, with the right bytes.
    package var usable = 0
    package init() {}
}

/// What a predictor, or all of them, was worth.
package struct PrefetchFigures: Equatable, Sendable {
    package var issued: UInt64 = 0
    package var useful: UInt64 = 0
    package var timely: UInt64 = 0
    package var wastedBytes: UInt64 = 0
    package var pollution: UInt64 = 0
    /// Gets that the device had to serve.
    package var demandMisses: UInt64 = 0
    package var latenessMean = 0.0
    package var latenessP99 = 0.0
    /// How long before its use a block came, or after: upper ends in seconds, and how many.
    package var leads: [(seconds: Double, count: UInt64)] = []
    package init() {}

    package static func == (left: PrefetchFigures, right: PrefetchFigures) -> Bool {
        (left.issued, left.useful, left.timely, left.wastedBytes, left.pollution)
            == (right.issued, right.useful, right.timely, right.wastedBytes, right.pollution)
            && left.demandMisses == right.demandMisses && left.latenessMean == right.latenessMean
            && left.latenessP99 == right.latenessP99
    }

    package var coverage: Double { Self.share(useful, useful + demandMisses) }
    package var accuracy: Double { Self.share(useful, issued) }
    package var timeliness: Double { Self.share(timely, useful) }

    private static func share(_ part: UInt64, _ whole: UInt64) -> Double {
        whole == 0 ? 0 : Double(part) / Double(whole)
    }
}

package protocol TimedStore: AnyObject {
    /// Nanoseconds since the replay began.
    var now: UInt64 { get }
    /// Lets time pass until then; with `loading`, or until what `load` began has ended, if sooner.
    func pass(until time: UInt64, loading: Bool) throws(BenchError)
    /// Whether what `load` began has ended.
    var isLoaded: Bool { get }

    /// Tells the store what a request that has just come will read, and when its turn may be.
    func announce(_ request: Int, _ blocks: ArraySlice<Int32>, due: UInt64)
    /// The request has had its turn.
    func withdraw(_ request: Int)
    /// Tells the store whether the session of a request that has ended is said to go on.
    func told(_ session: Int32, goesOn: Bool, _ blocks: ArraySlice<Int32>)

    /// Blocks from the first that are there.
    func present(_ blocks: ArraySlice<Int32>) -> Int
    /// What a request whose turn it is should load, given that it has so many tokens.
    func claim(_ blocks: ArraySlice<Int32>, tokens: Int) -> TimedClaim
    /// Begins loading blocks, all at once.
    func load(_ blocks: ArraySlice<Int32>) throws(BenchError)
    /// What came of it.
    func loaded() throws(BenchError) -> TimedLoad
    /// Puts blocks that follow `parent` (negative: none) and waits for nothing.
    func put(_ blocks: ArraySlice<Int32>, parent: Int32) throws(BenchError)
    /// Marks blocks as used, the last one first.
    func touch(_ blocks: ArraySlice<Int32>)

    /// Blocks that were put and kept, and that the store did not take.
    var puts: (stored: UInt64, refused: UInt64) { get }
    var prefetchFigures: PrefetchFigures { get }
    /// Bytes written to the device for values and whatever goes with them.
    var deviceBytesWritten: UInt64 { get }
    func close() throws(BenchError)
}

/// What a replay in time asks of the store that it opens.
package struct TimedStorePlan: Equatable, Sendable {
    package var blockBytes: Int
    /// Of a block of the model, which one of the store stands for in virtual time.
    package var modelBlockBytes: Double
    /// Value bytes of the store, and bytes of its slabs.
    package var capacity: UInt64
    package var dram: UInt64
    /// nil: whatever is on the device is there at once.
    package var device: DeviceModel?
    package var prefetch: PrefetchChoice
    package var policy: PolicyChoice
    /// Only what is resident is taken; the rest is computed.
    package var claimsResidentsOnly = false
    /// Blocks of a request are asked for one after the other.
    package var asksSingly = false
    package var seed: UInt64
}
