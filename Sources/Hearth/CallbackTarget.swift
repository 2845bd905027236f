// CallbackTarget: a completion target for layers outside this module: answers go to one closure as
// they come, and another is called once a turn after them. Both run on the store's own thread and
// must not wait.

import Staging

package final class CallbackTarget: CompletionTarget, @unchecked Sendable {
    // Unchecked: all members are constants; the closures run on the owner thread only.
    private let engine: Engine
    private let take: @Sendable (StoreCompletion) -> Void
    private let taken: @Sendable () -> Void

    package init(
        _ store: Store, take: @escaping @Sendable (StoreCompletion) -> Void,
        taken: @escaping @Sendable () -> Void
    ) {
        engine = store.engine
        self.take = take
        self.taken = taken
    }

    /// Pushes operations, all of one namespace instance. Each holds this target until its last
    /// completion; what they point to stays as it is until then. False: the store is closed, and
    /// nothing was taken.
    package func submit(
        _ operations: UnsafeBufferPointer<StoreOperation>, instance: UInt64
    ) -> Bool {
        engine.submit(operations, to: self, retainEach: true, instance: instance)
    }

    /// Asks for operations to be given up. The ranges of tokens are asked for on the owner thread,
    /// when everything that was submitted before has been taken; their completions still come.
    package func cancel(_ ranges: @escaping @Sendable () -> [ClosedRange<UInt64>]) {
        let identity = ObjectIdentifier(self)
        _ = engine.perform { [self] owner in
            for range in ranges() { owner.cancel(identity, range) }
            withExtendedLifetime(self) {}
        }
    }

    override func complete(_ completion: StoreCompletion) { take(completion) }

    override func publish() -> Bool {
        taken()
        return false
    }
}
