// Rows about reading: the raw loop, the owner thread alone, processor time side by side,
// and layers.

import BenchKit
import BlockIO
import CMeasure
import Glibc
import Hearth
import Staging

/// What most rows are told.
struct ReadPlan {
    var directory: String
    var blockBytes: UInt64
    var depth: Int
    var size: UInt64
    var seconds: Double
    var checksum = true
    var timesChecksums = false
    var pairs = 1

    init(_ options: RowOptions) throws(UsageError) {
        directory = try options.text("directory")
        blockBytes = try options.size("block-bytes", default: 64 << 10)
        depth = Int(try options.integer("iodepth", default: 32, in: 1...4096))
        size = try options.size("size", default: 4 << 30)
        seconds = Double(try options.integer("seconds", default: 5, in: 1...3600))
        if size < blockBytes {
            throw UsageError("--size: \(size) is smaller than one block of \(blockBytes)")
        }
    }

    static let options = ["directory", "block-bytes", "iodepth", "size", "seconds"]

    /// A job of gets past the DRAM tier, of blocks as told.
    func directGets(_ name: String) -> JobOptions {
        var made = JobOptions()
        made.name = name
        made.directory = directory
        made.blockBytes = blockBytes
        made.depth = depth
        made.readMode = .direct
        return made
    }
}

extension LoopResult {
    var members: [(String, JSONValue)] {
        [
            ("cpu_seconds", .number(Double(processor) / 1e9)), ("read_bytes", .unsigned(bytes)),
            ("seconds", .number(Double(nanoseconds) / 1e9)),
            ("cpu_seconds_per_gib", .number(processorPerGiB)),
        ]
    }
}

/// Random reads of a file, laid out first where it is absent.
enum RawRow {
    static let options = ReadPlan.options + ["checksum"]

    static func plan(_ options: RowOptions) throws(UsageError) -> ReadPlan {
        var plan = try ReadPlan(options)
        let word = try options.word(
            "checksum", default: "crc32c", of: ["crc32c", "timed", "none"])
        plan.checksum = word != "none"
        plan.timesChecksums = word == "timed"
        return plan
    }

    static func measure(_ plan: ReadPlan) throws(BenchError) -> [(String, JSONValue)] {
        var options = JobOptions()
        options.name = "raw"
        options.directory = plan.directory
        options.blockBytes = plan.blockBytes
        options.depth = plan.depth
        options.size = .bytes(plan.size)
        options.engine = .ioUring
        let units = try RawTarget().prepare(options, layout: true) { _, _ in }
        let loop = try RawLoop(
            directory: plan.directory, files: [("raw.0.0", units * plan.blockBytes)],
            blockBytes: Int(plan.blockBytes), depth: plan.depth, checksum: plan.checksum)
        guard plan.timesChecksums else { return try loop.run(seconds: plan.seconds).members }
        let time = ChecksumTime()
        var result = try loop.run(seconds: plan.seconds)
        let checks = time.members
        result.processor -= min(result.processor, time.nanoseconds)
        return result.members + checks
    }
}

/// What checksums take from here on, in this process.
struct ChecksumTime {
    private let before: (nanoseconds: UInt64, bytes: UInt64)

    init() {
        hearth_time_checksums(1)
        before = (hearth_checksum_nanoseconds(), hearth_checksum_bytes())
    }

    var nanoseconds: UInt64 { hearth_checksum_nanoseconds() - before.nanoseconds }

    var members: [(String, JSONValue)] {
        [
            ("checksum_seconds", .number(Double(nanoseconds) / 1e9)),
            ("checksum_bytes", .unsigned(hearth_checksum_bytes() - before.bytes)),
        ]
    }
}

/// The owner thread's processor time for direct gets, without what the checksums took.
enum RingRow {
    static let options = ReadPlan.options

    static func plan(_ options: RowOptions) throws(UsageError) -> ReadPlan {
        try ReadPlan(options)
    }

