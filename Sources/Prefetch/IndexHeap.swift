// IndexHeap: numbers below a capacity in the order of a key each, of which any can be taken out or
// given another key. Of equal keys the lower order goes first.
//
// Invariants: nothing is allocated after `init`; a number is in it at most once, and its place is
// known; a change costs a step for each halving.

struct IndexHeap {
    private struct Entry {
        var key: UInt64
        var order: UInt64
        var index: Int32
    }

    private let entries: UnsafeMutablePointer<Entry>
    /// By number: its place in `entries`, -1 for none.
    private let places: UnsafeMutablePointer<Int32>
    private var count = 0

    init(capacity: Int) {
        entries = .allocate(capacity: capacity)
        places = .allocate(capacity: capacity)
        places.initialize(repeating: -1, count: capacity)
    }

    func deallocate() {
        entries.deallocate()
        places.deallocate()
    }

    static func memoryBytes(capacity: Int) -> Int {
        capacity * (MemoryLayout<Entry>.stride + MemoryLayout<Int32>.stride)
    }

    /// The number that goes first, -1 for none.
    var first: Int32 { count == 0 ? -1 : entries[0].index }

    /// Its key, `UInt64.max` for none.
    var firstKey: UInt64 { count == 0 ? .max : entries[0].key }

    func contains(_ index: Int32) -> Bool { places[Int(index)] >= 0 }

    /// Puts a number in, or gives it another key.
    mutating func set(_ index: Int32, key: UInt64, order: UInt64 = 0) {
        if places[Int(index)] < 0 {
            places[Int(index)] = Int32(count)
            count += 1
        }
        let entry = Entry(key: key, order: order, index: index)
        settle(entry, from: Int(places[Int(index)]))
    }

    /// Takes a number out, if it is there.
    mutating func remove(_ index: Int32) {
        let at = Int(places[Int(index)])
        guard at >= 0 else { return }
        places[Int(index)] = -1
        count -= 1
        if at < count { settle(entries[count], from: at) }
    }

    private func isBefore(_ a: Entry, _ b: Entry) -> Bool {
        a.key != b.key ? a.key < b.key : a.order < b.order
    }

    private func place(_ entry: Entry, _ at: Int) {
        (entries + at).initialize(to: entry)
        places[Int(entry.index)] = Int32(at)
    }

    /// Finds the entry's place, up or down from one that is free.
    private func settle(_ entry: Entry, from start: Int) {
        var at = start
        while at > 0, isBefore(entry, entries[(at - 1) / 2]) {
            place(entries[(at - 1) / 2], at)
            at = (at - 1) / 2
        }
        while true {
            var child = 2 * at + 1
            guard child < count else { break }
            if child + 1 < count, isBefore(entries[child + 1], entries[child]) { child += 1 }
            guard isBefore(entries[child], entry) else { break }
            place(entries[child], at)
            at = child
        }
        place(entry, at)
    }
}
