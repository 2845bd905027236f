// TraceRequest: one request of a KV-cache trace: its time and the blocks of its prompt in chain
// order. An id stands for a whole prefix, so equal ids mean equal contents and a block has exactly
// one predecessor.

package struct TraceRequest: Equatable, Sendable {
    /// Seconds from the trace's start.
    package var time: Double
    package var inputTokens: Int
    package var outputTokens: Int
    /// The session, -1 where the trace does not tell.
    package var session: Int
    package var blocks: [UInt64]

    package init(
        time: Double = 0, inputTokens: Int = 0, outputTokens: Int = 0, session: Int = -1,
        blocks: [UInt64] = []
    ) {
        self.time = time
        self.inputTokens = inputTokens
        self.outputTokens = outputTokens
        self.session = session
        self.blocks = blocks
    }

    /// Makes one block of each `count` consecutive ones, named by the last of them: that id already
    /// stands for the whole prefix up to it. Fewer at the end make a block too, named alike.
    package mutating func join(_ count: Int) {
        guard count > 1 else { return }
        var write = 0
        var read = 0
        while read < blocks.count {
            let last = min(read + count, blocks.count) - 1
            blocks[write] = blocks[last]
            write += 1
            read = last + 1
        }
        blocks.removeLast(blocks.count - write)
    }
}

/// Where requests come from: a trace file, or the generator. Can be read more than once.
package protocol TraceSource: ~Copyable {
    var description: String { get }
    /// Starts again from the first request.
    mutating func rewind() throws(TraceError)
    /// Puts the next request into `request`, whose array is reused; false at the end.
    mutating func next(_ request: inout TraceRequest) throws(TraceError) -> Bool
}

/// A trace that cannot be read: which file, which line, what was expected.
package struct TraceError: Error, Equatable, CustomStringConvertible {
    package var file: String
    /// From 1; 0 when it is about the file.
    package var line: Int
    package var problem: String
    package init(file: String, line: Int = 0, problem: String) {
        (self.file, self.line, self.problem) = (file, line, problem)
    }
    package var description: String {
        line == 0 ? "\(file): \(problem)" : "\(file):\(line): \(problem)"
    }
}

/// What a whole trace holds, counted in a first pass.
package struct TraceSummary: Equatable, Sendable {
    package var requests: UInt64 = 0
    package var accesses: UInt64 = 0
    package var unique: UInt64 = 0
    /// Blocks whose id was seen before and whose predecessors all were: the ceiling of any cache.
    package var reusable: UInt64 = 0

    package var ceiling: Double { accesses == 0 ? 0 : Double(reusable) / Double(accesses) }

    package init() {}

    package init(
        _ source: inout some TraceSource & ~Copyable, join: Int, requests limit: UInt64?
    ) throws(TraceError) {
        try source.rewind()
        var seen: Set<UInt64> = []
        var request = TraceRequest()
        while requests < limit ?? UInt64.max, try source.next(&request) {
            request.join(join)
            requests += 1
            accesses += UInt64(request.blocks.count)
            var prefix = true
            for block in request.blocks {
                let new = seen.insert(block).inserted
                if new { prefix = false }
                if prefix { reusable += 1 }
            }
        }
        unique = UInt64(seen.count)
        try source.rewind()
    }
}
