// Store: the public face of one open store. Calls are batches; each batch is one continuation. What
// is in memory (contains, longest prefix, resident blocks) is answered on the caller's thread;
// everything else is handed to the store's own thread.

import BlockIO
import LogStore
import Staging
import Synchronization

/// An open store. Open it once per process and directory; use it from any number of tasks.
public final class Store: Sendable {
    let shared: SharedStore
    /// The configuration it runs with, every default filled in.
    public let configuration: Configuration

    package var engine: Engine { shared.engine }

    /// The low-level way in and out, for at most so many operations under way.
    package func session(capacity: Int) -> Session {
        Session(engine: engine, shared: shared, capacity: capacity)
    }

    /// What the offsets of leased pieces count from; nil without staging.
    package var leaseBase: UnsafeRawPointer? { shared.residents?.arenaBase }

    init(_ opened: OpenedEngine) {
        shared = opened.shared
        configuration = opened.configuration
    }

    deinit {
        // Not closed by hand: the owner thread flushes and closes in the background.
        _ = shared.engine.perform { $0.beginClose {} }
    }

    // MARK: Open and close

    /// Opens the store, or creates it where the directories are empty. Returns when it serves;
    /// its index may still be being rebuilt: see `waitUntilRecovered`.
    public static func open(_ configuration: Configuration) async throws(HearthError) -> Store {
        let valid = try configuration.validated()
        let result = await withUnsafeContinuation {
            (continuation: UnsafeContinuation<Result<OpenedEngine, HearthError>, Never>) in
            OwnerThread.start(valid) { continuation.resume(returning: $0) }
        }
        return Store(try result.get())
    }

    /// Returns when the index is complete: until then a miss may be of a block that is there.
    public func waitUntilRecovered() async throws(HearthError) {
        let recovered: Bool? = await engine.ask { owner, reply in owner.waitForRecovery(reply) }
        if recovered != true { throw .closed("waitUntilRecovered") }
    }

    /// Refuses new operations, lets those under way end, flushes, writes a checkpoint, and closes
    /// files and locks. Leases stay valid; end them all the same. Closing twice is harmless.
    public func close() async {
        let _: Bool? = await engine.ask { owner, reply in owner.beginClose { reply(true) } }
    }

    // MARK: Namespaces

    /// Opens the namespace with these fields, making it if there is none.
    public func namespace(
        _ description: NamespaceDescription
    ) async throws(HearthError) -> Namespace {
        try opened(await control(Self.opening(description)), description)
    }

    /// Removes every block of the namespace, durably: none comes back, whatever happens.
    public func purge(_ namespace: Namespace) async throws(HearthError) {
        namespace.purged.flag.store(true, ordering: .releasing)
        try Self.check(await control(Self.purging(namespace)), .purge)
    }

    // MARK: Durability

    /// Makes everything put so far durable; with `through`, at least what has versions up to it.
    ///
    /// A put answered as `written` may be lost when a later flush fails, whoever that was for. It
    /// is told here: a flush through its version fails from then on, and a flush of everything
    /// fails once. Replace the block to have it durable. Versions that were handed out later are
    /// not concerned, so name the version of your last put to hear of yours.
    public func flush(through version: UInt64 = .max) async throws(HearthError) {
        try Self.check(await control(Self.flushing(through: version)), .flush)
    }

    /// Every put acknowledged with a version up to this one is durable, but for those that a failed
    /// flush may have lost, of which ``flush(through:)`` tells; 0 when closed.
    public var durableVersion: UInt64 {
        get async {
            let version: UInt64? = await engine.ask { owner, reply in
                reply(owner.lifecycle.phase == .closed ? 0 : owner.store.durableVersion)
            }
            return version ?? 0
        }
    }

    /// Writes a checkpoint now, so that the next open is short.
    public func checkpoint() async throws(HearthError) {
        try Self.check(await control(Self.checkpointing), .checkpoint)
    }

    // MARK: Events

    /// What happens in the store from now on; ends when the store closes. Keeps the latest 256.
    public func events() -> AsyncStream<Event> {
        let (stream, continuation) = AsyncStream.makeStream(
            of: Event.self, bufferingPolicy: .bufferingNewest(256))
        let taken = engine.perform { owner in
            guard owner.lifecycle.phase == .open else { return continuation.finish() }
            owner.eventSinks.append(
                EventSink(take: { continuation.yield($0) }, end: { continuation.finish() }))
        }
        if !taken { continuation.finish() }
        return stream
    }

    /// Calls back on the store's own thread for what happens from now on; must return at once.
    public func onEvent(_ callback: @escaping @Sendable (Event) -> Void) {
        _ = engine.perform { $0.eventSinks.append(EventSink(take: callback, end: {})) }
    }

    // MARK: Regions

    /// Registers host memory for I/O. It stays mapped until `unregister` has returned.
    public func register(
        _ memory: UnsafeMutableRawBufferPointer
    ) async throws(HearthError) -> MemoryRegion {
        let address = UInt(bitPattern: memory.baseAddress)
        return try await add(
            address: address, length: UInt64(memory.count), kind: .host, descriptor: -1, copy: nil)
    }

    /// Registers host memory that is shared through a descriptor, mapped here at `memory`.
    public func register(
        shared descriptor: Int32, _ memory: UnsafeMutableRawBufferPointer
    ) async throws(HearthError) -> MemoryRegion {
        let address = UInt(bitPattern: memory.baseAddress)
        return try await add(
            address: address, length: UInt64(memory.count), kind: .shared, descriptor: descriptor,
            copy: nil)
    }

    /// Copies between device memory and host memory. Returns 0 or an errno; called on the store's
    /// own thread.
    public typealias DeviceCopyFunction =
        @convention(c) @Sendable (
            _ context: UInt, _ deviceOffset: UInt64, _ host: UnsafeMutableRawPointer, _ length: Int
        ) -> Int32

    /// Registers device memory, which only these functions touch.
    public func register(
        deviceBytes length: UInt64, context: UInt, toDevice: @escaping DeviceCopyFunction,
        fromDevice: @escaping DeviceCopyFunction
    ) async throws(HearthError) -> MemoryRegion {
        try await add(
            address: 0, length: length, kind: .device, descriptor: -1,
            copy: DeviceCopy(context: context, toDevice: toDevice, fromDevice: fromDevice))
    }

    /// Forgets a region. No operation may be using it.
    public func unregister(_ region: MemoryRegion) async {
        let _: Bool? = await engine.ask { owner, reply in
            owner.remove(region)
            reply(true)
        }
    }

    private func add(
        address: UInt, length: UInt64, kind: RegionKind, descriptor: Int32, copy: DeviceCopy?
    ) async throws(HearthError) -> MemoryRegion {
        let region = try Self.region(address, length, kind, descriptor, copy)
        return try Self.added(
            await engine.ask { owner, reply in reply(owner.add(region)) }, region)
    }
}

/// Where events go.
struct EventSink {
    var take: @Sendable (Event) -> Void
    var end: @Sendable () -> Void

    init(take: @escaping @Sendable (Event) -> Void, end: @escaping @Sendable () -> Void) {
        self.take = take
        self.end = end
    }
}
