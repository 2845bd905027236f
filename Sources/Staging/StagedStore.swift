// StagedStore: the log store with its DRAM tier on top. Puts that are volatile, odd or kept as read
// copies are made into stored images in slabs and written from there; gets that are cached, leased
// or unaligned are read into slabs and served from them. Owner thread; same pump as the log below.
//
// Invariants:
//  - every operation taken by `submit` is answered exactly once, and `released` follows only for an
//    answer that said the memory was still in use;
//  - a resident that is the only copy of a block (dirty) is not evicted before the log has it;
//  - nobody waits for slabs by spinning: a full arena throttles puts, and queues gets behind the
//    reads under way.

import BlockIO
import LogStore
import SegmentFormat

package struct StagedConfiguration: Sendable {
    package var log: LogStoreConfiguration
    /// Bytes of slabs; 0 for a store without staging.
    package var stagingBytes: Int
    package var slabBytes: Int = 64 << 10
    /// Whether put and read blocks stay as read copies (inclusive), or leave when handed up.
    package var inclusive: Bool
    /// Whether cached gets of some shards keep these alone, where they lie in pages of their own.
    package var keepsParts = false

    package init(log: LogStoreConfiguration, stagingBytes: Int, inclusive: Bool) {
        self.log = log
        self.stagingBytes = stagingBytes
        self.inclusive = inclusive
    }
}

package struct StagedStatistics: Sendable {
    package var hitsStaging: UInt64 = 0
    package var hitsDevice: UInt64 = 0
    package var stagedReads: UInt64 = 0
    package var sharedReads: UInt64 = 0
    package var prefetchReads: UInt64 = 0
    package var directReads: UInt64 = 0
    package var bounceBytes: UInt64 = 0
    package var throttledPuts: UInt64 = 0
    package var throttledGets: UInt64 = 0
    package var volatileLost: UInt64 = 0
    /// Puts that the gate refused, as nothing but memory was left for them or not even that.
    package var notAdmitted: UInt64 = 0
    /// Volatile puts that stayed in memory alone, and their value bytes.
    package var unwrittenPuts: UInt64 = 0
    package var unwrittenBytes: UInt64 = 0
    /// Copies that puts of blocks on disk left in memory.
    package var copiesKept: UInt64 = 0
    package var timedOut: UInt64 = 0
    package var cancelled: UInt64 = 0
    package init() {}
}

