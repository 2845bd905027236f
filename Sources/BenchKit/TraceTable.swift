// TraceTable: a whole trace in memory for simulations that look ahead or run many times: blocks as
// dense numbers, each access with the next request that reads the same block, and what
// sessions say.
//
// Sessions: the trace's where it tells; else a request continues the session of the request that
// last read its longest known prefix, of at least two blocks, and otherwise opens one. A request
// `returns` when a later one of its session reads a block of it again.

package struct TraceTable: Sendable {
    /// No access of the block follows.
    package static let never = Int32.max

    /// Accesses of request r are offsets[r] ..< offsets[r + 1], in chain order.
    package private(set) var offsets: [Int] = [0]
    package private(set) var blocks: [Int32] = []
    package private(set) var nextRequest: [Int32] = []
    package private(set) var times: [Double] = []
    package private(set) var inputTokens: [Int] = []
    /// Tokens of a full block.
    package private(set) var blockTokens = 0
    package private(set) var sessions: [Int32] = []
    package private(set) var returns: [Bool] = []
    /// The last block of the request is less than full.
    package private(set) var endsPartial: [Bool] = []
    package private(set) var unique = 0

    package var requests: Int { times.count }
    package var accesses: Int { blocks.count }

    /// Where blocks are joined, what is left at the end of a request is no block.
    package init(
        _ source: inout some TraceSource & ~Copyable, join: Int, requests limit: UInt64?
    ) throws(TraceError) {
        try source.rewind()
        var numbers: [UInt64: Int32] = [:]
        var request = TraceRequest()
        var told: [Int] = []
        var size = BlockSize()
        while UInt64(times.count) < limit ?? UInt64.max, try source.next(&request) {
            size.observe(tokens: request.inputTokens, blocks: request.blocks.count)
            let whole = request.blocks.count / join * join
            request.blocks.removeLast(request.blocks.count - whole)
            request.join(join)
            for block in request.blocks {
                let number = numbers[block] ?? Int32(numbers.count)
                if Int(number) == numbers.count { numbers[block] = number }
                blocks.append(number)
            }
            offsets.append(blocks.count)
            times.append(request.time)
            told.append(request.session)
            inputTokens.append(request.inputTokens)
        }
        unique = numbers.count
        findNext()
        findSessions(told)
        findReturns()
        blockTokens = size.tokens * join
        findPartial(join: join)
    }

    /// Requests of which the trace tells no tokens have whole blocks of so many.
    package mutating func assume(blockTokens: Int) {
        for request in inputTokens.indices where inputTokens[request] == 0 {
            inputTokens[request] = accesses(of: request).count * blockTokens
        }
    }

    /// Blocks of the fullest request.
    package var widest: Int { (0..<requests).map { accesses(of: $0).count }.max() ?? 0 }

    package func accesses(of request: Int) -> Range<Int> {
        offsets[request]..<offsets[request + 1]
    }

    private mutating func findNext() {
        nextRequest = [Int32](repeating: Self.never, count: blocks.count)
        var next = [Int32](repeating: Self.never, count: unique)
        for request in stride(from: requests - 1, through: 0, by: -1) {
            for access in accesses(of: request) {
                nextRequest[access] = next[Int(blocks[access])]
            }
            for access in accesses(of: request) { next[Int(blocks[access])] = Int32(request) }
        }
    }

    private mutating func findSessions(_ told: [Int]) {
        sessions = [Int32](repeating: 0, count: requests)
        var numbers: [Int: Int32] = [:]
        var count: Int32 = 0
        var lastReader = [Int32](repeating: -1, count: unique)
        for request in 0..<requests {
            var session: Int32 = -1
            if told[request] >= 0 {
                session = numbers[told[request]] ?? -1
            } else {
                var known = 0
                for access in accesses(of: request) {
                    guard lastReader[Int(blocks[access])] >= 0 else { break }
                    known += 1
                }
                if known >= 2 {
                    let block = blocks[offsets[request] + known - 1]
                    session = sessions[Int(lastReader[Int(block)])]
                }
            }
            if session < 0 {
                session = count
                count += 1
                if told[request] >= 0 { numbers[told[request]] = session }
            }
            sessions[request] = session
            for access in accesses(of: request) {
                lastReader[Int(blocks[access])] = Int32(request)
            }
        }
    }

    private mutating func findReturns() {
        returns = [Bool](repeating: false, count: requests)
        var latest: [UInt64: Int32] = [:]
        for request in 0..<requests {
            for access in accesses(of: request) {
                let place = UInt64(sessions[request]) << 32 | UInt64(blocks[access])
                if let before = latest.updateValue(Int32(request), forKey: place) {
                    returns[Int(before)] = true
                }
            }
        }
    }

    private mutating func findPartial(join: Int) {
        endsPartial = (0..<requests).map { request in
            let count = offsets[request + 1] - offsets[request]
            return join == 1 && count > 0 && inputTokens[request] > 0
                && inputTokens[request] < count * blockTokens
        }
    }

    /// For each request what its session is said to do: wrong with probability `miss` where it
    /// goes on, and `falseAlarm` where it does not.
    package func foretold(miss: Double, falseAlarm: Double, seed: UInt64) -> [Bool] {
        var random = SeededGenerator(seed: seed)
        return returns.map { goesOn in
            let chance = random.unit()
            return goesOn ? chance >= miss : chance < falseAlarm
        }
    }
}
