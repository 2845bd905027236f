// UnusedBlocks: the residents that were brought early and that nobody has used yet, by resident
// slot: who asked for each, since when, and until when it is protected. They are linked twice, in
// the order in which they came and by request, so that what a request will not read is found.
//
// Invariant: `windowBytes` is the sum over the marks that are in the window.

struct UnusedBlock {
    var predictor = PredictorKind.chain
    var isMarked = false
    /// Counts against what unused blocks may hold.
    var isInWindow = false
    var bytes: UInt32 = 0
    var request: Int32 = -1
    var due: UInt64 = 0
    var came: UInt64 = 0
    var older: Int32 = -1
    var newer: Int32 = -1
    var nextOfRequest: Int32 = -1
    var previousOfRequest: Int32 = -1
}

struct UnusedBlocks {
    let marks: UnsafeMutablePointer<UnusedBlock>
    let capacity: Int
    private(set) var windowBytes = 0
    private(set) var oldest: Int32 = -1
    private(set) var newest: Int32 = -1

    init(capacity: Int) {
        self.capacity = capacity
        marks = .allocate(capacity: max(1, capacity))
        marks.initialize(repeating: UnusedBlock(), count: max(1, capacity))
    }

    func deallocate() { marks.deallocate() }

    static func memoryBytes(_ capacity: Int) -> Int { capacity * MemoryLayout<UnusedBlock>.stride }

    @inline(__always)
    func isMarked(_ slot: Int32) -> Bool {
        slot >= 0 && Int(slot) < capacity && marks[Int(slot)].isMarked
    }

    /// Marks a resident as the newest in the window.
    mutating func mark(_ slot: Int32, _ mark: UnusedBlock, in queue: PrefetchQueue) {
        guard slot >= 0, Int(slot) < capacity else { return }
        if marks[Int(slot)].isMarked { unmark(slot, in: queue) }
        var made = mark
        made.isMarked = true
        made.isInWindow = true
        made.older = newest
        made.newer = -1
        made.previousOfRequest = -1
        made.nextOfRequest = -1
        if made.request >= 0 {
            queue.retain(made.request)
            made.nextOfRequest = queue.requests[Int(made.request)].marks
            if made.nextOfRequest >= 0 { marks[Int(made.nextOfRequest)].previousOfRequest = slot }
            queue.requests[Int(made.request)].marks = slot
        }
        marks[Int(slot)] = made
        if newest >= 0 { marks[Int(newest)].newer = slot } else { oldest = slot }
        newest = slot
        windowBytes += Int(mark.bytes)
    }

    /// Takes the mark away; returns what it was. Its request is let go of.
    @discardableResult
    mutating func unmark(_ slot: Int32, in queue: PrefetchQueue) -> UnusedBlock {
        let mark = marks[Int(slot)]
        displace(slot)
        detach(slot, in: queue)
        marks[Int(slot)] = UnusedBlock()
        return mark
    }

    /// Lets go of its request; it stays marked, so that a late use still counts.
    func detach(_ slot: Int32, in queue: PrefetchQueue) {
        let mark = marks[Int(slot)]
        guard mark.request >= 0 else { return }
        if mark.previousOfRequest >= 0 {
            marks[Int(mark.previousOfRequest)].nextOfRequest = mark.nextOfRequest
        } else {
            queue.requests[Int(mark.request)].marks = mark.nextOfRequest
        }
        if mark.nextOfRequest >= 0 {
            marks[Int(mark.nextOfRequest)].previousOfRequest = mark.previousOfRequest
        }
        marks[Int(slot)].request = -1
        marks[Int(slot)].previousOfRequest = -1
        marks[Int(slot)].nextOfRequest = -1
        queue.release(mark.request)
    }

    /// Takes it out of the window; it stays marked, so that a late use still counts.
    mutating func displace(_ slot: Int32) {
        let mark = marks[Int(slot)]
        guard mark.isInWindow else { return }
        let (older, newer) = (mark.older, mark.newer)
        if older >= 0 { marks[Int(older)].newer = newer } else { oldest = newer }
        if newer >= 0 { marks[Int(newer)].older = older } else { newest = older }
        marks[Int(slot)].isInWindow = false
        marks[Int(slot)].older = -1
        marks[Int(slot)].newer = -1
        windowBytes -= Int(mark.bytes)
    }
}

/// Keys that made room for a prefetch: a table in which newer ones overwrite older ones.
struct DisplacedKeys {
    private let tags: UnsafeMutablePointer<UInt64>
    static let capacity = 1 << 13

    init() {
        tags = .allocate(capacity: Self.capacity)
        tags.initialize(repeating: 0, count: Self.capacity)
    }

    func deallocate() { tags.deallocate() }

    func insert(_ hi: UInt64, _ lo: UInt64) {
        tags[Int(truncatingIfNeeded: lo) & (Self.capacity - 1)] = hi
    }

    /// Whether it was there; it is not afterwards.
    func remove(_ hi: UInt64, _ lo: UInt64) -> Bool {
        let at = Int(truncatingIfNeeded: lo) & (Self.capacity - 1)
        guard tags[at] == hi, hi != 0 else { return false }
        tags[at] = 0
        return true
    }
}
