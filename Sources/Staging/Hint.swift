// Hint: what an engine tells of the future, as a plain message. A hint is advice: a wrong one costs
// bandwidth and places, never a byte, and never an error to who gave it. Its keys go beside it.

/// What a hint is about.
package enum HintKind: UInt32, CaseIterable, Sendable {
    /// The keys are what a queued request will read, in chain order.
    case chain
    /// Some shards of the keys are likely to be picked at a step and layer of a request.
    case pages
    /// The request is at a layer of a step.
    case progress
    /// A session has come into a state; the keys, if any, are those of its leaf.
    case session
    /// The keys were used elsewhere, as by an engine that holds them itself.
    case touched
    /// What was hinted of the request will not come.
    case cancel
    /// The keys are not needed soon.
    case release
    /// The engine holds the keys' blocks in its own memory from now on.
    case admitted
    /// It does not any more; without keys: none at all.
    case evicted
    /// The request has ended; the keys are those that it has used, in chain order.
    case ended
}

/// What is known of a session.
package enum SessionState: UInt32, CaseIterable, Sendable {
    case open
    /// A tool is at work; `Hint.due` is when the session is expected back.
    case toolPending
    /// Waiting for a person.
    case idle
    /// It will not come back.
    case oneShot
    case closed
}

package struct Hint: Sendable, Equatable {
    package var kind: HintKind
    package var namespaceSlot: UInt16
    /// The engine's number of the request, 0 for none.
    package var request: UInt64 = 0
    /// The engine's number of the session, 0 for none.
    package var session: UInt64 = 0
    /// When the keys are needed, or the session is expected: monotonic nanoseconds, 0: not known.
    package var due: UInt64 = 0
    package var state = SessionState.open
    /// The keys go on where those of the hint before, which is the same, have ended.
    package var continues = false
    package var step: UInt32 = 0
    package var layer: UInt32 = 0
    package var firstShard: UInt32 = 0
    /// Shards that are meant, 0 for all.
    package var shardCount: UInt32 = 0
    /// How sure the engine is, in 1/65536.
    package var confidence: UInt32 = 1 << 16

    package init(_ kind: HintKind, namespaceSlot: UInt16 = 0) {
        self.kind = kind
        self.namespaceSlot = namespaceSlot
    }
}
