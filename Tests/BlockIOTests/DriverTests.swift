// DriverTests: the contract of BlockDriver, on every flavour of host driver.

import BlockIO
import Glibc
import Testing

@Suite struct DriverTests {
    @Test(arguments: Flavour.allCases)
    func processMemoryRoundTrip(_ flavour: Flavour) throws {
        let rig = try Rig(flavour)
        let file = try rig.driver.open(rig.directory, "data", .exclusive)
        let source = Memory(256 << 10)
        fillPattern(source.base, source.length, seed: 3)
        #expect(rig.run(.write, file, 8192, source.piece()) == 256 << 10)
        let target = Memory(256 << 10)
        #expect(rig.run(.read, file, 8192, target.piece()) == 256 << 10)
        #expect(holdsPattern(target.base, target.length, seed: 3))
        #expect(try rig.driver.information(file).size == 8192 + 256 << 10)
        let statistics = rig.driver.statistics
        #expect(statistics.submitted == 2 && statistics.completed == 2 && statistics.failed == 0)
        #expect(statistics.registeredBufferOps == 0)
        let short = flavour == .uringShort || flavour == .threadsShort
        #expect((statistics.shortResumed > 0) == short)
    }

    @Test(arguments: Flavour.allCases)
    func registeredHostRegion(_ flavour: Flavour) throws {
        let rig = try Rig(flavour)
        let memory = Memory(1 << 20)
        let region = try #require(
            rig.regions.add(Region(kind: .host, base: memory.base, length: 1 << 20)))
        rig.driver.register(region)
        let file = try rig.driver.open(rig.directory, "data", .create)
        fillPattern(memory.base, 64 << 10, seed: 9)
        let from = Piece(region: region, offset: 0, length: 64 << 10)
        let to = Piece(region: region, offset: 512 << 10, length: 64 << 10)
        #expect(rig.run(.write, file, 0, from) == 64 << 10)
        #expect(rig.run(.read, file, 0, to) == 64 << 10)
        #expect(holdsPattern(memory.base + (512 << 10), 64 << 10, seed: 9))
        let registered = flavour.isUring && flavour != .uringUnregistered
        #expect((rig.driver.statistics.registeredBufferOps > 0) == registered)
        #expect(rig.driver.statistics.grants.contains("buffers registered for 1") == registered)
        rig.driver.unregister(region)
        let before = rig.driver.statistics.registeredBufferOps
        #expect(rig.run(.read, file, 0, to) == 64 << 10)
        #expect(rig.driver.statistics.registeredBufferOps == before)
        // Outside the region, and a region that is not there.
        let outside = Piece(region: region, offset: (1 << 20) - 4096, length: 8192)
        #expect(rig.run(.read, file, 0, outside) == Int64(-EFAULT))
        rig.regions.remove(region)
        #expect(rig.run(.read, file, 0, to) == Int64(-EFAULT))
    }

    @Test(arguments: Flavour.allCases)
    func sharedRegion(_ flavour: Flavour) throws {
        let rig = try Rig(flavour)
        let mapping = try SharedMapping(name: "test", length: 4 << 20, huge: false)
        let region = try #require(
            rig.regions.add(
                Region(
                    kind: .shared, base: mapping.base, length: UInt64(mapping.length),
                    descriptor: mapping.descriptor)))
        rig.driver.register(region)
        let file = try rig.driver.open(rig.directory, "data", .create)
        fillPattern(mapping.base, 1 << 20, seed: 5)
        #expect(
            rig.run(.write, file, 0, Piece(region: region, offset: 0, length: 1 << 20)) == 1 << 20)
        #expect(
            rig.run(.read, file, 0, Piece(region: region, offset: 2 << 20, length: 1 << 20))
                == 1 << 20)
        #expect(holdsPattern(mapping.base + (2 << 20), 1 << 20, seed: 5))
    }

    @Test(arguments: Flavour.allCases)
    func deviceRegionIsRefused(_ flavour: Flavour) throws {
        let rig = try Rig(flavour)
        let region = try #require(
            rig.regions.add(Region(kind: .device, base: nil, length: 1 << 20)))
        rig.driver.register(region)
        let file = try rig.driver.open(rig.directory, "data", .create)
        let piece = Piece(region: region, offset: 0, length: 4096)
        #expect(rig.run(.write, file, 0, piece) == Int64(-EOPNOTSUPP))
    }

    @Test(arguments: Flavour.allCases)
    func unalignedOnMemoryFileSystem(_ flavour: Flavour) throws {
        let rig = try Rig(flavour, under: "/dev/shm")
        let file = try rig.driver.open(rig.directory, "data", .create)
        let information = try rig.driver.information(file)
        #expect(!information.direct && information.offsetAlignment == 1)
        #expect(rig.driver.statistics.grants.contains("0 direct, 1 buffered (in-memory"))
        let source = Memory(50_001)
        fillPattern(source.base, source.length, seed: 1)
        #expect(rig.run(.write, file, 333, source.piece(1, 50_000)) == 50_000)
        let target = Memory(50_001)
        #expect(rig.run(.read, file, 333, target.piece(1, 50_000)) == 50_000)
        #expect(memcmp(source.base + 1, target.base + 1, 50_000) == 0)
    }

    @Test(arguments: Flavour.allCases)
    func largeRequestIsSplitAndCompletesOnce(_ flavour: Flavour) throws {
        let rig = try Rig(flavour, depth: 2)
        let file = try rig.driver.open(rig.directory, "data", .create)
        // 70 pieces of 1 MiB and a rest: more than there are transfers at this depth.
        let length = (70 << 20) + 4096
        let memory = Memory(length)
        fillPattern(memory.base, length, seed: 8)
        #expect(rig.run(.write, file, 0, memory.piece()) == Int64(length))
        memset(memory.base, 0, length)
        #expect(rig.run(.read, file, 0, memory.piece()) == Int64(length))
        #expect(holdsPattern(memory.base, length, seed: 8))
        #expect(rig.driver.statistics.splitRequests == 2)
        #expect(rig.driver.statistics.completed == 2)
        #expect(rig.isQuiet())
    }

    @Test(arguments: Flavour.allCases)
    func manyOutstandingReapedInBatches(_ flavour: Flavour) throws {
        let rig = try Rig(flavour, depth: 64)
        let file = try rig.driver.open(rig.directory, "data", .create)
        let memory = Memory(64 * 65536)
        fillPattern(memory.base, memory.length, seed: 4)
        for operation in [IOOperation.write, .read] {
            if operation == .read { memset(memory.base, 0, memory.length) }
            for index in 0..<64 {
                #expect(
                    rig.prepare(
                        UInt64(index), operation, file, UInt64(index * 65536),
                        memory.piece(index * 65536, 65536)))
            }
            // Beyond the depth nothing is taken, until something was reaped.
            #expect(!rig.prepare(99, operation, file, 0, memory.piece(0, 65536)))
            let found = rig.collect(64)
            #expect(Set(found.map(\.tag)) == Set(0..<64))
            #expect(found.allSatisfy { $0.result == 65536 && $0.deviceNanoseconds > 0 })
        }
        #expect(holdsPattern(memory.base, memory.length, seed: 4))
        #expect(rig.driver.statistics.submitted == 128)
    }

    @Test(arguments: Flavour.allCases)
    func syncAllocatePunch(_ flavour: Flavour) throws {
        let rig = try Rig(flavour)
        let file = try rig.driver.open(rig.directory, "data", .exclusive)
        let range = Piece(region: .process, offset: 0, length: 8 << 20)
        #expect(rig.run(.allocate, file, 0, range) == 0)
        #expect(try rig.driver.information(file).size == 8 << 20)
        #expect(blocks(rig.path + "/data") * 512 >= 8 << 20)
        let memory = Memory(1 << 20, fill: 7)
        #expect(rig.run(.write, file, 1 << 20, memory.piece()) == 1 << 20)
        #expect(rig.run(.sync, file, 0, noPiece) == 0)
        #expect(rig.run(.sync, rig.directory, 0, noPiece) == 0)
        #expect(rig.run(.punchHole, file, 0, range) == 0)
        #expect(try rig.driver.information(file).size == 8 << 20)
        #expect(blocks(rig.path + "/data") * 512 < 1 << 20)
        #expect(rig.run(.read, file, 1 << 20, memory.piece()) == 1 << 20)
        #expect(
            (0..<(1 << 20)).allSatisfy { memory.base.load(fromByteOffset: $0, as: UInt8.self) == 0 }
        )
        rig.driver.setWriteHint(file, 2)
    }

    private func blocks(_ path: String) -> Int {
        var found = stat()
        return stat(path, &found) == 0 ? Int(found.st_blocks) : -1
    }

    @Test(arguments: Flavour.allCases)
    func endOfFileIsAnError(_ flavour: Flavour) throws {
        let rig = try Rig(flavour)
        let file = try rig.driver.open(rig.directory, "data", .create)
        let memory = Memory(64 << 10, fill: 1)
        #expect(rig.run(.write, file, 0, memory.piece(0, 8192)) == 8192)
        #expect(rig.run(.read, file, 0, memory.piece()) == Int64(-EIO))
        #expect(rig.run(.read, file, 1 << 20, memory.piece()) == Int64(-EIO))
        // An odd end in a file: no whole alignment unit is left, and still no hang.
        #expect(truncate(rig.path + "/data", 8192 + 100) == 0)
        #expect(rig.run(.read, file, 8192, memory.piece(0, 4096)) == Int64(-EIO))
        #expect(rig.driver.statistics.failed == 3)
    }

    @Test(arguments: Flavour.allCases)
    func refusedRequestsComplete(_ flavour: Flavour) throws {
        let rig = try Rig(flavour)
        let memory = Memory(4096)
        #expect(rig.run(.read, FileID(50_000), 0, memory.piece()) == Int64(-EBADF))
        #expect(rig.run(.read, .none, 0, memory.piece()) == Int64(-EBADF))
        let file = try rig.driver.open(rig.directory, "data", .create)
        #expect(rig.run(.read, file, UInt64.max - 100, memory.piece()) == Int64(-EINVAL))
        #expect(rig.run(.write, file, 0, memory.piece(0, 0)) == 0)
        #expect(rig.run(.read, file, 0, noPiece) == Int64(-EFAULT))
        #expect(
            rig.run(.read, file, 0, Piece(region: RegionID(2000), offset: 0, length: 1))
                == Int64(-EFAULT))
        rig.driver.close(file)
        #expect(rig.run(.read, file, 0, memory.piece()) == Int64(-EBADF))
    }

    @Test func automaticChoosesAndTells() throws {
        for choice in DriverChoice.allCases {
            let driver = try makeDriver(choice, regions: RegionTable(), depth: 8)
            #expect(choice == .automatic || (driver.kind == .threads) == (choice == .threads))
            #expect(driver.statistics.grants.hasPrefix(driver.kind.rawValue))
            driver.shutdown()
        }
    }
}