package final class StagedStore {
    package let log: LogStore
    private let lookAhead: IndexLookAhead
    private let regions: RegionTable
    package let arena: StagingArena?
    package let configuration: StagedConfiguration
    /// Not owned: outlives the store.
    @exclusivity(unchecked) package unowned(unsafe) var sink: (any StoreSink)?
    /// Not owned: whoever sets it outlives the store or takes it out.
    @exclusivity(unchecked) package unowned(unsafe) var observer: (any AccessObserver)? {
        didSet { arena?.observer = observer }
    }
    @exclusivity(unchecked) package var statistics = StagedStatistics()
    package let touches: TouchQueue

    let operations: StagedPool
    /// Operations that wait for slabs, in order.
    @exclusivity(unchecked) var waitingForSlabs = StagedList()
    /// Operations that found no room in the log.
    @exclusivity(unchecked) var waitingForLog = StagedList()
    /// First operation that waits for each resident's filling, by resident slot.
    var joined: [Int32]
    var touchBuffer: [StagingKey]
    /// The earliest deadline of a live operation.
    @exclusivity(unchecked) var earliestDeadline = UInt64.max
    @exclusivity(unchecked) var deadlineCount = 0
    var wasRecovered = false
    /// Bytes of heap memory behind unaligned reads under way.
    @exclusivity(unchecked) var bounceInUse = 0
    static let bounceLimit = 64 << 20
    var closing = false
    /// Bytes of residents that may wait for their write: volatile puts beyond that stay in memory
    /// alone.
    @exclusivity(unchecked) package var dirtyLimit = Int.max
    /// Not owned; decides which puts are written. Nil: all of them.
    @exclusivity(unchecked) package unowned(unsafe) var gate: (any WriteGate)?
    /// Prefetches under way, in no order.
    let prefetches: UnsafeMutablePointer<Int32>
    @exclusivity(unchecked) package internal(set) var prefetching = 0

    /// Internal tokens of the log carry the operation's number; control tokens are passed through.
    static let controlBit: UInt64 = 1 << 63

    package static func open(
        _ configuration: StagedConfiguration, driver: any BlockDriver, clock: any Clock,
        policy: any ReplacementPolicy = LRUPolicy()
    ) throws(StoreError) -> StagedStore {
        var arena: StagingArena?
        let slabs = configuration.stagingBytes / configuration.slabBytes
        if slabs > 0 {
            do {
                arena = try StagingArena(
                    slabBytes: configuration.slabBytes, slabCount: slabs,
                    residentCapacity: slabs, policy: policy, regions: driver.regions)
            } catch {
                throw StoreError(
                    .resource, operation: "open", subject: "the staging arena",
                    errno: error.errno, advice: "Lower the staging bytes or the memory limit.")
            }
        }
        let log = try LogStore.open(configuration.log, driver: driver, clock: clock)
        if let arena { driver.register(arena.region) }
        return StagedStore(log: log, arena: arena, configuration: configuration)
    }

    private init(log: LogStore, arena: StagingArena?, configuration: StagedConfiguration) {
        self.log = log
        lookAhead = log.index.lookAhead
        regions = log.driver.regions
        self.arena = arena
        self.configuration = configuration
        operations = StagedPool(capacity: log.configuration.operations)
        prefetches = .allocate(capacity: operations.capacity)
        touches = TouchQueue(bound: 1 << 16)
        touchBuffer = touches.makeBuffer()
        joined = [Int32](
            repeating: -1,
            count: arena == nil
                ? 0 : configuration.stagingBytes / configuration.slabBytes + 1)
        log.delegate = self
    }

    deinit { prefetches.deallocate() }

    // MARK: The pump

    @discardableResult
    package func pump() -> Bool {
        drainTouches()
        var progressed = log.pump()
        if !wasRecovered && log.isRecovered {
            wasRecovered = true
            progressed = true
            sink?.happened(
                .recovered(
                    nanoseconds: log.statistics.recovery.totalNanoseconds, blocks: log.index.count))
        }
        if !waitingForLog.isEmpty || !waitingForSlabs.isEmpty {
            let before = waitingForLog.count + waitingForSlabs.count
            retryWaiting()
            if waitingForLog.count + waitingForSlabs.count < before { progressed = true }
        }
        if deadlineCount > 0 && log.clock.monotonic >= earliestDeadline { expireDeadlines() }
        return progressed
    }

    /// When the owner has to be awake next, monotonic nanoseconds.
    package var nextDeadline: UInt64 {
        let own = deadlineCount > 0 ? earliestDeadline : UInt64.max
        let next = min(own, log.nextDeadline, log.nextLook)
        if waitingForLog.isEmpty && waitingForSlabs.isEmpty { return next }
        // What waits for room is looked at again soon, should no completion come first.
        return min(next, log.clock.monotonic + 1_000_000)
    }

    package var isRecovered: Bool { log.isRecovered }
    package var durableVersion: UInt64 { log.durableVersion }

    /// Whether nothing is under way.
    package var isIdle: Bool { operations.inUse == 0 && log.isIdle }

    private func retryWaiting() {
        var list = waitingForLog
        waitingForLog = StagedList()
        while let operation = list.popFirst(operations) { resume(operation) }
        guard arena != nil, !waitingForSlabs.isEmpty else { return }
        list = waitingForSlabs
        waitingForSlabs = StagedList()
        while let operation = list.popFirst(operations) { resume(operation) }
    }

    private func drainTouches() {
        guard let arena, touches.count > 0 else { return }
        touches.drain(into: &touchBuffer)
        for key in touchBuffer {
            touched(Fingerprint(hi: key.hi, lo: key.lo), arena)
        }
    }

    // MARK: Taking operations

    /// The fingerprint of an operation's key, for `submit`.
    @inline(__always)
    package func fingerprint(_ operation: StoreOperation) -> Fingerprint {
        log.fingerprint(operation.namespaceSlot, operation.key)
    }

    /// Starts bringing what the operation's lookup will read; see `IndexLookAhead`.
    @inline(__always)
    package func prefetch(_ fingerprint: Fingerprint) { lookAhead.prefetch(fingerprint) }

    @inline(__always)
    package func prefetchNext(_ fingerprint: Fingerprint) { lookAhead.prefetchNext(fingerprint) }

    /// Takes an operation whose fingerprint nobody has made yet.
    package func submit(_ operation: StoreOperation) -> Bool {
        submit(operation, fingerprint(operation))
    }

    /// Takes an operation and its fingerprint. False: no room now; try again after `pump`.
    package func submit(_ operation: StoreOperation, _ fingerprint: Fingerprint) -> Bool {
        switch operation.kind {
        case .get, .put, .delete:
            guard let index = operations.take(operation) else { return false }
            let slot = operations.slots + Int(index)
            slot.pointee.fingerprint = fingerprint
            if operation.deadline > 0 {
                deadlineCount += 1
                earliestDeadline = min(earliestDeadline, operation.deadline)
            }
            if let problem = validate(operation) {
                answer(index, problem)
                return true
            }
            if operation.kind != .get && !waitingForLog.isEmpty {
                waitingForLog.append(index, operations)  // writes keep their order
            } else {
                resume(index)
            }
        case .touch:
            touched(fingerprint, arena)
            reply(operation.token, .done)
        case .pin: reply(operation.token, log.pin(fingerprint, until: operation.deadline))
        case .unpin:
            log.unpin(fingerprint)
            reply(operation.token, .done)
        case .contains:
            let resident = arena?.find(fingerprint.stagingKey)
            let present =
                resident?.state.isVisible == true || isPresent(fingerprint)
            reply(operation.token, present ? .hit : .miss)
        case .prefetch: reply(operation.token, .invalid)  // not for callers
        }
        return true
    }

    /// The block was used elsewhere.
    package func touch(_ fingerprint: Fingerprint) { touched(fingerprint, arena) }

    /// The block was used without a get.
    private func touched(_ fingerprint: Fingerprint, _ arena: StagingArena?) {
        log.touched(fingerprint)
        let found = arena?.find(fingerprint.stagingKey)
        if let found { arena?.touch(found.slot) }
        guard let observer else { return }
        var access = Access(kind: .touch, fingerprint: fingerprint)
        if let found, found.state.isVisible { access.resident = found.slot.index }
        observer.accessed(access)
    }

    private func reply(_ token: UInt64, _ status: Status) {
        sink?.answered(StoreAnswer(token: token, status: status))
    }

    private func validate(_ operation: StoreOperation) -> Status? {
        if operation.key.count == 0 || operation.key.count > FormatConstants.maxKeyBytes
            || operation.parent.count > FormatConstants.maxKeyBytes
            || !log.namespaces.isLive(operation.namespaceSlot)
            || (operation.namespaceInstance != 0
                && operation.namespaceInstance
                    != log.namespaces.instance(operation.namespaceSlot))
        {
            return .invalid
        }
        if operation.pieceCount > 0 && operation.pieces == nil { return .invalid }
        var total: UInt64 = 0
        for index in 0..<operation.pieceCount {
            guard let piece = operation.pieces?[index],
                regions.contains(piece)
            else { return .invalid }
            let (sum, overflow) = total.addingReportingOverflow(piece.length)
            if overflow { return .invalid }
            total = sum
        }
        if operation.kind == .put {
            if closing { return .readOnly }
            if operation.length == 0 || total < UInt64(operation.length) { return .invalid }
            if UInt64(operation.length) > log.manifest.maxBlockBytes { return .tooLarge }
            return validateShards(operation)
        }
        return nil
    }

    private func validateShards(_ operation: StoreOperation) -> Status? {
        guard let lengths = operation.shardLengths else { return nil }
        guard operation.shardCount >= 1, operation.shardCount <= FormatConstants.maxShards else {
            return .invalid
        }
        var sum: UInt64 = 0
        for shard in 0..<operation.shardCount { sum += UInt64(lengths[shard]) }
        return sum == UInt64(operation.length) ? nil : .invalid
    }

    /// Starts an operation, or goes on with one that waited.
    func resume(_ index: Int32) {
        switch operations[index].message.kind {
        case .get: startGet(index)
        case .put: startPut(index)
        case .delete: startDelete(index)
        default: preconditionFailure("only keyed I/O is kept in slots")
        }
    }

    // MARK: Delete

    private func startDelete(_ index: Int32) {
        let slot = operations.slots + Int(index)
        if slot.pointee.abandoned {  // given up before it began: it must not happen later
            answer(index, .cancelled)
            return
        }
        let taken = log.delete(
            token: UInt64(index), fingerprint: slot.pointee.fingerprint,
            namespaceSlot: slot.pointee.message.namespaceSlot, key: slot.pointee.message.key)
        if !taken { waitingForLog.append(index, operations) }
    }

    func deleteEnded(_ index: Int32, _ ended: Outcome) {
        var outcome = ended
        let key = operations[index].fingerprint.stagingKey
        if outcome.status == .notFound, let arena, let found = arena.find(key),
            found.state.isVisible, arena.isUnwritten(found.slot)
        {
            // It was in memory alone; there is nothing on disk to be marked as deleted.
            outcome.status = .deleted
            outcome.version = log.nextPutVersion()
            outcome.length = arena.info(found.slot).length
        }
        if outcome.status == .deleted || outcome.status == .notFound {
            removeOlder(operations[index].fingerprint, than: outcome.version)
        }
        answer(index, outcome)
    }

    /// Drops a resident that a delete or a newer version has overtaken.
    func removeOlder(_ fingerprint: Fingerprint, than version: UInt64) {
        guard let arena, let found = arena.find(fingerprint.stagingKey), found.state.isVisible
        else { return }
        let isOlder = arena.info(found.slot).version < version
        // What is on disk is read from there again; what is not may have come since.
        if isOlder || found.state == .clean && !arena.isUnwritten(found.slot) {
            arena.remove(found.slot)
        }
    }

    // MARK: Control

    package func openNamespace(
        token: UInt64, fields: [(String, String)], aligned: Bool, timeToLive: UInt32,
        capBytes: UInt64
    ) {
        log.openNamespace(
            token: token | Self.controlBit, fields: fields, aligned: aligned,
            timeToLive: timeToLive, capBytes: capBytes)
    }

    package func purge(token: UInt64, namespaceSlot: UInt16) {
        _ = arena?.removeAll(namespaceSlot: namespaceSlot)
        log.purge(token: token | Self.controlBit, namespaceSlot)
    }

    package func flush(token: UInt64, through version: UInt64) {
        log.flush(token: token | Self.controlBit, through: version)
    }

    package func strike(token: UInt64, device: Int) {
        log.strike(token: token | Self.controlBit, device: device)
    }

    /// Adds blocks to the list from its place on: first those that are in slabs alone, whose writes
    /// under way have the keys, then what the log has.
    package func list(token: UInt64, _ list: BlockList) {
        if case .memory(let first) = list.place {
            let next = log.forEachAppend(from: first) { fingerprint, space, key in
                tellStaged(list, fingerprint, space, key)
            }
            if let next {
                list.place = .memory(operation: next)
                sink?.controlled(Outcome(token: token, status: .done))
                return
            }
            list.place = .segment(0, page: 0)
        }
        log.list(token: token | Self.controlBit, list)
    }

    /// False: the list is full.
    private func tellStaged(
        _ list: BlockList, _ fingerprint: Fingerprint, _ space: UInt16,
        _ key: UnsafeRawBufferPointer
    ) -> Bool {
        guard space == list.namespaceSlot, log.namespaces.instance(space) == list.instance,
            let arena, let found = arena.find(fingerprint.stagingKey), found.state == .dirty,
            !isPresent(fingerprint)
        else { return true }
        let info = arena.info(found.slot)
        if info.expiry != 0 && info.expiry <= log.wallSeconds { return true }
        return list.add(
            key, length: info.length, version: info.version, shardCount: Int(info.shardCount) + 1)
    }

    package func checkpoint(token: UInt64) { log.checkpoint(token: token | Self.controlBit) }

    /// Whether nothing is under way but what hangs on a silent device.
    package var isIdleBesideSilent: Bool {
        log.anySilent ? log.isIdleBesideSilent && waitingForLog.isEmpty : isIdle
    }

    /// Closing with a silent device: what hangs on it is answered as cancelled, and acknowledged
    /// blocks that have not reached it are lost.
    package func leaveSilent() {
        for index in 0..<operations.capacity where operations.slots[index].inUse {
            if operations.slots[index].answered {
                operations.slots[index].answered = false
                operations.slots[index].abandoned = true
                operations.slots[index].silent = true
                statistics.volatileLost += 1
                let resident = operations.slots[index].resident
                let version = resident < 0 ? nil : arena?.info(ResidentSlot(resident)).version
                sink?.happened(.volatileLost(version: version ?? 0, errno: 110))  // ETIMEDOUT
            } else {
                giveUp(Int32(index), .cancelled, .none)
            }
        }
    }

    /// Refuses new writes from now on; the caller pumps until idle, flushes and checkpoints.
    package func beginClose() {
        closing = true
        loseUnwritten()
        log.stopBackground()
    }

    package func shutdown() {
        log.delegate = nil
        log.shutdown()
    }

    // MARK: Answers

    func answer(_ index: Int32, _ status: Status, reason: MissReason = .none) {
        var made = StoreAnswer(token: operations[index].message.token, status: status)
        made.reason = reason
        deliver(index, made)
    }

    func answer(_ index: Int32, _ outcome: Outcome) {
        var made = StoreAnswer(token: operations[index].message.token, status: outcome.status)
        made.reason = outcome.reason
        made.errno = outcome.errno
        made.version = outcome.version
        made.length = outcome.length
        made.shardCount = outcome.shardCount
        made.retryNanoseconds = outcome.retryNanoseconds
        if outcome.status == .throttled { made.retryNanoseconds = 1_000_000 }
        deliver(index, made)
    }

    /// Answers and frees the operation; one that was given up before only lets go of its memory.
    func deliver(_ index: Int32, _ answer: StoreAnswer) {
        let abandoned = operations[index].abandoned
        let silent = operations[index].silent
        let token = operations[index].message.token
        if operations[index].message.deadline > 0 { deadlineCount -= 1 }
        operations.give(index)
        if !abandoned {
            sink?.answered(answer)
        } else if !silent {
            sink?.released(token)
        }
    }
}

