// DecodeStore: the store under a replay of decoding in virtual time: pages are blocks with one
// shard a layer, and staging is the fast tier. In each layer of each step the picked pages'
// shards are asked for, what has to be waited for is the stall, and then the layer computes. What
// the next layer will pick may be hinted as it starts, in part wrongly. Every byte is checked.
//
// A shard of the store is smaller than the model's; the device's bus is slowed down by as much.

import BenchKit
import BlockIO
import Hearth
import Heat
import LogStore
import Prefetch
import SimulatedDisk
import Staging
import Tiering

struct DecodePlan {
    var picks: DecodePicks
    var options: DecodeOptions
    var device: DeviceModel
    var modelBytesPerToken: UInt64
    /// Layers of the model, of which as many are decoded as there are picks for.
    var modelLayers: Int
    var predictors: PredictorSet
    var policy: ReplacementKind
    /// The share of the next layer's picks that is hinted; nil for no hints of pages.
    var recall: Double?
    var seed: UInt64

    /// Bytes of a page in one layer of the model.
    var modelPageBytes: Double {
        Double(options.pageTokens) * Double(modelBytesPerToken) / Double(max(1, modelLayers))
    }
}

struct DecodeResult: Equatable {
    /// Of the measured steps; the first third warms up.
    var steps = 0
    var picks: UInt64 = 0
    var misses: UInt64 = 0
    var useful: UInt64 = 0
    var timely: UInt64 = 0
    var issued: UInt64 = 0
    var stall = 0.0
    var wrong: UInt64 = 0

    /// Parts that the fast tier did not have by itself.
    var needed: UInt64 { useful + misses }
    var coverage: Double { needed == 0 ? 0 : Double(useful) / Double(needed) }
    var accuracy: Double { issued == 0 ? 0 : Double(useful) / Double(issued) }
    var inTime: Double { needed == 0 ? 0 : Double(timely) / Double(needed) }
}

final class DecodeStore: StoreSink {
    private static let shardBytes = 4096
    private static let keyNamespace = stableHash("decode")
    private static let controlToken = UInt64(1) << 33

    private let plan: DecodePlan
    private let clock = SimulatedClock()
    private let driver: SimulatedDriver
    private let store: TieredStore
    private var namespaceSlot: UInt16 = 0
    private var controls = 0
    private let keys: KeyRoom
    private let memory: UnsafeMutableRawBufferPointer
    private let piece: UnsafeMutablePointer<Piece>
    private let shardLengths: UnsafeMutablePointer<UInt32>
    private var open = 0
    private var asked: [Int32] = []
    private var layer = 0
    private var result = DecodeResult()
    private var failure: BenchError?

    private var blockBytes: Int { Self.shardBytes * plan.picks.layers }

    init(_ plan: DecodePlan) throws(BenchError) {
        self.plan = plan
        let layers = plan.picks.layers
        var latency = LatencyModel.constant(
            plan.device.latency,
            bytesPerSecond: Self.scaled(plan.device.readBandwidth, plan),
            channels: plan.device.depth)
        latency.writeBytesPerSecond = Self.scaled(plan.device.writeBandwidth, plan)
        latency.metadata = .constant(0)
        driver = SimulatedDriver(
            machine: SimulatedMachine(), regions: RegionTable(), clock: clock, latency: latency,
            seed: plan.seed, limits: DriverLimits(depth: 4096, transferBytes: 1 << 20))
        driver.scribblesReads = false
        do throws(StoreError) {
            store = try TieredStore.open(Self.configuration(plan), driver: driver, clock: clock)
        } catch {
            throw BenchError("\(error)", code: error.errno)
        }
        keys = KeyRoom(capacity: plan.picks.pages)
        for page in 0..<plan.picks.pages { keys.set(page, UInt64(page), Self.keyNamespace) }
        let room = max(Self.shardBytes * layers, Self.shardBytes * plan.picks.pages)
        memory = .allocate(byteCount: room, alignment: 4096)
        memory.initializeMemory(as: UInt8.self, repeating: 0)
        piece = .allocate(capacity: max(1, plan.picks.pages))
        shardLengths = .allocate(capacity: layers)
        shardLengths.initialize(repeating: UInt32(Self.shardBytes), count: layers)
        store.sink = self
        store.staged.openNamespace(
            token: Self.controlToken, fields: [("bench", "decode")], aligned: true, timeToLive: 0,
            capBytes: 0)
        try settle { controls > 0 }
    }

    deinit {
        memory.deallocate()
        piece.deallocate()
        shardLengths.deallocate()
    }

