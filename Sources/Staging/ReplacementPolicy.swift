// ReplacementPolicy: decides which resident leaves staging first. It sees slot numbers, and of an
// arrival its key and size; the arena skips candidates that are dirty or pinned, so a policy
// proposes and never frees. Owner thread only. A policy allocates when it is resized, never per
// operation.
//
// Invariant: every slot that was inserted and not removed is met exactly once by a whole walk.

import SegmentFormat

/// What a policy has learnt of when blocks come back, for one that opens later.
package struct LearntBlocks: Equatable, Sendable {
    /// Namespaces' slots and the groups of classes that their blocks are in.
    package var groups: [(slot: UInt16, group: UInt8)] = []
    package var classes: [LearntReturns.Class] = []
    package init() {}

    package static func == (one: LearntBlocks, other: LearntBlocks) -> Bool {
        one.classes == other.classes && one.groups.elementsEqual(other.groups, by: ==)
    }
}

/// A block that has become visible.
package struct Arrival: Equatable, Sendable {
    package var key: StagingKey
    /// Bytes of the stored image.
    package var bytes: Int
    package var namespaceSlot: UInt16
    /// Brought before anybody asked for it: not a use.
    package var isPrefetched: Bool
    /// It comes, in its chain, right after the block that the policy was told of last.
    package var continues: Bool

    package init(
        key: StagingKey, bytes: Int, namespaceSlot: UInt16 = 0, isPrefetched: Bool = false,
        continues: Bool = false
    ) {
        self.key = key
        self.bytes = bytes
        self.namespaceSlot = namespaceSlot
        self.isPrefetched = isPrefetched
        self.continues = continues
    }
}

/// What has been said of a block's future; good until the block is used again.
package enum Outlook: UInt8, CaseIterable, Sendable {
    case unknown
    /// Its session goes on.
    case returns
    /// Its session is over: it will hardly be asked for again.
    case ends
    /// A tool is at work for its session, which goes on when that has ended.
    case returnsSoon
}

package protocol ReplacementPolicy: AnyObject {
    /// Slots 0 ..< capacity will be used; called once before any other call, with nothing held.
    func resize(capacity: Int)
    /// Room is about to be made for this key; `victim` is asked next, or not at all.
    func expects(_ key: StagingKey)
    /// The resident became visible.
    func inserted(_ slot: Int32, _ arrival: Arrival)
    /// The resident was used; `continues` as in an arrival.
    func touched(_ slot: Int32, continues: Bool)
    /// The resident left, whether evicted or removed.
    func removed(_ slot: Int32)
    /// The resident becomes the next victim.
    func demoted(_ slot: Int32)
    /// Something was said of the resident's future; `continues` as in an arrival. Advice: it may be
    /// wrong.
    func foretold(_ slot: Int32, _ outlook: Outlook, continues: Bool)
    /// The resident, which has been used lately, takes its place in its chain: as recent as what is
    /// used now, and no use; `continues` as in an arrival.
    func reordered(_ slot: Int32, continues: Bool)
    /// The coldest candidate (nil), or the next one after `slot`, the one given last, which is
    /// still held; nil at the end. Walking never comes back to a slot, so a walk is bounded by the
    /// residents.
    func victim(after slot: Int32?) -> Int32?
    /// A namespace's weight against others, 1 for an ordinary one (its priority, and what it costs
    /// to recompute a byte), and the bytes beyond which its blocks leave first.
    func setShare(namespaceSlot: UInt16, weight: Float, quotaBytes: Int)
    /// What it has learnt, empty for a policy that learns nothing.
    var learnt: LearntBlocks { get }
    /// Takes over what one before it has learnt; called while empty. What it does not know what to
    /// do with it passes over.
    func recall(_ learnt: LearntBlocks)
    /// Bytes of its tables.
    var memoryBytes: Int { get }
}

extension ReplacementPolicy {
    package func expects(_ key: StagingKey) {}
    package func reordered(_ slot: Int32, continues: Bool) {}
    package func foretold(_ slot: Int32, _ outlook: Outlook, continues: Bool) {
        if outlook == .ends { demoted(slot) }
    }
    package func setShare(namespaceSlot: UInt16, weight: Float, quotaBytes: Int) {}
    package var memoryBytes: Int { 0 }
    package var learnt: LearntBlocks { LearntBlocks() }
    package func recall(_ learnt: LearntBlocks) {}

    @inline(__always)
    package func foretold(_ slot: Int32, _ outlook: Outlook) {
        foretold(slot, outlook, continues: false)
    }

    @inline(__always)
    package func touched(_ slot: Int32) { touched(slot, continues: false) }

    /// Touches a chain given head to tail, tail first, so that its head ends the most recent and
    /// the tail leaves before it.
    package func touchChain(_ slots: UnsafeBufferPointer<Int32>) {
        var at = slots.count
        while at > 0 {
            at -= 1
            touched(slots[at])
        }
    }
}
