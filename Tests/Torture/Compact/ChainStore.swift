// ChainStore: a real store on real files that holds prefix chains, written a level at a time over
// all chains, so that none lies together, and of which whole chains and tails were deleted again.
// It knows which blocks must be there and which must not, since both follow from its seed.

import BlockIO
import Glibc
import LogStore
import SimulatedDisk
import Staging

/// What a seed says of such a store.
struct ChainShape {
    let seed: UInt64
    let mode: StoreMode
    let chains: Int
    let depth: Int
    static let maximumBlock = 64 << 10

    init(seed: UInt64, mode: StoreMode) {
        self.seed = seed
        self.mode = mode
        chains = 60 + Int(Payload.mix(seed) % 60)
        depth = 20 + Int(Payload.mix(seed &+ 1) % 24)
    }

    var count: Int { chains * depth }

    /// Whole chains are deleted, or what is behind some level; a third stays whole.
    func lives(_ chain: Int, _ level: Int) -> Bool {
        let drawn = Payload.mix(seed &* 31 &+ UInt64(chain))
        switch drawn % 3 {
        case 0: return true
        case 1: return level < Int((drawn >> 8) % UInt64(depth))
        default: return false
        }
    }

    /// Half of the blocks are of whole pages, since these are written from where they lie.
    func length(_ chain: Int, _ level: Int) -> Int {
        let drawn = Payload.mix(seed &+ UInt64(chain) << 20 | UInt64(level))
        return drawn & 1 == 0
            ? Int(1 + (drawn >> 8) % 16) << 12 : 1 + Int((drawn >> 8) % UInt64(Self.maximumBlock))
    }

    func payload(_ chain: Int, _ level: Int) -> UInt64 {
        Payload.seed(namespace: seed, key: chain << 16 | level, revision: 1)
    }
}

/// What a look at all blocks found.
struct ChainLook {
    var present = 0
    var gone = 0
    var failures: [String] = []
}

final class ChainStore: StoreSink {
    private static let depth = 32
    private static let control: UInt64 = 1 << 40
    private let shape: ChainShape
    private let store: StagedStore
    private let driver: any BlockDriver
    private let pieces: UnsafeMutablePointer<Piece>
    private let keys: UnsafeMutableRawPointer
    private let memory: UnsafeMutableRawPointer
    /// The block of each operation under way; nil: free.
    private var blocks = [(chain: Int, level: Int)?](repeating: nil, count: ChainStore.depth)
    private var space: UInt16?
    private var ended: (StoreAnswer, Int, (chain: Int, level: Int)) -> Void = { _, _, _ in }

    private static let room = ChainShape.maximumBlock + 4096

    init(_ directory: String, _ shape: ChainShape) throws {
        self.shape = shape
        var log = LogStoreConfiguration(
            directories: [directory], capacityBytes: 0, indexEntries: 8192,
            entropy: (shape.seed, 2, 3, 4))
        log.mode = shape.mode
        log.maximumBlockBytes = ChainShape.maximumBlock
        log.minimumSegmentBytes = 1 << 20
        log.groupBytes = 256 << 10
        log.checkpointMinimumBytes = 8 << 20
        log.holder = "torture \(getpid())"
        // Half as much again as all blocks: nothing has to be evicted, and compaction, which writes
        // what lives before anything is given up, has room.
        log.capacityBytes = UInt64(shape.count * ChainShape.maximumBlock) * 3 / 2 + (64 << 20)
        driver = try makeDriver(.automatic, regions: RegionTable(), depth: 64)
        let configuration = StagedConfiguration(log: log, stagingBytes: 0, inclusive: false)
        store = try StagedStore.open(configuration, driver: driver, clock: SystemClock())
        pieces = .allocate(capacity: Self.depth)
        keys = .allocate(byteCount: 32 * Self.depth, alignment: 8)
        memory = .allocate(byteCount: Self.room * Self.depth, alignment: 4096)
        store.sink = self
        store.openNamespace(
            token: Self.control, fields: [("model", "chains")], aligned: false, timeToLive: 0,
            capBytes: 0)
        while space == nil || !store.isRecovered { step() }
    }

    deinit {
        pieces.deallocate()
        keys.deallocate()
        memory.deallocate()
    }

