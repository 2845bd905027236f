// Checks of the whole store at rest: accounting against the index, references, space on the
// devices; and that after everything the store can still be used.

import BlockIO
import LogStore
import SegmentFormat
import SimulatedDisk
import Staging

extension World {
    // MARK: Leases

    /// The leased bytes are those of the revision that was handed out, for as long as it is held.
    func checkLease(_ client: Client) {
        guard client.lease >= 0, let revision = client.leased else { return }
        if !isLeased(client, client.lease, at: client.leaseOffset, revision) {
            fail("leased bytes have changed: key \(client.space)/\(client.key), \(revision)")
        }
    }

    /// Whether a lease shows the asked bytes of a revision, and starts where it says.
    func isLeased(
        _ client: Client, _ lease: Int32, at offset: UInt64, _ revision: Revision
    ) -> Bool {
        guard let arena = store?.arena else { return false }
        let aligned = model.namespaces[client.space].aligned && revision.shardCount > 1
        let asked = askedRange(client, revision)
        let lengths = UnsafeMutablePointer<UInt32>.allocate(capacity: revision.shardCount)
        defer { lengths.deallocate() }
        revision.shardLengths(lengths)
        let page = FormatConstants.pageBytes
        var image = aligned ? (8 * revision.shardCount + page - 1) / page * page : 0
        var value = 0
        var first = true
        for shard in 0..<revision.shardCount {
            let length = Int(lengths[shard])
            let part = (value..<(value + length)).clamped(to: asked)
            if !part.isEmpty {
                let at = image + part.lowerBound - value
                if first && UInt64(at) != offset { return false }
                first = false
                if !leased(arena, lease, revision, image: at, value: part) { return false }
            }
            value += length
            image += length
            if aligned { image = (image + page - 1) / page * page }
        }
        return true
    }

    private func leased(
        _ arena: StagingArena, _ lease: Int32, _ revision: Revision, image: Int,
        value: Range<Int>
    ) -> Bool {
        var skip = image
        var at = value.lowerBound
        for piece in arena.pieces(ResidentSlot(lease)) where at < value.upperBound {
            let length = Int(piece.length)
            if skip >= length {
                skip -= length
                continue
            }
            let count = min(length - skip, value.upperBound - at)
            let memory = UnsafeRawPointer(arena.pointer(piece)) + skip
            if !Payload.matches(revision.seed, from: at, count, memory) { return false }
            at += count
            skip = 0
        }
        return at == value.upperBound
    }

    // MARK: Accounting

    /// With nothing under way: what the segments say is alive is what the index holds.
    func checkAccounting() {
        guard let store, failure == nil, store.isRecovered else { return }
        drain()
        pump(until: { store.isIdle && self.nothingInFlight }, "quiet")
        guard failure == nil, simulated?.dead != true else { return }
        // Purged in vain, which leaves the store read-only: its entries stay, and have no name.
        guard !model.namespaces.contains(where: { $0.uncertain && $0.slot == nil }) else { return }
        var pages: [UInt32: UInt32] = [:]
        var blocks: [UInt32: UInt32] = [:]
        var found = 0
        for space in model.namespaces.indices {
            guard let slot = model.namespaces[space].slot else { continue }
            withUnsafeTemporaryAllocation(byteCount: Payload.maximumKeyBytes, alignment: 8) {
                memory in
                guard let base = memory.baseAddress else { return }
                for number in model.namespaces[space].keys.indices {
                    let length = Payload.key(number, into: base)
                    let fingerprint = store.log.fingerprint(
                        slot, UnsafeRawBufferPointer(start: base, count: length))
                    guard let entry = store.log.index.find(fingerprint) else { continue }
                    found += 1
                    let layout = BlockLayout(
                        length: entry.length, shardCount: entry.shardCount,
                        aligned: model.namespaces[space].aligned)
                    pages[entry.place.segment, default: 0] += UInt32(
                        (layout.storedBytes + FormatConstants.pageBytes - 1)
                            / FormatConstants.pageBytes)
                    blocks[entry.place.segment, default: 0] += 1
                }
            }
        }
        if found != store.log.index.count {
            fail("the index counts \(store.log.index.count) entries, \(found) can be found")
        }
        store.log.segments.forEach { id in
            let segment = store.log.segments[id]
            if segment.livePages != pages[id] ?? 0 || segment.liveBlocks != blocks[id] ?? 0 {
                fail(
                    "segment \(id) (\(segment.state)) counts \(segment.liveBlocks) blocks of "
                        + "\(segment.livePages) pages, the index \(blocks[id] ?? 0) of "
                        + "\(pages[id] ?? 0)")
            }
            if segment.readers != 0 { fail("segment \(id) keeps \(segment.readers) readers") }
            if segment.livePages > segment.writtenPages
                || segment.writtenPages > store.log.segmentPages
            {
                fail("segment \(id): \(segment.livePages) live, \(segment.writtenPages) written")
            }
        }
        checkSpace(store)
        tally.add("accounting checks")
    }

