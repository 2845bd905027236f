// RealStore: the store under a replay in real time: an open store of files, used through sessions
// as the C interface uses it, with hints, prefetching and claims as an engine would have them. Time
// is the machine's; waiting for it, the replay sleeps until shortly before.
//
// What the replay does and an engine would not is kept out of what is timed: the bytes of blocks
// to be put are made while the prefill before is waited for, and the bytes of blocks read are
// checked after their loading was timed, in the prefill that follows. Where that is too short, the
// next turn begins late, and the report tells by how much (`slip_s`). Blocks are leased, so that
// nothing is copied; where leases run out, or slabs, they are read into memory of the replay.

import BenchKit
import BlockIO
import Hearth
import Prefetch
import Staging
import Tiering

final class RealStore: TimedStore {
    private let plan: TimedStorePlan
    private let kv: KvStore
    private let session: Session
    private let begun: UInt64

    // A place each for what is read, and behind them for what is put: memory, piece and key; then
    // the parents' keys, and one key to ask with.
    private let window: Int
    private let stride: Int
    private let memory: UnsafeMutableRawBufferPointer
    private let pieces: UnsafeMutablePointer<Piece>
    private let keys: KeyRoom
    private var freeGets: [Int]
    private var freePuts: [Int]
    /// By place of a get: its place in the request.
    private var places: [Int]
    /// By place of a get that has ended and was not checked yet.
    private var gotten: [StoreCompletion?]
    private let mostLeases: Int
    private var leases = 0

    private var load = BlockLoad()
    private var failure: BenchError?

    /// Blocks whose bytes are made, with their places.
    private var prepared: [(block: Int32, place: Int)] = []
    private var stored: UInt64 = 0
    private var refused: UInt64 = 0
    private let completions: UnsafeMutableBufferPointer<StoreCompletion>

    private var hintedKeys = HintedKeys()

    private static let putBit: UInt64 = 1 << 32
    /// Nanoseconds before a time that is waited for, without sleeping.
    private static let awake: UInt64 = 100_000
    /// Bytes of memory for what is read, and as many for what is put.
    private static let mostMemory = 2 << 30

    init(_ plan: TimedStorePlan, in directory: String) throws(BenchError) {
        self.plan = plan
        kv = try KvStore(Self.configuration(plan, directory), namespace: "replay")
        stride = (plan.blockBytes + 4095) / 4096 * 4096
        window = max(16, min(plan.widest, Self.mostMemory / stride))
        keys = KeyRoom(capacity: 3 * window + 1)
        memory = .allocate(byteCount: stride * 2 * window, alignment: 4096)
        pieces = .allocate(capacity: 2 * window)
        for place in 0..<2 * window {
            let at = memory.baseAddress.map { UInt(bitPattern: $0) } ?? 0
            (pieces + place).initialize(
                to: Piece(
                    region: .process, offset: UInt64(at) + UInt64(place * stride),
                    length: UInt64(plan.blockBytes)))
        }
        places = .init(repeating: 0, count: window)
        gotten = .init(repeating: nil, count: window)
        freeGets = Array((0..<window).reversed())
        freePuts = Array((window..<2 * window).reversed())
        let configuration = kv.configuration
        let slabs = (configuration.stagingBytes ?? 0) / configuration.slabBytes
        mostLeases = max(0, slabs / 4 / max(1, stride / configuration.slabBytes) - 1)
        session = kv.session(2 * window)
        completions = .allocate(capacity: 256)
        completions.initialize(
            repeating: StoreCompletion(token: 0, answer: StoreAnswer(token: 0, status: .done)))
        begun = kv.store.monotonicNanoseconds
    }

    deinit {
        pieces.deallocate()
        memory.deallocate()
        completions.deallocate()
    }

    private static func configuration(
        _ plan: TimedStorePlan, _ directory: String
    ) -> Configuration {
        var shape = KvShape(
            directory: directory, blockBytes: plan.blockBytes,
            valueBytes: max(plan.capacity, UInt64(plan.blockBytes)))
        shape.slabBytes = Int(clamping: plan.dram)
        shape.operations = 4096
        var made = shape.configuration()
        made.prefetch =
            switch plan.prefetch {
            case .off, .oracle: .off
            case .chain: .chain
            case .successor: .successor
            case .layer: .layer
            case .session: .session
            case .all: .all
            }
        if shape.slabBytes > 0 { made.overload = .memory }
        made.memoryLimitBytes = max(32 << 20, made.memorySplit.total + (64 << 20))
        return made
    }

    private func bytes(_ place: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(
            rebasing: memory[place * stride..<place * stride + plan.blockBytes])
    }

    // MARK: Time

    var now: UInt64 { kv.store.monotonicNanoseconds - begun }

    func pass(until time: UInt64, loading: Bool) throws(BenchError) {
        while true {
            if loading, loadMore() { continue }
            reap(wait: 0)
            if let failure { throw failure }
            let now = now
            if now >= time || loading && isLoaded { return }
            // A thread that sleeps is woken late; the last bit is waited for awake.
            let left = time - now
            reap(wait: left > 2 * Self.awake ? min(left - Self.awake, 100_000_000) : 0)
        }
    }

