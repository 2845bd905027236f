// What a caller may get wrong, what time does to blocks, and what an opening may find: a status or
// an error that says what to do; nothing is lost, nothing traps.

import BlockIO
import Glibc
import LogStore
import SegmentFormat
import SimulatedDisk
import Staging
import Testing

@Suite struct BadInputTests {
    private static let second: UInt64 = 1_000_000_000

    // MARK: Keys, lengths, shards

    @Test func keysOfEveryLength() throws {
        let world = try World()
        let space = world.namespace()
        let longest = String(repeating: "k", count: 512)
        for key in ["x", "y", longest, String(repeating: "k", count: 511)] {
            #expect(world.put(key, space, revision: 0, length: 700) == .stored)
        }
        // Pages of descriptors hold seven of the longest keys.
        for number in 0..<40 {
            let key = String(repeating: "\(number % 10)", count: 508) + "\(1000 + number)"
            #expect(world.put(key, space, revision: 0, length: 10) == .stored)
        }
        world.close()
        try world.open()
        for key in ["x", "y", longest, String(repeating: "k", count: 511)] {
            #expect(world.missed(key, space, revision: 0, length: 700) == nil)
        }
        for number in 0..<40 {
            let key = String(repeating: "\(number % 10)", count: 508) + "\(1000 + number)"
            #expect(world.missed(key, space, revision: 0, length: 10) == nil)
        }
        #expect(world.remove(longest, space) == .deleted)
        #expect(world.missed(longest, space, revision: 0, length: 700) == .deleted)
        world.checkAccounts()
    }

    @Test func whatACallerGetsWrong() throws {
        let world = try World()
        let space = world.namespace()
        let value = payload("a", revision: 0, length: 8000)
        let tooLong = String(repeating: "k", count: 513)
        for key in ["", tooLong] {
            #expect(world.put(key, space, value).status == .invalid)
            #expect(world.get(key, space, length: 10).0.status == .invalid)
            #expect(world.remove(key, space) == .invalid)
        }
        #expect(world.put("a", space, []).status == .invalid)
        #expect(world.put("a", 77, value).status == .invalid, "unknown namespace")
        #expect(world.put("a", UInt16.max, value).status == .invalid)
        #expect(world.get("a", 77, length: 10).0.status == .invalid)
        for slot: UInt16 in [77, 4096, .max] {
            for kind in [StoreOperationKind.contains, .touch, .pin, .unpin] {
                #expect(world.run(kind, "a", slot).status != .hit)
            }
        }
        let large = payload("a", revision: 0, length: world.configuration.log.maximumBlockBytes + 1)
        #expect(world.put("a", space, large).status == .tooLarge)
        for shards: [UInt32] in [[1, 2], [], [8000, 1], [UInt32.max, 8001]] {
            #expect(world.put("a", space, value, shards: shards).status == .invalid, "\(shards)")
        }
        let many = [UInt32](repeating: 1, count: 4097)
        #expect(
            world.put("a", space, payload("a", revision: 0, length: 4097), shards: many).status
                == .invalid)
        #expect(world.entry("a", space) == nil, "nothing of it was stored")

