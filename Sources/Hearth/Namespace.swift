// Namespace: a set of keys of their own: model, dtype, layout, ranks, tenant, whatever must match
// for a block to mean the same. Described by fields; the same fields give the same namespace.

import Synchronization

/// What a namespace is.
public struct NamespaceDescription: Sendable {
    /// How the shards of a block lie on disk.
    public enum Layout: String, Sendable, CaseIterable {
        /// One after the other. The default.
        case packed
        /// Each at a 4 KiB boundary, so that a single one goes straight to the caller's memory.
        case aligned
    }

    /// Names and values, such as ("model", "…"), ("dtype", "bf16"); their order does not count.
    public var fields: [(String, String)]
    /// Default `.packed`; fixed when the namespace is made.
    public var layout = Layout.packed
    /// Seconds that a block lives, counted from its put; default 0, for ever.
    public var timeToLiveSeconds: UInt32 = 0
    /// Bytes that the namespace may hold; default 0, no cap of its own.
    public var capBytes: UInt64 = 0

    /// A namespace with these fields.
    public init(_ fields: [(String, String)], layout: Layout = .packed) {
        self.fields = fields
        self.layout = layout
    }
}

/// An open namespace of a store. After a purge it is empty for good: open it anew.
public struct Namespace: Sendable {
    package let slot: UInt16
    package let instance: UInt64
    /// How the shards of a block lie on disk.
    public let layout: NamespaceDescription.Layout
    let purged: PurgedFlag

    /// Whether it was purged through this value or a copy of it.
    public var isPurged: Bool { purged.flag.load(ordering: .acquiring) }
}

final class PurgedFlag: Sendable {
    let flag = Atomic<Bool>(false)
}
