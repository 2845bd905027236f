// VirtualStore: the store under a replay in virtual time: the very core, pumped here, on a
// simulated disk. A block of the model is stood for by a smaller one; the disk's buses are slowed
// down by the same factor, so that a block takes as long as the model's would. Limits of the store
// that are told in bytes and have to do with time are scaled with it: as many reads of neighbours
// are joined as make the longest joined read of the model's blocks (none, where one is longer); a
// group is a few blocks; and what may be under way early is told in blocks. The same options give
// the same run to the nanosecond.

import BenchKit
import BlockIO
import Hearth
import LogStore
import Prefetch
import SimulatedDisk
import Staging
import Tiering

final class VirtualStore: TimedStore {
    private let plan: TimedStorePlan
    private let clock: SimulatedClock
    private let driver: SimulatedDriver
    private let store: TieredStore
    private var namespaceSlot: UInt16 = 0
    /// The clock's time when the replay began.
    private var begun: UInt64 = 0
    private var controls = 0

    // Loading and putting: a window of places each, with key and memory; then the parents' keys.
    private let window: Int
    private let keys: KeyRoom
    private let memory: UnsafeMutableRawBufferPointer
    private let stride: Int
    private let pieces: UnsafeMutablePointer<Piece>
    private var freeGets: [Int] = []
    private var freePuts: [Int] = []
    /// By place of a get: its place in the request.
    private var places: [Int]

    private var load = BlockLoad()
    private var failure: BenchError?

    private var hintedKeys = HintedKeys()
    private var stored: UInt64 = 0
    private var refused: UInt64 = 0

    private static let putBit: UInt64 = 1 << 32
    private static let controlToken: UInt64 = 1 << 33

    init(_ plan: TimedStorePlan) throws(BenchError) {
        self.plan = plan
        clock = SimulatedClock()
        driver = SimulatedDriver(
            machine: SimulatedMachine(), regions: RegionTable(), clock: clock,
            latency: plan.latency, seed: plan.seed,
            limits: DriverLimits(depth: 4096, transferBytes: 1 << 20))
        // Nobody looks at a destination before its read has ended; here that only costs time.
        driver.scribblesReads = false
        do throws(StoreError) {
            store = try TieredStore.open(plan.configuration, driver: driver, clock: clock)
        } catch {
            throw BenchError("\(error)", code: error.errno)
        }
        stride = (plan.blockBytes + 4095) / 4096 * 4096
        window = max(16, min(1024, (64 << 20) / stride))
        keys = KeyRoom(capacity: 3 * window + 1)
        memory = .allocate(byteCount: stride * 2 * window, alignment: 4096)
        memory.initializeMemory(as: UInt8.self, repeating: 0)
        pieces = .allocate(capacity: 2 * window)
        places = .init(repeating: 0, count: window)
        for place in 0..<2 * window {
            let address = memory.baseAddress.map { UInt(bitPattern: $0 + place * stride) } ?? 0
            (pieces + place).initialize(
                to: Piece(
                    region: .process, offset: UInt64(address), length: UInt64(plan.blockBytes)))
        }
        freeGets = Array((0..<window).reversed())
        freePuts = Array((window..<2 * window).reversed())
        store.sink = self
        store.staged.openNamespace(
            token: Self.controlToken, fields: [("bench", "replay")], aligned: false, timeToLive: 0,
            capBytes: 0)
        try settle()
        begun = clock.monotonic
    }

    deinit {
        pieces.deallocate()
        memory.deallocate()
    }

    private func settle() throws(BenchError) {
        for _ in 0..<1_000_000 {
            let moved = store.pump()
            if controls > 0, store.isRecovered, store.isIdle, driver.inFlight == 0, !moved {
                return
            }
            if !moved { driver.wait(until: clock.monotonic + 1_000_000) }
        }
        throw BenchError(
            "the simulated store does not come to rest: \(store.staged.log.diagnosis)")
    }

    // MARK: Time

    var now: UInt64 { clock.monotonic - begun }

