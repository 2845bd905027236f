// WearBudget: simulated days of demand that comes and goes, at whose end what was written is the
// budget; and the same through a store, whose own bytes count and whose account outlives it.

import LogStore
import SimulatedDisk
import Staging
import Testing

@testable import Tiering

/// A store that writes a share of what it is asked for, some seconds later, at an amplification
/// that the budget does not know.
private struct Day {
    var budget: WearBudget
    var now: UInt32 = 1_000_000
    var written: UInt64 = 0
    var admitted: UInt64 = 0
    private var waiting = [UInt64](repeating: 0, count: 8)
    private var state: UInt64 = 0x9E37_79B9_7F4A_7C15

    init(_ bytesPerDay: UInt64) {
        budget = WearBudget(bytesPerDay: bytesPerDay, balance: 0, balanceSeconds: 999_999, now: now)
    }

    /// Blocks of 1 MB, `perSecond` of them on average.
    mutating func second(_ perSecond: Double, amplification: Double) {
        now += 1
        var blocks = Int(perSecond)
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        if Double(state >> 40) / Double(1 << 24) < perSecond - Double(blocks) { blocks += 1 }
        var through: UInt64 = 0
        for _ in 0..<blocks {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            budget.asked(1_000_000)
            if UInt32(truncatingIfNeeded: (state ^ state >> 31) >> 48) < budget.share {
                through += 1_000_000
            }
        }
        admitted += through
        waiting.append(through)
        written += UInt64(Double(waiting.removeFirst()) * amplification)
        budget.observe(written: written, admitted: admitted, now: now)
    }
}

@Suite struct WearBudgetTests {
    /// Demand in blocks a second, by second of the day; 1 MB a block, and 86.4 GB a day are 1.
    static let days: [(name: String, demand: @Sendable (Int) -> Double)] = [
        ("steady", { _ in 5 }),
        ("little more than may", { _ in 1.02 }),
        ("a quiet night", { $0 < 30_000 ? 0.1 : 4 }),
        ("bursts", { $0 % 3600 >= 3360 ? 40 : 0.2 }),
        ("two peaks", { second in second / 21_600 % 2 == 0 ? 0.3 : 3 }),
    ]

