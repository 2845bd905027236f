// LogStoreStatistics: what the log counts, since it was opened. Bytes by cause add up to all bytes
// written, so that write amplification is a quotient of numbers kept here.

import BlockIO

package struct LogStoreStatistics: Sendable {
    // Answers
    package var statuses = CountByStatus()
    package var reasons = CountByReason()
    package var deletes: UInt64 = 0

    // Bytes by cause
    /// Value bytes admitted by puts.
    package var admittedBytes: UInt64 = 0
    /// Groups: descriptor pages, values and their padding, records and reinserted blocks included.
    package var groupBytes: UInt64 = 0
    /// Requests of groups that were cut small because their device was read.
    package var pacedWrites: UInt64 = 0
    /// Headers, footers, manifests.
    package var metadataBytes: UInt64 = 0
    package var checkpointBytes: UInt64 = 0
    /// Value bytes of blocks that were moved out of victims.
    package var reinsertedBytes: UInt64 = 0
    package var reinsertedBlocks: UInt64 = 0
    /// What was read for that, gaps included.
    package var movedReadBytes: UInt64 = 0
    package var readBytes: UInt64 = 0

    // Space
    package var liveBytes: UInt64 = 0
    package var sealedBytes: UInt64 = 0
    /// Bytes at the ends of sealed segments that no group could use.
    package var lostBytes: UInt64 = 0
    package var evictedBlocks: UInt64 = 0
    package var evictedBytes: UInt64 = 0
    /// Of the evicted blocks, those past their time.
    package var expiredBlocks: UInt64 = 0
    package var reclaimedSegments: UInt64 = 0
    package var carriedRecords: UInt64 = 0
    /// Records whose two copies had to share a segment, for want of another.
    package var recordsTogether: UInt64 = 0
    /// Bytes of recycled segments that devices were told to forget, and times that it failed.
    package var discardedBytes: UInt64 = 0
    package var discardErrors: UInt64 = 0
    package var shrunkSegments: UInt64 = 0
    package var allocationFailures: UInt64 = 0

    // Trouble
    package var checkFailures: UInt64 = 0
    package var readErrors: UInt64 = 0
    package var readRetries: UInt64 = 0
    package var writeErrors: UInt64 = 0
    package var rewrites: UInt64 = 0
    package var unguardedReplaces: UInt64 = 0
    package var flushErrors: UInt64 = 0
    package var manifestErrors: UInt64 = 0
    package var quarantinedBlocks: UInt64 = 0
    package var quarantinedSegments: UInt64 = 0
    package var damagedPages: UInt64 = 0
    package var damage = OpenDamage()

    // Devices
    /// Times that a device's health has changed, probes, and devices of which what was under way
    /// was given up.
    package var gradeChanges: UInt64 = 0
    package var probes: UInt64 = 0
    package var silences: UInt64 = 0
    /// Flushes that ended without devices that do badly.
    package var partedFlushes: UInt64 = 0

    package var scrub = ScrubStatistics()

    // Work
    package var requests: UInt64 = 0
    package var deviceNanoseconds: UInt64 = 0
    package var joinedReads: UInt64 = 0
    package var tableReads: UInt64 = 0
    package var flushes: UInt64 = 0
    package var checkpoints: UInt64 = 0
    package var checkpointErrors: UInt64 = 0
    package var recovery = RecoveryStatistics()

    package init() {}

    @inline(__always)
    mutating func observe(_ completion: IOCompletion) {
        requests += 1
        deviceNanoseconds += completion.deviceNanoseconds
    }

    @inline(__always)
    mutating func count(_ status: Status, _ reason: MissReason) {
        statuses[status] += 1
        if reason != .none { reasons[reason] += 1 }
    }

    /// All bytes written.
    package var writtenBytes: UInt64 { groupBytes + metadataBytes + checkpointBytes }

    /// All bytes written over value bytes admitted; 0 before the first put.
    package var writeAmplification: Double {
        admittedBytes == 0 ? 0 : Double(writtenBytes) / Double(admittedBytes)
    }
}

package struct RecoveryStatistics: Sendable {
    package var headersNanoseconds: UInt64 = 0
    package var checkpointNanoseconds: UInt64 = 0
    package var replayNanoseconds: UInt64 = 0
    package var totalNanoseconds: UInt64 = 0
    package var checkpointEntries: UInt64 = 0
    package var footerSegments: UInt64 = 0
    package var scannedSegments: UInt64 = 0
    package var records: UInt64 = 0
    package var damagedPages: UInt64 = 0
    package var damagedSegments: UInt64 = 0
    package var contested: UInt64 = 0
    package var contestedLost: UInt64 = 0
    /// Keys of those for which a record of which value is theirs was begun; one that could not be
    /// written counts among `unguardedReplaces`.
    package var guardedAgain: UInt64 = 0
    package var indexOverflow: UInt64 = 0
    package var damagedCheckpoints: UInt64 = 0
    package init() {}
}

/// A counter for each status, without allocation.
package struct CountByStatus: Sendable {
    private var counts: InlineArray<17, UInt64> = .init(repeating: 0)
    package init() {}
    package subscript(status: Status) -> UInt64 {
        get { counts[Int(status.rawValue)] }
        set { counts[Int(status.rawValue)] = newValue }
    }
}

/// A counter for each reason of a miss.
package struct CountByReason: Sendable {
    private var counts: InlineArray<13, UInt64> = .init(repeating: 0)
    package init() {}
    package subscript(reason: MissReason) -> UInt64 {
        get { counts[Int(reason.rawValue)] }
        set { counts[Int(reason.rawValue)] = newValue }
    }
}
