// Contested keys: two values of a key were found, and no supersede record says that the newer one
// was flushed. The newer one is read and checked; if it is not whole, the older one stays.

import BlockIO
import SegmentFormat

extension LogStore {
    private static let pageBytes = FormatConstants.pageBytes

    // MARK: Contested keys

    func startContested(_ recovery: Recovery) {
        statistics.recovery.replayNanoseconds = clock.monotonic - recovery.phaseStartedAt
        recovery.contestedQueue = recovery.contested.keys.sorted {
            ($0.hi, $0.lo) < ($1.hi, $1.lo)
        }
        statistics.recovery.contested = UInt64(recovery.contestedQueue.count)
        recovery.phase = .contested
    }

    func advanceContested(_ recovery: Recovery) -> Bool {
        guard recovery.contestedKey == nil else { return false }
        guard let fingerprint = recovery.contestedQueue.popLast() else {
            recovery.phase = .sealing
            return true
        }
        guard let contested = recovery.contested[fingerprint] else { return true }
        recovery.contestedKey = fingerprint
        let entry = contested.newer
        // Enough for padding of aligned shards too: each adds less than a page.
        let bytes =
            (layout(entry).storedBytes + entry.shardCount * Self.pageBytes).roundedUpToPage
        let most =
            Int(segmentPages - entry.place.page) * Self.pageBytes
        recovery.contestedBytes = min(bytes, most)
        recovery.contestedMemory?.deallocate()
        let memory = UnsafeMutableRawPointer.allocate(
            byteCount: recovery.contestedBytes, alignment: 4096)
        recovery.contestedMemory = memory
        issue(
            IORequest(
                tag: Self.tag(.recovery, 0), operation: .read, file: file(entry.place.segment),
                fileOffset: Self.offset(page: entry.place.page),
                piece: Piece(
                    region: .process, offset: UInt64(UInt(bitPattern: memory)),
                    length: UInt64(recovery.contestedBytes))))
        return true
    }

    func contestedRead(_ recovery: Recovery, _ errno: Int32) {
        guard let fingerprint = recovery.contestedKey,
            let contested = recovery.contested[fingerprint],
            let memory = recovery.contestedMemory
        else { return }
        recovery.contestedKey = nil
        let whole =
            errno == 0
            && contested.key.withUnsafeBytes { key in
                imageIsWhole(
                    UnsafeRawBufferPointer(start: memory, count: recovery.contestedBytes),
                    contested.newer, key)
            }
        if whole {
            place(fingerprint, contested.newer)
        } else {
            statistics.recovery.contestedLost += 1
        }
    }

    /// Whether a stored image in memory passes every check.
    func imageIsWhole(
        _ image: UnsafeRawBufferPointer, _ entry: IndexEntry, _ key: UnsafeRawBufferPointer
    ) -> Bool {
        let identity = Checksum.identitySeed(
            namespace: namespaces.fingerprint(entry.namespaceSlot), key: key,
            versionLow: entry.versionLow)
        return StoredImage(layout: layout(entry), bytes: image)
            .damage(identity: identity, checksum: entry.checksum) == nil
    }
}
