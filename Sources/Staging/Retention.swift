// Retention: who knows better than recency which of the coldest residents are worth least. Asked
// about a few of them when room has to be made, on the owner thread; it must not call back.

package protocol Retention: AnyObject {
    /// How much the resident of that key is wanted, or nil if nothing is known of it.
    func worth(_ key: StagingKey) -> Float?
}

extension StagingArena {
    /// Of the coldest that may leave, so many are compared.
    private static let longestComparing = 16

    /// Of the coldest the one that is wanted least, as long as something is known of them; of
    /// equal ones the coldest. Nil: whoever is coldest leaves.
    func leastWanted() -> Int32? {
        guard let retention else { return nil }
        var (best, least, looks) = (Int32(-1), Float.infinity, 0)
        var candidate = policy.victim(after: nil)
        while let slot = candidate, looks < Self.longestComparing {
            candidate = policy.victim(after: slot)
            looks += 1
            guard isEvictable(slot), awaited[Int(slot)] == 0 else { continue }
            // What is colder than all of which something is known has no better claim.
            guard let worth = retention.worth(table.key(slot)) else {
                return best < 0 ? nil : best
            }
            if worth < least { (best, least) = (slot, worth) }
        }
        return best < 0 ? nil : best
    }
}
