// BlockLoad: the loading of one request's blocks, as a replay in time does it whatever the store:
// which one is asked for next, and what became of each.

import BenchKit

struct BlockLoad {
    let wanted: [Int32]
    /// One after the other from the head, or all at once.
    let asksSingly: Bool
    /// All at once: what is in memory before what has to be read, as a batch of gets is served, or
    /// reading the first would evict the others; of both the last one first, so that the head of
    /// the chain is the one used most recently.
    private let order: [Int]
    /// How many were asked for, and how many of these have ended.
    var next = 0
    var ended = 0
    var outcomes: [ReplayOutcome]
    private var wrong: [Bool]

    init(_ blocks: ArraySlice<Int32> = [], asksSingly: Bool = false, isResident: (Int32) -> Bool) {
        wanted = Array(blocks)
        self.asksSingly = asksSingly
        let outcomes: [ReplayOutcome] = wanted.map { isResident($0) ? .hitDRAM : .hitSSD }
        let places = asksSingly ? Array(wanted.indices) : wanted.indices.reversed()
        order =
            asksSingly
            ? places
            : places.filter { outcomes[$0] == .hitDRAM }
                + places.filter { outcomes[$0] != .hitDRAM }
        self.outcomes = outcomes
        wrong = .init(repeating: false, count: wanted.count)
    }

    /// Nothing.
    init() { self.init { _ in false } }

    var isLoaded: Bool { ended == wanted.count }
    var isAsked: Bool { next == wanted.count }
    /// Whether one may be asked for now, and its place in the request.
    var mayAsk: Bool { next < wanted.count && (!asksSingly || ended == next) }
    var nextPlace: Int { order[next] }

    /// Checks the bytes of the block in a place.
    mutating func check(_ found: UnsafeRawBufferPointer, at place: Int, isWhole: Bool) {
        let isRight =
            isWhole
            && Payload.firstMismatch(
                found, namespace: ReplayDriver.namespace, key: UInt64(wanted[place]), revision: 0)
                == nil
        if !isRight { wrong[place] = true }
    }

    var result: TimedLoad {
        var load = TimedLoad()
        load.usable = wanted.count
        for place in wanted.indices {
            if outcomes[place] == .miss || wrong[place] { load.usable = min(load.usable, place) }
            if wrong[place] { load.wrong += 1 }
            if outcomes[place] == .hitDRAM { load.hitsDRAM += 1 }
            if outcomes[place] == .hitSSD { load.hitsSSD += 1 }
        }
        return load
    }
}
