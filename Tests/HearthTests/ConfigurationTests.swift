// The configuration: what does not fit is refused by name, the memory limit is split, and the
// capacity asked for is the capacity that holds.

import Hearth
import Testing

@Suite struct ConfigurationTests {
    private func refused(_ change: (inout Configuration) -> Void) -> HearthError? {
        var made = Configuration(directory: "/var/tmp/none", capacityBytes: 64 << 30)
        change(&made)
        let changed = made
        return #expect(throws: HearthError.self) { _ = try changed.validated() }
    }

    @Test func everyOptionOutOfRangeIsNamed() {
        let changes: [(String, (inout Configuration) -> Void)] = [
            ("directories (their number)", { $0.directories = [] }),
            ("directories[0]", { $0.directories = [""] }),
            ("directories[1]", { $0.directories = ["/a", "/a"] }),
            ("capacityBytes", { $0.capacityBytes = 4096 }),
            ("maximumBlockBytes", { $0.maximumBlockBytes = (64 << 20) + 1 }),
            ("minimumSegmentBytes", { $0.minimumSegmentBytes = 4096 }),
            ("memoryLimitBytes", { $0.memoryLimitBytes = 1 << 20 }),
            ("indexEntries", { $0.indexEntries = 10 }),
            ("expectedBlockBytes", { $0.expectedBlockBytes = 0 }),
            ("slabBytes", { $0.slabBytes = 5000 }),
            ("stagingBytes", { $0.stagingBytes = 4096 }),
            ("tableCacheBytes", { $0.tableCacheBytes = 0 }),
            ("queueDepth", { $0.queueDepth = 0 }),
            ("operationsInFlight", { $0.operationsInFlight = 1 << 20 }),
            ("groupBytes", { $0.groupBytes = 100_000 }),
            ("groupBuffers", { $0.groupBuffers = 1 }),
            ("cleanSegments", { $0.cleanSegments = 0 }),
            ("statisticsPeriodSeconds", { $0.statisticsPeriodSeconds = 0.01 }),
            ("statisticsPeriodSeconds", { $0.statisticsPeriodSeconds = -1 }),
            ("statisticsPeriodSeconds", { $0.statisticsPeriodSeconds = .nan }),
            ("statisticsPeriodSeconds", { $0.statisticsPeriodSeconds = .infinity }),
        ]
        for (option, change) in changes {
            let error = refused(change)
            #expect(error?.kind == .configuration)
            #expect(error?.subject == option)
            #expect(error?.advice.isEmpty == false)
        }
    }

    @Test func theMemoryLimitIsSplit() throws {
        let made = try Configuration(directory: "/var/tmp/none", capacityBytes: 64 << 30)
            .validated()
        let split = made.memorySplit
        #expect(split.total <= made.memoryLimitBytes)
        #expect(split.total > made.memoryLimitBytes - (4 << 20))
        #expect(split.staging > 256 << 20)
        #expect((made.indexEntries ?? 0) >= (64 << 30) / (64 << 10))
        #expect(try made.validated().memorySplit == split)
    }

    @Test func whatTheMemoryLimitCannotHoldIsSaid() {
        let index = refused { $0.indexEntries = 1 << 26 }
        #expect(index?.subject == "memoryLimitBytes")
        #expect(index?.advice.contains("lower indexEntries") == true)
        let staging = refused { $0.stagingBytes = 4 << 30 }
        #expect(staging?.subject == "stagingBytes")
    }

    @Test func noCapacityHoldsEverything() async throws {
        for (bytes, block) in [
            (UInt64.max, 1), (UInt64.max, 64 << 20), (1 << 55, 1), (1 << 63, 4096),
        ] {
            var configuration = Configuration(directory: "/tmp/never", capacityBytes: 0)
            configuration.expectedBlockBytes = block
            configuration.capacityBytes = configuration.capacity(
                forValueBytes: bytes, blockBytes: block)
            #expect(throws: HearthError.self) { try configuration.validated() }
        }
    }

    @Test(arguments: Configuration.Mode.allCases)
    func theCapacityForValuesHoldsThem(_ mode: Configuration.Mode) async throws {
        let directory = TemporaryDirectory()
        let blockBytes = 60_000
        let live = 200
        var configuration = Small.configuration(directory)
        configuration.mode = mode
        configuration.capacityBytes = configuration.capacity(
            forValueBytes: UInt64(live * blockBytes), blockBytes: blockBytes)
        let store = try await Store.open(configuration)
        let space = try await store.namespace(Small.description)
        // One at a time: the costliest way to write.
        let total = mode == .cache ? 3 * live : live
        var refused = 0
        for number in 0..<total {
            let key = Payload.key(number)
            let put = await store.putBytes(
                key, Payload.bytes(key, count: blockBytes), in: space)
            if !put.isPresent { refused += 1 }
        }
        #expect(refused == 0)
        let latest = (total - live..<total).map(Payload.key)
        #expect(store.contains(latest, in: space).count { $0 } == live)
        let statistics = try await store.statistics()
        #expect(statistics.space.sum == statistics.space.capacity)
        if mode == .cache { #expect(statistics.reclaim.evictedBlocks > 0) }
        await store.close()
    }
}