    static func measure(_ plan: ReadPlan) throws(BenchError) -> [(String, JSONValue)] {
        let row = try RowStore(
            directory: plan.directory, blockBytes: plan.blockBytes, depth: plan.depth,
            size: plan.size)
        defer { row.kv.close() }
        let loop = try GetLoop(row.kv, row.options, units: row.units)
        let checks = ChecksumTime()
        let owner = row.kv.ownerProcessorNanoseconds()
        var result = try loop.run(seconds: plan.seconds)
        let used = row.kv.ownerProcessorNanoseconds() - owner
        result.processor = used - min(used, checks.nanoseconds)
        return result.members + checks.members + [
            ("owner_cpu_seconds", .number(Double(used) / 1e9))
        ]
    }
}

/// Processor time a GiB of the store and of the raw loop with the same checksum, on the same
/// extents of the store's own files, in turns (ABBA) in one process.
enum CPURow {
    static let options = ReadPlan.options + ["pairs"]

    static func plan(_ options: RowOptions) throws(UsageError) -> ReadPlan {
        var plan = try ReadPlan(options)
        plan.pairs = Int(try options.integer("pairs", default: 6, in: 2...1000))
        return plan
    }

    static func measure(_ plan: ReadPlan) throws(BenchError) -> [(String, JSONValue)] {
        let row = try RowStore(
            directory: plan.directory, blockBytes: plan.blockBytes, depth: plan.depth,
            size: plan.size)
        defer { row.kv.close() }
        let path = KvTarget.directory(row.options)
        let segments = try SegmentFiles.written(in: path)
        let raw = try RawLoop(
            directory: path, files: segments, blockBytes: Int(plan.blockBytes), depth: plan.depth,
            checksum: true)
        let kv = try GetLoop(row.kv, row.options, units: row.units)
        var stored: [Double] = []
        var plain: [Double] = []
        for pair in 0..<plan.pairs {
            if pair % 2 == 0 {
                stored.append(try kv.run(seconds: plan.seconds).processorPerGiB)
                plain.append(try raw.run(seconds: plan.seconds).processorPerGiB)
            } else {
                plain.append(try raw.run(seconds: plan.seconds).processorPerGiB)
                stored.append(try kv.run(seconds: plan.seconds).processorPerGiB)
            }
        }
        let ratio = Bootstrap.interval(zip(stored, plain).map { $0 / $1 })
        return [
            ("kv_cpu_seconds_per_gib", .array(stored.map { .number($0) })),
            ("raw_cpu_seconds_per_gib", .array(plain.map { .number($0) })),
            ("ratio", .number(ratio.median)), ("ratio_low", .number(ratio.low)),
            ("ratio_high", .number(ratio.high)),
        ]
    }
}

enum SegmentFiles {
    /// The store's segment files, and how far each is written without a hole.
    static func written(in path: String) throws(BenchError) -> [(name: String, bytes: UInt64)] {
        guard let directory = opendir(path) else {
            throw BenchError("\(path): \(errorText(errno))", code: errno)
        }
        defer { closedir(directory) }
        var found: [(name: String, bytes: UInt64)] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            guard name.hasPrefix("segment-") else { continue }
            let descriptor = open("\(path)/\(name)", O_RDONLY | O_CLOEXEC)
            guard descriptor >= 0 else { continue }
            // SEEK_HOLE: preallocated room that was never written reads as zeros, without I/O.
            let end = lseek(descriptor, 0, 4)
            close(descriptor)
            if end > 0 { found.append((name, UInt64(end) / (1 << 20) * (1 << 20))) }
        }
        return found.sorted { $0.name < $1.name }
    }
}

/// One layer of 32 blocks after another: 64 KiB shards of 4 MiB blocks, 32 reads in flight.
enum LayersRow {
    struct Plan {
        var directory: String
        var size: UInt64
        var seconds: Double
    }

    static let options = ["directory", "size", "seconds"]
    private static let blockBytes = 4 << 20
    private static let shards = 64
    private static let run = 32

    static func plan(_ options: RowOptions) throws(UsageError) -> Plan {
        let plan = Plan(
            directory: try options.text("directory"),
            size: try options.size("size", default: 4 << 30),
            seconds: Double(try options.integer("seconds", default: 5, in: 1...3600)))
        if plan.size < UInt64(run * blockBytes) {
            throw UsageError("--size: \(run) blocks of 4 MiB are the least")
        }
        return plan
    }