    func pass(until time: UInt64, loading: Bool) throws(BenchError) {
        let (end, overflow) = time.addingReportingOverflow(begun)
        let target = overflow ? UInt64.max : end
        while true {
            while store.pump() {}
            // What is asked for now is on its way before anybody waits.
            if loading, loadMore() { continue }
            if let failure { throw failure }
            let time = clock.monotonic
            if time >= target || loading && isLoaded { return }
            // A deadline that has passed and moved nothing is not waited for twice.
            driver.wait(until: min(target, max(store.nextDeadline, time + 1000)))
        }
    }

    // MARK: Telling

    private func hint(_ hint: Hint, _ blocks: ArraySlice<Int32>) {
        hintedKeys.with(blocks) { store.hint(hint, keys: $0) }
    }

    func announce(_ request: Int, _ blocks: ArraySlice<Int32>, due: UInt64) {
        hint(.announcing(request, due: due + begun, slot: namespaceSlot), blocks)
    }

    func withdraw(_ request: Int) { hint(.withdrawing(request, slot: namespaceSlot), []) }

    func ended(_ request: Int, _ blocks: ArraySlice<Int32>) {
        hint(.ending(request, slot: namespaceSlot), blocks)
    }

    func told(_ session: Int32, goesOn: Bool, _ blocks: ArraySlice<Int32>) {
        hint(.telling(session, goesOn: goesOn, slot: namespaceSlot), blocks)
    }

    // MARK: Asking

    private func fingerprint(_ block: Int32) -> Fingerprint {
        let place = 3 * window
        keys.set(place, UInt64(block), HearthReplayStore.keyNamespace)
        return store.staged.log.fingerprint(namespaceSlot, keys[place])
    }

    private func isResident(_ fingerprint: Fingerprint) -> Bool {
        store.staged.arena?.find(fingerprint.stagingKey)?.state.isVisible ?? false
    }

    private func present(_ blocks: ArraySlice<Int32>) -> Int {
        var count = 0
        for block in blocks {
            let name = fingerprint(block)
            guard isResident(name) || store.staged.log.lookup(name).entry != nil else { break }
            count += 1
        }
        return count
    }

    func claim(_ blocks: ArraySlice<Int32>, tokens: Int) -> TimedClaim {
        switch plan.claims {
        case .all:
            let present = present(blocks)
            return TimedClaim(present: present, claimed: present)
        case .residents:
            var residents = 0
            for block in blocks {
                guard isResident(fingerprint(block)) else { break }
                residents += 1
            }
            return TimedClaim(present: residents, claimed: residents)
        case .profitable:
            let made = judge(blocks, tokens: tokens, claims: true)
            return TimedClaim(present: made.present, claimed: made.blocks)
        }
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
        let place = 3 * window
        return store.decide(
            ask, namespaceSlot: namespaceSlot, keys: whole, claims: claims
        ) { number in
            let block = UInt64(blocks[blocks.startIndex + number])
            keys.set(place, block, HearthReplayStore.keyNamespace)
            return store.staged.prefixBlock(namespaceSlot, keys[place])
        }
    }

    // MARK: Loading

    var isLoaded: Bool { load.isLoaded }
    var isAsked: Bool { load.isAsked }

    func load(_ blocks: ArraySlice<Int32>) throws(BenchError) {
        // What is resident is settled before anything is loaded.
        load = BlockLoad(blocks, asksSingly: plan.asksSingly) { isResident(fingerprint($0)) }
        _ = loadMore()
        while store.pump() {}
    }

    /// Asks for more of the blocks. Whether it asked.
    private func loadMore() -> Bool {
        let first = load.next
        while load.mayAsk, let place = freeGets.popLast() {
            places[place] = load.nextPlace
            keys.set(place, UInt64(load.wanted[load.nextPlace]), HearthReplayStore.keyNamespace)
            var operation = StoreOperation(
                kind: .get, token: UInt64(place), namespaceSlot: namespaceSlot, key: keys[place])
            operation.mode = .cached
            operation.continues = plan.asksSingly && load.next > 0
            operation.pieces = UnsafePointer(pieces + place)
            operation.pieceCount = 1
            load.next += 1
            if !store.submit(operation) {
                load.next -= 1
                freeGets.append(place)
                break
            }
        }
        return load.next > first
    }

    func loaded() throws(BenchError) -> TimedLoad { load.result }

