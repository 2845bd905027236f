// PredictorKind: who asked for a block before it was needed. Statistics are kept for each apart.

package enum PredictorKind: UInt8, CaseIterable, Sendable {
    /// A chain that the engine hinted.
    case chain
    /// The block that followed this one the last time.
    case successor
    /// The pages of the layer before.
    case layer
    /// Pages that the engine hinted.
    case pages
    /// A session that is expected back.
    case session
}
