// RepairPlan: what has to be done about the damage that verifying found: which segments are to be
// emptied and begun anew, which blocks are lost, which tombstones are left in one copy only.
//
// Only what was found damaged is in it. A block is lost if its value does not verify, or if nothing
// in the log tells its key any more; every other block of a damaged segment is moved.

import LogStore
import SegmentFormat

/// A block that repair takes out of the store, or that is gone already.
package struct LostBlock: Sendable, Hashable {
    /// Nil where nothing tells it any more.
    package var key: [UInt8]?
    /// The namespace's instance.
    package var namespace: UInt64
    package var version: UInt64
    /// What of it is damaged.
    package var structure: Finding.Structure
    /// Where it lay: a segment's file, and the offset in it, bytes.
    package var path: String
    package var offset: UInt64
}

/// A block that lives, and of which the log has no record.
struct Orphan {
    var fingerprint: Fingerprint
    var block: CatalogBlock
    /// Found in a record of another block, as its parent, or in an older record of its own.
    var key: [UInt8]?
    var lost: LostBlock
}

/// A tombstone or supersede.
struct Killer {
    var version: UInt64
    var isSupersede: Bool
    var namespaceSlot: UInt16
    var key: [UInt8]
    /// Streams in whose segments the log has it, a bit each: a record that was carried on lies
    /// twice in its own until its first place is used again, and is no twin of itself.
    var streams: UInt8
}

struct RepairPlan {
    /// Segments that are left and begun anew.
    private(set) var condemned: Set<UInt32> = []
    /// Blocks whose value does not verify.
    private(set) var damaged: [(fingerprint: Fingerprint, slot: UInt16, lost: LostBlock)] = []
    /// In condemned segments, known to the checkpoint alone.
    private(set) var orphans: [Orphan] = []
    /// In segments of which nothing can be read: they are gone, and only told.
    private(set) var gone: [LostBlock] = []
    /// Of these records a copy was lost.
    private(set) var guards: [(fingerprint: Fingerprint, killer: Killer)] = []
    /// The live blocks of the condemned segments.
    private(set) var order: BlockOrder
    private(set) var rewritesManifest = false
    private(set) var rewritesCheckpoints = false
    /// The checkpoint is whole, and tells what the log does not: everything is to be replayed.
    private(set) var isCheckpointUntrue = false

    /// `damage` is what verifying found and repair is to deal with.
    init(_ damage: [Finding], _ catalog: Catalog) throws(StoreError) {
        let there = Set(catalog.store.segmentIDs)
        for finding in damage {
            switch finding.structure {
            case .header, .trailer, .footer, .descriptor, .file:
                if let id = finding.segment, there.contains(id) { condemned.insert(id) }
            case .manifest, .member: rewritesManifest = true
            case .checkpoint, .index: rewritesCheckpoints = true
            case .value, .shardTable, .shard: break
            }
        }
        order = try BlockOrder(catalog, in: condemned)
        // An entry without a record: where records were lost, it is the record that is missing.
        isCheckpointUntrue = damage.contains { finding in
            finding.structure == .index
                && (finding.keyCount > 0 || !condemned.contains(finding.segment ?? UInt32.max))
        }
        listDamaged(damage, catalog)
        listOrphans(catalog)
        try readRecords(
            catalog,
            lostSegments: damage.contains {
                $0.structure == .file && !there.contains($0.segment ?? UInt32.max)
            })
    }

    private mutating func listDamaged(_ damage: [Finding], _ catalog: Catalog) {
        for finding in damage {
            guard [.value, .shardTable, .shard].contains(finding.structure),
                let key = finding.keys.first,
                let space = catalog.store.namespaces[key.namespace]
            else { continue }
            let fingerprint = key.bytes.withUnsafeBytes {
                catalog.store.fingerprint(instance: key.namespace, $0)
            }
            let lost = LostBlock(
                key: key.bytes, namespace: key.namespace, version: key.version,
                structure: finding.structure, path: finding.path, offset: finding.offset)
            damaged.append((fingerprint, space.slot, lost))
        }
    }

