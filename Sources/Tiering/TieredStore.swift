// TieredStore: the staged store with those above it that decide who stays and who comes early: the
// one value that an owner thread, or a simulation, pumps. Owner thread only; nothing happens but
// inside a call, and clock, randomness and I/O come from outside, as in all the core.

import BlockIO
import Heat
import LogStore
import Prefetch
import Staging

package struct TieredConfiguration: Sendable {
    package var staged: StagedConfiguration
    package var prefetch = PrefetchConfiguration()
    /// Who leaves staging first.
    package var replacement = ReplacementKind.adaptive

    package init(_ staged: StagedConfiguration) { self.staged = staged }
}

package final class TieredStore {
    package let staged: StagedStore
    /// Nil where there is no staging, or nothing is to be predicted.
    package let prefetcher: Prefetcher?
    package let configuration: TieredConfiguration

    package static func open(
        _ configuration: TieredConfiguration, driver: any BlockDriver, clock: any Clock
    ) throws(StoreError) -> TieredStore {
        TieredStore(
            staged: try StagedStore.open(
                configuration.staged, driver: driver, clock: clock,
                policy: configuration.replacement.makePolicy()),
            configuration)
    }

    private init(staged: StagedStore, _ configuration: TieredConfiguration) {
        self.staged = staged
        self.configuration = configuration
        prefetcher = Prefetcher(staged, configuration.prefetch)
        staged.observer = self
    }

    deinit { staged.observer = nil }

    // MARK: The pump

    /// Does what there is to do; whether anything moved.
    @discardableResult
    package func pump() -> Bool {
        let begun = prefetcher?.advance() ?? false
        return staged.pump() || begun
    }

    /// When the owner has to be awake next, monotonic nanoseconds.
    package var nextDeadline: UInt64 {
        min(staged.nextDeadline, prefetcher?.nextWake ?? .max)
    }

    /// Whether nothing is under way; blocks that wait to be brought early do not count.
    package var isIdle: Bool { staged.isIdle }

    package var isRecovered: Bool { staged.isRecovered }

    /// Receives the answers; not owned.
    package var sink: (any StoreSink)? {
        get { staged.sink }
        set { staged.sink = newValue }
    }

    // MARK: Operations

    /// Takes an operation and its key's fingerprint. False: no room now; try again after `pump`.
    package func submit(_ operation: StoreOperation, _ fingerprint: Fingerprint) -> Bool {
        staged.submit(operation, fingerprint)
    }

    package func submit(_ operation: StoreOperation) -> Bool {
        submit(operation, staged.fingerprint(operation))
    }

    package func endLease(_ lease: Int32) { staged.endLease(lease) }

    package func cancel(token: UInt64) { staged.cancel(token: token) }

    // MARK: Hints

    /// Takes a hint with its keys, whose memory is good during the call only. Never fails, never
    /// waits; what it cannot use it counts.
    package func hint(_ hint: Hint, keys: UnsafeBufferPointer<UnsafeRawBufferPointer>) {
        switch hint.kind {
        case .touched:
            guard staged.log.namespaces.isLive(hint.namespaceSlot) else { return }
            // The tail first, so that the head ends the most recent.
            for key in keys.reversed() { touch(key, hint) }
        default: prefetcher?.hint(hint, keys: keys)
        }
    }

    /// The key was used elsewhere, or some of its shards were.
    private func touch(_ key: UnsafeRawBufferPointer, _ hint: Hint) {
        let fingerprint = staged.log.fingerprint(hint.namespaceSlot, key)
        guard hint.shardCount > 0 else { return staged.touch(fingerprint) }
        staged.touch(fingerprint.part(Int(hint.firstShard), Int(hint.shardCount)))
        var access = Access(kind: .touch, fingerprint: fingerprint)
        access.namespaceSlot = hint.namespaceSlot
        access.key = key
        access.firstShard = hint.firstShard
        access.shardCount = hint.shardCount
        prefetcher?.picked(access)
    }

    /// Bytes of the tables beside the staged store's own.
    package var memoryBytes: Int {
        guard prefetcher != nil, let arena = staged.arena else { return 0 }
        return Prefetcher.memoryBytes(
            configuration.prefetch, residents: arena.residentCapacity)
    }

    /// What was predicted, and what came of it.
    package var prefetchStatistics: PrefetchStatistics {
        prefetcher?.statistics ?? PrefetchStatistics()
    }

    // MARK: The end

    /// Refuses new writes, and brings nothing early, from now on.
    package func beginClose() {
        prefetcher?.stop()
        staged.beginClose()
    }

    package func shutdown() {
        staged.observer = nil
        staged.shutdown()
    }
}

extension TieredStore: AccessObserver {
    package func accessed(_ access: Access) { prefetcher?.accessed(access) }

    package func deviceReadEnded(_ fingerprint: Fingerprint, bytes: UInt32, isHit: Bool) {
        prefetcher?.deviceReadEnded(fingerprint, bytes: bytes, isHit: isHit)
    }

    package func putEnded(_ fingerprint: Fingerprint) { prefetcher?.putEnded(fingerprint) }

    package func prefetchEnded(
        _ token: UInt64, _ status: Status, resident: Int32, bytes: UInt32
    ) {
        prefetcher?.prefetchEnded(token, status, resident: resident, bytes: bytes)
    }

    package func residentLeft(
        _ resident: Int32, _ key: StagingKey, _ departure: ResidentDeparture
    ) {
        prefetcher?.residentLeft(resident, key, departure)
    }
}
