// Prefetcher: what is expected to be read, brought into staging before. Hints and predictors put
// blocks into a bounded queue; `advance` starts reading them, those due first, under what somebody
// waits for and above what nobody does. Owner thread; nothing allocates after open.
//
// Invariants:
//  - whatever is hinted, memory and time are bounded: a block is looked up once when it is hinted
//    and once when it is begun, tables have fixed sizes, and what has no room is counted;
//  - unused blocks and those under way hold at most a share of staging;
//  - while somebody waits for a device, one prefetch at a time is under way, and all of
//    them take at most a share of the bandwidth;
//  - a hint never drops a copy: what proves wrong moves to the end that leaves first.

import BlockIO
import LogStore
import SegmentFormat
import Staging

package final class Prefetcher {
    package let configuration: PrefetchConfiguration
    let staged: StagedStore
    let log: LogStore
    let arena: StagingArena
    let queue: PrefetchQueue
    @exclusivity(unchecked) var unused: UnusedBlocks
    let displaced = DisplacedKeys()
    private let raised = RaisedReads()
    @exclusivity(unchecked) var counts = PrefetchStatistics()
    @exclusivity(unchecked) private var bucket: TokenBucket
    @exclusivity(unchecked) private var meter: BandwidthMeter
    /// By device, as what hangs on one that does badly is not to hold up the rest.
    private let underWay = DeviceShares()
    @exclusivity(unchecked) private var wake = UInt64.max
    /// No room was found: nothing is begun before, and how long the next such pause is.
    @exclusivity(unchecked) private var pausedUntil: UInt64 = 0
    @exclusivity(unchecked) private var pause: UInt64 = 0
    private let windowBytes: Int
    private var isStopped = false

    private static let shortestPause: UInt64 = 1_000_000
    private static let longestPause: UInt64 = 100_000_000

    /// Nil for a store without staging: there is nowhere to bring anything.
    package init?(_ staged: StagedStore, _ configuration: PrefetchConfiguration) {
        guard let arena = staged.arena, !configuration.predictors.isEmpty else { return nil }
        self.staged = staged
        self.arena = arena
        self.configuration = configuration
        log = staged.log
        queue = PrefetchQueue(blocks: configuration.blocks, requests: configuration.requests)
        unused = UnusedBlocks(capacity: arena.residentCapacity)
        bucket = TokenBucket(burstBytes: configuration.burstBytes)
        meter = BandwidthMeter(assumed: configuration.assumedBandwidth)
        windowBytes = arena.slabCount * arena.slabBytes / configuration.windowShare
    }

    deinit {
        unused.deallocate()
        displaced.deallocate()
        raised.deallocate()
        underWay.deallocate()
    }

    /// Bytes of memory that tables for so many residents take.
    package static func memoryBytes(
        _ configuration: PrefetchConfiguration, residents: Int
    ) -> Int {
        PrefetchQueue.memoryBytes(
            blocks: configuration.blocks, requests: configuration.requests)
            + UnusedBlocks.memoryBytes(residents) + DisplacedKeys.capacity * 8
            + RaisedReads.memoryBytes
    }

    package var statistics: PrefetchStatistics {
        var made = counts
        made.waiting = queue.waiting
        made.inFlight = queue.inFlight
        made.unusedBytes = unused.windowBytes
        return made
    }

    /// Whether nothing waits or is under way.
    package var isIdle: Bool { queue.waiting == 0 && queue.inFlight == 0 }

    /// Begins nothing from here on.
    package func stop() { isStopped = true }

    // MARK: Wanting

    /// What became of a key that is wanted.
    package enum Wanted: Sendable {
        case queued
        case absent
        case resident
        case twice
        case overflowed
    }

    /// Puts the block into the queue unless it is there, in staging, or not stored at all.
    func want(
        _ request: Int32, _ fingerprint: Fingerprint, _ key: UnsafeRawBufferPointer,
        namespaceSlot: UInt16, _ predictor: PredictorKind
    ) -> Wanted {
        if let found = arena.find(fingerprint.stagingKey) {
            // It will be read: it must not leave before.
            if found.state.isVisible { arena.touch(found.slot) }
            return .resident
        }
        if queue.find(fingerprint) >= 0 { return .twice }
        guard let entry = log.lookup(fingerprint).entry, !entry.isDamaged else { return .absent }
        guard
            queue.append(
                request, fingerprint, key, namespaceSlot: namespaceSlot,
                instance: log.namespaces.instance(namespaceSlot), predictor)
        else { return .overflowed }
        return .queued
    }

    // MARK: Beginning

    /// When `advance` should be called next, if nothing else happens; monotonic nanoseconds.
    package var nextWake: UInt64 { queue.waiting == 0 || isStopped ? .max : wake }

    /// Begins what may begin now. Whether anything did.
    @discardableResult
    package func advance() -> Bool {
        guard queue.waiting > 0, !isStopped else { return false }
        let now = log.clock.monotonic
        meter.observe(total: log.statistics.readBytes, now: now)
        wake = .max
        if now < pausedUntil {
            wake = pausedUntil
            return false
        }
        let share = configuration.demandShare * meter.bytesPerSecond
        bucket.fill(bytesPerSecond: share, now: now)
        let waits = log.demandWaits
        var begun = false
        while queue.first >= 0 {
            let (blocks, bytesInFlight) = underWay.sum(log)
            if blocks >= (waits ? 1 : configuration.operations) { break }
            let index = queue.first
            guard let bytes = bytesWanted(index) else {
                begun = true
                continue
            }
            if bytesInFlight > 0, bytesInFlight + bytes > inFlightLimit(bytes) { break }
            if waits, bucket.isEmpty {
                wake = now + bucket.wait(bytesPerSecond: share)
                break
            }
            if !makeWindow(bytes, for: queue.blocks[Int(index)].request, now) { break }
            if waits { bucket.take(bytes) }
            begun = true
            if !begin(index, bytes) { break }
        }
        return begun
    }

    /// What may be under way at once: little enough that a demand read that comes now does not
    /// stand behind more than some milliseconds of it, but always two blocks, to keep a
    /// device busy.
    private func inFlightLimit(_ bytes: Int) -> Int {
        let queued = Int(meter.bytesPerSecond * configuration.longestQueue)
        return min(configuration.bytesInFlight, max(2 * bytes, queued))
    }

    /// Value bytes of a waiting block; nil if it is not worth bringing any more, and was taken out.
    private func bytesWanted(_ index: Int32) -> Int? {
        let block = queue.blocks + Int(index)
        let slot = block.pointee.namespaceSlot
        let isLive =
            log.namespaces.isLive(slot)
            && UInt32(truncatingIfNeeded: log.namespaces.instance(slot))
                == block.pointee.instanceLow
        if isLive, arena.find(block.pointee.fingerprint.stagingKey) == nil,
            let entry = log.lookup(block.pointee.fingerprint).entry, !entry.isDamaged
        {
            let device = SegmentTable.device(entry.place.segment)
            if log.isHealthy(device) {
                block.pointee.device = UInt8(truncatingIfNeeded: device)
                return Int(entry.length)
            }
            // Its device has enough to do with what somebody waits for.
            counts.avoided += 1
        } else {
            counts.cancelled += 1
        }
        drop(index)
        return nil
    }

    /// False: there was no room for it, and there will not be for others either.
    private func begin(_ index: Int32, _ bytes: Int) -> Bool {
        let block = queue.blocks + Int(index)
        queue.begin(index)
        block.pointee.bytes = UInt32(bytes)
        underWay.add(block.pointee.device, bytes)
        let taken = staged.prefetch(
            token: UInt64(index), block.pointee.fingerprint,
            namespaceSlot: block.pointee.namespaceSlot, key: queue.key(index))
        if !taken { putBack(index) }
        return pausedUntil == 0
    }

    private func putBack(_ index: Int32) {
        underWay.remove(queue.blocks[Int(index)])
        queue.putBack(index)
        pause = min(Self.longestPause, max(Self.shortestPause, 2 * pause))
        pausedUntil = log.clock.monotonic + pause
        wake = pausedUntil
    }

    /// Whether unused blocks leave room for another one, once those that had their time, or that
    /// are due later than this one, have made way.
    private func makeWindow(_ bytes: Int, for request: Int32, _ now: UInt64) -> Bool {
        let due = queue.requests[Int(request)].due
        let bytesInFlight = underWay.sum(nil).bytes
        while unused.windowBytes + bytesInFlight + bytes > windowBytes {
            let (oldest, newest) = (unused.oldest, unused.newest)
            guard oldest >= 0 else { return bytesInFlight == 0 }
            let end = protectedUntil(oldest)
            if end <= now {
                displace(oldest)
            } else if unused.marks[Int(newest)].due > due {
                displace(newest)
            } else {
                wake = min(wake, end)
                return false
            }
        }
        return true
    }

    private func protectedUntil(_ slot: Int32) -> UInt64 {
        let mark = unused.marks[Int(slot)]
        // A due time beyond the patience from now is no promise to keep a block that long.
        let due = min(max(mark.due, mark.came), mark.came &+ configuration.patience)
        return due.addingReportingOverflow(configuration.patience).partialValue
    }

    private func displace(_ slot: Int32) {
        unused.displace(slot)
        arena.demote(ResidentSlot(slot))
    }

    // MARK: Taking back

    func drop(_ index: Int32) {
        let request = queue.blocks[Int(index)].request
        queue.remove(index)
        queue.releaseIfUnused(request)
    }

    /// What the request wanted will not be read: waiting blocks go, those under way and unused ones
    /// move to the end that leaves first.
    func cancel(_ id: UInt64) {
        let request = queue.findRequest(id)
        guard request >= 0 else { return }
        queue.retain(request)
        while queue.requests[Int(request)].head >= 0 {
            counts.cancelled += 1
            queue.remove(queue.requests[Int(request)].head)
        }
        if queue.inFlight > 0 {
            for index in 0..<Int32(queue.blockCapacity)
            where queue.blocks[Int(index)].isInFlight && queue.blocks[Int(index)].request == request
                && queue.blocks[Int(index)].demanded == 0
            {
                staged.cancelPrefetch(UInt64(index))
            }
        }
        while queue.requests[Int(request)].marks >= 0 {
            let slot = queue.requests[Int(request)].marks
            arena.demote(ResidentSlot(slot))
            waste(unused.unmark(slot, in: queue))
        }
        queue.release(request)
    }

    /// The block is not needed soon.
    func release(_ fingerprint: Fingerprint) {
        let index = queue.find(fingerprint)
        if index >= 0 {
            if queue.blocks[Int(index)].isInFlight {
                staged.cancelPrefetch(UInt64(index))
            } else {
                counts.cancelled += 1
                drop(index)
            }
        }
        guard let found = arena.find(fingerprint.stagingKey), found.state.isVisible else { return }
        if unused.isMarked(found.slot.index) { waste(unused.unmark(found.slot.index, in: queue)) }
        arena.demote(found.slot)
    }

    private func waste(_ mark: UnusedBlock) {
        counts.change(mark.predictor) {
            $0.wasted += 1
            $0.wastedBytes += UInt64(mark.bytes)
        }
    }
}

