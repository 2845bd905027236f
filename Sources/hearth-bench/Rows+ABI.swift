// Rows about the C interface: 4 KiB reads through it and through the Swift one, and what a batch of
// resident blocks costs beside the copying.

import BenchKit
import BlockIO
import CHearth
import Glibc
import Hearth
import HearthABI
import Staging

/// Random direct gets of the store that a read job named `rows` laid out, through one interface or
/// the other: the same loop, the same keys and memory, whatever has ended submitted anew as one
/// batch.
enum ABIRow {
    struct Plan {
        var read: ReadPlan
        var isC: Bool
    }

    static let options = ReadPlan.options + ["api"]

    static func plan(_ options: RowOptions) throws(UsageError) -> Plan {
        Plan(
            read: try ReadPlan(options),
            isC: try options.word("api", default: "c", of: ["c", "swift"]) == "c")
    }

    static func measure(_ plan: Plan) throws(BenchError) -> [(String, JSONValue)] {
        let row = try RowStore(
            directory: plan.read.directory, blockBytes: plan.read.blockBytes,
            depth: plan.read.depth, size: plan.read.size)
        let stride = (Int(plan.read.blockBytes) + 4095) / 4096 * 4096
        let memory = UnsafeMutableRawBufferPointer.allocate(
            byteCount: stride * plan.read.depth, alignment: 2 << 20)
        memory.initializeMemory(as: UInt8.self, repeating: 1)
        defer { memory.deallocate() }
        if !plan.isC {
            defer { row.kv.close() }
            return try throughSwift(row, plan.read, memory, stride).members
        }
        let configuration = row.kv.configuration
        row.kv.close()
        let store = try ABIStore(configuration)
        defer { store.close() }
        return try throughC(store, row, plan.read, memory, stride).members
    }

    private static func throughC(
        _ store: ABIStore, _ row: RowStore, _ plan: ReadPlan,
        _ memory: UnsafeMutableRawBufferPointer, _ stride: Int
    ) throws(BenchError) -> LoopResult {
        var region: hearth_region = 0
        try ABIStore.check(
            "register",
            hearth_register(
                store.store, memory.baseAddress, UInt64(memory.count), -1, &region))
        let batch = try ABIBatch(store, capacity: plan.depth)
        let space = row.options.namespace(job: 0)
        let length = Int(plan.blockBytes)
        return try loop(plan, row.units) { tag, key in
            batch.add(
                tag: tag, key: key, space, region: region, offset: UInt64(tag * stride),
                length: length, mode: HEARTH_DIRECT)
        } submit: {
            batch.submit()
        } poll: { tags in
            let count = hearth_poll(
                batch.queue, batch.completions, UInt32(plan.depth), UInt64.max)
            for index in 0..<max(0, Int(count)) {
                guard batch.completions[index].status == UInt8(HEARTH_HIT.rawValue) else {
                    return 0
                }
                tags[index] = Int(batch.completions[index].tag)
            }
            return Int(count)
        }
    }

    private static func throughSwift(
        _ row: RowStore, _ plan: ReadPlan, _ memory: UnsafeMutableRawBufferPointer, _ stride: Int
    ) throws(BenchError) -> LoopResult {
        let region = try row.kv.register(memory)
        defer { row.kv.unregister(region) }
        let session = row.kv.session(plan.depth)
        let keys = KeyRoom(capacity: plan.depth)
        let space = row.options.namespace(job: 0)
        let length = plan.blockBytes
        let pieces = UnsafeMutablePointer<Piece>.allocate(capacity: plan.depth)
        defer { pieces.deallocate() }
        for tag in 0..<plan.depth {
            pieces.advanced(by: tag).initialize(
                to: region.corePiece(offset: UInt64(tag * stride), length: length))
        }
        let none = row.kv.operation(.get, token: 0, keys[0])
        let queued = UnsafeMutablePointer<StoreOperation>.allocate(capacity: plan.depth)
        queued.initialize(repeating: none, count: plan.depth)
        defer { queued.deallocate() }
        var count = 0
        let completions = UnsafeMutableBufferPointer<StoreCompletion>.allocate(
            capacity: plan.depth)
        completions.initialize(
            repeating: StoreCompletion(token: 0, answer: StoreAnswer(token: 0, status: .done)))
        defer { completions.deallocate() }
        return try loop(plan, row.units) { tag, key in
            keys.set(tag, key, space)
            queued[count] = row.kv.operation(.get, token: tag, keys[tag])
            queued[count].pieces = UnsafePointer(pieces + tag)
            queued[count].pieceCount = 1
            count += 1
        } submit: {
            defer { count = 0 }
            return session.submit(UnsafeBufferPointer(start: queued, count: count)) == count
        } poll: { tags in
            let polled = session.poll(into: completions, wait: UInt64.max)
            for index in 0..<polled {
                guard completions[index].answer.status == .hit else { return 0 }
                tags[index] = Int(completions[index].token)
            }
            return polled
        }
    }

