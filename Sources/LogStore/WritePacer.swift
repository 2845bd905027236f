// WritePacer: keeps the writes of groups from standing in front of demand reads, and what nobody
// waits for (dumps, the reads of reclaim) from standing in front of both. While a device is being
// read, or was until a moment ago, groups go to it in small requests, few at once, so that a read
// that comes now waits behind little; while it is not, they go out whole, at once. The rest goes,
// one small request at a time, while no group waits.
//
// Invariants: the requests of a group are all handed over in the end, each with one completion;
// with nothing under way the next one always goes out, so that writes keep a floor however much is
// read; of eight turns the rest has one. Records are small and somebody waits for them: they do not
// queue behind values. Nor do the reads of reclaim where groups wait for the segment.

import BlockIO

struct WritePacer {
    /// Bytes of one request while the device is read.
    static let sliceBytes: UInt64 = 128 << 10
    /// How long a device counts as being read after the last read has ended, nanoseconds: a caller
    /// that reads one block after another should not meet a burst each time.
    static let lingering: UInt64 = 2_000_000

    /// Requests that wait for their turn.
    let queue = RequestQueue(capacity: 256)
    /// What nobody waits for.
    let later = RequestQueue(capacity: 256)
    var turns = 0
    /// Requests of both that the driver has.
    var underWay = 0
    /// Demand reads under way.
    var reads = 0
    /// When the last one ended, monotonic nanoseconds.
    var readUntil: UInt64 = 0
    /// How many may be under way while the device is read.
    var share: WriteShare

    init(least: Int) { share = WriteShare(least: least) }
}

extension LogStore {
    /// Whether writes to a device give way.
    func isPaced(_ device: Int) -> Bool {
        guard configuration.pacedWrites > 0 else { return false }
        if pacers[device].reads > 0 { return true }
        let until = pacers[device].readUntil
        return until > 0 && clock.monotonic < until &+ WritePacer.lingering
    }

    /// Whether somebody waits for a device now.
    package var demandIsUnderWay: Bool {
        for pacer in pacers where pacer.reads > 0 { return true }
        return false
    }

    /// Whether somebody waits for a device, or did until a moment ago.
    package var demandWaits: Bool {
        for pacer in pacers where pacer.reads > 0 { return true }
        let now = clock.monotonic
        for pacer in pacers
        where pacer.readUntil > 0 && now < pacer.readUntil &+ WritePacer.lingering { return true }
        return false
    }

    /// Hands over a write of a group, or keeps it for its turn. Returns how many completions come
    /// of it.
    func issuePaced(_ request: IORequest, _ device: Int, records: Bool = false) -> Int32 {
        guard !records, isPaced(device) || !pacers[device].queue.isEmpty else {
            pacers[device].underWay += 1
            issue(request, on: device)
            return 1
        }
        let count = pacers[device].queue.append(request, inSlicesOf: WritePacer.sliceBytes)
        statistics.pacedWrites += UInt64(count)
        advancePacer(device)
        return count
    }

    /// The same for what nobody waits for; but where groups of the device wait for a segment
    /// (`urgent`) it has their turn.
    func issueLater(_ request: IORequest, _ device: Int, urgent: Bool = false) -> Int32 {
        if urgent { return issuePaced(request, device) }
        guard isPaced(device) || !pacers[device].queue.isEmpty || !pacers[device].later.isEmpty
        else {
            pacers[device].underWay += 1
            issue(request, on: device)
            return 1
        }
        let count = pacers[device].later.append(request, inSlicesOf: WritePacer.sliceBytes)
        advancePacer(device)
        return count
    }

    /// Hands over what may go now.
    func advancePacer(_ device: Int) {
        guard !pacers[device].queue.isEmpty || !pacers[device].later.isEmpty else { return }
        let limit = isPaced(device) ? pacers[device].share.limit : Int.max
        while pacers[device].underWay < limit, let request = nextPaced(device, limit) {
            pacers[device].underWay += 1
            issue(request, on: device)
        }
    }

    private func nextPaced(_ device: Int, _ limit: Int) -> IORequest? {
        if !pacers[device].queue.isEmpty {
            pacers[device].turns &+= 1
            if pacers[device].turns % 8 != 0 || pacers[device].later.isEmpty {
                return pacers[device].queue.popFirst()
            }
        } else if pacers[device].underWay > 0, limit != Int.max {
            return nil
        }
        return pacers[device].later.popFirst()
    }

    /// A request that `issuePaced` or `issueLater` handed over has ended.
    func pacedEnded(_ device: Int) {
        pacers[device].underWay -= 1
        advancePacer(device)
    }

    /// A request of a group has ended.
    func groupWriteEnded(_ device: Int, _ result: Int64) {
        pacedEnded(device)
        pacers[device].share.wrote(
            UInt64(max(0, result)), now: clock.monotonic, isPaced: isPaced(device),
            isFull: pacers[device].underWay >= pacers[device].share.limit)
    }

    @inline(__always)
    func demandBegan(_ device: Int) { pacers[device].reads += 1 }

    @inline(__always)
    func demandEnded(_ device: Int) {
        pacers[device].reads -= 1
        if pacers[device].reads == 0 { pacers[device].readUntil = clock.monotonic }
    }
}
