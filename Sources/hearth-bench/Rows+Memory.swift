// Rows about memory: contains, the index over its entries, the process beside its limit, and the
// allocator's calls.

import BenchKit
import BlockIO
import CMeasure
import Glibc
import Hearth
import LogStore
import SegmentFormat
import Staging

/// `contains` of batches of keys, half of them present, as a session asks.
enum ContainsRow {
    struct Plan {
        var keys: Int
        var blocks: Int
        var batches: Int
    }

    static let options = ["keys", "blocks", "batches"]

    static func plan(_ options: RowOptions) throws(UsageError) -> Plan {
        Plan(
            keys: Int(try options.integer("keys", default: 20_000, in: 1...10_000_000)),
            blocks: Int(try options.integer("blocks", default: 1_000_000, in: 1...100_000_000)),
            batches: Int(try options.integer("batches", default: 101, in: 50...100_000)))
    }

    private static let keyNamespace = stableHash("contains")
    private static let blockBytes = 512

    static func measure(_ plan: Plan) throws(BenchError) -> [(String, JSONValue)] {
        let scratch = try ScratchDirectory()
        defer { scratch.remove() }
        var shape = KvShape(
            directory: scratch.path, blockBytes: blockBytes,
            valueBytes: UInt64(plan.blocks) * UInt64(blockBytes))
        shape.blocksPerGroup = 32
        shape.indexEntries = max(4096, plan.blocks + plan.blocks / 20)
        // A DRAM tier, so that a key that is not in the index is looked for there too.
        shape.slabBytes = 16 << 20
        let kv = try KvStore(shape)
        defer { kv.close() }
        let writer = try KvWriter(kv, blockBytes: blockBytes)
        try writer.put(count: plan.blocks) { number, buffer in
            buffer.storeBytes(of: UInt64(number), as: UInt64.self)
            return (UInt64(number), keyNamespace)
        } completed: { _ in
        }
        writer.finish()
        return try ask(kv, plan)
    }

    private static func ask(_ kv: KvStore, _ plan: Plan) throws(BenchError) -> [(String, JSONValue)]
    {
        var random = SeededGenerator(seed: 2)
        var seconds: [Double] = []
        var wrong = 0
        let session = kv.session(1)
        let room = KeyRoom(capacity: plan.keys)
        let keys = (0..<plan.keys).map { room[$0] }
        var found = [Bool](repeating: false, count: plan.keys)
        for _ in 0..<plan.batches {
            // Every second one is there; new ones each time, so that caches are cold as in use.
            for place in 0..<plan.keys {
                let number = random.below(UInt64(plan.blocks))
                room.set(
                    place, place % 2 == 0 ? number : number + UInt64(plan.blocks), keyNamespace)
            }
            found.withUnsafeMutableBufferPointer { into in
                keys.withUnsafeBufferPointer { keys in
                    guard let base = into.baseAddress else { return }
                    let begin = monotonicNanoseconds()
                    session.contains(keys, in: kv.namespace, into: base)
                    seconds.append(Double(monotonicNanoseconds() - begin) / 1e9)
                }
            }
            for (place, present) in found.enumerated() where present != (place % 2 == 0) {
                wrong += 1
            }
        }
        guard wrong == 0 else { throw BenchError("contains was wrong for \(wrong) keys") }
        return [
            ("seconds", .array(seconds.map { .number($0) })),
            ("median_ms", .number(1000 * Bootstrap.median(seconds))),
            ("keys", .unsigned(UInt64(plan.keys))), ("blocks", .unsigned(UInt64(plan.blocks))),
        ]
    }
}

/// The index's memory, filled with synthetic entries to its capacity.
enum IndexRow {
    static let options = ["entries"]

    static func plan(_ options: RowOptions) throws(UsageError) -> Int {
        Int(try options.integer("entries", default: 1_000_000, in: 1...(1 << 32)))
    }

    static func measure(_ entries: Int) throws(BenchError) -> [(String, JSONValue)] {
        let index: BlockIndex
        do throws(IOError) {
            index = try BlockIndex(capacity: entries)
        } catch {
            throw BenchError(error)
        }
        let begin = monotonicNanoseconds()
        var random = SeededGenerator(seed: 4)
        for number in 0..<entries {
            let place = Place(
                segment: UInt32(number >> 16 & 0x7FFF), page: UInt32(number & 0xFFFF))
            let entry = IndexEntry(
                place: place, length: 65536, namespaceSlot: 1,
                versionLow: UInt32(truncatingIfNeeded: number), checksum: 1)
            let inserted = index.insert(Fingerprint(hi: random.next(), lo: random.next()), entry)
            guard inserted == .inserted else {
                throw BenchError("entry \(number) of \(entries): \(inserted)")
            }
        }
        let seconds = Double(monotonicNanoseconds() - begin) / 1e9
        return [
            ("entries", .unsigned(UInt64(index.count))),
            ("bytes", .unsigned(UInt64(index.memoryBytes))),
            ("bytes_per_entry", .number(Double(index.memoryBytes) / Double(max(1, index.count)))),
            ("fill_seconds", .number(seconds)),
        ]
    }
}

