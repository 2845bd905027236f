// Keys of which two values were found, and no word that the newer one was flushed: the newer one is
// read and checked, as recovery does.

import BlockIO
import LogStore
import SegmentFormat

extension Catalog {
    /// As recovery: the newest value that is whole lives. Tells those that never became whole.
    package func settleContested() throws(StoreError) -> [Finding] {
        guard !contested.isEmpty else { return [] }
        var notes: [Finding] = []
        var keys: [Fingerprint: [UInt8]] = [:]
        var pages: [Place: (UInt32, UInt64)] = [:]
        let reader = RecordReader(store: store)
        var ignored: [Finding] = []
        for info in segments {
            var info = info
            let id = info.id
            try reader.read(&info, findings: &ignored) { view in
                let instance = view.descriptor.namespaceInstance
                let fingerprint = store.fingerprint(instance: instance, view.key)
                guard contested[fingerprint] != nil else { return }
                keys[fingerprint] = Array(view.key)
                pages[Place(segment: id, page: view.descriptor.page)] =
                    (view.descriptor.storedPages, instance)
            }
        }
        for (fingerprint, blocks) in contested {
            guard let key = keys[fingerprint] else { continue }
            for (number, block) in blocks.enumerated() {
                let place = Place(segment: block.segment, page: block.page)
                let last = number + 1 == blocks.count
                guard let (stored, instance) = pages[place],
                    let space = store.namespaces[instance]
                else { continue }
                let whole = isWhole(block, key, space, pages: stored)
                if !whole && !last {
                    var finding = Finding(
                        .value, path: store.path(block.segment),
                        offset: ClosedStore.offset(page: block.page),
                        length: ClosedStore.offset(page: stored),
                        "a newer value of a key that never became whole; the older one holds",
                        severity: .note, segment: block.segment)
                    finding.add(
                        Finding.Key(namespace: instance, bytes: key, version: block.version))
                    notes.append(finding)
                    continue
                }
                settle(fingerprint, on: block)
                break
            }
        }
        account()
        return notes
    }

    private func isWhole(
        _ block: CatalogBlock, _ key: [UInt8], _ space: NamespaceRecord, pages: UInt32
    ) -> Bool {
        let bytes = Int(pages) * FormatConstants.pageBytes
        let buffer = PageBuffer(bytes: bytes)
        guard let file = try? store.file(block.segment) else { return false }
        let layout = BlockLayout(
            length: block.length, shardCount: block.shardCount, aligned: space.aligned)
        let identity = key.withUnsafeBytes {
            Checksum.identitySeed(
                namespace: space.fingerprint, key: $0,
                versionLow: UInt32(truncatingIfNeeded: block.version))
        }
        // Twice: what one read brings may be another's.
        for _ in 0..<2 {
            let errno = store.io.read(
                file, offset: ClosedStore.offset(page: block.page), into: buffer.base,
                length: bytes)
            let image = StoredImage(layout: layout, bytes: buffer.bytes)
            if errno == 0, image.damage(identity: identity, checksum: block.checksum) == nil {
                return true
            }
        }
        return false
    }
}
