// KvStore: the store as every command here opens it: in one directory, in cache mode, sized by the
// live value bytes it has to hold, metadata and reserve on top. Memory is the sum of what is asked
// for, never a share of a default.

import BenchKit
import Hearth
import Staging

/// What a benchmark needs of a store.
struct KvShape {
    var directory: String
    var blockBytes: Int
    /// Live value bytes that the store has to hold.
    var valueBytes: UInt64
    var shards = 1
    var aligned = false
    /// Slab bytes; 0 for no DRAM tier.
    var slabBytes = 0
    /// Whether blocks put and read stay in the slabs.
    var inclusive = true
    /// Operations under way at once, in all sessions.
    var operations = 256
    /// How many blocks at least are put together; sizes what is not values.
    var blocksPerGroup = 1
    /// Nil: as many as the capacity could hold.
    var indexEntries: Int?

    /// Bytes of a block's image in slabs.
    var storedBytes: Int { (blockBytes + 4095) / 4096 * 4096 }

    /// A slab that a block fills: the block, or an even part of one over 2 MiB.
    var slab: Int {
        let parts = (storedBytes + (2 << 20) - 1) / (2 << 20)
        return (storedBytes / parts + 4095) / 4096 * 4096
    }

    func configuration() -> Configuration {
        var made = Configuration(directory: directory, capacityBytes: 1 << 30)
        // Small blocks do not need large segments, nor much memory for their footers.
        made.maximumBlockBytes = max(blockBytes, 64 << 10)
        made.expectedBlockBytes = blockBytes
        made.indexEntries = indexEntries
        made.operationsInFlight = min(65_536, max(1024, operations + 64))
        made.queueDepth = min(4096, max(256, operations))
        made.slabBytes = slab
        made.stagingMode = inclusive ? .inclusive : .exclusive
        if slabBytes == 0 {
            made.stagingBytes = 0
        } else {
            let least = 2 * (made.maximumBlockBytes + 4096) + slab
            made.stagingBytes = (max(slabBytes, least) + slab - 1) / slab * slab
        }
        made.capacityBytes = made.capacity(
            forValueBytes: valueBytes, blockBytes: blockBytes, shards: shards, aligned: aligned,
            blocksPerGroup: blocksPerGroup)
        made.tableCacheBytes = shards > 1 ? 64 << 20 : 1 << 20
        made.memoryLimitBytes = max(32 << 20, made.memorySplit.total)
        return made
    }
}

final class KvStore: Sendable {
    let store: Store
    let namespace: Namespace
    let configuration: Configuration

    /// Opens or makes the store and its namespace, and waits until the index is complete.
    convenience init(
        _ shape: KvShape, namespace name: String = "hearth-bench", waiting: Bool = true
    ) throws(BenchError) {
        try self.init(
            shape.configuration(), namespace: name, aligned: shape.aligned, waiting: waiting)
    }

    init(
        _ configuration: Configuration, namespace name: String = "hearth-bench",
        aligned: Bool = false, waiting: Bool = true
    ) throws(BenchError) {
        let layout = aligned ? NamespaceDescription.Layout.aligned : .packed
        (store, namespace) = try blocking { () async throws(HearthError) in
            let store = try await Store.open(configuration)
            if waiting { try await store.waitUntilRecovered() }
            let namespace = try await store.namespace(
                NamespaceDescription([("bench", name)], layout: layout))
            return (store, namespace)
        }
        self.configuration = store.configuration
    }

    func session(_ capacity: Int) -> Session {
        store.session(capacity: capacity)
    }

    func operation(
        _ kind: StoreOperationKind, token: Int, _ key: UnsafeRawBufferPointer
    ) -> StoreOperation {
        StoreOperation(
            kind: kind, token: UInt64(token), namespaceSlot: namespace.slot, key: key)
    }

    func statistics() throws(BenchError) -> Statistics {
        let store = store
        return try blocking { () async throws(HearthError) in try await store.statistics() }
    }

    func ownerProcessorNanoseconds() -> UInt64 {
        let store = store
        return blockingAlways { await store.ownerProcessorNanoseconds() } ?? 0
    }

    func flush() throws(BenchError) {
        let store = store
        try blocking { () async throws(HearthError) in try await store.flush() }
    }

    func close() {
        let store = store
        _ = blockingAlways { await store.close() }
    }

    /// Registers memory for I/O; it stays until `unregister`.
    func register(_ memory: UnsafeMutableRawBufferPointer) throws(BenchError) -> MemoryRegion {
        let store = store
        nonisolated(unsafe) let memory = memory  // only its address is taken
        return try blocking { () async throws(HearthError) in try await store.register(memory) }
    }

    func unregister(_ region: MemoryRegion) {
        let store = store
        _ = blockingAlways { await store.unregister(region) }
    }

    /// The value bytes of a lease as one run; nil when it is scattered over slabs.
    @inline(__always)
    func leased(_ completion: StoreCompletion) -> UnsafeRawBufferPointer? {
        guard completion.leased.count == 1, let base = store.leaseBase else { return nil }
        return UnsafeRawBufferPointer(
            start: base + Int(completion.leased[0].offset + completion.answer.leaseOffset),
            count: Int(completion.answer.delivered))
    }

    /// Copies a scattered lease's bytes; false when they do not fit.
    func copy(
        _ completion: StoreCompletion, into target: UnsafeMutableRawBufferPointer
    ) -> Bool {
        guard let base = store.leaseBase, let to = target.baseAddress else { return false }
        let count = Int(completion.answer.delivered)
        guard count <= target.count else { return false }
        var skip = Int(completion.answer.leaseOffset)
        var done = 0
        for piece in completion.leased where done < count {
            let length = Int(piece.length)
            if skip >= length {
                skip -= length
                continue
            }
            let run = min(length - skip, count - done)
            (to + done).copyMemory(from: base + Int(piece.offset) + skip, byteCount: run)
            done += run
            skip = 0
        }
        return done == count
    }
}

/// An answer that is no outcome of a benchmark, as an errno.
func errorNumber(_ answer: StoreAnswer) -> Int32 {
    if answer.errno != 0 { return answer.errno }
    switch answer.status {
    case .noSpace: return 28  // ENOSPC
    case .readOnly: return 30  // EROFS
    case .tooLarge: return 27  // EFBIG
    case .conflict: return 17  // EEXIST
    case .invalid: return 22  // EINVAL
    case .timedOut: return 110  // ETIMEDOUT
    case .cancelled: return 125  // ECANCELED
    default: return 5  // EIO
    }
}
