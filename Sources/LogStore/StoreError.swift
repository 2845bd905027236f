// StoreError: an operating error, typed: what kind, during which operation, where, and what to do.
// Programmer errors are preconditions; damage found while running is a miss and a counter.

import BlockIO

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