/// The process's memory while the whole store is read through the DRAM tier, beside the limit.
enum MemoryRow {
    static let options = ReadPlan.options

    static func plan(_ options: RowOptions) throws(UsageError) -> ReadPlan {
        try ReadPlan(options)
    }

    static func measure(_ plan: ReadPlan) throws(BenchError) -> [(String, JSONValue)] {
        let row = try RowStore(
            directory: plan.directory, blockBytes: plan.blockBytes, depth: plan.depth,
            size: plan.size, mode: .cached)
        defer { row.kv.close() }
        let loop = try GetLoop(row.kv, row.options, units: row.units)
        var peak = ProcessMemory.now()
        let result = try loop.runThrough {
            let now = ProcessMemory.now()
            if now.total > peak.total { peak = now }
        }
        return [
            ("limit_bytes", .unsigned(UInt64(row.kv.configuration.memoryLimitBytes))),
            ("process_bytes", .unsigned(peak.total)),
            ("private_bytes", .unsigned(peak.anonymous)),
            ("shared_bytes", .unsigned(peak.shared)), ("huge_bytes", .unsigned(peak.huge)),
            ("read_bytes", .unsigned(result.bytes)),
        ]
    }
}

/// What /proc/self/status says of memory that was touched, files mapped for code left out.
struct ProcessMemory {
    var anonymous: UInt64 = 0
    var shared: UInt64 = 0
    var huge: UInt64 = 0
    var total: UInt64 { anonymous + shared + huge }

    static func now() -> ProcessMemory {
        var made = ProcessMemory()
        guard let file = fopen("/proc/self/status", "re") else { return made }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 256)
        while fgets(&line, 256, file) != nil {
            let text = String(
                decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            let words = text.split(whereSeparator: { $0 == " " || $0 == "\t" || $0 == "\n" })
            guard words.count >= 2, let kibibytes = UInt64(words[1]) else { continue }
            switch words[0] {
            case "RssAnon:": made.anonymous = kibibytes << 10
            case "RssShmem:": made.shared = kibibytes << 10
            case "HugetlbPages:": made.huge = kibibytes << 10
            default: break
            }
        }
        return made
    }
}

/// Calls of the allocator per get hit and per put in the core, on this thread and on real files.
enum AllocationsRow {
    static let options = ["operations"]

    static func plan(_ options: RowOptions) throws(UsageError) -> Int {
        Int(try options.integer("operations", default: 20_000, in: 10_000...1_000_000))
    }

    static func measure(_ operations: Int) throws(BenchError) -> [(String, JSONValue)] {
        guard hearth_counts_allocations() != 0 else {
            throw BenchError("allocations are not counted in a build with a sanitizer")
        }
        let scratch = try ScratchDirectory()
        defer { scratch.remove() }
        var members: [(String, JSONValue)] = []
        var worst: (get: Double, put: Double) = (0, 0)
        for (name, inclusive, mode) in [
            ("direct", false, GetMode.direct), ("cached", true, .cached), ("lease", true, .lease),
        ] {
            let core = try CorePump(
                directory: "\(scratch.path)/\(name)", operations: operations, inclusive: inclusive)
            let puts = try core.puts(operations)
            let gets = try core.gets(operations, mode)
            try core.close()
            members.append(("puts_\(name)", .unsigned(puts)))
            members.append(("gets_\(name)", .unsigned(gets)))
            worst.put = max(worst.put, Double(puts) / Double(operations))
            worst.get = max(worst.get, Double(gets) / Double(operations))
        }
        return [
            ("per_get", .number(worst.get)), ("per_put", .number(worst.put)),
            ("operations", .unsigned(UInt64(operations))), ("calls", .object(members)),
        ]
    }
}

/// The core pumped on this very thread, as its owner does, with nothing in between.
final class CorePump: StoreSink {
    private let driver: any BlockDriver
    private let store: StagedStore
    private let depth = 32
    private let blockBytes = 8192
    private let memory: UnsafeMutableRawBufferPointer
    private let region: RegionID
    private let keys: KeyRoom
    private let pieces: UnsafeMutablePointer<Piece>
    private let free: UnsafeMutablePointer<Int>
    private var freeCount = 0
    private var namespaceSlot: UInt16 = 0
    private var leases: UnsafeMutablePointer<Int32>
    private var leaseCount = 0
    private var good = 0
    private var other: StoreAnswer?
    private var controls = 0

