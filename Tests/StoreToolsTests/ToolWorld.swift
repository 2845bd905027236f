// ToolWorld: stores on a simulated machine, made through the real store and closed, for tests that
// look at them with the tools. A world can be copied, so that each damage starts from the same
// disk.

import BlockIO
import LogStore
import SegmentFormat
import SimulatedDisk
import Staging
import Synchronization
import Testing

@testable import StoreTools

final class ToolSink: StoreSink {
    var answers: [UInt64: StoreAnswer] = [:]
    var outcomes: [UInt64: Outcome] = [:]
    func answered(_ answer: StoreAnswer) { answers[answer.token] = answer }
    func released(_ token: UInt64) {}
    func controlled(_ outcome: Outcome) { outcomes[outcome.token] = outcome }
    func happened(_ event: StoreEvent) {}
}

/// A payload that tells key and revision at every word.
func payload(_ key: String, _ length: Int, revision: UInt64 = 0) -> [UInt8] {
    var state = revision &* 1_000_003 &+ 7
    for byte in key.utf8 { state = (state ^ UInt64(byte)) &* 0x100_0000_01B3 }
    return [UInt8](unsafeUninitializedCapacity: length + 8) { bytes, count in
        let memory = UnsafeMutableRawBufferPointer(bytes)
        var at = 0
        while at < length {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            memory.storeBytes(of: state ^ (state >> 29), toByteOffset: at, as: UInt64.self)
            at += 8
        }
        count = length
    }
}

/// Deterministic choices.
struct Dice {
    var state: UInt64
    mutating func next(_ bound: Int) -> Int {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return Int((state >> 33) % UInt64(max(bound, 1)))
    }
}

final class ToolWorld {
    let machine: SimulatedMachine
    let clock = SimulatedClock()
    let directories: [String]
    var configuration: StagedConfiguration
    private(set) var store: StagedStore?
    private(set) var driver: SimulatedDriver?
    let sink = ToolSink()
    private var nextToken: UInt64 = 1

    init(
        directories: [String] = ["/store"], segments: Int = 12, mode: StoreMode = .cache,
        entropy: UInt64 = 1, machine: SimulatedMachine = SimulatedMachine()
    ) {
        self.machine = machine
        self.directories = directories
        var log = LogStoreConfiguration(
            directories: directories, capacityBytes: 0, indexEntries: 4096,
            entropy: (entropy, 2, 3 &+ entropy, 4))
        log.mode = mode
        log.maximumBlockBytes = 64 << 10
        log.minimumSegmentBytes = 1 << 20
        log.operations = 256
        log.groupBytes = 256 << 10
        log.cleanSegments = 1
        log.tableCacheBytes = 1 << 20
        log.holder = "the world"
        log.capacityBytes =
            UInt64(segments * directories.count * log.segmentBytes) + (16 << 20)
        configuration = StagedConfiguration(log: log, stagingBytes: 2 << 20, inclusive: true)
    }

    func newDriver(seed: UInt64 = 5) -> SimulatedDriver {
        SimulatedDriver(machine: machine, regions: RegionTable(), clock: clock, seed: seed)
    }

    // MARK: The store

    func open() throws {
        let driver = newDriver()
        self.driver = driver
        store = try StagedStore.open(configuration, driver: driver, clock: clock)
        store?.sink = sink
        settle()
    }

    func settle() {
        guard let store, let driver else { return }
        for _ in 0..<400_000 {
            let progressed = store.pump()
            if store.isIdle && store.isRecovered && !progressed && driver.inFlight == 0 { return }
            if !progressed { driver.wait(until: clock.monotonic + 10_000_000) }
        }
        Issue.record("the store does not come to rest")
    }

    func close() {
        guard let store else { return }
        store.beginClose()
        settle()
        store.flush(token: 1 << 40, through: UInt64.max)
        settle()
        store.checkpoint(token: 1 << 41)
        settle()
        store.shutdown()
        self.store = nil
        driver = nil
    }

    func crash(_ keep: CrashKeep) {
        machine.crash(keep: keep)
        store = nil
        driver = nil
    }

    private func token() -> UInt64 {
        nextToken += 1
        return nextToken
    }

    func namespace(
        _ name: String, aligned: Bool = false, timeToLive: UInt32 = 0
    ) throws -> UInt16 {
        let token = token()
        try #require(store).openNamespace(
            token: token, fields: [("model", name), ("dtype", "bf16")], aligned: aligned,
            timeToLive: timeToLive, capBytes: 0)
        settle()
        return UInt16(try #require(sink.outcomes[token]).version)
    }

    @discardableResult
    func put(
        _ key: String, _ space: UInt16, _ value: [UInt8], shards: [UInt32]? = nil,
        parent: String = "", replace: Bool = false, timeToLive: UInt32 = 0
    ) throws -> StoreAnswer {
        var value = value
        return try Array(parent.utf8).withUnsafeBytes { parent in
            try value.withUnsafeMutableBytes { bytes in
                try run(.put, key, space, bytes: bytes, shards: shards) {
                    $0.replace = replace
                    $0.timeToLive = timeToLive
                    $0.length = UInt32(bytes.count)
                    $0.parent = parent
                }
            }
        }
    }

