// PrefetchConfiguration: which predictors run, and the bounds of what they may take. Every table is
// made at its full size at open.

/// Predictors that may ask for blocks.
package struct PredictorSet: OptionSet, Sendable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    package init(_ kind: PredictorKind) { rawValue = 1 << kind.rawValue }

    package static let chain = PredictorSet(.chain)
    package static let successor = PredictorSet(.successor)
    package static let layer = PredictorSet(.layer)
    package static let pages = PredictorSet(.pages)
    package static let session = PredictorSet(.session)
    package static let all: PredictorSet = [.chain, .successor, .layer, .pages, .session]
}

package struct PrefetchConfiguration: Sendable {
    package var predictors: PredictorSet = .chain
    /// Blocks that wait or are being brought at once.
    package var blocks = 1 << 15
    /// Requests of which blocks wait, are being brought or lie unused.
    package var requests = 1 << 12
    /// Blocks of which is remembered what followed them; 64 bytes each, in use only where
    /// successors are predicted.
    package var successors = 1 << 16
    /// Parts of blocks of which is remembered how often they were picked; 16 bytes each, in use
    /// only where layers are guessed.
    package var picks = 1 << 15
    /// Sessions that are remembered, and keys of their chains in all; some 120 and 48 bytes each,
    /// in use only where returns of sessions are predicted.
    package var sessions = 1 << 11
    package var sessionKeys = 1 << 15
    /// The chance of a return from which on a session's chain is brought, at the least: what nobody
    /// reads takes the device's time and the place of others.
    package var leastReturn: Float = 0.3
    /// What guesses about layers may bring, in multiples of what is missed.
    package var layerBudget = 1.0
    /// Prefetches under way at once.
    package var operations = 64
    /// Bytes under way at once, while nobody waits for the device.
    package var bytesInFlight = 4 << 20
    /// Seconds of the device's time that may be under way at once.
    package var longestQueue = 0.005
    /// The share of staging that unused blocks brought early may hold: 1 / this.
    package var windowShare = 2
    /// The share of the read bandwidth that prefetching may take while somebody waits.
    package var demandShare = 0.25
    /// Bytes that may go at once on top of it.
    package var burstBytes = 256 << 10
    /// How long before it is needed a block is brought, or kept for that, as a share of the time
    /// that a block stays in staging; at most 1. With a quarter nothing is lost where the device is
    /// fast, and on a trace of agents with a small staging, whose queue was far longer than a stay,
    /// a third of what hints cost is gone (ARCHITECTURE.md, prefetching).
    package var horizonShare = 0.25
    /// How long a block that nobody has used stays protected after it was due, nanoseconds.
    package var patience: UInt64 = 30_000_000_000
    /// Bytes a second that the device is taken to give before anything was measured.
    package var assumedBandwidth: Double = 1e9

    package init() {}
}
