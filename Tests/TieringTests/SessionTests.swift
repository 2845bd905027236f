// Sessions on the simulated disk: whose chain is brought before it is back, whose is not, and what
// was said of a session in who leaves staging first.

import BlockIO
import Heat
import LogStore
import Prefetch
import SimulatedDisk
import Staging
import Testing
import Tiering

@Suite struct SessionTests {
    static let length = 48 << 10
    static let second: UInt64 = 1_000_000_000

    private func names(_ session: Int, _ count: Int = 6) -> [String] {
        (0..<count).map { "s\(session)-\($0)" }
    }

    private static func configuration(staging: Int = 4 << 20) -> TieredConfiguration {
        var made = TieredWorld.configuration(staging: staging)
        made.prefetch.predictors = .session
        made.prefetch.sessions = 64
        made.prefetch.sessionKeys = 512
        return made
    }

    private func world(
        _ sessions: Int, _ configuration: TieredConfiguration = SessionTests.configuration()
    ) throws -> (TieredWorld, UInt16) {
        let world = try TieredWorld(configuration)
        let space = world.namespace()
        for session in 0..<sessions {
            world.putChain(names(session), space, length: Self.length)
        }
        world.settle()
        world.emptyStaging(space)
        return (world, space)
    }

    private func tell(
        _ world: TieredWorld, _ space: UInt16, _ session: Int, _ state: SessionState,
        due: UInt64 = 0, _ keys: [String]? = nil
    ) {
        var hint = Hint(.session, namespaceSlot: space)
        (hint.session, hint.state, hint.due) = (UInt64(session) + 1, state, due)
        world.hint(hint, keys ?? names(session))
    }

    @discardableResult
    private func read(_ world: TieredWorld, _ space: UInt16, _ session: Int) -> Int {
        var staged = 0
        for (place, name) in names(session).enumerated() {
            let (answer, bytes) = world.get(name, space, length: Self.length, mode: .cached) {
                $0.continues = place > 0
            }
            #expect(answer.status == .hit && bytes == payload(name, length: Self.length))
            if answer.tier == .staging { staged += 1 }
        }
        return staged
    }

    /// Sessions wait so long and come back; nothing stays in staging meanwhile.
    private func teach(
        _ world: TieredWorld, _ space: UInt16, _ state: SessionState, rounds: Int,
        returns: (Int) -> Bool
    ) {
        for round in 0..<rounds {
            // Another session each time, as one that is told of again is back.
            tell(world, space, 1000 + round, state, names(round % 8))
            world.emptyStaging(space)
            world.pass(5 * Self.second)
            if returns(round) { read(world, space, round % 8) }
        }
    }

