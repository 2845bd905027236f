// The row about opening: a store is filled and its process killed; then it is opened, and the time
// taken to the first hit and to the complete index. Measuring ends without a close, so that the
// next run finds the same.

import BenchKit
import BlockIO
import Glibc
import Hearth
import Staging
import Synchronization

enum OpenRow {
    struct Plan {
        var fills: Bool
        var directory: String
        var blocks: Int
        var blockBytes: UInt64
    }

    static let options = ["phase", "directory", "blocks", "block-bytes"]
    private static let keyNamespace = stableHash("open")

    static func plan(_ options: RowOptions) throws(UsageError) -> Plan {
        Plan(
            fills: try options.word("phase", default: "measure", of: ["fill", "measure"]) == "fill",
            directory: try options.text("directory"),
            blocks: Int(try options.integer("blocks", default: 1_000_000, in: 10...100_000_000)),
            blockBytes: try options.size("block-bytes", default: 4096))
    }

    private static func shape(_ plan: Plan) -> KvShape {
        var shape = KvShape(
            directory: plan.directory + "/open.hearth", blockBytes: Int(plan.blockBytes),
            valueBytes: UInt64(plan.blocks) * plan.blockBytes)
        shape.blocksPerGroup = 16
        shape.indexEntries = max(4096, plan.blocks + plan.blocks / 10)
        return shape
    }

    static func measure(_ plan: Plan) throws(BenchError) -> [(String, JSONValue)] {
        try plan.fills ? fill(plan) : open(plan)
    }

    // MARK: Fill

    private static func fill(_ plan: Plan) throws(BenchError) -> [(String, JSONValue)] {
        let kv = try KvStore(shape(plan))
        let writer = try KvWriter(kv, blockBytes: Int(plan.blockBytes))
        let before = plan.blocks / 10 * 9 + plan.blocks % 10
        try put(writer, 0..<before)
        let store = kv.store
        try blocking { () async throws(HearthError) in try await store.checkpoint() }
        try put(writer, before..<plan.blocks)
        // Told before the wait, on purpose without a newline in between: whoever reads it kills us.
        writeAll(
            STDOUT_FILENO,
            "{\"name\": \"open\", \"row\": {\"blocks\": \(plan.blocks), \"phase\": \"fill\"}}\n")
        while true { pause() }
    }

    private static func put(_ writer: KvWriter, _ range: Range<Int>) throws(BenchError) {
        try writer.put(count: range.count) { number, buffer in
            let key = UInt64(range.lowerBound + number)
            Payload.fill(buffer, namespace: keyNamespace, key: key, revision: 0)
            return (key, keyNamespace)
        } completed: { _ in
        }
    }

    // MARK: Open

    private static func open(_ plan: Plan) throws(BenchError) -> [(String, JSONValue)] {
        let begin = monotonicNanoseconds()
        let kv = try KvStore(shape(plan), waiting: false)
        let opened = monotonicNanoseconds()
        let complete = Complete()
        let store = kv.store
        Task.detached {
            let ended: Void? = try? await store.waitUntilRecovered()
            complete.finish(ended == nil ? UInt64.max : monotonicNanoseconds())
        }
        let first = try firstHit(kv, plan)
        let done = complete.wait()
        guard done != UInt64.max else { throw BenchError("the index was never complete") }
        let statistics = try kv.statistics()
        let blocks = count(kv, plan)
        func seconds(_ time: UInt64) -> JSONValue { .number(Double(time - begin) / 1e9) }
        RowCommand.show(
            [
                ("seconds_complete", seconds(done)), ("seconds_first_hit", seconds(first)),
                ("seconds_open", seconds(opened)), ("blocks", .unsigned(UInt64(blocks))),
                ("recovery", JSONValue(parsing: statistics.json())?["recovery"] ?? .object([])),
            ], row: "open")
        // No close: the store stays as the kill left it, but for its lock.
        _exit(0)
    }

    private static func firstHit(_ kv: KvStore, _ plan: Plan) throws(BenchError) -> UInt64 {
        let bytes = Int(plan.blockBytes)
        let memory = UnsafeMutableRawBufferPointer.allocate(
            byteCount: (bytes + 4095) / 4096 * 4096, alignment: 4096)
        defer { memory.deallocate() }
        let session = kv.session(1)
        let keys = KeyRoom(capacity: 1)
        var random = SeededGenerator(seed: 5)
        var piece = Piece(
            region: .process, offset: UInt64(UInt(bitPattern: memory.baseAddress)),
            length: UInt64(bytes))
        let limit = monotonicNanoseconds() + 120_000_000_000
        while monotonicNanoseconds() < limit {
            let key = random.below(UInt64(plan.blocks))
            keys.set(0, key, keyNamespace)
            let answer = withUnsafePointer(to: &piece) { pieces in
                var operation = kv.operation(.get, token: 0, keys[0])
                operation.pieces = pieces
                operation.pieceCount = 1
                return single(session, operation)
            }
            guard answer.status == .hit else { continue }
            let now = monotonicNanoseconds()
            let value = UnsafeRawBufferPointer(rebasing: memory[..<bytes])
            let wrong = Payload.firstMismatch(
                value, namespace: keyNamespace, key: key, revision: 0)
            guard wrong == nil else { throw BenchError("block \(key) came back wrong") }
            return now
        }
        throw BenchError("no block was found in two minutes")
    }

    private static func single(_ session: Session, _ operation: StoreOperation) -> StoreAnswer {
        var completion = StoreCompletion(
            token: 0, answer: StoreAnswer(token: 0, status: .failed))
        let taken = withUnsafePointer(to: operation) {
            session.submit(UnsafeBufferPointer(start: $0, count: 1))
        }
        guard taken == 1 else { return completion.answer }
        withUnsafeMutablePointer(to: &completion) {
            _ = session.poll(
                into: UnsafeMutableBufferPointer(start: $0, count: 1), wait: UInt64.max)
        }
        return completion.answer
    }

    private static func count(_ kv: KvStore, _ plan: Plan) -> Int {
        var found = 0
        var start = 0
        while start < plan.blocks {
            let end = min(plan.blocks, start + 20_000)
            let keys = (start..<end).map { KvKey.key(UInt64($0), keyNamespace) }
            found += kv.store.contains(keys, in: kv.namespace).count { $0 }
            start = end
        }
        return found
    }
}

/// When the index was complete.
private final class Complete: Sendable {
    private let time = Atomic<UInt64>(0)

    func finish(_ at: UInt64) { time.store(at, ordering: .releasing) }

    func wait() -> UInt64 {
        while true {
            let at = time.load(ordering: .acquiring)
            if at != 0 { return at }
            usleep(200)
        }
    }
}
