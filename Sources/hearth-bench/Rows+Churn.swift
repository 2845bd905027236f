// The row about reclaim: a cache that is too small for what is asked of it. Keys are drawn by a
// Zipf law, a miss is followed by a put, and blocks have different sizes; besides the hit ratio
// and what it cost in writes, the row tells what LRU and FIFO over single blocks would have had
// with as many bytes.

import BenchKit
import BlockIO
import Glibc
import Hearth
import Staging

/// What is asked for: keys by a Zipf law, each of a size that follows from it.
struct ChurnLoad {
    private static let sizes: [UInt32] = [64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20]
    static let largest = 1 << 20
    static let mean: UInt64 = (64 + 128 + 256 + 512 + 1024) * 1024 / 5

    let keys: Int
    /// The chance of a key up to this one.
    private let upTo: [Double]
    private var random: SeededGenerator

    init(keys: Int, exponent: Double, seed: UInt64) {
        self.keys = keys
        random = SeededGenerator(seed: seed)
        var sum = 0.0
        var upTo: [Double] = []
        upTo.reserveCapacity(keys)
        for rank in 1...keys {
            sum += pow(Double(rank), -exponent)
            upTo.append(sum)
        }
        self.upTo = upTo.map { $0 / sum }
    }

    mutating func next() -> Int {
        let drawn = random.unit()
        var low = 0
        var high = keys - 1
        while low < high {
            let middle = (low + high) / 2
            if upTo[middle] < drawn { low = middle + 1 } else { high = middle }
        }
        return low
    }

    static func size(_ key: Int) -> UInt32 {
        sizes[Int(scrambled(UInt64(key) ^ 0x512E) % UInt64(sizes.count))]
    }
}

/// A cache of single blocks, for comparison: least recently used or first in, first out.
struct BlockCache {
    private let room: UInt64
    private let recency: Bool
    private var held: UInt64 = 0
    /// Ring of the keys around `keys`, which is nobody: newest after it, oldest before it.
    private var newer: [Int]
    private var older: [Int]
    private var present: [Bool]

    init(bytes: UInt64, keys: Int, recency: Bool) {
        room = bytes
        self.recency = recency
        newer = [Int](repeating: keys, count: keys + 1)
        older = newer
        present = [Bool](repeating: false, count: keys)
    }

    private mutating func unlink(_ key: Int) {
        older[newer[key]] = older[key]
        newer[older[key]] = newer[key]
    }

    private mutating func link(_ key: Int) {
        let nobody = present.count
        older[key] = older[nobody]
        newer[key] = nobody
        newer[older[nobody]] = key
        older[nobody] = key
    }

    /// Whether the key was there; it is from now on.
    mutating func ask(_ key: Int) -> Bool {
        if present[key] {
            if recency {
                unlink(key)
                link(key)
            }
            return true
        }
        held += UInt64(ChurnLoad.size(key))
        present[key] = true
        link(key)
        while held > room {
            let oldest = newer[present.count]
            unlink(oldest)
            present[oldest] = false
            held -= UInt64(ChurnLoad.size(oldest))
        }
        return false
    }
}

enum ChurnRow {
    struct Plan {
        var directory: String
        var size: UInt64
        var turns: UInt64
        var depth: Int
        var amplification: Double
        var halfLife: Double
        var seed: UInt64

        var keys: Int { Int(2 * size / ChurnLoad.mean) }
        func load() -> ChurnLoad { ChurnLoad(keys: keys, exponent: 0.9, seed: seed) }
    }

    static let options = [
        "directory", "size", "turns", "iodepth", "amplification-percent", "half-life-percent",
        "seed",
    ]

