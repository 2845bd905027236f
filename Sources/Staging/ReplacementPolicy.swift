// ReplacementPolicy: decides which resident leaves staging first. It sees slot numbers only; the
// arena skips candidates that are dirty or pinned, so a policy proposes and never frees. Owner
// thread only. A policy allocates when it is resized, never per operation.

package protocol ReplacementPolicy: AnyObject {
    /// Slots 0 ..< capacity will be used; called once before any other call, with nothing held.
    func resize(capacity: Int)
    /// The resident became visible.
    func inserted(_ slot: Int32, bytes: Int)
    /// The resident was used.
    func touched(_ slot: Int32)
    /// The resident left, whether evicted or removed.
    func removed(_ slot: Int32)
    /// The resident becomes the next victim.
    func demoted(_ slot: Int32)
    /// The coldest candidate (nil), or the next one after `slot`, which is still held; nil at the
    /// end. Walking never comes back to a slot, so a walk is bounded by the residents.
    func victim(after slot: Int32?) -> Int32?
}

extension ReplacementPolicy {
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
