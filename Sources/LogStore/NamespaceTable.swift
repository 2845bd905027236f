// NamespaceTable: the namespaces of the store by slot (12 bits in the index) and instance id (never
// reused). Keys of two namespaces never meet, since the instance enters the key's fingerprint.
// Owner thread only.

import SegmentFormat

package struct NamespaceTable {
    package struct Entry {
        package var record: NamespaceRecord
        package var live: Bool
        package var bytes: UInt64 = 0
        package var blocks: UInt64 = 0
        /// Entries of a purged instance are still in the index: the slot is not free yet.
        package var draining = false
    }

    static let capacity = 4096

    package private(set) var entries: [Entry?] = []
    private var slots: [UInt64: UInt16] = [:]
    /// Hot fields by slot, so that a lookup touches no array of strings.
    private let hot: UnsafeMutablePointer<Hot>

    private struct Hot {
        var instance: UInt64 = 0
        var fingerprint = Identity128(hi: 0, lo: 0)
        var aligned = false
        var timeToLive: UInt32 = 0
        var cap: UInt64 = 0
        var bytes: UInt64 = 0
        var blocks: UInt64 = 0
    }

    package init(_ records: [NamespaceRecord]) {
        // Lives as long as the process's store; freed in `deallocate`.
        hot = .allocate(capacity: Self.capacity)
        hot.initialize(repeating: Hot(), count: Self.capacity)
        for record in records where record.state == NamespaceRecord.live { restore(record) }
    }

    func deallocate() { hot.deallocate() }

    /// Puts a namespace of the manifest back into its slot.
    private mutating func restore(_ record: NamespaceRecord) {
        let slot = Int(record.slot)
        guard slot < Self.capacity else { return }
        while entries.count <= slot { entries.append(nil) }
        occupy(slot, record)
    }

    private mutating func occupy(_ slot: Int, _ record: NamespaceRecord) {
        entries[slot] = Entry(record: record, live: true)
        slots[record.instance] = UInt16(slot)
        hot[slot] = Hot(
            instance: record.instance, fingerprint: record.fingerprint, aligned: record.aligned,
            timeToLive: record.ttlSeconds, cap: record.capBytes)
    }

    /// Adds a live namespace; nil when the table is full.
    mutating func add(_ record: NamespaceRecord) -> UInt16? {
        var slot = entries.firstIndex { $0 == nil }
        if slot == nil {
            guard entries.count < Self.capacity else { return nil }
            entries.append(nil)
            slot = entries.count - 1
        }
        guard let slot else { return nil }
        var placed = record
        placed.slot = UInt16(slot)
        occupy(slot, placed)
        return UInt16(slot)
    }

    /// The live namespace with these fields.
    package func find(_ fingerprint: Identity128) -> UInt16? {
        for slot in entries.indices {
            if let entry = entries[slot], entry.live, entry.record.fingerprint == fingerprint {
                return UInt16(slot)
            }
        }
        return nil
    }

    /// Whether the slot's fields are these, in whatever order.
    func has(_ slot: UInt16, _ fields: [(String, String)]) -> Bool {
        guard let own = entries[Int(slot)]?.record.fields, own.count == fields.count else {
            return false
        }
        let order: ((String, String), (String, String)) -> Bool = { $0 < $1 }
        return zip(own.sorted(by: order), fields.sorted(by: order)).allSatisfy { $0 == $1 }
    }

    /// The slot of an instance that something on disk names; nil for a purged or unknown one.
    @inline(__always)
    package func slot(instance: UInt64) -> UInt16? { slots[instance] }

    /// 0, which no instance has, for a slot beyond the table: callers' messages come unchecked.
    @inline(__always)
    package func instance(_ slot: UInt16) -> UInt64 {
        Int(slot) < Self.capacity ? hot[Int(slot)].instance : 0
    }
    // The slots below are those of live namespaces.
    @inline(__always)
    package func fingerprint(_ slot: UInt16) -> Identity128 { hot[Int(slot)].fingerprint }
    @inline(__always)
    package func aligned(_ slot: UInt16) -> Bool { hot[Int(slot)].aligned }
    package func cap(_ slot: UInt16) -> UInt64 { hot[Int(slot)].cap }
    package func timeToLive(_ slot: UInt16) -> UInt32 { hot[Int(slot)].timeToLive }
    package func createdVersion(_ slot: UInt16) -> UInt64 {
        entries[Int(slot)]?.record.createdVersion ?? 0
    }
    package func isLive(_ slot: UInt16) -> Bool {
        Int(slot) < entries.count && entries[Int(slot)]?.live == true
    }
    /// Purged, and its blocks not all gone from the index yet.
    func isDraining(_ slot: UInt16) -> Bool {
        Int(slot) < entries.count && entries[Int(slot)]?.draining == true
    }
    package func bytes(_ slot: UInt16) -> UInt64 { hot[Int(slot)].bytes }
    package func blocks(_ slot: UInt16) -> UInt64 { hot[Int(slot)].blocks }

    @inline(__always)
    func added(_ slot: UInt16, bytes: UInt64) {
        hot[Int(slot)].bytes += bytes
        hot[Int(slot)].blocks += 1
    }
    @inline(__always)
    func removed(_ slot: UInt16, bytes: UInt64) {
        hot[Int(slot)].bytes -= bytes
        hot[Int(slot)].blocks -= 1
    }

    /// Ends an instance: its keys are gone at once; the slot comes free when the index is swept.
    mutating func retire(_ slot: UInt16) -> NamespaceRecord? {
        guard var entry = entries[Int(slot)] else { return nil }
        entry.live = false
        entry.draining = true
        entries[Int(slot)] = entry
        slots[entry.record.instance] = nil
        return entry.record
    }

    mutating func release(_ slot: UInt16) { entries[Int(slot)] = nil }

    mutating func setTimeToLive(_ slot: UInt16, seconds: UInt32) {
        entries[Int(slot)]?.record.ttlSeconds = seconds
        hot[Int(slot)].timeToLive = seconds
    }

    /// The records that the manifest keeps.
    var records: [NamespaceRecord] { entries.compactMap { $0?.live == true ? $0?.record : nil } }
}