    static func measure(_ plan: Plan) throws(BenchError) -> [(String, JSONValue)] {
        var shape = KvShape(
            directory: plan.directory + "/layers.hearth", blockBytes: blockBytes,
            valueBytes: plan.size, shards: shards, aligned: true)
        shape.slabBytes = 1
        shape.inclusive = false
        let kv = try KvStore(shape, namespace: "layers")
        defer { kv.close() }
        let blocks = Int(plan.size) / blockBytes
        try layOut(kv, blocks)
        return try read(kv, blocks, plan.seconds).members
    }

    private static let keyNamespace = stableHash("layers")

    private static func layOut(_ kv: KvStore, _ blocks: Int) throws(BenchError) {
        let keys = (0..<blocks).map { KvKey.key(UInt64($0), keyNamespace) }
        let present = kv.store.contains(keys, in: kv.namespace)
        let missing = (0..<blocks).filter { !present[$0] }
        guard !missing.isEmpty else { return }
        let writer = try KvWriter(kv, blockBytes: blockBytes, shards: shards)
        defer { writer.finish() }
        try writer.put(count: missing.count) { number, buffer in
            let key = UInt64(missing[number])
            Payload.fill(buffer, namespace: keyNamespace, key: key, revision: 0)
            return (key, keyNamespace)
        } completed: { _ in
        }
    }

    private static func read(
        _ kv: KvStore, _ blocks: Int, _ seconds: Double
    ) throws(BenchError) -> LoopResult {
        let shardBytes = blockBytes / shards
        let memory = UnsafeMutableRawBufferPointer.allocate(
            byteCount: shardBytes * run, alignment: 2 << 20)
        memory.initializeMemory(as: UInt8.self, repeating: 1)
        defer { memory.deallocate() }
        let region = try kv.register(memory)
        defer { kv.unregister(region) }
        let keys = KeyRoom(capacity: run)
        let session = kv.session(run)
        let pieces = (0..<run).map {
            region.corePiece(offset: UInt64($0 * shardBytes), length: UInt64(shardBytes))
        }
        var random = SeededGenerator(seed: 3)
        var first = 0
        /// Reads issued of the run that is being read, layer by layer.
        var issued = shards * run
        var completions = [StoreCompletion](
            repeating: StoreCompletion(token: 0, answer: StoreAnswer(token: 0, status: .done)),
            count: run)
        var queue: [StoreOperation] = []
        queue.reserveCapacity(run)
        var free = Array((0..<run).reversed())
        var result = LoopResult()
        let begin = monotonicNanoseconds()
        let end = begin + UInt64(seconds * 1e9)
        let processor = LoopResult.processNanoseconds()
        try pieces.withUnsafeBufferPointer { (pieces) throws(BenchError) in
            var over = false
            var failure: BenchError?
            while true {
                queue.removeAll(keepingCapacity: true)
                over = over || monotonicNanoseconds() >= end
                while !over, let slot = free.popLast() {
                    if issued == shards * run {
                        first = Int(random.below(UInt64(blocks - run + 1)))
                        issued = 0
                    }
                    keys.set(slot, UInt64(first + issued % run), keyNamespace)
                    var operation = kv.operation(.get, token: slot, keys[slot])
                    operation.firstShard = issued / run
                    operation.shardCount = 1
                    operation.pieces = pieces.baseAddress.map { $0 + slot }
                    operation.pieceCount = 1
                    queue.append(operation)
                    issued += 1
                }
                let taken = queue.withUnsafeBufferPointer { $0.count == 0 ? 0 : session.submit($0) }
                guard taken == queue.count else { throw BenchError("the store is closed") }
                if free.count == run { break }
                let count = completions.withUnsafeMutableBufferPointer {
                    session.poll(into: $0, wait: UInt64.max)
                }
                for completion in completions[..<count] {
                    free.append(Int(completion.token))
                    let answer = completion.answer
                    if answer.status != .hit || answer.delivered != UInt64(shardBytes) {
                        failure = BenchError("a shard's get ended as \(answer.status)")
                        over = true  // the others still write into our memory
                    }
                    result.bytes += UInt64(shardBytes)
                }
            }
            if let failure { throw failure }
        }
        result.nanoseconds = monotonicNanoseconds() - begin
        result.processor = LoopResult.processNanoseconds() - processor
        return result
    }
}
