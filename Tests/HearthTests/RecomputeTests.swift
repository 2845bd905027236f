// How much of a prefix is worth loading, through the public interface: against an engine that is
// slow, one that is fast, and one of which nothing is known.

import Hearth
import Testing

@Suite struct RecomputeTests {
    /// 32 blocks of 60,000 bytes that are on disk only, and read often enough to be measured.
    private func filled(_ directory: TemporaryDirectory) async throws -> ([Key], Store, Namespace) {
        let keys = (0..<32).map { Payload.key($0) }
        let store = try await Small.open(directory)
        let space = try await store.namespace(Small.description)
        _ = await store.put(
            keys.map { PutItem(key: $0, bytes: Payload.bytes($0, count: 60_000)) }, in: space)
        try await store.close()
        let again = try await Small.open(directory)
        let reopened = try await again.namespace(Small.description)
        for _ in 0..<8 {
            let buffers = keys.map { _ in Buffer(count: 60_000) }
            let gets = await again.get(
                zip(keys, buffers).map { GetItem(key: $0, into: Memory($1)) }, in: reopened,
                options: GetOptions(mode: .direct))
            for (place, get) in gets.enumerated() {
                #expect(get.isHit)
                #expect(
                    Array(buffers[place].bytes[..<60_000])
                        == Payload.bytes(keys[place], count: 60_000))
            }
        }
        try await Task.sleep(for: .milliseconds(50))
        return (keys, again, reopened)
    }

    @Test func whatIsComputedSoonerIsDeclinedAndCounted() async throws {
        let directory = TemporaryDirectory()
        let (keys, store, space) = try await filled(directory)
        #expect(store.longestPrefix(keys, in: space) == 32)

        // A second a block: everything is worth loading, and said to be there soon.
        var slow = Recompute(tokensPerBlock: 512, tokensPerSecond: 512)
        let claimed = store.longestPrefix(keys + ["none"], in: space, against: slow)
        #expect(claimed.blocks == 32 && claimed.present == 32 && claimed.declinedBytes == 0)
        #expect(claimed.readyIn > .zero && claimed.readyIn < .seconds(30))
        #expect(claimed.gain > .seconds(1) && !claimed.isProbe)

        // A nanosecond a block: no device is as fast.
        let fast = Recompute(tokensPerBlock: 512, tokensPerSecond: 512e9)
        let declined = store.longestPrefix(keys, in: space, against: fast)
        // On a machine with much to do so much time may have passed that a block is tried anew.
        let tried = declined.isProbe ? 1 : 0
        #expect(declined.blocks == tried && declined.present == 32)
        #expect(declined.declinedBytes == UInt64((32 - tried) * 60_000))

        // Unless it is hidden in the wait for a turn.
        var waiting = fast
        waiting.startsIn = .seconds(100)
        #expect(store.longestPrefix(keys, in: space, against: waiting).blocks == 32)

        // A gap ends it; nothing is nothing.
        let gap = store.longestPrefix(["none"] + keys, in: space, against: slow)
        #expect(gap == PrefixVerdict())
        slow.tokensPerSecond = .nan
        #expect(store.longestPrefix([], in: space, against: slow) == PrefixVerdict())

        let made = try await store.statistics()
        let refused = UInt64(32 - tried)
        #expect(made.prefixes.asked == 4 && made.prefixes.declinedBlocks == refused)
        #expect(made.prefixes.presentBlocks == 96)
        #expect(made.prefixes.claimedBlocks == 64 + UInt64(tried))
        #expect(made.prefixes.declinedBytes == refused * 60_000)
        #expect(made.gets.missesByReason["declined"] == refused)
        try await store.close()
    }

    @Test func aRateThatWasToldIsUsed() async throws {
        let directory = TemporaryDirectory()
        let (keys, store, space) = try await filled(directory)
        store.noteComputed(tokens: 1_000_000_000, in: .nanoseconds(1000))
        let made = store.longestPrefix(
            keys, in: space, against: Recompute(tokensPerBlock: 512))
        // As above: a block may be tried anew.
        #expect(made.blocks == (made.isProbe ? 1 : 0) && made.present == 32)
        try await store.close()
    }

    @Test func whatIsInMemoryIsWorthLoading() async throws {
        let directory = TemporaryDirectory()
        let store = try await Small.open(directory)
        let space = try await store.namespace(Small.description)
        let keys = (0..<8).map { Payload.key($0) }
        _ = await store.put(
            keys.map { PutItem(key: $0, bytes: Payload.bytes($0, count: 9000)) }, in: space)
        let made = store.longestPrefix(
            keys, in: space, against: Recompute(tokensPerBlock: 512, tokensPerSecond: 512e9))
        #expect(made.blocks == 8 && made.readyIn == .zero && made.declinedBytes == 0)
        try await store.close()
    }
}
