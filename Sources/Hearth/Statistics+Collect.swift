// Collecting statistics: on the owner thread, from the layers below, with what reads on callers'
// threads have added.

import BlockIO
import LogStore
import SegmentFormat
import Staging

extension Store {
    /// Everything counted and measured since the store was opened.
    public func statistics() async throws(HearthError) -> Statistics {
        let made: Statistics?? = await engine.ask(shared.collecting)
        guard let made, let made else { throw .closed("statistics") }
        return shared.completed(made)
    }
}

extension SharedStore {
    /// What the owner is asked for: nil once the store is closed.
    var collecting: @Sendable (Owner, @escaping @Sendable (Statistics?) -> Void) -> Void {
        let caller = self.caller.withLock { $0 }
        return { owner, reply in
            reply(owner.lifecycle.phase == .closed ? nil : owner.statistics(caller))
        }
    }

    /// Adds what the owner does not know.
    func completed(_ statistics: Statistics) -> Statistics {
        var made = statistics
        made.hints = hints.statistics
        made.hints.dropped = engine.hints.dropped
        made.trouble.pageErrors = pageErrors.load(ordering: .relaxed)
        made.recording = recorder?.statistics ?? Statistics.Recording()
        return made
    }
}

extension Owner {
    func statistics(_ caller: CallerCounts) -> Statistics {
        var made = Statistics()
        let log = store.log.statistics
        collectGets(caller, &made.gets)
        made.puts.byStatus = Self.names(counts.putStatuses) { PutResult($0).status.rawValue }
        made.puts.admittedBytes = log.admittedBytes
        made.puts.volatileLost = counts.volatileLost
        made.puts.unwritten = store.statistics.unwrittenPuts
        made.puts.unwrittenBytes = store.statistics.unwrittenBytes
        made.puts.copiesKept = store.statistics.copiesKept
        if let wear = tiered.wear {
            made.puts.writeShare = Double(wear.share) / 65_536
            made.puts.writeBalance = Int64(wear.balance)
        }
        made.puts.latency = counts.put.summary
        made.puts.queueWait = counts.putQueue.summary
        made.puts.service = counts.putService.summary
        made.deletes.byStatus = Self.names(counts.deleteStatuses) {
            DeleteResult($0).status.rawValue
        }
        made.deletes.latency = counts.delete.summary
        made.deletes.queueWait = counts.deleteQueue.summary
        made.reads = Statistics.Reads(
            bytes: log.readBytes, joined: log.joinedReads, tables: log.tableReads,
            movedBytes: log.movedReadBytes)
        made.writes = Statistics.Writes(
            groupBytes: log.groupBytes, reinsertedBytes: log.reinsertedBytes,
            reinsertedBlocks: log.reinsertedBlocks, metadataBytes: log.metadataBytes,
            checkpointBytes: log.checkpointBytes, totalBytes: log.writtenBytes,
            amplification: log.writeAmplification, flushes: log.flushes,
            checkpoints: log.checkpoints)
        made.reclaim = Statistics.Reclaim(
            evictedBlocks: log.evictedBlocks, evictedBytes: log.evictedBytes,
            expiredBlocks: log.expiredBlocks, segments: log.reclaimedSegments,
            carriedRecords: log.carriedRecords, recordsTogether: log.recordsTogether,
            discardedBytes: log.discardedBytes, discardErrors: log.discardErrors)
        made.scrub = Statistics.Scrub(
            bytes: log.scrub.bytes, blocks: log.scrub.blocks, segments: log.scrub.segments,
            passes: log.scrub.passes, damagedBlocks: log.scrub.damagedBlocks,
            damagedPages: log.scrub.damagedPages)
        made.trouble = trouble(log)
        made.space = space()
        made.memory = memory()
        made.driver = driverState(log)
        made.recovery = recovery(log.recovery)
        made.devices = store.log.manifest.devices.enumerated().map { place, record in
            deviceState(Int(record.index), record.state, of: place)
        }
        made.durableVersion = store.durableVersion
        made.prefetch = Statistics.Prefetch(tiered.prefetchStatistics)
        made.prefixes = Statistics.Prefixes(tiered.judge.counts)
        if made.prefixes.declinedBlocks > 0 {
            // Declined by a lookup, so no get was made of them: not among `misses`.
            made.gets.missesByReason["\(MissReason.declined)"] = made.prefixes.declinedBlocks
        }
        made.tiers = tiers(made)
        return made
    }

    private func deviceState(
        _ index: Int, _ member: UInt8, of place: Int
    ) -> Statistics.DeviceState {
        var made = Statistics.DeviceState()
        made.index = index
        made.state = member == 0 ? "healthy" : member == 1 ? "absent" : "struck"
        if place < store.log.devices.count {
            let device = store.log.devices[place]
            if member == 0 { made.state = "\(device.state)" }
            made.latencyNanoseconds = device.health.recent
            made.usualLatencyNanoseconds = device.health.usual
            made.errors = device.health.errors
            made.spells = device.health.spells
            made.probes = device.health.probes
        }
        made.segments =
            place < store.log.segments.counts.count ? store.log.segments.counts[place] : 0
        return made
    }

