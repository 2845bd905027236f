// What a crash of the simulated machine keeps and loses.

import BlockIO
import Glibc
import SimulatedDisk
import Testing

@Suite("What a crash keeps")
struct CrashTests {
    /// Three durable pages of 1, then three unflushed writes of 2, 3 and 4.
    private func prepared() -> Rig {
        let rig = Rig()
        let file = rig.durableFile()
        rig.write(file, page: 0, pages: 3, 1)
        rig.sync(file)
        for page in 0..<3 { rig.write(file, page: page, UInt8(2 + page)) }
        return rig
    }

    private func firstBytes(_ machine: SimulatedMachine) -> [UInt8] {
        (0..<3).map { machine.contents("/d", "f", offset: $0 * 4096, length: 1)?.first ?? 255 }
    }

    @Test func everySubsetAndNothingElse() {
        let rig = prepared()
        #expect(rig.machine.unflushedCount == 3)
        for mask in UInt64(0)..<8 {
            let machine = rig.machine.copy()
            machine.crash(keep: .subset(mask))
            let expected = (0..<3).map { mask >> UInt64($0) & 1 == 1 ? UInt8(2 + $0) : 1 }
            #expect(firstBytes(machine) == expected)
            #expect(machine.unflushedCount == 0)
        }
        #expect(firstBytes(rig.machine) == [2, 3, 4])
    }

    @Test func noneAllAndPrefix() {
        let rig = prepared()
        let cases: [(CrashKeep, [UInt8])] = [
            (.none, [1, 1, 1]), (.all, [2, 3, 4]), (.prefix(2), [2, 3, 1]),
        ]
        for (keep, expected) in cases {
            let machine = rig.machine.copy()
            machine.crash(keep: keep)
            #expect(firstBytes(machine) == expected)
        }
    }

    @Test func flushedDataSurvivesAnySeedAndSeedsReachEveryFate() {
        let rig = prepared()
        let kept = Rig(machine: rig.machine.copy())
        guard let directory = try? kept.driver.openDirectory("/d", create: false),
            let file = try? kept.driver.open(directory, "f", .existing)
        else { fatalError("no file") }
        kept.write(file, page: 8, 0x77)
        kept.sync(file)
        kept.write(file, page: 9, 0x78)
        var fates: Set<UInt8> = []
        var torn = 0
        for seed in UInt64(0)..<300 {
            let machine = kept.machine.copy()
            machine.crash(keep: .random(seed: seed))
            #expect(machine.contents("/d", "f", offset: 8 * 4096, length: 4096) == filled(0x77))
            let after = machine.contents("/d", "f", offset: 9 * 4096, length: 4096) ?? []
            if Set(after).count > 1 { torn += 1 }
            fates.formUnion(after)
        }
        #expect(fates == [0, 0x78])
        #expect(torn > 10)
    }

