// ReplayStore: the few calls through which a replay uses a store. Synchronous: each returns when
// all its blocks are settled. A block is named by its id, which the implementation makes a key of;
// batches may be of any length, and the implementation cuts them as its limits ask.

package enum ReplayOutcome: UInt8, Sendable {
    /// Served from staging, resident when the get came.
    case hitDRAM
    /// Read from the device.
    case hitSSD
    case miss
}

package protocol ReplayStore: AnyObject {
    /// How many of the blocks, from the first, are present.
    func longestPrefix(_ blocks: [UInt64]) throws(BenchError) -> Int
    /// Gets the blocks and hands the bytes of each hit to `check`, with its place in the batch; the
    /// bytes are valid during that call. Which tier serves a block is settled for the whole batch
    /// before any of it is loaded, so that loading its head does not push out its tail.
    func get(
        _ blocks: ArraySlice<UInt64>, outcomes: inout [ReplayOutcome],
        check: (_ place: Int, _ bytes: UnsafeRawBufferPointer) -> Void
    ) throws(BenchError)
    /// Inserts the blocks, a chain whose first has the parent `parent`. `fill` makes the bytes of
    /// one; `completed` is called as each put completes with the asked durability, and says
    /// whether it was stored now (false: already present). A put that the store refuses for good
    /// is not completed.
    func put(
        _ blocks: ArraySlice<UInt64>, parent: UInt64?,
        fill: (_ place: Int, _ bytes: UnsafeMutableRawBufferPointer) -> Void,
        completed: (_ place: Int, _ stored: Bool) throws(BenchError) -> Void
    ) throws(BenchError)
    /// Marks the blocks as used, in this order: the last is the most recent.
    func touch(_ blocks: [UInt64]) throws(BenchError)
    /// All bytes written to the device for values and whatever goes with them, so far.
    var deviceBytesWritten: UInt64 { get }
    /// What comes on top of the values: lines for the user (metadata, reserve, buffers).
    var footprint: [String] { get }
    /// The store's statistics.
    var statistics: JSONValue { get }
    func close() throws(BenchError)
}

/// What a replay asks of the store that it opens.
package struct ReplayStorePlan: Equatable, Sendable {
    package var directory: String
    package var blockBytes: Int
    /// Value bytes; metadata and reserve come on top.
    package var capacity: UInt64
    /// Slab bytes for read copies, staging being inclusive; write buffers come on top.
    package var dram: UInt64
    package var mode: ReadMode
    package var durability: DurabilityChoice

    package init(
        directory: String, blockBytes: Int, capacity: UInt64, dram: UInt64, mode: ReadMode,
        durability: DurabilityChoice
    ) {
        (self.directory, self.blockBytes) = (directory, blockBytes)
        (self.capacity, self.dram) = (capacity, dram)
        (self.mode, self.durability) = (mode, durability)
    }
}
