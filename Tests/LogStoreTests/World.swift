// World: a store on a simulated machine, driven in virtual time, for tests that want to look at the
// disk as well as at the answers.

import BlockIO
import LogStore
import SegmentFormat
import SimulatedDisk
import Staging

/// Collects answers by token.
final class Collector: StoreSink {
    var answers: [UInt64: StoreAnswer] = [:]
    var releases: [UInt64] = []
    var outcomes: [UInt64: Outcome] = [:]
    var events: [StoreEvent] = []
    func answered(_ answer: StoreAnswer) { answers[answer.token] = answer }
    func released(_ token: UInt64) { releases.append(token) }
    func controlled(_ outcome: Outcome) { outcomes[outcome.token] = outcome }
    func happened(_ event: StoreEvent) { events.append(event) }
}

/// A payload that tells key and revision at every word.
func payload(_ key: String, revision: Int, length: Int) -> [UInt8] {
    var state = UInt64(truncatingIfNeeded: revision &* 1_000_003)
    for byte in key.utf8 { state = (state ^ UInt64(byte)) &* 0x100_0000_01B3 }
    return [UInt8](unsafeUninitializedCapacity: length + 8) { bytes, count in
        let memory = UnsafeMutableRawBufferPointer(bytes)
        var at = 0
        while at < length {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            let word = state ^ (state >> 29)
            memory.storeBytes(of: word.littleEndian, toByteOffset: at, as: UInt64.self)
            at += 8
        }
        count = length
    }
}

final class World: Harness {
    let machine: SimulatedMachine
    let clock = SimulatedClock()
    var driver: SimulatedDriver
    var store: StagedStore
    let sink = Collector()
    var configuration: StagedConfiguration
    var faults: FaultPlan
    var seed: UInt64
    let latency: LatencyModel
    private var nextToken: UInt64 = 1

    static func configuration(
        directories: [String] = ["/store"], segments: Int = 12, mode: StoreMode = .cache,
        staging: Int = 4 << 20, inclusive: Bool = true, block: Int = 64 << 10
    ) -> StagedConfiguration {
        var log = LogStoreConfiguration(
            directories: directories, capacityBytes: 0, indexEntries: 4096,
            entropy: (1, 2, 3, 4))
        log.mode = mode
        log.maximumBlockBytes = block
        log.minimumSegmentBytes = 1 << 20
        log.operations = 256
        log.groupBytes = 256 << 10
        log.cleanSegments = 1
        log.tableCacheBytes = 1 << 20
        log.checkpointMinimumBytes = 8 << 20
        log.capacityBytes =
            UInt64(segments * directories.count * log.segmentBytes) + (16 << 20)
        return StagedConfiguration(log: log, stagingBytes: staging, inclusive: inclusive)
    }

    /// Of several directories each is a device of its own, unless a machine is given.
    init(
        _ configuration: StagedConfiguration = World.configuration(),
        machine given: SimulatedMachine? = nil, faults: FaultPlan = .none,
        seed: UInt64 = 1, latency: LatencyModel = .constant(100_000)
    ) throws {
        let machine = given ?? SimulatedMachine()
        let directories = configuration.log.directories
        if given == nil, directories.count > 1 {
            for directory in directories { machine.addDevice(directory) }
        }
        self.configuration = configuration
        self.machine = machine
        self.faults = faults
        self.seed = seed
        self.latency = latency
        driver = SimulatedDriver(
            machine: machine, regions: RegionTable(), clock: clock, faults: faults,
            latency: latency, seed: seed)
        store = try StagedStore.open(configuration, driver: driver, clock: clock)
        store.sink = sink
        settle()
    }

    /// Pumps until nothing is under way.
    func settle(limit: Int) {
        for _ in 0..<limit {
            let progressed = store.pump()
            if store.isIdle && store.isRecovered && !progressed && driver.inFlight == 0 { return }
            if !progressed { driver.wait(until: clock.monotonic + 10_000_000) }
        }
        fatalError("the store does not come to rest")
    }

    func crash(_ keep: CrashKeep) throws {
        machine.crash(keep: keep)
        try open()
    }