    private func collectGets(_ caller: CallerCounts, _ gets: inout Statistics.Gets) {
        var staging = counts.getStaging
        staging.add(caller.latency)
        gets.hitsStaging = staging.count
        gets.hitsDevice = counts.getDevice.count
        gets.hitsOnCaller = caller.hits
        gets.misses = counts.getStatuses[.miss]
        for reason in MissReason.allCases where reason != .none {
            let count = counts.missReasons[reason]
            if count > 0 { gets.missesByReason["\(reason)"] = count }
        }
        var others = counts.getStatuses
        others[.hit] = 0
        others[.miss] = 0
        gets.otherByStatus = Self.names(others) { GetResult($0).status.rawValue }
        gets.bytes = counts.deliveredBytes + caller.bytes
        gets.bounceBytes = store.statistics.bounceBytes
        gets.sharedReads = store.statistics.sharedReads
        gets.latencyStaging = staging.summary
        gets.latencyDevice = counts.getDevice.summary
        gets.latencyMiss = counts.getMiss.summary
        gets.queueWait = counts.getQueue.summary
        gets.service = counts.getService.summary
    }

    private static func names(
        _ counts: CountByStatus, _ name: (StoreAnswer) -> String
    ) -> [String: UInt64] {
        var named: [String: UInt64] = [:]
        for status in Status.allCases where counts[status] > 0 {
            named[name(StoreAnswer(token: 0, status: status)), default: 0] += counts[status]
        }
        return named
    }

    private func memory() -> Statistics.MemoryUse {
        let log = store.log.memory
        var made = Statistics.MemoryUse()
        made.limit = configuration.memoryLimitBytes
        made.index = log.index
        made.staging = (store.arena?.memoryBytes ?? 0) + tiered.memoryBytes
        made.shardTables = log.shardTables
        made.groupBuffers = log.groupBuffers
        made.footers = log.footers
        made.other = log.operations + log.bounce + log.segments + log.other
        made.dirtyBytes = store.arena?.dirtyBytes ?? 0
        made.cleanBytes = store.arena?.cleanBytes ?? 0
        made.leasedBytes = (store.arena?.leasedSlabs ?? 0) * configuration.slabBytes
        return made
    }

    private func driverState(_ log: LogStoreStatistics) -> Statistics.DriverState {
        let state = driver.statistics
        var made = Statistics.DriverState()
        made.kind = driver.kind.rawValue
        made.grants = state.grants
        made.slabPages = store.arena?.grants ?? ""
        made.requests = log.requests
        made.deviceNanoseconds = log.deviceNanoseconds
        made.meanDeviceNanoseconds = log.requests == 0 ? 0 : log.deviceNanoseconds / log.requests
        made.failed = state.failed
        made.shortResumed = state.shortResumed
        made.staleDropped = state.staleDropped
        made.registered = state.registeredBufferOps
        made.unregistered = state.unregisteredOps
        return made
    }

    private func recovery(_ recovery: RecoveryStatistics) -> Statistics.Recovery {
        Statistics.Recovery(
            isComplete: store.isRecovered, headersNanoseconds: recovery.headersNanoseconds,
            checkpointNanoseconds: recovery.checkpointNanoseconds,
            replayNanoseconds: recovery.replayNanoseconds,
            totalNanoseconds: recovery.totalNanoseconds,
            checkpointEntries: recovery.checkpointEntries, records: recovery.records,
            footerSegments: recovery.footerSegments, scannedSegments: recovery.scannedSegments,
            damagedPages: recovery.damagedPages, damagedSegments: recovery.damagedSegments,
            damagedCheckpoints: recovery.damagedCheckpoints, contested: recovery.contested,
            contestedLost: recovery.contestedLost, indexOverflow: recovery.indexOverflow)
    }

    private func trouble(_ log: LogStoreStatistics) -> Statistics.Trouble {
        Statistics.Trouble(
            checkFailures: log.checkFailures, readErrors: log.readErrors,
            readRetries: log.readRetries, writeErrors: log.writeErrors,
            flushErrors: log.flushErrors, manifestErrors: log.manifestErrors,
            checkpointErrors: log.checkpointErrors, rewrites: log.rewrites,
            unguardedReplaces: log.unguardedReplaces, quarantinedBlocks: log.quarantinedBlocks,
            quarantinedSegments: log.quarantinedSegments, damagedPages: log.damagedPages,
            allocationFailures: log.allocationFailures, shrunkSegments: log.shrunkSegments,
            damagedManifests: log.damage.manifestCopies,
            damagedManifestCopies: log.damage.damagedCopies,
            absentMembers: log.damage.absentDevices, staleMembers: log.damage.staleDevices)
    }

    private func space() -> Statistics.Space {
        let usage = store.log.space
        let log = store.log.statistics
        var made = Statistics.Space(
            capacity: usage.capacity, live: usage.live, dead: usage.dead, free: usage.free,
            open: usage.open, metadata: usage.metadata, reserve: usage.reserve,
            quarantined: usage.quarantined)
        made.liveValueBytes = log.liveBytes
        made.lostAtEnds =
            log.sealedBytes == 0 ? 0 : Double(log.lostBytes) / Double(log.sealedBytes)
        made.blocks = UInt64(store.log.index.count)
        return made
    }
}
