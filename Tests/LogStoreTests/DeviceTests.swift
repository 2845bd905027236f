// Devices that fill up, go away, come back stale or never, and real file systems with the same.

import BlockIO
import Glibc
import LogStore
import SimulatedDisk
import Staging
import Testing

@Suite struct DeviceTests {
    private static let pair = ["/a", "/b"]

    private func twoDevices(
        mode: StoreMode = .cache, segments: Int = 12
    ) throws -> (World, UInt16) {
        let world = try World(
            World.configuration(
                directories: Self.pair, segments: segments, mode: mode, staging: 0))
        return (world, world.namespace())
    }

    /// Keys whose block lies on a device.
    private func keys(_ world: World, _ space: UInt16, on device: Int, of count: Int) -> [Int] {
        (0..<count).filter { number in
            world.entry("key-\(number)", space).map {
                SegmentTable.device($0.place.segment) == device
            } ?? false
        }
    }

    private func fill(_ world: World, _ space: UInt16, count: Int, from first: Int = 0) {
        for number in first..<(first + count) {
            let status = world.put(
                "key-\(number)", space, revision: 0, length: 40_000)
            #expect(status == .stored)
        }
    }

    // MARK: Gone and back

    /// One of two devices goes while the store runs. What was on it is a miss that says so; it is
    /// deleted, replaced and put anew there and then; and when the device comes back as it was, no
    /// deleted key and no older version comes with it.
    @Test(arguments: [0, 1], [false, true])
    func aDeviceThatVanishesReturnsStale(lost: Int, checkpoint: Bool) throws {
        let (world, space) = try twoDevices()
        fill(world, space, count: 600)
        world.flush()
        if checkpoint { world.checkpoint() }
        let mine = keys(world, space, on: lost, of: 600)
        try #require(mine.count > 100)
        let directory = Self.pair[lost]
        let snapshot = world.machine.snapshot(directory)
        world.machine.detach(directory)
        // Reads find out: errors first, then the device is out.
        var reasons: [MissReason: Int] = [:]
        for number in mine {
            if let reason = world.missed("key-\(number)", space, revision: 0, length: 40_000) {
                reasons[reason, default: 0] += 1
            }
        }
        #expect(reasons[.deviceOut, default: 0] > 0, "\(reasons)")
        #expect(reasons.keys.allSatisfy { $0 == .deviceOut || $0 == .failedCheck })
        let still = keys(world, space, on: lost, of: 600)
        try #require(still.count > 30)
        let deleted = Array(still.prefix(10))
        let replaced = Array(still.dropFirst(10).prefix(10))
        let renewed = Array(still.dropFirst(20).prefix(10))
        for number in deleted { #expect(world.remove("key-\(number)", space) == .deleted) }
        for number in replaced {
            let status = world.put(
                "key-\(number)", space, revision: 1, length: 41_000, replace: true)
            #expect(status == .stored)
        }
        for number in renewed {
            // A put of a key whose copy is out of reach is no "already present".
            let status = world.put("key-\(number)", space, revision: 2, length: 30_000)
            #expect(status == .stored)
        }
        fill(world, space, count: 150, from: 1000)
        world.checkAccounts()
        world.flush()
        if checkpoint { world.checkpoint() }
        world.kill()
        world.machine.restore(directory, snapshot)
        try world.open()
        for number in deleted {
            let answer = world.get("key-\(number)", space, length: 41_000).0
            #expect(answer.status == .miss, "deleted key-\(number) came back: \(answer)")
        }
        for number in replaced {
            let reason = world.missed("key-\(number)", space, revision: 1, length: 41_000)
            #expect(reason == nil, "key-\(number)")
        }
        for number in renewed {
            let reason = world.missed("key-\(number)", space, revision: 2, length: 30_000)
            #expect(reason == nil, "key-\(number)")
        }
        // What was neither is there again, or a miss; never wrong.
        for number in still.dropFirst(30) {
            _ = world.missed("key-\(number)", space, revision: 0, length: 40_000)
        }
        world.checkAccounts()
        world.close()
        try world.open()
        for number in deleted {
            #expect(world.get("key-\(number)", space, length: 41_000).0.status == .miss)
        }
        world.checkAccounts()
    }

    /// Absent at open, the store runs without it: its blocks are misses, deletes are kept for it,
    /// and a store in store mode has the rest of it back when it returns.
    @Test(arguments: [StoreMode.cache, .store])
    func aMemberAbsentAtOpen(mode: StoreMode) throws {
        let (world, space) = try twoDevices(mode: mode)
        fill(world, space, count: 400)
        world.flush()
        let mine = keys(world, space, on: 1, of: 400)
        let others = keys(world, space, on: 0, of: 400)
        try #require(mine.count > 100 && others.count > 100)
        world.close()
        world.machine.detach("/b")
        let refused = world.openingError { $0.log.allowAbsent = false }
        #expect(refused?.kind == .missing, "\(String(describing: refused))")
        #expect(world.openingError { $0.log.openMode = .strict }?.kind == .missing)
        try world.open()
        #expect(world.store.log.statistics.damage.absentDevices == 1)
        for number in mine {
            let reason = world.missed("key-\(number)", space, revision: 0, length: 40_000)
            #expect(reason == .deviceOut || reason == .neverPut)
        }
        for number in others {
            #expect(world.missed("key-\(number)", space, revision: 0, length: 40_000) == nil)
        }
        let deleted = Array(mine.prefix(20))
        for number in deleted {
            let status = world.remove("key-\(number)", space)
            #expect(status == .deleted || status == .notFound)
        }
        let anew = Array(mine.dropFirst(20).prefix(20))
        for number in anew {
            #expect(world.put("key-\(number)", space, revision: 3, length: 9000) == .stored)
        }
        world.checkAccounts()
        if mode == .cache {
            // Enough to evict what was put anew: its older version must not be what is left.
            fill(world, space, count: 1200, from: 2000)
        }
        world.checkAccounts()
        world.close()
        world.machine.attach("/b")
        try world.open()
        #expect(world.store.log.statistics.damage.staleDevices == 1)
        for number in deleted {
            let answer = world.get("key-\(number)", space, length: 40_000).0
            #expect(answer.status == .miss, "key-\(number) came back")
        }
        for number in anew {
            let (answer, bytes) = world.get("key-\(number)", space, length: 40_000)
            if answer.status == .hit {
                let right = payload("key-\(number)", revision: 3, length: 9000)
                #expect(Array(bytes.prefix(9000)) == right && answer.length == 9000)
            } else {
                #expect(mode == .cache, "a store does not evict")
            }
        }
        if mode == .store {
            for number in mine.dropFirst(40) {
                #expect(world.missed("key-\(number)", space, revision: 0, length: 40_000) == nil)
            }
        }
        world.checkAccounts()
        #expect(world.put("end", space, revision: 0, length: 100) == .stored)
        world.close()
        try world.open()
        #expect(world.missed("end", space, revision: 0, length: 100) == nil)
        world.checkAccounts()
    }

    /// Struck from the membership, a member that returns is discarded whole.
    @Test func aStruckMemberStartsEmpty() throws {
        let (world, space) = try twoDevices(mode: .store)
        fill(world, space, count: 300)
        world.flush()
        let mine = keys(world, space, on: 1, of: 300)
        let others = keys(world, space, on: 0, of: 300)
        let present = world.control { world.store.strike(token: $0, device: 1) }
        #expect(present.status == .notFound, "only a member that is away")
        world.close()
        world.machine.detach("/b")
        try world.open()
        #expect(world.control { world.store.strike(token: $0, device: 1) }.status == .done)
        world.checkAccounts()
        world.close()
        try world.open()
        #expect(world.store.log.statistics.damage.absentDevices == 0, "nobody is missed any more")
        world.checkAccounts()
        world.close()
        world.machine.attach("/b")
        try world.open()
        for number in mine {
            #expect(world.missed("key-\(number)", space, revision: 0, length: 40_000) == .neverPut)
        }
        for number in others {
            #expect(world.missed("key-\(number)", space, revision: 0, length: 40_000) == nil)
        }
        fill(world, space, count: 500, from: 1000)
        #expect(keys(world, space, on: 1, of: 1500).count > 20, "it is written to again")
        world.checkAccounts()
    }

    // MARK: A disk that fills up

    @Test(arguments: [StoreMode.cache, .store])
    func aDiskThatFillsUp(mode: StoreMode) throws {
        let world = try World(World.configuration(segments: 20, mode: mode, staging: 0))
        let space = world.namespace()
        // Room for about nine of the twenty segments.
        let segment = UInt64(world.configuration.log.segmentBytes)
        world.machine.setCapacity("/store", bytes: 9 * segment + (4 << 20))
        var stored = 0
        var refused = 0
        for number in 0..<900 {
            switch world.put("key-\(number)", space, revision: 0, length: 40_000) {
            case .stored: stored += 1
            case .noSpace: refused += 1
            case let other: Issue.record("\(other)")
            }
        }
        let statistics = world.store.log.statistics
        #expect(statistics.allocationFailures > 0)
        #expect(statistics.shrunkSegments > 5, "\(statistics.shrunkSegments)")
        if mode == .cache {
            #expect(refused == 0 && statistics.evictedBlocks > 100)
        } else {
            #expect(refused > 100 && stored > 200)
        }
        world.checkAccounts()
        #expect(world.store.log.space.reserve > 0)
        // Reads go on, deletes too.
        var hits = 0
        for number in 0..<900
        where world.missed("key-\(number)", space, revision: 0, length: 40_000) == nil {
            hits += 1
        }
        #expect(hits > 100)
        let there = try #require((0..<900).first { world.entry("key-\($0)", space) != nil })
        #expect(world.remove("key-\(there)", space) == .deleted)
        world.close()
        try world.open()
        #expect(world.entry("key-\(there)", space) == nil)
        let again = world.put("again", space, revision: 0, length: 1000)
        #expect(again == .stored || (mode == .store && again == .noSpace))
        world.checkAccounts()
        // With room again, the store grows.
        world.close()
        world.machine.setCapacity("/store", bytes: 1 << 40)
        try world.open()
        for number in 2000..<2300 {
            #expect(world.put("key-\(number)", space, revision: 0, length: 40_000) == .stored)
        }
        #expect(world.missed("key-2299", space, revision: 0, length: 40_000) == nil)
        world.checkAccounts()
    }

    /// No room for as much as a manifest is said at open.
    @Test func aFullDiskAtCreation() throws {
        let machine = SimulatedMachine()
        machine.setCapacity("/store", bytes: 64 << 10)
        do throws(StoreError) {
            let world = try StagedStore.open(
                World.configuration(),
                driver: SimulatedDriver(
                    machine: machine, regions: RegionTable(), clock: SimulatedClock(), seed: 1),
                clock: SimulatedClock())
            Issue.record("opened: \(world.isIdle)")
        } catch {
            #expect(error.kind == .noSpace, "\(error)")
        }
    }

    // MARK: Real file systems

    @Test(arguments: [DriverChoice.automatic, .threads])
    func aTruncatedSegmentOnRealFiles(choice: DriverChoice) throws {
        let directory = makeTemporaryDirectory()
        defer { removeDirectory(directory) }
        let world = try HostWorld(directory, choice)
        let space = world.namespace()
        for number in 0..<250 {
            #expect(world.put("key-\(number)", space, revision: 0, length: 40_000) == .stored)
        }
        var segment: UInt32?
        world.store.log.segments.forEach { id in
            let state = world.store.log.segments[id]
            if segment == nil, state.state == .sealed, state.liveBlocks > 20 { segment = id }
        }
        let victim = try #require(segment)
        let half = Int(world.store.log.segmentPages) / 2
        let gone = try (0..<250).filter { number in
            let entry = try #require(world.entry("key-\(number)", space))
            return entry.place.segment == victim && Int(entry.place.page) + 10 > half
        }
        #expect(gone.count > 10)
        world.close()
        let path = directory + "/" + StoreFiles.segment(SegmentTable.local(victim))
        #expect(truncate(path, half * pageBytes) == 0)
        try world.open()
        for number in 0..<250 {
            let reason = world.missed("key-\(number)", space, revision: 0, length: 40_000)
            #expect((reason != nil) == gone.contains(number), "key-\(number)")
        }
        #expect(world.put("new", space, revision: 0, length: 40_000) == .stored)
        world.checkAccounts()
        world.close()
    }

    @Test(arguments: [DriverChoice.automatic, .threads])
    func twoOpeningsOnRealFiles(choice: DriverChoice) throws {
        let directory = makeTemporaryDirectory()
        defer { removeDirectory(directory) }
        let world = try HostWorld(directory, choice)
        let error = try #require(world.openingError())
        #expect(error.kind == .locked)
        #expect(error.subject == directory)
        #expect(error.description.contains("host world"), "\(error)")
        let space = world.namespace()
        #expect(world.put("a", space, revision: 0, length: 5000) == .stored, "goes on")
        world.checkAccounts()
        world.close()
        try world.open()
        #expect(world.missed("a", space, revision: 0, length: 5000) == nil)
        world.close()
    }

    /// A small ext4 in a loop device, filled up by somebody else.
    @Test func aRealDiskThatFillsUp() throws {
        guard let disk = LoopDisk(megabytes: 96) else {
            print("aRealDiskThatFillsUp: skipped: needs root, mkfs.ext4 and a free loop device")
            return
        }
        let world = try HostWorld(disk.store, .automatic, capacity: 200 << 20)
        let space = world.namespace()
        var stored = 0
        for number in 0..<1200 {
            let status = world.put("key-\(number)", space, revision: 0, length: 60_000)
            #expect(status == .stored)
            if status == .stored { stored += 1 }
        }
        #expect(stored > 1000)
        #expect(world.store.log.statistics.allocationFailures > 0)
        #expect(world.store.log.statistics.shrunkSegments > 0)
        #expect(world.store.log.statistics.evictedBlocks > 0)
        var hits = 0
        for number in 0..<1200
        where world.missed("key-\(number)", space, revision: 0, length: 60_000) == nil { hits += 1 }
        #expect(hits > 500, "\(hits)")
        world.checkAccounts()
        world.close()
        try world.open()
        var again = 0
        for number in 0..<1200
        where world.missed("key-\(number)", space, revision: 0, length: 60_000) == nil {
            again += 1
        }
        #expect(again == hits)
        #expect(world.put("end", space, revision: 0, length: 60_000) == .stored)
        world.checkAccounts()
        world.close()
    }
}

/// An ext4 of some megabytes on a loop device, mounted until it goes.
private final class LoopDisk {
    let directory: String
    var store: String { directory + "/mount/store" }

    init?(megabytes: Int) {
        directory = makeTemporaryDirectory()
        guard getuid() == 0, !directory.isEmpty else {
            rmdir(directory)
            return nil
        }
        let image = directory + "/image"
        let made =
            "truncate -s \(megabytes)M \(image) && mkfs.ext4 -q -F \(image) && "
            + "mkdir \(directory)/mount && mount -o loop \(image) \(directory)/mount"
        guard system("( \(made) ) >/dev/null 2>&1") == 0 else {
            _ = system("rm -rf --one-file-system \(directory)")
            return nil
        }
    }

    deinit {
        _ = system("umount -l \(directory)/mount && rm -rf --one-file-system \(directory)")
    }
}
