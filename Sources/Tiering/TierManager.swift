// TierManager: the tiers as one. The engine's own memory (G1) is above staging: the engine says
// what it takes in, uses and lets go, and may give a function by which a block is copied up. What
// is up there leaves staging first and is not brought; what leaves it comes back as what was used
// just now. Each turn has one plan: what is announced and in staging is copied up, those due first
// first, then the prefetcher brings what is announced and on a device; writing back has budgets of
// its own (WriteBacklog, WearBudget). Owner thread only.
//
// Invariants: whatever an engine says, memory and time are bounded, and what makes no sense is
// counted; a block being copied is leased in staging until the copy has ended, each token ends
// once; at most `copies` of them and `bytesInFlight` are under way, and none begins above the high
// watermark until the engine is below the low one.

import LogStore
import Prefetch
import SegmentFormat
import Staging

package struct EngineTierConfiguration: Sendable {
    /// Bytes of the engine's own memory for blocks; 0: nothing is known of it.
    package var capacity: UInt64 = 0
    /// Blocks of which it is known that they are there; 16 bytes each.
    package var blocks = 1 << 16
    /// Copying up ends at the one and begins again at the other, as shares of the capacity.
    package var highWatermark = 0.95
    package var lowWatermark = 0.9
    /// Copies under way at once, their bytes, and bytes begun in one turn.
    package var copies = 32
    package var bytesInFlight = 64 << 20
    package var bytesATurn = 16 << 20
    /// Announced blocks in staging that wait to be copied.
    package var candidates = 1 << 12
    package init() {}
}

/// What the engine said, and what was copied up. Counters since open.
package struct EngineTierStatistics: Sendable, Equatable {
    package var admitted: UInt64 = 0
    /// Admitted again while there.
    package var admittedAgain: UInt64 = 0
    /// Blocks that the table had no room for any more.
    package var forgotten: UInt64 = 0
    /// Times that more was admitted than there is room for.
    package var overCapacity: UInt64 = 0
    package var evicted: UInt64 = 0
    /// Told to have left, and not known to have been there.
    package var evictedUnknown: UInt64 = 0
    /// Left, and in no lower tier.
    package var evictedUnstored: UInt64 = 0
    /// Used there.
    package var hits: UInt64 = 0
    /// Copied up, and value bytes.
    package var promoted: UInt64 = 0
    package var promotedBytes: UInt64 = 0
    package var refusedCopies: UInt64 = 0
    package var failedCopies: UInt64 = 0
    /// Ends of copies that nobody has begun, or that were told twice.
    package var strayEnds: UInt64 = 0
    /// Candidates that had gone, or were up there, when their turn came, and those without room.
    package var stale: UInt64 = 0
    package var overflowed: UInt64 = 0
    /// Times that nothing was copied because the engine was full.
    package var full: UInt64 = 0
    /// Gauges.
    package var capacity: UInt64 = 0
    package var blocks = 0
    package var bytes: UInt64 = 0
    package var copying = 0
    /// Bytes a second of copies; 0: none has ended.
    package var bytesPerSecond = 0.0
    package init() {}
}

