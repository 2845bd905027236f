// Prefetching on the simulated disk: what is hinted is there when it is asked for; what fails, is
// replaced, deleted or purged meanwhile is never a wrong byte.

import BlockIO
import LogStore
import Prefetch
import SimulatedDisk
import Staging
import Testing
import Tiering

@Suite struct PrefetchTests {
    static let length = 48 << 10

    /// A world with so many blocks on disk and none in staging.
    private func world(
        _ count: Int, _ configuration: TieredConfiguration = TieredWorld.configuration(),
        faults: FaultPlan = .none, latency: LatencyModel = .constant(100_000)
    ) throws -> (TieredWorld, UInt16) {
        let world = try TieredWorld(configuration, faults: faults, latency: latency)
        let space = world.namespace()
        for number in 0..<count {
            let answer = world.put(
                "key-\(number)", space, payload("key-\(number)", length: Self.length))
            #expect(answer.status == .stored)
        }
        world.settle()
        world.emptyStaging(space)
        return (world, space)
    }

    private func check(
        _ world: TieredWorld, _ space: UInt16, _ key: String, tier: HitTier? = nil,
        mode: GetMode = .direct, revision: Int = 0
    ) {
        let (answer, bytes) = world.get(key, space, length: Self.length, mode: mode)
        #expect(answer.status == .hit)
        if let tier { #expect(answer.tier == tier) }
        #expect(bytes == payload(key, revision: revision, length: Self.length))
    }

    @Test func hintedChainIsResidentWhenRead() throws {
        let (world, space) = try world(12)
        let names = (0..<12).map { "key-\($0)" }
        world.chain(space, names, request: 7)
        world.settle()
        for name in names { #expect(world.isResident(name, space)) }
        for name in names { check(world, space, name, tier: .staging) }
        let made = world.store.prefetchStatistics
        #expect(made[.chain].issued == 12 && made[.chain].useful == 12)
        #expect(made[.chain].timely == 12 && made[.chain].wasted == 0)
        #expect(made.coverage == 1 && made.demandMisses == 0 && made.lateness.percentile(1) == 0)
        #expect(made.waiting == 0 && made.unusedBytes == 0)
    }

    @Test func withoutPredictorsNothingIsBrought() throws {
        var configuration = TieredWorld.configuration()
        configuration.prefetch.predictors = []
        let (world, space) = try world(3, configuration)
        world.chain(space, ["key-0", "key-1"])
        world.settle()
        #expect(!world.isResident("key-0", space))
        #expect(world.store.prefetchStatistics.total.issued == 0)
    }

    @Test func dueFirstGoesFirst() throws {
        var configuration = TieredWorld.configuration()
        configuration.prefetch.operations = 1
        let (world, space) = try world(9, configuration)
        let now = world.clock.monotonic
        world.chain(space, ["key-0", "key-1", "key-2"], request: 1, due: now + 3_000_000_000)
        world.chain(space, ["key-3", "key-4", "key-5"], request: 2, due: now + 1_000_000_000)
        world.chain(space, ["key-6", "key-7", "key-8"], request: 3, due: .max)
        var order: [Int] = []
        while order.count < 9 {
            world.turn()
            for number in 0..<9 where !order.contains(number) {
                if world.isResident("key-\(number)", space) { order.append(number) }
            }
        }
        #expect(order == [3, 4, 5, 0, 1, 2, 6, 7, 8])
    }

    /// Reads blocks one after the other, so that staging is turned over in some seconds.
    private func turnOver(_ world: TieredWorld, _ space: UInt16, _ numbers: Range<Int>) {
        for number in numbers {
            check(world, space, "key-\(number)", mode: .cached)
            world.pass(50_000_000)
        }
    }

    /// What a request far back in the queue needs would only take the place of what others use
    /// until then: it is brought when its time comes nearer, and in time.
    @Test func whatIsNeededMuchLaterWaits() throws {
        let (world, space) = try world(160)
        turnOver(world, space, 0..<160)
        let names = (0..<8).map { "key-\($0)" }
        for name in names { #expect(!world.isResident(name, space)) }
        let second: UInt64 = 1_000_000_000
        world.chain(space, names, request: 1, due: world.clock.monotonic + 20 * second)
        let soon = world.clock.monotonic + second / 4
        world.chain(space, ["key-20", "key-21"], request: 2, due: soon)
        world.pass(second)
        #expect(world.store.prefetchStatistics[.chain].issued == 2)
        #expect(world.isResident("key-21", space) && world.store.prefetchStatistics.waiting == 8)
        world.pass(18 * second)
        for name in names { check(world, space, name, tier: .staging, mode: .cached) }
        #expect(world.store.prefetchStatistics[.chain].timely == 8)
    }

    /// Nor does it keep what is there.
    @Test func whatIsNeededMuchLaterIsNotSpared() throws {
        for (wait, stays) in [(UInt64(100_000_000), true), (1000 * 1_000_000_000, false)] {
            let (world, space) = try world(160)
            turnOver(world, space, 8..<160)
            let names = (0..<8).map { "key-\($0)" }
            for name in names { check(world, space, name, mode: .cached) }
            // One that waits, so that the prefetcher looks.
            let due = world.clock.monotonic + wait
            world.chain(space, names + ["key-8"], request: 1, due: due)
            for number in 20..<110 { check(world, space, "key-\(number)", mode: .cached) }
            #expect(world.isResident("key-0", space) == stays)
            #expect(world.isResident("key-7", space) == stays)
        }
    }

    @Test func demandJoinsWhatIsUnderWay() throws {
        for mode in [GetMode.direct, .cached] {
            let (world, space) = try world(2)
            world.chain(space, ["key-0"])
            world.turn()
            #expect(world.store.prefetchStatistics.inFlight == 1)
            let reads = world.store.staged.log.statistics.readBytes
            check(world, space, "key-0", mode: mode)
            let made = world.store.prefetchStatistics
            #expect(made[.chain].useful == 1 && made[.chain].timely == 0)
            #expect(made.lateness.maximum > 0 && made.demandMisses == 0)
            // Read once for both.
            #expect(world.store.staged.log.statistics.readBytes - reads == UInt64(Self.length))
        }
    }

    /// A put has the bytes that a prefetch is still bringing: neither it nor who waits for the
    /// prefetch has to wait for the device. Other bytes are no copy: then the device tells.
    @Test func aPutDoesNotWaitForWhatIsBrought() throws {
        let latency: UInt64 = 500_000_000
        for revision in [0, 1] {
            let (world, space) = try world(2, latency: .constant(latency))
            world.chain(space, ["key-0", "key-1"], request: 1)
            world.turn()
            #expect(world.store.prefetchStatistics.inFlight == 2)
            let memory = UnsafeMutableRawBufferPointer.allocate(
                byteCount: Self.length, alignment: 4096)
            let piece = UnsafeMutablePointer<Piece>.allocate(capacity: 1)
            defer {
                memory.deallocate()
                piece.deallocate()
            }
            piece.initialize(
                to: Piece(
                    region: .process, offset: UInt64(UInt(bitPattern: memory.baseAddress)),
                    length: UInt64(Self.length)))
            let waiting = world.submit(.get, Array("key-0".utf8), space, piece) {
                $0.mode = .cached
            }
            let begun = world.clock.monotonic
            let value = payload("key-0", revision: revision, length: Self.length)
            #expect(world.put("key-0", space, value).status == .alreadyPresent)
            #expect(world.clock.monotonic < begun + latency / 2)
            #expect(world.isResident("key-0", space) == (revision == 0))
            while world.sink.answers[waiting] == nil { world.turn() }
            #expect(world.sink.answers[waiting]?.status == .hit)
            #expect(Array(memory) == payload("key-0", length: Self.length))
            #expect((world.clock.monotonic < begun + latency / 2) == (revision == 0))
            world.settle()
            let made = world.store.prefetchStatistics
            #expect(made.inFlight == 0 && made[.chain].issued == 2 && made[.chain].wasted == 1)
            for key in ["key-0", "key-1"] { check(world, space, key, tier: .staging) }
            world.close()
            #expect(world.store.staged.arena?.statistics.deferred == 0)
        }
    }

    /// What a request read when it began leaves after what it put when it ended.
    @Test func aRequestsChainLeavesFromItsTail() throws {
        let (world, space) = try world(160)
        turnOver(world, space, 40..<160)
        for number in 0..<4 { check(world, space, "key-\(number)", mode: .cached) }
        let names = (0..<8).map { "key-\($0)" }
        for name in names[4...] {
            world.put(name, space, payload(name, length: Self.length))
        }
        var ended = Hint(.ended, namespaceSlot: space)
        ended.request = 1
        world.hint(ended, names)
        var left: [Int] = []
        for number in 40..<160 where left.count < 8 {
            check(world, space, "key-\(number)", mode: .cached)
            for (place, name) in names.enumerated()
            where !left.contains(place) && !world.isResident(name, space) { left.append(place) }
        }
        #expect(left == [7, 6, 5, 4, 3, 2, 1, 0])
    }

    /// An ended request's hints are taken back, as a cancelled one's are.
    @Test func whatEndedIsNotBrought() throws {
        var configuration = TieredWorld.configuration()
        configuration.prefetch.operations = 1
        let (world, space) = try world(6, configuration)
        world.chain(space, (0..<6).map { "key-\($0)" }, request: 9)
        world.turn()
        var ended = Hint(.ended, namespaceSlot: space)
        ended.request = 9
        world.hint(ended, [])
        #expect(world.store.prefetchStatistics.waiting == 0)
        world.settle()
        #expect(world.store.prefetchStatistics.total.issued == 1)
    }

    /// Absurd due times are cut, so that nothing waits for ever.
    @Test func whatIsDueInAnAbsurdFutureComesAllTheSame() throws {
        let (world, space) = try world(160)
        turnOver(world, space, 8..<160)
        world.chain(space, ["key-0", "key-1"], request: 1, due: .max)
        world.pass(1_000_000_000)
        #expect(!world.isResident("key-0", space))
        world.pass(3_600_000_000_000)
        #expect(world.isResident("key-0", space) && world.isResident("key-1", space))
        #expect(world.store.prefetchStatistics.waiting == 0)
    }

    @Test func demandOvertakesWhatWaits() throws {
        var configuration = TieredWorld.configuration()
        configuration.prefetch.operations = 1
        let (world, space) = try world(6, configuration)
        world.chain(space, (0..<6).map { "key-\($0)" })
        world.turn()
        check(world, space, "key-5", tier: .device)
        #expect(world.store.prefetchStatistics.overtaken == 1)
        world.settle()
        // The one that was raised counts as foretold, and as late by its own time.
        let made = world.store.prefetchStatistics
        #expect(made.total.issued == 6 && made.total.useful == 1 && made.total.timely == 0)
        #expect(made.demandMisses == 0 && made.lateness.maximum > 0)
        for number in 0..<6 { check(world, space, "key-\(number)") }
    }

    @Test func cancelledIsTakenBack() throws {
        var configuration = TieredWorld.configuration()
        configuration.prefetch.operations = 2
        let (world, space) = try world(8, configuration)
        world.chain(space, (0..<8).map { "key-\($0)" }, request: 5)
        for _ in 0..<200 where world.store.prefetchStatistics.waiting > 4 { world.turn() }
        let before = world.store.prefetchStatistics
        #expect(before.waiting > 0 && before.inFlight > 0)
        world.cancel(5)
        #expect(world.store.prefetchStatistics.waiting == 0)
        world.settle()
        let made = world.store.prefetchStatistics
        #expect(made.cancelled >= 1 && made.total.issued < 8)
        #expect(made.total.wasted == made.total.issued && made.unusedBytes == 0)
        world.cancel(5)
        world.cancel(77)
        for number in 0..<8 { check(world, space, "key-\(number)") }
    }

    @Test func whatIsNotThereIsCounted() throws {
        let (world, space) = try world(3)
        check(world, space, "key-1", mode: .cached)
        world.chain(space, ["none-1", "key-0", "key-0", "key-1", "none-2"])
        world.settle()
        let made = world.store.prefetchStatistics
        #expect(made.hintedAbsent == 2 && made.hintedResident == 1 && made.hintedTwice == 1)
        #expect(made.total.issued == 1)
    }

    @Test func replacedAndDeletedMeanwhile() throws {
        for removes in [false, true] {
            let (world, space) = try world(2)
            world.chain(space, ["key-0"])
            world.turn()
            #expect(world.store.prefetchStatistics.inFlight == 1)
            if removes {
                #expect(world.run(.delete, "key-0", space).status == .deleted)
            } else {
                world.put(
                    "key-0", space, payload("key-0", revision: 1, length: Self.length),
                    replace: true)
            }
            world.settle()
            if removes {
                #expect(world.get("key-0", space, length: Self.length).0.status == .miss)
                #expect(!world.isResident("key-0", space))
            } else {
                check(world, space, "key-0", revision: 1)
                check(world, space, "key-0", mode: .cached, revision: 1)
            }
        }
    }

    @Test func purgedMeanwhile() throws {
        let (world, space) = try world(6)
        world.chain(space, (0..<6).map { "key-\($0)" })
        world.turn()
        let token = world.token()
        world.store.staged.purge(token: token, namespaceSlot: space)
        world.settle()
        #expect(world.sink.outcomes[token]?.status == .done)
        for number in 0..<6 { #expect(!world.isResident("key-\(number)", space)) }
        let again = world.namespace()
        for number in 0..<6 {
            #expect(world.get("key-\(number)", again, length: Self.length).0.status == .miss)
        }
        world.chain(space == again ? 99 : space, ["key-1"])
        world.settle()
    }

    @Test func damagedIsAMissAndACounter() throws {
        var faults = FaultPlan.none
        faults[.bitRot] = 0.3
        let (world, space) = try world(40, faults: faults)
        let names = (0..<40).map { "key-\($0)" }
        world.chain(space, names)
        world.settle()
        var hits = 0
        for name in names {
            let (answer, bytes) = world.get(name, space, length: Self.length, mode: .cached)
            if answer.status == .hit {
                hits += 1
                #expect(bytes == payload(name, length: Self.length))
            } else {
                #expect(answer.status == .miss)
            }
        }
        let made = world.store.prefetchStatistics
        #expect(made.total.failed > 0 && hits > 0 && hits < 40)
    }

    @Test func unusedBlocksHoldAtMostTheirShare() throws {
        let (world, space) = try world(60)
        world.chain(space, (0..<60).map { "key-\($0)" }, request: 1)
        var isFull = false
        for _ in 0..<5000 where !isFull {
            world.turn()
            let made = world.store.prefetchStatistics
            #expect(made.unusedBytes <= 2 << 20)
            isFull = made.waiting > 0 && made.inFlight == 0 && made.unusedBytes > 1 << 20
        }
        #expect(isFull)
        // What is used makes way for what comes after it.
        for number in 0..<60 { check(world, space, "key-\(number)") }
        let made = world.store.prefetchStatistics
        #expect(made.total.useful >= 42)
    }

    @Test func laterOnesMakeWayForTheUrgent() throws {
        let (world, space) = try world(60)
        let now = world.clock.monotonic
        world.chain(
            space, (0..<50).map { "key-\($0)" }, request: 1, due: now + 20_000_000_000)
        for _ in 0..<2000 { world.turn() }
        let names = (50..<60).map { "key-\($0)" }
        world.chain(space, names, request: 2, due: now + 1_000_000_000)
        for _ in 0..<2000 { world.turn() }
        for name in names { #expect(world.isResident(name, space)) }
    }

    @Test func agedOnesMakeWay() throws {
        var configuration = TieredWorld.configuration()
        configuration.prefetch.patience = 1_000_000_000
        let (world, space) = try world(60, configuration)
        world.chain(space, (0..<42).map { "key-\($0)" }, request: 1)
        for _ in 0..<2000 { world.turn() }
        let names = (42..<60).map { "key-\($0)" }
        world.chain(space, names, request: 2)
        let end = world.clock.monotonic + 4_000_000_000
        while world.clock.monotonic < end { world.turn() }
        for name in names { #expect(world.isResident(name, space)) }
    }

    @Test func longKeysAndShortOnes() throws {
        let (world, space) = try world(1)
        let names = [1, 31, 32, 33, 100, 512].map { String(repeating: "x", count: $0) }
        for name in names { world.put(name, space, payload(name, length: Self.length)) }
        world.settle()
        world.emptyStaging(space)
        world.chain(space, names)
        world.settle()
        for name in names { check(world, space, name, tier: .staging) }
    }

    @Test func closingEndsIt() throws {
        let (world, space) = try world(20)
        world.chain(space, (0..<20).map { "key-\($0)" })
        world.turn()
        world.store.beginClose()
        for _ in 0..<1000 { world.turn() }
        #expect(world.store.isIdle && world.store.prefetchStatistics.inFlight == 0)
    }
}