extension Prefetcher: AccessObserver {
    package func accessed(_ access: Access) {
        switch access.kind {
        case .resident, .touch: if unused.isMarked(access.resident) { used(access.resident) }
        case .joined:
            let index = queue.find(access.fingerprint)
            if index >= 0, queue.blocks[Int(index)].demanded == 0 {
                queue.blocks[Int(index)].demanded = max(1, log.clock.monotonic)
            }
        case .device:
            if displaced.remove(access.fingerprint.hi, access.fingerprint.lo) {
                counts.pollution += 1
            }
            if let predictor = overtake(access.fingerprint) {
                raised.insert(access.fingerprint, predictor, now: log.clock.monotonic)
            } else {
                counts.demandMisses += 1
            }
        case .miss, .put: _ = overtake(access.fingerprint)
        }
    }

    /// Somebody was faster: a waiting block need not be brought. Who had asked for it.
    private func overtake(_ fingerprint: Fingerprint) -> PredictorKind? {
        guard queue.waiting > 0 else { return nil }
        let index = queue.find(fingerprint)
        guard index >= 0, !queue.blocks[Int(index)].isInFlight else { return nil }
        let predictor = queue.blocks[Int(index)].predictor
        counts.overtaken += 1
        drop(index)
        return predictor
    }

    /// A raised read was foretold rightly and came late by all of its own time.
    package func deviceReadEnded(_ fingerprint: Fingerprint, bytes: UInt32, isHit: Bool) {
        guard counts.overtaken > 0, let read = raised.remove(fingerprint) else { return }
        guard isHit else {
            counts.demandMisses += 1
            return
        }
        counts.change(read.predictor) {
            $0.issued += 1
            $0.issuedBytes += UInt64(bytes)
            $0.useful += 1
        }
        counts.lateness.record(log.clock.monotonic - read.since)
    }

