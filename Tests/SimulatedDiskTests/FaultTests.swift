// Each fault kind fires, is counted, and does what it says.

import BlockIO
import Glibc
import SimulatedDisk
import Testing

@Suite("Faults")
struct FaultTests {
    private func rig(_ kind: FaultKind, _ probability: Double = 1) -> (Rig, FileID) {
        let machine = SimulatedMachine()
        let file = Rig(machine: machine)
        _ = file.durableFile(pages: 64)
        var plan = FaultPlan(exempt: { $0 == "MANIFEST" })
        plan[kind] = probability
        plan.slowNanoseconds = 1_000_000
        plan.hangNanoseconds = 2_000_000
        let rig = Rig(machine: machine, faults: plan)
        rig.driver.faultsEnabled = false
        guard let directory = try? rig.driver.openDirectory("/d", create: false),
            let file = try? rig.driver.open(directory, "f", .existing)
        else { fatalError("no file") }
        for page in 0..<64 { rig.write(file, page: page, UInt8(page)) }
        rig.driver.faultsEnabled = true
        return (rig, file)
    }

    /// The bytes past any fault.
    private func bytes(_ rig: Rig, page: Int, pages: Int = 1) -> [UInt8] {
        rig.machine.contents("/d", "f", offset: page * 4096, length: pages * 4096) ?? []
    }

    private func differingBits(_ left: [UInt8], _ right: [UInt8]) -> Int {
        zip(left, right).reduce(0) { $0 + ($1.0 ^ $1.1).nonzeroBitCount }
    }

    @Test(arguments: FaultKind.allCases) func everyKindFiresAndIsCounted(_ kind: FaultKind) {
        let (rig, file) = rig(kind, 0.5)
        for round in 0..<40 {
            rig.write(file, page: round, pages: 4, UInt8(100 + round))
            _ = rig.read(file, page: round, pages: 4)
            rig.perform(.allocate, file, at: 0, length: 4096)
            rig.sync(file)
        }
        #expect(rig.driver.faultCount(kind) >= 5)
        for other in FaultKind.allCases where other != kind {
            #expect(rig.driver.faultCount(other) == 0)
        }
        rig.driver.faultsEnabled = false
        let before = rig.driver.faultCount(kind)
        rig.clock.advance(by: 1_000_000_000)
        #expect(rig.write(file, page: 0, pages: 4, 1) == 4 * 4096)
        #expect(rig.read(file, page: 0, pages: 4) == filled(1, 4 * 4096))
        #expect(rig.driver.faultCount(kind) == before)
        #expect(rig.driver.violations.isEmpty)
    }

    @Test func ofKindsThatAPlanAllowsOnceOneStrikes() throws {
        let machine = SimulatedMachine()
        _ = Rig(machine: machine).durableFile(pages: 64)
        var plan = FaultPlan()
        plan[.bitFlip] = 0.5
        plan[.lostWrite] = 0.5
        plan[.reorder] = 0.5
        plan.allowOne(of: [.bitFlip, .lostWrite])
        let rig = Rig(machine: machine, faults: plan)
        let directory = try rig.driver.openDirectory("/d", create: false)
        let file = try rig.driver.open(directory, "f", .existing)
        for page in 0..<64 { rig.write(file, page: page, UInt8(page)) }
        #expect(rig.driver.faultCount(.bitFlip) + rig.driver.faultCount(.lostWrite) == 1)
        #expect(rig.driver.faultCount(.reorder) > 10)
    }

    @Test func bitFlipIsOneBit() {
        let (rig, file) = rig(.bitFlip)
        #expect(rig.write(file, page: 0, 0x33) == 4096)
        #expect(differingBits(bytes(rig, page: 0), filled(0x33)) == 1)
    }

    @Test func bitRotStaysAndIsDurable() {
        let (rig, file) = rig(.bitRot)
        rig.sync(file)
        let read = rig.read(file, page: 5) ?? []
        #expect(differingBits(read, filled(5)) == 1)
        rig.machine.crash(keep: .none)
        #expect(bytes(rig, page: 5) == read)
    }

    @Test func bitRotInAnUnflushedWriteSurvivesItsSync() {
        let (rig, file) = rig(.bitRot, 0)
        rig.write(file, page: 2, pages: 3, 0xF0)
        rig.machine.flipBit("/d", "f", offset: 3 * 4096 + 10, bit: 2)
        rig.sync(file)
        rig.machine.crash(keep: .none)
        let after = bytes(rig, page: 2, pages: 3)
        #expect(differingBits(after, filled(0xF0, 3 * 4096)) == 1 && after[4096 + 10] == 0xF4)
    }

    @Test func latentSectorErrorsStayUntilRewritten() {
        let (rig, file) = rig(.latentSectorError)
        #expect(rig.perform(.read, file, at: 7 * 4096, length: 4096) == -Int64(EIO))
        rig.driver.faultsEnabled = false
        #expect(rig.perform(.read, file, at: 7 * 4096, length: 4096) == -Int64(EIO))
        #expect(rig.perform(.read, file, at: 6 * 4096, length: 8192) == -Int64(EIO))
        #expect(rig.read(file, page: 6) == filled(6))
        rig.write(file, page: 7, 0x44)
        #expect(rig.read(file, page: 7) == filled(0x44))
    }

