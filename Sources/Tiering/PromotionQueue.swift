// PromotionQueue: announced blocks in staging that could be copied into the engine's memory, those
// due first first. A heap of fixed size; of a full one the newcomer is refused. A block may be in
// it twice: its turn tells whether it still makes sense.

import LogStore

struct PromotionCandidate {
    var fingerprint = Fingerprint(hi: 0, lo: 0)
    var due: UInt64 = 0
    /// Of equal due times the one that came first goes first.
    var order: UInt64 = 0
}

struct PromotionQueue: ~Copyable {
    private let heap: UnsafeMutablePointer<PromotionCandidate>
    private let capacity: Int
    private(set) var count = 0
    private var order: UInt64 = 0

    init(capacity: Int) {
        self.capacity = max(1, capacity)
        heap = .allocate(capacity: self.capacity)
        heap.initialize(repeating: PromotionCandidate(), count: self.capacity)
    }

    deinit { heap.deallocate() }

    static func memoryBytes(capacity: Int) -> Int {
        max(1, capacity) * MemoryLayout<PromotionCandidate>.stride
    }

    /// There must be one.
    var first: PromotionCandidate { heap[0] }

    mutating func removeAll() { count = 0 }

    private func isBefore(_ a: PromotionCandidate, _ b: PromotionCandidate) -> Bool {
        a.due != b.due ? a.due < b.due : a.order < b.order
    }

    /// False: there is no room.
    mutating func insert(_ candidate: PromotionCandidate) -> Bool {
        guard count < capacity else { return false }
        var made = candidate
        order += 1
        made.order = order
        var at = count
        count += 1
        while at > 0, isBefore(made, heap[(at - 1) / 2]) {
            heap[at] = heap[(at - 1) / 2]
            at = (at - 1) / 2
        }
        heap[at] = made
        return true
    }

    mutating func removeFirst() {
        count -= 1
        guard count > 0 else { return }
        let moved = heap[count]
        var at = 0
        while true {
            var child = 2 * at + 1
            guard child < count else { break }
            if child + 1 < count, isBefore(heap[child + 1], heap[child]) { child += 1 }
            guard isBefore(heap[child], moved) else { break }
            heap[at] = heap[child]
            at = child
        }
        heap[at] = moved
    }
}
