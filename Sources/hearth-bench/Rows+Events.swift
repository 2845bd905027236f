// The row about what hints and predictions cost: processor time and calls of the allocator for
// each block that is hinted, read, guessed or taken back, in the core of a tiered store on this
// thread. No I/O is in it: what is wanted is queued, and taken back again.

import BenchKit
import BlockIO
import CMeasure
import Glibc
import Heat
import LogStore
import Prefetch
import SimulatedDisk
import Staging
import Tiering

enum EventsRow {
    static let options = ["events", "blocks"]

    struct Plan {
        var events: Int
        var blocks: Int
    }

    static func plan(_ options: RowOptions) throws(UsageError) -> Plan {
        Plan(
            events: Int(
                try options.integer("events", default: 1_000_000, in: 10_000...100_000_000)),
            blocks: Int(try options.integer("blocks", default: 8192, in: 1024...65_536)))
    }

    static func measure(_ plan: Plan) throws(BenchError) -> [(String, JSONValue)] {
        guard hearth_counts_allocations() != 0 else {
            throw BenchError("allocations are not counted in a build with a sanitizer")
        }
        let events = try EventPump(plan.blocks)
        var members: [(String, JSONValue)] = []
        var worst: (nanoseconds: Double, allocations: Double) = (0, 0)
        for kind in EventPump.Kind.allCases {
            _ = events.run(kind, 10_000)
            let begun = events.allocations
            let time = events.run(kind, plan.events)
            let calls = Double(events.allocations - begun) / Double(plan.events)
            let each = Double(time) / Double(plan.events)
            members.append(("ns_\(kind.rawValue)", .number(each)))
            worst = (max(worst.nanoseconds, each), max(worst.allocations, calls))
        }
        let bound = events.memoryBytes
        try events.close()
        return [
            ("us_per_event", .number(worst.nanoseconds / 1000)),
            ("allocations_per_event", .number(worst.allocations)),
            ("events", .unsigned(UInt64(plan.events))), ("blocks", .unsigned(UInt64(plan.blocks))),
            ("table_bytes", .integer(Int64(bound))), ("each", .object(members)),
        ]
    }
}

/// A tiered store with blocks of some shards on a simulated disk, a quarter of them in staging.
private final class EventPump: StoreSink {
    enum Kind: String, CaseIterable {
        /// Keys of queued requests, each request taken back again.
        case chain
        /// Keys that are not stored, under ever new requests.
        case unknown
        /// Pages of a layer of ever new steps.
        case pages
        /// Reads along chains: successors, and who stays.
        case read
        /// Reads of one shard, layer by layer.
        case part
    }

    private static let shards = 4
    private static let chain = 32
    private static let keyNamespace = stableHash("events")

    private let clock = SimulatedClock()
    private let driver: SimulatedDriver
    private let store: TieredStore
    private let blocks: Int
    private let keys: KeyRoom
    private let hintKeys: UnsafeMutablePointer<UnsafeRawBufferPointer>
    private let fingerprints: UnsafeMutablePointer<Fingerprint>
    private var namespaceSlot: UInt16 = 0
    private var controls = 0
    private var open = 0
    private var failure: BenchError?
    private var request: UInt64 = 0

    init(_ blocks: Int) throws(BenchError) {
        self.blocks = blocks / Self.chain * Self.chain
        var log = LogStoreConfiguration(
            directories: ["/events"], capacityBytes: UInt64(blocks) * 48 << 10 + (256 << 20),
            indexEntries: 2 * blocks, entropy: (1, 2, 3, 4))
        log.minimumSegmentBytes = 16 << 20
        log.maximumBlockBytes = 64 << 10
        log.operations = 1024
        log.tableCacheBytes = 4 << 20
        var staged = StagedConfiguration(
            log: log, stagingBytes: blocks / 4 * 20 << 10, inclusive: true)
        staged.slabBytes = 4096
        staged.keepsParts = true
        var configuration = TieredConfiguration(staged)
        configuration.prefetch.predictors = .all
        driver = SimulatedDriver(
            machine: SimulatedMachine(), regions: RegionTable(), clock: clock,
            latency: .constant(0), seed: 1,
            limits: DriverLimits(depth: 1024, transferBytes: 1 << 20))
        do throws(StoreError) {
            store = try TieredStore.open(configuration, driver: driver, clock: clock)
        } catch {
            throw BenchError("\(error)", code: error.errno)
        }
        // Half of the room is for keys that are not stored.
        keys = KeyRoom(capacity: 2 * blocks)
        hintKeys = .allocate(capacity: Self.chain)
        fingerprints = .allocate(capacity: 2 * blocks)
        store.sink = self
        store.staged.openNamespace(
            token: 1 << 33, fields: [("bench", "events")], aligned: true, timeToLive: 0,
            capBytes: 0)
        try settle { self.controls > 0 }
        for number in 0..<2 * blocks {
            keys.set(number, UInt64(number), Self.keyNamespace)
            (fingerprints + number).initialize(
                to: store.staged.log.fingerprint(namespaceSlot, keys[number]))
        }
        try fill()
    }