    func close() {
        store.beginClose()
        settle()
        store.flush(token: 1 << 40, through: UInt64.max)
        settle()
        store.checkpoint(token: 1 << 41)
        settle()
        store.shutdown()
    }

    func open() throws {
        driver = SimulatedDriver(
            machine: machine, regions: RegionTable(), clock: clock, faults: faults,
            latency: latency, seed: seed)
        store = try StagedStore.open(configuration, driver: driver, clock: clock)
        store.sink = sink
        settle()
    }

    func token() -> UInt64 {
        nextToken += 1
        return nextToken
    }

    /// Waits for the device, or lets a moment pass.
    func pause(_ nanoseconds: UInt64) { driver.wait(until: clock.monotonic + nanoseconds) }
}

/// Whatever has a store that it can bring to rest: operations over byte arrays, one at a time.
protocol Harness: AnyObject {
    var store: StagedStore { get }
    var sink: Collector { get }
    func token() -> UInt64
    func settle(limit: Int)
    func pause(_ nanoseconds: UInt64)
}

extension Harness {
    func settle() { settle(limit: 200_000) }

    func namespace(_ name: String = "model", aligned: Bool = false) -> UInt16 {
        let token = token()
        store.openNamespace(
            token: token, fields: [("model", name)], aligned: aligned, timeToLive: 0, capBytes: 0)
        settle()
        return UInt16(sink.outcomes[token]?.version ?? 0)
    }

    /// Submits one operation over byte arrays and waits for its answer.
    func run(
        _ kind: StoreOperationKind, _ key: String, _ namespace: UInt16,
        bytes: UnsafeMutableRawBufferPointer? = nil, shards: [UInt32]? = nil,
        _ change: (inout StoreOperation) -> Void = { _ in }
    ) -> StoreAnswer {
        let token = token()
        let keyBytes = Array(key.utf8)
        return keyBytes.withUnsafeBytes { keyBuffer in
            var operation = StoreOperation(
                kind: kind, token: token, namespaceSlot: namespace, key: keyBuffer)
            let piece = UnsafeMutablePointer<Piece>.allocate(capacity: 1)
            defer { piece.deallocate() }
            if let bytes, let base = bytes.baseAddress {
                piece.initialize(
                    to: Piece(
                        region: .process, offset: UInt64(UInt(bitPattern: base)),
                        length: UInt64(bytes.count)))
                operation.pieces = UnsafePointer(piece)
                operation.pieceCount = 1
                if kind == .put { operation.length = UInt32(bytes.count) }
            }
            return (shards ?? []).withUnsafeBufferPointer { lengths in
                if shards != nil {
                    operation.shardLengths = lengths.baseAddress
                    operation.shardCount = lengths.count
                }
                change(&operation)
                while !store.submit(operation) {
                    if !store.pump() { pause(1_000_000) }
                }
                settle()
                return sink.answers[token] ?? StoreAnswer(token: token, status: .failed)
            }
        }
    }

    func put(
        _ key: String, _ namespace: UInt16, _ value: [UInt8], shards: [UInt32]? = nil,
        replace: Bool = false, durability: Durability = .written
    ) -> StoreAnswer {
        var copy = value
        return copy.withUnsafeMutableBytes {
            run(.put, key, namespace, bytes: $0, shards: shards) {
                $0.replace = replace
                $0.durability = durability
            }
        }
    }

    func get(
        _ key: String, _ namespace: UInt16, length: Int, mode: GetMode = .direct,
        aligned: Bool = true, _ change: (inout StoreOperation) -> Void = { _ in }
    ) -> (StoreAnswer, [UInt8]) {
        let memory = UnsafeMutableRawBufferPointer.allocate(
            byteCount: length + 4096, alignment: 4096)
        defer { memory.deallocate() }
        let start = aligned ? 0 : 3
        let target = UnsafeMutableRawBufferPointer(rebasing: memory[start..<(start + length)])
        let answer = run(.get, key, namespace, bytes: target) {
            $0.mode = mode
            change(&$0)
        }
        return (answer, Array(target))
    }
}