package final class TierManager {
    let configuration: EngineTierConfiguration
    private let staged: StagedStore
    private let arena: StagingArena
    /// Not made where nothing is to be brought.
    private let prefetcher: Prefetcher?
    @exclusivity(unchecked) private var table: EngineTable
    @exclusivity(unchecked) private var waiting: PromotionQueue
    @exclusivity(unchecked) private var counts = EngineTierStatistics()
    /// The engine's function, if it gave one; not owned by the core alone.
    package var copier: (any EngineCopier)? {
        didSet { if copier == nil { waiting.removeAll() } }
    }

    private struct Copy {
        var fingerprint = Fingerprint(hi: 0, lo: 0)
        var resident: Int32 = -1
        var bytes: UInt32 = 0
        var life: UInt32 = 0
        var begun: UInt64 = 0
        var isUsed = false
    }

    private let copies: UnsafeMutablePointer<Copy>
    @exclusivity(unchecked) private var copying = 0
    @exclusivity(unchecked) private var copyingBytes = 0
    @exclusivity(unchecked) private var isFull = false
    @exclusivity(unchecked) private var isStopped = false
    @exclusivity(unchecked) private var stopped: UInt64 = 0
    private static let longestWait: UInt64 = 5_000_000_000
    /// What a block of unknown size is taken to be: the mean of the others.
    @exclusivity(unchecked) private var meanBytes = 64 << 10

    /// Nil where there is no staging, or the engine's memory is not known.
    init?(
        _ staged: StagedStore, _ prefetcher: Prefetcher?,
        _ configuration: EngineTierConfiguration
    ) {
        guard let arena = staged.arena, configuration.capacity > 0 else { return nil }
        self.staged = staged
        self.arena = arena
        self.prefetcher = prefetcher
        self.configuration = configuration
        table = EngineTable(blocks: configuration.blocks)
        waiting = PromotionQueue(capacity: configuration.candidates)
        copies = .allocate(capacity: max(1, configuration.copies))
        copies.initialize(repeating: Copy(), count: max(1, configuration.copies))
    }

    deinit { copies.deallocate() }

    package static func memoryBytes(_ configuration: EngineTierConfiguration) -> Int {
        guard configuration.capacity > 0 else { return 0 }
        return EngineTable.memoryBytes(blocks: configuration.blocks)
            + PromotionQueue.memoryBytes(capacity: configuration.candidates)
            + max(1, configuration.copies) * MemoryLayout<Copy>.stride
    }

    package var statistics: EngineTierStatistics {
        var made = counts
        made.capacity = configuration.capacity
        made.blocks = table.count
        made.bytes = table.pages * 4096
        made.copying = copying
        return made
    }

    // MARK: What the engine says

    /// The engine holds the block from now on.
    func admitted(_ fingerprint: Fingerprint) {
        let now = staged.log.clock.monotonic
        let found = arena.find(fingerprint.stagingKey)
        var bytes = 0
        if let found, found.state.isVisible {
            bytes = Int(arena.info(found.slot).length)
        } else if let entry = staged.log.lookup(fingerprint).entry {
            bytes = Int(entry.length)
        }
        if bytes > 0 { meanBytes += (bytes - meanBytes) / 16 }
        switch table.admit(fingerprint, bytes: bytes > 0 ? bytes : meanBytes, now: now) {
        case .new: counts.admitted += 1
        case .known: counts.admittedAgain += 1
        case .displaced:
            counts.admitted += 1
            counts.forgotten += 1
        }
        if table.pages * 4096 > configuration.capacity { counts.overCapacity += 1 }
        if let found, found.state.isVisible { leavesFirst(found.slot) }
    }

    /// What the engine has leaves staging before the rest, unless it is the only copy that is kept.
    private func leavesFirst(_ slot: ResidentSlot) {
        prefetcher?.handedUp(slot.index)
        if !arena.isUnwritten(slot) { arena.demote(slot) }
    }

    /// The engine does not hold the block any more. It is taken for used just now, so that it comes
    /// behind what has not been used for longer.
    func evicted(_ fingerprint: Fingerprint) {
        guard table.evict(fingerprint) else {
            counts.evictedUnknown += 1
            return
        }
        counts.evicted += 1
        let isStaged = arena.find(fingerprint.stagingKey)?.state.isVisible == true
        if !isStaged, staged.log.lookup(fingerprint).entry == nil { counts.evictedUnstored += 1 }
        staged.touch(fingerprint)
        prefetcher?.cameDown(fingerprint)
    }

    /// The engine holds nothing any more.
    func evictedAll() {
        counts.evicted += UInt64(table.count)
        table.removeAll()
    }

    /// The engine has used a block. False: it is not known to be there.
    func touched(_ fingerprint: Fingerprint) -> Bool {
        guard table.touch(fingerprint, now: staged.log.clock.monotonic) else { return false }
        counts.hits += 1
        return true
    }

    // MARK: Copying up

    /// Begins no more copies.
    package func stop() {
        if !isStopped { stopped = staged.log.clock.monotonic }
        isStopped = true
    }

    /// Whether no copy is under way that closing has to wait for: an engine that never ends one is
    /// not waited for beyond some time.
    package var isIdle: Bool {
        copying == 0 || !isStopped || staged.log.clock.monotonic &- stopped > Self.longestWait
    }

    /// Begins copies of what is announced and in staging, those due first first. Whether any began.
    func advance() -> Bool {
        guard copier != nil, waiting.count > 0, !isStopped, mayCopy() else { return false }
        var (begun, left) = (false, configuration.bytesATurn)
        while waiting.count > 0, copying < configuration.copies, left > 0 {
            let candidate = waiting.first
            guard let found = arena.find(candidate.fingerprint.stagingKey), found.state.isVisible,
                !table.holds(candidate.fingerprint),
                let told = prefetcher?.announced(candidate.fingerprint)
            else {
                waiting.removeFirst()
                counts.stale += 1
                continue
            }
            let bytes = Int(arena.info(found.slot).length)
            if copying > 0, copyingBytes + bytes > configuration.bytesInFlight { break }
            if used(with: bytes) > configuration.highWatermark {
                isFull = true
                counts.full += 1
                break
            }
            // Leases of others may hold all that leases may: later, then.
            guard arena.pinLease(found.slot) else { break }
            waiting.removeFirst()
            left -= bytes
            begun = true
            begin(candidate.fingerprint, found.slot, told)
        }
        return begun
    }

    /// The share of the engine's memory that is used, with what is on its way and so much more.
    private func used(with bytes: Int) -> Double {
        Double(table.pages * 4096 + UInt64(copyingBytes + bytes)) / Double(configuration.capacity)
    }

    private func mayCopy() -> Bool {
        if isFull, used(with: 0) <= configuration.lowWatermark { isFull = false }
        return !isFull
    }

    private func begin(
        _ fingerprint: Fingerprint, _ slot: ResidentSlot,
        _ told: (key: UnsafeRawBufferPointer, namespaceSlot: UInt16, request: UInt64, due: UInt64)
    ) {
        guard let copier,
            let place = (0..<configuration.copies).first(where: { !copies[$0].isUsed })
        else {
            arena.unpinLease(slot)
            return
        }
        let info = arena.info(slot)
        let life = copies[place].life &+ 1
        copies[place] = Copy(
            fingerprint: fingerprint, resident: slot.index, bytes: info.length, life: life,
            begun: staged.log.clock.monotonic, isUsed: true)
        copying += 1
        copyingBytes += Int(info.length)
        let token = UInt64(life) << 32 | UInt64(place)
        let shards = Int(info.shardCount) + 1
        let layout = BlockLayout(
            length: info.length, shardCount: shards, aligned: info.aligned)
        let start = copier.begin(
            Promotion(
                token: token, key: told.key, namespaceSlot: told.namespaceSlot,
                request: told.request, due: told.due, version: info.version, length: info.length,
                shardCount: shards, aligned: info.aligned, image: arena.pieces(slot),
                valueOffset: layout.dataOffset))
        switch start {
        case .underWay: break
        case .done: ended(token, isWell: true)
        case .failed: ended(token, isWell: false)
        case .refused:
            // The engine may have ended it from inside the call, against the rules.
            guard copies[place].isUsed, copies[place].life == life else { return }
            counts.refusedCopies += 1
            free(place)
        }
    }

    private func free(_ place: Int) {
        let copy = copies[place]
        copies[place].isUsed = false
        copying -= 1
        copyingBytes -= Int(copy.bytes)
        arena.unpinLease(ResidentSlot(copy.resident))
    }

    /// A copy that was under way has ended.
    package func ended(_ token: UInt64, isWell: Bool) {
        let place = Int(truncatingIfNeeded: token & 0xFFFF_FFFF)
        guard place < configuration.copies, copies[place].isUsed,
            copies[place].life == UInt32(token >> 32)
        else {
            counts.strayEnds += 1
            return
        }
        let copy = copies[place]
        free(place)
        guard isWell else {
            counts.failedCopies += 1
            return
        }
        measure(Int(copy.bytes), staged.log.clock.monotonic &- copy.begun)
        counts.promoted += 1
        counts.promotedBytes += UInt64(copy.bytes)
        admitted(copy.fingerprint)
    }

    private func measure(_ bytes: Int, _ nanoseconds: UInt64) {
        let rate = Double(bytes) / (Double(max(1, nanoseconds)) * 1e-9)
        counts.bytesPerSecond =
            counts.bytesPerSecond == 0
            ? rate : counts.bytesPerSecond + (rate - counts.bytesPerSecond) / 16
    }
}

extension TierManager: UpperTier {
    package func holds(_ fingerprint: Fingerprint) -> Bool { table.holds(fingerprint) }

    package func isReady(_ fingerprint: Fingerprint, due: UInt64) {
        guard copier != nil else { return }
        if !waiting.insert(PromotionCandidate(fingerprint: fingerprint, due: due)) {
            counts.overflowed += 1
        }
    }
}
