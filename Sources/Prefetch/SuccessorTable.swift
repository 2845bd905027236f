// SuccessorTable: which block was read, or put, after which the last time, learnt from what
// passes, and the chains being read now. A bounded table in sets of eight, of which the one that
// was met longest ago makes way; 64 bytes a block, keys of up to 32 bytes among them (longer ones
// are not learnt).
//
// A chain being read is a stream: where it is, how far ahead it was predicted, and how many steps
// in a row came as predicted, which gates how far ahead is predicted next: 1, then 8, then 64
// blocks. No prediction leads out of a block that more than four different ones have followed,
// such as the root of a chat, nor along a step that was only seen once and not told: blocks of
// two readers that happen to be asked for one after the other.
//
// Invariants: links are places in the table with a few bits of what was there, so that a link to
// a place that is another's by now is found out; what is wrong all the same costs a wrong
// prediction.

import LogStore

struct SuccessorNode {
    /// Half of the fingerprint, 0 for an empty place.
    var tag: UInt64 = 0
    var key: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
    var successor: Int32 = -1
    var predecessor: Int32 = -1
    var successorTag: UInt16 = 0
    var predecessorTag: UInt16 = 0
    /// A bit for each of those that followed, by a hash of 16.
    var followers: UInt16 = 0
    var namespaceSlot: UInt16 = 0
    /// The stream that is here, `SuccessorTable.noStream` for none.
    var stream: UInt16 = .max
    /// When it was met, in units of a part of the table's size.
    var stamp: UInt16 = 0
    var keyLength: UInt8 = 0
    /// Why the successor is taken to be one.
    var grounds = Grounds.seenOnce

    enum Grounds: UInt8, Comparable {
        case seenOnce
        case seenTwice
        case told

        static func < (left: Grounds, right: Grounds) -> Bool { left.rawValue < right.rawValue }
    }
}

struct SuccessorStream {
    var position: Int32 = -1
    /// The furthest block predicted, and its tag.
    var frontier: Int32 = -1
    var frontierTag: UInt64 = 0
    /// Predicted blocks from the position to the frontier.
    var lead: UInt16 = 0
    /// Steps in a row that came as predicted.
    var confirmed: UInt16 = 0
    /// What was predicted is not stored: nothing lies behind it.
    var isEnded = false
}