    /// `poll` waits, writes the tags of what has ended, and returns how many; 0 for a failure.
    private static func loop(
        _ plan: ReadPlan, _ units: UInt64, add: (Int, UInt64) -> Void, submit: () -> Bool,
        poll: (UnsafeMutablePointer<Int>) -> Int
    ) throws(BenchError) -> LoopResult {
        var result = LoopResult()
        var random = SeededGenerator(seed: 1)
        let processor = LoopResult.processNanoseconds()
        let begin = monotonicNanoseconds()
        let end = begin + UInt64(plan.seconds * 1e9)
        var inFlight = plan.depth
        for tag in 0..<plan.depth { add(tag, random.below(units)) }
        var isRight = submit()
        let ended = UnsafeMutablePointer<Int>.allocate(capacity: plan.depth)
        defer { ended.deallocate() }
        while inFlight > 0 && isRight {
            let goOn = monotonicNanoseconds() < end
            let count = poll(ended)
            isRight = count > 0
            guard isRight else { break }
            inFlight -= count
            result.bytes += UInt64(count) * plan.blockBytes
            guard goOn else { continue }
            for index in 0..<count { add(ended[index], random.below(units)) }
            inFlight += count
            isRight = submit()
        }
        guard isRight else { throw BenchError("a get missed in a store that holds every key") }
        result.nanoseconds = monotonicNanoseconds() - begin
        result.processor = LoopResult.processNanoseconds() - processor
        return result
    }
}

/// Batches of cached gets of resident blocks: microseconds a batch, submitted and polled, less what
/// copying the same bytes takes.
enum ABIBatchRow {
    struct Plan {
        var batch: Int
        var batches: Int
        var blockBytes: Int
    }

    static let options = ["batch", "batches", "block-bytes"]

    static func plan(_ options: RowOptions) throws(UsageError) -> Plan {
        Plan(
            batch: Int(try options.integer("batch", default: 64, in: 1...1024)),
            batches: Int(try options.integer("batches", default: 5000, in: 50...1_000_000)),
            blockBytes: Int(try options.size("block-bytes", default: 4096)))
    }

    private static let keyNamespace = stableHash("abi-batch")

    static func measure(_ plan: Plan) throws(BenchError) -> [(String, JSONValue)] {
        let scratch = try ScratchDirectory()
        defer { scratch.remove() }
        var shape = KvShape(
            directory: scratch.path, blockBytes: plan.blockBytes,
            valueBytes: UInt64(plan.batch * plan.blockBytes))
        shape.slabBytes = 32 << 20
        let kv = try KvStore(shape)
        let writer = try KvWriter(kv, blockBytes: plan.blockBytes)
        try writer.put(count: plan.batch) { number, buffer in
            Payload.fill(buffer, namespace: keyNamespace, key: UInt64(number), revision: 0)
            return (UInt64(number), keyNamespace)
        } completed: { _ in
        }
        writer.finish()
        let configuration = kv.configuration
        kv.close()
        let store = try ABIStore(configuration)
        defer { store.close() }
        return try ask(store, plan)
    }

    private static func ask(
        _ store: ABIStore, _ plan: Plan
    ) throws(BenchError) -> [(String, JSONValue)] {
        let bytes = plan.batch * plan.blockBytes
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes, alignment: 4096)
        let source = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes, alignment: 4096)
        memory.initializeMemory(as: UInt8.self, repeating: 0)
        source.initializeMemory(as: UInt8.self, repeating: 1)
        defer {
            memory.deallocate()
            source.deallocate()
        }
        guard let base = memory.baseAddress, let from = source.baseAddress else {
            throw BenchError("no memory for a batch")
        }
        let batch = try ABIBatch(store, capacity: plan.batch)
        for index in 0..<plan.batch {
            batch.add(
                tag: index, key: UInt64(index), keyNamespace, region: 0,
                offset: UInt64(UInt(bitPattern: base)) + UInt64(index * plan.blockBytes),
                length: plan.blockBytes, mode: HEARTH_CACHED)
        }
        // The first round brings them into the DRAM tier.
        guard batch.submit(), drain(batch, plan.batch) else { throw BenchError("a get missed") }
        for index in 0..<plan.batch {
            let block = UnsafeMutableRawBufferPointer(
                rebasing: memory[index * plan.blockBytes..<(index + 1) * plan.blockBytes])
            let wrong = Payload.firstMismatch(
                UnsafeRawBufferPointer(block), namespace: keyNamespace, key: UInt64(index),
                revision: 0)
            if wrong != nil {
                throw BenchError("block \(index) came back with other bytes")
            }
        }
        var total: [Double] = []
        var overhead: [Double] = []
        for _ in 0..<plan.batches {
            let begin = monotonicNanoseconds()
            let taken = batch.resubmit(plan.batch)
            let polled = hearth_poll(batch.queue, batch.completions, UInt32(plan.batch), 0)
            let end = monotonicNanoseconds()
            guard taken == Int64(plan.batch), polled == taken,
                (0..<plan.batch).allSatisfy({
                    batch.completions[$0].status == UInt8(HEARTH_HIT.rawValue)
                })
            else { throw BenchError("a resident block was not served on the calling thread") }
            for index in 0..<plan.batch {
                (base + index * plan.blockBytes).copyMemory(
                    from: from + index * plan.blockBytes, byteCount: plan.blockBytes)
            }
            let copied = monotonicNanoseconds() - end
            total.append(Double(end - begin) / 1000)
            overhead.append((Double(end - begin) - Double(copied)) / 1000)
        }
        return [
            ("median_us", .number(Bootstrap.median(overhead))),
            ("median_total_us", .number(Bootstrap.median(total))),
            ("batch", .unsigned(UInt64(plan.batch))),
            ("batches", .unsigned(UInt64(plan.batches))),
        ]
    }

    private static func drain(_ batch: ABIBatch, _ count: Int) -> Bool {
        var left = count
        while left > 0 {
            let polled = hearth_poll(
                batch.queue, batch.completions, UInt32(batch.capacity), 10_000_000_000)
            guard polled > 0 else { return false }
            for index in 0..<Int(polled)
            where batch.completions[index].status != UInt8(HEARTH_HIT.rawValue) { return false }
            left -= Int(polled)
        }
        return true
    }
}
