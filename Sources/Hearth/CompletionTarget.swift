// CompletionTarget: where the owner thread puts answers. It is told each one as it comes and, once
// a turn of the owner's loop, to publish what has gathered, so that a reader is woken at most once.

import BlockIO
import Staging

/// One answer, or the later release of a given-up read's memory.
package struct StoreCompletion: @unchecked Sendable {
    // Unchecked: `leased` points into the owner's piece lists, which stand still while the lease
    // that this completion tells of is held and the store is open.

    /// The submitter's token.
    package var token: UInt64
    package var answer: StoreAnswer
    /// The kernel has let go of the memory of a read that was answered before; nothing else counts.
    package var isRelease = false
    /// Nanoseconds in the queue, and from there to the answer.
    package var queueNanoseconds: UInt64 = 0
    package var serviceNanoseconds: UInt64 = 0
    /// Of a lease: the slabs that hold the stored image, in order; offsets from the arena's base.
    package var leased = UnsafeBufferPointer<Piece>(start: nil, count: 0)
    /// Of a lease: whether the image's shards are aligned.
    package var leasedAligned = false

    package init(token: UInt64, answer: StoreAnswer) {
        self.token = token
        self.answer = answer
    }

    /// Nothing more comes for this token.
    package var isFinal: Bool { isRelease || !answer.memoryInUse }
}

package class CompletionTarget: @unchecked Sendable {
    // Unchecked: `isDirty` is the owner thread's; subclasses say how they share what they add.
    final var isDirty = false

    /// Takes one completion. Owner thread.
    func complete(_ completion: StoreCompletion) {}

    /// Publishes what has been taken. True when no more will come and the reference that was
    /// handed in at submission is to be let go. Owner thread.
    func publish() -> Bool { false }
}
