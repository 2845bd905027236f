// What comes back: a member that was away, a life whose next header never landed, a copy that was
// not flushed. No delete is undone by it, and nothing durable is given up for it.

import BlockIO
import SegmentFormat
import SimulatedDisk
import Staging
import Testing

@testable import LogStore

@Suite struct ReturnTests {
    private static let length = 40_000

    private func put(_ world: World, _ space: UInt16, _ numbers: Range<Int>) {
        for number in numbers {
            let status = world.put("key-\(number)", space, revision: 0, length: Self.length)
            #expect(status == .stored)
        }
    }

    private func world(
        _ directories: [String], mode: StoreMode
    ) throws -> (World, UInt16) {
        let world = try World(
            World.configuration(directories: directories, mode: mode, staging: 0))
        return (world, world.namespace())
    }

    private func expectGone(_ world: World, _ space: UInt16, _ keys: some Sequence<Int>) {
        for number in keys {
            let answer = world.get("key-\(number)", space, length: Self.length).0
            #expect(answer.status == .miss, "key-\(number) is back")
        }
    }

    // MARK: Checkpoints and tombstones

    /// The checkpoint covers the segments of the tombstones, and knows nothing of the member that
    /// was away when they were written.
    @Test func aDeleteHoldsAgainstAMemberThatTheCheckpointDidNotSee() throws {
        let (world, space) = try world(["/a", "/b"], mode: .store)
        world.store.log.stripeDevice = 1
        put(world, space, 0..<30)
        world.flush()
        world.close()
        world.machine.detach("/b")
        try world.open()
        for number in 0..<10 { #expect(world.remove("key-\(number)", space) == .notFound) }
        world.seal(.recordsA)
        world.seal(.recordsB)
        world.close()
        world.machine.attach("/b")
        try world.open()
        expectGone(world, space, 0..<10)
        for number in 10..<30 {
            let reason = world.missed("key-\(number)", space, revision: 0, length: Self.length)
            #expect(reason == nil, "key-\(number)")
        }
        world.checkAccounts()
    }

    /// The headers of a segment cannot be read at one opening, and can at the next.
    @Test func aDeleteHoldsAgainstASegmentThatWasNotReadable() throws {
        let (world, space) = try world(["/a"], mode: .store)
        put(world, space, 0..<10)
        let segment = try #require(world.entry("key-0", space)).place.segment
        world.seal(.fresh)
        world.flush()
        world.close()
        let pages = [0, Int(world.store.log.segmentPages) - 1]
        for page in pages { world.flip(world.place(segment: segment, page: page)) }
        try world.open()
        #expect(world.store.log.statistics.recovery.damagedSegments == 1)
        for number in 0..<5 { #expect(world.remove("key-\(number)", space) == .notFound) }
        world.seal(.recordsA)
        world.seal(.recordsB)
        world.close()
        for page in pages { world.flip(world.place(segment: segment, page: page)) }
        try world.open()
        expectGone(world, space, 0..<5)
        for number in 5..<10 {
            let reason = world.missed("key-\(number)", space, revision: 0, length: Self.length)
            #expect(reason == nil, "key-\(number)")
        }
        world.checkAccounts()
    }

    // MARK: Lives that were to end

    /// Pumps until a segment of a cache is to get its next header; what was in it is evicted.
    private func recycleOne(_ world: World, until phase: ReclaimPhase) -> UInt32 {
        let log = world.store.log
        for _ in 0..<20_000 {
            if log.reclaimers[0].phase == phase, log.segments[log.reclaimers[0].segment].file >= 0,
                log.reclaimers[0].isRecycling || phase == .reading
            {
                return log.reclaimers[0].segment
            }
            log.wantReclaim = true
            if !log.pump() { world.pause(1_000) }
        }
        Issue.record("nothing is recycled")
        return 0
    }

    /// Its next header could not be written: the segment still has what was evicted from it.
    @Test func aDeleteHoldsAgainstALifeThatDidNotEnd() throws {
        let (world, space) = try world(["/a"], mode: .cache)
        put(world, space, 0..<200)
        world.flush()
        var faults = FaultPlan.none
        faults[.ioError] = 1
        world.store.shutdown()
        try world.reopen(faults, enabled: false)
        world.settle()
        let log = world.store.log
        let victim = recycleOne(world, until: .reading)
        let there = (0..<200).filter {
            world.entry("key-\($0)", space)?.place.segment == victim
        }
        try #require(there.count > 10)
        world.driver.faultsEnabled = true
        for _ in 0..<20_000 where log.segments[victim].state != .quarantined {
            if !log.pump() { world.pause(1_000) }
        }
        world.driver.faultsEnabled = false
        log.wantReclaim = false
        world.settle()
        #expect(log.segments[victim].state == .quarantined)
        let gone = there.filter { world.entry("key-\($0)", space) == nil }
        try #require(gone.count > 5)
        for number in gone.prefix(5) {
            #expect(world.remove("key-\(number)", space) == .notFound)
        }
        try world.crash(.none)
        expectGone(world, space, gone.prefix(5))
        world.checkAccounts()
    }

    /// One of the two headers of the next life is there: until both are durable the life before may
    /// come back, and the tombstones against what lies in it stay.
    @Test func aHalfHeadedSegmentMayGoBackToItsFormerLife() throws {
        let (world, space) = try world(["/a"], mode: .cache)
        put(world, space, 0..<200)
        world.flush()
        let victim = recycleOne(world, until: .writingHeader)
        // The header on the first page is the last of the requests in flight.
        world.machine.crash(keep: .subset(1 << UInt64(world.machine.unflushedCount - 1)))
        try world.reopen(.none, enabled: false)
        let log = world.store.log
        for _ in 0..<20_000 where !log.isRecovered {
            if !log.pump() { world.pause(1_000) }
        }
        #expect(log.isRecovered)
        #expect(log.segments[victim].generation == 0, "half-headed")
        var looked = 0
        for _ in 0..<20_000 where log.segments[victim].state != .clean {
            log.wantReclaim = true
            #expect(log.oldestValue(except: UInt32.max) == 0)
            if !log.flush.isFirst { looked += 1 }
            if !log.pump() { world.pause(1_000) }
        }
        #expect(looked > 0 && log.segments[victim].state == .clean)
        log.wantReclaim = false
        world.settle()
        world.checkAccounts()
    }

    // MARK: While recovery reads

    /// A checkpoint brings values before the tombstones that say they are dead: nobody is told.
    @Test func nothingDeadIsServedWhileRecoveryReads() throws {
        let (world, space) = try world(["/a"], mode: .store)
        put(world, space, 0..<30)
        world.checkpoint()
        for number in 0..<20 { #expect(world.remove("key-\(number)", space) == .deleted) }
        world.machine.crash(keep: .all)
        try world.reopen(.none, enabled: false)
        let log = world.store.log
        let dead = (0..<20).map { number in
            Array("key-\(number)".utf8).withUnsafeBytes { log.fingerprint(space, $0) }
        }
        var met = 0
        while !log.isRecovered {
            for key in dead {
                if log.index.find(key) != nil { met += 1 }
                #expect(log.lookup(key).entry == nil)
            }
            if !world.store.pump() { world.pause(10_000) }
        }
        #expect(met > 0, "none came up: nothing was tested")
        expectGone(world, space, 0..<20)
        world.checkAccounts()
    }

    // MARK: The first flush after an opening

    /// A store in which both values of a key lie, and no record says which: a durable block was
    /// replaced, and the process ended before the new value was flushed. And where the old one is.
    private func replacedWithoutItsRecords(
        seed: UInt64
    ) throws -> (World, UInt16, older: UInt32) {
        let (world, space) = try world(["/a"], mode: .store)
        world.seed = seed
        put(world, space, 0..<1)
        world.seal(.fresh)
        world.flush()
        world.checkpoint()
        let log = world.store.log
        let older = try #require(world.entry("key-0", space)).place.segment
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 36_864, alignment: 4096)
        defer { bytes.deallocate() }
        bytes.copyBytes(from: payload("key-0", revision: 1, length: 36_864).prefix(36_864))
        log.flush.pendingSyncs = 1  // as if one were under way all the time
        try world.begin(.put, "key-0", space, bytes: bytes) { $0.replace = true }
        for _ in 0..<1000
        where log.segments.sum({ Int($0.unpublished) }) == 0 || world.driver.inFlight > 0 {
            if !log.pump() { world.pause(1_000) }
        }
        try #require(log.segments.sum { Int($0.unpublished) } == 1 && world.driver.inFlight == 0)
        world.store.shutdown()
        return (world, space, older)
    }

    /// What recovery reads to decide between them comes from elsewhere, or not at all, once.
    @Test(arguments: [FaultKind.misdirectedRead, .readError], 1...4 as ClosedRange<UInt64>)
    func oneBadReadDoesNotBringTheOlderValueBack(kind: FaultKind, seed: UInt64) throws {
        let (world, space, _) = try replacedWithoutItsRecords(seed: seed)
        var faults = FaultPlan.none
        faults[kind] = 1
        faults.allowOne(of: [kind])
        try world.reopen(faults, enabled: false)
        for _ in 0..<20_000 where world.store.log.recovery != nil {
            if world.store.log.recovery?.phase == .contested { world.driver.faultsEnabled = true }
            if !world.store.pump() { world.pause(10_000) }
        }
        world.settle()
        #expect(world.driver.faultCount(kind) == 1)
        #expect(world.store.log.statistics.recovery.contested == 1)
        #expect(world.store.log.statistics.recovery.contestedLost == 0)
        #expect(world.missed("key-0", space, revision: 1, length: 36_864) == nil)
    }

    /// The first flush of the next opening fails: the old value is still there if the new one is
    /// lost.
    @Test(arguments: [false, true], 1...12 as ClosedRange<UInt64>)
    func theOlderValueOutlivesAFailedFirstFlush(checkpoint: Bool, seed: UInt64) throws {
        let (world, space, older) = try replacedWithoutItsRecords(seed: seed)
        var faults = FaultPlan.none
        faults[.syncError] = 1
        try world.reopen(faults, enabled: false)
        for _ in 0..<20_000 where world.store.log.statistics.flushErrors == 0 {
            if world.store.log.recovery?.phase == .contested { world.driver.faultsEnabled = true }
            if !world.store.pump() { world.pause(10_000) }
        }
        world.driver.faultsEnabled = false
        world.settle()
        #expect(world.store.log.statistics.flushErrors > 0)
        #expect(world.entry("key-0", space)?.place.segment != older)
        if checkpoint {
            world.checkpoint()
        } else {
            // Everything that holds nothing alive is recycled.
            world.store.log.beginRewriting()
            for _ in 0..<500 {
                if !world.store.pump() { world.pause(100_000) }
            }
            world.settle()
        }
        try world.crash(.none)
        let (answer, found) = world.get("key-0", space, length: Self.length)
        #expect(answer.status == .hit, "seed \(seed): \(answer)")
        if answer.status == .hit {
            let revision = answer.length == 36_864 ? 1 : 0
            let right = payload("key-0", revision: revision, length: Int(answer.length))
            #expect(Array(found.prefix(Int(answer.length))) == Array(right.prefix(right.count)))
        }
        world.checkAccounts()
    }
}

extension SegmentTable {
    func sum(_ count: (Segment) -> Int) -> Int {
        var sum = 0
        forEach { sum += count(self[$0]) }
        return sum
    }
}

extension World {
    /// Opens with a driver of its own faults, and does not wait for anything.
    func reopen(_ faults: FaultPlan, enabled: Bool) throws {
        driver = SimulatedDriver(
            machine: machine, regions: RegionTable(), clock: clock, faults: faults,
            latency: latency, seed: seed)
        driver.faultsEnabled = enabled
        store = try StagedStore.open(configuration, driver: driver, clock: clock)
        store.sink = sink
    }

    /// Submits an operation and does not wait for it; the caller keeps `bytes`.
    @discardableResult
    func begin(
        _ kind: StoreOperationKind, _ key: String, _ space: UInt16,
        bytes: UnsafeMutableRawBufferPointer, _ change: (inout StoreOperation) -> Void = { _ in }
    ) throws -> UInt64 {
        let token = token()
        let piece = UnsafeMutablePointer<Piece>.allocate(capacity: 1)  // kept: it is used later
        piece.initialize(
            to: Piece(
                region: .process, offset: UInt64(UInt(bitPattern: bytes.baseAddress)),
                length: UInt64(bytes.count)))
        let keyBytes = UnsafeMutableRawBufferPointer.allocate(
            byteCount: key.utf8.count, alignment: 1)  // kept, too
        keyBytes.copyBytes(from: key.utf8)
        var operation = StoreOperation(
            kind: kind, token: token, namespaceSlot: space, key: UnsafeRawBufferPointer(keyBytes))
        operation.pieces = UnsafePointer(piece)
        operation.pieceCount = 1
        if kind == .put { operation.length = UInt32(bytes.count) }
        change(&operation)
        #expect(store.submit(operation))
        return token
    }
}
