// UringTests: what only the io_uring driver has — grants, fallbacks, stale completions, and
// registered memory larger than one registered buffer.

import Glibc
import Testing

@testable import BlockIO

@Suite struct UringTests {
    @Test func grantsTellTheFlagsAndTheRing() throws {
        for setup in RingSetup.allCases {
            var options = UringOptions()
            options.setup = setup
            let driver = try UringDriver(regions: RegionTable(), depth: 4, options: options)
            #expect(driver.statistics.grants.hasPrefix("io_uring "))
            #expect(driver.kind == .ioUring && driver.limits.depth == 4)
        }
    }

    @Test func refusedBuffersFallBackAndAreReported() throws {
        let regions = RegionTable()
        var options = UringOptions()
        options.refuseBuffers = true
        let driver = try UringDriver(regions: regions, depth: 4, options: options)
        let path = try Rig.makeDirectory()
        let directory = try driver.openDirectory(path, create: false)
        let file = try driver.open(directory, "data", .create)
        let memory = Memory(65536, fill: 2)
        let region = try #require(
            regions.add(Region(kind: .host, base: memory.base, length: 65536)))
        driver.register(region)
        #expect(driver.statistics.grants.contains("unregistered: memlock is short"))
        #expect(
            driver.prepare(
                IORequest(
                    tag: 1, operation: .write, file: file, fileOffset: 0,
                    piece: Piece(region: region, offset: 0, length: 65536))))
        driver.wait(until: .max)
        let batch = UnsafeMutableBufferPointer<IOCompletion>.allocate(capacity: 4)
        defer { batch.deallocate() }
        #expect(driver.reap(batch) == 1 && batch[0].result == 65536)
        #expect(driver.statistics.unregisteredOps == 1)
        #expect(driver.statistics.registeredBufferOps == 0)
        try driver.remove(directory, "data")
        driver.shutdown()
        rmdir(path)
    }

    @Test func staleCompletionsAreDroppedAndCounted() throws {
        let rig = try Rig(.uring, depth: 4)
        let driver = try #require(rig.driver as? UringDriver)
        let file = try driver.open(rig.directory, "data", .create)
        let memory = Memory(8192, fill: 2)
        #expect(rig.run(.write, file, 0, memory.piece()) == 8192)
        // A free place, a place that does not exist, and the earlier life of a live one.
        #expect(rig.prepare(5, .read, file, 0, memory.piece()))
        driver.complete(UserData.transfer(60, 1), 4096, 0)
        driver.complete(UserData.transfer(1_000_000, 1), 4096, 0)
        driver.issueForTest()
        let place = try #require(
            (0..<64).first { driver.tables.transfers[$0].op >= 0 })
        let generation = driver.tables.transfers[place].generation
        driver.complete(UserData.transfer(place, generation &- 1), -5, 0)
        #expect(driver.statistics.staleDropped == 3)
        let found = rig.collect(1)
        #expect(found.map(\.tag) == [5] && found[0].result == 8192)
        // After its end the same completion again is stale too.
        driver.complete(UserData.transfer(place, generation), 8192, 0)
        #expect(driver.statistics.staleDropped == 4)
        #expect(rig.isQuiet())
    }

    @Test func retriedErrorsAreBounded() throws {
        let rig = try Rig(.uring, depth: 4)
        let driver = try #require(rig.driver as? UringDriver)
        #expect(mkfifo(rig.path + "/pipe", 0o600) == 0)
        let pipe = try driver.open(rig.directory, "pipe", .existing)
        let memory = Memory(4096)
        #expect(rig.prepare(5, .read, pipe, 0, memory.piece()))
        driver.submit()
        let place = try #require(
            (0..<64).first { driver.tables.transfers[$0].op >= 0 })
        // The kernel answers EAGAIN for ever: each answer is tried again under a new generation.
        var tries = 0
        while driver.tables.ready.count == 0, tries < 1000 {
            let generation = driver.tables.transfers[place].generation
            driver.complete(UserData.transfer(place, generation), -EAGAIN, 0)
            driver.issue(1)
            tries += 1
        }
        #expect(tries == 65)
        let found = rig.collect(1)
        #expect(found.map(\.tag) == [5] && found[0].result == Int64(-EAGAIN))
    }

    @Test func shortTransfersResumeAlignedAndStallsEnd() throws {
        let rig = try Rig(.uring, depth: 4)
        let driver = try #require(rig.driver as? UringDriver)
        let file = try driver.open(rig.directory, "data", .create)
        let alignment = try driver.information(file).offsetAlignment
        let memory = Memory(65536, fill: 2)
        #expect(rig.prepare(5, .write, file, 0, memory.piece()))
        driver.issueForTest()
        let place = try #require((0..<64).first { driver.tables.transfers[$0].op >= 0 })
        let transfer = driver.tables.transfers + place
        func answer(_ result: Int) {
            let data = UserData.transfer(place, transfer.pointee.generation)
            driver.complete(data, Int32(result), 1)
            driver.issue(1)
        }
        // Half a unit too many: it goes on from the last whole one.
        answer(8192 + alignment / 2)
        #expect(Int(transfer.pointee.done) == (8192 + alignment / 2) / alignment * alignment)
        answer(4096)
        #expect(Int(transfer.pointee.done) / 4096 == 3)
        // A write that moves nothing is tried three times.
        answer(0)
        answer(0)
        #expect(driver.tables.ready.count == 0)
        answer(0)
        #expect(driver.tables.ready.count == 1)
        #expect(driver.statistics.shortResumed == 5)
        let found = rig.collect(1)
        #expect(found.map(\.tag) == [5] && found[0].result == Int64(-EIO))
    }

    @Test func bufferPlacesAreReused() throws {
        let buffers = UringBuffers()
        defer { buffers.deallocate() }
        #expect(buffers.run(3) == 0)
        buffers.take(0, 3, for: RegionID(1))
        buffers.take(3, 1, for: RegionID(2))
        #expect(buffers.run(2) == 4 && buffers.registeredRegions == 2)
        buffers.release(0, 3, of: RegionID(1))
        #expect(buffers.run(3) == 0 && buffers.run(4) == 4)
        #expect(buffers.firstSlot(RegionID(1)) == -1 && buffers.firstSlot(RegionID(2)) == 3)
        #expect(buffers.run(UringBuffers.places) == nil)
    }

    @Test func regionAcrossRegisteredBuffers() throws {
        // Two registered buffers: 1 GiB and a rest. Only a few pages of it are ever touched, but
        // registering pins them all, so memory decides whether this can run.
        let rig = try Rig(.uring, depth: 4)
        let length = (1 << 30) + (8 << 20)
        let pages = sysconf(Int32(_SC_AVPHYS_PAGES)) * sysconf(Int32(_SC_PAGESIZE))
        guard pages > 4 * length else { return }
        let mapping = try SharedMapping(name: "large", length: length, huge: false)
        let region = try #require(
            rig.regions.add(
                Region(kind: .shared, base: mapping.base, length: UInt64(mapping.length))))
        rig.driver.register(region)
        let registered = rig.driver.statistics.grants.contains("buffers registered for 1")
        let file = try rig.driver.open(rig.directory, "data", .create)
        let start = (1 << 30) - (256 << 10)
        fillPattern(mapping.base + start, 1 << 20, seed: 6)
        let piece = Piece(region: region, offset: UInt64(start), length: 1 << 20)
        #expect(rig.run(.write, file, 0, piece) == 1 << 20)
        memset(mapping.base + start, 0, 1 << 20)
        #expect(rig.run(.read, file, 0, piece) == 1 << 20)
        #expect(holdsPattern(mapping.base + start, 1 << 20, seed: 6))
        // Split at the boundary, both halves registered.
        #expect(rig.driver.statistics.registeredBufferOps == (registered ? 4 : 0))
        rig.driver.unregister(region)
        #expect(rig.driver.statistics.grants.contains("no buffers registered"))
    }
}

extension UringDriver {
    /// Puts the prepared requests into the submission queue without telling the kernel.
    func issueForTest() {
        tables.released = tables.queue.count
        issue(SystemClock.now())
    }
}
