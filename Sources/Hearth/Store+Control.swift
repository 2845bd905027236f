// The store's control calls as values: what the owner thread starts, what it makes of the outcome,
// and what the caller is told. The async API and the calls that wait on their own thread are both
// made of them.

import BlockIO
import LogStore
import Staging

/// One control call: both closures run on the owner thread.
struct Control<Answer: Sendable>: Sendable {
    var start: @Sendable (Owner, UInt64) -> Void
    var finish: @Sendable (Owner, Outcome) -> Answer
}

/// The control calls whose only answer is whether they went well.
enum PlainControl: String {
    case purge, flush, checkpoint

    /// What to do when it did not.
    var advice: String {
        switch self {
        case .purge: "The manifest could not be written; try again."
        case .flush: "The device failed to flush; what was not acknowledged is lost."
        case .checkpoint: "No device takes it; see the statistics."
        }
    }
}

extension Engine {
    /// Starts a control call; `reply` is called once, with nil when the store is closing. False:
    /// it is closed, and `reply` is not called.
    func begin<Answer: Sendable>(
        _ control: Control<Answer>, _ reply: @escaping @Sendable (Answer?) -> Void
    ) -> Bool {
        perform { owner in
            guard owner.lifecycle.phase == .open else { return reply(nil) }
            let token = owner.control { [unowned owner] in reply(control.finish(owner, $0)) }
            control.start(owner, token)
        }
    }
}

extension Store {
    /// Runs a control call. Nil: the store is closed or closing.
    func control<Answer: Sendable>(_ control: Control<Answer>) async -> Answer? {
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Answer?, Never>) in
            if !engine.begin(control, { continuation.resume(returning: $0) }) {
                continuation.resume(returning: nil)
            }
        }
    }

    // MARK: The calls

    static func opening(_ description: NamespaceDescription) -> Control<(Outcome, UInt64)> {
        let fields = description.fields
        return Control { owner, token in
            owner.store.openNamespace(
                token: token, fields: fields, aligned: description.layout == .aligned,
                timeToLive: description.timeToLiveSeconds, capBytes: description.capBytes)
        } finish: { owner, outcome in
            guard outcome.status == .done else { return (outcome, 0) }
            let slot = UInt16(truncatingIfNeeded: outcome.version)
            return (outcome, owner.store.log.namespaces.instance(slot))
        }
    }

    func opened(
        _ made: (Outcome, UInt64)?, _ description: NamespaceDescription
    ) throws(HearthError) -> Namespace {
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

    static func purging(_ namespace: Namespace) -> Control<Outcome> {
        Control { owner, token in
            guard owner.store.log.namespaces.instance(namespace.slot) == namespace.instance else {
                return owner.controlled(Outcome(token: token, status: .done))
            }
            owner.store.purge(token: token, namespaceSlot: namespace.slot)
        } finish: { _, outcome in
            var ended = outcome
            if ended.status == .notFound { ended.status = .done }
            return ended
        }
    }

    static func flushing(through version: UInt64) -> Control<Outcome> {
        Control { owner, token in
            owner.store.flush(token: token, through: version)
        } finish: { _, outcome in
            outcome
        }
    }

    static var checkpointing: Control<Outcome> {
        Control { owner, token in
            owner.store.checkpoint(token: token)
        } finish: { _, outcome in
            outcome
        }
    }

    static func listing(_ list: BlockList) -> Control<Bool> {
        Control { owner, token in
            owner.store.list(token: token, list)
        } finish: { _, _ in
            true
        }
    }

    static func check(_ ended: Outcome?, _ call: PlainControl) throws(HearthError) {
        guard let ended else { throw .closed(call.rawValue) }
        if ended.status != .done { throw error(call.rawValue, ended, call.advice) }
    }

    static func error(
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

    // MARK: Regions

    static func region(
        _ address: UInt, _ length: UInt64, _ kind: RegionKind, _ descriptor: Int32,
        _ copy: DeviceCopy?
    ) throws(HearthError) -> Region {
        if length == 0 || kind != .device && address == 0 {
            throw HearthError(
                .configuration, operation: "register", subject: "the region",
                advice: "It has no bytes: give memory that is mapped.")
        }
        return Region(
            kind: kind, base: UnsafeMutableRawPointer(bitPattern: address), length: length,
            descriptor: descriptor, copy: copy)
    }

    static func added(
        _ answer: RegionID??, _ region: Region
    ) throws(HearthError) -> MemoryRegion {
        guard let answer else { throw .closed("register") }
        guard let id = answer else {
            throw HearthError(
                .resource, operation: "register", subject: "the region",
                advice: "The table is full, or the store is closing: unregister others first.")
        }
        return MemoryRegion(
            number: Int(id.raw), length: region.length, address: UInt(bitPattern: region.base))
    }
}

extension Owner {
    /// Adds a region and registers it with the driver; nil when the table is full or the store is
    /// closing.
    func add(_ region: Region) -> RegionID? {
        guard lifecycle.phase == .open else { return nil }
        let id = driver.regions.add(region)
        if let id { driver.register(id) }
        return id
    }

    func remove(_ region: MemoryRegion) {
        guard lifecycle.phase == .open, driver.regions[region.id] != nil else { return }
        driver.unregister(region.id)
        driver.regions.remove(region.id)
    }
}