        #expect(world.put("a", space, value, shards: [4000, 4000]).status == .stored)
        let selections: [(Int, Int, UInt64, UInt64)] = [
            (2, 1, 0, 0), (0, 3, 0, 0), (-1, 1, 0, 0), (1, 0, 0, 0), (0, -1, 0, 0),
            (Int.max, 1, 0, 0), (1, Int.max, 0, 0), (0, 0, 8000, 0), (0, 0, 1, 8000),
            (0, 0, UInt64.max, 2), (0, 0, 2, UInt64.max), (0, 1, 5, 5),
        ]
        for mode in [GetMode.direct, .cached, .lease] {
            for (first, count, offset, bytes) in selections {
                let (answer, _) = world.get("a", space, length: 8000, mode: mode) {
                    $0.firstShard = first
                    $0.shardCount = count
                    $0.byteOffset = offset
                    $0.byteCount = bytes
                }
                #expect(answer.status == .invalid, "\(mode) \(first) \(count) \(offset) \(bytes)")
            }
        }
        #expect(world.get("a", space, length: 100).0.status == .invalid, "too little memory")
        let region = Piece(region: RegionID(999), offset: 0, length: 8000)
        let pieces = UnsafeMutablePointer<Piece>.allocate(capacity: 1)
        defer { pieces.deallocate() }
        pieces.initialize(to: region)
        let answer = world.run(.get, "a", space) {
            $0.pieces = UnsafePointer(pieces)
            $0.pieceCount = 1
        }
        #expect(answer.status == .invalid, "no such region")
        #expect(world.get("a", space, length: 8000).1 == value)
        world.checkAccounts()
    }

    // MARK: Time

    @Test func blocksExpireByTheClock() throws {
        let world = try World(World.configuration(staging: 0))
        let token = world.token()
        world.store.openNamespace(
            token: token, fields: [("model", "ttl")], aligned: false, timeToLive: 100, capBytes: 0)
        world.settle()
        let space = UInt16(try #require(world.sink.outcomes[token]).version)
        #expect(world.put("long", space, revision: 0, length: 3000) == .stored)
        var value = payload("short", revision: 0, length: 3000)
        let status = value.withUnsafeMutableBytes {
            world.run(.put, "short", space, bytes: $0) { $0.timeToLive = 10 }.status
        }
        #expect(status == .stored)
        // A jump of the wall clock while the store runs moves nothing, either way.
        for jump in [1_000_000, -1_000_000, 0] as [Int64] {
            world.clock.wallJump = jump
            #expect(world.missed("short", space, revision: 0, length: 3000) == nil)
        }
        world.clock.advance(by: 11 * Self.second)
        #expect(world.missed("short", space, revision: 0, length: 3000) == .expired)
        #expect(world.missed("long", space, revision: 0, length: 3000) == nil)
        world.close()
        // Set back over a restart, it does not bring back what had expired.
        world.clock.wallJump = -1_000_000
        try world.open()
        #expect(world.missed("short", space, revision: 0, length: 3000) == .expired)
        #expect(world.missed("long", space, revision: 0, length: 3000) == nil)
        #expect(world.run(.contains, "short", space).status == .miss)
        #expect(world.put("short", space, revision: 1, length: 500) == .stored, "put anew")
        #expect(world.missed("short", space, revision: 1, length: 500) == nil)
        world.clock.advance(by: 101 * Self.second)
        #expect(world.missed("long", space, revision: 0, length: 3000) == .expired)
        #expect(world.missed("short", space, revision: 1, length: 500) == .expired)
        world.checkAccounts()
    }

    // MARK: Pins

    private func pin(_ world: World, _ key: String, _ space: UInt16, seconds: UInt64) -> Status {
        world.run(.pin, key, space) { $0.deadline = world.clock.monotonic + seconds * Self.second }
            .status
    }

    @Test func aPinProtectsUntilItsTime() throws {
        let world = try World(World.configuration(segments: 10, staging: 0))
        let space = world.namespace()
        // More than a segment of them, so that the segments they are rewritten into are emptied
        // too.
        let pinned = 80
        for number in 0..<pinned {
            #expect(world.put("pinned-\(number)", space, revision: 0, length: 50_000) == .stored)
            #expect(pin(world, "pinned-\(number)", space, seconds: 1_000_000) == .done)
        }
        #expect(pin(world, "nobody", space, seconds: 10) == .notFound)
        for number in 0..<3000 {
            #expect(world.put("key-\(number)", space, revision: 0, length: 60_000) == .stored)
        }
        let statistics = world.store.log.statistics
        #expect(statistics.evictedBlocks > 1000)
        #expect(statistics.reinsertedBytes > UInt64(2 * pinned * 50_000), "several evictions")
        for number in 0..<pinned {
            let key = "pinned-\(number)"
            #expect(world.missed(key, space, revision: 0, length: 50_000) == nil, "\(key)")
        }
        world.checkAccounts()
        #expect(world.run(.unpin, "pinned-0", space).status == .done)
        world.clock.advance(by: 2_000_000 * Self.second)
        for number in 3000..<4500 {
            #expect(world.put("key-\(number)", space, revision: 0, length: 60_000) == .stored)
        }
        let left = (0..<pinned).count { world.entry("pinned-\($0)", space) != nil }
        #expect(left < 65, "a pin ends; only what lies in the open segment stays: \(left)")
        world.checkAccounts()
    }

    @Test func pinsHoldAQuarterAtMost() throws {
        let world = try World(World.configuration(segments: 12, mode: .store, staging: 0))
        let space = world.namespace()
        var pinned: UInt64 = 0
        var refused = 0
        for number in 0..<330 {
            guard world.put("key-\(number)", space, revision: 0, length: 60_000) == .stored else {
                continue
            }
            switch pin(world, "key-\(number)", space, seconds: 100) {
            case .done: pinned += 60_000
            case .throttled: refused += 1
            case let other: Issue.record("\(other)")
            }
        }
        let limit = world.configuration.log.capacityBytes / 4
        #expect(refused > 0)
        #expect(pinned <= limit && pinned + 60_000 > limit, "\(pinned) of \(limit)")
        #expect(pin(world, "key-0", space, seconds: 200) == .done, "a longer time is no more bytes")
        #expect(world.remove("key-0", space) == .deleted)
        let last = (0..<330).last { world.entry("key-\($0)", space) != nil }
        #expect(pin(world, "key-\(try #require(last))", space, seconds: 5) == .done)
        world.checkAccounts()
    }

    // MARK: Namespaces

    @Test func aPurgeIsAtOnceAndForGood() throws {
        let world = try World(World.configuration(staging: 1 << 20))
        let (space, other) = (world.namespace("a"), world.namespace("b"))
        let instance = world.store.log.namespaces.instance(space)
        for number in 0..<100 {
            for (namespace, revision) in [(space, 0), (other, 1)] {
                let status = world.put(
                    "key-\(number)", namespace, revision: revision, length: 9000)
                #expect(status == .stored)
            }
        }
        let token = world.token()
        world.store.purge(token: token, namespaceSlot: space)
        // Before a single step: unreachable.
        #expect(world.get("key-5", space, length: 9000).0.status == .invalid)
        #expect(world.sink.outcomes[token]?.status == .done)
        let again = world.namespace("a")
        #expect(world.store.log.namespaces.instance(again) > instance)
        for number in 0..<100 {
            #expect(world.missed("key-\(number)", again, revision: 0, length: 9000) == .neverPut)
            #expect(world.missed("key-\(number)", other, revision: 1, length: 9000) == nil)
        }
        #expect(world.put("key-1", again, revision: 7, length: 100) == .stored)
        world.checkAccounts()
        for reopening in 0..<2 {
            if reopening == 0 { try world.crash(.all) } else { world.close() }
            if reopening == 1 { try world.open() }
            #expect(world.namespace("a") == again && world.namespace("b") == other)
            #expect(world.store.log.namespaces.instance(again) > instance)
            #expect(world.missed("key-1", again, revision: 7, length: 100) == nil)
            #expect(world.missed("key-2", again, revision: 0, length: 9000) == .neverPut)
            #expect(world.missed("key-2", other, revision: 1, length: 9000) == nil)
            world.checkAccounts()
        }
        let gone = world.control { world.store.purge(token: $0, namespaceSlot: 500) }
        #expect(gone.status == .notFound)
    }

    @Test func aSecondPurgeWaitsForTheFirst() throws {
        let world = try World()
        let space = world.namespace("a")
        #expect(world.put("key", space, revision: 0, length: 9000) == .stored)
        let tokens = [world.token(), world.token()]
        for token in tokens { world.store.purge(token: token, namespaceSlot: space) }
        // Neither is told before the manifest is on the device.
        for token in tokens { #expect(world.sink.outcomes[token] == nil) }
        world.settle()
        for token in tokens { #expect(world.sink.outcomes[token]?.status == .done) }
        let again = world.namespace("a")
        #expect(world.put("key", again, revision: 1, length: 100) == .stored)
        world.settle()
        #expect(world.missed("key", again, revision: 1, length: 100) == nil)
        world.checkAccounts()
    }

    @Test func namespacesOutliveTheProcess() throws {
        let world = try World()
        var slots: [UInt16] = []
        for number in 0..<60 {
            slots.append(world.namespace("model-\(number)", aligned: number % 2 == 1))
        }
        #expect(Set(slots).count == 60)
        for number in 0..<60 {
            #expect(world.put("same key", slots[number], revision: number, length: 600) == .stored)
        }
        let wrong = world.control {
            world.store.openNamespace(
                token: $0, fields: [("model", "model-0")], aligned: true, timeToLive: 0,
                capBytes: 0)
        }
        #expect(wrong.status == .conflict, "another layout")
        world.close()
        try world.open()
        for number in (0..<60).reversed() {
            #expect(world.namespace("model-\(number)", aligned: number % 2 == 1) == slots[number])
            #expect(world.missed("same key", slots[number], revision: number, length: 600) == nil)
        }
        world.checkAccounts()
    }

    // MARK: Deadline and cancel

    @Test(arguments: [true, false], [GetMode.direct, .cached])
    func aHungDeviceDoesNotHoldTheCaller(deadline: Bool, mode: GetMode) throws {
        let world = try World(World.configuration(staging: 1 << 20, inclusive: false))
        let space = world.namespace()
        #expect(world.put("a", space, revision: 0, length: 40_960) == .stored)
        world.machine.hang("/store")
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 40_960, alignment: 4096)
        let pieces = UnsafeMutablePointer<Piece>.allocate(capacity: 1)
        defer {
            memory.deallocate()
            pieces.deallocate()
        }
        let address = UInt64(UInt(bitPattern: memory.baseAddress))
        pieces.initialize(to: Piece(region: .process, offset: address, length: 40_960))
        let key = Array("a".utf8)
        let token = world.token()
        let limit = world.clock.monotonic + Self.second
        key.withUnsafeBytes { bytes in
            var operation = StoreOperation(
                kind: .get, token: token, namespaceSlot: space, key: bytes)
            operation.pieces = UnsafePointer(pieces)
            operation.pieceCount = 1
            operation.mode = mode
            if deadline { operation.deadline = limit }
            #expect(world.store.submit(operation))
            for _ in 0..<20 {
                world.store.pump()
                world.driver.wait(until: world.clock.monotonic + 100_000_000)
            }
            if !deadline { world.store.cancel(token: token) }
            let answer = world.sink.answers[token]
            #expect(answer?.status == (deadline ? .timedOut : .cancelled))
            if deadline { #expect(answer?.reason == .deadline) }
            // Straight into the caller's memory: it is the device's until `released`.
            #expect(answer?.memoryInUse == (mode == .direct))
            #expect(world.sink.releases.isEmpty)
            world.store.cancel(token: token)
            world.machine.release("/store")
            world.settle()
        }
        #expect(world.sink.releases == (mode == .direct ? [token] : []))
        let statistics = world.store.statistics
        #expect(
            statistics.timedOut == (deadline ? 1 : 0) && statistics.cancelled == (deadline ? 0 : 1))
        #expect(world.missed("a", space, revision: 0, length: 40_960, mode: mode) == nil)
        world.checkAccounts()
    }

    // MARK: Opening

    @Test func theLockNamesItsHolder() throws {
        var configuration = World.configuration()
        configuration.log.holder = "pid 4711 (an engine)"
        let world = try World(configuration)
        let error = try #require(world.openingError())
        #expect(error.kind == .locked && error.subject == "/store")
        #expect(error.description.contains("pid 4711 (an engine)"), "\(error)")
        world.close()
        #expect(world.openingError() == nil, "free again")
    }

    @Test func whatOpeningMayFind() throws {
        let world = try World()
        let space = world.namespace()
        #expect(world.put("a", space, revision: 0, length: 5000) == .stored)
        world.close()
        let mode = try #require(world.openingError { $0.log.mode = .store })
        #expect(mode.kind == .configuration && mode.subject == "mode")
        let small = try #require(world.openingError { $0.log.capacityBytes = 1 << 20 })
        #expect(small.kind == .configuration && small.subject == "capacityBytes")
        #expect(small.advice.contains("give at least"), "\(small)")
        let block = try #require(world.openingError { $0.log.maximumBlockBytes = 16 << 20 })
        #expect(block.kind == .configuration && block.subject == "maximumBlockBytes")
        try world.open()
        #expect(world.missed("a", space, revision: 0, length: 5000) == nil, "nothing was lost")
        world.checkAccounts()
    }

    /// The capacity that the error asks for is enough.
    @Test func theCapacityAskedForIsEnough() throws {
        var configuration = World.configuration()
        configuration.log.capacityBytes = 1
        func attempt() -> StoreError? {
            do {
                _ = try World(configuration)
                return nil
            } catch {
                return error as? StoreError
            }
        }
        let error = try #require(attempt())
        let words = error.advice.split { !$0.isNumber }
        configuration.log.capacityBytes = try #require(words.last.flatMap { UInt64($0) })
        #expect(attempt() == nil)
    }

    @Test func aDirectoryOfAnotherStoreIsRefused() throws {
        let machine = SimulatedMachine()
        for directory in ["/a", "/b"] { machine.addDevice(directory) }
        let first = try World(World.configuration(directories: ["/a"]), machine: machine)
        first.close()
        var other = World.configuration(directories: ["/b"])
        other.log.entropy = (91, 92, 93, 94)
        let second = try World(other, machine: machine)
        second.close()
        let error = try #require(
            first.openingError {
                $0.log.directories = ["/a", "/b"]
                $0.log.capacityBytes *= 2
            })
        #expect(error.kind == .otherStore, "\(error)")
        #expect(first.openingError() == nil && second.openingError() == nil, "both as they were")
    }

    @Test func aNewerFormatIsRefused() throws {
        let world = try World()
        world.close()
        for copy in 0..<Manifest.copies {
            let offset = copy * Manifest.copyBytes
            var bytes = try #require(
                world.machine.contents(
                    "/store", StoreFiles.manifest, offset: offset, length: Manifest.copyBytes))
            guard bytes.contains(where: { $0 != 0 }) else { continue }
            bytes[47] = 0x80  // the incompatible features' top bit
            try reseal(&bytes)
            try write(world, bytes, at: offset)
        }
        let error = try #require(world.openingError())
        #expect(error.kind == .newerFormat, "\(error)")
        #expect(error.advice.contains("newer"))
        #expect(world.openingError { $0.log.openMode = .fresh }?.kind == .newerFormat)
    }

    /// Makes the check of a manifest copy right, as FORMAT.md has it.
    private func reseal(_ bytes: inout [UInt8]) throws {
        for index in 8..<16 { bytes[index] = 0 }
        let sum = bytes.withUnsafeBytes { Checksum.crc64(0x4865_6172_7468_4D61, $0) }
        for index in 0..<8 {
            bytes[8 + index] = UInt8(truncatingIfNeeded: sum >> (8 * UInt64(index)))
        }
    }

    private func write(_ world: World, _ bytes: [UInt8], at offset: Int) throws {
        let driver = SimulatedDriver(
            machine: world.machine, regions: RegionTable(), clock: world.clock, seed: 3)
        let directory = try driver.openDirectory("/store", create: false)
        let file = try driver.open(directory, StoreFiles.manifest, .existing)
        let memory = UnsafeMutableRawBufferPointer.allocate(
            byteCount: bytes.count, alignment: 4096)
        defer { memory.deallocate() }
        memory.copyBytes(from: bytes)
        let piece = Piece(
            region: .process, offset: UInt64(UInt(bitPattern: memory.baseAddress)),
            length: UInt64(bytes.count))
        _ = driver.prepare(
            IORequest(
                tag: 1, operation: .write, file: file, fileOffset: UInt64(offset), piece: piece))
        driver.submit()
        withUnsafeTemporaryAllocation(of: IOCompletion.self, capacity: 1) { buffer in
            while driver.reap(buffer) == 0 { driver.wait(until: UInt64.max) }
        }
        driver.close(file)
        driver.close(directory)
    }

    @Test func aDirectoryWithOtherFilesIsLeftAlone() throws {
        let directory = makeTemporaryDirectory()
        defer { removeDirectory(directory) }
        let file = open(directory + "/thesis.txt", O_CREAT | O_WRONLY, 0o600)
        #expect(file >= 0)
        close(file)
        do {
            _ = try HostWorld(directory, .threads)
            Issue.record("opened")
        } catch let error as StoreError {
            #expect(error.kind == .notAStore && error.advice.contains("thesis.txt"), "\(error)")
        }
        #expect(access(directory + "/manifest", F_OK) != 0, "nothing was made")
    }

    @Test func pathsThatCannotBeOpened() throws {
        let directory = makeTemporaryDirectory()
        defer { removeDirectory(directory) }
        for (path, kind) in [
            (directory + "/no/such/parent", StoreError.Kind.missing), ("/dev/null", .missing),
        ] {
            do {
                _ = try HostWorld(path, .threads)
                Issue.record("opened \(path)")
            } catch let error as StoreError {
                #expect(error.kind == kind && error.subject == path, "\(error)")
                #expect(!error.advice.isEmpty)
            }
        }
        guard getuid() != 0 else {
            print("pathsThatCannotBeOpened: no permission: skipped as root")
            return
        }
        chmod(directory, 0o500)
        defer { chmod(directory, 0o700) }
        do {
            _ = try HostWorld(directory, .threads)
            Issue.record("opened without permission")
        } catch let error as StoreError {
            #expect(error.kind == .permission, "\(error)")
        }
    }
}