    static func plan(_ options: RowOptions) throws(UsageError) -> Plan {
        Plan(
            directory: try options.text("directory"),
            size: try options.size("size", default: 4 << 30),
            turns: try options.integer("turns", default: 5, in: 2...1000),
            depth: Int(try options.integer("iodepth", default: 16, in: 1...256)),
            amplification: Double(
                try options.integer("amplification-percent", default: 115, in: 100...400)) / 100,
            halfLife: Double(
                try options.integer("half-life-percent", default: 50, in: 1...10_000)) / 100,
            seed: try options.integer("seed", default: 1, in: 0...UInt64.max))
    }

    static func measure(_ plan: Plan) throws(BenchError) -> [(String, JSONValue)] {
        var configuration = Configuration(
            directory: plan.directory, capacityBytes: plan.size)
        configuration.maximumBlockBytes = ChurnLoad.largest
        configuration.minimumSegmentBytes = 64 << 20
        configuration.expectedBlockBytes = 64 << 10
        configuration.stagingBytes = 0
        configuration.writeAmplification = plan.amplification
        configuration.heatHalfLife = plan.halfLife
        let run = try ChurnRun(KvStore(configuration), plan)
        try run.go()
        return try run.members()
    }
}

/// One run: `depth` requests at a time, each a get and, after a miss, a put.
private final class ChurnRun {
    private static let keyNamespace = stableHash("churn")

    private let kv: KvStore
    private let plan: ChurnRow.Plan
    private var load: ChurnLoad
    private let session: Session
    private let memory: UnsafeMutableRawBufferPointer
    private let region: MemoryRegion
    private let pieces: UnsafeMutablePointer<Piece>
    private let completions: UnsafeMutableBufferPointer<StoreCompletion>
    private let room: KeyRoom
    private var asked: [Int]
    private var since: [UInt64]
    private var putBytes: UInt64 = 0
    private var gets: UInt64 = 0
    private var hits: UInt64 = 0
    private var wrong: UInt64 = 0
    private var longest: UInt64 = 0
    private var liveSum = 0.0
    private var liveSamples = 0.0
    private var seconds = 0.0

    init(_ kv: KvStore, _ plan: ChurnRow.Plan) throws(BenchError) {
        self.kv = kv
        self.plan = plan
        load = plan.load()
        session = kv.session(plan.depth)
        memory = .allocate(byteCount: plan.depth * ChurnLoad.largest, alignment: 2 << 20)
        memory.initializeMemory(as: UInt8.self, repeating: 7)
        region = try kv.register(memory)
        pieces = .allocate(capacity: plan.depth)
        completions = .allocate(capacity: plan.depth)
        completions.initialize(
            repeating: StoreCompletion(token: 0, answer: StoreAnswer(token: 0, status: .done)))
        room = KeyRoom(capacity: plan.depth)
        asked = [Int](repeating: 0, count: plan.depth)
        since = [UInt64](repeating: 0, count: plan.depth)
    }

    deinit {
        memory.deallocate()
        pieces.deallocate()
        completions.deallocate()
    }

    private var isSecondHalf: Bool { 2 * putBytes >= plan.turns * plan.size }
    private var isOver: Bool { putBytes >= plan.turns * plan.size }

    func go() throws(BenchError) {
        let begin = monotonicNanoseconds()
        var inFlight = 0
        for slot in 0..<plan.depth {
            try ask(slot)
            inFlight += 1
        }
        var count = 0
        while inFlight > 0 {
            let polled = session.poll(into: completions, wait: UInt64.max)
            for index in 0..<polled {
                let slot = Int(completions[index].token)
                if try ended(slot, completions[index].answer) { continue }
                if isOver {
                    inFlight -= 1
                } else {
                    try ask(slot)
                }
            }
            count += polled
            if isSecondHalf, count > 2000 {
                count = 0
                liveSum += Double(try kv.statistics().space.liveValueBytes)
                liveSamples += 1
            }
        }
        seconds = Double(monotonicNanoseconds() - begin) / 1e9
    }

    private func ask(_ slot: Int) throws(BenchError) {
        asked[slot] = load.next()
        since[slot] = monotonicNanoseconds()
        room.set(slot, UInt64(asked[slot]), Self.keyNamespace)
        try hand(.get, slot)
    }

