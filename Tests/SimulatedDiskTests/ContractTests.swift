// What the simulated driver promises as a driver: one completion a request, alignment, order.

import BlockIO
import Glibc
import SimulatedDisk
import Testing

@Suite("The driver contract, in virtual time")
struct ContractTests {
    @Test func writesAreReadBack() throws {
        let rig = Rig()
        let directory = try rig.driver.openDirectory("/d", create: true)
        let file = try rig.driver.open(directory, "f", .create)
        #expect(rig.write(file, page: 3, pages: 2, 0x5A) == 8192)
        #expect(rig.read(file, page: 3, pages: 2) == filled(0x5A, 8192))
        #expect(rig.read(file, page: 0) == filled(0))
        #expect(try rig.driver.information(file).size == 5 * 4096)
        // No progress beyond the end is an error.
        #expect(rig.perform(.read, file, at: 5 * 4096, length: 4096) == -Int64(EIO))
        rig.driver.close(file)
        rig.driver.close(directory)
        rig.driver.shutdown()
        #expect(rig.driver.violations.isEmpty)
    }

    @Test func oneCompletionEachAtItsTime() throws {
        let rig = Rig(latency: .constant(100_000, channels: 2))
        let file = rig.durableFile()
        let before = rig.clock.monotonic
        for page in 0..<4 {
            rig.start(.read, file, at: page * 4096, piece: rig.piece(page * 4096, 4096))
        }
        let done = rig.drain()
        #expect(done.map(\.deviceNanoseconds) == [100_000, 100_000, 200_000, 200_000])
        #expect(Set(done.map(\.tag)).count == 4)
        #expect(rig.clock.monotonic == before + 200_000)
    }

    @Test func bandwidthBindsLargeRequests() {
        let rig = Rig(latency: .constant(1_000, bytesPerSecond: 1_000_000_000))
        let file = rig.durableFile(pages: 64)
        rig.start(.read, file, piece: rig.piece(0, 65_536))
        rig.start(.read, file, at: 65_536, piece: rig.piece(65_536, 65_536))
        #expect(rig.drain().map(\.deviceNanoseconds) == [66_536, 132_072])
    }

    @Test func depthIsALimit() {
        let rig = Rig(limits: DriverLimits(depth: 4, transferBytes: 4096))
        let file = rig.durableFile()
        for _ in 0..<4 { rig.start(.read, file, piece: rig.piece(0, 4096)) }
        let fifth = IORequest(
            tag: 99, operation: .read, file: file, fileOffset: 0, piece: rig.piece(0, 4096))
        #expect(!rig.driver.prepare(fifth))
        #expect(rig.drain().count == 4)
        #expect(rig.driver.prepare(fifth))
        #expect(rig.drain().map(\.tag) == [99])
    }

    @Test func misalignmentIsRefused() {
        let rig = Rig()
        let file = rig.durableFile()
        #expect(rig.perform(.write, file, at: 512, length: 4096) == -Int64(EINVAL))
        #expect(rig.perform(.read, file, at: 0, length: 1000) == -Int64(EINVAL))
        rig.start(.read, file, piece: rig.piece(256, 4096))
        #expect(rig.drain().first?.result == -Int64(EINVAL))
        rig.start(.read, file, piece: rig.piece(512, 4096))
        #expect(rig.drain().first?.result == 4096)
        #expect(rig.perform(.write, file, at: 1 << 45, length: 4096) == -Int64(EFBIG))
        #expect(rig.perform(.read, FileID(77), length: 4096) == -Int64(EBADF))
    }

    @Test func waitStopsAtTheDeadlineOrWake() {
        let rig = Rig(latency: .constant(100_000))
        let file = rig.durableFile()
        let begin = rig.clock.monotonic
        rig.start(.read, file, piece: rig.piece(0, 4096))
        rig.driver.wait(until: begin + 30_000)
        #expect(rig.clock.monotonic == begin + 30_000)
        rig.driver.wake()
        rig.driver.wait(until: UInt64.max)
        #expect(rig.clock.monotonic == begin + 30_000)
        rig.driver.wait(until: UInt64.max)
        #expect(rig.clock.monotonic == begin + 100_000)
        #expect(rig.drain().count == 1)
        rig.driver.wait(until: begin + 500_000)
        #expect(rig.clock.monotonic == begin + 500_000)
    }

    @Test func queuedRequestsCanBeCancelled() {
        let rig = Rig(latency: .constant(100_000, channels: 1))
        let file = rig.durableFile()
        let first = rig.start(.read, file, piece: rig.piece(0, 4096))
        let second = rig.start(.write, file, piece: rig.piece(4096, 4096))
        let late = rig.clock.monotonic + 50_000
        let third = rig.start(.read, file, piece: rig.piece(8192, 4096), deadline: late)
        rig.driver.cancel(tag: first)
        rig.driver.cancel(tag: second)
        let results = Dictionary(uniqueKeysWithValues: rig.drain().map { ($0.tag, $0.result) })
        #expect(results[first] == 4096)
        #expect(results[second] == -Int64(ECANCELED))
        #expect(results[third] == -Int64(ETIME))
        #expect(rig.driver.statistics.cancelled == 1)
    }

    @Test func earlyBufferReuseIsAViolation() {
        let rig = Rig()
        let file = rig.durableFile()
        memset(rig.memory, 1, 4096)
        rig.start(.write, file, piece: rig.piece(0, 4096))
        memset(rig.memory + 100, 2, 1)
        #expect(rig.drain().first?.result == 4096)
        #expect(rig.driver.violations.count == 1)
        rig.write(file, page: 0, 3)
        #expect(rig.driver.violations.count == 1)
    }

