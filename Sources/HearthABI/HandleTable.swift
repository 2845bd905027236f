// HandleTable: handles are numbers, and each is looked up: kind, the process's fork count when it
// was made, the slot's generation and the slot. A number that was never given, was closed or is of
// another kind finds nothing. Slots are used again with a higher generation until that runs out;
// then they are left, so that an old handle never comes to mean something new.

import CHearth
import CPlatform
import Synchronization

enum HandleKind: UInt8 {
    case store = 0xA1
    case namespace = 0xA2
    case queue = 0xA3

    var name: String {
        switch self {
        case .store: "store"
        case .namespace: "namespace"
        case .queue: "queue"
        }
    }
}

/// The parts of a handle's 64 bits: kind 8, forks 8, generation 24, slot 24.
struct HandleParts {
    static let generationLimit: UInt32 = 1 << 24
    static let slotLimit = 1 << 24

    var kind: UInt8
    var epoch: UInt8
    var generation: UInt32
    var slot: Int

    init(kind: HandleKind, epoch: UInt8, generation: UInt32, slot: Int) {
        self.kind = kind.rawValue
        self.epoch = epoch
        self.generation = generation
        self.slot = slot
    }

    init(_ handle: UInt64) {
        kind = UInt8(truncatingIfNeeded: handle >> 56)
        epoch = UInt8(truncatingIfNeeded: handle >> 48)
        generation = UInt32(truncatingIfNeeded: handle >> 24) & (Self.generationLimit - 1)
        slot = Int(handle & UInt64(Self.slotLimit - 1))
    }

    var handle: UInt64 {
        UInt64(kind) << 56 | UInt64(epoch) << 48 | UInt64(generation) << 24 | UInt64(slot)
    }
}

final class HandleTable<Object: AnyObject & Sendable>: Sendable {
    private struct Entry {
        var generation: UInt32 = 1
        var object: Object?
    }

    private struct Table {
        var entries: [Entry] = []
        var free: [Int] = []
    }

    private let kind: HandleKind
    private let epoch: UInt8
    private let table = Mutex(Table())

    init(_ kind: HandleKind, epoch: UInt8) {
        self.kind = kind
        self.epoch = epoch
    }

    func add(_ object: Object) throws(Failure) -> UInt64 {
        let place: (slot: Int, generation: UInt32)? = table.withLock { table in
            if let slot = table.free.popLast() {
                table.entries[slot].object = object
                return (slot, table.entries[slot].generation)
            }
            guard table.entries.count < HandleParts.slotLimit else { return nil }
            table.entries.append(Entry(generation: 1, object: object))
            return (table.entries.count - 1, 1)
        }
        guard let place else {
            throw Failure(HEARTH_E_RESOURCE, "All \(kind.name) handles are used up: close some.")
        }
        return HandleParts(
            kind: kind, epoch: epoch, generation: place.generation, slot: place.slot
        ).handle
    }

    func find(_ handle: UInt64) throws(Failure) -> Object {
        let parts = HandleParts(handle)
        guard parts.kind == kind.rawValue, parts.epoch == epoch else { throw refusal(parts) }
        let found = table.withLock { table in
            parts.slot < table.entries.count
                && table.entries[parts.slot].generation == parts.generation
                ? table.entries[parts.slot].object : nil
        }
        guard let found else { throw refusal(parts) }
        return found
    }

    /// Takes the handle back; nil when another call did so first.
    @discardableResult
    func remove(_ handle: UInt64) -> Object? {
        let parts = HandleParts(handle)
        guard parts.kind == kind.rawValue, parts.epoch == epoch else { return nil }
        return table.withLock { table in
            guard parts.slot < table.entries.count,
                table.entries[parts.slot].generation == parts.generation,
                let object = table.entries[parts.slot].object
            else { return nil }
            table.entries[parts.slot].object = nil
            table.entries[parts.slot].generation += 1
            if table.entries[parts.slot].generation < HandleParts.generationLimit {
                table.free.append(parts.slot)
            }
            return object
        }
    }

    private func refusal(_ parts: HandleParts) -> Failure {
        if parts.kind == kind.rawValue, parts.epoch < epoch {
            return Failure(
                HEARTH_E_FORKED,
                "The \(kind.name) was opened before this process was forked, and does not live on "
                    + "in it: open the store in the process that uses it.")
        }
        let other = HandleKind(rawValue: parts.kind)
        if parts.handle == 0 {
            return Failure(HEARTH_E_HANDLE, "0 is not a \(kind.name) handle: was it opened?")
        }
        if let other, other != kind {
            return Failure(
                HEARTH_E_HANDLE, "This is the handle of a \(other.name), not of a \(kind.name).")
        }
        return Failure(
            HEARTH_E_HANDLE,
            "There is no such \(kind.name): it was closed (its store was, perhaps) or never "
                + "opened.")
    }
}

/// All handles of this process. A fork's child begins with none: its parent's tables, whose locks
/// may have been held in the moment of the fork, are not touched again.
final class Registry: Sendable {
    let epoch: UInt32
    let stores: HandleTable<OpenStore>
    let namespaces: HandleTable<OpenNamespace>
    let queues: HandleTable<Queue>

    private init(epoch: UInt32) {
        self.epoch = epoch
        let short = UInt8(truncatingIfNeeded: epoch)
        stores = HandleTable(.store, epoch: short)
        namespaces = HandleTable(.namespace, epoch: short)
        queues = HandleTable(.queue, epoch: short)
    }

    /// The address of the latest one, which is never freed.
    private static let latest = Atomic<UInt>(0)

    static var current: Registry {
        let epoch = hearth_fork_epoch()
        var seen = latest.load(ordering: .acquiring)
        while true {
            if let registry = at(seen), registry.epoch == epoch { return registry }
            let made = Unmanaged.passRetained(Registry(epoch: epoch))
            let (exchanged, original) = latest.compareExchange(
                expected: seen, desired: UInt(bitPattern: made.toOpaque()),
                ordering: .acquiringAndReleasing)
            if exchanged { return made.takeUnretainedValue() }
            made.release()
            seen = original
        }
    }

    private static func at(_ address: UInt) -> Registry? {
        UnsafeRawPointer(bitPattern: address).map {
            Unmanaged<Registry>.fromOpaque($0).takeUnretainedValue()
        }
    }
}
