// DeviceLane: the way of requests to one device. A device that answers slowly, or not at all, may
// hold its share of what the driver takes at once and no more; the rest waits here, where it can
// still be given up, so that the others are never kept waiting by it.
//
// Invariants: `underWay` is what the driver (or the backlog before it) has of this device; a
// request that waits here has touched nothing.

import BlockIO

struct DeviceLane {
    var underWay = 0
    /// The most of it.
    var limit = Int.max
    let waiting = RequestQueue(capacity: 256)
    /// Bounce chunks that its reads hold, and the reads and table fetches that wait for one.
    var bounces = 0
    var waitingForBounce = OperationList()
    /// Monotonic time since when nothing has been answered, with something under way; 0 for a time
    /// that the turn has yet to look at.
    var silentSince: UInt64 = 0
    /// What was under way has been given up, and nothing has been answered since.
    var gaveUp = false
    var isProbing = false
    var grade = DeviceHealth.Grade.healthy
}

extension LogStore {
    /// Where a tag has the number of the device.
    static let deviceShift: UInt64 = 51

    /// Hands a request to the driver, or keeps it until its device and the driver have room.
    @inline(__always)
    func issue(_ request: IORequest, on device: Int) {
        var tagged = request
        tagged.tag |= UInt64(device) << Self.deviceShift
        if lanes[device].underWay < lanes[device].limit, lanes[device].waiting.isEmpty,
            !lanes[device].gaveUp
        {
            hand(tagged, device)
        } else {
            lanes[device].waiting.append(tagged)
        }
    }

    @inline(__always)
    private func hand(_ request: IORequest, _ device: Int) {
        if lanes[device].underWay == 0 { lanes[device].silentSince = 0 }
        lanes[device].underWay += 1
        if backlog.isEmpty, driver.prepare(request) { return }
        backlog.append(request)
    }

    /// A request that the driver had has ended.
    @inline(__always)
    func noteAnswer(_ kind: IOKind, _ completion: IOCompletion) {
        let device = Int((completion.tag >> Self.deviceShift) & 31)
        let before = lanes[device].underWay
        lanes[device].underWay -= 1
        lanes[device].silentSince = 0
        lanes[device].gaveUp = false
        if kind.tellsLatency, completion.result >= 0 {
            let nanoseconds = DeviceHealth.normalized(
                completion.deviceNanoseconds, bytes: UInt64(completion.result), underWay: before)
            devices[device].health.answered(
                nanoseconds, others: bestOfOthers(device), at: healthNow)
        }
        if !lanes[device].waiting.isEmpty { advanceLane(device) }
    }

    /// A request that tells whether a silent device answers again goes past what waits.
    func issueProbe(_ request: IORequest, on device: Int) {
        var tagged = request
        tagged.tag |= UInt64(device) << Self.deviceShift
        hand(tagged, device)
    }

    func advanceLane(_ device: Int) {
        while lanes[device].underWay < lanes[device].limit,
            let request = lanes[device].waiting.popFirst()
        { hand(request, device) }
    }

    /// The mean latency of the fastest other device, 0 for none that is known.
    private func bestOfOthers(_ device: Int) -> UInt64 {
        guard devices.count > 1 else { return 0 }
        var best = UInt64.max
        for other in devices.indices where other != device {
            if devices[other].health.answers >= DeviceHealth.leastAnswers,
                devices[other].state == .healthy
            {
                best = min(best, devices[other].health.recent)
            }
        }
        return best == UInt64.max ? 0 : best
    }

    /// Whether another device takes writes.
    func hasOthers(_ device: Int) -> Bool {
        for other in devices.indices where other != device && devices[other].takesWrites {
            return true
        }
        return false
    }

    /// Notes a failed request on a device.
    func deviceFailed(_ device: Int, errno: Int32, segment: UInt32? = nil) {
        if errno == Self.givenUp { return }  // its silence has been judged
        devices[device].failed(
            errno: errno, segment: segment, hasOthers: hasOthers(device), at: clock.monotonic)
    }

    /// Sets what a device may have under way: with others beside it, half of what the driver takes
    /// (or its share, if it is one of more), and little when it is slow.
    func limitLane(_ device: Int) {
        let count = devices.count { $0.state.isPresent }
        guard count > 1 else {
            lanes[device].limit = Int.max
            return
        }
        let depth = driver.limits.depth
        let share =
            lanes[device].grade == .healthy
            ? max(depth / count, min(depth / 2, depth / 4 * 3 / (count - 1))) : depth / (4 * count)
        lanes[device].limit = max(1, share)
    }

    // MARK: Group buffers

