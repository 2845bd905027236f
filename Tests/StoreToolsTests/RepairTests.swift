// Repairing: any single damage, in any structure, is found; afterwards the store verifies and still
// serves everything that was not damaged, and nothing that was deleted or replaced. The same when
// it is cut short, wherever that may be.

import BlockIO
import LogStore
import SegmentFormat
import SimulatedDisk
import Synchronization
import Testing

@testable import StoreTools

/// A store as the test knows it: what lives, by namespace, and which keys do not any more.
struct KnownStore {
    var made: [String: [String: Put]] = [:]
    var deleted: [String] = []
}

/// Stores with a bit of everything on two devices, made once and copied.
private final class RepairFixture: Sendable {
    static let directories = ["/a/store", "/b/store"]
    /// Closed by its owner, and one that was killed some time after its last checkpoint.
    static let closed = RepairFixture(mode: .cache, isClosed: true)
    static let killed = RepairFixture(mode: .store, isClosed: false)

    private let mode: StoreMode
    private let original = UncheckedMachine()
    let known: KnownStore

    private init(mode: StoreMode, isClosed: Bool) {
        self.mode = mode
        let world = ToolWorld(
            directories: Self.directories, segments: 8, mode: mode, machine: original.machine)
        known = (try? world.fillForRepair(closes: isClosed)) ?? KnownStore()
    }

    func world() -> ToolWorld { world(original.copy()) }

    func world(_ machine: SimulatedMachine) -> ToolWorld {
        ToolWorld(directories: Self.directories, segments: 8, mode: mode, machine: machine)
    }
}

/// A machine that is only copied from here on.
private final class UncheckedMachine: @unchecked Sendable {
    // Unchecked: once filled, copying is all that several threads do, and the lock orders it.
    let machine = SimulatedMachine()
    private let lock = Mutex(())
    func copy() -> SimulatedMachine { lock.withLock { _ in machine.copy() } }
}

extension ToolWorld {
    fileprivate func fillForRepair(closes: Bool) throws -> KnownStore {
        var known = KnownStore()
        let blocks = 150
        known.made = try fill(blocks: blocks, closes: false)
        let timed = try namespace("timed", timeToLive: 3600)
        let packed = try namespace("packed")
        known.made["timed"] = [:]
        store?.checkpoint(token: 1 << 42)
        settle()
        for number in 0..<blocks where number % 7 == 0 && number % 3 != 2 {
            known.deleted.append("block-\(number)")
        }
        for number in 0..<24 {
            let key = "timed-\(number)"
            let value = payload(key, 3000 + 977 * number)
            let answer = try put(
                key, timed, value, parent: number > 0 ? "timed-\(number - 1)" : "")
            known.made["timed"]?[key] = Put(
                key: key, value: value, shards: [UInt32(value.count)], version: answer.version)
        }
        for number in [3, 10, 15] {
            let key = "block-\(number)"
            guard known.made["packed"]?[key] != nil else { continue }
            #expect(try remove(key, packed) == .deleted)
            known.made["packed"]?[key] = nil
            known.deleted.append(key)
        }
        if closes {
            close()
        } else {
            crash(.all)
        }
        return known
    }

    func repair(clock: (any Clock)? = nil) throws -> RepairReport {
        var options = RepairOptions(entropy: (9, 9, 9, 9))
        options.verify.threads = 0
        options.verify.stretchBytes = 256 << 10
        options.bytesInFlight = 1 << 20
        return try Repairer.run(
            directories, driver: newDriver(seed: 31), clock: clock ?? self.clock, options: options)
    }

    /// Every block is served with its bytes, but for those that may be gone; nothing else is.
    func expectServed(_ known: KnownStore, mayMiss: Set<String> = [], _ what: String) throws {
        try open()
        for (name, blocks) in known.made {
            let space = try namespace(
                name, aligned: name == "aligned", timeToLive: name == "timed" ? 3600 : 0)
            for (key, block) in blocks {
                let (answer, bytes) = try get(key, space, block.value.count)
                if answer.status == .hit {
                    #expect(bytes == block.value, "\(what): wrong bytes under \(key)")
                } else if !mayMiss.contains(key) {
                    Issue.record("\(what): \(key) is gone: \(answer.reason)")
                }
            }
            for key in known.deleted where name == "packed" {
                let answer = try get(key, space, 64 << 10).0
                #expect(answer.status == .miss, "\(what): \(key) was deleted")
            }
        }
        close()
    }
}