    // MARK: Telling

    private func hint(_ hint: Hint, _ blocks: ArraySlice<Int32>) {
        hintedKeys.with(blocks) { _ = kv.store.give(hint, in: kv.namespace, keys: $0) }
        kv.store.ringForHints()
    }

    func announce(_ request: Int, _ blocks: ArraySlice<Int32>, due: UInt64) {
        hint(.announcing(request, due: due + begun), blocks)
    }

    func withdraw(_ request: Int) { hint(.withdrawing(request), []) }

    func ended(_ request: Int, _ blocks: ArraySlice<Int32>) { hint(.ending(request), blocks) }

    func told(_ session: Int32, goesOn: Bool, _ blocks: ArraySlice<Int32>) {
        hint(.telling(session, goesOn: goesOn), blocks)
    }

    // MARK: Asking

    private func key(_ block: Int32) -> UnsafeRawBufferPointer {
        keys.set(3 * window, UInt64(block), HearthReplayStore.keyNamespace)
        return keys[3 * window]
    }

    func claim(_ blocks: ArraySlice<Int32>, tokens: Int) -> TimedClaim {
        switch plan.claims {
        case .all:
            let present = present(blocks)
            return TimedClaim(present: present, claimed: present)
        case .residents:
            let residents = blocks.prefix { kv.store.isResident(key($0), in: kv.namespace) }.count
            return TimedClaim(present: residents, claimed: residents)
        case .profitable:
            let made = judge(blocks, tokens: tokens, claims: true)
            return TimedClaim(present: made.present, claimed: made.blocks)
        }
    }

    private func present(_ blocks: ArraySlice<Int32>) -> Int {
        blocks.prefix { session.contains(key($0), in: kv.namespace) }.count
    }

    func forecast(_ blocks: ArraySlice<Int32>, tokens: Int) -> Double {
        if plan.claims != .profitable {
            return plan.model.compute(tokens: tokens, cachedBlocks: present(blocks))
        }
        return Double(judge(blocks, tokens: tokens, claims: false).endIn) / 1e9
    }

    private func judge(
        _ blocks: ArraySlice<Int32>, tokens: Int, claims: Bool
    ) -> PrefixDecision {
        let (ask, whole) = PrefixAsk.of(plan.model, blocks: blocks.count, tokens: tokens)
        return kv.store.judgePrefix(ask, in: kv.namespace, count: whole, claims: claims) {
            number, body in body(key(blocks[blocks.startIndex + number]))
        }
    }

    // MARK: Loading

    var isLoaded: Bool { load.isLoaded }
    var isAsked: Bool { load.isAsked }

    func load(_ blocks: ArraySlice<Int32>) throws(BenchError) {
        load = BlockLoad(blocks, asksSingly: plan.asksSingly) {
            kv.store.isResident(key($0), in: kv.namespace)
        }
        _ = loadMore()
    }

    /// Asks for more of the blocks. Each is handed over by itself: the order of a batch would say
    /// that the one before follows. Whether it asked.
    private func loadMore() -> Bool {
        let first = load.next
        while load.mayAsk {
            // A request of more blocks than there are places: what has come is checked now.
            if freeGets.isEmpty { check() }
            guard let place = freeGets.popLast() else { break }
            places[place] = load.nextPlace
            keys.set(place, UInt64(load.wanted[load.nextPlace]), HearthReplayStore.keyNamespace)
            let isLease = leases < mostLeases
            guard ask(place, isLease ? .lease : plan.dram > 0 ? .cached : .direct) else {
                freeGets.append(place)
                break
            }
            if isLease { leases += 1 }
            load.next += 1
        }
        return load.next > first
    }

    private func ask(_ place: Int, _ mode: GetMode) -> Bool {
        var operation = kv.operation(.get, token: place, keys[place])
        operation.mode = mode
        operation.pieces = UnsafePointer(pieces + place)
        operation.pieceCount = 1
        return submit(operation)
    }

    private func submit(_ operation: StoreOperation) -> Bool {
        withUnsafePointer(to: operation) {
            session.submit(UnsafeBufferPointer(start: $0, count: 1)) == 1
        }
    }

    func loaded() throws(BenchError) -> TimedLoad {
        check()
        return load.result
    }

    /// Checks what has come, and gives its places and leases back.
    private func check() {
        for place in gotten.indices {
            guard let completion = gotten[place] else { continue }
            gotten[place] = nil
            let lease = completion.answer.lease
            var found = UnsafeRawBufferPointer(bytes(place))
            if lease >= 0 {
                if let leased = kv.leased(completion) {
                    found = leased
                } else if !kv.copy(completion, into: bytes(place)) {
                    found = UnsafeRawBufferPointer(start: nil, count: 0)
                }
            }
            load.check(
                found, at: places[place],
                isWhole: completion.answer.delivered == UInt64(plan.blockBytes)
                    && found.count == plan.blockBytes)
            if lease >= 0 { session.endLease(lease) }
            freeGets.append(place)
        }
        leases = 0
    }

    // MARK: Putting

