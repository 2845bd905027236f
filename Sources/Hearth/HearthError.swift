// HearthError: an operating error, typed: what kind, during which operation, where, and what to do.
// Programmer errors are preconditions; damage found while running is a miss and a counter.

import BlockIO
import LogStore

/// What went wrong, where, and what to do about it.
public struct HearthError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The kinds of operating errors.
    public enum Kind: String, Sendable, CaseIterable {
        /// Another process has the store open; the advice names it.
        case locked
        /// The directory holds something else.
        case notAStore
        /// The directory belongs to another store.
        case otherStore
        /// Written by a newer version of Hearth.
        case newerFormat
        /// Damaged beyond what may be skipped in the open mode chosen.
        case damaged
        /// No space, or the quota is spent.
        case noSpace
        /// The file system refuses.
        case permission
        /// A directory or member is missing.
        case missing
        /// An I/O error.
        case input
        /// An option's value, or one that does not go with what the store was created with.
        case configuration
        /// Memory, threads or descriptors are short.
        case resource
        /// The store is closed or closing.
        case closed
    }

    /// What kind of error it is.
    public var kind: Kind
    /// What was being done, such as "open" or "flush".
    public var operation: String
    /// The directory, file or option concerned.
    public var subject: String
    /// The segment concerned, -1 for none.
    public var segment: Int
    /// The byte offset concerned, -1 for none.
    public var offset: Int64
    /// The system's error number, 0 for none.
    public var errno: Int32
    /// What to do about it.
    public var advice: String

    /// An error of this kind.
    public init(
        _ kind: Kind, operation: String, subject: String, segment: Int = -1, offset: Int64 = -1,
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

    init(_ error: StoreError) {
        self.init(
            Kind(rawValue: error.kind.rawValue) ?? .input, operation: error.operation,
            subject: error.subject, segment: Int(error.segment), offset: error.offset,
            errno: error.errno, advice: error.advice)
    }

    init(driver error: IOError) {
        self.init(
            .resource, operation: "open", subject: "the I/O driver", errno: error.errno,
            advice: "\(error). Use the driver .automatic, which falls back to threads.")
    }

    static func closed(_ operation: String) -> HearthError {
        HearthError(
            .closed, operation: operation, subject: "the store",
            advice: "It was closed before: open it again.")
    }

    /// One line that says it all.
    public var description: String {
        var text = "\(operation): \(kind.rawValue): \(subject)"
        if segment >= 0 { text += ", segment \(segment)" }
        if offset >= 0 { text += ", offset \(offset)" }
        if errno != 0 { text += ", errno \(errno)" }
        return text + ". " + advice
    }
}