    init(directory: String, operations: Int, inclusive: Bool) throws(BenchError) {
        var entropy = SeededGenerator(seed: wallMilliseconds())
        var log = LogStoreConfiguration(
            directories: [directory],
            capacityBytes: UInt64(operations) * UInt64(2 * blockBytes) + (1 << 30),
            indexEntries: 2 * operations,
            entropy: (entropy.next(), entropy.next(), entropy.next(), entropy.next()))
        log.minimumSegmentBytes = 64 << 20
        log.maximumBlockBytes = 64 << 10
        log.operations = 256
        var configuration = StagedConfiguration(
            log: log, stagingBytes: 16 << 20, inclusive: inclusive)
        configuration.slabBytes = blockBytes
        do throws(IOError) {
            driver = try makeDriver(.automatic, regions: RegionTable(), depth: 256)
        } catch {
            throw BenchError(error)
        }
        do throws(StoreError) {
            store = try StagedStore.open(configuration, driver: driver, clock: SystemClock())
        } catch {
            throw BenchError("\(error)", code: error.errno)
        }
        memory = .allocate(byteCount: depth * blockBytes, alignment: 4096)
        memory.initializeMemory(as: UInt8.self, repeating: 7)
        let added = driver.regions.add(
            Region(kind: .host, base: memory.baseAddress, length: UInt64(memory.count)))
        region = added ?? .process
        if region != .process { driver.register(region) }
        keys = KeyRoom(capacity: depth)
        pieces = .allocate(capacity: depth)
        free = .allocate(capacity: depth)
        leases = .allocate(capacity: depth)
        for slot in 0..<depth {
            (pieces + slot).initialize(
                to: Piece(
                    region: region, offset: UInt64(slot * blockBytes),
                    length: UInt64(blockBytes)))
            free[slot] = slot
        }
        freeCount = depth
        store.sink = self
        store.openNamespace(
            token: 1, fields: [("bench", "core")], aligned: false, timeToLive: 0, capBytes: 0)
        try wait { controls == 1 && store.isRecovered }
    }

    deinit {
        memory.deallocate()
        pieces.deallocate()
        free.deallocate()
        leases.deallocate()
    }

    private func turn() {
        if !store.pump() { driver.wait(until: monotonicNanoseconds() + 1_000_000) }
        while leaseCount > 0 {
            leaseCount -= 1
            store.endLease(leases[leaseCount])
        }
    }

    private func wait(_ done: () -> Bool) throws(BenchError) {
        let limit = monotonicNanoseconds() + 60_000_000_000
        while !done() {
            turn()
            if monotonicNanoseconds() > limit { throw BenchError("the core stands still") }
        }
    }

    /// Allocations while so many fresh keys are put.
    func puts(_ count: Int) throws(BenchError) -> UInt64 {
        try measured(count) { slot, number in
            var operation = StoreOperation(
                kind: .put, token: UInt64(slot), namespaceSlot: namespaceSlot, key: keys[slot])
            operation.length = UInt32(blockBytes)
            return operation
        }
    }

    func gets(_ count: Int, _ mode: GetMode) throws(BenchError) -> UInt64 {
        try measured(count) { slot, number in
            var operation = StoreOperation(
                kind: .get, token: UInt64(slot), namespaceSlot: namespaceSlot, key: keys[slot])
            operation.mode = mode
            return operation
        }
    }

    private func measured(
        _ count: Int, _ make: (_ slot: Int, _ number: Int) -> StoreOperation
    ) throws(BenchError) -> UInt64 {
        good = 0
        other = nil
        let before = hearth_thread_allocations()
        var next = 0
        while good < count, other == nil {
            while next < count, freeCount > 0 {
                let slot = free[freeCount - 1]
                keys.set(slot, UInt64(next), 1)
                var operation = make(slot, next)
                operation.pieces = UnsafePointer(pieces + slot)
                operation.pieceCount = 1
                // Taken from the list first: the answer may come from inside `submit`.
                freeCount -= 1
                guard store.submit(operation) else {
                    freeCount += 1
                    break
                }
                next += 1
            }
            turn()
        }
        let after = hearth_thread_allocations()
        if let other { throw BenchError("an operation of the core ended as \(other.status)") }
        return after - before
    }

    func close() throws(BenchError) {
        store.beginClose()
        try wait { store.isIdle }
        store.shutdown()
        driver.shutdown()
    }

    // MARK: StoreSink

    func answered(_ answer: StoreAnswer) {
        free[freeCount] = Int(answer.token)
        freeCount += 1
        if answer.lease >= 0 {
            leases[leaseCount] = answer.lease
            leaseCount += 1
        }
        if answer.status == .hit || answer.status == .stored { good += 1 } else { other = answer }
    }

    func released(_ token: UInt64) {}

    func controlled(_ outcome: Outcome) {
        controls += 1
        if controls == 1 { namespaceSlot = UInt16(truncatingIfNeeded: outcome.version) }
    }

    func happened(_ event: StoreEvent) {}
}
