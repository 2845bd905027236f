// TieredWorld: a tiered store on a simulated machine, driven in virtual time, and the payloads by
// which every hit is checked.

import BlockIO
import Heat
import LogStore
import Prefetch
import SegmentFormat
import SimulatedDisk
import Staging
import Testing
import Tiering

/// Collects answers by token.
final class Answers: StoreSink {
    var answers: [UInt64: StoreAnswer] = [:]
    var outcomes: [UInt64: Outcome] = [:]
    func answered(_ answer: StoreAnswer) { answers[answer.token] = answer }
    func released(_ token: UInt64) {}
    func controlled(_ outcome: Outcome) { outcomes[outcome.token] = outcome }
    func happened(_ event: StoreEvent) {}
}

/// A payload that tells key and revision in every word.
func payload(_ key: String, revision: Int = 0, length: Int) -> [UInt8] {
    var state = UInt64(truncatingIfNeeded: revision &* 1_000_003 &+ 17)
    for byte in key.utf8 { state = (state ^ UInt64(byte)) &* 0x100_0000_01B3 }
    var made: [UInt8] = []
    made.reserveCapacity(length + 8)
    while made.count < length {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        let word = (state ^ (state >> 29)).littleEndian
        withUnsafeBytes(of: word) { made.append(contentsOf: $0) }
    }
    return Array(made[..<length])
}

final class TieredWorld {
    let machine: SimulatedMachine
    let clock = SimulatedClock()
    let driver: SimulatedDriver
    let store: TieredStore
    let sink = Answers()
    private var nextToken: UInt64 = 1

    static func configuration(
        staging: Int = 4 << 20, segments: Int = 16, block: Int = 64 << 10, inclusive: Bool = true
    ) -> TieredConfiguration {
        var log = LogStoreConfiguration(
            directories: ["/store"], capacityBytes: 0, indexEntries: 4096, entropy: (1, 2, 3, 4))
        log.maximumBlockBytes = block
        log.minimumSegmentBytes = 1 << 20
        log.operations = 256
        log.groupBytes = 256 << 10
        log.cleanSegments = 1
        log.tableCacheBytes = 1 << 20
        log.checkpointMinimumBytes = 8 << 20
        log.capacityBytes = UInt64(segments * log.segmentBytes) + (16 << 20)
        var made = TieredConfiguration(
            StagedConfiguration(log: log, stagingBytes: staging, inclusive: inclusive))
        made.prefetch.blocks = 1024
        made.prefetch.requests = 64
        return made
    }

    init(
        _ configuration: TieredConfiguration = TieredWorld.configuration(),
        machine: SimulatedMachine = SimulatedMachine(), faults: FaultPlan = .none,
        seed: UInt64 = 1, latency: LatencyModel = .constant(100_000), at time: UInt64 = 0
    ) throws {
        self.machine = machine
        clock.advance(to: time)
        driver = SimulatedDriver(
            machine: machine, regions: RegionTable(), clock: clock, faults: faults,
            latency: latency, seed: seed)
        store = try TieredStore.open(configuration, driver: driver, clock: clock)
        store.sink = sink
        settle()
    }

    func token() -> UInt64 {
        nextToken += 1
        return nextToken
    }

    /// One turn; virtual time moves when nothing else does.
    func turn() {
        if !store.pump() {
            let latest = clock.monotonic + 10_000_000
            driver.wait(until: min(latest, max(clock.monotonic + 1, store.nextDeadline)))
        }
    }

    private var isClosing = false

    func settle(limit: Int = 200_000) {
        for _ in 0..<limit {
            let progressed = store.pump()
            // What is due later than the store is closed is not brought.
            let waits = isClosing ? 0 : store.prefetchStatistics.waiting
            if store.isIdle, store.isRecovered, !progressed, driver.inFlight == 0, waits == 0 {
                return
            }
            if !progressed {
                let latest = clock.monotonic + 10_000_000
                driver.wait(until: min(latest, max(clock.monotonic + 1, store.nextDeadline)))
            }
        }
        Issue.record("the store does not come to rest")
    }

    func namespace(_ name: String = "model", aligned: Bool = false) -> UInt16 {
        let token = token()
        store.staged.openNamespace(
            token: token, fields: [("model", name)], aligned: aligned, timeToLive: 0, capBytes: 0)
        settle()
        return UInt16(sink.outcomes[token]?.version ?? 0)
    }

