// The engine's own memory as a tier: what it reports against a plain set, what that buys in
// staging, copies up under their limits, and an engine that misbehaves.

import BlockIO
import LogStore
import Prefetch
import SimulatedDisk
import Staging
import Testing

@testable import Tiering

/// An engine of host memory: copies what it is given and compares it with what was stored.
final class HostEngine: EngineCopier {
    enum Manner { case atOnce, later, refuses, fails }
    var manner = Manner.atOnce
    var length = 0
    var order: [String] = []
    var wrong = 0
    var open: [UInt64] = []
    var dues: [UInt64] = []
    private let arena: StagingArena

    init(_ arena: StagingArena) { self.arena = arena }

    func begin(_ promotion: Promotion) -> CopyStart {
        let name = String(decoding: promotion.key, as: UTF8.self)
        switch manner {
        case .refuses: return .refused
        case .fails: return .failed
        case .atOnce, .later: break
        }
        var bytes: [UInt8] = []
        for piece in promotion.image {
            bytes += UnsafeRawBufferPointer(
                start: UnsafeRawPointer(arena.pointer(piece)), count: Int(piece.length))
        }
        let value = bytes[promotion.valueOffset...].prefix(Int(promotion.length))
        if Array(value) != payload(name, length: Int(promotion.length)) { wrong += 1 }
        order.append(name)
        dues.append(promotion.due)
        if manner == .atOnce { return .done }
        open.append(promotion.token)
        return .underWay
    }
}

@Suite struct EngineTierTests {
    static let length = 48 << 10
    static let second: UInt64 = 1_000_000_000

    private func names(_ range: Range<Int>, _ word: String = "key") -> [String] {
        range.map { "\(word)-\($0)" }
    }

    private static func configuration(
        blocks: Int = 20, staging: Int = 4 << 20
    ) -> TieredConfiguration {
        var made = TieredWorld.configuration(staging: staging)
        made.engine.capacity = UInt64(blocks * length)
        made.engine.blocks = 256
        made.engine.candidates = 128
        return made
    }

    private func world(
        _ keys: [String], _ configuration: TieredConfiguration = EngineTierTests.configuration()
    ) throws -> (TieredWorld, UInt16, TierManager) {
        let world = try TieredWorld(configuration)
        let space = world.namespace()
        world.putChain(keys, space, length: Self.length)
        world.settle()
        world.emptyStaging(space)
        return (world, space, try #require(world.store.tiers))
    }

    private func tell(
        _ world: TieredWorld, _ space: UInt16, _ kind: HintKind, _ keys: [String]
    ) {
        world.hint(Hint(kind, namespaceSlot: space), keys)
    }

    @discardableResult
    private func read(_ world: TieredWorld, _ space: UInt16, _ key: String) -> HitTier {
        let (answer, bytes) = world.get(key, space, length: Self.length, mode: .cached)
        #expect(answer.status == .hit && bytes == payload(key, length: Self.length))
        return answer.tier
    }

    // MARK: The table

    @Test(arguments: 0..<8) func theTableAgreesWithASet(seed: UInt64) {
        var table = EngineTable(blocks: 600)
        var model: [UInt64: UInt64] = [:]
        var state = seed &* 99 &+ 3
        func dice(_ bound: UInt64) -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return (state >> 33) % bound
        }
        func name(_ number: UInt64) -> Fingerprint {
            Fingerprint(
                hi: number &* 0x9E37_79B9_7F4A_7C15, lo: (number &+ 1) &* 0xD134_2543_DE82_EF95)
        }
        for step in 0..<20_000 {
            let number = dice(900)
            switch dice(4) {
            case 0, 1:
                if model.count >= 300, model[number] == nil { continue }
                let bytes = 1 + Int(dice(1 << 20))
                let got = table.admit(name(number), bytes: bytes, now: UInt64(step))
                #expect(got == (model[number] == nil ? .new : .known))
                if model[number] == nil { model[number] = UInt64((bytes + 4095) / 4096) }
            case 2: #expect(table.evict(name(number)) == (model.removeValue(forKey: number) != nil))
            default: #expect(table.touch(name(number), now: 0) == (model[number] != nil))
            }
            #expect(table.count == model.count)
        }
        #expect(table.pages == model.values.reduce(0, +))
        table.removeAll()
        #expect(table.count == 0 && table.pages == 0)
    }

