// Contested keys: several values of a key were found, and no supersede record says that the newest
// was flushed. They are read and checked from the newest on, twice if need be; the first that is
// whole is the key's, and if none is, the oldest stays. Once the store writes, the newest gets its
// record.

import BlockIO
import SegmentFormat

/// A value of a contested key, and the life of the segment that it lies in.
struct ContestedValue {
    var entry: IndexEntry
    var version: UInt64
    var generation: UInt64

    /// Of lower version; of one version, the one that the other was copied from.
    func isBefore(_ other: ContestedValue) -> Bool {
        (version, generation, UInt64(entry.place.page))
            < (other.version, other.generation, UInt64(other.entry.place.page))
    }
}

/// A key of which several values were found, oldest first. Any but the oldest may be torn: what is
/// left of a replace that a crash cut short is still there when the next one is made; and of one
/// version, reclaim copies a block before it gives up the source, and a copy whose flush failed
/// stays behind, too.
struct ContestedKey {
    var values: [ContestedValue]
    var key: [UInt8]
}

/// A value that recovery decided for, whose older one no record says to be dead.
struct UnguardedValue {
    var fingerprint: Fingerprint
    var namespaceSlot: UInt16
    var version: UInt64
    var key: [UInt8]
}

extension LogStore {
    private static let pageBytes = FormatConstants.pageBytes

    // MARK: What is found

    func contestedValue(_ entry: IndexEntry, _ version: UInt64) -> ContestedValue {
        ContestedValue(
            entry: entry, version: version, generation: segments[entry.place.segment].generation)
    }

    /// Takes one more value of a contested key in.
    func contest(_ recovery: Recovery, _ fingerprint: Fingerprint, _ found: ContestedValue) {
        guard var known = recovery.contested[fingerprint],
            !known.values.contains(where: { $0.entry.place == found.entry.place })
        else { return }
        let place = known.values.firstIndex { found.isBefore($0) } ?? known.values.count
        known.values.insert(found, at: place)
        keepOldest(recovery, fingerprint, known)
    }

    /// A record says that versions below are dead.
    func killContested(_ recovery: Recovery, _ fingerprint: Fingerprint, below version: UInt64) {
        guard var known = recovery.contested[fingerprint] else { return }
        known.values.removeAll { $0.version < version }
        keepOldest(recovery, fingerprint, known)
    }

    /// Until it is known which of the newer ones are whole, the index has the oldest.
    private func keepOldest(
        _ recovery: Recovery, _ fingerprint: Fingerprint, _ known: ContestedKey
    ) {
        recovery.contested[fingerprint] = known.values.count > 1 ? known : nil
        guard let oldest = known.values.first else { return }
        if index.find(fingerprint)?.place != oldest.entry.place {
            place(fingerprint, oldest.entry)
        }
    }

    // MARK: Reading them

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
        guard let entry = recovery.contested[fingerprint]?.values.last?.entry else { return true }
        recovery.contestedKey = fingerprint
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
                    length: UInt64(recovery.contestedBytes))),
            on: SegmentTable.device(entry.place.segment))
        return true
    }

    func contestedRead(_ recovery: Recovery, _ errno: Int32) {
        guard let fingerprint = recovery.contestedKey,
            let contested = recovery.contested[fingerprint],
            let newest = contested.values.last, let memory = recovery.contestedMemory
        else { return }
        recovery.contestedKey = nil
        let whole =
            errno == 0
            && contested.key.withUnsafeBytes { key in
                imageIsWhole(
                    UnsafeRawBufferPointer(start: memory, count: recovery.contestedBytes),
                    newest.entry, key)
            }
        if whole {
            place(fingerprint, newest.entry)
            for older in contested.values.dropLast() {
                segments[older.entry.place.segment].holdsContested = true
            }
            if contested.values[0].version < newest.version {
                unguarded.append(
                    UnguardedValue(
                        fingerprint: fingerprint, namespaceSlot: newest.entry.namespaceSlot,
                        version: newest.version, key: contested.key))
            }
            return
        }
        if recovery.contestedAgain != newest.entry.place {
            recovery.contestedAgain = newest.entry.place
            recovery.contestedQueue.append(fingerprint)
            statistics.readRetries += 1
            return
        }
        statistics.recovery.contestedLost += 1
        recovery.contested[fingerprint]?.values.removeLast()
        if contested.values.count > 2 { recovery.contestedQueue.append(fingerprint) }
    }

    // MARK: Guarding what was decided

    /// The newest values that were found whole beside older ones get the supersede records that a
    /// crash has taken, or the older ones would come back when the newest's own record is damaged.
    /// Not before they are flushed: until then the next crash may take them, and leave the older.
    func advanceUnguarded() {
        guard !flush.isFirst else { return }
        while let value = unguarded.last, operations.inUse + 8 < operations.capacity {
            guard !readOnly, namespaces.isLive(value.namespaceSlot),
                let entry = index.find(value.fingerprint), fullVersion(entry) == value.version,
                !isBeyondFlush(entry)
            else {
                unguarded.removeLast()
                continue
            }
            guard isDurable(entry) else {
                flush.isWanted = true
                return
            }
            let operation = operations.take(.relocate, token: 0)
            guard operation >= 0 else { return }
            let slot = operations.slots + Int(operation)
            slot.pointee.fingerprint = value.fingerprint
            slot.pointee.namespaceSlot = value.namespaceSlot
            slot.pointee.version = value.version
            slot.pointee.isRewrite = true
            slot.pointee.abandoned = true  // nobody waits for it
            slot.pointee.phase = .waitingForRecords
            value.key.withUnsafeBytes {
                operations.setKey(
                    operation, $0, parent: UnsafeRawBufferPointer(start: nil, count: 0))
            }
            guard writeRecords(owner: operation, version: value.version, supersede: true) else {
                operations.give(operation)
                return
            }
            statistics.recovery.guardedAgain += 1
            unguarded.removeLast()
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
