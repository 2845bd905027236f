// CompactTests: what compaction makes of a store, in every order; what it needs; and that nothing
// is lost, wherever it is cut short.

import BlockIO
import LogStore
import SegmentFormat
import SimulatedDisk
import Testing

@testable import StoreTools

@Suite struct CompactTests {
    private static let length = 20_000

    /// Chains that were written a block at a time in turn, so that none lies together, in a store
    /// of which two thirds of the chains were deleted. What lives, by key.
    private func fragmented(
        mode: StoreMode, chains: Int = 24, depth: Int = 18, segments: Int = 14,
        directories: [String] = ["/store"]
    ) throws -> (world: ToolWorld, keys: [String]) {
        let world = ToolWorld(directories: directories, segments: segments, mode: mode)
        try world.open()
        let space = try world.namespace("model")
        for level in 0..<depth {
            for chain in 0..<chains {
                let key = "c\(chain)-\(level)"
                let answer = try world.put(
                    key, space, payload(key, Self.length),
                    parent: level > 0 ? "c\(chain)-\(level - 1)" : "")
                #expect(answer.status == .stored)
            }
        }
        var keys: [String] = []
        for chain in 0..<chains {
            for level in 0..<depth {
                let key = "c\(chain)-\(level)"
                if chain % 3 == 0 {
                    keys.append(key)
                } else {
                    #expect(try world.remove(key, space) == .deleted)
                }
            }
        }
        world.close()
        return (world, keys)
    }

    private func compact(
        _ world: ToolWorld, _ change: (inout CompactOptions) -> Void = { _ in }
    ) throws -> CompactReport {
        var options = CompactOptions(entropy: (9, 9, 9, 9))
        options.bytesInFlight = 1 << 20
        change(&options)
        return try Compactor.run(
            world.directories, driver: world.newDriver(seed: 3), clock: world.clock,
            options: options)
    }

    private func expectAll(
        _ world: ToolWorld, _ keys: [String], length: Int = CompactTests.length
    ) throws {
        try world.open()
        let space = try world.namespace("model")
        for key in keys {
            let (answer, bytes) = try world.get(key, space, length)
            #expect(answer.status == .hit, "\(key): \(answer.reason)")
            #expect(bytes == payload(key, length), "\(key)")
        }
        #expect(try world.get("c1-0", space, Self.length).0.status == .miss)
        world.close()
    }

    @Test(arguments: CompactionOrder.allCases, [StoreMode.cache, .store])
    func everyOrder(order: CompactionOrder, mode: StoreMode) throws {
        let (world, keys) = try fragmented(mode: mode)
        let report = try compact(world) { $0.order = order }
        #expect(report.isWhole && report.damaged == 0)
        #expect(report.before.blocks == keys.count && report.after.blocks == keys.count)
        #expect(report.before.deadShare > 0.4)
        // What was written to when the store was closed is no exception, nor are the tombstones.
        #expect(report.after.deadShare < 0.02, "\(report.after)")
        #expect(report.after.segments < report.before.segments)
        #expect(report.before.extentsPerChain > 15)
        if order == .chain || order == .heat {
            #expect(report.after.extentsPerChain <= 3, "\(report.after.extentsPerChain)")
        }
        #expect(try world.verify().isClean)
        try expectAll(world, keys)
    }

    /// Blocks that go through a group's buffer and blocks that are written from where they lie.
    @Test func blocksOfAllSizesLieInOrder() throws {
        let world = ToolWorld(segments: 14, mode: .store)
        try world.open()
        let space = try world.namespace("model")
        func length(_ level: Int) -> Int { level % 2 == 0 ? 64 << 10 : 3000 }
        for level in 0..<18 {
            for chain in 0..<12 {
                let key = "c\(chain)-\(level)"
                let answer = try world.put(
                    key, space, payload(key, length(level)),
                    parent: level > 0 ? "c\(chain)-\(level - 1)" : "")
                #expect(answer.status == .stored)
            }
        }
        world.close()
        let report = try compact(world)
        #expect(report.isWhole && report.before.extentsPerChain > 10)
        #expect(report.after.extentsPerChain <= 3, "\(report.after.extentsPerChain)")
        #expect(try world.verify().isClean)
        try world.open()
        for chain in 0..<12 {
            for level in 0..<18 {
                let key = "c\(chain)-\(level)"
                let (answer, bytes) = try world.get(key, space, length(level))
                #expect(answer.status == .hit && bytes == payload(key, length(level)), "\(key)")
            }
        }
        world.close()
    }