    @Test func aFullTableForgetsWhatWasUsedLongestAgo() {
        var table = EngineTable(blocks: 12)
        #expect(table.capacity == 16 && EngineTable.memoryBytes(blocks: 12) == 16 * 12)
        #expect(EngineTable.memoryBytes(blocks: 1 << 20) <= (16 << 20) + 192, "16 bytes a block")
        func name(_ number: Int) -> Fingerprint { Fingerprint(hi: UInt64(number) << 20, lo: 7) }
        for number in 1...16 {
            #expect(table.admit(name(number), bytes: 1, now: UInt64(number) << 30) == .new)
        }
        _ = table.touch(name(1), now: 40 << 30)
        #expect(table.admit(name(99), bytes: 1, now: 41 << 30) == .displaced)
        #expect(table.holds(name(1)) && !table.holds(name(2)) && table.count == 16)
    }

    // MARK: What it buys

    @Test func whatTheEngineHoldsLeavesStagingFirst() throws {
        let keys = names(0..<60)
        let (world, space, tiers) = try world(keys)
        for key in keys { read(world, space, key) }
        // The youngest ones, which would leave last.
        tell(world, space, .admitted, Array(keys[50...]))
        #expect(tiers.statistics.admitted == 10 && tiers.statistics.blocks == 10)
        let more = names(0..<10, "more")
        world.putChain(more, space, length: Self.length)
        let gone = keys.filter { !world.isResident($0, space) }
        #expect(!gone.isEmpty && gone.allSatisfy { keys[50...].contains($0) })
        for key in keys { read(world, space, key) }
        world.close()
    }

