// Predictions on the simulated disk: what is learnt of successors, what is hinted of blocks that
// are in staging or not stored yet, and floods of hints that mean nothing.

import BlockIO
import LogStore
import Prefetch
import SimulatedDisk
import Staging
import Testing
import Tiering

@Suite struct PredictionTests {
    static let length = 48 << 10

    private func names(_ range: Range<Int>, _ word: String = "key") -> [String] {
        range.map { "\(word)-\($0)" }
    }

    /// A world with chains on disk and none of it in staging.
    private func world(
        _ chains: [[String]], _ configuration: TieredConfiguration = TieredWorld.configuration(),
        latency: LatencyModel = .constant(100_000)
    ) throws -> (TieredWorld, UInt16) {
        let world = try TieredWorld(configuration, latency: latency)
        let space = world.namespace()
        for chain in chains { world.putChain(chain, space, length: Self.length) }
        world.settle()
        world.emptyStaging(space)
        return (world, space)
    }

    @discardableResult
    private func read(
        _ world: TieredWorld, _ space: UInt16, _ key: String, continues: Bool = false,
        mode: GetMode = .cached
    ) -> HitTier {
        let (answer, bytes) = world.get(key, space, length: Self.length, mode: mode) {
            $0.continues = continues
        }
        #expect(answer.status == .hit)
        #expect(bytes == payload(key, length: Self.length))
        return answer.tier
    }

    private static func successors() -> TieredConfiguration {
        var made = TieredWorld.configuration()
        made.prefetch.predictors = .successor
        made.prefetch.successors = 4096
        return made
    }

    // MARK: Successors

    @Test func whatFollowedIsThereWhenAskedFor() throws {
        let chain = names(0..<40)
        let (world, space) = try world([chain], Self.successors())
        var staged = 0
        for (place, name) in chain.enumerated() {
            if read(world, space, name, continues: place > 0) == .staging { staged += 1 }
            for _ in 0..<20 { world.turn() }
        }
        let made = world.store.prefetchStatistics
        #expect(staged == 39, "all but the first")
        #expect(made[.successor].useful == 39 && made[.successor].timely == 39)
        #expect(made[.successor].issued == 39 && made.demandMisses == 1)
        #expect(made.coverage > 0.97 && made.total.accuracy == 1)
    }

    @Test func readersThatDoNotSaySoAreFollowedToo() throws {
        let (first, second) = (names(0..<20, "a"), names(0..<20, "b"))
        let (world, space) = try world([first, second], Self.successors())
        for place in 0..<20 {
            read(world, space, first[place])
            read(world, space, second[place])
            for _ in 0..<20 { world.turn() }
        }
        let made = world.store.prefetchStatistics
        #expect(made[.successor].timely == 38 && made.demandMisses == 2)
    }

    @Test func whatStrayedIsTakenBack() throws {
        let (trunk, old) = (names(0..<20), names(0..<20, "old"))
        let new = names(0..<4, "new")
        let (world, space) = try world(
            [trunk + new, trunk + old], Self.successors())
        for (place, name) in trunk.enumerated() {
            read(world, space, name, continues: place > 0)
            for _ in 0..<20 { world.turn() }
        }
        #expect(world.isResident("old-0", space))
        let before = world.store.prefetchStatistics
        #expect(before.unusedBytes > 0)
        read(world, space, "new-0", continues: true)
        let made = world.store.prefetchStatistics
        #expect(made[.successor].wasted + made.cancelled >= 1)
        #expect(made[.successor].wasted <= 63)
        world.settle()
        for name in trunk + new + old { read(world, space, name) }
    }

    @Test func withoutStagingOrTableNothingIsFollowed() throws {
        var configuration = Self.successors()
        configuration.prefetch.predictors = .chain
        let chain = names(0..<10)
        let (world, space) = try world([chain], configuration)
        for name in chain { read(world, space, name, continues: true) }
        #expect(world.store.prefetchStatistics.total.issued == 0)
    }

