// WritePacer: keeps the writes of groups from standing in front of demand reads. While a device is
// being read, or was until a moment ago, groups go to it in small requests, few at once, so that a
// read that comes now waits behind little; while it is not, they go out whole, at once.
//
// Invariants: the requests of a group are all handed over in the end, each with one completion;
// with nothing under way the next one always goes out, so that writes keep a floor however much is
// read.

import BlockIO

struct WritePacer {
    /// Bytes of one request while the device is read.
    static let sliceBytes: UInt64 = 128 << 10
    /// How long a device counts as being read after the last read has ended, nanoseconds: a caller
    /// that reads one block after another should not meet a burst each time.
    static let lingering: UInt64 = 2_000_000

    /// Requests that wait for their turn.
    let queue = RequestQueue(capacity: 256)
    /// Requests of groups that the driver has.
    var underWay = 0
    /// Demand reads under way.
    var reads = 0
    /// When the last one ended, monotonic nanoseconds.
    var readUntil: UInt64 = 0
}

extension LogStore {
    /// Whether writes to a device give way.
    private func isPaced(_ device: Int) -> Bool {
        guard configuration.pacedWrites > 0 else { return false }
        if pacers[device].reads > 0 { return true }
        let until = pacers[device].readUntil
        return until > 0 && clock.monotonic < until &+ WritePacer.lingering
    }

    /// Hands over a write of a group, or keeps it for its turn. Returns how many completions come
    /// of it.
    func issuePaced(_ request: IORequest, _ device: Int) -> Int32 {
        guard isPaced(device) || !pacers[device].queue.isEmpty else {
            pacers[device].underWay += 1
            issue(request, on: device)
            return 1
        }
        var rest = request
        var count: Int32 = 0
        while rest.piece.length > 0 {
            var slice = rest
            slice.piece.length = min(rest.piece.length, WritePacer.sliceBytes)
            pacers[device].queue.append(slice)
            rest.fileOffset += slice.piece.length
            rest.piece.offset += slice.piece.length
            rest.piece.length -= slice.piece.length
            count += 1
        }
        statistics.pacedWrites += UInt64(count)
        advancePacer(device)
        return count
    }

    /// Hands over what may go now.
    func advancePacer(_ device: Int) {
        guard !pacers[device].queue.isEmpty else { return }
        let limit = isPaced(device) ? configuration.pacedWrites : Int.max
        while pacers[device].underWay < limit, let request = pacers[device].queue.popFirst() {
            pacers[device].underWay += 1
            issue(request, on: device)
        }
    }

    /// A request that `issuePaced` handed over has ended.
    func pacedEnded(_ device: Int) {
        pacers[device].underWay -= 1
        advancePacer(device)
    }

    @inline(__always)
    func demandBegan(_ device: Int) { pacers[device].reads += 1 }

    @inline(__always)
    func demandEnded(_ device: Int) {
        pacers[device].reads -= 1
        if pacers[device].reads == 0 { pacers[device].readUntil = clock.monotonic }
    }
}