    @Test func tornWritesMixSectors() {
        let (rig, file) = rig(.tornWrite)
        for round in 0..<20 {
            #expect(rig.write(file, page: 4, pages: 2, 0xEE) == 8192)
            let after = bytes(rig, page: 4, pages: 2)
            for sector in 0..<16 {
                let old: UInt8 = sector < 8 ? 4 : 5
                let values = Set(after[(sector * 512)..<(sector * 512 + 512)])
                #expect(values == [0xEE] || values == [old])
            }
            #expect(after != filled(0xEE, 8192), "round \(round) was whole")
            rig.driver.faultsEnabled = false
            rig.write(file, page: 4, 4)
            rig.write(file, page: 5, 5)
            rig.driver.faultsEnabled = true
        }
    }

    @Test func lostAndMisdirectedWritesLeaveTheOldBytes() {
        let (lost, file) = rig(.lostWrite)
        #expect(lost.write(file, page: 9, 0xAB) == 4096)
        #expect(bytes(lost, page: 9) == filled(9))
        let (rig, other) = rig(.misdirectedWrite)
        let before = bytes(rig, page: 0, pages: 64)
        #expect(rig.write(other, page: 9, 0xAB) == 4096)
        let after = bytes(rig, page: 0, pages: 64)
        #expect(bytes(rig, page: 9) == filled(9))
        let changed = (0..<64).filter { before[$0 * 4096] != after[$0 * 4096] }
        #expect(changed.count == 1 && changed != [9])
    }

    @Test func misdirectedAndStaleReadsGiveOtherBytes() {
        let (wrong, file) = rig(.misdirectedRead)
        let read = wrong.read(file, page: 9) ?? []
        #expect(Set(read).count == 1 && read != filled(9))
        let (rig, other) = rig(.staleRead)
        rig.write(other, page: 9, 0x51)
        #expect(rig.read(other, page: 9) == filled(9))
        #expect(bytes(rig, page: 9) == filled(0x51))
    }

    @Test func shortTransfersAreResumedAndWhole() {
        let (rig, file) = rig(.shortIO)
        let begin = rig.clock.monotonic
        #expect(rig.write(file, page: 0, pages: 8, 0x61) == 8 * 4096)
        #expect(rig.clock.monotonic == begin + 200_000)
        #expect(rig.read(file, page: 0, pages: 8) == filled(0x61, 8 * 4096))
        #expect(rig.driver.statistics.shortResumed == 2)
        #expect(rig.driver.violations.isEmpty)
    }

    @Test func errorsAreReported() {
        let (space, file) = rig(.noSpace)
        #expect(space.write(file, page: 0, 1) == -Int64(ENOSPC))
        #expect(space.perform(.allocate, file, length: 4096) == -Int64(ENOSPC))
        let (bad, other) = rig(.ioError)
        #expect(bad.write(other, page: 0, 1) == -Int64(EIO))
        #expect(bad.perform(.punchHole, other, length: 4096) == -Int64(EIO))
        #expect(bad.read(other, page: 1) == filled(1))
    }

    /// Each unflushed page is durable, or seen but lost at the crash, or reverted.
    @Test func failedSyncsLie() {
        let (rig, file) = rig(.syncError, 0)
        rig.sync(file)
        for page in 0..<48 { rig.write(file, page: page, 0xC0) }
        var plan = FaultPlan()
        plan[.syncError] = 1
        let failing = Rig(machine: rig.machine, faults: plan, seed: 3)
        guard let directory = try? failing.driver.openDirectory("/d", create: false),
            let again = try? failing.driver.open(directory, "f", .existing)
        else { fatalError("no file") }
        #expect(failing.sync(again) == -Int64(EIO))
        failing.driver.faultsEnabled = false
        #expect(failing.sync(again) == 0)
        let seen = (0..<48).map { bytes(rig, page: $0).first == 0xC0 }
        rig.machine.crash(keep: .all)
        let kept = (0..<48).map { bytes(rig, page: $0).first == 0xC0 }
        let fates = zip(seen, kept).map { $0.0 ? ($0.1 ? "durable" : "lied") : "reverted" }
        #expect(Set(fates) == ["durable", "lied", "reverted"])
    }

    @Test func timingFaultsDelayOnly() {
        let (late, file) = rig(.lateCompletion)
        let begin = late.clock.monotonic
        #expect(late.read(file, page: 1) == filled(1))
        #expect(late.clock.monotonic == begin + 10_000_000)
        let (again, other) = rig(.again)
        let start = again.clock.monotonic
        #expect(again.read(other, page: 1) == filled(1))
        #expect(again.clock.monotonic == start + 200_000)
        let (rig, third) = rig(.reorder, 0.5)
        var tags: [UInt64] = []
        for page in 0..<16 {
            tags.append(
                rig.start(.read, third, at: page * 4096, piece: rig.piece(page * 4096, 4096)))
        }
        let order = rig.drain().map(\.tag)
        #expect(order != tags && order.sorted() == tags)
    }

    @Test func slowAndHungSpellsEnd() {
        let (slow, file) = rig(.slowDevice)
        let begin = slow.clock.monotonic
        _ = slow.read(file, page: 1)
        #expect(slow.clock.monotonic == begin + 2_000_000)
        let (hung, other) = rig(.hungDevice)
        let start = hung.clock.monotonic
        #expect(hung.read(other, page: 1) == filled(1))
        #expect(hung.clock.monotonic == start + 2_000_000)
    }

    @Test func exemptFilesAreSpared() throws {
        let (rig, _) = rig(.ioError)
        let directory = try rig.driver.openDirectory("/d", create: false)
        let manifest = try rig.driver.open(directory, "MANIFEST", .create)
        #expect(rig.write(manifest, page: 0, 1) == 4096)
        #expect(rig.driver.faultCount(.ioError) == 0)
    }
}
