// TieredStore: the staged store with those above it that decide who stays and who comes early: the
// one value that an owner thread, or a simulation, pumps. Owner thread only; nothing happens but
// inside a call, and clock, randomness and I/O come from outside, as in all the core.

import BlockIO
import LogStore
import Staging

package final class TieredStore {
    package let staged: StagedStore

    package static func open(
        _ configuration: StagedConfiguration, driver: any BlockDriver, clock: any Clock
    ) throws(StoreError) -> TieredStore {
        TieredStore(staged: try StagedStore.open(configuration, driver: driver, clock: clock))
    }

    private init(staged: StagedStore) { self.staged = staged }

    /// Does what there is to do; whether anything moved.
    @discardableResult
    package func pump() -> Bool { staged.pump() }

    /// When the owner has to be awake next, monotonic nanoseconds.
    package var nextDeadline: UInt64 { staged.nextDeadline }
}