    /// Submits one operation and returns its token; `memory` stays until it is answered.
    @discardableResult
    func submit(
        _ kind: StoreOperationKind, _ key: [UInt8], _ space: UInt16,
        _ memory: UnsafeMutablePointer<Piece>?, token: UInt64? = nil,
        _ change: (inout StoreOperation) -> Void = { _ in }
    ) -> UInt64 {
        let token = token ?? self.token()
        // Keys live as long as the world: the store may look at them until the answer.
        let kept = UnsafeMutableRawBufferPointer.allocate(byteCount: key.count, alignment: 8)
        kept.copyBytes(from: key)
        keys.append(kept)
        var operation = StoreOperation(
            kind: kind, token: token, namespaceSlot: space, key: UnsafeRawBufferPointer(kept))
        if let memory {
            operation.pieces = UnsafePointer(memory)
            operation.pieceCount = 1
            if kind == .put { operation.length = UInt32(memory.pointee.length) }
        }
        change(&operation)
        while !store.submit(operation) { turn() }
        return token
    }

    private var keys: [UnsafeMutableRawBufferPointer] = []
    deinit { for key in keys { key.deallocate() } }

    func run(
        _ kind: StoreOperationKind, _ key: String, _ space: UInt16,
        bytes: UnsafeMutableRawBufferPointer? = nil,
        _ change: (inout StoreOperation) -> Void = { _ in }
    ) -> StoreAnswer {
        let piece = UnsafeMutablePointer<Piece>.allocate(capacity: 1)
        defer { piece.deallocate() }
        piece.initialize(
            to: Piece(
                region: .process, offset: UInt64(UInt(bitPattern: bytes?.baseAddress)),
                length: UInt64(bytes?.count ?? 0)))
        let token = submit(kind, Array(key.utf8), space, bytes == nil ? nil : piece, change)
        while sink.answers[token] == nil { turn() }
        return sink.answers[token] ?? StoreAnswer(token: token, status: .failed)
    }

    @discardableResult
    func put(
        _ key: String, _ space: UInt16, _ value: [UInt8], replace: Bool = false
    ) -> StoreAnswer {
        var copy = value
        return copy.withUnsafeMutableBytes {
            run(.put, key, space, bytes: $0) { $0.replace = replace }
        }
    }

    /// Puts blocks of which each names the one before as its parent.
    func putChain(_ names: [String], _ space: UInt16, length: Int) {
        var before: [UInt8] = []
        for name in names {
            var value = payload(name, length: length)
            let answer = before.withUnsafeBytes { parent in
                value.withUnsafeMutableBytes {
                    run(.put, name, space, bytes: $0) { $0.parent = parent }
                }
            }
            #expect(answer.status == .stored || answer.status == .alreadyPresent)
            before = Array(name.utf8)
        }
    }

    func get(
        _ key: String, _ space: UInt16, length: Int, mode: GetMode = .direct,
        _ change: (inout StoreOperation) -> Void = { _ in }
    ) -> (StoreAnswer, [UInt8]) {
        let memory = UnsafeMutableRawBufferPointer.allocate(
            byteCount: length + 4096, alignment: 4096)
        defer { memory.deallocate() }
        let target = UnsafeMutableRawBufferPointer(rebasing: memory[..<length])
        let answer = run(.get, key, space, bytes: target) {
            $0.mode = mode
            change(&$0)
        }
        return (answer, Array(target))
    }

    func hint(_ hint: Hint, _ names: [String] = []) {
        let bytes = names.map { Array($0.utf8) }
        var pointers: [UnsafeRawBufferPointer] = []
        func next(_ at: Int) {
            if at == bytes.count {
                pointers.withUnsafeBufferPointer { store.hint(hint, keys: $0) }
            } else {
                bytes[at].withUnsafeBytes {
                    pointers.append($0)
                    next(at + 1)
                }
            }
        }
        next(0)
    }

    func chain(_ space: UInt16, _ names: [String], request: UInt64 = 0, due: UInt64 = 0) {
        var made = Hint(.chain, namespaceSlot: space)
        made.request = request
        made.due = due
        hint(made, names)
    }

    func cancel(_ request: UInt64) {
        var made = Hint(.cancel)
        made.request = request
        hint(made)
    }

    func isResident(_ key: String, _ space: UInt16) -> Bool {
        let found = Array(key.utf8).withUnsafeBytes {
            store.staged.arena?.find(store.staged.log.fingerprint(space, $0).stagingKey)
        }
        return found?.state.isVisible == true
    }

    /// Takes everything clean out of staging, as a restart would.
    func emptyStaging(_ space: UInt16) {
        _ = store.staged.arena?.removeAll(namespaceSlot: space)
    }
}

extension TieredWorld {
    /// Lets virtual time pass.
    func pass(_ nanoseconds: UInt64) {
        let end = clock.monotonic + nanoseconds
        while clock.monotonic < end {
            if !store.pump() {
                driver.wait(until: min(end, max(clock.monotonic + 1, store.nextDeadline)))
            }
        }
    }

    func close() {
        isClosing = true
        store.beginClose()
        settle()
        let token = token()
        store.staged.flush(token: token, through: .max)
        settle()
        store.shutdown()
        driver.shutdown()
    }
}
