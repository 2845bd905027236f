// OpenStore: one store behind its handle, with all that is closed with it. OpenNamespace: one
// namespace behind its handle.

import CHearth
import Hearth
import Synchronization

final class OpenStore: Sendable {
    let store: Store
    /// Lookups and reads of resident blocks on callers' threads.
    let session: Session
    let regions = RegionBook()
    let leases = LeaseTable()
    private let closing = Atomic<Bool>(false)
    private let children = Mutex(Children())

    private struct Children {
        var namespaces: Set<UInt64> = []
        var queues: [UInt64: Queue] = [:]
    }

    init(_ store: Store) {
        self.store = store
        session = store.session(capacity: 1)
    }

    var isClosing: Bool { closing.load(ordering: .acquiring) }

    static func find(_ handle: UInt64) throws(Failure) -> OpenStore {
        let found = try Registry.current.stores.find(handle)
        if found.isClosing { throw .closed }
        return found
    }

    func close(_ handle: UInt64) throws(Failure) {
        guard !closing.exchange(true, ordering: .acquiringAndReleasing) else { throw .closed }
        for queue in queues { queue.storeIsClosing() }
        leases.settle()
        store.closeAndWait()
        let registry = Registry.current
        let last = children.withLock { children in
            let last = children
            children = Children()
            return last
        }
        for (handle, queue) in last.queues {
            registry.queues.remove(handle)
            queue.storeIsClosed()
        }
        for namespace in last.namespaces { registry.namespaces.remove(namespace) }
        registry.stores.remove(handle)
    }

    // MARK: Children

    var queues: [Queue] { children.withLock { Array($0.queues.values) } }

    /// Makes a namespace's handle, unless the store has begun to close.
    func add(_ namespace: OpenNamespace) throws(Failure) -> UInt64 {
        let handle = try Registry.current.namespaces.add(namespace)
        children.withLock { _ = $0.namespaces.insert(handle) }
        if isClosing {
            remove(namespace: handle)
            throw .closed
        }
        return handle
    }

    func remove(namespace handle: UInt64) {
        Registry.current.namespaces.remove(handle)
        children.withLock { _ = $0.namespaces.remove(handle) }
    }

    func add(_ queue: Queue) throws(Failure) -> UInt64 {
        let handle = try Registry.current.queues.add(queue)
        children.withLock { $0.queues[handle] = queue }
        if isClosing {
            remove(queue: handle)
            throw .closed
        }
        return handle
    }

    @discardableResult
    func remove(queue handle: UInt64) -> Queue? {
        children.withLock { _ = $0.queues.removeValue(forKey: handle) }
        return Registry.current.queues.remove(handle)
    }
}

final class OpenNamespace: Sendable {
    let store: OpenStore
    let space: Namespace

    init(_ store: OpenStore, _ space: Namespace) {
        self.store = store
        self.space = space
    }

    static func find(_ handle: UInt64) throws(Failure) -> OpenNamespace {
        let found = try Registry.current.namespaces.find(handle)
        if found.store.isClosing { throw .closed }
        return found
    }
}
