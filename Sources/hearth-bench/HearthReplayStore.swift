// HearthReplayStore: the store under a replay. `--dram` is exactly the slabs, which hold read
// copies and what is just being put (inclusive staging); the group buffers that gather writes come
// on top.
// `--capacity` is value bytes; everything else comes on top and is told in the footprint.
//
// One thread uses it, and every call waits for all it started; so between calls nothing moves, and
// what is resident when a get comes can be asked before anything is loaded. Then residents are
// served first, which evicts nothing, and the others are loaded tail first, so that where they do
// not all fit it is the chain's head that stays.

import BenchKit
import BlockIO
import Glibc
import Hearth
import LogStore
import Staging

final class HearthReplayStore: ReplayStore {
    private let kv: KvStore
    private let plan: ReplayStorePlan
    private let mode: GetMode
    private let blockBytes: Int
    private let session: Session
    private let region: MemoryRegion
    private let memory: UnsafeMutableRawBufferPointer
    private let stride: Int
    /// Operations that move bytes, at once: within the share of slabs that leases may hold.
    private let window: Int
    /// Operations that move none.
    private let batch: Int
    private let pieces: UnsafeMutablePointer<Piece>
    private let queue: UnsafeMutablePointer<StoreOperation>
    private let completions: UnsafeMutableBufferPointer<StoreCompletion>
    /// By slot: the place in the batch of the operation there.
    private let places: UnsafeMutablePointer<Int>
    private var free: [Int] = []
    private var room = KeyRoom(capacity: 1024)
    private var order: [Int] = []

    /// Keys of all replays are of one namespace, so that a kept store is found again.
    static let namespace = "replay"
    static let keyNamespace = stableHash(namespace)

    static func shape(_ plan: ReplayStorePlan) -> KvShape {
        var shape = KvShape(
            directory: plan.directory, blockBytes: plan.blockBytes,
            valueBytes: max(plan.capacity, UInt64(plan.blockBytes)))
        shape.slabBytes = Int(clamping: plan.dram)
        shape.operations = 1024
        return shape
    }

    init(_ plan: ReplayStorePlan) throws(BenchError) {
        self.plan = plan
        blockBytes = plan.blockBytes
        // Rounding to whole slabs leaves no slab at all of a share that is none.
        mode = plan.dram == 0 && plan.mode == .lease ? .direct : GetMode(plan.mode)
        kv = try KvStore(Self.shape(plan), namespace: Self.namespace)
        stride = (plan.blockBytes + 4095) / 4096 * 4096
        let slabs = (kv.configuration.stagingBytes ?? 0) / kv.configuration.slabBytes
        let each = max(1, stride / kv.configuration.slabBytes)
        let leases = slabs == 0 ? Int.max : max(1, slabs / 4 / each - 1)
        window = min(64, leases, max(4, (64 << 20) / stride))
        batch = 512
        memory = .allocate(byteCount: stride * window, alignment: 2 << 20)
        memory.initializeMemory(as: UInt8.self, repeating: 0)
        region = try kv.register(memory)
        session = kv.session(max(batch, window))
        pieces = .allocate(capacity: window)
        for slot in 0..<window {
            (pieces + slot).initialize(
                to: region.corePiece(offset: UInt64(slot * stride), length: UInt64(blockBytes)))
        }
        let none = kv.operation(.contains, token: 0, room[0])
        queue = .allocate(capacity: max(batch, window))
        queue.initialize(repeating: none, count: max(batch, window))
        completions = .allocate(capacity: max(batch, window))
        completions.initialize(
            repeating: StoreCompletion(token: 0, answer: StoreAnswer(token: 0, status: .done)))
        places = .allocate(capacity: window)
        places.initialize(repeating: 0, count: window)
    }

    deinit {
        pieces.deallocate()
        queue.deallocate()
        completions.deallocate()
        places.deallocate()
        memory.deallocate()
    }

    /// Makes the keys of a batch, the first at `from`.
    private func makeKeys(_ blocks: some Collection<UInt64>, from: Int = 0) {
        if room.capacity < blocks.count + from {
            room = KeyRoom(capacity: 2 * (blocks.count + from))
        }
        for (place, block) in blocks.enumerated() {
            room.set(from + place, block, Self.keyNamespace)
        }
    }