    // MARK: What sleeps

    @Test func whatLeavesBeforeItsTurnIsBroughtAgain() throws {
        let (chain, others) = (names(0..<10), names(0..<120, "other"))
        let (world, space) = try world([chain, others])
        for name in chain { read(world, space, name) }
        let due = world.clock.monotonic + 20_000_000_000
        world.chain(space, chain, request: 7, due: due)
        var made = world.store.prefetchStatistics
        #expect(made.hintedResident == 10 && made.dormant == 10 && made.total.issued == 0)
        world.emptyStaging(space)
        made = world.store.prefetchStatistics
        #expect(made.awakened == 10 && made.waiting == 10 && made.dormant == 0)
        // Many others are read before its turn.
        for name in others { read(world, space, name) }
        world.settle()
        for name in chain { #expect(read(world, space, name) == .staging) }
        made = world.store.prefetchStatistics
        #expect(made[.chain].useful == 10 && made[.chain].timely == 10 && made.dormant == 0)
    }

    @Test func whatIsAwaitedIsSparedWhileOthersPass() throws {
        let (chain, others) = (names(0..<10), names(0..<200, "other"))
        let (world, space) = try world([chain, others])
        for name in chain { read(world, space, name) }
        world.chain(space, chain, request: 7, due: world.clock.monotonic + 60_000_000_000)
        for name in others { read(world, space, name) }
        for name in chain { #expect(world.isResident(name, space)) }
        #expect(world.store.prefetchStatistics.total.issued == 0)
        // Once it is not awaited it leaves as others do.
        world.cancel(7)
        #expect(world.store.prefetchStatistics.dormant == 0)
        for name in others { read(world, space, name) }
        for name in chain { #expect(!world.isResident(name, space)) }
    }

    @Test func whatIsStoredLaterIsBroughtWhenItLeft() throws {
        let (world, space) = try world([names(0..<2)])
        world.chain(space, ["late-0", "late-1"], request: 3)
        #expect(world.store.prefetchStatistics.hintedAbsent == 2)
        for name in ["late-0", "late-1"] {
            world.put(name, space, payload(name, length: Self.length))
        }
        world.settle()
        world.emptyStaging(space)
        world.settle()
        for name in ["late-0", "late-1"] { #expect(read(world, space, name) == .staging) }
        #expect(world.store.prefetchStatistics[.chain].timely == 2)
    }

    @Test func anotherRequestsWishOutlivesACancel() throws {
        let (world, space) = try world([names(0..<4)])
        world.chain(space, names(0..<4), request: 1)
        world.chain(space, names(0..<4), request: 2)
        world.settle()
        world.cancel(1)
        world.emptyStaging(space)
        world.settle()
        for name in names(0..<4) { #expect(world.isResident(name, space)) }
        world.cancel(2)
        #expect(world.store.prefetchStatistics.dormant == 0)
        world.emptyStaging(space)
        world.settle()
        for name in names(0..<4) { #expect(!world.isResident(name, space)) }
    }

    @Test func aCancelWhileUnderWayLeavesTheBlockToTheOther() throws {
        let (world, space) = try world([names(0..<2)])
        world.chain(space, ["key-0"], request: 1)
        world.turn()
        #expect(world.store.prefetchStatistics.inFlight == 1)
        world.chain(space, ["key-0"], request: 2)
        world.cancel(1)
        world.settle()
        #expect(read(world, space, "key-0") == .staging)
        let made = world.store.prefetchStatistics
        #expect(made[.chain].useful == 1 && made[.chain].wasted == 0)
    }

    @Test func whoIsDueFirstIsServedFirst() throws {
        var configuration = TieredWorld.configuration()
        configuration.prefetch.operations = 1
        let (world, space) = try world([names(0..<30)], configuration)
        let now = world.clock.monotonic
        world.chain(space, names(0..<30), request: 1, due: now + 9_000_000_000)
        world.chain(space, ["key-29"], request: 2, due: now + 1_000_000)
        for _ in 0..<2000 where world.store.prefetchStatistics.waiting > 25 { world.turn() }
        #expect(world.isResident("key-29", space))
    }

    // MARK: Floods

    /// Whatever is told, and however much: bounded, counted, and reads as fast as without.
    @Test func aFloodOfNonsenseCostsNobody() throws {
        var configuration = TieredWorld.configuration()
        configuration.prefetch.predictors = .all
        configuration.prefetch.blocks = 256
        configuration.prefetch.requests = 32
        configuration.prefetch.successors = 256
        let chain = names(0..<60)
        let (world, space) = try world([chain], configuration)
        var random: UInt64 = 5
        func below(_ limit: Int) -> Int {
            random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int((random >> 33) % UInt64(limit))
        }
        let alone = time(world, space, chain)
        var given: UInt64 = 0
        let absurd: [UInt64] = [0, 1, .max, .max - 1, 1 << 63]
        for round in 0..<20_000 {
            let kind = HintKind.allCases[below(HintKind.allCases.count)]
            var hint = Hint(kind, namespaceSlot: below(8) == 0 ? UInt16(below(1 << 16)) : space)
            hint.request = below(3) == 0 ? UInt64(round) : absurd[below(absurd.count)]
            hint.session = absurd[below(absurd.count)]
            hint.due = absurd[below(absurd.count)]
            hint.step = UInt32(truncatingIfNeeded: random)
            hint.layer = below(2) == 0 ? .max : UInt32(below(5))
            hint.firstShard = below(2) == 0 ? .max : UInt32(below(5))
            hint.shardCount = below(2) == 0 ? .max : UInt32(below(5))
            hint.confidence = UInt32(truncatingIfNeeded: random >> 32)
            hint.state = SessionState.allCases[below(SessionState.allCases.count)]
            let keys = (0..<below(6)).map { _ in
                below(2) == 0 ? "key-\(below(60))" : "none-\(below(100_000))"
            }
            given += UInt64(keys.count)
            world.hint(hint, keys)
            if round % 100 == 0 { for _ in 0..<5 { world.turn() } }
        }
        var made = world.store.prefetchStatistics
        #expect(made.waiting + made.inFlight + made.dormant <= 256)
        #expect(made.forgotten > 1000 && made.hintedAbsent > 1000)
        let counted = made.hintedAbsent + made.hintedResident + made.hintedTwice + made.overflowed
        #expect(counted <= given)
        // Reads beside what the flood has left waiting.
        world.emptyStaging(space)
        let beside = time(world, space, chain)
        #expect(beside <= 2 * alone, "\(beside) and \(alone) ns")
        // An honest hint after all that has its effect.
        world.emptyStaging(space)
        world.chain(space, names(50..<60), request: 424_242, due: world.clock.monotonic)
        // Absurd due times count as overdue: such blocks hold the window first, for a patience.
        for _ in 0..<7000 { world.turn() }
        for name in names(50..<60) { #expect(world.isResident(name, space)) }
        made = world.store.prefetchStatistics
        #expect(made.total.issued >= 10)
    }

    /// Nanoseconds of reading the blocks one after the other.
    private func time(_ world: TieredWorld, _ space: UInt16, _ chain: [String]) -> UInt64 {
        let begun = world.clock.monotonic
        for name in chain { read(world, space, name, mode: .direct) }
        return world.clock.monotonic - begun
    }

    @Test func unusedPlacesReturnAfterTheirTime() throws {
        var configuration = TieredWorld.configuration()
        configuration.prefetch.patience = 1_000_000_000
        let (world, space) = try world([names(0..<2)], configuration)
        world.chain(space, names(0..<20, "never"), request: 9)
        #expect(world.store.prefetchStatistics.dormant == 20)
        let end = world.clock.monotonic + 5_000_000_000
        while world.clock.monotonic < end { world.turn() }
        let made = world.store.prefetchStatistics
        #expect(made.dormant == 0 && made.forgotten == 20)
    }
}
