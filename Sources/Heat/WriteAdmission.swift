// WriteAdmission: whether a block is worth a write to the device, and when. A pure decision: it
// keeps nothing, so that all ranks of one model, which see the same keys but for the rank, come to
// the same verdict. What it takes is known to each of them: the block's key without the rank, how
// often it was used, and what its session said.
//
// Invariants: a partial tail is never written; what was refused for its session is written once it
// is used again, which proves the word wrong.

import Staging

/// When blocks go to the device.
package enum WriteMoment: UInt8, CaseIterable, Sendable {
    /// When they come.
    case insert
    /// When they leave staging.
    case eviction
    /// When they are used again: a quarter of the writes in chats, but the first return is lost.
    case secondTouch
}

package enum AdmissionVerdict: UInt8, Sendable {
    case write
    /// Not now; another use or its eviction may bring it.
    case later
    /// Part of a block at a chain's end, that nobody else will ask for.
    case partial
    /// Left out by the share that may be written.
    case overShare
}

package struct WriteAdmission: Equatable, Sendable {
    package var moment: WriteMoment
    /// Share of the keys that may be written, in 1/65536: all by default. The wear budget
    /// lowers it.
    package var share: UInt32

    package static let all: UInt32 = 1 << 16

    package init(moment: WriteMoment = .insert, share: UInt32 = WriteAdmission.all) {
        self.moment = moment
        self.share = share
    }

    /// - Parameters:
    ///   - keyHash: of the key without the rank: equal on all ranks.
    ///   - uses: how often the block was put or asked for, this time included.
    ///   - isLeaving: it is about to leave staging.
    package func verdict(
        keyHash: UInt64, uses: UInt32, outlook: Outlook, isPartial: Bool, isLeaving: Bool
    ) -> AdmissionVerdict {
        if isPartial { return .partial }
        // By the hash, so that a smaller share is part of a larger one, on every rank.
        if UInt32(truncatingIfNeeded: keyHash >> 48) >= share { return .overShare }
        if uses >= 2 { return moment == .eviction && !isLeaving ? .later : .write }
        if outlook == .ends { return .later }
        switch moment {
        case .insert: return .write
        case .eviction: return isLeaving ? .write : .later
        case .secondTouch: return .later
        }
    }
}