    /// Buffers that values may have on one device: where there are others, so many are left that
    /// these go on when the device holds all of its own.
    func mayOpenGroup(_ stream: Int) -> Bool {
        // What waits for a segment keeps its buffers until reclaim has made one, which needs its
        // own for what it carries on.
        if streams[stream].kind != .fresh, freeGroups > 0, isShort(streams[stream].device),
            !(0..<groupCount).contains(where: { groups[$0].inUse && groups[$0].stream == stream })
        {
            return true
        }
        // The last buffer is kept for records, so that a delete never waits for values to drain.
        // And where one stream waits for a segment, the others leave some for reclaim.
        let device = streams[stream].device
        var kept = streams[stream].isRecords ? 0 : 1
        if streams[stream].kind == .fresh, freshStreams > 1, isShort(device) {
            kept = min(3, groupCount / 2)
        }
        guard freeGroups > kept else { return false }
        guard devices.count > 1 else { return true }
        var held = 0
        for group in 0..<groupCount
        where groups[group].inUse && streams[groups[group].stream].device == device { held += 1 }
        let half = max(2, groupCount / 2)
        return held < (streams[stream].isRecords ? half : half - 1)
    }

    // MARK: Bounce chunks

    /// Takes a chunk for a read. One device never holds all of them where there are others.
    func takeBounce(_ operation: Int32) -> Bool {
        let device = SegmentTable.device(operations[operation].entry.place.segment)
        guard mayTakeBounce(device) else { return false }
        operations[operation].chunk = bouncePool.take()
        lanes[device].bounces += 1
        return true
    }

    @inline(__always)
    private func mayTakeBounce(_ device: Int) -> Bool {
        bouncePool.freeCount > 0
            && (devices.count == 1 || lanes[device].bounces < Self.bounceChunks / 4 * 3)
    }

    func giveBounce(_ operation: Int32) {
        guard operations[operation].chunk >= 0 else { return }
        lanes[SegmentTable.device(operations[operation].entry.place.segment)].bounces -= 1
        bouncePool.give(operations[operation].chunk)
        operations[operation].chunk = -1
    }

    func waitForBounce(_ operation: Int32) {
        let device = SegmentTable.device(operations[operation].entry.place.segment)
        lanes[device].waitingForBounce.append(operation, operations)
        waitingForBounce += 1
    }

    private func stopWaitingForBounce(_ operation: Int32) {
        let device = SegmentTable.device(operations[operation].entry.place.segment)
        lanes[device].waitingForBounce.remove(operation, operations)
        waitingForBounce -= 1
    }

    func resumeWaitingForBounce() {
        for device in lanes.indices {
            // Once around: what still finds no room goes to the end again.
            for _ in 0..<lanes[device].waitingForBounce.count where mayTakeBounce(device) {
                let operation = lanes[device].waitingForBounce.popFirst(operations)
                if operation < 0 { break }
                waitingForBounce -= 1
                if operations[operation].phase == .waitingForTable {
                    fetchTable(operation)
                } else {
                    startRead(operation)
                }
            }
        }
    }

    /// Reads and table fetches that wait for a chunk of a device that is not read any more.
    func giveUpBounceReads(_ device: Int) {
        var list = lanes[device].waitingForBounce
        lanes[device].waitingForBounce = OperationList()
        waitingForBounce -= list.count
        while true {
            let operation = list.popFirst(operations)
            if operation < 0 { return }
            switch (operations[operation].phase, operations[operation].kind) {
            case (.waitingForTable, .append): startAppend(operation)  // takes the block's place
            case (.waitingForTable, _): finish(operation, .miss, reason: .deviceOut)
            default: endRead(operation, .miss, .deviceOut)
            }
        }
    }

    // MARK: Giving up what waits

    /// The error of what was given up: ECANCELED.
    static let givenUp: Int32 = 125

    /// Whether `withdraw` may find something.
    package var holdsBack: Bool {
        waitingForBounce > 0 || lanes.contains { !$0.waiting.isEmpty }
    }

    /// Takes back a read of a token of the layer above, if the driver has nothing of it: its
    /// outcome, a miss, comes before this returns. False: it is under way.
    package func withdraw(read token: UInt64) -> Bool {
        for index in 0..<operations.capacity {
            let slot = operations.slots + index
            guard slot.pointee.kind == .read, slot.pointee.token == token,
                !slot.pointee.reinsertion
            else { continue }
            return withdraw(Int32(index))
        }
        return false
    }

    private func withdraw(_ operation: Int32) -> Bool {
        let slot = operations.slots + Int(operation)
        let entry = slot.pointee.entry
        switch slot.pointee.phase {
        case .waitingForTable:
            stopWaitingForBounce(operation)
            finish(operation, .miss, reason: .deadline)
            return true
        case .waitingForChunk: stopWaitingForBounce(operation)
        case .reading:
            guard slot.pointee.runNext < 0, slot.pointee.pendingIO <= 1 else { return false }
            let device = SegmentTable.device(entry.place.segment)
            let isTable = slot.pointee.pendingIO == 0
            let tag =
                Self.tag(isTable ? .table : .read, operation)
                | UInt64(device) << Self.deviceShift
            guard lanes[device].waiting.remove(tag: tag) else { return false }
            if isTable {
                segments[entry.place.segment].readers -= 1
                finish(operation, .miss, reason: .deadline)
                return true
            }
        default: return false
        }
        endRead(operation, .miss, .deadline)
        return true
    }
}

extension IOKind {
    /// Kinds whose latency is the device's own; a sync's or an allocation's is the file system's
    /// too.
    var tellsLatency: Bool {
        switch self {
        case .group, .read, .table, .footer, .reclaimRead, .moveRead, .probe: true
        default: false
        }
    }
}
