// SessionTable: the sessions that an engine has told of, and the keys of each one's chain. A
// bounded number of both: of sessions the one that was told of longest ago makes way, and so it
// does for keys. A session is found by its number and by its leaf, the last of its keys, so that
// reading it again tells that the session is back although nobody says so. Those to be looked at
// next are in a heap by time.
//
// Invariants: nothing is allocated after `init`; an event costs a constant number of steps, and
// one for each halving of the table where the heap is concerned; a node is free or in one
// session's list.

import LogStore
import Staging

/// One of a session's keys; longer ones are not kept.
struct SessionKey {
    static let longest = 32
    var key: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
    var length: UInt8 = 0
    var next: Int32 = -1
}

struct TrackedSession {
    var id: UInt64 = 0
    var leaf = Fingerprint(hi: 0, lo: 0)
    /// When it began to wait, 0 while it does not.
    var since: UInt64 = 0
    /// When it is expected by the engine, 0: not told.
    var due: UInt64 = 0
    /// Up to which age its waiting is in what was learnt.
    var learnt: UInt64 = 0
    var instanceLow: UInt32 = 0
    var turns: UInt32 = 0
    var keys: Int32 = 0
    var firstKey: Int32 = -1
    var lastKey: Int32 = -1
    /// The key that is to be brought next, -1 for none.
    var cursor: Int32 = -1
    /// The queue's request that stands for it, -1 for none.
    var request: Int32 = -1
    var idNext: Int32 = -1
    var leafNext: Int32 = -1
    var older: Int32 = -1
    var newer: Int32 = -1
    var namespaceSlot: UInt16 = 0
    var kind: UInt8 = 0
    var state = SessionState.open
    /// What was brought for it since it began to wait.
    var wasBrought = false
}

struct SessionTable {
    /// Keys kept of one session; the head of the chain.
    static let mostKeys = 2048

    let sessions: UnsafeMutablePointer<TrackedSession>
    let keys: UnsafeMutablePointer<SessionKey>
    let capacity: Int
    let keyCapacity: Int
    private(set) var count = 0
    private let idHash: UnsafeMutablePointer<Int32>
    private let leafHash: UnsafeMutablePointer<Int32>
    private let mask: Int
    /// By when they are to be looked at.
    private var looks: IndexHeap
    private var freeSession: Int32 = 0
    private var freeKey: Int32 = 0
    private(set) var oldest: Int32 = -1
    private var newest: Int32 = -1

    init(sessions capacity: Int, keys keyCapacity: Int) {
        self.capacity = max(1, capacity)
        self.keyCapacity = max(1, keyCapacity)
        sessions = .allocate(capacity: self.capacity)
        for index in 0..<self.capacity {
            (sessions + index).initialize(to: TrackedSession())
            sessions[index].idNext = index + 1 < self.capacity ? Int32(index + 1) : -1
        }
        keys = .allocate(capacity: self.keyCapacity)
        for index in 0..<self.keyCapacity {
            (keys + index).initialize(to: SessionKey())
            keys[index].next = index + 1 < self.keyCapacity ? Int32(index + 1) : -1
        }
        let size = Self.hashSize(self.capacity)
        mask = size - 1
        idHash = .allocate(capacity: size)
        idHash.initialize(repeating: -1, count: size)
        leafHash = .allocate(capacity: size)
        leafHash.initialize(repeating: -1, count: size)
        looks = IndexHeap(capacity: self.capacity)
    }

    func deallocate() {
        sessions.deallocate()
        keys.deallocate()
        idHash.deallocate()
        leafHash.deallocate()
        looks.deallocate()
    }

    private static func hashSize(_ capacity: Int) -> Int {
        var size = 16
        while size < 2 * capacity { size *= 2 }
        return size
    }

    static func memoryBytes(sessions: Int, keys: Int) -> Int {
        let capacity = max(1, sessions)
        return capacity * MemoryLayout<TrackedSession>.stride + 8 * hashSize(capacity)
            + IndexHeap.memoryBytes(capacity: capacity)
            + max(1, keys) * MemoryLayout<SessionKey>.stride
    }

    // MARK: Sessions

    private func bucket(_ id: UInt64) -> Int {
        Int(truncatingIfNeeded: (id &* 0x9E37_79B9_7F4A_7C15) >> 32) & mask
    }

    func find(_ id: UInt64) -> Int32 {
        var at = idHash[bucket(id)]
        while at >= 0, sessions[Int(at)].id != id { at = sessions[Int(at)].idNext }
        return at
    }

    /// A session of which this is the last key, -1 for none.
    @inline(__always)
    func find(leaf: Fingerprint) -> Int32 {
        var at = leafHash[Int(truncatingIfNeeded: leaf.lo) & mask]
        while at >= 0, sessions[Int(at)].leaf != leaf { at = sessions[Int(at)].leafNext }
        return at
    }

    /// Whether there is room for one more session.
    var hasRoom: Bool { freeSession >= 0 }

