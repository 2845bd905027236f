// What importing blocks needs of the log: opening an existing store as it is, whoever made it, and
// moving the version counter past versions that blocks bring with them.

import BlockIO
import SegmentFormat

extension LogStore {
    /// Moves the version counter past `version`, durably: only then may a block with a version up
    /// to it be appended, since a version below the manifest's limit is never given out again.
    /// Outcome `.done`, `.failed`, `.readOnly`, or `.invalid` for a version that no store gives.
    package func raiseVersions(token: UInt64, past version: UInt64) {
        guard version < 1 << 62 else {
            delegate?.finished(Outcome(token: token, status: .invalid))
            return
        }
        guard !readOnly else {
            delegate?.finished(Outcome(token: token, status: .readOnly))
            return
        }
        nextVersion = max(nextVersion, version)
        manifest.versionLimit = max(manifest.versionLimit, nextVersion + Self.versionStep)
        manifestState.waiting.append(.change(token: token))
        manifestState.dirty = true
    }
}

extension LogStoreConfiguration {
    /// The configuration that opens an existing store as it is: nothing in the manifest says how
    /// large its index was, but the share-out of the capacity does, within limits, and it must not
    /// change under the store's owner. `blocks` is what the index is to hold, if it may.
    package init(
        manifest: Manifest, directories: [String], blocks: Int,
        entropy: (UInt64, UInt64, UInt64, UInt64)
    ) {
        self.init(
            directories: directories, capacityBytes: manifest.capacityBytes,
            indexEntries: Self.indexEntries(manifest, blocks: blocks), entropy: entropy)
        mode = manifest.mode == StoreMode.store.rawValue ? .store : .cache
        maximumBlockBytes = Int(manifest.maxBlockBytes)
        minimumSegmentBytes = Int(manifest.segmentBytes)
    }

    /// Index entries under which each device gets the segments that it has, as near to what
    /// `blocks` want as that allows.
    static func indexEntries(_ manifest: Manifest, blocks: Int) -> Int {
        let perChunk = CheckpointChunk.entriesPerChunk
        let members = UInt64(manifest.devices.count { $0.state != DeviceRecord.struck })
        let share = UInt64(manifest.devices.map(\.segmentCount).max() ?? 0)
        let copies = UInt64(manifest.devices.count * Manifest.copies * Manifest.copyBytes)
        /// Chunks that two checkpoint files may take when the segments are so many.
        func chunks(beside segments: UInt64) -> Int {
            let (taken, overflow) = segments.multipliedReportingOverflow(by: manifest.segmentBytes)
            guard !overflow, manifest.capacityBytes > taken,
                manifest.capacityBytes - taken > copies
            else { return -1 }
            let fixed = Checkpointer.fileBytes(entries: 0, segments: SegmentTable.maximumLocal)
            let each = (manifest.capacityBytes - taken - copies) / 2
            return each < fixed ? -1 : Int((each - fixed) / UInt64(CheckpointChunk.chunkBytes))
        }
        let most = chunks(beside: share * members)
        let full = share >= UInt64(SegmentTable.maximumLocal)
        let least = full ? 0 : chunks(beside: (share + 1) * members) + 1
        let wanted = (max(blocks, 1 << 16) + perChunk - 1) / perChunk
        return max(1, min(max(wanted, least), most, 1 << 17)) * perChunk
    }
}