    /// The capacity is a hard limit on all files together.
    private func checkSpace(_ store: StagedStore) {
        guard let machine else { return }
        var bytes: UInt64 = 0
        for directory in swarm.log.directories {
            for name in machine.fileNames(directory) where name != "LOCK" {
                bytes += UInt64(machine.fileSize(directory, name) ?? 0)
            }
        }
        if bytes > swarm.log.capacityBytes {
            fail("files of \(bytes) bytes, the capacity is \(swarm.log.capacityBytes)")
        }
        if store.log.statistics.writtenBytes < store.log.statistics.groupBytes {
            fail("bytes by cause do not add up")
        }
    }

    // MARK: Statistics

    func collectStatistics(_ store: StagedStore) {
        let log = store.log.statistics
        tally.add("reclaimed segments", log.reclaimedSegments)
        tally.add("evicted blocks", log.evictedBlocks)
        tally.add("checkpoints", log.checkpoints)
        tally.add(
            "sealed segments",
            log.sealedBytes / (UInt64(store.log.segmentPages) * UInt64(FormatConstants.pageBytes)))
        tally.add("checkpoint entries recovered", log.recovery.checkpointEntries)
        tally.add("footers replayed", log.recovery.footerSegments)
        tally.add("segments scanned", log.recovery.scannedSegments)
        tally.add("contested keys", log.recovery.contested)
        tally.add("contested lost", log.recovery.contestedLost)
        tally.add("carried records", log.carriedRecords)
        tally.add("relocated bytes", log.reinsertedBytes)
        tally.add("deletes", log.deletes)
        tally.add("flushes", log.flushes)
        tally.add("quarantined blocks", log.quarantinedBlocks)
        tally.add("quarantined segments", log.quarantinedSegments)
        tally.add("check failures", log.checkFailures)
        tally.add("read retries", log.readRetries)
        tally.add("joined reads", log.joinedReads)
        tally.add("table reads", log.tableReads)
        tally.add("allocation failures", log.allocationFailures)
        tally.add("damaged pages", log.damagedPages + log.recovery.damagedPages)
        tally.add("damaged segments", log.recovery.damagedSegments)
        tally.add("scrubbed segments", log.scrub.segments)
        tally.add("scrubbed blocks", log.scrub.blocks)
        tally.add("scrub passes", log.scrub.passes)
        tally.add("scrub found rotten", log.scrub.damagedBlocks)
        tally.add("scrub found rotten pages", log.scrub.damagedPages)
        // A crash leaves values and pages that were torn; what is detached cannot be read.
        if damage + errors == 0, tally["crashes"] == 0, tally["devices detached"] == 0,
            log.scrub.damagedBlocks + log.scrub.damagedPages > 0
        {
            fail("the scrubber finds rot where there is none: \(log.scrub)")
        }
        tally.add("discarded MiB", log.discardedBytes >> 20)
        tally.add("discards failed", log.discardErrors)
        tally.add("changes of health", log.gradeChanges)
        tally.add("devices given up", log.silences)
        tally.add("flushes without a late device", log.partedFlushes)
        tally.add("probes", log.probes)
        collectPrefetching()
        let staged = store.statistics
        tally.add("staged reads", staged.stagedReads)
        tally.add("direct reads", staged.directReads)
        tally.add("shared reads", staged.sharedReads)
        tally.add("volatile lost", staged.volatileLost)
        tally.add("timed out", staged.timedOut)
        tally.add("cancelled", staged.cancelled)
        tally.add("throttled puts", staged.throttledPuts)
        tally.add("throttled gets", staged.throttledGets)
    }

    // MARK: After everything

    /// Reads every key once; each answer is checked as any other.
    func readEverything() {
        for space in model.namespaces.indices {
            for key in model.namespaces[space].keys.indices {
                if failure != nil || simulated?.dead == true { return }
                if model.namespaces[space].keys[key].revisions.isEmpty && key > 3 { continue }
                getWhole(space, key)
            }
        }
        drain()
    }

    /// The store takes a put and gives it back.
    func checkUsable() {
        guard failure == nil, let store, !store.log.readOnly else { return }
        for attempt in 0..<200 {
            guard let client = begin(.put, 0, 0) else { return }
            let revision = makeRevision(0, 0, length: min(5000, swarm.maximumBlock), shards: 1)
            preparePut(client, revision, replace: true)
            client.operation.durability = .durable
            finishPut(client, revision)
            drain()
            if failure != nil || simulated?.dead == true { return }
            let made = model.namespaces[0].keys[0].revisions.last
            if made?.state == .stored { break }
            if hardship || swarm.mode == .store { return }
            if attempt == 199 { fail("the store takes no put any more: \(situation)") }
            for _ in 0..<50 { step() }
        }
        getWhole(0, 0)
        drain()
    }
}
