// ReclaimPlan: which blocks of a victim are worth writing again. A first pass over its records
// notes how many pages of live blocks there are of each heat and depth in their chain; the hottest
// that fit the budget stay, and of equal heat the heads of chains before their tails, since a tail
// is of no use without what comes before it. The second pass asks `keeps` of each block.
//
// Invariant: what `keeps` says yes to has at most the budget's pages.

import SegmentFormat

struct ReclaimPlan {
    private static let depths = 64
    private static let heats = 16

    /// Pages of live blocks by heat and depth.
    private let pages: UnsafeMutablePointer<UInt32>
    /// Fingerprints met, each with its depth in the low bits: open addressing, 0 is free.
    private let chains: UnsafeMutablePointer<UInt64>
    private let mask: Int
    private var met = 0
    /// Pages that may still be kept.
    private(set) var left: UInt32 = 0
    /// The least heat that is kept, and the depth at which it ends.
    private var leastHeat: UInt8 = 16
    private var endDepth = 0

    /// For victims of about so many records; of more, those past it count as heads.
    init(records: Int) {
        var size = 1024
        while size < 2 * records && size < 1 << 17 { size <<= 1 }
        mask = size - 1
        chains = .allocate(capacity: size)
        pages = .allocate(capacity: Self.depths * Self.heats)
        begin()
    }

    func deallocate() {
        chains.deallocate()
        pages.deallocate()
    }

    /// Bytes of memory for victims of so many pages.
    var bytes: Int { (mask + 1) * 8 + Self.depths * Self.heats * 4 }

    /// Forgets the last victim; nothing is kept.
    mutating func begin() {
        chains.initialize(repeating: 0, count: mask + 1)
        pages.initialize(repeating: 0, count: Self.depths * Self.heats)
        met = 0
        keepNothing()
    }

    mutating func keepNothing() {
        left = 0
        leastHeat = 16
        endDepth = 0
    }

    // MARK: The first pass

    /// Notes a live block.
    mutating func add(
        _ fingerprint: Fingerprint, parent: Fingerprint?, heat: UInt8, pages count: UInt32
    ) {
        let depth = note(fingerprint, parent)
        if heat > 0 { pages[Int(heat) * Self.depths + depth] += count }
    }

    private mutating func note(_ fingerprint: Fingerprint, _ parent: Fingerprint?) -> Int {
        let depth = parent.map { min((find($0) ?? -1) + 1, Self.depths - 1) } ?? 0
        if met < mask / 4 * 3 {
            var place = Int(truncatingIfNeeded: fingerprint.hi) & mask
            while chains[place] != 0 && !isSame(chains[place], fingerprint) {
                place = (place + 1) & mask
            }
            if chains[place] == 0 { met += 1 }
            chains[place] = word(fingerprint, depth)
        }
        return depth
    }

    private func word(_ fingerprint: Fingerprint, _ depth: Int) -> UInt64 {
        fingerprint.lo & ~0xFF | 0x80 | UInt64(depth)
    }

    private func isSame(_ word: UInt64, _ fingerprint: Fingerprint) -> Bool {
        word & ~0xFF == fingerprint.lo & ~0xFF
    }

    private func find(_ fingerprint: Fingerprint) -> Int? {
        var place = Int(truncatingIfNeeded: fingerprint.hi) & mask
        while chains[place] != 0 {
            if isSame(chains[place], fingerprint) { return Int(chains[place] & 0x7F) }
            place = (place + 1) & mask
        }
        return nil
    }

    /// Ends the first pass: the hottest pages up to `budget` will be kept.
    mutating func decide(budget: UInt32) {
        keepNothing()
        left = budget
        var room = budget
        for heat in (1..<Self.heats).reversed() {
            for depth in 0..<Self.depths {
                let count = pages[heat * Self.depths + depth]
                guard count > 0 else { continue }
                leastHeat = UInt8(heat)
                endDepth = depth
                // The last kind is kept in part, first come first served.
                if count >= room { return }
                room -= count
            }
        }
        endDepth = Self.depths - 1
    }

    // MARK: The second pass

    /// Whether the block stays; takes its pages out of the budget.
    mutating func keeps(_ fingerprint: Fingerprint, heat: UInt8, pages count: UInt32) -> Bool {
        guard count <= left, heat >= leastHeat, heat > 0 else { return false }
        if heat == leastHeat, find(fingerprint) ?? 0 > endDepth { return false }
        left -= count
        return true
    }
}
