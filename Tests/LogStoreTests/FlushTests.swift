// Flushes that fail: what was written by then may be lost although the next flush succeeds.

import BlockIO
import SegmentFormat
import SimulatedDisk
import Staging
import Testing

@testable import LogStore

@Suite struct FlushTests {
    /// A durable put is written while a flush is on its way that fails. Whatever it is told, once
    /// it has been called durable it is there after a crash.
    @Test func aPutBesideAFailingFlush() throws {
        var outcomes: [Status: Int] = [:]
        for seed in 1...24 as ClosedRange<UInt64> {
            var faults = FaultPlan.none
            faults[.syncError] = 1
            let world = try World(World.configuration(staging: 0), seed: seed)
            let space = world.namespace()
            #expect(world.put("first", space, revision: 0, length: 3000) == .stored)
            world.flush()
            world.store.shutdown()
            world.driver = SimulatedDriver(
                machine: world.machine, regions: RegionTable(), clock: world.clock,
                faults: faults, latency: .nvme, seed: seed)
            world.driver.faultsEnabled = false
            world.store = try StagedStore.open(
                world.configuration, driver: world.driver, clock: world.clock)
            world.store.sink = world.sink
            world.settle()
            let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 9000, alignment: 4096)
            defer { bytes.deallocate() }
            bytes.copyBytes(from: payload("beside", revision: 0, length: 9000))
            #expect(world.put("before", space, revision: 0, length: 5000) == .stored)
            world.store.flush(token: world.token(), through: UInt64.max)
            world.driver.faultsEnabled = true
            world.store.pump()
            #expect(world.store.log.flush.isRunning)
            world.driver.faultsEnabled = false
            // Written before the flush has failed.
            let answer = world.run(.put, "beside", space, bytes: bytes) { $0.durability = .durable }
            outcomes[answer.status, default: 0] += 1
            #expect(world.store.log.statistics.flushErrors == 1)
            let more = world.put("more", space, revision: 0, length: 5000, durability: .durable)
            #expect(more == .stored)
            try world.crash(.none)
            if answer.status == .stored {
                let reason = world.missed("beside", space, revision: 0, length: 9000)
                #expect(reason == nil, "seed \(seed)")
            }
            #expect(world.missed("more", space, revision: 0, length: 5000) == nil)
            #expect(world.missed("first", space, revision: 0, length: 3000) == nil)
            world.checkAccounts()
        }
        #expect(outcomes.keys.allSatisfy { $0 == .stored || $0 == .failed }, "\(outcomes)")
    }

    /// The records of a delete are written while a flush of their segment is on its way that
    /// fails: the next flush, which is good, says nothing of them.
    @Test(arguments: [["/store"], ["/a", "/b"]])
    func aDeleteBesideAFailingFlush(directories: [String]) throws {
        var failed = 0
        for seed in 1...12 as ClosedRange<UInt64> {
            let world = try World(
                World.configuration(directories: directories, mode: .store, staging: 0),
                seed: seed, latency: .nvme)
            let space = world.namespace()
            for key in ["first", "second", "third"] {
                #expect(world.put(key, space, revision: 0, length: 5000) == .stored)
            }
            world.flush()
            world.store.shutdown()
            var faults = FaultPlan.none
            faults[.syncError] = 1
            try world.reopen(faults, enabled: false)
            world.settle()
            let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 64, alignment: 64)
            defer { bytes.deallocate() }
            // The flush of this one is the one that fails.
            world.driver.faultsEnabled = true
            let before = try world.begin(.delete, "second", space, bytes: bytes)
            while !world.store.log.flush.isRunning {
                if !world.store.pump() { world.pause(10_000_000) }
            }
            world.driver.faultsEnabled = false
            let beside = try world.begin(.delete, "first", space, bytes: bytes)
            while world.sink.answers[before] == nil || world.sink.answers[beside] == nil {
                if !world.store.pump() { world.pause(10_000_000) }
            }
            #expect(world.sink.answers[before]?.status == .failed)
            let status = world.sink.answers[beside]?.status
            #expect(status == .deleted || status == .failed)
            if status == .failed { failed += 1 }
            #expect(world.run(.delete, "third", space).status == .deleted)
            try world.crash(.none)
            if status == .deleted {
                #expect(world.missed("first", space, revision: 0, length: 5000) != nil)
            }
            #expect(world.missed("third", space, revision: 0, length: 5000) != nil)
            world.checkAccounts()
        }
        #expect(failed > 0)
    }

    /// A device did not answer in time for a flush: what it holds can still be read, and counts as
    /// lost. Where it lies it will never be durable; put once more to be so it is written anew.
    @Test func whatAFlushGaveUpCanBePutAgain() throws {
        let world = try World(
            World.configuration(directories: ["/a", "/b"], staging: 0))
        let machine = world.machine
        let space = world.namespace()
        let log = world.store.log
        log.stripeDevice = 1
        log.stripeBytes = 0
        func put(_ length: Int, _ durability: Durability = .written) -> StoreAnswer {
            world.put(
                "a", space, payload("a", revision: 0, length: length), durability: durability)
        }
        func pump(until isOver: () -> Bool) {
            for _ in 0..<100_000 where !isOver() {
                if !world.store.pump() { world.pause(1_000_000) }
            }
        }
        let first = put(5000)
        #expect(first.status == .stored)
        machine.hang("/b")
        let token = world.token()
        world.store.flush(token: token, through: UInt64.max)
        pump { world.sink.outcomes[token] != nil }
        #expect(world.sink.outcomes[token]?.status == .failed)
        machine.release("/b")
        pump { log.devices[1].state == .healthy }
        #expect(world.missed("a", space, revision: 0, length: 5000) == nil)
        #expect(put(6000, .durable).status == .conflict)
        let written = put(5000)
        #expect(written.status == .alreadyPresent && written.version == first.version)
        let again = put(5000, .durable)
        #expect(again.status == .stored && again.version > first.version)
        #expect(put(5000, .durable).status == .alreadyPresent)
        try world.crash(.none)
        #expect(world.missed("a", space, revision: 0, length: 5000) == nil)
        world.checkAccounts()
    }

    /// A flush that goes on without a device that does not answer settles what lies on the other,
    /// and not what lies on that one.
    @Test func aFlushBesideALateDeviceSettlesTheOthersAlone() throws {
        let world = try World(
            World.configuration(directories: ["/a", "/b"], staging: 0))
        let machine = world.machine
        let space = world.namespace()
        let log = world.store.log
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 5000, alignment: 4096)
        defer { bytes.deallocate() }
        func put(_ key: String, on device: Int) throws -> UInt64 {
            log.stripeDevice = device
            log.stripeBytes = 0
            bytes.copyBytes(from: payload(key, revision: 0, length: 5000))
            return try world.begin(.put, key, space, bytes: bytes) { $0.durability = .durable }
        }
        func pump(until isOver: () -> Bool) {
            for _ in 0..<100_000 where !isOver() {
                if !world.store.pump() { world.pause(1_000) }
            }
        }
        world.flush()
        let late = try put("late", on: 1)
        pump { log.flush.isRunning }
        machine.hang("/b")
        let other = try put("other", on: 0)
        pump { world.sink.answers[other] != nil }
        #expect(world.sink.answers[other]?.status == .stored)
        #expect(log.statistics.partedFlushes == 1)
        #expect(world.sink.answers[late] == nil, "it is on the device that has not answered")
        try world.crash(.none)
        #expect(world.missed("other", space, revision: 0, length: 5000) == nil)
        #expect(world.get("late", space, length: 5000).0.status == .miss)
        world.checkAccounts()
    }

    /// What is still being written when a flush begins is not among what it made durable.
    @Test func aFlushRaisesTheWatermarkToWhatHadEnded() throws {
        let world = try World(
            World.configuration(directories: ["/a", "/b"], staging: 0))
        let machine = world.machine
        let space = world.namespace()
        let log = world.store.log
        log.stripeDevice = 0
        log.stripeBytes = 0
        let first = world.put("first", space, payload("first", revision: 0, length: 5000))
        log.stripeDevice = 1
        log.stripeBytes = 0
        machine.hang("/b")
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 5000, alignment: 4096)
        defer { bytes.deallocate() }
        bytes.copyBytes(from: payload("late", revision: 0, length: 5000))
        let late = try world.begin(.put, "late", space, bytes: bytes) { $0.durability = .written }
        world.store.pump()
        let token = world.token()
        world.store.flush(token: token, through: first.version)
        for _ in 0..<10_000 where world.sink.outcomes[token] == nil {
            if !world.store.pump() { world.pause(1_000) }
        }
        #expect(world.sink.outcomes[token]?.status == .done)
        #expect(world.sink.answers[late] == nil && log.nextVersion > first.version)
        #expect(log.durableVersion == first.version)
        machine.release("/b")
        world.settle()
        #expect(world.sink.answers[late]?.status == .stored)
    }

    /// A put was answered as written, and the next flush failed: whoever asks for that version is
    /// told, however many flushes have been good since; who flushes everything is told once.
    @Test func aLostVersionIsTold() throws {
        for byName in [true, false] {
            let world = try World(World.configuration(staging: 0), seed: 5)
            let space = world.namespace()
            var faults = FaultPlan.none
            faults[.syncError] = 1
            world.store.shutdown()
            try world.reopen(faults, enabled: false)
            world.settle()
            func put(_ key: String) -> UInt64 {
                world.put(key, space, payload(key, revision: 0, length: 5000)).version
            }
            func flush(_ version: UInt64) -> Status {
                world.control { world.store.flush(token: $0, through: version) }.status
            }
            let before = put("before")
            #expect(flush(UInt64.max) == .done)
            let lost = put("lost")
            // Somebody else's flush, which nobody asked for by a version.
            world.driver.faultsEnabled = true
            world.store.log.flush.isWanted = true
            world.settle()
            world.driver.faultsEnabled = false
            #expect(world.store.log.statistics.flushErrors > 0)
            let after = put("after")
            #expect(lost > before && after > lost)
            if byName {
                #expect(flush(lost) == .failed)
            } else {
                #expect(flush(UInt64.max) == .failed)
            }
            #expect(flush(UInt64.max) == .done)
            #expect(flush(after) == .done)
            #expect(flush(before) == .done)
            #expect(flush(lost) == .failed, "it is still not durable")
            try world.crash(.none)
            #expect(world.missed("before", space, revision: 0, length: 5000) == nil)
            #expect(world.missed("after", space, revision: 0, length: 5000) == nil)
        }
    }
}
