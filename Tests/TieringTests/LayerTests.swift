// Parts of blocks on the simulated disk: pages of a layer that are hinted or guessed are there when
// they are picked, and what was replaced, deleted or purged is never read from one.

import BlockIO
import LogStore
import Prefetch
import SimulatedDisk
import Staging
import Testing
import Tiering

@Suite struct LayerTests {
    static let shards = 8
    static let shardBytes = 4096

    private static func configuration() -> TieredConfiguration {
        var made = TieredWorld.configuration()
        made.staged.slabBytes = 4096
        made.staged.keepsParts = true
        made.prefetch.predictors = .all
        made.prefetch.picks = 4096
        return made
    }

    private func names(_ range: Range<Int>) -> [String] { range.map { "page-\($0)" } }

    private func world(
        _ pages: Int, _ configuration: TieredConfiguration = LayerTests.configuration(),
        aligned: Bool = true, faults: FaultPlan = .none
    ) throws -> (TieredWorld, UInt16) {
        let world = try TieredWorld(configuration, faults: faults)
        let space = world.namespace(aligned: aligned)
        for name in names(0..<pages) { put(world, space, name) }
        world.settle()
        world.emptyStaging(space)
        return (world, space)
    }

    private func put(
        _ world: TieredWorld, _ space: UInt16, _ name: String, revision: Int = 0
    ) {
        let lengths = UnsafeMutablePointer<UInt32>.allocate(capacity: Self.shards)
        defer { lengths.deallocate() }
        lengths.initialize(repeating: UInt32(Self.shardBytes), count: Self.shards)
        var value = payload(name, revision: revision, length: Self.shards * Self.shardBytes)
        let answer = value.withUnsafeMutableBytes {
            world.run(.put, name, space, bytes: $0) {
                $0.shardLengths = UnsafePointer(lengths)
                $0.shardCount = Self.shards
                $0.replace = revision > 0
            }
        }
        #expect(answer.status == .stored)
    }

    /// Gets a run of shards; nil for a miss.
    @discardableResult
    private func read(
        _ world: TieredWorld, _ space: UInt16, _ name: String, _ first: Int, count: Int = 1,
        mode: GetMode = .cached, revision: Int = 0
    ) -> HitTier? {
        let (answer, bytes) = world.get(
            name, space, length: count * Self.shardBytes, mode: mode
        ) {
            $0.firstShard = first
            $0.shardCount = count
        }
        if answer.status == .miss { return nil }
        #expect(answer.status == .hit && answer.delivered == UInt64(count * Self.shardBytes))
        #expect(answer.length == UInt32(Self.shards * Self.shardBytes))
        #expect(answer.shardCount == Self.shards)
        let whole = payload(name, revision: revision, length: Self.shards * Self.shardBytes)
        let range = first * Self.shardBytes..<(first + count) * Self.shardBytes
        #expect(bytes == Array(whole[range]), "\(name), shards \(range)")
        return answer.tier
    }

    private func pages(
        _ world: TieredWorld, _ space: UInt16, _ names: [String], layer: Int, count: Int = 1,
        confidence: UInt32 = 1 << 16, kind: HintKind = .pages
    ) {
        var hint = Hint(kind, namespaceSlot: space)
        hint.request = 5
        hint.layer = UInt32(layer)
        hint.firstShard = UInt32(layer)
        hint.shardCount = UInt32(count)
        hint.confidence = confidence
        world.hint(hint, names)
    }

    private func progress(_ world: TieredWorld, layer: Int, step: Int = 0) {
        var hint = Hint(.progress)
        hint.request = 5
        hint.layer = UInt32(layer)
        hint.step = UInt32(step)
        world.hint(hint)
    }

    @Test func hintedPagesAreThereAndNothingElseIs() throws {
        for mode in [GetMode.direct, .cached] {
            let (world, space) = try world(10)
            let before = world.store.staged.log.statistics.readBytes
            pages(world, space, names(0..<10), layer: 3)
            world.settle()
            let bytes = world.store.staged.log.statistics.readBytes - before
            #expect(bytes < UInt64(10 * 3 * Self.shardBytes), "not whole blocks")
            for name in names(0..<10) {
                #expect(!world.isResident(name, space))
                #expect(read(world, space, name, 3, mode: mode) == .staging)
            }
            let made = world.store.prefetchStatistics
            #expect(made[.pages].issued == 10 && made[.pages].timely == 10)
            #expect(made.demandMisses == 0 && made.unusedBytes == 0)
            #expect(read(world, space, "page-0", 4, mode: .direct) == .device)
            #expect(read(world, space, "page-0", 3, count: 2, mode: .direct) == .device)
        }
    }

