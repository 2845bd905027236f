// The row about compaction: a store that a replay filled loses a share of the trace's sessions;
// then, before and after `hearth compact`, it is told in how many runs on disk the prefixes that
// are left lie, and whether every byte of them is right. bench/compact goes through all of it.

import BenchKit
import BlockIO
import Glibc
import Hearth
import LogStore
import SegmentFormat
import Staging
import StoreTools

enum CompactRow {
    struct Plan {
        var phase: String
        var trace: String
        var directory: String
        var blockBytes: Int
        var percent: UInt64
        var seed: UInt64
        /// Requests count whose surviving prefix has at least so many blocks.
        var least: Int
    }

    static let options = [
        "phase", "trace", "directory", "block-bytes", "percent", "seed", "least",
    ]
    /// A prefix in as many extents or fewer comes back in few large reads.
    private static let few = 4

    static func plan(_ options: RowOptions) throws(UsageError) -> Plan {
        Plan(
            phase: try options.word("phase", default: "lie", of: ["delete", "lie", "check"]),
            trace: try options.text("trace"), directory: try options.text("directory"),
            blockBytes: Int(try options.size("block-bytes", default: 64 << 10)),
            percent: try options.integer("percent", default: 50, in: 1...99),
            seed: try options.integer("seed", default: 1, in: 0...UInt64.max),
            least: Int(try options.integer("least", default: 16, in: 1...100_000)))
    }

    static func measure(_ plan: Plan) throws(BenchError) -> [(String, JSONValue)] {
        let cut: SessionCut
        do throws(TraceError) {
            var reader = try TraceReader(path: plan.trace)
            cut = try SessionCut(&reader, percent: plan.percent, seed: plan.seed)
        } catch { throw BenchError(error.description) }
        switch plan.phase {
        case "delete": return try delete(plan, cut)
        case "check": return try check(plan, cut)
        default: return try lie(plan, cut)
        }
    }

    /// The store as the replay opened it, of the same capacity.
    private static func store(_ plan: Plan, _ cut: SessionCut) -> ReplayStorePlan {
        ReplayStorePlan(
            directory: plan.directory, blockBytes: plan.blockBytes,
            capacity: UInt64(cut.ids.count) * UInt64(plan.blockBytes), dram: 0, mode: .direct,
            durability: .written)
    }

    // MARK: Deleting

    private static func delete(
        _ plan: Plan, _ cut: SessionCut
    ) throws(BenchError) -> [(String, JSONValue)] {
        let kv = try KvStore(
            HearthReplayStore.shape(store(plan, cut)), namespace: HearthReplayStore.namespace)
        let gone = cut.gone
        let deleted = try delete(gone, kv)
        try kv.flush()
        kv.close()
        return [
            ("blocks", .unsigned(UInt64(cut.ids.count))),
            ("sessions", .unsigned(UInt64(cut.sessions))),
            ("sessions_gone", .unsigned(UInt64(cut.sessionsGone))),
            ("gone", .unsigned(UInt64(gone.count))), ("deleted", .unsigned(UInt64(deleted))),
        ]
    }

    /// Deletes the blocks, many at once; how many there were.
    private static func delete(_ blocks: [UInt64], _ kv: KvStore) throws(BenchError) -> Int {
        let batch = 512
        let session = kv.session(batch)
        let room = KeyRoom(capacity: batch)
        let completions = UnsafeMutableBufferPointer<StoreCompletion>.allocate(capacity: batch)
        completions.initialize(
            repeating: StoreCompletion(token: 0, answer: StoreAnswer(token: 0, status: .done)))
        defer { completions.deallocate() }
        var deleted = 0
        var open = blocks[...]
        while !open.isEmpty {
            let now = open.prefix(batch)
            open = open.dropFirst(batch)
            var left: [Int] = []
            for (place, block) in now.enumerated() {
                room.set(place, block, HearthReplayStore.keyNamespace)
                left.append(place)
            }
            while !left.isEmpty {
                let operations = left.map { kv.operation(.delete, token: $0, room[$0]) }
                let taken = operations.withUnsafeBufferPointer { session.submit($0) }
                guard taken == operations.count else { throw BenchError("the store is closed") }
                left.removeAll(keepingCapacity: true)
                var ended = 0
                while ended < taken {
                    let polled = session.poll(into: completions, wait: UInt64.max)
                    ended += polled
                    for index in 0..<polled {
                        let completion = completions[index]
                        switch completion.answer.status {
                        case .deleted: deleted += 1
                        case .notFound: break
                        case .throttled: left.append(Int(completion.token))
                        default:
                            throw BenchError(
                                "a delete ended as \(completion.answer.status)",
                                code: errorNumber(completion.answer))
                        }
                    }
                }
                if !left.isEmpty { usleep(200) }
            }
        }
        return deleted
    }

    // MARK: How it lies