    @Test func whoComesBackSoonIsWaitedFor() throws {
        let (world, space) = try world(10)
        teach(world, space, .toolPending, rounds: 80) { _ in true }
        let before = world.store.prefetchStatistics
        tell(world, space, 9, .toolPending)
        world.emptyStaging(space)
        world.pass(4 * Self.second)
        for name in names(9) { #expect(world.isResident(name, space)) }
        #expect(read(world, space, 9) == 6)
        let made = world.store.prefetchStatistics
        #expect(made[.session].timely - before[.session].timely == 6)
        #expect(made.sessionsBrought > before.sessionsBrought)
        #expect(made[.session].accuracy > 0.9)
        world.close()
    }

    @Test func whoHardlyComesBackIsNot() throws {
        let (world, space) = try world(10)
        teach(world, space, .idle, rounds: 200) { $0 % 10 == 0 }
        let before = world.store.prefetchStatistics
        tell(world, space, 9, .idle)
        world.emptyStaging(space)
        world.pass(20 * Self.second)
        let made = world.store.prefetchStatistics
        #expect(made[.session].issued == before[.session].issued)
        #expect(made.sessionsLeft > before.sessionsLeft)
        #expect(!world.isResident("s9-0", space))
        world.close()
    }

    @Test func whatIsDueIsThereInTimeAndNotLongBefore() throws {
        let (world, space) = try world(2)
        let due = world.clock.monotonic + 120 * Self.second
        tell(world, space, 1, .toolPending, due: due)
        world.emptyStaging(space)
        world.pass(100 * Self.second)
        #expect(world.store.prefetchStatistics[.session].issued == 0)
        world.pass(due - world.clock.monotonic)
        for name in names(1) { #expect(world.isResident(name, space)) }
        #expect(read(world, space, 1) == 6)
        world.close()
    }

    @Test func enginesThatTellWrongTimesAreNotBelievedForLong() throws {
        let (world, space) = try world(4)
        var issued: [UInt64] = []
        for _ in 0..<120 {
            let before = world.store.prefetchStatistics[.session].issued
            tell(
                world, space, 1, .toolPending,
                due: world.clock.monotonic + 2 * Self.second)
            world.emptyStaging(space)
            world.pass(5 * Self.second / 2)
            issued.append(world.store.prefetchStatistics[.session].issued - before)
            world.pass(60 * Self.second)
            tell(world, space, 1, .open)
            world.emptyStaging(space)
        }
        #expect(issued[0] == 6, "the engine is believed at first")
        #expect(issued[115...].allSatisfy { $0 == 0 })
        world.close()
    }

    @Test func aChainWithAGapIsBroughtUpToIt() throws {
        let (world, space) = try world(2)
        _ = world.run(.delete, "s1-3", space)
        tell(world, space, 1, .toolPending, due: world.clock.monotonic + Self.second)
        world.pass(2 * Self.second)
        #expect(world.store.prefetchStatistics[.session].issued == 3)
        world.close()
    }

    @Test func whatIsOverLeavesFirst() throws {
        let (world, space) = try world(2)
        tell(world, space, 1, .toolPending, due: world.clock.monotonic + Self.second)
        world.pass(2 * Self.second)
        #expect(world.isResident("s1-0", space))
        #expect(world.store.prefetchStatistics.unusedBytes > 0)
        tell(world, space, 1, .closed)
        let made = world.store.prefetchStatistics
        #expect(made.unusedBytes == 0 && made[.session].wasted == 6)
        world.close()
    }

    /// What is told orders who leaves: with sessions whose end is told staging has more hits than
    /// without, and tails leave before heads.
    @Test func whatIsSaidOfSessionsOrdersWhoLeaves() throws {
        func hits(_ isTold: Bool) throws -> Int {
            let (world, space) = try world(60, Self.configuration(staging: 3 << 20))
            var dice: UInt64 = 5
            var staged = 0
            var open = Array(0..<4)
            for round in 0..<400 {
                dice = dice &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                // One in two is a session that is read once, the others return.
                let isOnce = dice >> 63 == 0
                let session = isOnce ? 4 + round % 56 : open[Int(dice >> 33) % 4]
                let found = read(world, space, session)
                if !isOnce { staged += found }
                if isTold { tell(world, space, session, isOnce ? .oneShot : .idle) }
                if round % 100 == 99 { open.reverse() }
            }
            world.close()
            return staged
        }
        let (with, without) = (try hits(true), try hits(false))
        #expect(with > without + without / 10, "\(with) against \(without)")
    }

    @Test func aFloodOfSessionsCostsBoundedRoom() throws {
        let (world, space) = try world(4)
        for session in 0..<20_000 {
            tell(world, space, session + 100, SessionState.allCases[session % 5], ["x\(session)"])
        }
        for name in names(1) { tell(world, space, 7, .idle, [name]) }
        let made = world.store.prefetchStatistics
        #expect(made.sessions == 64 && made[.session].issued == 0)
        // Absurd times and keys.
        tell(world, space, 1, .toolPending, due: .max)
        tell(world, space, 2, .toolPending, due: 1)
        tell(world, space, 3, .toolPending, [String(repeating: "k", count: 400)])
        tell(world, 999, 3, .idle)
        world.pass(3 * Self.second)
        for session in 0..<4 { read(world, space, session) }
        world.close()
    }
}