    private func gotten(_ answer: StoreAnswer, _ place: Int) {
        freeGets.append(place)
        load.ended += 1
        let at = places[place]
        guard answer.status == .hit else {
            load.outcomes[at] = .miss
            if answer.status != .miss { fail("get", answer) }
            return
        }
        let bytes = UnsafeRawBufferPointer(
            rebasing: memory[place * stride..<place * stride + plan.blockBytes])
        load.check(bytes, at: at, isWhole: answer.delivered == UInt64(plan.blockBytes))
    }

    private func fail(_ what: String, _ answer: StoreAnswer) {
        let code = errorNumber(answer)
        failure = BenchError("a \(what) ended as \(answer.status): \(errorText(code))", code: code)
    }

    // MARK: Putting and touching

    func put(_ blocks: ArraySlice<Int32>, parent: Int32) throws(BenchError) {
        // The last one first, as above.
        for (index, block) in zip(blocks.indices, blocks).reversed() {
            let before = index == blocks.startIndex ? parent : blocks[index - 1]
            guard let place = freePuts.popLast() else {
                // The engine needs its memory back: what finds no room now is not stored.
                refused += 1
                continue
            }
            let bytes = UnsafeMutableRawBufferPointer(
                rebasing: memory[place * stride..<place * stride + plan.blockBytes])
            Payload.fill(
                bytes, namespace: ReplayDriver.namespace, key: UInt64(block), revision: 0)
            keys.set(place, UInt64(block), HearthReplayStore.keyNamespace)
            var operation = StoreOperation(
                kind: .put, token: UInt64(place) | Self.putBit, namespaceSlot: namespaceSlot,
                key: keys[place])
            if before >= 0 {
                keys.set(place + window, UInt64(before), HearthReplayStore.keyNamespace)
                operation.parent = keys[place + window]
            }
            operation.pieces = UnsafePointer(pieces + place)
            operation.pieceCount = 1
            operation.length = UInt32(plan.blockBytes)
            operation.durability = .volatile
            if !store.submit(operation) {
                freePuts.append(place)
                refused += 1
            }
        }
        while store.pump() {}
        if let failure { throw failure }
    }

    var puts: (stored: UInt64, unwritten: UInt64, refused: UInt64) {
        (stored, store.staged.statistics.unwrittenPuts, refused)
    }

    var prefetchFigures: PrefetchFigures { PrefetchFigures(store.prefetchStatistics) }

    var deviceBytesWritten: UInt64 {
        let log = store.staged.log.statistics
        return log.groupBytes + log.metadataBytes + log.checkpointBytes
    }

    func close() throws(BenchError) {
        store.beginClose()
        for _ in 0..<10_000_000 {
            if store.isIdle && driver.inFlight == 0 { break }
            if !store.pump() { driver.wait(until: clock.monotonic + 1_000_000_000) }
        }
        store.shutdown()
        driver.shutdown()
    }
}

extension VirtualStore: StoreSink {
    func answered(_ answer: StoreAnswer) {
        guard answer.token & Self.putBit != 0 else { return gotten(answer, Int(answer.token)) }
        freePuts.append(Int(answer.token & ~Self.putBit))
        switch answer.status {
        case .stored: stored += 1
        case .alreadyPresent: break
        case .noSpace, .notAdmitted, .throttled: refused += 1
        default: fail("put", answer)
        }
    }

    func released(_ token: UInt64) {}

    func controlled(_ outcome: Outcome) {
        controls += 1
        if controls == 1 { namespaceSlot = UInt16(truncatingIfNeeded: outcome.version) }
    }

    func happened(_ event: StoreEvent) {}
}

extension PrefetchFigures {
    init(_ statistics: PrefetchStatistics) {
        self.init()
        let total = statistics.total
        (issued, useful, timely) = (total.issued, total.useful, total.timely)
        (wastedBytes, pollution) = (total.wastedBytes, statistics.pollution)
        demandMisses = statistics.demandMisses
        latenessMean = Double(statistics.lateness.mean) / 1e9
        latenessP99 = Double(statistics.lateness.percentile(0.99)) / 1e9
        setLeads(early: statistics.lead.octaves, late: statistics.lateOctaves)
    }
}