package struct SuccessorTable {
    /// How far ahead is predicted, and from how many confirmed steps on.
    package static let depths: [(confirmed: UInt16, depth: UInt16)] = [(16, 64), (2, 8), (0, 1)]
    package static let mostFollowers = 4
    package static let longestKey = 32
    package static let streams = 256
    static let ways = 8
    static let noStream = UInt16.max

    private let nodes: UnsafeMutablePointer<SuccessorNode>
    private let sets: Int
    let streams: UnsafeMutablePointer<SuccessorStream>
    private var nextStream = 0
    /// The block met last, and its namespace by the node.
    private var last: Int32 = -1
    private var lastTag: UInt64 = 0
    private var events: UInt64 = 0
    private let eventsAStamp: UInt64

    /// What an access means for what is predicted.
    package struct Step: Equatable, Sendable {
        /// The stream that has come further, -1 for none.
        package var stream: Int32
        /// It is new, in a place that may have been another's.
        package var isNew = false
        /// It took another way than predicted.
        package var hasStrayed = false
    }

    package init(entries: Int) {
        sets = max(1, entries / Self.ways)
        nodes = .allocate(capacity: sets * Self.ways)
        nodes.initialize(repeating: SuccessorNode(), count: sets * Self.ways)
        streams = .allocate(capacity: Self.streams)
        streams.initialize(repeating: SuccessorStream(), count: Self.streams)
        // Half the range of a stamp is some four times what the table holds.
        eventsAStamp = max(1, UInt64(sets * Self.ways) / (1 << 13))
    }

    package func deallocate() {
        nodes.deallocate()
        streams.deallocate()
    }

    package static func memoryBytes(entries: Int) -> Int {
        max(1, entries / ways) * ways * MemoryLayout<SuccessorNode>.stride
            + streams * MemoryLayout<SuccessorStream>.stride
    }

    // MARK: Places

    private func set(_ fingerprint: Fingerprint) -> Int {
        Int(fingerprint.lo.multipliedFullWidth(by: UInt64(sets)).high) * Self.ways
    }

    @inline(__always)
    private static func tag(_ fingerprint: Fingerprint) -> UInt64 { max(1, fingerprint.hi) }

    func find(_ fingerprint: Fingerprint) -> Int32 {
        let (first, tag) = (set(fingerprint), Self.tag(fingerprint))
        for place in first..<(first + Self.ways) where nodes[place].tag == tag {
            return Int32(place)
        }
        return -1
    }

    /// The block's place, found or made.
    private mutating func place(
        _ fingerprint: Fingerprint, _ key: UnsafeRawBufferPointer, _ namespaceSlot: UInt16
    ) -> Int32 {
        let stamp = UInt16(truncatingIfNeeded: events / eventsAStamp)
        let (first, tag) = (set(fingerprint), Self.tag(fingerprint))
        var (oldest, age) = (first, -1)
        for place in first..<(first + Self.ways) {
            if nodes[place].tag == tag {
                nodes[place].stamp = stamp
                return Int32(place)
            }
            let own = nodes[place].tag == 0 ? Int.max : Int(stamp &- nodes[place].stamp)
            if own > age { (oldest, age) = (place, own) }
        }
        leave(Int32(oldest))
        nodes[oldest] = SuccessorNode(
            tag: tag, namespaceSlot: namespaceSlot, stamp: stamp, keyLength: UInt8(key.count))
        if let source = key.baseAddress {
            keyMemory(Int32(oldest)).copyMemory(from: source, byteCount: key.count)
        }
        return Int32(oldest)
    }

    /// The stream that is at a place, if any, is nowhere from now on.
    private func leave(_ place: Int32) {
        let stream = nodes[Int(place)].stream
        guard stream != Self.noStream else { return }
        if streams[Int(stream)].position == place { streams[Int(stream)].position = -1 }
        nodes[Int(place)].stream = Self.noStream
    }

    private func keyMemory(_ place: Int32) -> UnsafeMutableRawPointer {
        UnsafeMutableRawPointer(nodes + Int(place))
            + (MemoryLayout<SuccessorNode>.offset(of: \.key) ?? 0)
    }

    /// The key of a block that was predicted; good until the next access.
    package func key(_ place: Int32) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(
            start: keyMemory(place), count: Int(nodes[Int(place)].keyLength))
    }

    package func namespaceSlot(_ place: Int32) -> UInt16 { nodes[Int(place)].namespaceSlot }

    @inline(__always)
    private static func short(_ tag: UInt64) -> UInt16 { UInt16(truncatingIfNeeded: tag >> 48) }

    private func successor(_ place: Int32) -> Int32 {
        let node = nodes + Int(place)
        let next = node.pointee.successor
        guard next >= 0, Self.short(nodes[Int(next)].tag) == node.pointee.successorTag,
            nodes[Int(next)].namespaceSlot == node.pointee.namespaceSlot
        else { return -1 }
        return next
    }

    private func predecessor(_ place: Int32) -> Int32 {
        let node = nodes + Int(place)
        let before = node.pointee.predecessor
        guard before >= 0, Self.short(nodes[Int(before)].tag) == node.pointee.predecessorTag
        else { return -1 }
        return before
    }

    // MARK: Learning

    /// `after` follows `before`.
    private func learn(_ before: Int32, _ after: Int32, isTold: Bool) {
        let (from, to) = (nodes + Int(before), nodes + Int(after))
        let short = Self.short(to.pointee.tag)
        let isSame = from.pointee.successor == after && from.pointee.successorTag == short
        if isTold {
            from.pointee.grounds = .told
        } else if isSame {
            from.pointee.grounds = max(from.pointee.grounds, .seenTwice)
        } else if from.pointee.grounds != .seenOnce, successor(before) >= 0 {
            // What happened to be next does not take the place of what is known to be, but what
            // was only seen is seen anew.
            if from.pointee.grounds == .seenTwice { from.pointee.grounds = .seenOnce }
            return
        } else {
            from.pointee.grounds = .seenOnce
        }
        from.pointee.successor = after
        from.pointee.successorTag = short
        if isTold || isSame {
            from.pointee.followers |= 1 << UInt16(truncatingIfNeeded: to.pointee.tag & 15)
        }
        to.pointee.predecessor = before
        to.pointee.predecessorTag = Self.short(from.pointee.tag)
    }

    /// A put: teaches what follows what. A parent gets its place here if it has none: engines put
    /// the last block of a chain first, too.
    package mutating func put(
        _ fingerprint: Fingerprint, _ key: UnsafeRawBufferPointer, namespaceSlot: UInt16,
        parent: Fingerprint?, parentKey: UnsafeRawBufferPointer, continues: Bool
    ) {
        guard key.count > 0, key.count <= Self.longestKey else { return }
        events += 1
        var before = continues ? lastPlace(namespaceSlot) : -1
        if let parent {
            before =
                parentKey.count <= Self.longestKey ? place(parent, parentKey, namespaceSlot) : -1
        }
        let here = place(fingerprint, key, namespaceSlot)
        if before >= 0, before != here { learn(before, here, isTold: true) }
        (last, lastTag) = (here, nodes[Int(here)].tag)
    }

    private func lastPlace(_ namespaceSlot: UInt16) -> Int32 {
        guard last >= 0, nodes[Int(last)].tag == lastTag,
            nodes[Int(last)].namespaceSlot == namespaceSlot
        else { return -1 }
        return last
    }

    /// A read: teaches, and moves a stream.
    package mutating func read(
        _ fingerprint: Fingerprint, _ key: UnsafeRawBufferPointer, namespaceSlot: UInt16,
        parent: Fingerprint?, continues: Bool
    ) -> Step {
        guard key.count > 0, key.count <= Self.longestKey else { return Step(stream: -1) }
        events += 1
        let previous = lastPlace(namespaceSlot)
        let told = parent.map { find($0) } ?? (continues ? previous : -1)
        let here = place(fingerprint, key, namespaceSlot)
        defer { (last, lastTag) = (here, nodes[Int(here)].tag) }
        var (before, isTold) = (told, told >= 0)
        if before < 0 {
            // Whoever waits at the block before this one goes on; else it may be whoever came last.
            let known = predecessor(here)
            if known >= 0, stream(at: known) >= 0 {
                before = known
            } else {
                before = previous
            }
            isTold = false
        }
        // The place found for this block may have been that of the one before.
        guard before >= 0, before != here, nodes[Int(before)].tag != 0 else { return begin(here) }
        let isExpected =
            successor(before) == here && nodes[Int(before)].grounds != .seenOnce
        learn(before, here, isTold: isTold)
        let stream = stream(at: before)
        guard stream >= 0, isTold || isExpected else { return begin(here) }
        return advance(stream, to: here, isExpected: isExpected)
    }

    private func stream(at place: Int32) -> Int32 {
        let stream = nodes[Int(place)].stream
        guard stream != Self.noStream, streams[Int(stream)].position == place else { return -1 }
        return Int32(stream)
    }

    /// A stream begins at the block, unless one is there.
    private mutating func begin(_ here: Int32) -> Step {
        let present = stream(at: here)
        if present >= 0 { return Step(stream: present) }
        let stream = nextStream
        nextStream = (nextStream + 1) % Self.streams
        let old = streams[stream].position
        if old >= 0 { nodes[Int(old)].stream = Self.noStream }
        streams[stream] = SuccessorStream(position: here)
        settle(stream, here)
        return Step(stream: Int32(stream), isNew: true)
    }

    private func settle(_ stream: Int, _ here: Int32) {
        leave(here)
        nodes[Int(here)].stream = UInt16(stream)
        streams[stream].position = here
        if streams[stream].lead == 0 {
            streams[stream].frontier = here
            streams[stream].frontierTag = nodes[Int(here)].tag
            streams[stream].isEnded = false
        }
    }

    private func advance(_ stream: Int32, to here: Int32, isExpected: Bool) -> Step {
        let moved = streams + Int(stream)
        nodes[Int(moved.pointee.position)].stream = Self.noStream
        var step = Step(stream: stream)
        if isExpected {
            moved.pointee.confirmed = min(moved.pointee.confirmed + 1, 1024)
            if moved.pointee.lead > 0 { moved.pointee.lead -= 1 }
        } else {
            step.hasStrayed = moved.pointee.lead > 0
            moved.pointee.confirmed = 0
            moved.pointee.lead = 0
        }
        settle(Int(stream), here)
        return step
    }

    // MARK: Predicting

    /// The next block that the stream is expected to read, -1 for none.
    package func predict(_ stream: Int32) -> Int32 {
        let ahead = streams + Int(stream)
        guard !ahead.pointee.isEnded, ahead.pointee.position >= 0 else { return -1 }
        let depth = Self.depths.first { ahead.pointee.confirmed >= $0.confirmed }?.depth ?? 1
        let frontier = ahead.pointee.frontier
        guard ahead.pointee.lead < depth, frontier >= 0,
            nodes[Int(frontier)].tag == ahead.pointee.frontierTag,
            nodes[Int(frontier)].grounds != .seenOnce,
            nodes[Int(frontier)].followers.nonzeroBitCount <= Self.mostFollowers
        else { return -1 }
        let next = successor(frontier)
        guard next >= 0, next != ahead.pointee.position else { return -1 }
        ahead.pointee.frontier = next
        ahead.pointee.frontierTag = nodes[Int(next)].tag
        ahead.pointee.lead += 1
        return next
    }

    /// What was predicted last is not there: nothing behind it is worth predicting.
    package func end(_ stream: Int32) { streams[Int(stream)].isEnded = true }
}
