// LogStore: the log-structured store as one state machine. Blocks are appended to segments in
// groups, found through the index, read back and checked; segments are recycled whole. Clock,
// randomness and I/O come from outside; one thread (the owner) calls everything here, and nothing
// happens but inside a call: `pump` reaps completions, advances every machine and submits.
//
// Invariants:
//  - an index entry is published only after every byte of its image has been written;
//  - writes of one key happen one after the other (`pending`);
//  - a segment with readers or groups in flight is not recycled;
//  - a new generation is durable in the segment's header before anything is written under it;
//  - whatever is refused has a status and a counter.
//
// Properties marked exclusivity(unchecked) are touched many times an operation; they have one
// owner, and Swift's check at run time of each access took 3 % of a read's CPU.

import BlockIO
import SegmentFormat

/// What a completion belongs to; the top byte of its tag.
enum IOKind: UInt8 {
    case group = 1
    case read
    case table
    case footer
    case sync
    case manifestWrite
    case manifestSync
    case segmentAllocate
    case segmentHeader
    case segmentSync
    case directorySync
    case reclaimRead
    case checkpoint
    case recovery
    case list
    case moveRead
    case probe
    case scrub
    case discard
}

package final class LogStore {
    package let driver: any BlockDriver
    package let clock: any Clock
    package let configuration: LogStoreConfiguration
    package let index: BlockIndex
    @exclusivity(unchecked) package internal(set) var segments: SegmentTable
    @exclusivity(unchecked) package internal(set) var namespaces: NamespaceTable
    /// Not owned: the owner of the store outlives it and takes itself out before it goes.
    @exclusivity(unchecked) package unowned(unsafe) var delegate: (any LogStoreDelegate)?
    @exclusivity(unchecked) package var statistics = LogStoreStatistics()

    let operations: OperationPool
    let pending: PendingKeys
    let groupPool: MemoryPool
    let footerPool: MemoryPool
    let bouncePool: MemoryPool
    let manifestPool: MemoryPool
    let reclaimPool: MemoryPool
    let movePool: MemoryPool
    @exclusivity(unchecked) var lister = Lister()
    /// Made when recovery has ended.
    var checkpointPool: MemoryPool?
    var checkpointHeaderMemory: UnsafeMutableRawPointer?
    var checkpointFileInUse: FileID?
    @exclusivity(unchecked) var sweeper = Sweeper()
    /// Who sweeps the index, one at a time: a device's reclaim, -1 for purge, nil for nobody.
    var sweepOwner: Int?
    let tables: ShardTableCache
    /// Who tells which blocks are asked for.
    @exclusivity(unchecked) package var heat: any HeatSource
    let ghosts: GhostTable

    // Geometry, fixed at creation
    package let segmentPages: UInt32
    package internal(set) var manifest: Manifest
    @exclusivity(unchecked) package internal(set) var devices: [Device]

    // Writing
    @exclusivity(unchecked) var streams: [WriteStream] = []
    let groups: UnsafeMutablePointer<Group>
    let groupCount: Int
    /// Streams of fresh blocks on each device.
    let freshStreams: Int
    @exclusivity(unchecked) var freeGroups: Int
    var groupSequence: UInt64 = 0
    package internal(set) var nextVersion: UInt64
    var nextGeneration: UInt64
    /// Appends under way, each of which will want an index entry.
    @exclusivity(unchecked) var appending = 0
    /// Space or index entries are wanted: reclaim beyond the clean segments kept ahead.
    @exclusivity(unchecked) var wantReclaim = false
    /// Somebody writes live blocks anew in an order of its own.
    var rewriting = false
    /// Damaged segments that rewriting is to empty, until their next life begins.
    var condemned: Set<UInt32> = []
    /// They may be emptied now.
    var mayLeave = false
    /// Where rewritten blocks went, as far as it is not known to be flushed.
    var rewritten: [(segment: UInt32, end: UInt32)] = []
    var stripeDevice = 0
    var stripeBytes = 0

    // Flushing
    @exclusivity(unchecked) var flush = FlushState()
    // Manifest
    @exclusivity(unchecked) var manifestState = ManifestState()
    // Reclaim and preparing segments
    @exclusivity(unchecked) var reclaimers: [Reclaimer] = []
    @exclusivity(unchecked) var spreading = Spreading()
    /// Segments that reclaim had to leave (`holdsForgotten`).
    var leftVictims = 0
    /// Some segment may hold values that are not in the index, and keep them: it was quarantined
    /// (perhaps with its next header unwritten), or could not be read at open.
    var hidesValues = false
    // Recovery and checkpoints
    @exclusivity(unchecked) var recovery: Recovery?
    @exclusivity(unchecked) var checkpointer = Checkpointer()

    /// Writes that wait for the index to be complete, or for versions to hand out.
    @exclusivity(unchecked) var waitingToStart = OperationList()
    /// Reads and table fetches that wait for a bounce chunk (`DeviceLane`).
    @exclusivity(unchecked) var waitingForBounce = 0
    /// Requests that the driver had no room for.
    let backlog: RequestQueue
    let completions: UnsafeMutableBufferPointer<IOCompletion>
    /// What this turn takes, and what the completion before moved (what the next ones are taken to
    /// move), bytes.
    @exclusivity(unchecked) private var turnBytes = 4096
    @exclusivity(unchecked) private var lastBytes = 4096
    /// One for each device.
    @exclusivity(unchecked) var pacers: [WritePacer] = []
    /// One for each device: what reading from it takes.
    @exclusivity(unchecked) package internal(set) var meters: [ReadMeter] = []
    /// One for each device.
    @exclusivity(unchecked) var lanes: [DeviceLane] = []
    let probePool: MemoryPool
    /// The time that health goes by, of this turn or the one before.
    @exclusivity(unchecked) var healthNow: UInt64 = 0
    var orphanedCheckpoints: [OrphanedCheckpoint] = []
    @exclusivity(unchecked) var scrub = Scrubber()
    @exclusivity(unchecked) var discard = Discarder()
    /// A read not yet handed to the driver, to which its neighbour on disk may still be joined.
    @exclusivity(unchecked) var joinable = JoinableRead()
    @exclusivity(unchecked) package var readOnly = false
    @exclusivity(unchecked) package internal(set) var closing = false
    /// In `strict`, what recovery found damaged: the store is to be closed, and takes no writes.
    package internal(set) var recoveryFailure: StoreError?
    private let openedMonotonic: UInt64
    private var openedWall: UInt32
    var pins: PinTable
    /// Keys whose copy on disk left the index because it could not be read: it may be readable once
    /// more at the next opening, so a delete or put of the key tells the log that it is dead.
    var quarantinedKeys: Set<Fingerprint> = []

    /// What recovery decided on, until records say so, too.
    var unguarded: [UnguardedValue] = []

    init(parts: OpenedStore) throws(StoreError) {
        driver = parts.driver
        clock = parts.clock
        configuration = parts.configuration
        manifest = parts.manifest
        devices = parts.devices
        segmentPages = UInt32(parts.manifest.segmentBytes / UInt64(FormatConstants.pageBytes))
        segments = parts.segments
        namespaces = parts.namespaces
        readOnly = parts.readOnly
        nextVersion = parts.manifest.versionLimit
        openedMonotonic = parts.clock.monotonic
        openedWall = max(parts.clock.wallSeconds, parts.manifest.wallSecondsFloor)
        nextGeneration = parts.manifest.generationLimit
        do {
            index = try BlockIndex(capacity: parts.configuration.indexEntries)
            ghosts = try GhostTable(capacity: parts.configuration.ghosts)
        } catch {
            throw StoreError(
                .resource, operation: "open", subject: "the index mapping", errno: error.errno,
                advice: "Lower the index entries or give the process more memory.")
        }
        operations = OperationPool(capacity: parts.configuration.operations + 512)
        pending = PendingKeys(capacity: operations.capacity)
        groupCount = parts.configuration.groupBuffers
        freshStreams = parts.configuration.freshStreams(segments: segments.counts.min() ?? 0)
        groupPool = try MemoryPool(
            chunkBytes: Group.gapBytes + parts.configuration.groupBytes, chunkCount: groupCount,
            driver: parts.driver)
        footerPool = try MemoryPool(
            chunkBytes: (WriteStream.footerPages(segmentPages, records: true) + 1)
                * FormatConstants.pageBytes,
            chunkCount: WriteStream.footers(devices: parts.devices.count, fresh: freshStreams),
            driver: parts.driver, registered: false)
        bouncePool = try MemoryPool(
            chunkBytes: Self.bounceBytes, chunkCount: Self.bounceChunks, driver: parts.driver)
        manifestPool = try MemoryPool(
            chunkBytes: Manifest.copyBytes, chunkCount: SegmentTable.maximumDevices,
            driver: parts.driver)
        reclaimPool = try MemoryPool(
            chunkBytes: Self.reclaimPages * FormatConstants.pageBytes,
            chunkCount: parts.devices.count, driver: parts.driver)
        movePool = try MemoryPool(
            chunkBytes: MoveWindow.bufferBytes, chunkCount: parts.devices.count,
            driver: parts.driver, registered: false)
        probePool = try MemoryPool(
            chunkBytes: FormatConstants.pageBytes, chunkCount: parts.devices.count,
            driver: parts.driver, registered: false)
        heat = IndexHeat(
            index: index,
            halfLifeBytes: UInt64(
                Double(parts.manifest.capacityBytes) * parts.configuration.heatHalfLife))
        tables = ShardTableCache(bytes: parts.configuration.tableCacheBytes)
        groups = .allocate(capacity: groupCount)
        freeGroups = groupCount
        backlog = RequestQueue(capacity: 1 << 14)
        completions = .allocate(capacity: 256)
        pins = PinTable()
        for index in 0..<groupCount {
            groups.advanced(by: index).initialize(
                to: Group(memory: groupPool.pointer(Int32(index)), chunk: Int32(index)))
        }
        streams.reserveCapacity((3 + freshStreams) * devices.count)
        for index in devices.indices {
            reclaimers.append(Reclaimer(device: index, segmentPages: segmentPages))
            pacers.append(WritePacer(least: configuration.pacedWrites))
            meters.append(ReadMeter())
            lanes.append(DeviceLane())
        }
        healthNow = clock.monotonic
        for index in devices.indices { limitLane(index) }
    }

    deinit {
        groups.deinitialize(count: groupCount)
        groups.deallocate()
        completions.deallocate()
        for reclaimer in reclaimers { reclaimer.plan.deallocate() }
        checkpointHeaderMemory?.deallocate()
        lister.memory?.deallocate()
        scrub.deallocate()
        pending.deallocate()
    }

    /// One bounce chunk: the largest shard table (32 KiB) with the page it may start in the middle
    /// of.
    static let bounceBytes = 10 * FormatConstants.pageBytes
    static let bounceChunks = 128

    // MARK: The pump

    /// A turn takes about so many bytes of completions, each further one of a burst twice as many,
    /// and in between callers refill the device: checking a whole burst of large reads first would
    /// leave the device with nothing to do.
    private static let firstTurnBytes = 64 << 10

    /// Reaps what has finished, advances every machine, hands new requests to the driver. Returns
    /// whether anything happened.
    @discardableResult
    package func pump() -> Bool {
        var progressed = false
        while true {
            let room = min(completions.count, max(1, turnBytes / lastBytes))
            let count = driver.reap(UnsafeMutableBufferPointer(rebasing: completions[..<room]))
            turnBytes = count < room ? Self.firstTurnBytes : min(2 * turnBytes, 1 << 30)
            if count == 0 { break }
            progressed = true
            for index in 0..<count { dispatch(completions[index]) }
            lastBytes = max(1, Int(completions[count - 1].result))
            if count < room || room < completions.count { break }
        }
        backlog.drain(into: driver)
        if recovery != nil { progressed = advanceRecovery() || progressed }
        if recovery == nil {
            advanceStreams()
            for device in pacers.indices { advancePacer(device) }
            advanceReclaim()
            heat.age(admittedBytes: statistics.admittedBytes)
            if advanceFlush() { progressed = true }
            if !unguarded.isEmpty { advanceUnguarded() }
            advanceCheckpoint()
            if !lister.isIdle { advanceList() }
            advanceScrub()
            advanceDiscard()
        }
        advanceManifest()
        handOverJoinable()
        if advanceHealth() { progressed = true }
        driver.submit()
        return progressed
    }

    /// Whether nothing is under way that the pump would have to bring to an end.
    package var isIdle: Bool {
        operations.inUse == 0 && flush.isIdle && backlog.isEmpty && recovery == nil
            && lister.isIdle && manifestState.isIdle && checkpointer.phase == .idle
            && sweeper.slots.isEmpty && unguarded.isEmpty && !scrub.isReading && !discard.isUnderWay
            && reclaimers.allSatisfy { $0.phase == .idle || isAtRest($0) } && !leavesRequests
    }

    /// A reclaim that goes no further, and has no I/O under way: its device takes no writes.
    func isAtRest(_ reclaimer: Reclaimer) -> Bool {
        guard readOnly || !devices[reclaimer.device].takesWrites else { return false }
        switch reclaimer.phase {
        case .recordsReady, .recordsEnded, .scanning, .sweeping, .settling: return true
        default: return false
        }
    }

    private func dispatch(_ completion: IOCompletion) {
        statistics.observe(completion)
        guard let kind = IOKind(rawValue: UInt8(completion.tag >> 56)) else { return }
        noteAnswer(kind, completion)
        handle(completion)
    }

    /// What follows from the end of a request, whether the driver had it or not.
    func handle(_ completion: IOCompletion) {
        let index = Int32(truncatingIfNeeded: (completion.tag >> 32) & 0x7_FFFF)
        let aux = UInt32(truncatingIfNeeded: completion.tag)
        guard let kind = IOKind(rawValue: UInt8(completion.tag >> 56)) else { return }
        switch kind {
        case .group: groupWritten(index, completion)
        case .read: readCompleted(index, completion)
        case .table: tableRead(index, completion)
        case .footer: footerWritten(aux, chunk: index, completion)
        case .sync: segmentFlushed(aux, number: index, completion)
        case .manifestWrite, .manifestSync: manifestCompleted(kind, device: Int(index), completion)
        case .segmentAllocate, .segmentHeader, .segmentSync, .directorySync, .reclaimRead:
            reclaimCompleted(kind, device: Int(index), aux: aux, completion)
        case .checkpoint: checkpointCompleted(aux, completion)
        case .recovery: recoveryCompleted(index: index, aux: aux, completion)
        case .list: listRead(aux, completion)
        case .moveRead: runRead(Int(index), completion)
        case .probe: probed(Int(index), completion)
        case .scrub: scrubRead(completion)
        case .discard: discardEnded(completion)
        }
    }

    /// Kind 8 bits, device 5 (`issue`), index 19, aux 32.
    static func tag(_ kind: IOKind, _ index: Int32, _ aux: UInt32 = 0) -> UInt64 {
        UInt64(kind.rawValue) << 56 | UInt64(UInt32(bitPattern: index) & 0x7_FFFF) << 32
            | UInt64(aux)
    }

    @inline(__always)
    func file(_ segment: UInt32) -> FileID { FileID(segments[segment].file) }

    static func offset(page: UInt32) -> UInt64 { UInt64(page) * UInt64(FormatConstants.pageBytes) }

    func context(_ segment: UInt32) -> PageContext {
        PageContext(
            secret: manifest.secret, store: manifest.store, segment: segment,
            generation: segments[segment].generation)
    }

    // MARK: Keys and versions

    /// The fingerprint of a key in a namespace's present instance.
    @inline(__always)
    package func fingerprint(_ namespace: UInt16, _ key: UnsafeRawBufferPointer) -> Fingerprint {
        fingerprint(instance: namespaces.instance(namespace), key)
    }

    @inline(__always)
    func fingerprint(instance: UInt64, _ key: UnsafeRawBufferPointer) -> Fingerprint {
        Fingerprint.of(manifest.secret, instance: instance, key: key)
    }

    /// The whole version of an entry: the smallest one of its segment with these low bits. A
    /// segment is sealed before its versions could span 2^31.
    @inline(__always)
    func fullVersion(_ entry: IndexEntry) -> UInt64 {
        Self.fullVersion(low: entry.versionLow, base: segments[entry.place.segment].minVersion)
    }

    @inline(__always)
    package static func fullVersion(low: UInt32, base: UInt64) -> UInt64 {
        guard base != UInt64.max else { return UInt64(low) }
        return base + UInt64(low &- UInt32(truncatingIfNeeded: base))
    }

    /// The version of an entry, as a get returns it.
    package func version(_ entry: IndexEntry) -> UInt64 { fullVersion(entry) }

    /// A version for a put whose checksums are made above the log; only while `isReadyToWrite`.
    package func nextPutVersion() -> UInt64 { takeVersion() }

    /// Whether a put can be started now: the index is complete, versions are reserved durably, and
    /// there is room for the operation.
    package var isReadyToWrite: Bool { recovery == nil && hasRoom() && reserveVersions() }

    func takeVersion() -> UInt64 {
        nextVersion += 1
        return nextVersion
    }

    package func layout(_ entry: IndexEntry) -> BlockLayout {
        BlockLayout(
            length: entry.length, shardCount: entry.shardCount,
            aligned: namespaces.aligned(entry.namespaceSlot))
    }

    /// Pages that the accounting gives a block: exact but for aligned shards of odd lengths, whose
    /// padding counts as dead.
    func accountedPages(_ entry: IndexEntry) -> UInt32 {
        let bytes = layout(entry).storedBytes
        return UInt32((bytes + FormatConstants.pageBytes - 1) / FormatConstants.pageBytes)
    }

    // MARK: The index and its accounting

    /// Publishes an entry, moving the accounting of the one that it replaces. False: index full.
    func publish(_ fingerprint: Fingerprint, _ entry: IndexEntry) -> Bool {
        let previous = index.find(fingerprint)
        if index.insert(fingerprint, entry) == .full { return false }
        if let previous { release(previous) }
        let pages = accountedPages(entry)
        segments[entry.place.segment].livePages += pages
        segments[entry.place.segment].liveBlocks += 1
        statistics.liveBytes += UInt64(entry.length)
        namespaces.added(entry.namespaceSlot, bytes: UInt64(entry.length))
        return true
    }

    /// A block was asked for and is there.
    @inline(__always)
    package func touched(_ fingerprint: Fingerprint) { heat.touched(fingerprint) }

    /// Takes an entry out of the index and its pages out of the live ones.
    @discardableResult
    func unpublish(_ fingerprint: Fingerprint) -> IndexEntry? {
        guard let entry = index.remove(fingerprint) else { return nil }
        release(entry)
        return entry
    }

    private func release(_ entry: IndexEntry) {
        segments[entry.place.segment].livePages -= accountedPages(entry)
        segments[entry.place.segment].liveBlocks -= 1
        statistics.liveBytes -= UInt64(entry.length)
        namespaces.removed(entry.namespaceSlot, bytes: UInt64(entry.length))
    }

    // MARK: Ending operations

    func finish(
        _ operation: Int32, _ status: Status, reason: MissReason = .none,
        table: UnsafeRawPointer? = nil
    ) {
        let slot = operations.slots + Int(operation)
        if slot.pointee.chunk >= 0 { giveBounce(operation) }
        let writes = slot.pointee.kind == .append || slot.pointee.kind == .delete
        // The next write of the key holds it from here on, but begins after this one's outcome.
        let follower = writes ? passKeyOn(operation) : -1
        statistics.count(status, reason)
        if !slot.pointee.abandoned {
            var outcome = Outcome(token: slot.pointee.token, status: status)
            outcome.reason = reason
            outcome.errno = slot.pointee.errno
            outcome.version = slot.pointee.version
            outcome.length = slot.pointee.length
            outcome.shardCount = slot.pointee.shardCount
            outcome.checksum = slot.pointee.checksum
            outcome.expiry = slot.pointee.expiry
            outcome.table = table
            operations.give(operation)
            delegate?.finished(outcome)
        } else {
            operations.give(operation)
        }
        if follower >= 0 { startWrite(follower) }
        if waitingForBounce > 0 { resumeWaitingForBounce() }
    }

    /// Ends this operation's hold on its key; returns the next one that waited for it, or -1.
    private func passKeyOn(_ operation: Int32) -> Int32 {
        guard operations[operation].phase != .waitingForKey else { return -1 }
        pending.remove(operation, operations)
        let follower = operations[operation].keyNext
        operations[operation].keyNext = -1
        guard follower >= 0 else { return -1 }
        operations[follower].phase = .idle
        pending.insert(follower, operations)
        return follower
    }

    /// Takes the key, or queues behind the operation that has it. True: go on now.
    func beginKey(_ operation: Int32) -> Bool {
        let holder = pending.find(operations[operation].fingerprint, operations)
        guard holder >= 0 else {
            pending.insert(operation, operations)
            return true
        }
        var last = holder
        while operations[last].keyNext >= 0 { last = operations[last].keyNext }
        operations[last].keyNext = operation
        operations[operation].phase = .waitingForKey
        return false
    }

    func startWrite(_ operation: Int32) {
        if readOnly {
            finish(operation, .readOnly)
            return
        }
        if recovery != nil || !reserveVersions() {
            waitingToStart.append(operation, operations)
            return
        }
        switch operations[operation].kind {
        case .append: startAppend(operation)
        case .delete: startDelete(operation)
        default: preconditionFailure("only writes hold keys")
        }
    }

    /// Starts the writes that waited for recovery or versions.
    func resumeWaitingToStart() {
        guard recovery == nil else { return }
        var waiting = waitingToStart
        waitingToStart = OperationList()
        while true {
            let operation = waiting.popFirst(operations)
            if operation < 0 { return }
            startWrite(operation)
        }
    }

    /// Unix seconds as expiry sees them: never below what the manifest has seen, and deaf to jumps
    /// of the wall clock while the store is open.
    package var wallSeconds: UInt32 {
        let passed = (clock.monotonic - openedMonotonic) / 1_000_000_000
        let (sum, overflow) = openedWall.addingReportingOverflow(
            UInt32(truncatingIfNeeded: passed))
        return overflow ? UInt32.max : sum
    }

    /// Time was this late once: the clock may have been set back since.
    func noteWall(_ seconds: UInt32) {
        let now = wallSeconds
        if seconds > now { openedWall += seconds - now }
    }

    /// Whether a caller may start `count` more operations.
    package func hasRoom(_ count: Int = 1) -> Bool {
        operations.inUse + count <= configuration.operations
    }
}

extension Fingerprint {
    /// The index's name of a key in a namespace's instance.
    @inline(__always)
    package static func of(
        _ secret: SecretKey, instance: UInt64, key: UnsafeRawBufferPointer
    ) -> Fingerprint {
        let id = SipHash.hash128(secret, instance, key)
        return Fingerprint(hi: id.hi == 0 ? 1 : id.hi, lo: id.lo)
    }
}