    // MARK: Blocks without a record

    private mutating func listOrphans(_ catalog: Catalog) {
        let store = catalog.store
        let instances = Dictionary(
            store.namespaces.values.map { ($0.slot, $0.instance) },
            uniquingKeysWith: { one, _ in one })
        func orphan(
            _ fingerprint: Fingerprint, _ block: CatalogBlock, _ structure: Finding.Structure
        ) -> Orphan {
            Orphan(
                fingerprint: fingerprint, block: block, key: nil,
                lost: LostBlock(
                    key: nil, namespace: instances[block.slot] ?? 0, version: block.version,
                    structure: structure, path: store.path(block.segment),
                    offset: ClosedStore.offset(page: block.page)))
        }
        for (fingerprint, block) in catalog.blocks
        where block.fromDump && !block.isSeen && condemned.contains(block.segment) {
            orphans.append(orphan(fingerprint, block, .descriptor))
        }
        catalog.forEachGone { fingerprint, block in
            orphans.append(orphan(fingerprint, block, .header))
        }
        orphans.sort {
            ($0.block.segment, $0.block.page) < ($1.block.segment, $1.block.page)
        }
    }

    /// One walk over all records: it finds keys of orphans, and records of which one copy is left.
    private mutating func readRecords(
        _ catalog: Catalog, lostSegments: Bool
    ) throws(StoreError) {
        var wanted = Set(orphans.map(\.fingerprint))
        let lostRecords =
            lostSegments
            || catalog.segments.contains { info in
                (condemned.contains(info.id) || info.state == .unusable)
                    && info.stream != .fresh && info.stream != .reinserted
            }
        guard !wanted.isEmpty || lostRecords else { return }
        var keys: [Fingerprint: [UInt8]] = [:]
        var killers: [Fingerprint: Killer] = [:]
        for info in catalog.segments {
            try catalog.visit(info) { view in
                let instance = view.descriptor.namespaceInstance
                guard let space = catalog.store.namespaces[instance] else { return }
                let fingerprint = catalog.store.fingerprint(instance: instance, view.key)
                if wanted.remove(fingerprint) != nil { keys[fingerprint] = Array(view.key) }
                if !wanted.isEmpty, !view.parent.isEmpty {
                    let parent = catalog.store.fingerprint(instance: instance, view.parent)
                    if wanted.remove(parent) != nil { keys[parent] = Array(view.parent) }
                }
                if !view.descriptor.hasValue {
                    Self.count(view, fingerprint, space.slot, info.stream, &killers)
                }
            }
        }
        sortOut(keys, killers)
        guards = killers.filter { $0.value.streams.nonzeroBitCount < 2 }
            .map { ($0.key, $0.value) }
            .sorted { $0.killer.version < $1.killer.version }
    }

    /// Only the highest version of a key matters.
    private static func count(
        _ view: RecordView, _ fingerprint: Fingerprint, _ slot: UInt16, _ stream: StreamKind?,
        _ killers: inout [Fingerprint: Killer]
    ) {
        let bit: UInt8 = stream.map { 1 << $0.rawValue } ?? 0
        let version = view.descriptor.version
        let known = killers[fingerprint]?.version ?? 0
        if version == known {
            killers[fingerprint]?.streams |= bit
        } else if version > known {
            killers[fingerprint] = Killer(
                version: version, isSupersede: view.descriptor.flags.contains(.supersede),
                namespaceSlot: slot, key: Array(view.key), streams: bit)
        }
    }

    private mutating func sortOut(
        _ keys: [Fingerprint: [UInt8]], _ killers: [Fingerprint: Killer]
    ) {
        var served: [Orphan] = []
        for var orphan in orphans {
            orphan.key = keys[orphan.fingerprint]
            orphan.lost.key = orphan.key
            if condemned.contains(orphan.block.segment), !isCheckpointUntrue {
                served.append(orphan)
            } else if killers[orphan.fingerprint]?.version ?? 0 <= orphan.block.version {
                gone.append(orphan.lost)
            }
        }
        orphans = served
    }
}
