// RecordAssembler: makes requests of what a recorder took. An engine tells a request's chain when
// it is queued, gets what is there of it, and puts the rest later; in a trace all that is one
// request, at the time of the first. A key that was told or got before and comes now for the first
// time in the next of these roles belongs to the same request; a put whose parent is the last block
// of a request goes on with it; everything else opens a new one.
//
// Requests are given out in the order of their beginnings, each once nothing has come to it for a
// while, or when too much waits.

/// A request as it is written.
struct RecordedRequest: Equatable, Sendable {
    /// Nanoseconds since the recorder began.
    var time: UInt64
    /// In the order in which sessions came; -1 where none was told.
    var session = -1
    var blocks: [UInt64] = []
    /// Keys that were hinted, got and put.
    var hinted = 0
    var got = 0
    var put = 0
    /// Of the largest value put, 0 where none was.
    var bytes: UInt32 = 0
    /// Nanoseconds from the hint until it is due, 0 where that was not told.
    var due: UInt64 = 0
    /// When something came to it last.
    var changed: UInt64 = 0
}

struct RecordAssembler {
    /// Requests, and their blocks, that wait at once.
    static let mostRequests = 4096
    static let mostBlocks = 1 << 17
    /// Sessions that have numbers.
    static let mostSessions = 1 << 16
    /// A bound of what all that takes: blocks in two places, one a dictionary.
    static let memoryBytes = mostBlocks * 64 + mostRequests * 128 + mostSessions * 32
    /// Nanoseconds after which nothing more is expected: prefill lies between get and put.
    static let patience: UInt64 = 30_000_000_000

    /// Beyond that a hint's due time is not believed.
    static let longestWait: UInt64 = 600_000_000_000

    private enum Role: UInt8 {
        case hinted
        case got
        case put
    }

    private struct Place {
        var request: Int
        var role: Role
    }

    private let begin: UInt64
    private var open: [RecordedRequest] = []
    /// The number of the first in `open`, counted since the beginning.
    private var first = 0
    private var blocks = 0
    /// By key, the newest request that has it.
    private var places: [UInt64: Place] = [:]
    private var sessions: [UInt64: Int] = [:]
    private var nextSession = 0
    /// The request of what came together with the key before.
    private var current = -1
    private var full: [RecordedRequest] = []

    init(begin: UInt64) { self.begin = begin }

    mutating func take(_ key: RecordedKey) {
        if key.isFirst { current = -1 }
        switch key.kind {
        case .chain: hint(key)
        case .get: get(key)
        case .put: put(key)
        }
        while open.count > Self.mostRequests || blocks > Self.mostBlocks {
            full.append(removeFirst())
        }
    }

    /// Requests that are over by then, in order.
    mutating func ended(by now: UInt64) -> [RecordedRequest] {
        var made = full
        full = []
        while let next = open.first, now >= next.changed &+ Self.patience {
            made.append(removeFirst())
        }
        return made
    }

    // MARK: Roles

    private mutating func hint(_ key: RecordedKey) {
        if current < first {
            begin(key)
            if key.due > key.time {
                let wait = min(key.due - key.time, Self.longestWait)
                open[current - first].due = wait
                open[current - first].changed = key.time + wait
            }
            if key.session != 0 { open[current - first].session = number(key.session) }
        }
        append(key, .hinted)
        open[current - first].hinted += 1
    }

    private mutating func get(_ key: RecordedKey) {
        if let place = place(key.id), place.role == .hinted {
            current = place.request
            places[key.id] = Place(request: current, role: .got)
        } else {
            if current < first { begin(key) }
            append(key, .got)
        }
        open[current - first].got += 1
        open[current - first].changed = key.time
    }

    private mutating func put(_ key: RecordedKey) {
        if let place = place(key.id), place.role != .put {
            current = place.request
            places[key.id] = Place(request: current, role: .put)
        } else {
            if key.parent != 0, let place = place(key.parent),
                open[place.request - first].blocks.last == key.parent
            {
                current = place.request
            }
            if current < first { begin(key) }
            append(key, .put)
        }
        open[current - first].put += 1
        open[current - first].bytes = max(open[current - first].bytes, key.bytes)
        open[current - first].changed = key.time
    }

    // MARK: Open requests

    private func place(_ id: UInt64) -> Place? {
        guard let place = places[id], place.request >= first else { return nil }
        return place
    }

    private mutating func begin(_ key: RecordedKey) {
        // Callers take their time before they take the lock.
        var time = key.time - min(key.time, begin)
        if let last = open.last { time = max(time, last.time) }
        current = first + open.count
        open.append(RecordedRequest(time: time, changed: key.time))
    }

    private mutating func append(_ key: RecordedKey, _ role: Role) {
        open[current - first].blocks.append(key.id)
        blocks += 1
        places[key.id] = Place(request: current, role: role)
    }

    private mutating func removeFirst() -> RecordedRequest {
        let made = open.removeFirst()
        for id in made.blocks where places[id]?.request == first { places[id] = nil }
        blocks -= made.blocks.count
        first += 1
        return made
    }

    private mutating func number(_ session: UInt64) -> Int {
        if let known = sessions[session] { return known }
        // So many sessions later nobody remembers the first; numbers are not used again.
        if sessions.count >= Self.mostSessions { sessions.removeAll(keepingCapacity: true) }
        sessions[session] = nextSession
        nextSession += 1
        return nextSession - 1
    }
}