    /// Makes the bytes of what will be put, the last one first.
    func prepare(_ blocks: ArraySlice<Int32>) throws(BenchError) {
        for entry in prepared { freePuts.append(entry.place) }
        prepared.removeAll(keepingCapacity: true)
        for block in blocks.reversed() {
            // What was put before is taken over soon.
            while freePuts.isEmpty, prepared.count < window, session.count > 0 {
                reap(wait: 100_000_000)
                if let failure { throw failure }
            }
            guard let place = freePuts.popLast() else { break }
            Payload.fill(
                bytes(place), namespace: ReplayDriver.namespace, key: UInt64(block), revision: 0)
            prepared.append((block, place))
        }
    }

    func put(_ blocks: ArraySlice<Int32>, parent: Int32) throws(BenchError) {
        if prepared.first?.block != blocks.last { try prepare(blocks) }
        refused += UInt64(blocks.count - prepared.count)
        for (index, entry) in zip(blocks.indices.reversed(), prepared) {
            let before = index == blocks.startIndex ? parent : blocks[index - 1]
            let place = entry.place
            keys.set(place, UInt64(entry.block), HearthReplayStore.keyNamespace)
            var operation = kv.operation(.put, token: place, keys[place])
            operation.token |= Self.putBit
            if before >= 0 {
                keys.set(place + window, UInt64(before), HearthReplayStore.keyNamespace)
                operation.parent = keys[place + window]
            }
            operation.pieces = UnsafePointer(pieces + place)
            operation.pieceCount = 1
            operation.length = UInt32(plan.blockBytes)
            operation.durability = plan.dram > 0 ? .volatile : .written
            if !submit(operation) {
                freePuts.append(place)
                refused += 1
            }
        }
        prepared.removeAll(keepingCapacity: true)
        reap(wait: 0)
        if let failure { throw failure }
    }

    // MARK: What has ended

    private func reap(wait: UInt64) {
        let count = session.poll(into: completions, wait: wait)
        for index in 0..<count {
            let completion = completions[index]
            if completion.token & Self.putBit != 0 {
                putEnded(completion)
            } else {
                getEnded(completion, Int(completion.token))
            }
        }
    }

    private func getEnded(_ completion: StoreCompletion, _ place: Int) {
        switch completion.answer.status {
        case .hit: gotten[place] = completion
        case .miss:
            load.outcomes[places[place]] = .miss
            freeGets.append(place)
        case .throttled:
            // No slab is free, or no lease: past the slabs, then.
            if ask(place, .direct) { return }
            fail("get", completion.answer)
        default:
            freeGets.append(place)
            fail("get", completion.answer)
        }
        load.ended += 1
    }

    private func putEnded(_ completion: StoreCompletion) {
        freePuts.append(Int(completion.token & ~Self.putBit))
        switch completion.answer.status {
        case .stored: stored += 1
        case .alreadyPresent: break
        case .noSpace, .notAdmitted, .throttled: refused += 1
        default: fail("put", completion.answer)
        }
    }

    private func fail(_ what: String, _ answer: StoreAnswer) {
        let code = errorNumber(answer)
        failure = BenchError("a \(what) ended as \(answer.status): \(errorText(code))", code: code)
    }

    // MARK: What it tells

    var puts: (stored: UInt64, unwritten: UInt64, refused: UInt64) {
        (stored, (try? kv.statistics().puts.unwritten) ?? 0, refused)
    }

    var prefetchFigures: PrefetchFigures {
        guard let figures = try? kv.statistics().prefetch else { return PrefetchFigures() }
        return PrefetchFigures(figures)
    }

    var deviceBytesWritten: UInt64 { (try? kv.statistics().writes.totalBytes) ?? 0 }

    func close() throws(BenchError) {
        while session.count > 0 { reap(wait: 100_000_000) }
        check()
        kv.close()
        // What failed last, nobody has been told of.
        if let failure { throw failure }
    }
}

extension PrefixAsk {
    /// What a request with so many tokens asks, and of how many blocks: a last block that is not
    /// full is never there.
    static func of(_ model: PrefillModel, blocks: Int, tokens: Int) -> (PrefixAsk, whole: Int) {
        let whole = min(blocks, tokens / model.blockTokens)
        var ask = PrefixAsk(tokensPerBlock: UInt32(model.blockTokens))
        ask.tokensPerSecond = model.rate
        ask.tokensAfter = UInt64(max(1, tokens - whole * model.blockTokens))
        ask.layers = UInt32(model.layers)
        return (ask, whole)
    }
}

extension PrefetchFigures {
    init(_ statistics: Statistics.Prefetch) {
        self.init()
        func sum(_ counts: [String: UInt64]) -> UInt64 { counts.values.reduce(0, +) }
        issued = sum(statistics.issuedByPredictor)
        useful = sum(statistics.usefulByPredictor)
        timely = sum(statistics.timelyByPredictor)
        (wastedBytes, pollution) = (statistics.wastedBytes, statistics.pollution)
        demandMisses = statistics.demandMisses
        latenessMean = Double(statistics.latenessMean) / 1e9
        latenessP99 = Double(statistics.latenessP99) / 1e9
        setLeads(early: statistics.leads, late: statistics.lates)
    }
}