    func get(_ key: String, _ space: UInt16, _ length: Int) throws -> (StoreAnswer, [UInt8]) {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: length, alignment: 4096)
        defer { memory.deallocate() }
        let answer = try run(.get, key, space, bytes: memory) { _ in }
        return (answer, Array(memory))
    }

    func remove(_ key: String, _ space: UInt16) throws -> Status {
        try run(.delete, key, space) { _ in }.status
    }

    private func run(
        _ kind: StoreOperationKind, _ key: String, _ space: UInt16,
        bytes: UnsafeMutableRawBufferPointer? = nil, shards: [UInt32]? = nil,
        _ change: (inout StoreOperation) -> Void
    ) throws -> StoreAnswer {
        let store = try #require(store)
        let token = token()
        let keyBytes = Array(key.utf8)
        return try keyBytes.withUnsafeBytes { keyBuffer in
            var operation = StoreOperation(
                kind: kind, token: token, namespaceSlot: space, key: keyBuffer)
            let piece = UnsafeMutablePointer<Piece>.allocate(capacity: 1)
            defer { piece.deallocate() }
            if let bytes, let base = bytes.baseAddress {
                piece.initialize(
                    to: Piece(
                        region: .process, offset: UInt64(UInt(bitPattern: base)),
                        length: UInt64(bytes.count)))
                operation.pieces = UnsafePointer(piece)
                operation.pieceCount = 1
            }
            return try (shards ?? []).withUnsafeBufferPointer { lengths in
                if shards != nil {
                    operation.shardLengths = lengths.baseAddress
                    operation.shardCount = lengths.count
                }
                change(&operation)
                while !store.submit(operation) {
                    if !store.pump() { driver?.wait(until: clock.monotonic + 1_000_000) }
                }
                settle()
                return try #require(sink.answers[token])
            }
        }
    }

    // MARK: The tools

    func closed<Answer>(
        _ directories: [String]? = nil, allowAbsent: Bool = false,
        _ body: (ClosedStore) throws -> Answer
    ) throws -> Answer {
        let driver = newDriver(seed: 11)
        let store = try ClosedStore.open(
            directories ?? self.directories, allowAbsent: allowAbsent, driver: driver,
            clock: clock, holder: "the test")
        defer { store.close() }
        return try body(store)
    }

    func verify(threads: Int = 0) throws -> VerifyReport {
        var options = VerifyOptions()
        options.threads = threads
        options.stretchBytes = 256 << 10
        return try closed { try Verifier.run($0, options) }
    }

    /// The error of an opening that must fail.
    func refusal(_ directories: [String]? = nil, allowAbsent: Bool = false) -> StoreError? {
        do {
            try closed(directories, allowAbsent: allowAbsent) { _ in }
            return nil
        } catch {
            return error as? StoreError
        }
    }
}

/// A filled store that tests share, each with a copy of its machine: making it takes most of the
/// time.
final class Fixture: @unchecked Sendable {
    // Unchecked: made once, and afterwards only copied, under the lock.
    static let shared = Fixture()
    private let lock = Mutex(())
    private let machine = SimulatedMachine()
    private let made: [String: [String: Put]]

    private init() {
        let world = ToolWorld(machine: machine)
        made = (try? world.fill()) ?? [:]
    }

    func world() -> (world: ToolWorld, made: [String: [String: Put]]) {
        lock.withLock { _ in (ToolWorld(machine: machine.copy()), made) }
    }
}

/// One block as a test put it.
struct Put: Equatable {
    var key: String
    var value: [UInt8]
    var shards: [UInt32]
    var version: UInt64
}

extension ToolWorld {
    /// Fills the store with a bit of everything and closes it; what lives, by namespace name.
    @discardableResult
    func fill(
        blocks: Int = 140, seed: UInt64 = 3, closes: Bool = true
    ) throws -> [String: [String: Put]] {
        try open()
        var made: [String: [String: Put]] = ["packed": [:], "aligned": [:]]
        let spaces = [
            "packed": try namespace("packed"), "aligned": try namespace("aligned", aligned: true),
        ]
        var dice = Dice(state: seed)
        for number in 0..<blocks {
            let name = number % 3 == 2 ? "aligned" : "packed"
            let space = try #require(spaces[name])
            let key = "block-\(number)"
            var shards: [UInt32] = []
            if number % 2 == 0 {
                for _ in 0..<(2 + dice.next(6)) { shards.append(UInt32(1 + dice.next(9000))) }
            } else {
                shards = [UInt32(1 + dice.next(64 << 10))]
            }
            let value = payload(key, Int(shards.reduce(0, +)))
            let answer = try put(
                key, space, value, shards: shards.count > 1 ? shards : nil,
                parent: number % 5 == 0 ? "block-\(number - 1)" : "")
            #expect(answer.status == .stored)
            made[name]?[key] = Put(
                key: key, value: value, shards: shards, version: answer.version)
        }
        for number in stride(from: 0, to: blocks, by: 7) where number % 3 != 2 {
            #expect(try remove("block-\(number)", spaces["packed"] ?? 0) == .deleted)
            made["packed"]?["block-\(number)"] = nil
        }
        for number in stride(from: 1, to: blocks, by: 11) where number % 3 != 2 {
            let key = "block-\(number)"
            guard made["packed"]?[key] != nil else { continue }
            let value = payload(key, 5000 + number, revision: 1)
            let answer = try put(key, spaces["packed"] ?? 0, value, replace: true)
            made["packed"]?[key] = Put(
                key: key, value: value, shards: [UInt32(value.count)], version: answer.version)
        }
        if closes { close() }
        return made
    }
}
