// Prefetcher: what is expected to be read, brought into staging before. Hints and predictors put
// blocks into a bounded queue; `advance` starts reading them, those due first, under what somebody
// waits for and above what nobody does. Owner thread; nothing allocates after open.
//
// Invariants:
//  - whatever is hinted, memory and time are bounded: a block is looked up once when it is hinted
//    and once when it is begun, tables have fixed sizes, and what has no room is counted;
//  - unused blocks and those under way hold at most a share of staging;
//  - while somebody waits for a device, one prefetch at a time is under way, and all of them take
//    at most a share of the bandwidth;
//  - a hint never drops a copy: what proves wrong moves to the end that leaves first.

import BlockIO
import Heat
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
    let displaced: DisplacedKeys
    /// Not made where successors are not predicted.
    @exclusivity(unchecked) var successors: SuccessorTable
    let followsStreams: Bool
    /// By stream, the queue's request that stands for it, -1 for none.
    let streamRequests: UnsafeMutablePointer<Int32>
    @exclusivity(unchecked) var pickTable: PickTable
    @exclusivity(unchecked) var layerClock: LayerClock
    /// By layer, the queue's request that stands for guesses about it, -1 for none.
    let layerRequests: UnsafeMutablePointer<Int32>
    static let layerRequestCount = 64
    /// The first shard asked for last, and steps counted by its falling.
    @exclusivity(unchecked) var layerBefore: UInt32 = 0
    @exclusivity(unchecked) var pickStep: UInt32 = 0
    /// Nanoseconds from wanting a part to its being there.
    @exclusivity(unchecked) var partTime: UInt64 = 0
    let raised: RaisedReads
    /// Not made where returns of sessions are not predicted.
    @exclusivity(unchecked) var sessions: SessionTable
    @exclusivity(unchecked) package var sessionReturns = SessionReturns()
    @exclusivity(unchecked) var sessionCosts = SessionCosts()
    @exclusivity(unchecked) var counts = PrefetchStatistics()
    @exclusivity(unchecked) private var bucket: TokenBucket
    @exclusivity(unchecked) private var meter: BandwidthMeter
    /// By device, as what hangs on one that does badly is not to hold up the rest.
    let underWay: DeviceShares
    @exclusivity(unchecked) private var wake = UInt64.max
    @exclusivity(unchecked) var turnover = StagingTurnover()
    /// No room was found: nothing is begun before, and how long the next such pause is.
    @exclusivity(unchecked) var pausedUntil: UInt64 = 0
    @exclusivity(unchecked) var pause: UInt64 = 0
    /// What the engine holds itself; not owned: whoever sets it outlives this or takes it out.
    @exclusivity(unchecked) package unowned(unsafe) var upper: (any UpperTier)?
    private let windowBytes: Int
    private var isStopped = false

    private static let shortestPause: UInt64 = 1_000_000
    private static let longestPause: UInt64 = 100_000_000
    /// Dormant blocks that go at once, for one that needs room or because their time has passed.
    static let mostForgotten = 16
    /// How long a page is kept beyond its time, at the least; layers take less than steps.
    private static let pagePatience: UInt64 = 50_000_000
    /// How long a dormant block is kept at the most, however far off its due time, nanoseconds.
    static let longestDormancy: UInt64 = 600_000_000_000
    /// How far off a due time is believed at the most, nanoseconds: what is due in an absurd future
    /// would wait for ever.
    private static let longestWait: UInt64 = 3_600_000_000_000

    /// Nil for a store without staging: there is nowhere to bring anything.
    package init?(_ staged: StagedStore, _ configuration: PrefetchConfiguration) {
        // What owns memory is made after this: an initializer that fails runs no deinit.
        guard let arena = staged.arena, !configuration.predictors.isEmpty else { return nil }
        (displaced, raised) = (DisplacedKeys(), RaisedReads())
        (layerClock, underWay) = (LayerClock(), DeviceShares())
        self.staged = staged
        self.arena = arena
        self.configuration = configuration
        log = staged.log
        queue = PrefetchQueue(blocks: configuration.blocks, requests: configuration.requests)
        unused = UnusedBlocks(capacity: arena.residentCapacity)
        followsStreams = configuration.predictors.contains(.successor)
        successors = SuccessorTable(entries: followsStreams ? configuration.successors : 1)
        streamRequests = .allocate(capacity: SuccessorTable.streams)
        streamRequests.initialize(repeating: -1, count: SuccessorTable.streams)
        let guessesLayers = configuration.predictors.contains(.layer)
        pickTable = PickTable(
            entries: guessesLayers ? configuration.picks : 1, budget: configuration.layerBudget)
        layerRequests = .allocate(capacity: Self.layerRequestCount)
        layerRequests.initialize(repeating: -1, count: Self.layerRequestCount)
        let tracksSessions = configuration.predictors.contains(.session)
        sessions = SessionTable(
            sessions: tracksSessions ? configuration.sessions : 1,
            keys: tracksSessions ? configuration.sessionKeys : 1)
        bucket = TokenBucket(burstBytes: configuration.burstBytes)
        meter = BandwidthMeter(assumed: configuration.assumedBandwidth)
        windowBytes = arena.bytes / configuration.windowShare
    }

    deinit {
        unused.deallocate()
        displaced.deallocate()
        raised.deallocate()
        underWay.deallocate()
        successors.deallocate()
        streamRequests.deallocate()
        pickTable.deallocate()
        layerClock.deallocate()
        layerRequests.deallocate()
        sessions.deallocate()
    }

    /// Bytes of memory that tables for so many residents take.
    package static func memoryBytes(
        _ configuration: PrefetchConfiguration, residents: Int
    ) -> Int {
        PrefetchQueue.memoryBytes(
            blocks: configuration.blocks, requests: configuration.requests)
            + UnusedBlocks.memoryBytes(residents) + DisplacedKeys.capacity * 8
            + RaisedReads.memoryBytes + 4 * SuccessorTable.streams
            + (configuration.predictors.contains(.successor)
                ? SuccessorTable.memoryBytes(entries: configuration.successors) : 0)
            + (configuration.predictors.contains(.layer)
                ? PickTable.memoryBytes(entries: configuration.picks) : 0)
            + LayerClock.memoryBytes + 4 * Self.layerRequestCount
            + (configuration.predictors.contains(.session)
                ? SessionTable.memoryBytes(
                    sessions: configuration.sessions, keys: configuration.sessionKeys) : 0)
            + SessionReturns.memoryBytes
    }

    package var statistics: PrefetchStatistics {
        var made = counts
        made.waiting = queue.waiting
        made.inFlight = queue.inFlight
        made.dormant = queue.dormant
        made.unusedBytes = unused.windowBytes
        made.sessions = sessions.count
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

    /// Puts the block into the queue unless it is there, in staging, or not stored at all. What an
    /// engine told is kept then, too, and looked at again when that changes.
    func want(
        _ request: Int32, _ fingerprint: Fingerprint, _ key: UnsafeRawBufferPointer,
        namespaceSlot: UInt16, _ predictor: PredictorKind
    ) -> Wanted {
        let isTold = predictor == .chain
        if isTold, queue.has(request, fingerprint) { return .twice }
        var found = Wanted.queued
        if upper?.holds(fingerprint) == true {
            found = .resident
        } else if let there = arena.find(fingerprint.stagingKey) {
            found = .resident
            if isTold, there.state.isVisible {
                upper?.isReady(fingerprint, due: queue.requests[Int(request)].due)
            }
        } else {
            let active = queue.find(fingerprint)
            if active >= 0 {
                // The one that needs it first is the one that waits for it.
                let isLater = queue.due(active) > queue.requests[Int(request)].due
                let mayGiveWay =
                    queue.dormants(fingerprint).count < PrefetchQueue.dormantsABlock - 1
                if !isTold || queue.blocks[Int(active)].isInFlight || !isLater || !mayGiveWay {
                    found = .twice
                } else {
                    queue.sleepWaiting(active)
                }
            } else if log.lookup(fingerprint).entry.map({ $0.isDamaged }) ?? true {
                found = .absent
            }
        }
        if found != .queued {
            if isTold { sleep(request, fingerprint, key, namespaceSlot: namespaceSlot, predictor) }
            return found
        }
        let isTaken = append(request, fingerprint, key, namespaceSlot, predictor, .waiting)
        return isTaken ? .queued : .overflowed
    }

    /// Puts a block into the queue, for which dormant ones may have to go.
    func append(
        _ request: Int32, _ fingerprint: Fingerprint, _ key: UnsafeRawBufferPointer,
        _ namespaceSlot: UInt16, _ predictor: PredictorKind, _ state: BlockState,
        part: (first: UInt16, count: UInt16) = (0, 0)
    ) -> Bool {
        let instance = log.namespaces.instance(namespaceSlot)
        let now = log.clock.monotonic
        for _ in 0..<Self.mostForgotten {
            if queue.append(
                request, fingerprint, key, namespaceSlot: namespaceSlot, instance: instance,
                predictor, now: now, state: state, part: part)
            {
                return true
            }
            guard queue.oldestDormant >= 0 else { return false }
            forget(queue.oldestDormant)
        }
        return false
    }

    /// The queue's request; those that only sleep make room for it.
    func request(_ id: UInt64, due told: UInt64) -> Int32 {
        let due = min(told, log.clock.monotonic &+ Self.longestWait)
        var made = queue.request(id, due: due)
        for _ in 0..<Self.mostForgotten where made < 0 && queue.oldestDormant >= 0 {
            forget(queue.oldestDormant)
            made = queue.request(id, due: due)
        }
        return made
    }

    // MARK: Beginning

    /// When `advance` should be called next, if nothing else happens; monotonic nanoseconds.
    package var nextWake: UInt64 {
        if isStopped { return .max }
        return min(sessions.nextLook, queue.waiting == 0 ? .max : wake)
    }

    /// Bytes a second that the devices have been seen to give.
    var bandwidth: Double { meter.bytesPerSecond }

    /// Begins what may begin now. Whether anything did.
    @discardableResult
    package func advance() -> Bool {
        if queue.dormant > 0 { forgetAged() }
        guard !isStopped else { return false }
        var begun = sessions.count > 0 && lookAtSessions()
        guard queue.waiting > 0 else { return begun }
        let now = log.clock.monotonic
        meter.observe(total: log.statistics.readBytes, now: now)
        wake = .max
        if now < pausedUntil {
            wake = pausedUntil
            return begun
        }
        let share = configuration.demandShare * meter.bytesPerSecond
        bucket.fill(bytesPerSecond: share, now: now)
        let horizon = lookAhead(now)
        let lingers = log.demandWaits
        while queue.first >= 0 {
            let (blocks, bytesInFlight) = underWay.sum(log)
            let index = queue.first
            if queue.due(index) > horizon {
                // Later, when it is nearer. What is behind it is due later still.
                wake = now + (queue.due(index) - horizon)
                break
            }
            let waits = lingers && (!isUrgent(index) || log.demandIsUnderWay)
            if blocks >= (waits ? 1 : configuration.operations) { break }
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

    /// The latest due time for which blocks are brought, and kept, now: beyond a share of the time
    /// that a block stays, what it would displace is used sooner than it is.
    private func lookAhead(_ now: UInt64) -> UInt64 {
        turnover.observe(evicted: arena.evictedBytes, now: now)
        let stay = turnover.stay(bytes: arena.bytes)
        arena.sparesUntil =
            stay == StagingTurnover.longest
            ? .max : now &+ UInt64(Double(stay) * configuration.horizonShare)
        return arena.sparesUntil
    }

    /// Pages of a layer have less time than a moment after a demand read: they only give way to
    /// those under way.
    private func isUrgent(_ index: Int32) -> Bool {
        let predictor = queue.blocks[Int(index)].predictor
        return predictor == .pages || predictor == .layer
    }

    /// What may be under way at once: little enough that a demand read that comes now does not
    /// stand behind more than some milliseconds of it, but always two blocks, to keep a
    /// device busy.
    private func inFlightLimit(_ bytes: Int) -> Int {
        let queued = Int(meter.bytesPerSecond * configuration.longestQueue)
        return min(configuration.bytesInFlight, max(2 * bytes, queued))
    }

    /// Value bytes of a waiting block; nil if it is not worth bringing now, and waits no more.
    private func bytesWanted(_ index: Int32) -> Int? {
        let block = queue.blocks + Int(index)
        let slot = block.pointee.namespaceSlot
        let isLive =
            log.namespaces.isLive(slot)
            && UInt32(truncatingIfNeeded: log.namespaces.instance(slot))
                == block.pointee.instanceLow
        let fingerprint = block.pointee.fingerprint
        let whole = block.pointee.blockFingerprint
        if isLive,
            upper?.holds(whole) == true || arena.find(fingerprint.stagingKey) != nil
                || block.pointee.shardCount > 0 && arena.find(whole.stagingKey) != nil
        {
            if block.pointee.predictor == .chain {
                queue.sleepWaiting(index)
                reconsider(fingerprint)
            } else {
                drop(index)
            }
            return nil
        }
        if isLive, let entry = log.lookup(whole).entry, !entry.isDamaged {
            let device = SegmentTable.device(entry.place.segment)
            if !log.isSpared(device) {
                block.pointee.device = UInt8(truncatingIfNeeded: device)
                let (shards, all) = (Int(block.pointee.shardCount), entry.shardCount)
                // Of a part about its share.
                return shards == 0 || shards >= all
                    ? Int(entry.length) : max(1, Int(entry.length) / all * shards)
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
            token: UInt64(index), block.pointee.blockFingerprint,
            namespaceSlot: block.pointee.namespaceSlot, key: queue.key(index),
            due: queue.due(index),
            part: (Int(block.pointee.firstShard), Int(block.pointee.shardCount)))
        if !taken { putBack(index) }
        return pausedUntil == 0
    }

    func putBack(_ index: Int32) {
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
        let patience =
            mark.predictor == .pages
            ? max(Self.pagePatience, 8 * layerClock.layerTime) : configuration.patience
        return due.addingReportingOverflow(min(patience, configuration.patience)).partialValue
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

    /// What the request wanted will not be read.
    func cancel(_ id: UInt64) {
        let request = queue.findRequest(id)
        if request >= 0 { takeBack(request) }
    }

    /// Waiting and dormant blocks go, those under way and unused ones move to the end that leaves
    /// first, unless another request wants them, too.
    func takeBack(_ request: Int32) {
        queue.retain(request)
        while queue.requests[Int(request)].firstDormant >= 0 {
            let index = queue.requests[Int(request)].firstDormant
            let fingerprint = queue.blocks[Int(index)].fingerprint
            queue.remove(index)
            reconsider(fingerprint)
        }
        while queue.requests[Int(request)].head >= 0 {
            let index = queue.requests[Int(request)].head
            let fingerprint = queue.blocks[Int(index)].fingerprint
            counts.cancelled += 1
            queue.remove(index)
            if queue.dormant > 0 { reconsider(fingerprint) }
        }
        for place in 0..<staged.prefetching {
            let index = Int32(truncatingIfNeeded: staged.prefetchToken(place))
            let block = queue.blocks[Int(index)]
            guard block.request == request, block.demanded == 0 else { continue }
            let other = queue.dormants(block.fingerprint).first
            if other >= 0 {
                queue.handOver(index, to: other)
            } else {
                staged.abandonPrefetch(place)
            }
        }
        while queue.requests[Int(request)].marks >= 0 {
            let slot = queue.requests[Int(request)].marks
            let mark = unused.unmark(slot, in: queue)
            let key = arena.key(ResidentSlot(slot))
            let other = queue.dormants(Fingerprint(hi: key.hi, lo: key.lo)).first
            if other >= 0 {
                var kept = mark
                kept.request = queue.blocks[Int(other)].request
                kept.due = queue.due(other)
                unused.mark(slot, kept, in: queue)
            } else {
                arena.demote(ResidentSlot(slot))
                waste(mark)
            }
        }
        queue.release(request)
    }

    /// The block is not needed soon.
    func release(_ fingerprint: Fingerprint) {
        let index = queue.find(fingerprint)
        while case let dormant = queue.dormants(fingerprint).first, dormant >= 0 { forget(dormant) }
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

    func waste(_ mark: UnusedBlock) {
        counts.change(mark.predictor) {
            $0.wasted += 1
            $0.wastedBytes += UInt64(mark.bytes)
        }
    }
}
