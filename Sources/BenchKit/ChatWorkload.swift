// ChatWorkload: requests of a multi-turn chat service, made from a seed. Its statistics were fitted
// to the conversation trace (12,031 requests in 59 minutes): how long first prompts are, what a
// further turn adds, how likely a session goes on, how long people think, one system prompt that
// all sessions share, and arrivals of 2.1 sessions a second. The same options give the same
// requests.

import Glibc

package struct ChatWorkload: TraceSource {
    package struct Options: Equatable, Sendable {
        /// Sessions; the conversation trace has 7,373.
        package var sessions = 7373
        /// Mean turns of a session; its whole distribution moves with it.
        package var turns = 1.63
        package var seed: UInt64 = 1
        package init() {}
    }

    /// Tokens of a block.
    package static let blockTokens = 512.0
    private static let systemTokens = 512.0
    private static let mostTokens = 125.0 * 1024
    private static let sessionsPerSecond = 7373.0 / 3540
    /// P(another turn) after turn 1, 2, …; the last holds from there on.
    private static let continuing = [0.338, 0.46, 0.55, 0.61, 0.63, 0.68, 0.70]
    /// The mean turns to which those come, prompts over 30 blocks going on less often.
    private static let fittedTurns = 1.63
    private static let longPromptBlocks = 30.0
    private static let longPromptFactor = 0.75

    private struct Turn {
        var time: Double
        var session: Int32
        var turn: Int32
        var tokens: Float
        var output: Float
    }

    private let options: Options
    private var turns: [Turn]
    private var position = 0
    private var nextID: UInt64 = 1
    /// By session: the full blocks of its last prompt, as runs of ids.
    private var chains: [[UInt64]]

    package var description: String {
        "generated chat: \(options.sessions) sessions, mean turns \(options.turns), "
            + "seed \(options.seed)"
    }

    package init(_ options: Options) {
        self.options = options
        chains = .init(repeating: [], count: options.sessions)
        turns = []
        turns.reserveCapacity(Int(Double(options.sessions) * options.turns * 1.2))
        let scale = Self.stoppingScale(turns: options.turns)
        let span = Double(options.sessions) / Self.sessionsPerSecond
        for session in 0..<options.sessions {
            Self.addSession(
                session, span: span, scale: scale, seed: options.seed, to: &turns)
        }
        turns.sort { ($0.time, $0.session, $0.turn) < ($1.time, $1.session, $1.turn) }
    }

    private static func addSession(
        _ session: Int, span: Double, scale: Double, seed: UInt64, to turns: inout [Turn]
    ) {
        var random = SeededGenerator(seed: scrambled(seed) &+ scrambled(UInt64(session)))
        var time = random.unit() * span
        let first = random.logNormal(median: 8.6 * blockTokens, sigma: 1.28)
        var tokens = systemTokens + min(first, mostTokens - 5 * blockTokens)
        var turn = 0
        while true {
            let output = min(random.logNormal(median: 300, sigma: 0.9), 4000)
            turns.append(
                Turn(
                    time: time, session: Int32(session), turn: Int32(turn),
                    tokens: Float(tokens.rounded()), output: Float(output.rounded())))
            let isLong = tokens > longPromptBlocks * blockTokens
            let stay =
                continuing[min(turn, continuing.count - 1)]
                * (isLong ? longPromptFactor : 1)
            let question =
                random.unit() < 0.62
                ? random.logNormal(median: 200, sigma: 1)
                : random.logNormal(median: 8 * blockTokens, sigma: 0.9)
            let gap = random.logNormal(median: 123, sigma: 1.02)
            let goesOn = random.unit() < 1 - (1 - stay) * scale
            tokens += output + question
            guard goesOn, tokens <= mostTokens else { return }
            time += gap
            turn += 1
        }
    }

    /// The factor on every P(stop) that moves the mean number of turns to `turns`.
    private static func stoppingScale(turns wanted: Double) -> Double {
        func mean(_ scale: Double) -> Double {
            var alive = 1.0
            var sum = 0.0
            for turn in 0..<2000 {
                sum += alive
                alive *= max(0, 1 - (1 - continuing[min(turn, continuing.count - 1)]) * scale)
            }
            return sum
        }
        // What the unscaled chances come to here, without long prompts, stands for the fitted mean.
        let target = 1 + (mean(1) - 1) * max(0, wanted - 1) / (fittedTurns - 1)
        var low = 0.0
        var high = 1 / (1 - continuing[0])
        for _ in 0..<60 {
            let middle = (low + high) / 2
            if mean(middle) > target { low = middle } else { high = middle }
        }
        return (low + high) / 2
    }

    package mutating func rewind() throws(TraceError) {
        position = 0
        nextID = 1
        for index in chains.indices { chains[index].removeAll() }
    }

    package mutating func next(_ request: inout TraceRequest) throws(TraceError) -> Bool {
        guard position < turns.count else { return false }
        let turn = turns[position]
        position += 1
        let session = Int(turn.session)
        let tokens = Double(turn.tokens)
        let blocks = Int((tokens / Self.blockTokens).rounded(.up))
        let full = Int(tokens / Self.blockTokens)
        request.time = turn.time
        request.inputTokens = Int(tokens)
        request.outputTokens = Int(turn.output)
        request.session = session
        request.blocks.removeAll(keepingCapacity: true)
        // The system prompt is block 0, the same for all.
        if chains[session].isEmpty { request.blocks.append(0) }
        request.blocks += chains[session]
        while request.blocks.count < blocks {
            request.blocks.append(nextID)
            nextID += 1
        }
        // A partial tail is never read again: the next prompt fills that block otherwise.
        chains[session] = Array(request.blocks.prefix(max(1, full)))
        return true
    }
}