    @Test(arguments: 0..<5) func aDaysWritesAreTheBudget(_ which: Int) {
        for amplification in [1.0, 1.15, 2.5] {
            var day = Day(86_400_000_000)
            for second in 0..<86_400 {
                day.second(Self.days[which].demand(second), amplification: amplification)
            }
            let share = Double(day.written) / 86_400_000_000
            #expect(
                share > 0.98 && share < 1.02,
                "\(Self.days[which].name) at \(amplification): \(share)")
        }
    }

    @Test func withLittleToWriteAllIsWritten() {
        var day = Day(86_400_000_000)
        for second in 0..<86_400 {
            day.second(second % 7200 < 3600 ? 0.9 : 0.05, amplification: 1.05)
            #expect(day.budget.share == 1 << 16)
        }
        // And what is left is for the next day, a day's worth at most.
        for _ in 0..<3 * 86_400 { day.second(0, amplification: 1) }
        #expect(day.budget.balance == 86_400_000_000)
        let before = day.written
        for _ in 0..<86_400 { day.second(5, amplification: 1.1) }
        let share = Double(day.written - before) / 86_400_000_000
        #expect(share > 1.96 && share < 2.04, "\(share)")
    }

    @Test func anAccountThatIsOverdrawnStaysSoOverARestart() {
        let kept = WearBudget(
            bytesPerDay: 86_400, balance: -8640, balanceSeconds: 1000, now: 1000)
        #expect(kept.balance == -8640)
        var later = WearBudget(
            bytesPerDay: 86_400, balance: -8640, balanceSeconds: 1000, now: 5000)
        later.observe(written: 0, admitted: 0, now: 5001)
        #expect(later.balance == -8640 + 4001)
        #expect(later.share == 0)
        // A clock behind the account, and nonsense, are taken for now and for a day at most.
        let odd = WearBudget(bytesPerDay: 86_400, balance: .max, balanceSeconds: 9000, now: 5000)
        #expect(odd.balance == 86_400 && odd.seconds == 5000)
        let new = WearBudget(bytesPerDay: 86_400, balance: 0, balanceSeconds: 0, now: 5000)
        #expect(new.balance == 0)
    }

    @Test func keysHashAlikeEverywhere() {
        let key = Array("a key of 32 bytes, more or less!".utf8)
        let hash = key.withUnsafeBytes { keyHash($0) }
        #expect(hash == key.withUnsafeBytes { keyHash($0) })
        var seen: [UInt64: Int] = [:]
        for number in 0..<4096 {
            let hash = Array("key \(number)".utf8).withUnsafeBytes { keyHash($0) }
            seen[hash >> 60, default: 0] += 1
        }
        #expect(seen.count == 16 && seen.values.allSatisfy { (180...340).contains($0) })
    }

    // MARK: Through a store

    private static let block = 20_000

    private func volatilePut(_ world: TieredWorld, _ key: String, _ space: UInt16) -> StoreAnswer {
        var value = payload(key, length: Self.block)
        return value.withUnsafeMutableBytes {
            world.run(.put, key, space, bytes: $0) { $0.durability = .volatile }
        }
    }

    /// A day of a new store: a quiet night, then three times what may be written; closed and opened
    /// again at noon. A bug in the account, or in what it takes for written, shows here.
    @Test func aStoresDayKeepsToIt() throws {
        var configuration = TieredWorld.configuration(staging: 1 << 20, segments: 24)
        configuration.writeBudget = 240_000_000
        let machine = SimulatedMachine()
        var world = try TieredWorld(configuration, machine: machine)
        var space = world.namespace()
        var (written, asked, unwritten) = (UInt64(0), 0, UInt64(0))
        func count(since begun: UInt64) {
            written += world.store.staged.log.statistics.writtenBytes - begun
            unwritten += world.store.staged.statistics.unwrittenPuts
        }
        let begun = world.store.staged.log.statistics.writtenBytes
        #expect(world.store.wear?.balance ?? 1 <= 0, "a new account begins empty")
        for step in 0..<21_600 {  // of four seconds
            if step == 10_800 {
                world.close()
                count(since: begun)
                let time = world.clock.monotonic
                world = try TieredWorld(configuration, machine: machine, at: time)
                space = world.namespace()
            }
            if step >= 7200 ? step % 8 < 5 : step % 32 == 0 {
                for part in 0..<2 {
                    let answer = volatilePut(world, "k\(step).\(part)", space)
                    #expect(answer.status == .stored)
                    asked += Self.block
                }
            }
            world.pass(4_000_000_000)
        }
        count(since: 0)
        let share = Double(written) / 240_000_000
        #expect(share > 0.98 && share < 1.02, "\(share) of the budget, \(asked) bytes asked for")
        #expect(asked > 350_000_000 && unwritten > 5000)
        // What was not admitted is not written whatever class it asks for.
        let value = payload("w", length: Self.block)
        var refused = 0
        for number in 0..<50 where world.put("w\(number)", space, value).status == .notAdmitted {
            refused += 1
        }
        #expect(refused > 25 && world.store.staged.statistics.notAdmitted == UInt64(refused))
        #expect(world.put("w0", space, value, replace: true).status == .stored)
    }

    @Test func whatIsPutAgainIsWritten() throws {
        var configuration = TieredWorld.configuration(staging: 1 << 20)
        configuration.writeMoment = .secondTouch
        let world = try TieredWorld(configuration)
        let space = world.namespace()
        #expect(volatilePut(world, "a", space).status == .stored)
        world.settle()
        #expect(world.store.staged.log.index.count == 0)
        #expect(volatilePut(world, "a", space).status == .stored)
        world.settle()
        #expect(world.store.staged.log.index.count == 1)
        #expect(volatilePut(world, "a", space).status == .alreadyPresent)
    }

    /// Only volatile puts wait in memory for being put once more.
    @Test func whatAsksForTheDeviceIsWrittenAtOnce() throws {
        var configuration = TieredWorld.configuration(staging: 1 << 20)
        configuration.writeMoment = .secondTouch
        let world = try TieredWorld(configuration)
        let space = world.namespace()
        #expect(world.put("a", space, payload("a", length: Self.block)).status == .stored)
        world.settle()
        #expect(world.store.staged.log.index.count == 1)
        #expect(world.store.staged.statistics.notAdmitted == 0)
    }
}
