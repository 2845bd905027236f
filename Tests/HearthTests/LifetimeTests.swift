// Deadlines, cancelling, leases, reads on many threads, and closing while work is under way.

import Glibc
import Synchronization
import Testing

@testable import Hearth

@Suite struct LifetimeTests {
    /// What `whileHeld` waits for.
    private final class Gate: Sendable {
        let begun = Atomic(false)
        let opened = Atomic(false)
    }

    /// Runs `body` while the owner thread is held, which goes on 200 ms after `body` has begun:
    /// counted from there, since on a busy machine a task may begin seconds after it was made.
    private func whileHeld<Result: Sendable>(
        _ store: Store, cancelling: Bool = false,
        _ body: @escaping @Sendable () async -> Result
    ) async -> Result {
        let gate = Gate()
        #expect(
            store.engine.perform { _ in
                while !gate.opened.load(ordering: .acquiring) { usleep(1000) }
            })
        let task = Task {
            gate.begun.store(true, ordering: .releasing)
            return await body()
        }
        // Asleep, not blocked: the task may need this very thread.
        while !gate.begun.load(ordering: .acquiring) {
            try? await Task.sleep(for: .milliseconds(1))
        }
        if cancelling { task.cancel() }
        try? await Task.sleep(for: .milliseconds(200))
        gate.opened.store(true, ordering: .releasing)
        return await task.value
    }

    @Test func aPassedDeadlineIsToldAsSuch() async throws {
        let directory = TemporaryDirectory()
        let store = try await Small.open(directory)
        let space = try await store.namespace(Small.description)
        #expect(await store.putBytes("d", [1, 2, 3], in: space).isPresent)
        let buffer = Buffer(count: 4096)
        let late = await whileHeld(store) {
            await store.get(
                GetItem(key: "d", into: Memory(buffer)), in: space,
                options: GetOptions(deadline: .milliseconds(5)))
        }
        #expect(late.status == .timedOut)
        let put = await whileHeld(store) {
            await store.putBytes(
                "e", [1], in: space, options: PutOptions(deadline: .milliseconds(5)))
        }
        #expect(put.status == .timedOut)
        let inTime = await store.get(
            GetItem(key: "d", into: Memory(buffer)), in: space,
            options: GetOptions(deadline: .seconds(60)))
        #expect(inTime.isHit)
        await store.close()
    }

    @Test func aCancelledTaskGivesItsBatchUp() async throws {
        let directory = TemporaryDirectory()
        let store = try await Small.open(directory)
        let space = try await store.namespace(Small.description)
        let keys = (0..<32).map(Payload.key)
        _ = await store.put(
            keys.map { PutItem(key: $0, bytes: Payload.bytes($0, count: 4096)) }, in: space)
        let results = await whileHeld(store, cancelling: true) {
            await store.get(
                keys.map { GetItem(key: $0, into: Memory(Buffer(count: 4096))) }, in: space)
        }
        #expect(results.count == 32)
        #expect(results.allSatisfy { $0.status == .cancelled })
        let (after, bytes) = await store.getBytes(keys[0], in: space, mode: .direct)
        #expect(after.isHit && bytes == Payload.bytes(keys[0], count: 4096))
        await store.close()
    }

    @Test func moreOperationsThanFitAtOnce() async throws {
        let directory = TemporaryDirectory()
        var configuration = Small.configuration(directory)
        configuration.operationsInFlight = 16
        let store = try await Store.open(configuration)
        let space = try await store.namespace(Small.description)
        let keys = (0..<300).map(Payload.key)
        let puts = await store.put(
            keys.map { PutItem(key: $0, bytes: Payload.bytes($0, count: 5000)) }, in: space)
        #expect(puts.allSatisfy { $0.status == .stored })
        let buffers = keys.map { _ in Buffer(count: 8192) }
        let gets = await store.get(
            zip(keys, buffers).map { GetItem(key: $0, into: Memory($1)) }, in: space)
        #expect(gets.allSatisfy { $0.isHit })
        #expect(
            zip(keys, buffers).allSatisfy {
                Array($1.bytes[..<5000]) == Payload.bytes($0, count: 5000)
            })
        await store.close()
    }

    @Test func aLeaseKeepsItsBytes() async throws {
        let directory = TemporaryDirectory()
        let store = try await Small.open(directory)
        let space = try await store.namespace(Small.description)
        let first = Payload.bytes("l", count: 30_000)
        #expect(await store.putBytes("l", first, in: space).isPresent)
        do {
            guard let lease = await store.lease("l", in: space) else {
                Issue.record("no lease")
                return
            }
            let second = Payload.bytes("l", revision: 1, count: 30_000)
            _ = await store.putBytes("l", second, in: space, options: PutOptions(replace: true))
            // Enough reads to have it evicted, were it not held.
            for number in 0..<120 {
                let key = Payload.key(number)
                _ = await store.putBytes(key, Payload.bytes(key, count: 60_000), in: space)
                #expect(await store.value(of: key, in: space) != nil)
            }
            #expect(lease.bytes() == first)
            let runs = lease.withRuns { $0.reduce(0) { $0 + $1.count } }
            #expect(runs == 30_000 && lease.count == 30_000)
            #expect(try await store.statistics().memory.leasedBytes > 0)
        }
        // The lease has ended with its scope.
        #expect(await store.value(of: Payload.key(0), in: space) != nil)
        #expect(try await store.statistics().memory.leasedBytes == 0)
        #expect(await store.lease("none", in: space) == nil)
        var leases = await store.lease(["l", "none", []], in: space)
        #expect(leases.results.map(\.status) == [.hit, .miss, .invalid])
        let taken = leases.take(0)
        #expect(taken != nil && leases.take(0) == nil)
        await store.close()
        #expect(taken?.bytes() == Payload.bytes("l", revision: 1, count: 30_000))
    }

    @Test func containsFromManyThreadsWhileWriting() async throws {
        let directory = TemporaryDirectory()
        let store = try await Small.open(directory)
        let space = try await store.namespace(Small.description)
        let keys = (0..<400).map(Payload.key)
        _ = await store.put(
            keys.prefix(200).map { PutItem(key: $0, bytes: [1, 2, 3]) }, in: space)
        let lost = await withTaskGroup(of: Int.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    var lost = 0
                    for _ in 0..<200 {
                        lost += store.contains(Array(keys.prefix(200)), in: space).count { !$0 }
                        if store.longestPrefix(keys, in: space) < 200 { lost += 1 }
                    }
                    return lost
                }
            }
            group.addTask {
                for key in keys.suffix(200) {
                    _ = await store.put(PutItem(key: key, bytes: [4]), in: space)
                }
                return 0
            }
            return await group.reduce(0, +)
        }
        #expect(lost == 0)
        #expect(store.longestPrefix(keys, in: space) == 400)
        await store.close()
        // The mapping is still there; nothing to crash on.
        _ = store.contains(keys, in: space)
    }

    @Test func closingAnswersEverything() async throws {
        let directory = TemporaryDirectory()
        let store = try await Small.open(directory)
        let space = try await store.namespace(Small.description)
        let keys = (0..<200).map(Payload.key)
        let results = await withTaskGroup(of: [PutResult].self) { group in
            for part in 0..<10 {
                group.addTask {
                    await store.put(
                        keys[part * 20..<part * 20 + 20].map {
                            PutItem(key: $0, bytes: Payload.bytes($0, count: 4000))
                        }, in: space)
                }
            }
            group.addTask {
                await store.close()
                return []
            }
            return await group.reduce(into: []) { $0 += $1 }
        }
        #expect(results.count == 200)
        let answers: Set<PutResult.Status> = [.stored, .closed, .readOnly]
        #expect(results.allSatisfy { answers.contains($0.status) })
        let stored = results.count { $0.status == .stored }
        let again = try await Small.open(directory)
        let sameSpace = try await again.namespace(Small.description)
        #expect(again.contains(keys, in: sameSpace).count { $0 } >= stored)
        await again.close()
    }

    @Test func pinsAndHints() async throws {
        let directory = TemporaryDirectory()
        let store = try await Small.open(directory)
        let space = try await store.namespace(Small.description)
        _ = await store.putBytes("p", [1, 2, 3], in: space)
        #expect(await store.pin(["p", "none"], in: space, for: .seconds(60)) == [true, false])
        await store.touch(["p", "none"], in: space)
        await store.unpin(["p"], in: space)
        await store.close()
        #expect(await store.pin(["p"], in: space, for: .seconds(1)) == [false])
    }

    @Test func eventsAreStreamedAndCalledBack() async throws {
        let directory = TemporaryDirectory()
        let store = try await Small.open(directory)
        let events = store.events()
        let called = Mutex<[Event]>([])
        store.onEvent { event in called.withLock { $0.append(event) } }
        #expect(store.engine.perform { $0.happened(.deviceChanged(index: 0, state: .slow)) })
        #expect(store.engine.perform { $0.happened(.volatileLost(version: 9, errno: 5)) })
        let statistics = try await store.statistics()
        #expect(statistics.recovery.isComplete)
        #expect(statistics.devices[0].state == "healthy" && statistics.devices[0].spells == 0)
        #expect(statistics.puts.volatileLost == 1)
        await store.close()
        let told: [Event] = [
            .deviceChanged(index: 0, health: .slow), .volatileLost(version: 9, errno: 5),
        ]
        #expect(called.withLock { $0 } == told)
        var streamed: [Event] = []
        for await event in events { streamed.append(event) }
        #expect(streamed == told)
        // After the end: a stream that is over.
        for await _ in store.events() { Issue.record("an event of a closed store") }
    }

    @Test func aPurgeIsSeenThroughEveryValueOfTheNamespace() async throws {
        let directory = TemporaryDirectory()
        let store = try await Small.open(directory)
        let one = try await store.namespace(Small.description)
        let other = try await store.namespace(Small.description)
        #expect(await store.putBytes("k", [1], in: one).isPresent)
        #expect(store.contains(["k"], in: other) == [true])
        try await store.purge(one)
        #expect(other.isPurged)
        #expect(store.contains(["k"], in: other) == [false])
        await store.close()
    }
}