    @Test func whatTheEngineHoldsIsNotBrought() throws {
        let keys = names(0..<12)
        let (world, space, tiers) = try world(keys)
        tell(world, space, .admitted, Array(keys[..<8]))
        world.chain(space, keys, request: 5, due: world.clock.monotonic + 30 * Self.second)
        world.settle()
        var made = world.store.prefetchStatistics
        #expect(made[.chain].issued == 4)
        for key in keys[..<8] { #expect(!world.isResident(key, space)) }
        // What comes down while the request waits is brought after all.
        tell(world, space, .evicted, Array(keys[..<3]))
        world.settle()
        made = world.store.prefetchStatistics
        #expect(made[.chain].issued == 7 && made.awakened >= 3)
        for key in keys[..<3] { #expect(world.isResident(key, space)) }
        #expect(tiers.statistics.evicted == 3 && tiers.statistics.evictedUnstored == 0)
        world.close()
    }

    @Test func whatComesDownCountsAsUsedJustNow() throws {
        let keys = names(0..<80)
        let (world, space, _) = try world(keys, Self.configuration(blocks: 200))
        for key in keys[..<40] { read(world, space, key) }
        tell(world, space, .admitted, Array(keys[..<5]))
        tell(world, space, .evicted, Array(keys[..<5]))
        for key in keys[40...] { read(world, space, key) }
        let stayed = keys[..<5].filter { world.isResident($0, space) }.count
        let others = keys[5..<10].filter { world.isResident($0, space) }.count
        #expect(stayed > others, "\(stayed) against \(others)")
        world.close()
    }

    @Test func whatIsNowhereElseIsTold() throws {
        let (world, space, tiers) = try world(names(0..<2))
        tell(world, space, .admitted, ["nowhere", "key-0"])
        tell(world, space, .evicted, ["nowhere", "key-0", "never-there"])
        let made = tiers.statistics
        #expect(made.evicted == 2 && made.evictedUnstored == 1 && made.evictedUnknown == 1)
        tell(world, space, .admitted, ["key-0", "key-1"])
        tell(world, space, .touched, ["key-0", "key-1", "other"])
        #expect(tiers.statistics.hits == 2)
        tell(world, space, .evicted, [])
        #expect(tiers.statistics.blocks == 0 && tiers.statistics.bytes == 0)
        world.close()
    }

    // MARK: Copies up

    @Test func announcedBlocksGoAllTheWayThoseDueFirstFirst() throws {
        let keys = names(0..<12)
        let (world, space, tiers) = try world(keys)
        let engine = HostEngine(try #require(world.store.staged.arena))
        tiers.copier = engine
        let now = world.clock.monotonic
        world.chain(space, Array(keys[6...]), request: 2, due: now + 20 * Self.second)
        world.chain(space, Array(keys[..<6]), request: 1, due: now + 10 * Self.second)
        world.settle()
        world.pass(Self.second)
        #expect(Set(engine.order) == Set(keys) && engine.order.count == 12 && engine.wrong == 0)
        let made = tiers.statistics
        #expect(made.promoted == 12 && made.promotedBytes == UInt64(12 * Self.length))
        #expect(made.blocks == 12 && made.bytesPerSecond > 0 && made.copying == 0)
        #expect(world.store.prefetchStatistics[.chain].useful == 12)
        world.close()
    }

    @Test func ofManyInStagingThoseDueFirstAreCopiedFirst() throws {
        let keys = names(0..<10)
        let (world, space, tiers) = try world(keys)
        let engine = HostEngine(try #require(world.store.staged.arena))
        engine.manner = .refuses
        for key in keys { read(world, space, key) }
        tiers.copier = engine
        engine.manner = .atOnce
        let now = world.clock.monotonic
        for (place, key) in keys.enumerated() {
            let due = now + UInt64(10 + (place * 7) % 10) * Self.second
            world.chain(space, [key], request: UInt64(place + 1), due: due)
        }
        world.settle()
        #expect(engine.dues.count == 10 && engine.dues == engine.dues.sorted())
        world.close()
    }

    @Test func copiesKeepToTheWatermarksAndLeaseWhatTheyRead() throws {
        let keys = names(0..<40)
        var configuration = Self.configuration(blocks: 20)
        (configuration.engine.highWatermark, configuration.engine.lowWatermark) = (0.8, 0.5)
        configuration.engine.copies = 4
        let (world, space, tiers) = try world(keys, configuration)
        let arena = try #require(world.store.staged.arena)
        let engine = HostEngine(arena)
        engine.manner = .later
        tiers.copier = engine
        world.chain(space, keys, request: 1, due: world.clock.monotonic + 25 * Self.second)
        for _ in 0..<400 {
            world.turn()
            let made = tiers.statistics
            #expect(made.copying <= 4)
            #expect(arena.leasedSlabs == made.copying)
            #expect(made.bytes <= UInt64(Double(20 * Self.length) * 0.8) + 4096)
            if !engine.open.isEmpty { tiers.ended(engine.open.removeFirst(), isWell: true) }
        }
        #expect(tiers.statistics.promoted == 16 && tiers.statistics.full >= 1)
        // A few leave: still above the low mark. More do: copying begins again.
        tell(world, space, .evicted, Array(engine.order[..<4]))
        for _ in 0..<50 { world.turn() }
        #expect(tiers.statistics.promoted == 16 && engine.open.isEmpty)
        tell(world, space, .evicted, Array(engine.order[4..<8]))
        for _ in 0..<200 {
            world.turn()
            if !engine.open.isEmpty { tiers.ended(engine.open.removeFirst(), isWell: true) }
        }
        #expect(tiers.statistics.promoted > 16 && engine.wrong == 0)
        #expect(arena.leasedSlabs == 0)
        world.close()
    }

    // MARK: Misbehaving

    @Test func anEngineThatMisbehavesCostsCounters() throws {
        let keys = names(0..<30)
        let (world, space, tiers) = try world(keys, Self.configuration(blocks: 8))
        let arena = try #require(world.store.staged.arena)
        // More than there is room for, again and again, and what never was.
        for round in 0..<400 {
            tell(world, space, .admitted, names(round * 10..<round * 10 + 10, "flood"))
        }
        tell(world, space, .admitted, keys + keys)
        tell(world, space, .evicted, names(0..<100, "never"))
        tell(world, 999, .admitted, keys)
        let flooded = tiers.statistics
        #expect(flooded.overCapacity > 0 && flooded.forgotten > 0 && flooded.evictedUnknown > 0)
        #expect(flooded.blocks <= 352 && flooded.admittedAgain >= 10)
        tell(world, space, .evicted, [])
        // Copies that fail, are refused, end twice, or never began.
        let engine = HostEngine(arena)
        tiers.copier = engine
        engine.manner = .fails
        world.chain(space, keys, request: 1, due: world.clock.monotonic + 20 * Self.second)
        world.settle()
        #expect(tiers.statistics.failedCopies > 0 && tiers.statistics.promoted == 0)
        engine.manner = .refuses
        world.chain(space, keys, request: 2, due: world.clock.monotonic + 21 * Self.second)
        world.settle()
        #expect(tiers.statistics.refusedCopies > 0)
        engine.manner = .later
        world.chain(space, keys, request: 3, due: world.clock.monotonic + 22 * Self.second)
        world.settle()
        let tokens = engine.open
        #expect(!tokens.isEmpty)
        for token in tokens + tokens + [0, .max, 1 << 32] { tiers.ended(token, isWell: false) }
        #expect(tiers.statistics.strayEnds == UInt64(tokens.count + 3))
        #expect(tiers.statistics.copying == 0 && arena.leasedSlabs == 0)
        for key in keys { read(world, space, key) }
        world.close()
    }

    /// An engine at random against what must always hold.
    @Test(arguments: 0..<12) func anEngineAtRandomKeepsTheInvariants(seed: UInt64) throws {
        let keys = names(0..<48)
        let (world, space, tiers) = try world(
            keys, Self.configuration(blocks: 16, staging: 2 << 20))
        let arena = try #require(world.store.staged.arena)
        let engine = HostEngine(arena)
        tiers.copier = engine
        var state = seed &* 7919 &+ 11
        func dice(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int((state >> 33) % UInt64(bound))
        }
        let manners: [HostEngine.Manner] = [.atOnce, .later, .later, .refuses, .fails]
        for step in 0..<600 {
            engine.manner = manners[dice(manners.count)]
            let first = dice(40)
            let some = Array(keys[first..<first + 1 + dice(8)])
            switch dice(9) {
            case 0: tell(world, space, .admitted, some)
            case 1, 2: tell(world, space, .evicted, some)
            case 3: tell(world, space, .touched, some)
            case 4, 5:
                let due = world.clock.monotonic + UInt64(dice(3000)) * 1_000_000
                world.chain(space, some, request: UInt64(1 + dice(12)), due: due)
            case 6: world.cancel(UInt64(1 + dice(12)))
            case 7: read(world, space, keys[dice(48)])
            default: world.pass(UInt64(dice(50)) * 1_000_000)
            }
            world.turn()
            if dice(2) == 0, !engine.open.isEmpty {
                tiers.ended(engine.open.remove(at: dice(engine.open.count)), isWell: dice(4) > 0)
            }
            let made = tiers.statistics
            #expect(made.copying == engine.open.count, "step \(step)")
            #expect(arena.leasedSlabs <= arena.leaseLimitSlabs)
            #expect(made.copying == 0 || arena.leasedSlabs > 0)
        }
        for token in engine.open { tiers.ended(token, isWell: true) }
        #expect(arena.leasedSlabs == 0 && engine.wrong == 0 && tiers.statistics.strayEnds == 0)
        for key in keys { read(world, space, key) }
        world.close()
    }
}
