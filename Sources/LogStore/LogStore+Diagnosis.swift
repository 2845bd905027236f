// Diagnosis: the state of the machines in words, for test failures and bug reports, and what of the
// store's memory other processes may look into.

extension LogStore {
    /// The descriptors of the mappings that an IndexReader and a GhostReader elsewhere read.
    package var sharedDescriptors: (index: Int32, ghosts: Int32) {
        (index.mapping.descriptor, ghosts.mapping.descriptor)
    }

    /// What reclaim, streams and flush are at.
    package var diagnosis: String {
        var text = ""
        for reclaimer in reclaimers {
            text += "device \(reclaimer.device) \(devices[reclaimer.device].state)"
            text += " \(reclaimer.phase) segment \(reclaimer.segment)"
            text += " pending \(reclaimer.pending) clean \(reclaimer.clean.count)"
            text += " made \(reclaimer.nextLocal)/\(segments.counts[reclaimer.device])"
            text += reclaimer.failed ? " failed; " : "; "
        }
        for stream in streams {
            text += "\(stream.kind) \(stream.device).\(stream.number) at "
            text += stream.segment.map { "\($0):\(stream.nextPage)" } ?? "none"
            text += " queue \(stream.queue.count) waiting \(stream.waiting)"
            text += " flying \(stream.groupsInFlight); "
        }
        text += "operations \(operations.inUse), groups free \(freeGroups),"
        text += " footers free \(footerPool.freeCount), flush waits \(flush.waiting.count),"
        text += " to start \(waitingToStart.count), chunk \(waitingForBounce),"
        text += " sweep \(sweepOwner ?? -2), manifest failures \(manifestState.failures),"
        text += " index \(index.count)+\(appending)/\(index.capacity)"
        return text
    }
}