    private static func lie(
        _ plan: Plan, _ cut: SessionCut
    ) throws(BenchError) -> [(String, JSONValue)] {
        let places: [BlockPlace?]
        let shape: StoreShape
        do {
            let driver = try makeDriver(.automatic, regions: RegionTable(), depth: 64)
            defer { driver.shutdown() }
            let clock = SystemClock()
            shape = try Compactor.shape(
                of: [plan.directory], driver: driver, clock: clock,
                options: CompactOptions(entropy: (1, 2, 3, 4)))
            let closed = try ClosedStore.open(
                [plan.directory], driver: driver, clock: clock, holder: "hearth-bench")
            defer { closed.close() }
            places = try self.places(closed, cut)
        } catch let error as StoreError {
            throw BenchError("\(error)")
        } catch {
            throw BenchError("\(error)")
        }
        var extents: [Int] = []
        var lost: UInt64 = 0
        for request in 0..<cut.table.requests {
            let prefix = cut.prefix(of: request)
            guard prefix.count >= plan.least else { continue }
            let found = prefix.compactMap { places[Int($0)] }
            lost += UInt64(prefix.count - found.count)
            extents.append(BlockPlace.extents(found))
        }
        extents.sort()
        guard let worst = extents.last else {
            throw BenchError("no request has \(plan.least) surviving blocks")
        }
        let inFew = extents.count { $0 <= few }
        let all = extents.reduce(0, +)
        return [
            ("requests", .unsigned(UInt64(extents.count))),
            ("in_few_share", .number(Double(inFew) / Double(extents.count))),
            ("extents_mean", .number(Double(all) / Double(extents.count))),
            ("extents_median", .unsigned(UInt64(extents[extents.count / 2]))),
            ("extents_p99", .unsigned(UInt64(extents[extents.count * 99 / 100]))),
            ("extents_worst", .unsigned(UInt64(worst))), ("blocks_missing", .unsigned(lost)),
            ("segments", .unsigned(UInt64(shape.segments))),
            ("live_bytes", .unsigned(shape.liveBytes)),
            ("dead_bytes", .unsigned(shape.deadBytes)), ("dead_share", .number(shape.deadShare)),
        ]
    }

    /// By number of the block; nil for one that is not there.
    private static func places(
        _ closed: ClosedStore, _ cut: SessionCut
    ) throws -> [BlockPlace?] {
        let catalog = try Catalog(closed)
        _ = try catalog.settleContested()
        let space = closed.namespaces.values.first {
            $0.fields.contains { $0 == ("bench", HearthReplayStore.namespace) }
        }
        guard let space else { throw BenchError("the store holds no replay's blocks") }
        return cut.ids.map { id in
            withUnsafeTemporaryAllocation(byteCount: KvKey.bytes, alignment: 8) { key in
                if let base = key.baseAddress {
                    KvKey.write(id, HearthReplayStore.keyNamespace, to: base)
                }
                let fingerprint = closed.fingerprint(
                    instance: space.instance, UnsafeRawBufferPointer(key))
                guard let block = catalog.blocks[fingerprint] else { return nil }
                return BlockPlace(
                    segment: block.segment, page: block.page,
                    end: block.page + (block.length + 4095) / 4096)
            }
        }
    }

    // MARK: Whether it is right

    private static func check(
        _ plan: Plan, _ cut: SessionCut
    ) throws(BenchError) -> [(String, JSONValue)] {
        let store = try HearthReplayStore(store(plan, cut))
        var right: UInt64 = 0
        var wrong: UInt64 = 0
        let surviving = cut.surviving
        let hits = try look(surviving, store) { block, bytes in
            let isRight =
                bytes.count == plan.blockBytes
                && Payload.firstMismatch(
                    bytes, namespace: ReplayDriver.namespace, key: block, revision: 0) == nil
            if isRight { right += 1 } else { wrong += 1 }
        }
        let back = try look(cut.gone, store) { _, _ in }
        try store.close()
        return [
            ("surviving", .unsigned(UInt64(surviving.count))), ("right", .unsigned(right)),
            ("wrong", .unsigned(wrong)), ("lost", .unsigned(UInt64(surviving.count) - hits)),
            ("back", .unsigned(back)),
        ]
    }

    /// Gets the blocks; how many are there.
    private static func look(
        _ blocks: [UInt64], _ store: HearthReplayStore,
        _ check: (UInt64, UnsafeRawBufferPointer) -> Void
    ) throws(BenchError) -> UInt64 {
        var hits: UInt64 = 0
        var open = blocks[...]
        while !open.isEmpty {
            let now = open.prefix(512)
            open = open.dropFirst(512)
            var outcomes = [ReplayOutcome](repeating: .miss, count: now.count)
            try store.get(now, outcomes: &outcomes) { place, bytes in
                check(now[now.startIndex + place], bytes)
            }
            hits += UInt64(outcomes.count { $0 != .miss })
        }
        return hits
    }
}