    private func step() {
        if !store.pump() { driver.wait(until: store.log.clock.monotonic + 2_000_000) }
    }

    // MARK: Answers

    func answered(_ answer: StoreAnswer) {
        let slot = Int(answer.token)
        guard let block = blocks[slot] else { return }
        blocks[slot] = nil
        ended(answer, slot, block)
    }
    func released(_ token: UInt64) {}
    func controlled(_ outcome: Outcome) {
        if outcome.token == Self.control { space = UInt16(truncatingIfNeeded: outcome.version) }
    }
    func happened(_ event: StoreEvent) {}

    // MARK: All blocks

    private func key(_ chain: Int, _ level: Int, at offset: Int) -> UnsafeRawBufferPointer {
        keys.storeBytes(
            of: UInt64(chain).bigEndian, toByteOffset: offset, as: UInt64.self)
        keys.storeBytes(
            of: UInt64(level).bigEndian, toByteOffset: offset + 8, as: UInt64.self)
        return UnsafeRawBufferPointer(start: keys + offset, count: 16)
    }

    /// One operation for each block, a level at a time; `change` makes it what it is to be, or
    /// leaves it out.
    private func forEach(
        _ kind: StoreOperationKind,
        _ change: (inout StoreOperation, Int, (chain: Int, level: Int)) -> Bool,
        _ ended: @escaping (StoreAnswer, Int, (chain: Int, level: Int)) -> Void
    ) {
        self.ended = ended
        for level in 0..<shape.depth {
            for chain in 0..<shape.chains {
                while !blocks.contains(where: { $0 == nil }) { step() }
                let slot = blocks.firstIndex { $0 == nil } ?? 0
                var operation = StoreOperation(
                    kind: kind, token: UInt64(slot), namespaceSlot: space ?? 0,
                    key: key(chain, level, at: 32 * slot))
                if kind != .delete {
                    pieces[slot] = Piece(
                        region: .process,
                        offset: UInt64(UInt(bitPattern: memory + Self.room * slot)),
                        length: UInt64(Self.room))
                    operation.pieces = UnsafePointer(pieces + slot)
                    operation.pieceCount = 1
                }
                guard change(&operation, slot, (chain, level)) else { continue }
                blocks[slot] = (chain, level)
                while !store.submit(operation) { step() }
            }
        }
        while blocks.contains(where: { $0 != nil }) { step() }
    }

    /// Puts everything, and deletes what is not to live.
    func fill() -> [String] {
        var failures: [String] = []
        forEach(.put) { operation, slot, block in
            let length = shape.length(block.chain, block.level)
            Payload.fill(
                shape.payload(block.chain, block.level), from: 0, length, memory + Self.room * slot)
            operation.length = UInt32(length)
            operation.durability = .written
            pieces[slot].length = UInt64(length)
            if block.level > 0 {
                operation.parent = key(block.chain, block.level - 1, at: 32 * slot + 16)
            }
            return true
        } _: { answer, _, block in
            if answer.status != .stored { failures.append("put of \(block): \(answer)") }
        }
        forEach(.delete) { _, _, block in
            !shape.lives(block.chain, block.level)
        } _: { answer, _, block in
            if answer.status != .deleted { failures.append("delete of \(block): \(answer)") }
        }
        return failures
    }

    /// Reads everything and compares every byte.
    func look() -> ChainLook {
        var look = ChainLook()
        forEach(.get) { _, _, _ in
            true
        } _: { [self] answer, slot, block in
            let length = shape.length(block.chain, block.level)
            switch (answer.status, shape.lives(block.chain, block.level)) {
            case (.hit, true):
                let isRight =
                    Int(answer.length) == length
                    && Payload.matches(
                        shape.payload(block.chain, block.level), from: 0, length,
                        memory + Self.room * slot)
                look.present += 1
                if !isRight { look.failures.append("wrong bytes of \(block): \(answer)") }
            case (.miss, false): look.gone += 1
            case (.hit, false): look.failures.append("\(block) is resurrected: \(answer)")
            default: look.failures.append("\(block) is lost: \(answer)")
            }
        }
        return look
    }

    func close() {
        store.beginClose()
        while !store.isIdle { step() }
        store.shutdown()
        driver.shutdown()
    }
}