    @Test func whatLiesInOrderIsLeftAlone() throws {
        let (world, keys) = try fragmented(mode: .cache)
        _ = try compact(world)
        let again = try compact(world) { $0.utilization = 0.5 }
        #expect(again.moved < keys.count / 4, "\(again.moved) of \(keys.count)")
        try expectAll(world, keys)
    }

    @Test func aDryRunChangesNothing() throws {
        let (world, keys) = try fragmented(mode: .cache)
        let report = try compact(world) { $0.dryRun = true }
        #expect(report.moved == keys.count && report.movedBytes > 0)
        let after = try compact(world) { $0.dryRun = true }
        #expect(after.before.segments == report.before.segments)
        #expect(after.before.extentsPerChain == report.before.extentsPerChain)
        try expectAll(world, keys)
    }

    @Test func aLimitInBytesIsKept() throws {
        let (world, keys) = try fragmented(mode: .cache)
        let report = try compact(world) { $0.maximumBytes = 1 << 20 }
        #expect(!report.isWhole && report.movedBytes <= 1 << 20 && report.moved > 20, "\(report)")
        try expectAll(world, keys)
    }

    @Test func severalMembers() throws {
        let (world, keys) = try fragmented(
            mode: .store, segments: 10, directories: ["/a/store", "/b/store"])
        let report = try compact(world)
        #expect(report.isWhole)
        #expect(report.after.extentsPerChain < report.before.extentsPerChain / 3)
        #expect(try world.verify().isClean)
        try expectAll(world, keys)
    }

    @Test func withoutRoomNothingIsChanged() throws {
        let world = ToolWorld(segments: 9, mode: .store)
        try world.open()
        let space = try world.namespace("model")
        var keys: [String] = []
        for number in 0..<2000 {
            // Two chains in turn, nothing of which is dead.
            let key = "c\(number % 2 * 3)-\(number / 2)"
            let parent = number > 1 ? "c\(number % 2 * 3)-\(number / 2 - 1)" : ""
            // Of a length that leaves nothing to be gained by packing.
            let answer = try world.put(key, space, payload(key, 64 << 10), parent: parent)
            guard answer.status == .stored else { break }
            keys.append(key)
        }
        world.close()
        var refused: StoreError?
        do {
            _ = try compact(world)
        } catch let error as StoreError {
            refused = error
        }
        #expect(refused?.kind == .noSpace)
        #expect(refused?.advice.contains("Nothing was changed") == true)
        try expectAll(world, keys, length: 64 << 10)
    }

    /// Cut short by a crash of the machine at any moment, with any part of what was not flushed
    /// lost: every block stays, and the next run does the rest.
    @Test(arguments: [StoreMode.cache, .store], 0..<3)
    func aCrashLosesNothing(mode: StoreMode, seed: Int) throws {
        let (world, keys) = try fragmented(mode: mode, chains: 12)
        var dice = Dice(state: UInt64(seed) &* 77 &+ 5)
        var crashed: [SimulatedMachine] = []
        var options = CompactOptions(entropy: (9, 9, 9, 9))
        options.bytesInFlight = 100 << 10
        let report = try Compactor.run(
            world.directories, driver: world.newDriver(seed: UInt64(seed)), clock: world.clock,
            options: options
        ) { _, _ in
            guard dice.next(2) == 0 else { return }
            let machine = world.machine.copy()
            machine.crash(keep: .random(seed: UInt64(dice.next(1 << 30))))
            crashed.append(machine)
        }
        #expect(report.isWhole)
        #expect(crashed.count > 5)
        for machine in crashed {
            let world = ToolWorld(segments: 14, mode: mode, machine: machine)
            let report = try compact(world)
            #expect(report.isWhole && report.after.blocks == keys.count)
            #expect(report.after.extentsPerChain <= 3)
            let found = try world.verify().damage
            #expect(found.isEmpty, "\(found.map(\.line))")
            try expectAll(world, keys)
        }
    }
}
