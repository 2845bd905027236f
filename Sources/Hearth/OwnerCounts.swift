// OwnerCounts: what the owner thread measures of the operations that pass through it; and what
// reads served on their callers' threads add to it.

import LogStore
import Staging

struct OwnerCounts {
    var getStaging = LatencyHistogram()
    var getDevice = LatencyHistogram()
    var getMiss = LatencyHistogram()
    var put = LatencyHistogram()
    var delete = LatencyHistogram()
    var getQueue = LatencyHistogram()
    var putQueue = LatencyHistogram()
    var deleteQueue = LatencyHistogram()
    /// From being handed to the store to the answer, of gets that the device served, and of puts.
    var getService = LatencyHistogram()
    var putService = LatencyHistogram()
    var putStatuses = CountByStatus()
    var getStatuses = CountByStatus()
    var deleteStatuses = CountByStatus()
    var missReasons = CountByReason()
    var deliveredBytes: UInt64 = 0
    var volatileLost: UInt64 = 0

    mutating func note(_ kind: StoreOperationKind, _ completion: StoreCompletion) {
        let latency = completion.queueNanoseconds &+ completion.serviceNanoseconds
        let answer = completion.answer
        switch kind {
        case .get:
            getQueue.record(completion.queueNanoseconds)
            getStatuses[answer.status] += 1
            if answer.status == .hit {
                deliveredBytes &+= answer.delivered
                if answer.tier == .staging {
                    getStaging.record(latency)
                } else {
                    getDevice.record(latency)
                    getService.record(completion.serviceNanoseconds)
                }
            } else {
                getMiss.record(latency)
                if answer.reason != .none { missReasons[answer.reason] += 1 }
            }
        case .put:
            putQueue.record(completion.queueNanoseconds)
            putService.record(completion.serviceNanoseconds)
            put.record(latency)
            putStatuses[answer.status] += 1
        case .delete:
            deleteQueue.record(completion.queueNanoseconds)
            delete.record(latency)
            deleteStatuses[answer.status] += 1
        default: break
        }
    }
}

/// Hits that were served on the caller's thread.
struct CallerCounts: Sendable {
    var latency = LatencyHistogram()
    var hits: UInt64 = 0
    var bytes: UInt64 = 0
    var leases: UInt64 = 0
    var lookups: UInt64 = 0
    var lookupsPresent: UInt64 = 0
}
