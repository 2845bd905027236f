// The row about compaction while the store runs: a store in store mode, most of it alive, whose
// blocks are replaced at random for a while, some more often than others. Nothing may be evicted,
// so that room comes only from what died; it tells the rate, what it cost in writes, and how long
// the slowest put took.

import BenchKit
import BlockIO
import Glibc
import Hearth
import Staging

enum ReplaceRow {
    struct Plan {
        var directory: String
        var size: UInt64
        var turns: UInt64
        var depth: Int
        var livePercent: UInt64
        var blockBytes: Int
        /// Of the keys, those that get so many of the replaces; the others share what is left.
        var hotPercent: UInt64
        var hotWritesPercent: UInt64
        var seed: UInt64
    }

    static let options = [
        "directory", "size", "turns", "iodepth", "live-percent", "block-bytes", "hot-percent",
        "hot-writes-percent", "seed",
    ]

    static func plan(_ options: RowOptions) throws(UsageError) -> Plan {
        Plan(
            directory: try options.text("directory"),
            size: try options.size("size", default: 2 << 30),
            turns: try options.integer("turns", default: 2, in: 1...1000),
            depth: Int(try options.integer("iodepth", default: 16, in: 1...256)),
            livePercent: try options.integer("live-percent", default: 90, in: 1...99),
            blockBytes: Int(try options.size("block-bytes", default: 64 << 10)),
            hotPercent: try options.integer("hot-percent", default: 50, in: 1...99),
            hotWritesPercent: try options.integer("hot-writes-percent", default: 50, in: 0...100),
            seed: try options.integer("seed", default: 1, in: 0...UInt64.max))
    }

    static func measure(_ plan: Plan) throws(BenchError) -> [(String, JSONValue)] {
        var configuration = Configuration(directory: plan.directory, capacityBytes: plan.size)
        configuration.mode = .store
        configuration.maximumBlockBytes = max(plan.blockBytes, 64 << 10)
        configuration.minimumSegmentBytes = 4 << 20
        configuration.expectedBlockBytes = plan.blockBytes
        configuration.stagingBytes = 0
        let run = try ReplaceRun(KvStore(configuration), plan)
        return try run.go()
    }
}

/// Puts of keys, each in the place of the one before, `depth` at a time.
private final class ReplaceRun {
    private static let keyNamespace = stableHash("replace")
    /// No put takes so long in a store that goes on.
    private static let wedged: UInt64 = 60_000_000_000

    private let kv: KvStore
    private let plan: ReplaceRow.Plan
    private let keys: UInt64
    private let session: Session
    private let memory: UnsafeMutableRawBufferPointer
    private let region: MemoryRegion
    private let pieces: UnsafeMutablePointer<Piece>
    private let completions: UnsafeMutableBufferPointer<StoreCompletion>
    private let room: KeyRoom
    private var random: SeededGenerator
    private var since: [UInt64]
    private var asked: [UInt64]
    private var longest: UInt64 = 0
    private var refused: UInt64 = 0

    init(_ kv: KvStore, _ plan: ReplaceRow.Plan) throws(BenchError) {
        self.kv = kv
        self.plan = plan
        keys = plan.size / 100 * plan.livePercent / UInt64(plan.blockBytes)
        session = kv.session(plan.depth)
        memory = .allocate(byteCount: plan.depth * plan.blockBytes, alignment: 2 << 20)
        memory.initializeMemory(as: UInt8.self, repeating: 7)
        region = try kv.register(memory)
        pieces = .allocate(capacity: plan.depth)
        completions = .allocate(capacity: plan.depth)
        completions.initialize(
            repeating: StoreCompletion(token: 0, answer: StoreAnswer(token: 0, status: .done)))
        room = KeyRoom(capacity: plan.depth)
        random = SeededGenerator(seed: plan.seed)
        since = [UInt64](repeating: 0, count: plan.depth)
        asked = [UInt64](repeating: 0, count: plan.depth)
        for slot in 0..<plan.depth {
            (pieces + slot).initialize(
                to: region.corePiece(
                    offset: UInt64(slot * plan.blockBytes), length: UInt64(plan.blockBytes)))
        }
    }

