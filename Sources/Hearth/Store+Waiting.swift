// The store's calls for threads that are no Swift tasks: each waits on the calling thread, on a
// condition of its own, so that nothing depends on Swift's thread pool and a store works in any
// process. Under the C ABI. Never call these from a task: they block its thread.

import BlockIO
import Glibc
import LogStore
import Staging

/// One answer that another thread gives to a waiting one.
final class Reply<Answer: Sendable>: @unchecked Sendable {
    // Unchecked: `answer` and `isGiven` are only touched under the lock.
    private let lock: UnsafeMutablePointer<pthread_mutex_t>
    private let ready: UnsafeMutablePointer<pthread_cond_t>
    private var answer: Answer?
    private var isGiven = false

    init() {
        lock = .allocate(capacity: 1)
        ready = .allocate(capacity: 1)
        pthread_mutex_init(lock, nil)
        pthread_cond_init(ready, nil)
    }

    deinit {
        pthread_cond_destroy(ready)
        pthread_mutex_destroy(lock)
        ready.deallocate()
        lock.deallocate()
    }

    func give(_ value: Answer?) {
        pthread_mutex_lock(lock)
        answer = value
        isGiven = true
        pthread_cond_signal(ready)
        pthread_mutex_unlock(lock)
    }

    func wait() -> Answer? {
        pthread_mutex_lock(lock)
        while !isGiven { pthread_cond_wait(ready, lock) }
        let value = answer
        pthread_mutex_unlock(lock)
        return value
    }
}

extension Engine {
    /// Asks the owner something and waits for the answer. Nil: closed.
    func askAndWait<Answer: Sendable>(
        _ body: @escaping @Sendable (Owner, @escaping @Sendable (Answer) -> Void) -> Void
    ) -> Answer? {
        let reply = Reply<Answer>()
        guard perform({ owner in body(owner) { reply.give($0) } }) else { return nil }
        return reply.wait()
    }
}

extension Store {
    /// `open`, waiting on this thread.
    package static func openAndWait(
        _ configuration: Configuration
    ) throws(HearthError) -> Store {
        let valid = try configuration.validated()
        let reply = Reply<Result<OpenedEngine, HearthError>>()
        OwnerThread.start(valid) { reply.give($0) }
        guard let result = reply.wait() else { throw .closed("open") }
        return Store(try result.get())
    }

    /// Runs a control call. Nil: the store is closed or closing.
    private func controlAndWait<Answer: Sendable>(_ control: Control<Answer>) -> Answer? {
        let reply = Reply<Answer>()
        guard engine.begin(control, { reply.give($0) }) else { return nil }
        return reply.wait()
    }

    package func closeAndWait() {
        let _: Bool? = engine.askAndWait { owner, reply in owner.beginClose { reply(true) } }
    }

    package func waitUntilRecoveredAndWait() throws(HearthError) {
        let recovered: Bool? = engine.askAndWait { owner, reply in owner.waitForRecovery(reply) }
        if recovered != true { throw .closed("waitUntilRecovered") }
    }

    package func namespaceAndWait(
        _ description: NamespaceDescription
    ) throws(HearthError) -> Namespace {
        try opened(controlAndWait(Self.opening(description)), description)
    }

    package func purgeAndWait(_ namespace: Namespace) throws(HearthError) {
        namespace.purged.flag.store(true, ordering: .releasing)
        try Self.check(controlAndWait(Self.purging(namespace)), .purge)
    }

    package func flushAndWait(through version: UInt64) throws(HearthError) {
        try Self.check(controlAndWait(Self.flushing(through: version)), .flush)
    }

    package func checkpointAndWait() throws(HearthError) {
        try Self.check(controlAndWait(Self.checkpointing), .checkpoint)
    }

    /// Blocks of the namespace from `place` on, as many as there is room for; what comes back has
    /// its place moved on.
    package func listAndWait(
        _ namespace: Namespace, from place: ListPlace, room: Int, keyRoom: Int
    ) throws(HearthError) -> BlockList {
        let list = BlockList(
            namespaceSlot: namespace.slot, instance: namespace.instance, from: place, room: room,
            keyRoom: keyRoom)
        guard controlAndWait(Self.listing(list)) == true else { throw .closed("list") }
        return list
    }

    package func durableVersionAndWait() throws(HearthError) -> UInt64 {
        let version: UInt64?? = engine.askAndWait { owner, reply in
            reply(owner.lifecycle.phase == .closed ? nil : owner.store.durableVersion)
        }
        guard let version, let version else { throw .closed("durableVersion") }
        return version
    }

    package func statisticsAndWait() throws(HearthError) -> Statistics {
        let made: Statistics?? = engine.askAndWait(shared.collecting)
        guard let made, let made else { throw .closed("statistics") }
        return shared.completed(made)
    }

    /// Registers host memory, `descriptor` -1 or what it is a mapping of.
    package func registerAndWait(
        _ memory: UnsafeMutableRawBufferPointer, descriptor: Int32
    ) throws(HearthError) -> MemoryRegion {
        try addAndWait(
            Self.region(
                UInt(bitPattern: memory.baseAddress), UInt64(memory.count),
                descriptor < 0 ? .host : .shared, max(descriptor, -1), nil))
    }

    /// Registers device memory, which only these functions touch.
    package func registerDeviceAndWait(
        bytes length: UInt64, context: UInt, toDevice: @escaping DeviceCopyFunction,
        fromDevice: @escaping DeviceCopyFunction
    ) throws(HearthError) -> MemoryRegion {
        try addAndWait(
            Self.region(
                0, length, .device, -1,
                DeviceCopy(context: context, toDevice: toDevice, fromDevice: fromDevice)))
    }

    private func addAndWait(_ region: Region) throws(HearthError) -> MemoryRegion {
        try Self.added(
            engine.askAndWait { owner, reply in reply(owner.add(region)) }, region)
    }

    package func unregisterAndWait(_ region: MemoryRegion) {
        let _: Bool? = engine.askAndWait { owner, reply in
            owner.remove(region)
            reply(true)
        }
    }
}
