// StoreSummary: a closed store at a glance: what it is, who its members are, in which state its
// segments are, where every byte of its capacity is, and what its namespaces hold. The parts of
// `space` add up to the capacity exactly.

import LogStore
import SegmentFormat

package struct StoreSummary {
    package struct Member: Sendable {
        package var index: Int
        package var path: String
        package var state: String
        package var segments: Int
        package var files: Int
    }

    package struct Space: Sendable {
        package var record: NamespaceRecord
        package var blocks: UInt64 = 0
        package var bytes: UInt64 = 0
        package var expired: UInt64 = 0

        /// Names and values in one line.
        package var name: String {
            record.fields.map { "\($0.0)=\($0.1)" }.joined(separator: " ")
        }
    }

    package struct Checkpoint: Sendable {
        package var path: String
        package var sequence: UInt64
        package var entries: UInt64
        package var beganAt: UInt32
        /// It is the one that an opening uses.
        package var isUsed: Bool
    }

    package var manifest: Manifest
    package var members: [Member] = []
    /// By id; those without a file are told too.
    package var segments: [SegmentInfo] = []
    package var spaces: [Space] = []
    package var checkpoints: [Checkpoint] = []
    package var space = SpaceUsage()
    package var blocks: UInt64 = 0
    package var valueBytes: UInt64 = 0
    package var contested = 0
    package var findings: [Finding] = []

    package var segmentPages: Int {
        Int(manifest.segmentBytes / UInt64(FormatConstants.pageBytes))
    }

    package init(_ catalog: Catalog, now: UInt32) {
        let store = catalog.store
        manifest = store.manifest
        findings = catalog.findings
        contested = catalog.contested.count
        listMembers(store)
        listSegments(catalog)
        listSpaces(catalog, now: max(now, manifest.wallSecondsFloor))
        for dump in catalog.dumps {
            guard let header = dump.header, dump.counts else { continue }
            checkpoints.append(
                Checkpoint(
                    path: dump.path, sequence: header.sequence,
                    entries: dump.end?.entryCount ?? 0, beganAt: header.beganWall,
                    isUsed: catalog.dump?.path == dump.path))
        }
        addUp(store)
    }

    private mutating func listMembers(_ store: ClosedStore) {
        for device in manifest.devices {
            let index = Int(device.index)
            let member = store.members[index]
            let state: String
            if device.state == DeviceRecord.struck {
                state = "struck"
            } else if let member {
                state = member.isStale ? "stale" : "present"
            } else {
                state = "absent"
            }
            members.append(
                Member(
                    index: index, path: member?.path ?? "", state: state,
                    segments: Int(device.segmentCount),
                    files: store.segmentIDs.count { SegmentTable.device($0) == index }))
        }
    }

    private mutating func listSegments(_ catalog: Catalog) {
        let known = Dictionary(uniqueKeysWithValues: catalog.segments.map { ($0.id, $0) })
        for member in members where member.state != "struck" {
            for local in 0..<member.segments {
                let id = SegmentTable.id(device: member.index, local: local)
                let missing: SegmentInfo.State =
                    member.state == "present" ? .uncreated : .absent
                segments.append(known[id] ?? SegmentInfo(id: id, state: missing))
            }
        }
    }

    private mutating func listSpaces(_ catalog: Catalog, now: UInt32) {
        var bySlot: [UInt16: Space] = [:]
        for record in catalog.store.namespaces.values {
            bySlot[record.slot] = Space(record: record)
        }
        for block in catalog.blocks.values {
            blocks += 1
            valueBytes += UInt64(block.length)
            bySlot[block.slot]?.blocks += 1
            bySlot[block.slot]?.bytes += UInt64(block.length)
            if block.expiry != 0 && block.expiry <= now { bySlot[block.slot]?.expired += 1 }
        }
        spaces = bySlot.values.sorted { $0.record.instance < $1.record.instance }
    }

    /// Where every byte of the capacity is, counted as the store counts it.
    private mutating func addUp(_ store: ClosedStore) {
        let page = UInt64(FormatConstants.pageBytes)
        let segment = manifest.segmentBytes
        space.capacity = manifest.capacityBytes
        var files: UInt64 = 0
        for case let member? in store.members {
            files += UInt64(Manifest.copies * Manifest.copyBytes)
            for number in 0..<2 {
                guard
                    let file = try? store.openFile(member, StoreFiles.checkpoint(number)),
                    let found = try? store.io.driver.information(file)
                else { continue }
                files += found.size
            }
        }
        space.metadata = min(files, space.capacity)
        for info in segments {
            let live = min(UInt64(info.livePages) * page, segment)
            let meta = min(UInt64(info.metaPages) * page, segment - live)
            let written = min(UInt64(info.writtenPages) * page, segment)
            switch info.state {
            case .uncreated, .clean: space.free += segment
            case .absent: space.quarantined += segment
            case .unusable: space.dead += segment
            case .open:
                space.live += live
                space.metadata += meta
                let used = max(written, live + meta)
                space.open += segment - used
                space.dead += used - live - meta
            case .sealed:
                space.live += live
                space.metadata += meta
                space.dead += segment - live - meta
            }
        }
        space.reserve = space.capacity > space.sum ? space.capacity - space.sum : 0
    }

    /// Segments by state, in the states' order.
    package var states: [(SegmentInfo.State, Int)] {
        SegmentInfo.State.allCases.map { state in
            (state, segments.count { $0.state == state })
        }
    }

    /// The share of a segment's pages that is alive.
    package func liveShare(_ info: SegmentInfo) -> Double {
        Double(info.livePages) / Double(max(1, segmentPages))
    }

    /// How many lives were begun since this one.
    package func age(_ info: SegmentInfo) -> UInt64 {
        let newest = segments.map(\.generation).max() ?? 0
        return info.generation == 0 ? 0 : newest - info.generation
    }
}