    @Test func requestsInFlightMayLandInParts() {
        let rig = Rig(limits: DriverLimits(depth: 8, transferBytes: 4096))
        let file = rig.durableFile()
        memset(rig.memory, 5, 8192)
        rig.start(.write, file, piece: rig.piece(0, 8192))
        #expect(rig.machine.unflushedCount == 2)
        let machine = rig.machine.copy()
        machine.crash(keep: .subset(0b10))
        #expect(firstBytes(machine) == [0, 5, 0])
        rig.machine.crash(keep: .all)
        #expect(firstBytes(rig.machine) == [5, 5, 0])
        // The driver of before is gone.
        rig.driver.wait(until: UInt64.max)
        #expect(rig.drain(bound: 3).isEmpty)
        #expect(
            errnoOf { () throws(IOError) in
                _ = try rig.driver.openDirectory("/d", create: false)
            } == EIO)
    }

    @Test func aSyncCoversOnlyWhatHadCompletedBefore() {
        let rig = Rig()
        let file = rig.durableFile()
        rig.write(file, page: 0, 1)
        memset(rig.memory, 2, 4096)
        rig.start(.write, file, at: 4096, piece: rig.piece(0, 4096))
        rig.start(.sync, file, piece: rig.piece(0, 0))
        _ = rig.drain()
        rig.machine.crash(keep: .none)
        #expect(firstBytes(rig.machine) == [1, 0, 0])
    }

    @Test func createdNamesNeedADirectorySync() throws {
        let rig = Rig()
        let directory = try rig.driver.openDirectory("/d", create: true)
        let file = try rig.driver.open(directory, "new", .create)
        rig.write(file, page: 0, 1)
        rig.sync(file)
        let lost = rig.machine.copy()
        lost.crash(keep: .none)
        #expect(lost.fileNames("/d").isEmpty)
        let lucky = rig.machine.copy()
        lucky.crash(keep: .all)
        #expect(lucky.contents("/d", "new", offset: 0, length: 4096) == filled(1))
        rig.sync(directory)
        rig.machine.crash(keep: .none)
        #expect(rig.machine.contents("/d", "new", offset: 0, length: 4096) == filled(1))
    }

    @Test func removedNamesComeBackWithoutADirectorySync() throws {
        let rig = Rig()
        let file = rig.durableFile()
        rig.write(file, page: 0, 6)
        rig.sync(file)
        rig.driver.close(file)
        let directory = try rig.driver.openDirectory("/d", create: false)
        try rig.driver.remove(directory, "f")
        let fresh = try rig.driver.open(directory, "f", .exclusive)
        rig.write(fresh, page: 0, 7)
        let old = rig.machine.copy()
        old.crash(keep: .none)
        #expect(firstBytes(old).first == 6)
        rig.sync(fresh)
        rig.sync(directory)
        rig.machine.crash(keep: .none)
        #expect(firstBytes(rig.machine).first == 7)
    }

    @Test func allocationIsLostWithoutASync() throws {
        let rig = Rig()
        let file = rig.durableFile(pages: 2)
        rig.perform(.allocate, file, at: 2 * 4096, length: 4096)
        let used = rig.machine.copy()
        used.crash(keep: .none)
        #expect(used.fileSize("/d", "f") == 2 * 4096)
        rig.sync(file)
        rig.machine.crash(keep: .none)
        #expect(rig.machine.fileSize("/d", "f") == 3 * 4096)
    }

    @Test func locksDoNotSurvive() throws {
        let rig = Rig()
        let directory = try rig.driver.openDirectory("/d", create: true)
        try rig.driver.lock(directory, holder: "old")
        rig.machine.crash(keep: .all)
        let next = Rig(machine: rig.machine)
        let again = try next.driver.openDirectory("/d", create: false)
        try next.driver.lock(again, holder: "new")
        #expect(rig.machine.fileNames("/d") == ["LOCK"])
    }

    @Test func aBoundaryKillsTheDriver() {
        let rig = Rig()
        let file = rig.durableFile()
        let before = rig.driver.boundaryCount
        rig.driver.crashAfterBoundary = before + 2
        #expect(rig.write(file, page: 0, 1) == 4096)
        #expect(rig.read(file, page: 0) == filled(1))
        #expect(!rig.driver.dead && rig.driver.boundaryCount == before + 1)
        #expect(rig.write(file, page: 1, 2) == Int64.min)
        #expect(rig.driver.dead)
        rig.start(.read, file, piece: rig.piece(0, 4096))
        rig.driver.wait(until: rig.clock.monotonic + 1_000_000)
        #expect(rig.drain(bound: 3).isEmpty)
        // The write done and the write in flight, nothing after.
        #expect(rig.machine.unflushedCount == 2)
    }

    @Test func forksDoNotSeeEachOther() {
        let rig = prepared()
        let fork = Rig(machine: rig.machine.copy())
        guard let directory = try? fork.driver.openDirectory("/d", create: false),
            let file = try? fork.driver.open(directory, "f", .existing)
        else { fatalError("no file") }
        fork.write(file, page: 0, 0x99)
        #expect(firstBytes(fork.machine) == [0x99, 3, 4])
        #expect(firstBytes(rig.machine) == [2, 3, 4])
        fork.machine.flipBit("/d", "f", offset: 4096, bit: 0)
        #expect(firstBytes(rig.machine) == [2, 3, 4])
    }

    @Test func theOldestUnflushedWritesDrain() {
        let rig = Rig()
        let file = rig.durableFile()
        rig.machine.maximumUnflushed = 2
        for page in 0..<4 { rig.write(file, page: page, UInt8(1 + page)) }
        #expect(rig.machine.unflushedCount == 2)
        rig.machine.crash(keep: .none)
        #expect(firstBytes(rig.machine) == [1, 2, 0])
    }
}