    private func used(_ slot: Int32) {
        let mark = unused.unmark(slot, in: queue)
        arena.setAwaited(ResidentSlot(slot), false)
        counts.change(mark.predictor) {
            $0.useful += 1
            $0.timely += 1
        }
        counts.lateness.record(0)
    }

    package func prefetchEnded(
        _ token: UInt64, _ status: Status, resident: Int32, bytes: UInt32
    ) {
        let index = Int32(truncatingIfNeeded: token)
        let block = queue.blocks[Int(index)]
        if status == .throttled {
            putBack(index)
            return
        }
        underWay.remove(block)
        (pause, pausedUntil) = (0, 0)
        let isIssued = status != .alreadyPresent && bytes > 0
        if isIssued {
            counts.change(block.predictor) {
                $0.issued += 1
                $0.issuedBytes += UInt64(bytes)
            }
        }
        switch status {
        case .hit where block.demanded > 0:
            let late = log.clock.monotonic - block.demanded
            counts.change(block.predictor) { $0.useful += 1 }
            counts.lateness.record(late)
        case .hit:
            arena.setAwaited(ResidentSlot(resident), true)
            unused.mark(
                resident,
                UnusedBlock(
                    predictor: block.predictor, bytes: bytes, request: block.request,
                    due: queue.requests[Int(block.request)].due, came: log.clock.monotonic),
                in: queue)
        case .cancelled where resident >= 0:
            waste(UnusedBlock(predictor: block.predictor, bytes: bytes))
        case .alreadyPresent: counts.hintedResident += 1
        default: if isIssued { counts.change(block.predictor) { $0.failed += 1 } }
        }
        drop(index)
    }

    package func residentLeft(
        _ resident: Int32, _ key: StagingKey, _ departure: ResidentDeparture
    ) {
        if departure == .evictedForPrefetch { displaced.insert(key.hi, key.lo) }
        if unused.isMarked(resident) { waste(unused.unmark(resident, in: queue)) }
    }
}
