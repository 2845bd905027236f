// WorkQueue: operations that the owner has taken and not started. They start in the order in which
// they were pushed, except that reads go ahead of writes: to take in a put means to copy it, which
// for the blocks of one prompt takes longer than the read does that comes behind them. No read goes
// ahead of anything of its own key, and of the writes one at least starts each turn.
//
// Invariants: each operation pushed is in one of the two lists until it is taken out; what waits in
// `ahead` has no key that something waits for in `rest`, as of when it was pushed.

import LogStore
import SegmentFormat
import Staging

struct WorkQueue {
    /// Entries from `head` on.
    struct List {
        private var entries: [InboxEntry] = []
        private var head = 0
        /// Bytes of the puts among them.
        private(set) var putBytes = 0

        var count: Int { entries.count - head }
        var isEmpty: Bool { head == entries.count }
        subscript(index: Int) -> InboxEntry { entries[head + index] }

        mutating func removeFirst(_ count: Int) {
            for index in head..<head + count { putBytes -= entries[index].putBytes }
            head += count
            if isEmpty { removeAll() }
        }

        mutating func append(_ entry: InboxEntry) {
            entries.append(entry)
            putBytes += entry.putBytes
        }

        /// Takes over a whole array, where nothing waits yet, and leaves an empty one for it.
        mutating func fill(_ other: inout [InboxEntry], putBytes bytes: Int) {
            removeAll()
            swap(&entries, &other)
            putBytes = bytes
        }

        private mutating func removeAll() {
            (head, putBytes) = (0, 0)
            entries.removeAll(keepingCapacity: true)
        }

        /// Takes out what matches, in order.
        mutating func remove(
            where matches: (InboxEntry) -> Bool, _ body: (InboxEntry) -> Void
        ) {
            var kept = List()
            for entry in entries[head...] {
                if matches(entry) { body(entry) } else { kept.append(entry) }
            }
            self = kept
        }

        /// The earliest deadline of an operation that ends at it.
        var deadline: UInt64 {
            var least = UInt64.max
            for entry in entries[head...] where entry.endsAtDeadline {
                least = min(least, entry.operation.deadline)
            }
            return least
        }

        /// How many may start in a turn: the first one, and as many more as copy little.
        func turn(most: Int) -> Int {
            var (number, bytes) = (0, 0)
            while number < min(most, count) {
                bytes += self[number].putBytes
                if number > 0, bytes > WorkQueue.longTurn { break }
                number += 1
            }
            return number
        }
    }

    /// Bytes of puts that make a turn long.
    static let longTurn = 256 << 10
    /// Bits by which it is known that something waits for a key in `rest`; one too many only means
    /// that a read keeps its place.
    private static let keyBits = 4096

    var ahead = List()
    var rest = List()
    /// The earliest deadline in both.
    private(set) var deadline = UInt64.max
    private var keys: InlineArray<64, UInt64> = .init(repeating: 0)
    /// Whether `keys` has those of all in `rest`.
    private var knowsKeys = false

    var isEmpty: Bool { ahead.isEmpty && rest.isEmpty }

    /// Takes in what was pushed, and leaves the array empty; `fingerprint` makes an operation's.
    mutating func push(
        _ entries: inout [InboxEntry], _ fingerprint: (StoreOperation) -> Fingerprint
    ) {
        if rest.isEmpty {
            knowsKeys = true
            keys = .init(repeating: 0)
        }
        let bytes = entries.reduce(0) { $0 + $1.putBytes }
        if rest.putBytes + bytes > Self.longTurn {
            if !knowsKeys {
                for number in 0..<rest.count { note(fingerprint(rest[number].operation)) }
                knowsKeys = true
            }
            for entry in entries {
                let own = fingerprint(entry.operation)
                if entry.isRead, !isNoted(own) {
                    ahead.append(entry)
                } else {
                    note(own)
                    rest.append(entry)
                }
            }
        } else if rest.isEmpty {
            rest.fill(&entries, putBytes: bytes)
            knowsKeys = false
        } else {
            for entry in entries { rest.append(entry) }
            knowsKeys = false
        }
        entries.removeAll(keepingCapacity: true)
        noteDeadlines()
    }

    private mutating func note(_ key: Fingerprint) {
        let bit = Int(key.lo & UInt64(Self.keyBits - 1))
        keys[bit / 64] |= 1 << UInt64(bit % 64)
    }

    private func isNoted(_ key: Fingerprint) -> Bool {
        let bit = Int(key.lo & UInt64(Self.keyBits - 1))
        return keys[bit / 64] & (1 << UInt64(bit % 64)) != 0
    }

    mutating func noteDeadlines() { deadline = min(ahead.deadline, rest.deadline) }

    /// Takes out what matches.
    mutating func remove(where matches: (InboxEntry) -> Bool, _ body: (InboxEntry) -> Void) {
        ahead.remove(where: matches, body)
        rest.remove(where: matches, body)
        noteDeadlines()
    }
}

extension InboxEntry {
    /// Bytes to be copied before it has started.
    var putBytes: Int { operation.kind == .put ? Int(operation.length) : 0 }
    var isRead: Bool { operation.kind == .get || operation.kind == .contains }
    /// A pin's deadline is when it ends.
    var endsAtDeadline: Bool { operation.deadline > 0 && operation.kind != .pin }
}
