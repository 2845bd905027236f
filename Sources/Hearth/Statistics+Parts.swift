// The parts of the statistics as text, field by field in the order of their declarations.

extension Statistics.Gets {
    func write(_ text: inout some StatisticsText) {
        text.object {
            $0.number("hitsStaging", hitsStaging)
            $0.number("hitsDevice", hitsDevice)
            $0.number("hitsOnCaller", hitsOnCaller)
            $0.number("misses", misses)
            $0.counts("missesByReason", missesByReason)
            $0.counts("otherByStatus", otherByStatus)
            $0.number("bytes", bytes)
            $0.number("bounceBytes", bounceBytes)
            $0.number("sharedReads", sharedReads)
            $0.latency("latencyStaging", latencyStaging)
            $0.latency("latencyDevice", latencyDevice)
            $0.latency("latencyMiss", latencyMiss)
            $0.latency("queueWait", queueWait)
            $0.latency("service", service)
        }
    }
}

extension Statistics.Puts {
    func write(_ text: inout some StatisticsText) {
        text.object {
            $0.counts("byStatus", byStatus)
            $0.number("admittedBytes", admittedBytes)
            $0.number("volatileLost", volatileLost)
            $0.number("unwritten", unwritten)
            $0.number("unwrittenBytes", unwrittenBytes)
            $0.number("copiesKept", copiesKept)
            $0.number("writeShare", writeShare)
            $0.number("writeBalance", writeBalance)
            $0.latency("latency", latency)
            $0.latency("queueWait", queueWait)
            $0.latency("service", service)
        }
    }
}

extension Statistics.Deletes {
    func write(_ text: inout some StatisticsText) {
        text.object {
            $0.counts("byStatus", byStatus)
            $0.latency("latency", latency)
            $0.latency("queueWait", queueWait)
        }
    }
}

extension Statistics.Reads {
    func write(_ text: inout some StatisticsText) {
        text.object {
            $0.number("bytes", bytes)
            $0.number("joined", joined)
            $0.number("tables", tables)
            $0.number("movedBytes", movedBytes)
        }
    }
}

extension Statistics.Scrub {
    func write(_ text: inout some StatisticsText) {
        text.object {
            $0.number("bytes", bytes)
            $0.number("blocks", blocks)
            $0.number("segments", segments)
            $0.number("passes", passes)
            $0.number("damagedBlocks", damagedBlocks)
            $0.number("damagedPages", damagedPages)
        }
    }
}

extension Statistics.Writes {
    func write(_ text: inout some StatisticsText) {
        text.object {
            $0.number("groupBytes", groupBytes)
            $0.number("reinsertedBytes", reinsertedBytes)
            $0.number("reinsertedBlocks", reinsertedBlocks)
            $0.number("metadataBytes", metadataBytes)
            $0.number("checkpointBytes", checkpointBytes)
            $0.number("totalBytes", totalBytes)
            $0.number("amplification", amplification)
            $0.number("flushes", flushes)
            $0.number("checkpoints", checkpoints)
        }
    }
}

extension Statistics.Space {
    func write(_ text: inout some StatisticsText) {
        text.object {
            $0.number("capacity", capacity)
            $0.number("live", live)
            $0.number("dead", dead)
            $0.number("free", free)
            $0.number("open", open)
            $0.number("metadata", metadata)
            $0.number("reserve", reserve)
            $0.number("quarantined", quarantined)
            $0.number("liveValueBytes", liveValueBytes)
            $0.number("lostAtEnds", lostAtEnds)
            $0.number("blocks", blocks)
        }
    }
}

extension Statistics.Reclaim {
    func write(_ text: inout some StatisticsText) {
        text.object {
            $0.number("evictedBlocks", evictedBlocks)
            $0.number("evictedBytes", evictedBytes)
            $0.number("expiredBlocks", expiredBlocks)
            $0.number("segments", segments)
            $0.number("carriedRecords", carriedRecords)
            $0.number("recordsTogether", recordsTogether)
            $0.number("discardedBytes", discardedBytes)
            $0.number("discardErrors", discardErrors)
        }
    }
}