    private func buffer(_ slot: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(
            rebasing: memory[slot * stride..<slot * stride + blockBytes])
    }

    // MARK: Calls

    func longestPrefix(_ blocks: [UInt64]) throws(BenchError) -> Int {
        kv.store.longestPrefix(blocks.map { KvKey.key($0, Self.keyNamespace) }, in: kv.namespace)
    }

    func get(
        _ blocks: ArraySlice<UInt64>, outcomes: inout [ReplayOutcome],
        check: (_ place: Int, _ bytes: UnsafeRawBufferPointer) -> Void
    ) throws(BenchError) {
        makeKeys(blocks)
        order.removeAll(keepingCapacity: true)
        for place in 0..<blocks.count {
            let resident = kv.store.isResident(room[place], in: kv.namespace)
            outcomes[place] = resident ? .hitDRAM : .hitSSD
            if resident { order.append(place) }
        }
        try load(order, &outcomes, check)
        order.removeAll(keepingCapacity: true)
        for place in (0..<blocks.count).reversed() where outcomes[place] == .hitSSD {
            order.append(place)
        }
        try load(order, &outcomes, check)
    }

    private func load(
        _ places: [Int], _ outcomes: inout [ReplayOutcome],
        _ check: (Int, UnsafeRawBufferPointer) -> Void
    ) throws(BenchError) {
        try run(
            places,
            prepare: { place, slot, operation in
                operation = kv.operation(.get, token: slot, room[place])
                operation.mode = mode
                operation.pieces = UnsafePointer(pieces + slot)
                operation.pieceCount = 1
            },
            ended: { (place, slot, completion) throws(BenchError) in
                switch completion.answer.status {
                case .hit: take(place, slot, completion, check)
                case .miss: outcomes[place] = .miss
                default: throw Self.failure("get", completion.answer)
                }
            })
    }