    private static func scaled(_ rate: Double, _ plan: DecodePlan) -> UInt64 {
        max(1, UInt64(rate * Double(shardBytes) / plan.modelPageBytes))
    }

    private static func configuration(_ plan: DecodePlan) -> TieredConfiguration {
        let block = shardBytes * plan.picks.layers
        var shape = Configuration(directory: "/decode", capacityBytes: 1 << 30)
        shape.maximumBlockBytes = max(64 << 10, block)
        shape.minimumSegmentBytes = 16 << 20
        let whole = UInt64(block + shardBytes) * UInt64(plan.picks.pages)
        let bytes = shape.capacity(
            forValueBytes: 2 * whole + (64 << 20), blockBytes: block, blocksPerGroup: 4)
        var entropy = SeededGenerator(seed: plan.seed)
        var log = LogStoreConfiguration(
            directories: ["/decode"], capacityBytes: bytes,
            indexEntries: 2 * plan.picks.pages + 4096,
            entropy: (entropy.next(), entropy.next(), entropy.next(), entropy.next()))
        log.maximumBlockBytes = shape.maximumBlockBytes
        log.minimumSegmentBytes = shape.minimumSegmentBytes
        // One page of the model is longer than the longest joined read.
        log.joinedReadBytes = shardBytes
        log.operations = 8192
        log.tableCacheBytes = max(1 << 20, 2 * plan.picks.pages * (plan.picks.layers * 8 + 64))
        let slabs = Int(plan.options.cache * plan.picks.picksALayer * Double(plan.picks.layers))
        var staged = StagedConfiguration(
            log: log, stagingBytes: max(64, slabs) * shardBytes, inclusive: true)
        staged.slabBytes = shardBytes
        staged.keepsParts = true
        var made = TieredConfiguration(staged)
        made.replacement = plan.policy
        made.prefetch.predictors = plan.predictors
        made.prefetch.bytesInFlight = 64 * shardBytes
        made.prefetch.burstBytes = 4 * shardBytes
        made.prefetch.assumedBandwidth = Double(scaled(plan.device.readBandwidth, plan))
        made.prefetch.picks = 2 * plan.picks.pages * plan.picks.layers
        return made
    }

    // MARK: Time

    private func settle(_ isDone: () -> Bool) throws(BenchError) {
        for _ in 0..<10_000_000 {
            let moved = store.pump()
            if let failure { throw failure }
            if isDone(), store.isIdle, driver.inFlight == 0, !moved { return }
            if !moved { driver.wait(until: clock.monotonic + 1_000_000) }
        }
        throw BenchError("the simulated store does not come to rest")
    }

    private func pass(until time: UInt64, orUntil isDone: () -> Bool) throws(BenchError) {
        while true {
            while store.pump() {}
            if let failure { throw failure }
            let now = clock.monotonic
            if now >= time || isDone() { return }
            driver.wait(until: min(time, max(store.nextDeadline, now + 1000)))
        }
    }

    // MARK: Running

    /// Puts all pages, then plays all steps.
    func run() throws(BenchError) -> DecodeResult {
        for page in 0..<plan.picks.pages { try put(page) }
        try settle { open == 0 }
        _ = store.staged.arena?.removeAll(namespaceSlot: namespaceSlot)
        var random = SeededGenerator(seed: scrambled(plan.seed ^ 0x9A6E5))
        let warm = plan.picks.steps / 3
        for step in 0..<plan.picks.steps {
            if step == warm {
                result = DecodeResult()
                subtract(store.prefetchStatistics)
            }
            for layer in 0..<plan.picks.layers { try play(step, layer, &random) }
        }
        add(store.prefetchStatistics)
        result.steps = plan.picks.steps - warm
        try close()
        return result
    }

    private func subtract(_ made: PrefetchStatistics) {
        result.useful &-= made.total.useful
        result.timely &-= made.total.timely
        result.issued &-= made.total.issued
        result.misses &-= made.demandMisses
    }

    private func add(_ made: PrefetchStatistics) {
        result.useful &+= made.total.useful
        result.timely &+= made.total.timely
        result.issued &+= made.total.issued
        result.misses &+= made.demandMisses
    }