@Suite struct RepairTests {
    /// One bit of each structure, round by round, each in a store of its own.
    private func plant(_ fixture: RepairFixture, rounds: Int, seed: UInt64) throws -> Int {
        let map = try SiteMap(fixture.world())
        var dice = Dice(state: seed)
        var planted = 0
        for _ in 0..<rounds {
            for structure in map.structures {
                let site = try map.site(structure, &dice)
                let bit = dice.next(8)
                let what =
                    "seed \(seed), \(structure) in \(site.path) at \(site.offset), bit \(bit)"
                let world = fixture.world()
                #expect(
                    world.machine.flipBit(site.directory, site.file, offset: site.offset, bit: bit))
                let report = try world.repair()
                #expect(report.before.damage.contains { site.isTold(by: $0) }, "\(what)")
                #expect(report.after.isClean, "\(what): \(report.after.findings.map(\.line))")
                #expect(report.rounds > 0 && !report.isFull, "\(what)")
                expectLost(report, site, what)
                #expect(try world.verify().isClean, "\(what)")
                try world.expectServed(fixture.known, mayMiss: mayMiss(site), what)
                planted += 1
            }
        }
        return planted
    }

    private func mayMiss(_ site: Site) -> Set<String> {
        switch site.structure {
        case .value, .shard, .shardTable: Set(site.keys)
        // A footer tells the same once more.
        case .descriptor: site.isSealed ? [] : Set(site.keys)
        default: []
        }
    }

    /// What is said to be lost is what was damaged, and nothing else.
    private func expectLost(_ report: RepairReport, _ site: Site, _ what: String) {
        let keys = report.lost.compactMap(\.key).map { String(decoding: $0, as: UTF8.self) }
        switch site.structure {
        case .value, .shard, .shardTable:
            #expect(keys == site.keys && report.lost.count == 1, "\(what): \(report.lost)")
        case .descriptor where !site.isSealed:
            #expect(Set(keys).isSubset(of: site.keys), "\(what): \(report.lost)")
            #expect(report.lost.count <= site.keys.count, "\(what): \(report.lost)")
        default:
            #expect(report.lost.isEmpty, "\(what): \(report.lost)")
        }
    }

    @Test(arguments: 0..<4)
    func aHundredDamages(seed: Int) throws {
        #expect(try plant(.closed, rounds: 3, seed: UInt64(seed) &* 31 &+ 7) >= 25)
    }

    @Test(arguments: 0..<2)
    func damagesAfterAKill(seed: Int) throws {
        #expect(try plant(.killed, rounds: 2, seed: UInt64(seed) &* 17 &+ 5) >= 14)
    }

    @Test func pagesThatCannotBeRead() throws {
        let fixture = RepairFixture.closed
        let map = try SiteMap(fixture.world())
        var dice = Dice(state: 21)
        for structure in map.structures {
            let site = try map.site(structure, &dice)
            let world = fixture.world()
            world.machine.breakPages(site.directory, site.file, offset: site.offset, length: 1)
            let what = "\(structure) in \(site.path) at \(site.offset)"
            let report = try world.repair()
            #expect(report.after.isClean, "\(what): \(report.after.findings.map(\.line))")
            // A page may hold the last bytes of one value only, but several structures of a block.
            try world.expectServed(fixture.known, mayMiss: mayMiss(site), what)
        }
    }

    /// Nothing is damaged: not a byte is written, whatever the store's state.
    @Test(arguments: [true, false])
    func aCleanStoreStaysAsItIs(isClosed: Bool) throws {
        let world = (isClosed ? RepairFixture.closed : .killed).world()
        func contents() -> [String: [UInt8]] {
            var all: [String: [UInt8]] = [:]
            for directory in world.directories {
                for name in world.machine.fileNames(directory) where name != StoreFiles.lock {
                    let size = world.machine.fileSize(directory, name) ?? 0
                    all[directory + "/" + name] = world.machine.contents(
                        directory, name, offset: 0, length: size)
                }
            }
            return all
        }
        let before = contents()
        let report = try world.repair()
        #expect(report.rounds == 0 && report.isWhole && report.lost.isEmpty)
        #expect(report.before.findings == report.after.findings)
        #expect(contents() == before)
    }

    /// Several damages at once, of each kind one.
    @Test func everythingAtOnce() throws {
        let fixture = RepairFixture.closed
        let map = try SiteMap(fixture.world())
        for seed in 0..<3 {
            var dice = Dice(state: UInt64(seed) &+ 900)
            let world = fixture.world()
            var mayMiss: Set<String> = []
            var header = ""
            for structure in map.structures {
                // Both headers of one segment are another matter.
                let site = try map.site(structure, &dice) {
                    structure != .trailer || $0.path != header
                }
                if structure == .header { header = site.path }
                world.machine.flipBit(site.directory, site.file, offset: site.offset, bit: 3)
                mayMiss.formUnion(site.keys)
            }
            let report = try world.repair()
            #expect(report.after.isClean, "\(seed): \(report.after.findings.map(\.line))")
            try world.expectServed(fixture.known, mayMiss: mayMiss, "seed \(seed)")
        }
    }

    // MARK: What only the checkpoint knows

    /// The page that told of a block is lost, and there is no footer yet: its key stands in the
    /// record of the next block of its chain.
    @Test(arguments: [true, false])
    func aKeyIsFoundInTheNextBlock(hasNext: Bool) throws {
        let fixture = RepairFixture.closed
        let world = fixture.world()
        let key = hasNext ? "timed-5" : "timed-23"
        let map = try SiteMap(world)
        let site = try #require(
            map.ranges.map(\.site).first { $0.structure == .descriptor && $0.keys == [key] })
        #expect(!site.isSealed)
        world.machine.flipBit(site.directory, site.file, offset: site.offset + 70, bit: 4)
        let report = try world.repair()
        #expect(report.after.isClean && report.moved > 0)
        #expect(report.lost.count == (hasNext ? 0 : 1) && report.lost.allSatisfy { $0.key == nil })
        try world.expectServed(fixture.known, mayMiss: hasNext ? [] : [key], key)
    }

    /// Nothing of a segment can be read, or it is gone: what the checkpoint knows of it is told.
    @Test(arguments: [true, false])
    func aSegmentThatIsLost(isThere: Bool) throws {
        let fixture = RepairFixture.closed
        let world = fixture.world()
        let map = try SiteMap(world)
        var dice = Dice(state: 3)
        let chosen = try map.site(.value, &dice)
        let inside = map.ranges.map(\.site).filter { $0.path == chosen.path }
        if isThere {
            for site in inside where [.header, .trailer].contains(site.structure) {
                world.machine.flipBit(site.directory, site.file, offset: site.offset + 9, bit: 6)
            }
        } else {
            let driver = world.newDriver()
            let directory = try driver.openDirectory(chosen.directory, create: false)
            try driver.remove(directory, chosen.file)
            driver.close(directory)
        }
        let keys = Set(
            inside.filter { [.value, .shardTable].contains($0.structure) }.flatMap(\.keys))
        let report = try world.repair()
        #expect(report.after.isClean, "\(report.after.findings.map(\.line))")
        #expect(report.lost.count == keys.count && report.moved == 0)
        let told = report.lost.compactMap(\.key).map { String(decoding: $0, as: UTF8.self) }
        #expect(Set(told).isSubset(of: keys))
        try world.expectServed(fixture.known, mayMiss: keys, chosen.path)
    }

    /// A store that refuses puts for want of room still has some to empty a segment into.
    @Test func aFullStore() throws {
        let world = ToolWorld(segments: 9, mode: .store)
        try world.open()
        let space = try world.namespace("packed")
        var known = KnownStore(made: ["packed": [:]])
        for number in 0..<2000 {
            let key = "full-\(number)"
            let value = payload(key, 64 << 10)
            let answer = try world.put(key, space, value)
            guard answer.status == .stored else { break }
            known.made["packed"]?[key] = Put(
                key: key, value: value, shards: [UInt32(value.count)], version: answer.version)
        }
        world.close()
        #expect(known.made["packed"]?.count ?? 0 > 200)
        var dice = Dice(state: 8)
        for _ in 0..<3 {
            let copy = ToolWorld(segments: 9, mode: .store, machine: world.machine.copy())
            let site = try SiteMap(copy).site(.header, &dice) { $0.isSealed }
            copy.machine.flipBit(site.directory, site.file, offset: site.offset, bit: 5)
            let report = try copy.repair()
            #expect(report.after.isClean && report.lost.isEmpty, "\(report.text())")
            try copy.expectServed(known, site.path)
        }
    }

    // MARK: Tombstones

    /// A page of tombstones is lost, and the store repaired: each has two copies again. So the
    /// other page of before, and both checkpoints, can be lost too, and nothing comes back.
    @Test(arguments: [StreamKind.recordsA, .recordsB], [true, false])
    func tombstonesHaveTwoCopiesAgain(stream: StreamKind, isClosed: Bool) throws {
        let fixture = isClosed ? RepairFixture.closed : .killed
        let world = fixture.world()
        let map = try SiteMap(world)
        func damage(_ stream: StreamKind) {
            for (site, _) in map.ranges
            where site.structure == .descriptor && site.stream == stream && !site.isSealed {
                world.machine.flipBit(
                    site.directory, site.file, offset: site.offset + 99, bit: 1)
            }
        }
        damage(stream)
        let report = try world.repair()
        #expect(report.after.isClean && report.lost.isEmpty && report.guarded > 0)
        damage(stream == .recordsA ? .recordsB : .recordsA)
        for directory in world.directories {
            for number in 0..<2 {
                world.machine.flipBit(directory, StoreFiles.checkpoint(number), offset: 20, bit: 1)
            }
        }
        try world.expectServed(fixture.known, "\(stream)")
    }

    // MARK: Cut short

    /// A crash of the machine at any moment, with any part of what was not flushed lost: the store
    /// opens and serves what was not damaged, and the next run does the rest.
    @Test(arguments: 0..<6)
    func aCrashLosesNothing(seed: Int) throws {
        let fixture = seed % 2 == 0 ? RepairFixture.closed : .killed
        let map = try SiteMap(fixture.world())
        var dice = Dice(state: UInt64(seed) &* 77 &+ 5)
        let world = fixture.world()
        var mayMiss: Set<String> = []
        let sites = [
            try map.site(.header, &dice) { $0.stream == .fresh },
            try map.site(.value, &dice) { _ in true },
            try map.site(.descriptor, &dice) { $0.stream == .recordsA || $0.stream == .recordsB },
            try map.site(.manifest, &dice) { _ in true },
            try map.site(.checkpoint, &dice) { _ in true },
        ]
        for site in sites {
            world.machine.flipBit(site.directory, site.file, offset: site.offset, bit: 2)
            mayMiss.formUnion(self.mayMiss(site))
        }
        // Moments at which something is not flushed yet; the second run is the first once more.
        var moments = 0
        let first = fixture.world(world.machine.copy())
        let counting = WatchedClock(first.clock) {
            if first.machine.unflushedCount > 0 { moments += 1 }
        }
        let uncut = try first.repair(clock: counting)
        #expect(uncut.after.isClean)
        let every = max(1, moments / 12)
        var crashed: [SimulatedMachine] = []
        var moment = 0
        let clock = WatchedClock(world.clock) {
            guard world.machine.unflushedCount > 0 else { return }
            moment += 1
            guard moment % every == 0 else { return }
            let machine = world.machine.copy()
            machine.crash(keep: .random(seed: UInt64(dice.next(1 << 30))))
            crashed.append(machine)
        }
        let cut = try world.repair(clock: clock)
        #expect(cut.after.isClean)
        try world.expectServed(fixture.known, mayMiss: mayMiss, "seed \(seed), not crashed")
        #expect(crashed.count > 8, "\(crashed.count)")
        for (number, machine) in crashed.enumerated() {
            let what = "seed \(seed), crash \(number)"
            try fixture.world(machine.copy()).expectServed(
                fixture.known, mayMiss: mayMiss, what + ", opened")
            let again = fixture.world(machine)
            let report = try again.repair()
            #expect(report.after.isClean, "\(what): \(report.after.findings.map(\.line))")
            try again.expectServed(fixture.known, mayMiss: mayMiss, what + ", repaired")
        }
    }

    // MARK: Headers that a crash cut short

    /// Of a life's two headers one was never written: that is a note, and an opening begins the
    /// segment anew before it writes there. What is not blank is damage.
    @Test(arguments: [true, false])
    func aHeaderThatWasNeverWritten(isFirst: Bool) throws {
        let world = ToolWorld()
        try world.fill(blocks: 20)
        let (id, pages) = try world.closed { store in
            let info = try #require(
                try Catalog(store).segments.last { $0.state == .clean && $0.generation != 0 })
            return (info.id, store.segmentPages)
        }
        let offset = isFirst ? 0 : ClosedStore.offset(page: pages - 1)
        try world.closed { store in
            let file = try store.file(id)
            #expect(store.io.blank(file, offset: offset, length: 4096) == 0)
        }
        let report = try world.verify()
        #expect(report.isClean && report.notes.count == 1, "\(report.findings.map(\.line))")
        let copy = ToolWorld(machine: world.machine.copy())
        copy.machine.flipBit(
            "/store", StoreFiles.segment(SegmentTable.local(id)), offset: Int(offset) + 77, bit: 0)
        let rotten = try copy.verify()
        #expect(!rotten.isClean)
        // Written through once, so that the segment has its turn, looked at in between: what is
        // written there has both headers.
        for round in 0..<12 {
            try world.open()
            let space = try world.namespace("packed")
            for number in 0..<50 {
                let key = "more-\(round)-\(number)"
                try world.put(key, space, payload(key, 60_000))
            }
            world.close()
            let meanwhile = try world.verify()
            #expect(meanwhile.isClean, "\(round): \(meanwhile.findings.map(\.line))")
        }
        let after = try world.verify()
        #expect(after.findings.isEmpty, "\(after.findings.map(\.line))")
    }
}

/// The world's clock, which tells somebody whenever it is asked.
private final class WatchedClock: Clock {
    private let clock: SimulatedClock
    private let asked: () -> Void

    init(_ clock: SimulatedClock, asked: @escaping () -> Void) {
        self.clock = clock
        self.asked = asked
    }

    var monotonic: UInt64 {
        asked()
        return clock.monotonic
    }
    var wallSeconds: UInt32 { clock.wallSeconds }
}
