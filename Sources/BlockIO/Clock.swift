// Clock: the only source of time in the core. Monotonic time orders and delays; wall seconds are
// only for expiry. The simulated disk has a virtual one, so that a seed replays a run.

package protocol Clock: AnyObject {
    /// Nanoseconds from an arbitrary start, never going back. Any thread.
    var monotonic: UInt64 { get }
    /// Unix seconds.
    var wallSeconds: UInt32 { get }
}