extension Statistics.Trouble {
    func write(_ text: inout some StatisticsText) {
        text.object {
            $0.number("checkFailures", checkFailures)
            $0.number("readErrors", readErrors)
            $0.number("readRetries", readRetries)
            $0.number("writeErrors", writeErrors)
            $0.number("flushErrors", flushErrors)
            $0.number("manifestErrors", manifestErrors)
            $0.number("checkpointErrors", checkpointErrors)
            $0.number("rewrites", rewrites)
            $0.number("unguardedReplaces", unguardedReplaces)
            $0.number("quarantinedBlocks", quarantinedBlocks)
            $0.number("quarantinedSegments", quarantinedSegments)
            $0.number("damagedPages", damagedPages)
            $0.number("allocationFailures", allocationFailures)
            $0.number("shrunkSegments", shrunkSegments)
            $0.number("damagedManifests", damagedManifests)
            $0.number("damagedManifestCopies", damagedManifestCopies)
            $0.number("absentMembers", absentMembers)
            $0.number("staleMembers", staleMembers)
            $0.number("pageErrors", pageErrors)
        }
    }
}

extension Statistics.MemoryUse {
    func write(_ text: inout some StatisticsText) {
        text.object {
            $0.number("limit", limit)
            $0.number("index", index)
            $0.number("staging", staging)
            $0.number("shardTables", shardTables)
            $0.number("groupBuffers", groupBuffers)
            $0.number("footers", footers)
            $0.number("other", other)
            $0.number("dirtyBytes", dirtyBytes)
            $0.number("cleanBytes", cleanBytes)
            $0.number("leasedBytes", leasedBytes)
        }
    }
}

extension Statistics.Hints {
    func write(_ text: inout some StatisticsText) {
        text.object {
            $0.counts("byKind", byKind)
            $0.number("keys", keys)
            $0.number("refused", refused)
            $0.number("dropped", dropped)
        }
    }
}

extension Statistics.DriverState {
    func write(_ text: inout some StatisticsText) {
        text.object {
            $0.string("kind", kind)
            $0.string("grants", grants)
            $0.string("slabPages", slabPages)
            $0.number("requests", requests)
            $0.number("deviceNanoseconds", deviceNanoseconds)
            $0.number("meanDeviceNanoseconds", meanDeviceNanoseconds)
            $0.number("failed", failed)
            $0.number("shortResumed", shortResumed)
            $0.number("staleDropped", staleDropped)
            $0.number("registered", registered)
            $0.number("unregistered", unregistered)
        }
    }
}

extension Statistics.DeviceState {
    func write(_ text: inout some StatisticsText) {
        text.object {
            $0.number("index", index)
            $0.string("state", state)
            $0.number("segments", segments)
            $0.number("latencyNanoseconds", latencyNanoseconds)
            $0.number("usualLatencyNanoseconds", usualLatencyNanoseconds)
            $0.number("errors", errors)
            $0.number("spells", spells)
            $0.number("probes", probes)
        }
    }
}

extension Statistics.Recovery {
    func write(_ text: inout some StatisticsText) {
        text.object {
            $0.flag("isComplete", isComplete)
            $0.number("headersNanoseconds", headersNanoseconds)
            $0.number("checkpointNanoseconds", checkpointNanoseconds)
            $0.number("replayNanoseconds", replayNanoseconds)
            $0.number("totalNanoseconds", totalNanoseconds)
            $0.number("checkpointEntries", checkpointEntries)
            $0.number("records", records)
            $0.number("footerSegments", footerSegments)
            $0.number("scannedSegments", scannedSegments)
            $0.number("damagedPages", damagedPages)
            $0.number("damagedSegments", damagedSegments)
            $0.number("damagedCheckpoints", damagedCheckpoints)
            $0.number("contested", contested)
            $0.number("contestedLost", contestedLost)
            $0.number("indexOverflow", indexOverflow)
        }
    }
}
