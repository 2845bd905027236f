// TimedStore: the calls through which a replay in time uses a store, in virtual time or in the
// machine's own. Virtual time passes only in `pass`; real time passes in every call, and `pass`
// waits for the rest of it. What was begun goes on meanwhile. Blocks are the numbers of a trace
// table.

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
    /// How long before it was asked for a block came, up to so many seconds, and how many; below 0:
    /// how long it was waited for.
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
    /// Of all blocks that the device had, those that were there when asked for.
    package var staged: Double { Self.share(timely, useful + demandMisses) }

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
    /// The request has ended and has used these blocks.
    func ended(_ request: Int, _ blocks: ArraySlice<Int32>)
    /// Tells the store whether the session of a request that has ended is said to go on.
    func told(_ session: Int32, goesOn: Bool, _ blocks: ArraySlice<Int32>)

    /// What a request whose turn it is should load, given that it has so many tokens.
    func claim(_ blocks: ArraySlice<Int32>, tokens: Int) -> TimedClaim
    /// Seconds that the server is expected to be taken by a request that has just come.
    func forecast(_ blocks: ArraySlice<Int32>, tokens: Int) -> Double
    /// Begins loading blocks, all at once.
    func load(_ blocks: ArraySlice<Int32>) throws(BenchError)
    /// Whether all of what `load` was told has been asked for.
    var isAsked: Bool { get }
    /// What came of it.
    func loaded() throws(BenchError) -> TimedLoad
    /// What will be put when the prefill under way ends: its bytes can be made meanwhile.
    func prepare(_ blocks: ArraySlice<Int32>) throws(BenchError)
    /// Puts blocks that follow `parent` (negative: none) and waits for nothing.
    func put(_ blocks: ArraySlice<Int32>, parent: Int32) throws(BenchError)
    /// Blocks that were put and kept, those of them that no device was given, and blocks that the
    /// store did not take.
    var puts: (stored: UInt64, unwritten: UInt64, refused: UInt64) { get }
    var prefetchFigures: PrefetchFigures { get }
    /// Bytes written to the device for values and whatever goes with them.
    var deviceBytesWritten: UInt64 { get }
    func close() throws(BenchError)
}

extension TimedStore {
    package func prepare(_ blocks: ArraySlice<Int32>) throws(BenchError) {}
}

/// What a request takes of what is there.
package enum ClaimChoice: String, CaseIterable, Sendable {
    /// All of it.
    case all
    /// As much as makes it ready first, by what the store expects; the rest is computed.
    case profitable
    /// Only what is resident.
    case residents
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
    package var claims: ClaimChoice
    package var model: PrefillModel
    /// Blocks of a request are asked for one after the other.
    package var asksSingly = false
    /// Blocks of the fullest request.
    package var widest = 0
    /// Where a store of files is made, in real time; nil: on a simulated disk, in virtual time.
    package var directory: String?
    package var seed: UInt64
}
