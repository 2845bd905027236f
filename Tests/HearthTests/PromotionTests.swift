// Blocks on their way into an engine's own memory, through the public interface, on real files.

import Glibc
import Hearth
import Staging
import Synchronization
import Testing

@Suite struct PromotionTests {
    /// What was copied, by key.
    private final class Engine: Sendable {
        private let blocks = Mutex<[[UInt8]: [UInt8]]>([:])
        private let tokens = Mutex<[UInt64]>([])

        private let taken = Atomic<Int>(0)
        var calls: Int { taken.load(ordering: .sequentiallyConsistent) }

        func take(_ block: PromotedBlock, later: Bool) -> PromotionStart {
            taken.wrappingAdd(1, ordering: .sequentiallyConsistent)
            let bytes = block.runs.reduce(into: [UInt8]()) { $0 += $1 }
            blocks.withLock { $0[Array(block.key)] = bytes }
            if later { tokens.withLock { $0.append(block.token) } }
            return later ? .underWay : .done
        }

        var count: Int { blocks.withLock { $0.count } }
        var copied: [[UInt8]: [UInt8]] { blocks.withLock { $0 } }
        func takeTokens() -> [UInt64] {
            tokens.withLock { tokens in
                defer { tokens = [] }
                return tokens
            }
        }
    }

    private func hint(
        _ store: Store, _ space: Namespace, _ kind: HintKind, _ keys: [Key], due: UInt64 = 0
    ) {
        var hint = Hint(kind)
        (hint.request, hint.due) = (7, due)
        let texts = keys.map { Array($0.bytes) }
        let bytes = texts.map { text in
            let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: text.count, alignment: 1)
            copy.copyBytes(from: text)
            return UnsafeRawBufferPointer(copy)
        }
        defer { for one in bytes { one.deallocate() } }
        bytes.withUnsafeBufferPointer { _ = store.give(hint, in: space, keys: $0) }
        store.ringForHints()
    }

    /// A store with an engine's memory above it.
    private func store(_ directory: TemporaryDirectory) async throws -> Store {
        var configuration = Small.configuration(directory)
        configuration.engineMemoryBytes = 8 << 20
        return try await Store.open(configuration)
    }

    private func wait(_ body: () async throws -> Bool) async throws {
        for _ in 0..<1000 {
            if try await body() { return }
            try await Task.sleep(for: .milliseconds(10))
        }
        Issue.record("it does not come")
    }

    @Test(arguments: [false, true], [NamespaceDescription.Layout.packed, .aligned])
    func announcedBlocksComeUpWhole(later: Bool, layout: NamespaceDescription.Layout) async throws {
        let directory = TemporaryDirectory()
        let store = try await store(directory)
        let space = try await store.namespace(
            NamespaceDescription([("model", "up")], layout: layout))
        let keys = (0..<12).map { Payload.key($0) }
        _ = await store.put(
            keys.map { PutItem(key: $0, bytes: Payload.bytes($0, count: 50_000)) }, in: space)
        let engine = Engine()
        store.setPromotion(in: space) { engine.take($0, later: later) }
        hint(store, space, .chain, keys, due: store.monotonicNanoseconds + 20_000_000_000)
        try await wait { engine.count == 12 }
        for key in keys {
            #expect(engine.copied[Array(key.bytes)] == Payload.bytes(key, count: 50_000))
        }
        for token in engine.takeTokens() { store.promotionEnded(token, succeeded: true) }
        try await wait { try await store.statistics().tiers.engine.promotions == 12 }
        hint(store, space, .evicted, Array(keys[..<5]))
        try await wait { try await store.statistics().tiers.engine.held == 7 }
        let made = try await store.statistics().tiers
        #expect(made.engine.used == 7 * 53_248 && made.engine.demotions == 5)
        #expect(made.engine.bytesPerSecond > 0 && made.reports.copying == 0)
        #expect(made.staging.capacity == 4 << 20 && made.device.held == 12)
        try await store.close()
    }

    /// A hint given after the function was set finds it set, whatever the owner thread is doing.
    @Test func aHintFindsTheFunctionThatWasSetBeforeIt() async throws {
        let directory = TemporaryDirectory()
        let store = try await store(directory)
        let space = try await store.namespace(Small.description)
        let keys = (0..<4).map { Payload.key($0) }
        _ = await store.put(
            keys.map { PutItem(key: $0, bytes: Payload.bytes($0, count: 5000)) }, in: space)
        let engine = Engine()
        for round in 1...300 where engine.calls == keys.count * (round - 1) {
            hint(store, space, .evicted, keys)
            hint(store, space, .cancel, [])
            store.setPromotion(in: space, nil)
            store.setPromotion(in: space) { engine.take($0, later: false) }
            hint(store, space, .chain, keys, due: store.monotonicNanoseconds + 20_000_000_000)
            for _ in 0..<2000 where engine.calls < keys.count * round {
                try await Task.sleep(for: .milliseconds(1))
            }
        }
        #expect(engine.calls == 300 * keys.count)
        try await store.close()
    }

    @Test func aCopyThatNeverEndsHoldsNoCloseForEver() async throws {
        let directory = TemporaryDirectory()
        let store = try await store(directory)
        let space = try await store.namespace(Small.description)
        let key = Payload.key(1)
        _ = await store.put([PutItem(key: key, bytes: Payload.bytes(key, count: 5000))], in: space)
        let engine = Engine()
        store.setPromotion(in: space) { engine.take($0, later: true) }
        hint(store, space, .chain, [key], due: store.monotonicNanoseconds + 20_000_000_000)
        try await wait { engine.count == 1 }
        // Returns at all: how soon says more about what else the machine does.
        try await store.close()
        #expect(!store.promotionEnded(1, succeeded: true))
    }

    @Test func watermarksAreChecked() async throws {
        let directory = TemporaryDirectory()
        for (high, low) in [(0.0, 0.0), (1.1, 0.5), (0.5, 0.6), (.nan, 0.5)] {
            var configuration = Small.configuration(directory)
            (configuration.engineHighWatermark, configuration.engineLowWatermark) = (high, low)
            #expect(throws: HearthError.self) { try configuration.validated() }
        }
    }
}