    private func put(_ page: Int) throws(BenchError) {
        for layer in 0..<plan.picks.layers {
            let bytes = UnsafeMutableRawBufferPointer(
                rebasing: memory[layer * Self.shardBytes..<(layer + 1) * Self.shardBytes])
            Payload.fill(
                bytes, namespace: Self.keyNamespace,
                key: UInt64(page * plan.picks.layers + layer), revision: 0)
        }
        (piece).initialize(to: destination(0, bytes: blockBytes))
        var operation = StoreOperation(
            kind: .put, token: UInt64(1) << 32, namespaceSlot: namespaceSlot, key: keys[page])
        operation.pieces = UnsafePointer(piece)
        operation.pieceCount = 1
        operation.length = UInt32(blockBytes)
        operation.shardLengths = UnsafePointer(shardLengths)
        operation.shardCount = plan.picks.layers
        operation.durability = .written
        open += 1
        guard store.submit(operation) else { throw BenchError("no room for a put") }
        try pass(until: .max) { open == 0 }
    }

    private func destination(_ place: Int, bytes: Int) -> Piece {
        let address = memory.baseAddress.map { UInt(bitPattern: $0 + place * Self.shardBytes) } ?? 0
        return Piece(region: .process, offset: UInt64(address), length: UInt64(bytes))
    }

    private func play(
        _ step: Int, _ layer: Int, _ random: inout SeededGenerator
    ) throws(BenchError) {
        let begun = clock.monotonic
        asked = plan.picks[step, layer]
        self.layer = layer
        result.picks += UInt64(asked.count)
        for (place, page) in asked.enumerated() {
            (piece + place).initialize(to: destination(place, bytes: Self.shardBytes))
            var operation = StoreOperation(
                kind: .get, token: UInt64(place), namespaceSlot: namespaceSlot,
                key: keys[Int(page)])
            operation.mode = .cached
            operation.firstShard = layer
            operation.shardCount = 1
            operation.pieces = UnsafePointer(piece + place)
            operation.pieceCount = 1
            open += 1
            guard store.submit(operation) else { throw BenchError("no room for a get") }
        }
        tell(step, layer, &random)
        try pass(until: .max) { open == 0 }
        result.stall += Double(clock.monotonic - begun) / 1e9
        try pass(until: clock.monotonic + plan.options.layerTime) { false }
    }

    /// What the engine says as a layer starts: where it is, and what the next layer may pick.
    private func tell(_ step: Int, _ layer: Int, _ random: inout SeededGenerator) {
        var hint = Hint(.progress, namespaceSlot: namespaceSlot)
        (hint.request, hint.step, hint.layer) = (1, UInt32(step), UInt32(layer))
        store.hint(hint, keys: UnsafeBufferPointer(start: nil, count: 0))
        // After the last layer comes the first one of the next step.
        let isLast = layer + 1 == plan.picks.layers
        let next = (step: isLast ? step + 1 : step, layer: isLast ? 0 : layer + 1)
        guard let recall = plan.recall, next.step < plan.picks.steps else { return }
        let picked = Set(plan.picks[next.step, next.layer])
        var told: [UnsafeRawBufferPointer] = []
        for page in plan.picks[next.step, next.layer] {
            var page = Int(page)
            if random.unit() >= recall {
                // Wrong ones in the place of those that it does not know.
                let all = UInt64(plan.picks.pages)
                repeat {
                    page = Int(random.below(all))
                } while picked.contains(Int32(page)) && picked.count < plan.picks.pages
            }
            told.append(keys[page])
        }
        hint.kind = .pages
        (hint.step, hint.layer) = (UInt32(next.step), UInt32(next.layer))
        hint.firstShard = hint.layer
        hint.shardCount = 1
        told.withUnsafeBufferPointer { store.hint(hint, keys: $0) }
    }

    private func close() throws(BenchError) {
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
        if answer.token == UInt64(1) << 32 {
            if answer.status != .stored { failure = BenchError("a put ended: \(answer.status)") }
            return
        }
        let place = Int(answer.token)
        guard answer.status == .hit, answer.delivered == UInt64(Self.shardBytes) else {
            failure = BenchError("a get ended as \(answer.status)")
            return
        }
        let bytes = UnsafeRawBufferPointer(
            rebasing: memory[place * Self.shardBytes..<(place + 1) * Self.shardBytes])
        let key = UInt64(Int(asked[place]) * plan.picks.layers + layer)
        let mismatch = Payload.firstMismatch(
            bytes, namespace: Self.keyNamespace, key: key, revision: 0)
        if mismatch != nil { result.wrong += 1 }
    }

    func released(_ token: UInt64) {}

    func controlled(_ outcome: Outcome) {
        controls += 1
        if controls == 1 { namespaceSlot = UInt16(truncatingIfNeeded: outcome.version) }
    }

    func happened(_ event: StoreEvent) {}
}