extension StagedStore: LogStoreDelegate {
    package func finished(_ outcome: Outcome) {
        if outcome.token & Self.controlBit != 0 {
            var passed = outcome
            passed.token &= ~Self.controlBit
            sink?.controlled(passed)
            return
        }
        let index = Int32(truncatingIfNeeded: outcome.token)
        switch operations[index].message.kind {
        case .get: readEnded(index, outcome)
        case .prefetch: prefetchReadEnded(index, outcome)
        case .put: appendEnded(index, outcome)
        case .delete: deleteEnded(index, outcome)
        default: break
        }
    }

    package func evicted(_ fingerprint: Fingerprint) {}

    package func deviceChanged(_ device: Int, to state: DeviceState) {
        sink?.happened(.deviceChanged(index: device, state: state))
    }

    package func foundRot(in segment: UInt32, blocks: Int) {
        sink?.happened(
            .rotFound(
                device: SegmentTable.device(segment), segment: SegmentTable.local(segment),
                isBlock: blocks > 0))
    }

    package func holds(namespaceSlot: UInt16) -> Bool {
        for index in 0..<operations.capacity
        where operations.slots[index].inUse
            && operations.slots[index].message.namespaceSlot == namespaceSlot
        { return true }
        return false
    }
}

extension Fingerprint {
    package var stagingKey: StagingKey { StagingKey(hi: hi, lo: lo) }
}