    /// Makes a session, for which there must be room, as the one told of last.
    mutating func insert(_ id: UInt64) -> Int32 {
        let index = freeSession
        freeSession = sessions[Int(index)].idNext
        let bucket = bucket(id)
        sessions[Int(index)] = TrackedSession(id: id, idNext: idHash[bucket])
        idHash[bucket] = index
        count += 1
        linkNewest(index)
        return index
    }

    mutating func remove(_ index: Int32) {
        dropKeys(index)
        unschedule(index)
        unlink(index)
        let bucket = bucket(sessions[Int(index)].id)
        if idHash[bucket] == index {
            idHash[bucket] = sessions[Int(index)].idNext
        } else {
            var at = idHash[bucket]
            while at >= 0, sessions[Int(at)].idNext != index { at = sessions[Int(at)].idNext }
            if at >= 0 { sessions[Int(at)].idNext = sessions[Int(index)].idNext }
        }
        sessions[Int(index)] = TrackedSession(idNext: freeSession)
        freeSession = index
        count -= 1
    }

    /// The session was told of just now.
    mutating func renew(_ index: Int32) {
        unlink(index)
        linkNewest(index)
    }

    private mutating func linkNewest(_ index: Int32) {
        sessions[Int(index)].older = newest
        sessions[Int(index)].newer = -1
        if newest >= 0 { sessions[Int(newest)].newer = index } else { oldest = index }
        newest = index
    }

    private mutating func unlink(_ index: Int32) {
        let (older, newer) = (sessions[Int(index)].older, sessions[Int(index)].newer)
        if older >= 0 { sessions[Int(older)].newer = newer } else { oldest = newer }
        if newer >= 0 { sessions[Int(newer)].older = older } else { newest = older }
    }

    // MARK: Keys

    var hasFreeKey: Bool { freeKey >= 0 }

    /// The key's bytes, good as long as the session keeps it.
    func key(_ node: Int32) -> UnsafeRawBufferPointer {
        let place = keys + Int(node)
        return UnsafeRawBufferPointer(
            start: UnsafeRawPointer(place) + (MemoryLayout<SessionKey>.offset(of: \.key) ?? 0),
            count: Int(place.pointee.length))
    }

    /// Puts a key behind the session's others. False: it is too long, or there is no room.
    mutating func append(_ key: UnsafeRawBufferPointer, to index: Int32) -> Bool {
        guard freeKey >= 0, key.count <= SessionKey.longest, key.count > 0,
            let source = key.baseAddress, Int(sessions[Int(index)].keys) < Self.mostKeys
        else { return false }
        let node = freeKey
        let place = keys + Int(node)
        freeKey = place.pointee.next
        place.pointee = SessionKey(length: UInt8(key.count))
        (UnsafeMutableRawPointer(place) + (MemoryLayout<SessionKey>.offset(of: \.key) ?? 0))
            .copyMemory(from: source, byteCount: key.count)
        let session = sessions + Int(index)
        if session.pointee.lastKey >= 0 {
            keys[Int(session.pointee.lastKey)].next = node
        } else {
            session.pointee.firstKey = node
        }
        session.pointee.lastKey = node
        session.pointee.keys += 1
        return true
    }

    mutating func dropKeys(_ index: Int32) {
        unlinkLeaf(index)
        let session = sessions + Int(index)
        guard session.pointee.lastKey >= 0 else { return }
        keys[Int(session.pointee.lastKey)].next = freeKey
        freeKey = session.pointee.firstKey
        session.pointee.firstKey = -1
        session.pointee.lastKey = -1
        session.pointee.cursor = -1
        session.pointee.keys = 0
    }

    mutating func setLeaf(_ leaf: Fingerprint, of index: Int32) {
        unlinkLeaf(index)
        let bucket = Int(truncatingIfNeeded: leaf.lo) & mask
        sessions[Int(index)].leaf = leaf
        sessions[Int(index)].leafNext = leafHash[bucket]
        leafHash[bucket] = index
    }

    private mutating func unlinkLeaf(_ index: Int32) {
        let leaf = sessions[Int(index)].leaf
        guard leaf != Fingerprint(hi: 0, lo: 0) else { return }
        let bucket = Int(truncatingIfNeeded: leaf.lo) & mask
        if leafHash[bucket] == index {
            leafHash[bucket] = sessions[Int(index)].leafNext
        } else {
            var at = leafHash[bucket]
            while at >= 0, sessions[Int(at)].leafNext != index { at = sessions[Int(at)].leafNext }
            if at >= 0 { sessions[Int(at)].leafNext = sessions[Int(index)].leafNext }
        }
        sessions[Int(index)].leaf = Fingerprint(hi: 0, lo: 0)
        sessions[Int(index)].leafNext = -1
    }

    // MARK: When to look

    /// The session to be looked at first, -1 for none.
    var first: Int32 { looks.first }

    var nextLook: UInt64 { looks.firstKey }

    mutating func schedule(_ index: Int32, at time: UInt64) { looks.set(index, key: time) }

    mutating func unschedule(_ index: Int32) { looks.remove(index) }
}