    deinit {
        memory.deallocate()
        pieces.deallocate()
        completions.deallocate()
    }

    func go() throws(BenchError) -> [(String, JSONValue)] {
        var fresh: UInt64 = 0
        try run(count: keys) {
            fresh += 1
            return fresh - 1
        }
        try kv.flush()
        longest = 0
        refused = 0
        let before = try kv.statistics()
        let begin = monotonicNanoseconds()
        let count = plan.turns * plan.size / UInt64(plan.blockBytes)
        try run(count: count) { drawn() }
        let seconds = Double(monotonicNanoseconds() - begin) / 1e9
        let after = try kv.statistics()
        kv.unregister(region)
        kv.close()
        let admitted = after.puts.admittedBytes - before.puts.admittedBytes
        let written = after.writes.totalBytes - before.writes.totalBytes
        return [
            ("bytes_per_second", .number(Double(admitted) / seconds)),
            ("write_amplification", .number(Double(written) / Double(max(1, admitted)))),
            ("live_share", .number(Double(after.space.liveValueBytes) / Double(plan.size))),
            ("refused", .unsigned(refused)),
            ("longest_ms", .number(Double(longest) / 1e6)), ("seconds", .number(seconds)),
        ]
    }

    /// The key that is replaced next.
    private func drawn() -> UInt64 {
        let hot = keys * plan.hotPercent / 100
        let isHot = random.below(100) < plan.hotWritesPercent
        return isHot ? random.below(hot) : hot + random.below(keys - hot)
    }

    private func run(count: UInt64, key: () -> UInt64) throws(BenchError) {
        var issued: UInt64 = 0
        var inFlight = 0
        while inFlight < plan.depth, issued < count {
            try put(inFlight, key())
            issued += 1
            inFlight += 1
        }
        while inFlight > 0 {
            let polled = session.poll(into: completions, wait: UInt64.max)
            for index in 0..<polled {
                let slot = Int(completions[index].token)
                if try isUnderWay(slot, completions[index].answer) { continue }
                if issued < count {
                    try put(slot, key())
                    issued += 1
                } else {
                    inFlight -= 1
                }
            }
        }
    }

    private func put(_ slot: Int, _ key: UInt64) throws(BenchError) {
        asked[slot] = key
        since[slot] = monotonicNanoseconds()
        room.set(slot, key, Self.keyNamespace)
        try hand(slot)
    }

    private func hand(_ slot: Int) throws(BenchError) {
        var operation = kv.operation(.put, token: slot, room[slot])
        operation.pieces = UnsafePointer(pieces + slot)
        operation.pieceCount = 1
        operation.length = UInt32(plan.blockBytes)
        operation.replace = true
        let taken = withUnsafePointer(to: operation) {
            session.submit(UnsafeBufferPointer(start: $0, count: 1))
        }
        if taken != 1 { throw BenchError("the store is closed") }
    }

    /// A put that is throttled, or refused for want of room that compaction has yet to make, is
    /// tried again.
    private func isUnderWay(_ slot: Int, _ answer: StoreAnswer) throws(BenchError) -> Bool {
        let waited = monotonicNanoseconds() - since[slot]
        longest = max(longest, waited)
        switch answer.status {
        case .stored, .alreadyPresent: return false
        case .throttled, .noSpace:
            if waited > Self.wedged {
                throw BenchError(
                    "wedged: the put of key \(asked[slot]) is \(answer.status) for a minute")
            }
            refused += 1
            usleep(200)
            try hand(slot)
            return true
        default:
            let code = errorNumber(answer)
            throw BenchError("ended as \(answer.status): \(errorText(code))", code: code)
        }
    }
}
