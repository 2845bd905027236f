// From the core's answers to the results of the public API.

import Glibc
import LogStore
import Staging

extension StoreAnswer {
    var isClosed: Bool { status == .failed && errno == ESHUTDOWN }
}

extension PutResult {
    init(_ answer: StoreAnswer) {
        switch answer.status {
        case .stored, .done: status = .stored
        case .alreadyPresent: status = .alreadyPresent
        case .conflict: status = .conflict
        case .notAdmitted: status = .notAdmitted
        case .throttled: status = .throttled
        case .tooLarge: status = .tooLarge
        case .noSpace: status = .noSpace
        case .readOnly: status = .readOnly
        case .cancelled: status = .cancelled
        case .timedOut: status = .timedOut
        case .invalid: status = .invalid
        case .failed, .hit, .miss, .deleted, .notFound:
            status = answer.isClosed ? .closed : .failed
        }
        version = answer.version
        retryAfter = .nanoseconds(Int64(clamping: answer.retryNanoseconds))
        errno = answer.errno
    }
}

extension GetResult {
    init(_ answer: StoreAnswer) {
        switch answer.status {
        case .hit: status = .hit
        case .miss, .notFound: status = .miss
        case .throttled: status = .throttled
        case .cancelled: status = .cancelled
        case .timedOut: status = .timedOut
        case .invalid, .tooLarge, .conflict: status = .invalid
        default: status = answer.isClosed ? .closed : .failed
        }
        let reasons = Miss.allCases
        miss = reasons[min(Int(answer.reason.rawValue), reasons.count - 1)]
        switch answer.tier {
        case .none: tier = .none
        case .staging: tier = .staging
        case .device: tier = .device
        }
        version = answer.version
        length = Int(answer.length)
        delivered = Int(clamping: answer.delivered)
        shardCount = answer.shardCount
        errno = answer.errno
    }
}

extension DeleteResult {
    init(_ answer: StoreAnswer) {
        switch answer.status {
        case .deleted, .done: status = .deleted
        case .notFound, .miss: status = .notFound
        case .readOnly: status = .readOnly
        case .cancelled: status = .cancelled
        case .timedOut: status = .timedOut
        case .invalid: status = .invalid
        default: status = answer.isClosed ? .closed : .failed
        }
        errno = answer.errno
    }
}