    private func hand(_ kind: StoreOperationKind, _ slot: Int) throws(BenchError) {
        let length = ChurnLoad.size(asked[slot])
        (pieces + slot).initialize(
            to: region.corePiece(
                offset: UInt64(slot * ChurnLoad.largest), length: UInt64(length)))
        var operation = kv.operation(kind, token: slot, room[slot])
        operation.mode = .direct
        operation.pieces = UnsafePointer(pieces + slot)
        operation.pieceCount = 1
        if kind == .put { operation.length = length }
        let taken = withUnsafePointer(to: operation) {
            session.submit(UnsafeBufferPointer(start: $0, count: 1))
        }
        if taken != 1 { throw BenchError("the store is closed") }
    }

    /// Whether the slot goes on with its request.
    private func ended(_ slot: Int, _ answer: StoreAnswer) throws(BenchError) -> Bool {
        let length = Int(ChurnLoad.size(asked[slot]))
        let bytes = UnsafeMutableRawBufferPointer(
            rebasing: memory[slot * ChurnLoad.largest..<slot * ChurnLoad.largest + length])
        let now = monotonicNanoseconds()
        longest = max(longest, now - since[slot])
        since[slot] = now
        switch answer.status {
        case .hit:
            if isSecondHalf {
                gets += 1
                hits += 1
            }
            let marks = [0, length - 8].map {
                bytes.loadUnaligned(fromByteOffset: $0, as: UInt64.self)
            }
            if marks.contains(where: { $0 != UInt64(asked[slot]) }) { wrong += 1 }
            return false
        case .miss:
            if isSecondHalf { gets += 1 }
            for place in [0, length - 8] {
                bytes.storeBytes(of: UInt64(asked[slot]), toByteOffset: place, as: UInt64.self)
            }
            try hand(.put, slot)
            return true
        case .stored:
            putBytes += UInt64(length)
            return false
        case .alreadyPresent: return false
        case .throttled:
            usleep(200)
            try hand(.put, slot)
            return true
        default:
            let code = errorNumber(answer)
            throw BenchError("ended as \(answer.status): \(errorText(code))", code: code)
        }
    }

    func members() throws(BenchError) -> [(String, JSONValue)] {
        let statistics = try kv.statistics()
        kv.unregister(region)
        kv.close()
        if wrong > 0 { throw BenchError("\(wrong) hits with wrong bytes") }
        let live = liveSum / max(1, liveSamples)
        return [
            ("hit_ratio", .number(Double(hits) / Double(max(1, gets)))),
            ("lru_ratio", .number(compare(bytes: UInt64(live), recency: true))),
            ("fifo_ratio", .number(compare(bytes: UInt64(live), recency: false))),
            ("live_bytes", .number(live)),
            ("write_amplification", .number(statistics.writes.amplification)),
            ("reinserted_bytes", .unsigned(statistics.writes.reinsertedBytes)),
            ("put_bytes", .unsigned(putBytes)), ("gets", .unsigned(gets)),
            ("longest_ms", .number(Double(longest) / 1e6)), ("seconds", .number(seconds)),
        ]
    }

    /// The hit ratio of a cache of single blocks under the same load, over the second half.
    private func compare(bytes: UInt64, recency: Bool) -> Double {
        var load = plan.load()
        var cache = BlockCache(bytes: bytes, keys: plan.keys, recency: recency)
        var put: UInt64 = 0
        var gets = 0.0
        var hits = 0.0
        while put < plan.turns * plan.size {
            let key = load.next()
            let counts = 2 * put >= plan.turns * plan.size
            if counts { gets += 1 }
            if cache.ask(key) {
                if counts { hits += 1 }
            } else {
                put += UInt64(ChurnLoad.size(key))
            }
        }
        return hits / max(1, gets)
    }
}