    deinit {
        hintKeys.deallocate()
        fingerprints.deallocate()
    }

    var allocations: UInt64 { hearth_thread_allocations() }
    var memoryBytes: Int { store.memoryBytes }

    private func settle(_ isDone: () -> Bool) throws(BenchError) {
        for _ in 0..<10_000_000 {
            let moved = store.pump()
            if let failure { throw failure }
            if isDone(), store.isIdle, driver.inFlight == 0, !moved { return }
            if !moved { driver.wait(until: clock.monotonic + 1_000_000) }
        }
        throw BenchError("the simulated store does not come to rest")
    }

    private func fill() throws(BenchError) {
        let bytes = Self.shards * 4096
        let memory = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 4096)
        defer { memory.deallocate() }
        memory.initializeMemory(as: UInt8.self, repeating: 7, count: bytes)
        var piece = Piece(
            region: .process, offset: UInt64(UInt(bitPattern: memory)), length: UInt64(bytes))
        var lengths = [UInt32](repeating: 4096, count: Self.shards)
        for number in 0..<blocks {
            var operation = StoreOperation(
                kind: .put, token: 1, namespaceSlot: namespaceSlot, key: keys[number])
            if number % Self.chain > 0 { operation.parent = keys[number - 1] }
            operation.length = UInt32(bytes)
            operation.shardCount = Self.shards
            operation.pieceCount = 1
            open += 1
            let failed = withUnsafePointer(to: &piece) { piece in
                lengths.withUnsafeMutableBufferPointer { lengths -> Bool in
                    operation.pieces = piece
                    operation.shardLengths = UnsafePointer(lengths.baseAddress)
                    guard store.submit(operation) else { return true }
                    for _ in 0..<1_000_000 where open > 0 {
                        if !store.pump() { driver.wait(until: clock.monotonic + 1_000_000) }
                    }
                    return open > 0
                }
            }
            if failed { throw BenchError("a put did not end") }
            if let failure { throw failure }
        }
        try settle { true }
    }

    // MARK: Running

    private static func processorTime() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// Nanoseconds of processor time for so many blocks.
    func run(_ kind: Kind, _ events: Int) -> UInt64 {
        var random = SeededGenerator(seed: 7)
        let begun = Self.processorTime()
        for turn in 0..<events / Self.chain {
            let chain = Int(random.below(UInt64(blocks / Self.chain)))
            switch kind {
            case .chain:
                request = UInt64(turn % 64) + 1
                hint(.cancel, from: 0, count: 0)
                hint(.chain, from: chain * Self.chain, count: Self.chain)
            case .unknown:
                request &+= 1
                hint(.chain, from: blocks + chain * Self.chain, count: Self.chain)
            case .pages:
                request = 99
                hint(.progress, from: 0, count: 0, step: turn / 2, layer: turn % 2)
                hint(
                    .pages, from: chain * Self.chain, count: Self.chain, step: turn / 2,
                    layer: turn % 2 + 1)
            case .read: read(chain * Self.chain, shard: nil)
            case .part: read(chain * Self.chain, shard: UInt32(turn % (Self.shards - 1)))
            }
        }
        return Self.processorTime() - begun
    }

    private func hint(
        _ kind: HintKind, from first: Int, count: Int, step: Int = 0, layer: Int = 0
    ) {
        var made = Hint(kind, namespaceSlot: namespaceSlot)
        made.request = request
        made.due = clock.monotonic
        made.step = UInt32(step)
        made.layer = UInt32(layer)
        if kind == .pages { (made.firstShard, made.shardCount) = (UInt32(layer), 1) }
        for place in 0..<count { (hintKeys + place).initialize(to: keys[first + place]) }
        store.hint(made, keys: UnsafeBufferPointer(start: hintKeys, count: count))
    }

    private func read(_ first: Int, shard: UInt32?) {
        guard let arena = store.staged.arena else { return }
        for number in first..<first + Self.chain {
            let resident = arena.find(fingerprints[number].stagingKey)?.slot
            var access = Access(
                kind: resident == nil ? .device : .resident, fingerprint: fingerprints[number])
            access.namespaceSlot = namespaceSlot
            access.key = keys[number]
            access.continues = number > first
            access.resident = resident?.index ?? -1
            if let shard { (access.firstShard, access.shardCount) = (shard, 1) }
            store.accessed(access)
            if let resident { arena.touch(resident) }
        }
    }

    func close() throws(BenchError) {
        store.beginClose()
        for _ in 0..<1_000_000 where !(store.isIdle && driver.inFlight == 0) {
            if !store.pump() { driver.wait(until: clock.monotonic + 1_000_000_000) }
        }
        store.shutdown()
        driver.shutdown()
    }

    // MARK: Answers

    func answered(_ answer: StoreAnswer) {
        open -= 1
        if answer.status != .stored { failure = BenchError("a put ended: \(answer.status)") }
    }

    func released(_ token: UInt64) {}

    func controlled(_ outcome: Outcome) {
        controls += 1
        if controls == 1 { namespaceSlot = UInt16(truncatingIfNeeded: outcome.version) }
    }

    func happened(_ event: StoreEvent) {}
}
