// SiteMap: every structure of a closed store, with the bytes that it is made of, so that tests can
// damage one of each. The bytes are found by reading the format, not by asking what is checked.

import LogStore
import SegmentFormat
import SimulatedDisk
import Testing

@testable import StoreTools

/// A byte that matters, and what must be said of it.
struct Site {
    var structure: Finding.Structure
    var directory: String
    var file: String
    var offset: Int
    /// Keys of the live blocks that it belongs to: of a value its own, of a descriptor page those
    /// that it tells.
    var keys: [String] = []
    /// Of the segment, where it lies in one.
    var stream: StreamKind?
    var isSealed = false

    var path: String { directory + "/" + file }

    func isTold(by finding: Finding) -> Bool {
        finding.path == path && finding.structure == structure
            && UInt64(offset) >= finding.offset
            && UInt64(offset) < finding.offset + max(finding.length, 1)
    }
}

struct SiteMap {
    /// A run of bytes of one structure; `site` is its first.
    private(set) var ranges: [(site: Site, length: Int)] = []
    private let page = FormatConstants.pageBytes

    init(_ world: ToolWorld) throws {
        try world.closed { store in
            for case let member? in store.members {
                for copy in 0..<Manifest.copies {
                    let offset = copy * Manifest.copyBytes
                    add(
                        Site(
                            structure: .manifest, directory: member.path, file: "manifest",
                            offset: offset), Manifest.copyBytes)
                }
            }
            let catalog = try Catalog(store)
            for info in catalog.segments where info.generation != 0 {
                try addSegment(store, catalog, info, world.machine)
            }
            for dump in catalog.dumps where dump.counts {
                let table = CheckpointHeader.dataOffset(
                    segments: Int(dump.header?.segmentCount ?? 0))
                var site = Site(
                    structure: .checkpoint, directory: store.members[dump.member]?.path ?? "",
                    file: dump.path.split(separator: "/").last.map(String.init) ?? "", offset: 0)
                add(site, Int(table))
                site.offset = Int(table)
                add(site, Int(dump.end?.chunkCount ?? 0) * CheckpointChunk.chunkBytes)
            }
        }
    }

    private mutating func add(_ site: Site, _ length: Int) { ranges.append((site, length)) }

    private mutating func addSegment(
        _ store: ClosedStore, _ catalog: Catalog, _ info: SegmentInfo, _ machine: SimulatedMachine
    ) throws {
        let last = Int(store.segmentPages - 1) * page
        var site = Site(
            structure: .header,
            directory: store.members[SegmentTable.device(info.id)]?.path ?? "",
            file: StoreFiles.segment(SegmentTable.local(info.id)), offset: 0)
        site.stream = info.stream
        site.isSealed = info.life?.trailer != nil
        add(site, page)
        site.structure = .trailer
        site.offset = last
        add(site, page)
        if let footer = info.life?.footer {
            site.structure = .footer
            site.offset = Int(footer.first) * page
            add(site, Int(footer.pages) * page)
        }
        let bytes =
            machine.contents(site.directory, site.file, offset: 0, length: last + page) ?? []
        addGroups(bytes, site, store, catalog, info)
        try addValues(store, catalog, info, site)
    }

    private mutating func addGroups(
        _ bytes: [UInt8], _ segment: Site, _ store: ClosedStore, _ catalog: Catalog,
        _ info: SegmentInfo
    ) {
        let context = store.context(info.id, generation: info.generation)
        bytes.withUnsafeBytes { all in
            for number in 1..<(all.count / page - 1) {
                let bytes = UnsafeRawBufferPointer(
                    rebasing: all[(number * page)..<((number + 1) * page)])
                guard
                    var reader = try? DescriptorPageReader(
                        page: bytes, context: context, pageNumber: UInt32(number)),
                    reader.header.kind == .group
                else { continue }
                var site = segment
                site.structure = .descriptor
                site.offset = number * page
                while let view = reader.next() {
                    guard catalog.isLive(view, info.id) else { continue }
                    site.keys.append(String(decoding: view.key, as: UTF8.self))
                }
                add(site, page)
            }
        }
    }

    private mutating func addValues(
        _ store: ClosedStore, _ catalog: Catalog, _ info: SegmentInfo, _ segment: Site
    ) throws {
        var info = info
        var found: [Finding] = []
        var added: [(Site, Int)] = []
        let id = info.id
        try RecordReader(store: store).read(&info, findings: &found) { view in
            guard catalog.isLive(view, id),
                let space = store.namespaces[view.descriptor.namespaceInstance]
            else { return }
            let layout = BlockLayout(
                length: view.descriptor.length, shardCount: Int(view.descriptor.shardCount) + 1,
                aligned: space.aligned)
            let start = Int(view.descriptor.page) * page
            var site = segment
            site.keys = [String(decoding: view.key, as: UTF8.self)]
            func note(_ structure: Finding.Structure, _ offset: Int, _ length: Int) {
                site.structure = structure
                site.offset = offset
                added.append((site, length))
            }
            if layout.hasTable {
                note(.shardTable, start + layout.tableOffset, layout.tableBytes)
                // The first shard is always there, with one byte at least.
                note(.shard, start + layout.dataOffset, 1)
            } else {
                note(.value, start, Int(layout.length))
            }
        }
        for (site, length) in added { add(site, length) }
    }

    /// One byte of a structure, in one of the runs that are wanted.
    func site(
        _ structure: Finding.Structure, _ dice: inout Dice,
        where wanted: (Site) -> Bool = { _ in true }
    ) throws -> Site {
        let all = ranges.filter { $0.site.structure == structure && wanted($0.site) }
        try #require(!all.isEmpty, "no such \(structure) in this store")
        let (site, length) = all[dice.next(all.count)]
        var chosen = site
        chosen.offset += dice.next(length)
        return chosen
    }

    var structures: [Finding.Structure] {
        Finding.Structure.allCases.filter { wanted in
            ranges.contains { $0.site.structure == wanted }
        }
    }
}
