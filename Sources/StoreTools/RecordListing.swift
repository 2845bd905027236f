// RecordListing: what the log says of one key, or all that one segment holds, record by record, for
// people who look for something.

import LogStore
import SegmentFormat

package struct ListedRecord: Sendable {
    package var segment: UInt32
    package var generation: UInt64
    package var page: UInt32
    package var namespace: UInt64
    package var key: [UInt8]
    package var parent: [UInt8]
    package var version: UInt64
    package var length: UInt32
    package var storedBytes: UInt64
    package var shards: Int
    package var checksum: UInt32
    package var expiry: UInt32
    package var kind: String
    package var isLive: Bool

    init(_ view: RecordView, _ info: SegmentInfo, isLive: Bool) {
        let found = view.descriptor
        segment = info.id
        generation = info.generation
        page = found.page
        namespace = found.namespaceInstance
        key = Array(view.key)
        parent = Array(view.parent)
        version = found.version
        kind =
            found.flags.contains(.tombstone)
            ? "tombstone" : found.flags.contains(.supersede) ? "supersede" : "value"
        length = found.hasValue ? found.length : 0
        storedBytes =
            found.hasValue ? UInt64(found.storedPages) * UInt64(FormatConstants.pageBytes) : 0
        shards = found.hasValue ? Int(found.shardCount) + 1 : 0
        checksum = found.hasValue ? found.checksum : 0
        expiry = found.expiry
        self.isLive = isLive
    }

    package var json: JSONText {
        .object([
            ("segment", .count(UInt64(segment))), ("generation", .count(generation)),
            ("page", .count(UInt64(page))), ("namespace", .count(namespace)),
            ("key", .text(KeyText.of(key))), ("hex", .text(KeyText.hex(key))),
            ("parent", .text(parent.isEmpty ? "" : KeyText.of(parent))),
            ("kind", .text(kind)), ("version", .count(version)), ("live", .flag(isLive)),
            ("value_bytes", .count(UInt64(length))), ("stored_bytes", .count(storedBytes)),
            ("shards", .count(shards)), ("checksum", .count(UInt64(checksum))),
            ("expires_at", .count(UInt64(expiry))),
        ])
    }

    package static func table(_ records: [ListedRecord]) -> String {
        Figures.table(
            [
                "segment", "page", "namespace", "kind", "version", "bytes", "shards", "expires",
                "", "key",
            ],
            records.map {
                [
                    String($0.segment), String($0.page), String($0.namespace), $0.kind,
                    String($0.version), String($0.length), String($0.shards),
                    Figures.time($0.expiry), $0.isLive ? "live" : "", KeyText.of($0.key),
                ]
            }, left: [3, 7, 8, 9])
    }
}

extension Catalog {
    /// Every record of a key, newest first; of one namespace or of all.
    package func records(
        ofKey key: [UInt8], namespace: UInt64? = nil
    ) throws(StoreError) -> [ListedRecord] {
        var found: [ListedRecord] = []
        for info in segments {
            try visit(info) { view in
                guard view.key.elementsEqual(key),
                    namespace == nil || namespace == view.descriptor.namespaceInstance
                else { return }
                found.append(ListedRecord(view, info, isLive: isLive(view, info.id)))
            }
        }
        return found.sorted { ($0.version, $0.segment) > ($1.version, $1.segment) }
    }

    /// Every record of a segment, in the order of writing.
    package func records(ofSegment info: SegmentInfo) throws(StoreError) -> [ListedRecord] {
        var found: [ListedRecord] = []
        try visit(info) { view in
            found.append(ListedRecord(view, info, isLive: isLive(view, info.id)))
        }
        return found
    }

    /// The records of a segment once more; what is wrong with it was told before.
    package func visit(
        _ info: SegmentInfo, _ body: (RecordView) -> Void
    ) throws(StoreError) {
        var copy = info
        var told: [Finding] = []
        try RecordReader(store: store).read(&copy, findings: &told, visit: body)
    }
}