    private func take(
        _ place: Int, _ slot: Int, _ completion: StoreCompletion,
        _ check: (Int, UnsafeRawBufferPointer) -> Void
    ) {
        let lease = completion.answer.lease
        guard lease >= 0 else {
            let count = min(blockBytes, Int(completion.answer.delivered))
            check(
                place,
                UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(buffer(slot))[..<count]))
            return
        }
        if let bytes = kv.leased(completion) {
            check(place, bytes)
        } else {
            // Scattered over slabs: judged by its length when it cannot be copied together.
            let whole = kv.copy(completion, into: buffer(slot))
            check(
                place,
                whole
                    ? UnsafeRawBufferPointer(buffer(slot))
                    : UnsafeRawBufferPointer(start: nil, count: 0))
        }
        session.endLease(lease)
    }

    func put(
        _ blocks: ArraySlice<UInt64>, parent: UInt64?,
        fill: (_ place: Int, _ bytes: UnsafeMutableRawBufferPointer) -> Void,
        completed: (_ place: Int, _ stored: Bool) throws(BenchError) -> Void
    ) throws(BenchError) {
        // The parent's key lies before the first one's.
        makeKeys(blocks, from: 1)
        if let parent { room.set(0, parent, Self.keyNamespace) }
        let durability = Durability(plan.durability)
        try run(
            Array(0..<blocks.count),
            prepare: { place, slot, operation in
                fill(place, buffer(slot))
                operation = kv.operation(.put, token: slot, room[place + 1])
                if place > 0 || parent != nil { operation.parent = room[place] }
                operation.pieces = UnsafePointer(pieces + slot)
                operation.pieceCount = 1
                operation.length = UInt32(blockBytes)
                operation.durability = durability
            },
            ended: { (place, _, completion) throws(BenchError) in
                switch completion.answer.status {
                case .stored: try completed(place, true)
                case .alreadyPresent: try completed(place, false)
                case .noSpace, .notAdmitted, .conflict, .tooLarge: break
                default: throw Self.failure("put", completion.answer)
                }
            })
    }

    func touch(_ blocks: [UInt64]) throws(BenchError) {
        makeKeys(blocks)
        var start = 0
        while start < blocks.count {
            let count = min(batch, blocks.count - start)
            for index in 0..<count {
                queue[index] = kv.operation(.touch, token: index, room[start + index])
            }
            try submit(count)
            var ended = 0
            while ended < count {
                ended += session.poll(into: completions, wait: UInt64.max)
            }
            start += count
        }
    }

    // MARK: Many operations, a window of them at once

    private func run(
        _ order: [Int],
        prepare: (_ place: Int, _ slot: Int, _ operation: inout StoreOperation) -> Void,
        ended: (_ place: Int, _ slot: Int, StoreCompletion) throws(BenchError) -> Void
    ) throws(BenchError) {
        free.removeAll(keepingCapacity: true)
        free.append(contentsOf: (0..<window).reversed())
        var next = 0
        var again: [Int] = []
        var failure: BenchError?
        while true {
            var queued = 0
            while failure == nil, let slot = again.popLast() {
                prepare(places[slot], slot, &queue[queued])
                queued += 1
            }
            while failure == nil, next < order.count, let slot = free.popLast() {
                places[slot] = order[next]
                next += 1
                prepare(places[slot], slot, &queue[queued])
                queued += 1
            }
            try submit(queued)
            if free.count + again.count == window { break }
            let polled = session.poll(into: completions, wait: UInt64.max)
            var throttled = false
            for index in 0..<polled {
                let completion = completions[index]
                let slot = Int(completion.token)
                if completion.answer.status == .throttled {
                    again.append(slot)
                    throttled = true
                    continue
                }
                free.append(slot)
                if failure != nil { continue }
                do throws(BenchError) {
                    try ended(places[slot], slot, completion)
                } catch {
                    failure = error  // what is under way still has to end
                }
            }
            if throttled { usleep(200) }
        }
        if let failure { throw failure }
    }

    private func submit(_ count: Int) throws(BenchError) {
        let operations = UnsafeBufferPointer(start: UnsafePointer(queue), count: count)
        if count == 0 || session.submit(operations) == count { return }
        throw BenchError("the store is closed")
    }

    private static func failure(_ what: String, _ answer: StoreAnswer) -> BenchError {
        let code = errorNumber(answer)
        return BenchError("a \(what) ended as \(answer.status): \(errorText(code))", code: code)
    }

    // MARK: What it tells

    var deviceBytesWritten: UInt64 { (try? kv.statistics().writes.totalBytes) ?? 0 }

    var footprint: [String] {
        let configuration = kv.configuration
        let split = configuration.memorySplit
        func size(_ bytes: Int) -> String { figure(UInt64(max(0, bytes)), binary: true, unit: "B") }
        let capacity = configuration.capacityBytes
        let slabs = configuration.stagingBytes ?? 0
        var lines = [
            "disk: \(figure(capacity, binary: true, unit: "B")) in all, of which "
                + "\(figure(plan.capacity, binary: true, unit: "B")) for values and "
                + "\(figure(capacity - min(capacity, plan.capacity), binary: true, unit: "B")) on "
                + "top for metadata, descriptors and reserve",
            "memory: \(size(slabs)) of slabs for read copies; on top, write buffers "
                + "\(size(split.groupBuffers)), index \(size(split.index)), footers "
                + "\(size(split.footers)), shard tables \(size(split.shardTables)), other "
                + "\(size(split.other)), and the replay's own buffers \(size(memory.count))",
        ]
        if plan.dram > 0, UInt64(slabs) >= plan.dram + UInt64(configuration.slabBytes) {
            lines.append("--dram was raised to the least that the store takes")
        }
        if mode != GetMode(plan.mode) {
            lines.append("without slabs there is nothing to lease: blocks are read directly")
        }
        return lines
    }

    var statistics: JSONValue {
        guard let text = try? kv.statistics().json() else { return .object([]) }
        return JSONValue(parsing: text) ?? .text(text)
    }

    func close() throws(BenchError) {
        kv.unregister(region)
        kv.close()
    }
}
