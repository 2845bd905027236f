// AdaptivePolicy: replacement by learnt returns. Blocks are in classes, by namespace, how long they
// were away when they came back last (never, briefly, for about as long as a block stays, longer),
// and by what their session said. Each class is a queue by last use. From the returns that it sees,
// of residents and of ghosts, it learns for each class how the chance of coming back goes with age
// (ReturnModel), and evicts of the classes' oldest the one that is worth least.
//
// Where blocks that came back do not differ this is LRU; those that never did count half of what
// their returns say, and where they do not return it resists scans, as ARC does; where a session's
// hint is right its blocks leave first, and where hints prove wrong they weigh nothing, since their
// worth is learnt like everything else. Only the oldest of a class is ever a candidate: evicting
// younger ones by their index was tried and is far worse than LRU.
//
// Time is counted in uses, so that a pause ages nothing. Invariants: a resident is in exactly one
// queue, ordered by time of use; what continues a chain is the next older one to its predecessor,
// so a tail leaves before its head; nothing is allocated after `resize`.

import SegmentFormat
import Staging

package final class AdaptivePolicy: ReplacementPolicy {
    /// Namespaces that are told apart; further ones share the last group.
    static let groups = 16
    private static let gaps = 4
    private static let outlooks = Outlook.allCases.count
    private static let kinds = gaps * outlooks
    private static let classes = groups * kinds
    /// The queue of what leaves first, without being asked what it is worth.
    private static let demotedQueue = classes
    /// Ghosts remembered for each resident.
    private static let ghostShare = 4
    /// Uses between two conclusions, at the least.
    private static let leastLesson: UInt64 = 256
    /// Samples of block-time taken with each use.
    private static let samples = 2
    /// What a block that never came back is worth, of what its class's returns say. On real traces
    /// small tiers gain hits by it, and those that a hit saves most, of requests with little else
    /// to compute, are more of them in all (ARCHITECTURE.md, Heat).
    private static let onceShare: Float = 0.5

    private struct Resident {
        var key: UInt64 = 0
        /// When it was used last.
        var time: UInt64 = 0
        var bytes: Int = 0
        /// Class, or the demoted queue.
        var queue: UInt16 = 0
        /// The class that it has without being demoted.
        var kind: UInt16 = 0
        var isHeld = false
        /// Brought early and not used yet; then, since when it was away, if that is known.
        var isEarly = false
        var away: UInt64 = 0
    }

    private struct Group {
        var weight: Float = 1
        var quota = Int.max
        var bytes = 0
    }

    private var residents: UnsafeMutablePointer<Resident>
    private var queues = SlotQueues(capacity: 1, queues: 1)
    private var ghosts = GhostList(capacity: 1, queues: 1)
    private var model = ReturnModel(classes: AdaptivePolicy.classes)
    private let cursors: UnsafeMutablePointer<Int32>
    /// The slot last linked into each queue, and in which run of a chain: what continues the chain
    /// goes behind it.
    private let anchors: UnsafeMutablePointer<Int32>
    private let anchorRuns: UnsafeMutablePointer<UInt32>
    private let groups: UnsafeMutablePointer<Group>
    private var groupOfNamespace: UnsafeMutablePointer<UInt8>
    private var groupCount = 0
    private var capacity = 0
    private var held = 0
    /// One more than the highest slot that was ever used: slots are given lowest first.
    private var slotEnd = 0
    private var now: UInt64 = 0
    private var nextLesson: UInt64 = AdaptivePolicy.leastLesson
    private var run: UInt32 = 0
    private var dice: UInt64 = 88_172_645_463_325_252
    private var given: Int32 = -1

    package init() {
        residents = .allocate(capacity: 1)
        let queueCount = Self.classes + 1
        cursors = .allocate(capacity: queueCount)
        cursors.initialize(repeating: -1, count: queueCount)
        anchors = .allocate(capacity: queueCount)
        anchors.initialize(repeating: -1, count: queueCount)
        anchorRuns = .allocate(capacity: queueCount)
        anchorRuns.initialize(repeating: 0, count: queueCount)
        groups = .allocate(capacity: Self.groups)
        groups.initialize(repeating: Group(), count: Self.groups)
        groupOfNamespace = .allocate(capacity: 1 << 16)
        groupOfNamespace.initialize(repeating: .max, count: 1 << 16)
    }

    deinit {
        residents.deallocate()
        cursors.deallocate()
        anchors.deallocate()
        anchorRuns.deallocate()
        groups.deallocate()
        groupOfNamespace.deallocate()
    }

    package func resize(capacity: Int) {
        precondition(capacity > 0 && capacity < 1 << 28, "capacity out of range")
        precondition(held == 0, "a policy is resized while empty")
        residents.deallocate()
        residents = .allocate(capacity: capacity)
        residents.initialize(repeating: Resident(), count: capacity)
        queues = SlotQueues(capacity: capacity, queues: Self.classes + 1)
        ghosts = GhostList(capacity: Self.ghostShare * capacity, queues: 1)
        self.capacity = capacity
    }

    package var memoryBytes: Int {
        capacity * MemoryLayout<Resident>.stride + queues.bytes + ghosts.bytes + model.bytes
            + Self.fixedBytes
    }

    private static let fixedBytes = 1 << 16

    /// What `memoryBytes` of a policy of that capacity is, or a little less.
    package static func memoryBytes(capacity: Int) -> Int {
        capacity * MemoryLayout<Resident>.stride
            + SlotQueues.bytes(capacity: capacity, queues: classes + 1)
            + GhostList.bytes(capacity: ghostShare * capacity, queues: 1)
            + ReturnModel.bytes(classes: classes) + fixedBytes
    }

    package func setShare(namespaceSlot: UInt16, weight: Float, quotaBytes: Int) {
        let group = group(namespaceSlot)
        // The last group may be shared by many, of which none may decide for the others.
        guard group < Self.groups - 1, weight > 0, weight.isFinite else { return }
        groups[group].weight = weight
        groups[group].quota = quotaBytes
    }

    /// Uses after which half of a namespace's returns have come; 0 while nothing came back.
    package func halfLife(namespaceSlot: UInt16) -> UInt64 {
        let first = group(namespaceSlot) * Self.kinds
        return model.age(of: first..<(first + Self.kinds), share: 0.5)
    }

    // MARK: Over restarts

    package var learnt: LearntBlocks {
        var made = LearntBlocks()
        for slot in 0..<(1 << 16) where groupOfNamespace[slot] != .max {
            made.groups.append((UInt16(slot), groupOfNamespace[slot]))
        }
        made.classes = model.learnt
        return made
    }

    /// Groups of which no namespace is left are given up; those that are get the numbers from 0.
    package func recall(_ learnt: LearntBlocks) {
        guard held == 0, groupCount == 0 else { return }
        var made = [Int](repeating: -1, count: Self.groups)
        for (slot, group) in learnt.groups where Int(group) < Self.groups {
            if made[Int(group)] < 0 {
                made[Int(group)] = groupCount
                groupCount += 1
            }
            groupOfNamespace[Int(slot)] = UInt8(made[Int(group)])
        }
        for known in learnt.classes where Int(known.number) < Self.classes {
            let group = made[Int(known.number) / Self.kinds]
            guard group >= 0 else { continue }
            model.recall(known, as: group * Self.kinds + Int(known.number) % Self.kinds)
        }
        model.learn()
    }

    // MARK: What happens

    package func inserted(_ slot: Int32, _ arrival: Arrival) {
        precondition(slot >= 0 && slot < capacity && !residents[Int(slot)].isHeld, "slot held")
        let group = group(arrival.namespaceSlot)
        let key = arrival.key.lo
        let ghost = ghosts.remove(key)
        held += 1
        slotEnd = max(slotEnd, Int(slot) + 1)
        groups[group].bytes += arrival.bytes
        let resident = residents + Int(slot)
        resident.pointee = Resident(key: key, bytes: arrival.bytes, isHeld: true)
        resident.pointee.isEarly = arrival.isPrefetched
        var kind = group * Self.kinds
        if let ghost {
            // A ghost of another namespace's group is a mistaken one.
            let known = Int(ghost.tag)
            if known / Self.kinds == group { kind = known }
        }
        if arrival.isPrefetched {
            // Not a use: it keeps what it was, and is as recent as what is used now. Its first use
            // is its return, which comes of what asks for it and not of its being here early.
            resident.pointee.away = ghost?.time ?? 0
            place(slot, kind, arrival.continues)
        } else {
            let known = ghost == nil ? nil : kind
            use(slot, from: known, since: ghost?.time ?? 0, group, arrival.continues)
        }
    }

    package func touched(_ slot: Int32, continues: Bool) {
        guard isHeld(slot) else { return }
        let resident = residents[Int(slot)]
        let group = Int(resident.kind) / Self.kinds
        unlink(slot)
        residents[Int(slot)].isEarly = false
        let isKnown = !resident.isEarly || resident.away > 0
        use(
            slot, from: isKnown ? Int(resident.kind) : nil,
            since: resident.isEarly ? resident.away : resident.time, group, continues)
    }

    package func removed(_ slot: Int32) {
        guard isHeld(slot) else { return }
        unlink(slot)
        let resident = residents[Int(slot)]
        residents[Int(slot)].isHeld = false
        held -= 1
        groups[Int(resident.kind) / Self.kinds].bytes -= resident.bytes
        ghosts.push(resident.key, to: 0, time: resident.time, tag: UInt32(resident.kind))
        let limit = max(64, Self.ghostShare * held)
        while ghosts.count > limit { ghosts.dropOldest(0) }
    }

    package func demoted(_ slot: Int32) {
        guard isHeld(slot) else { return }
        unlink(slot)
        residents[Int(slot)].queue = UInt16(Self.demotedQueue)
        queues.pushOldest(slot, to: Self.demotedQueue)
    }

    package func foretold(_ slot: Int32, _ outlook: Outlook, continues: Bool) {
        guard isHeld(slot) else { return }
        let resident = residents[Int(slot)]
        let kind = Int(resident.kind)
        let told = kind / Self.outlooks * Self.outlooks + Int(outlook.rawValue)
        unlink(slot)
        // Its age counts from the word, by which the queue stays ordered by time.
        place(slot, told, continues)
    }

    package func reordered(_ slot: Int32, continues: Bool) {
        guard isHeld(slot), Int(residents[Int(slot)].queue) != Self.demotedQueue else { return }
        unlink(slot)
        place(slot, Int(residents[Int(slot)].kind), continues)
    }

    /// A use: what is learnt from it, and the class that the block is in from now on.
    private func use(
        _ slot: Int32, from known: Int?, since: UInt64, _ group: Int, _ continues: Bool
    ) {
        now += 1
        sample()
        if now >= nextLesson { lesson() }
        var gap = 0
        if let known {
            let away = now - since
            model.returned(known, age: away)
            gap = gapClass(away)
        }
        place(slot, group * Self.kinds + gap * Self.outlooks, continues)
    }

    /// Briefly, about as long as residents stay, or longer.
    private func gapClass(_ away: UInt64) -> Int {
        let size = UInt64(max(held, 1))
        return 2 * away < size ? 1 : away < 4 * size ? 2 : 3
    }

    private func lesson() {
        model.learn()
        nextLesson = now + max(Self.leastLesson, UInt64(held / 4))
    }

    /// Finds some residents and ghosts by chance and notes for how long they have waited: each
    /// stands for as much block-time as there are places to find one in.
    private func sample() {
        let all = UInt64(slotEnd + ghosts.end)
        let weight = Float(all) / Float(Self.samples)
        for _ in 0..<Self.samples {
            dice = dice &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            let place = Int(((dice >> 32) &* all) >> 32)
            if place < slotEnd {
                let resident = residents[place]
                guard resident.isHeld else { continue }
                model.waited(Int(resident.kind), age: now - resident.time, for: weight)
            } else if let ghost = ghosts.ghost(at: place - slotEnd) {
                model.waited(Int(ghost.tag), age: now - ghost.time, for: weight)
            }
        }
    }

    // MARK: Queues

    @inline(__always)
    private func isHeld(_ slot: Int32) -> Bool {
        slot >= 0 && Int(slot) < capacity && residents[Int(slot)].isHeld
    }

    private var usedGroups: Int { min(groupCount, Self.groups) }

    @inline(__always)
    private func group(_ namespaceSlot: UInt16) -> Int {
        let known = groupOfNamespace[Int(namespaceSlot)]
        if known != .max { return Int(known) }
        let made = min(groupCount, Self.groups - 1)
        groupCount += 1
        groupOfNamespace[Int(namespaceSlot)] = UInt8(made)
        return made
    }

    private func place(_ slot: Int32, _ kind: Int, _ continues: Bool) {
        residents[Int(slot)].kind = UInt16(kind)
        residents[Int(slot)].queue = UInt16(kind)
        if !continues { run &+= 1 }
        if continues, anchorRuns[kind] == run, anchors[kind] >= 0 {
            // As old as its predecessor, so that the order by time holds.
            residents[Int(slot)].time = residents[Int(anchors[kind])].time
            queues.insert(slot, olderThan: anchors[kind], in: kind)
        } else {
            residents[Int(slot)].time = now
            queues.push(slot, to: kind)
        }
        anchors[kind] = slot
        anchorRuns[kind] = run
    }

    private func unlink(_ slot: Int32) {
        let queue = Int(residents[Int(slot)].queue)
        if cursors[queue] == slot { cursors[queue] = queues.younger(slot) }
        if anchors[queue] == slot { anchors[queue] = -1 }
        queues.unlink(slot, from: queue)
    }

    // MARK: Victims

    package func victim(after slot: Int32?) -> Int32? {
        guard let slot else {
            for queue in 0..<(usedGroups * Self.kinds) { cursors[queue] = queues.oldest(queue) }
            cursors[Self.demotedQueue] = queues.oldest(Self.demotedQueue)
            return next()
        }
        guard slot == given else { return nil }
        return next()
    }

    /// The least of the candidates: what was demoted, then what is over its quota, then by worth,
    /// then by age.
    private func next() -> Int32? {
        let demoted = cursors[Self.demotedQueue]
        if demoted >= 0 {
            cursors[Self.demotedQueue] = queues.younger(demoted)
            given = demoted
            return demoted
        }
        var best = -1
        var (bestOver, bestWorth, bestTime) = (false, Float.infinity, UInt64.max)
        for group in 0..<usedGroups {
            let isOver = groups[group].bytes > groups[group].quota
            let weight = groups[group].weight
            for kind in (group * Self.kinds)..<((group + 1) * Self.kinds) where cursors[kind] >= 0 {
                let time = residents[Int(cursors[kind])].time
                var worth = model.worth(kind, age: now - time) * weight
                if kind - group * Self.kinds < Self.outlooks { worth *= Self.onceShare }
                let isLess =
                    isOver != bestOver
                    ? isOver : worth < bestWorth || worth == bestWorth && time < bestTime
                if best < 0 || isLess {
                    (best, bestOver, bestWorth, bestTime) = (kind, isOver, worth, time)
                }
            }
        }
        guard best >= 0 else { return nil }
        given = cursors[best]
        cursors[best] = queues.younger(given)
        return given
    }
}
