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
    package func session(capacity: Int, handler: Session.Handler? = nil) -> Session {
        Session(engine: engine, shared: shared, capacity: capacity, handler: handler)
    }

    /// What the offsets of leased pieces count from; nil without staging.
    package var leaseBase: UnsafeRawPointer? { shared.residents?.arenaBase }

    private init(_ opened: OpenedEngine) {
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
        let fields = description.fields
        let made: (Outcome, UInt64)? = await control { owner, token in
            owner.store.openNamespace(
                token: token, fields: fields, aligned: description.layout == .aligned,
                timeToLive: description.timeToLiveSeconds, capBytes: description.capBytes)
        } then: { owner, outcome in
            guard outcome.status == .done else { return (outcome, 0) }
            let slot = UInt16(truncatingIfNeeded: outcome.version)
            return (outcome, owner.store.log.namespaces.instance(slot))
        }
        guard let (outcome, instance) = made else { throw .closed("namespace") }
        guard outcome.status == .done else {
            throw Self.error(
                "namespace", outcome,
                outcome.status == .conflict
                    ? "It was made with the other layout, which is fixed."
                    : outcome.status == .noSpace
                        ? "The store's namespaces are full: purge some."
                        : "Its fields are too long, or the manifest cannot be written.")
        }
        return Namespace(
            slot: UInt16(truncatingIfNeeded: outcome.version), instance: instance,
            layout: description.layout, purged: shared.purgedFlag(instance))
    }

    /// Removes every block of the namespace, durably: none comes back, whatever happens.
    public func purge(_ namespace: Namespace) async throws(HearthError) {
        namespace.purged.flag.store(true, ordering: .releasing)
        let ended: Outcome? = await control { owner, token in
            guard owner.store.log.namespaces.instance(namespace.slot) == namespace.instance else {
                return owner.controlled(Outcome(token: token, status: .done))
            }
            owner.store.purge(token: token, namespaceSlot: namespace.slot)
        } then: { _, outcome in
            outcome
        }
        guard let ended else { throw .closed("purge") }
        if ended.status != .done && ended.status != .notFound {
            throw Self.error("purge", ended, "The manifest could not be written; try again.")
        }
    }

    // MARK: Durability

    /// Makes everything put so far durable; with `through`, at least what has versions up to it.
    public func flush(through version: UInt64 = .max) async throws(HearthError) {
        let ended: Outcome? = await control { owner, token in
            owner.store.flush(token: token, through: version)
        } then: { _, outcome in
            outcome
        }
        guard let ended else { throw .closed("flush") }
        if ended.status != .done {
            throw Self.error(
                "flush", ended, "The device failed to flush; what was not acknowledged is lost.")
        }
    }

    /// Every put acknowledged with a version up to this one is durable; 0 when closed.
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
        let ended: Outcome? = await control { owner, token in
            owner.store.checkpoint(token: token)
        } then: { _, outcome in
            outcome
        }
        guard let ended else { throw .closed("checkpoint") }
        if ended.status != .done {
            throw Self.error("checkpoint", ended, "No device takes it; see the statistics.")
        }
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
            if owner.lifecycle.phase == .open, owner.driver.regions[region.id] != nil {
                owner.driver.unregister(region.id)
                owner.driver.regions.remove(region.id)
            }
            reply(true)
        }
    }

    private func add(
        address: UInt, length: UInt64, kind: RegionKind, descriptor: Int32, copy: DeviceCopy?
    ) async throws(HearthError) -> MemoryRegion {
        if length == 0 || kind != .device && address == 0 {
            throw HearthError(
                .configuration, operation: "register", subject: "the region",
                advice: "It has no bytes: give memory that is mapped.")
        }
        let added: RegionID?? = await engine.ask { owner, reply in
            guard owner.lifecycle.phase == .open else { return reply(nil) }
            let region = Region(
                kind: kind, base: UnsafeMutableRawPointer(bitPattern: address), length: length,
                descriptor: descriptor, copy: copy)
            let id = owner.driver.regions.add(region)
            if let id { owner.driver.register(id) }
            reply(id)
        }
        guard let added else { throw .closed("register") }
        guard let id = added else {
            throw HearthError(
                .resource, operation: "register", subject: "the region",
                advice: "The table is full, or the store is closing: unregister others first.")
        }
        return MemoryRegion(number: Int(id.raw), length: length, address: address)
    }

    // MARK: Control calls

    /// Starts a control call on the owner thread, and turns its outcome into an answer there.
    func control<Answer: Sendable>(
        _ start: @escaping @Sendable (Owner, UInt64) -> Void,
        then finish: @escaping @Sendable (Owner, Outcome) -> Answer
    ) async -> Answer? {
        let answer: Answer?? = await engine.ask { owner, reply in
            guard owner.lifecycle.phase == .open else { return reply(nil) }
            let token = owner.control { [unowned owner] in reply(finish(owner, $0)) }
            start(owner, token)
        }
        return answer ?? nil
    }

    private static func error(
        _ operation: String, _ outcome: Outcome, _ advice: String
    ) -> HearthError {
        let kind: HearthError.Kind
        switch outcome.status {
        case .readOnly: kind = .permission
        case .noSpace: kind = .noSpace
        case .conflict, .invalid: kind = .configuration
        default: kind = .input
        }
        return HearthError(
            kind, operation: operation, subject: "the store", errno: outcome.errno, advice: advice)
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