    @Test func runsOfShardsAndWholeBlocks() throws {
        let (world, space) = try world(4)
        pages(world, space, names(0..<2), layer: 2, count: 3)
        pages(world, space, names(2..<3), layer: 0, count: Self.shards)
        pages(world, space, names(3..<4), layer: 6, count: 4)  // beyond the last shard
        world.settle()
        #expect(read(world, space, "page-0", 2, count: 3) == .staging)
        #expect(read(world, space, "page-1", 2, count: 3, mode: .direct) == .staging)
        #expect(world.isResident("page-2", space))
        #expect(read(world, space, "page-2", 5) == .staging, "a part of a whole one")
        #expect(world.store.prefetchStatistics.hintedAbsent == 1)
    }

    @Test func packedShardsComeWithTheirBlock() throws {
        let (world, space) = try world(2, aligned: false)
        pages(world, space, names(0..<2), layer: 3)
        world.settle()
        for name in names(0..<2) { #expect(read(world, space, name, 3) == .staging) }
        #expect(world.store.prefetchStatistics[.pages].useful == 2)
    }

    @Test func cachedPartsStayAlone() throws {
        let (world, space) = try world(2)
        #expect(read(world, space, "page-0", 2) == .device)
        #expect(!world.isResident("page-0", space))
        #expect(read(world, space, "page-0", 2) == .staging)
        #expect(read(world, space, "page-0", 1) == .device)
        #expect(!world.isResident("page-0", space))
    }

    /// Who holds a lease takes it for a whole image: it is never a part's.
    @Test func leasesAreOfWholeBlocks() throws {
        let (world, space) = try world(1)
        #expect(read(world, space, "page-0", 2) == .device)
        let answer = world.run(.get, "page-0", space) {
            $0.mode = .lease
            $0.firstShard = 2
            $0.shardCount = 1
        }
        #expect(answer.status == .hit && answer.lease >= 0 && answer.tier == .device)
        #expect(world.isResident("page-0", space))
        guard let arena = world.store.staged.arena, answer.lease >= 0 else { return }
        let info = arena.info(ResidentSlot(answer.lease))
        #expect(info.length == UInt32(Self.shards * Self.shardBytes))
        let whole = payload("page-0", length: Self.shards * Self.shardBytes)
        var at = Int(answer.leaseOffset)
        var seen: [UInt8] = []
        for piece in arena.pieces(ResidentSlot(answer.lease)) {
            let from = min(at, Int(piece.length))
            at -= from
            let count = min(Int(piece.length) - from, Self.shardBytes - seen.count)
            let memory = arena.pointer(piece) + from
            seen += UnsafeRawBufferPointer(start: memory, count: count)
        }
        #expect(seen == Array(whole[2 * Self.shardBytes..<3 * Self.shardBytes]))
        world.store.endLease(answer.lease)
    }

    /// Whatever happens to the block, a part of what it was is not read.
    @Test func partsOfWhatWasAreNotServed() throws {
        let (world, space) = try world(3)
        pages(world, space, names(0..<3), layer: 1)
        world.settle()
        put(world, space, "page-0", revision: 1)
        #expect(world.run(.delete, "page-1", space).status == .deleted)
        for mode in [GetMode.direct, .cached, .direct] {
            read(world, space, "page-0", 1, mode: mode, revision: 1)
            #expect(read(world, space, "page-1", 1, mode: mode) == nil)
        }
        put(world, space, "page-1", revision: 2)
        read(world, space, "page-1", 1, revision: 2)
        let token = world.token()
        world.store.staged.purge(token: token, namespaceSlot: space)
        world.settle()
        let again = world.namespace(aligned: true)
        #expect(read(world, again, "page-2", 1) == nil)
    }

    @Test func replacedWhileUnderWay() throws {
        for removes in [true, false] {
            let (world, space) = try world(1)
            read(world, space, "page-0", 0)  // its table is known
            pages(world, space, ["page-0"], layer: 4)
            world.turn()
            #expect(world.store.prefetchStatistics.inFlight == 1)
            if removes {
                #expect(world.run(.delete, "page-0", space).status == .deleted)
                #expect(read(world, space, "page-0", 4) == nil)
            } else {
                put(world, space, "page-0", revision: 1)
                read(world, space, "page-0", 4, mode: .direct, revision: 1)
            }
            world.settle()
            if !removes { read(world, space, "page-0", 4, revision: 1) }
        }
    }

    @Test func demandJoinsAPartUnderWay() throws {
        let (world, space) = try world(1)
        read(world, space, "page-0", 0)
        pages(world, space, ["page-0"], layer: 4)
        world.turn()
        #expect(world.store.prefetchStatistics.inFlight == 1)
        read(world, space, "page-0", 4, mode: .direct)
        let made = world.store.prefetchStatistics
        #expect(made[.pages].useful == 1 && made[.pages].timely == 0)
    }

    @Test func damagedPartsAreMisses() throws {
        var faults = FaultPlan.none
        faults[.bitRot] = 0.3
        let (world, space) = try world(40, faults: faults)
        pages(world, space, names(0..<40), layer: 3)
        world.settle()
        var hits = 0
        for name in names(0..<40) {
            if read(world, space, name, 3) != nil { hits += 1 }
        }
        #expect(hits > 0 && hits < 40)
    }

    @Test func theLayerBeforeForetellsWhatIsOftenPicked() throws {
        let (world, space) = try world(24)
        let picked = names(0..<8)
        for step in 0..<3 {
            for layer in 0..<4 {
                for name in picked { read(world, space, name, layer) }
                progress(world, layer: layer, step: step)
            }
        }
        let before = world.store.prefetchStatistics
        world.emptyStaging(space)
        for name in picked { read(world, space, name, 0) }
        world.settle()
        for name in picked { #expect(read(world, space, name, 1) == .staging) }
        // Never picked in the layers after: not worth it.
        for name in names(8..<24) { read(world, space, name, 0) }
        world.settle()
        let made = world.store.prefetchStatistics
        #expect(made[.layer].timely - before[.layer].timely == 8)
        #expect(made[.layer].issued - before[.layer].issued < 24)
        for name in names(8..<24) { #expect(read(world, space, name, 1) == .device) }
    }

    /// What hints bring in time needs no guesses: they would take the device from the hints.
    @Test func guessesFillWhatHintsLeave() throws {
        var issued: [UInt64] = []
        for isHinted in [false, true] {
            let (world, space) = try world(24)
            for step in 0..<25 {
                world.emptyStaging(space)
                for layer in 0..<Self.shards {
                    let picked = (0..<6).map { "page-\((step * 7 + layer * 3 + $0 * 5) % 24)" }
                    if isHinted {
                        pages(world, space, picked, layer: layer)
                        world.settle()
                    }
                    for name in picked { read(world, space, name, layer) }
                    progress(world, layer: layer, step: step)
                    world.settle()
                }
            }
            issued.append(world.store.prefetchStatistics[.layer].issued)
        }
        #expect(issued[0] > 100, "\(issued)")
        #expect(issued[1] < issued[0] / 2, "\(issued)")
    }

    @Test func whatTheLayerHasPassedIsNotBroughtAnyMore() throws {
        var configuration = Self.configuration()
        configuration.prefetch.operations = 1
        let (world, space) = try world(40, configuration)
        progress(world, layer: 0)
        pages(world, space, names(0..<40), layer: 1)
        world.turn()
        #expect(world.store.prefetchStatistics.waiting > 30)
        progress(world, layer: 1)
        #expect(world.store.prefetchStatistics.waiting > 30)
        progress(world, layer: 2)
        #expect(world.store.prefetchStatistics.waiting == 0)
        #expect(world.store.prefetchStatistics.cancelled > 30)
        world.settle()
        #expect(world.store.prefetchStatistics.unusedBytes <= 2 * Self.shardBytes)
    }

    @Test func unsureHintsAreCounted() throws {
        let (world, space) = try world(3)
        pages(world, space, names(0..<3), layer: 1, confidence: 100)
        world.settle()
        #expect(world.store.prefetchStatistics.unsure == 3)
        #expect(world.store.prefetchStatistics.total.issued == 0)
        pages(world, space, names(0..<3), layer: 1, confidence: 0)  // not told
        world.settle()
        #expect(world.store.prefetchStatistics[.pages].issued == 3)
    }

    @Test func pagesUsedElsewhereTeachToo() throws {
        let (world, space) = try world(8)
        for _ in 0..<3 {
            for layer in 0..<3 {
                pages(world, space, names(0..<8), layer: layer, kind: .touched)
            }
        }
        pages(world, space, names(0..<8), layer: 0, kind: .touched)
        world.settle()
        for name in names(0..<8) { #expect(read(world, space, name, 1) == .staging) }
        #expect(world.store.prefetchStatistics[.layer].timely >= 8)
    }
}
