// StoreError: an operating error, typed: what kind, during which operation, where, and what to do.
// Programmer errors are preconditions; damage found while running is a miss and a counter.

import BlockIO
import Glibc

package struct StoreError: Error, Equatable, Sendable, CustomStringConvertible {
    package enum Kind: String, Sendable {
        case locked
        case notAStore
        case otherStore
        case newerFormat
        case damaged
        case noSpace
        case permission
        case missing
        case input
        case configuration
        case resource
        case closed
    }

    package var kind: Kind
    package var operation: String
    /// The directory, file or option concerned.
    package var subject: String
    package var segment: Int32
    package var offset: Int64
    package var errno: Int32
    /// What to do about it.
    package var advice: String

    package init(
        _ kind: Kind, operation: String, subject: String, segment: Int32 = -1, offset: Int64 = -1,
        errno: Int32 = 0, advice: String
    ) {
        self.kind = kind
        self.operation = operation
        self.subject = subject
        self.segment = segment
        self.offset = offset
        self.errno = errno
        self.advice = advice
    }

    package var description: String {
        var text = "\(operation): \(kind.rawValue): \(subject)"
        if segment >= 0 { text += ", segment \(segment)" }
        if offset >= 0 { text += ", offset \(offset)" }
        if errno != 0 { text += ", errno \(errno)" }
        return text + ". " + advice
    }
}

extension StoreError {
    /// What a control call's errno means to whoever opens a store.
    package init(_ error: IOError, _ operation: String, _ subject: String, _ advice: String) {
        let kind: Kind
        switch error.errno {
        case EACCES, EPERM, EROFS: kind = .permission
        case ENOSPC, EDQUOT: kind = .noSpace
        case ENOENT, ENOTDIR: kind = .missing
        case EMFILE, ENFILE, ENOMEM: kind = .resource
        default: kind = .input
        }
        self.init(
            kind, operation: operation, subject: subject, errno: error.errno, advice: advice)
    }

    /// The lock of a directory was not granted.
    package init(lock error: IOError, directory: String) {
        if error.errno == EAGAIN || error.errno == EACCES || error.errno == EWOULDBLOCK {
            self.init(
                .locked, operation: "open", subject: directory, errno: error.errno,
                advice: "Another process has this store open: "
                    + (error.detail.isEmpty ? "holder unknown" : error.detail)
                    + ". Close it first.")
        } else {
            self.init(error, "lock", directory, "Check the permissions of its LOCK file.")
        }
    }
}