    @Test func readsInFlightHoldGarbage() {
        let rig = Rig()
        let file = rig.durableFile()
        memset(rig.memory, 7, 8192)
        rig.start(.read, file, piece: rig.piece(0, 4096))
        #expect(rig.memory.load(as: UInt8.self) == 0xDB)
        #expect((rig.memory + 4096).load(as: UInt8.self) == 7)
        _ = rig.drain()
        #expect(rig.memory.load(as: UInt8.self) == 0)
    }

    @Test func largeRequestsAreSplitAndCompleteOnce() {
        let rig = Rig(limits: DriverLimits(depth: 8, transferBytes: 8192))
        let file = rig.durableFile()
        let before = rig.machine.unflushedCount
        #expect(rig.write(file, page: 0, pages: 5, 9) == 5 * 4096)
        #expect(rig.driver.statistics.splitRequests == 1)
        // Each part can be lost on its own.
        #expect(rig.machine.unflushedCount - before == 3)
    }

    @Test func namesLocksAndFlags() throws {
        let rig = Rig()
        #expect(
            errnoOf { () throws(IOError) in
                _ = try rig.driver.openDirectory("/none", create: false)
            } == ENOENT)
        let directory = try rig.driver.openDirectory("/d/", create: true)
        let again = try rig.driver.openDirectory("/d", create: false)
        try rig.driver.lock(directory, holder: "pid 7")
        do throws(IOError) {
            try rig.driver.lock(again, holder: "pid 8")
            Issue.record("two holders")
        } catch {
            #expect(error.errno == EAGAIN && error.detail == "pid 7")
        }
        let file = try rig.driver.open(directory, "a", .exclusive)
        #expect(
            errnoOf { () throws(IOError) in
                _ = try rig.driver.open(again, "a", .exclusive)
            } == EEXIST)
        #expect(
            errnoOf { () throws(IOError) in
                _ = try rig.driver.open(again, "b", .existing)
            } == ENOENT)
        #expect(try rig.driver.list(again) == ["LOCK", "a"])
        try rig.driver.remove(again, "a")
        #expect(try rig.driver.list(again) == ["LOCK"])
        // Open files outlive their names.
        rig.write(file, page: 0, 4)
        #expect(rig.read(file, page: 0) == filled(4))
        rig.driver.close(file)
        rig.driver.close(directory)
        try rig.driver.lock(again, holder: "pid 8")
    }

    @Test func capacityIsALimit() throws {
        let rig = Rig()
        let file = rig.durableFile(pages: 16)
        rig.machine.setCapacity("/d", bytes: 20 * 4096)
        let directory = try rig.driver.openDirectory("/d", create: false)
        #expect(try rig.driver.availableBytes(directory) == 4 * 4096)
        #expect(rig.perform(.allocate, file, at: 16 * 4096, length: 5 * 4096) == -Int64(ENOSPC))
        #expect(rig.perform(.allocate, file, at: 14 * 4096, length: 6 * 4096) == 0)
        #expect(rig.write(file, page: 20, 1) == -Int64(ENOSPC))
        #expect(rig.write(file, page: 2, 1) == 4096)
        #expect(rig.perform(.punchHole, file, at: 0, length: 4 * 4096) == 0)
        #expect(rig.read(file, page: 2) == filled(0))
        #expect(try rig.driver.availableBytes(directory) == 4 * 4096)
        rig.driver.close(file)
        try rig.driver.remove(directory, "f")
        #expect(try rig.driver.availableBytes(directory) == 20 * 4096)
    }

    @Test func preallocationCostsNothing() {
        let rig = Rig()
        let file = rig.durableFile(pages: 65_536)
        #expect(rig.machine.storedPages("/d", "f") == 0)
        rig.write(file, page: 65_535, 1)
        #expect(rig.machine.storedPages("/d", "f") == 1)
        #expect(rig.machine.fileSize("/d", "f") == 256 << 20)
    }

    @Test func wallClockJumpsAloneAndTimeStartsAtOneSecond() {
        let clock = SimulatedClock()
        #expect(clock.monotonic == 1_000_000_000 && clock.wallSeconds == 1_700_000_001)
        clock.advance(by: 2_500_000_000)
        clock.wallJump = -1_000
        #expect(clock.monotonic == 3_500_000_000 && clock.wallSeconds == 1_699_999_003)
        clock.advance(to: 5)
        #expect(clock.monotonic == 3_500_000_000)
    }

    @Test func anIdleOwnerThreadSleepsUntilWoken() {
        let rig = Rig()
        rig.driver.blocksWhenIdle = true
        nonisolated(unsafe) let driver = rig.driver
        var thread = pthread_t()
        let waker: @convention(c) (UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? = {
            usleep(20_000)
            guard let argument = $0 else { return nil }
            Unmanaged<SimulatedDriver>.fromOpaque(argument).takeUnretainedValue().wake()
            return nil
        }
        pthread_create(&thread, nil, waker, Unmanaged.passUnretained(driver).toOpaque())
        var begin = timespec()
        var end = timespec()
        clock_gettime(CLOCK_MONOTONIC, &begin)
        driver.wait(until: UInt64.max)
        clock_gettime(CLOCK_MONOTONIC, &end)
        pthread_join(thread, nil)
        let slept = (end.tv_sec - begin.tv_sec) * 1_000_000_000 + end.tv_nsec - begin.tv_nsec
        #expect(slept > 5_000_000)
    }
}
