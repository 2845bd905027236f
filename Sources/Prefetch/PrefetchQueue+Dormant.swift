// Dormant blocks: what is wanted but need not be brought as things are, because it is in staging or
// not stored yet. With little staging and many requests ahead, what a request will find there when
// its turn comes is not what was there when it was hinted; so these are looked at again when the
// block leaves staging, or is stored. When the queue is full the oldest of them goes.
//
// Invariants: at most `dormantsABlock` dormant blocks have one fingerprint, and of one request at
// most one, so that finding them all is bounded; each is in the list of all and in its request's.

import LogStore

extension PrefetchQueue {
    /// Requests that can sleep over one block.
    static let dormantsABlock = 8

    /// What is asleep over a fingerprint: how many, and the one due first, -1 for none.
    func dormants(_ fingerprint: Fingerprint) -> (count: Int, first: Int32) {
        guard dormant > 0 else { return (0, -1) }
        var found: (count: Int, first: Int32) = (0, -1)
        var at = hashed(fingerprint)
        while at >= 0 {
            let block = blocks + Int(at)
            if block.pointee.state == .dormant, block.pointee.fingerprint == fingerprint {
                found.count += 1
                if found.first < 0 || due(at) < due(found.first) { found.first = at }
            }
            at = block.pointee.hashNext
        }
        return found
    }

    /// Whether the request has the block in the queue, in whatever state.
    func has(_ request: Int32, _ fingerprint: Fingerprint) -> Bool {
        var at = hashed(fingerprint)
        while at >= 0 {
            let block = blocks + Int(at)
            if block.pointee.request == request, block.pointee.fingerprint == fingerprint {
                return true
            }
            at = block.pointee.hashNext
        }
        return false
    }

    @inline(__always)
    func due(_ index: Int32) -> UInt64 { requests[Int(blocks[Int(index)].request)].due }

    /// A dormant block waits from now on, before the request's others.
    func wake(_ index: Int32) {
        unlinkDormant(index)
        linkFirst(index)
    }

    /// A waiting block need not be brought as things are.
    func sleepWaiting(_ index: Int32) {
        unlink(index)
        linkDormant(index)
    }

    /// A block under way is the other's request's from now on, which slept over it.
    func handOver(_ index: Int32, to dormant: Int32) {
        let (old, new) = (blocks[Int(index)].request, blocks[Int(dormant)].request)
        remove(dormant)
        requests[Int(old)].uses -= 1
        requests[Int(new)].uses += 1
        blocks[Int(index)].request = new
    }

    func linkDormant(_ index: Int32) {
        let block = blocks + Int(index)
        block.pointee.state = .dormant
        block.pointee.previous = newestDormant
        block.pointee.next = -1
        if newestDormant >= 0 {
            blocks[Int(newestDormant)].next = index
        } else {
            oldestDormant = index
        }
        newestDormant = index
        let owner = requests + Int(block.pointee.request)
        let following = owner.pointee.firstDormant
        block.pointee.previousOfRequest = -1
        block.pointee.nextOfRequest = following
        if following >= 0 { blocks[Int(following)].previousOfRequest = index }
        owner.pointee.firstDormant = index
        dormant += 1
    }

    func unlinkDormant(_ index: Int32) {
        let block = blocks + Int(index)
        let (older, newer) = (block.pointee.previous, block.pointee.next)
        if older >= 0 { blocks[Int(older)].next = newer } else { oldestDormant = newer }
        if newer >= 0 { blocks[Int(newer)].previous = older } else { newestDormant = older }
        let (before, behind) = (block.pointee.previousOfRequest, block.pointee.nextOfRequest)
        if before >= 0 {
            blocks[Int(before)].nextOfRequest = behind
        } else {
            requests[Int(block.pointee.request)].firstDormant = behind
        }
        if behind >= 0 { blocks[Int(behind)].previousOfRequest = before }
        block.pointee.next = -1
        block.pointee.previous = -1
        block.pointee.nextOfRequest = -1
        block.pointee.previousOfRequest = -1
        dormant -= 1
    }
}
