// ModelTests: the arena against a model that predicts every eviction, and hit for hit against a
// reference LRU.

import BlockIO
import Testing

@testable import Staging

/// Predicts what the arena does, entry by entry.
struct ArenaModel {
    struct Entry {
        var key: Int
        var version: UInt64
        var bytes: Int
        var state: ResidentState
        var pins = 0
    }
    let slabCount: Int
    let capacity: Int
    var entries: [Int32: Entry] = [:]
    /// Visible slots, coldest first.
    var order: [Int32] = []
    var evictions: UInt64 = 0

    func slabs(_ bytes: Int) -> Int { (bytes + 4095) / 4096 }
    var freeSlabs: Int { slabCount - entries.values.reduce(0) { $0 + slabs($1.bytes) } }
    func visible(_ key: Int) -> Int32? { order.first { entries[$0]?.key == key } }
    func filling(_ key: Int) -> Int32? {
        entries.first { $0.value.key == key && $0.value.state == .filling }?.key
    }

    enum Prediction: Equatable {
        case slot, full, tooLarge
        case filling(Int32)
    }

    mutating func reserve(_ key: Int, bytes: Int) -> Prediction {
        if slabs(bytes) > slabCount { return .tooLarge }
        if let slot = filling(key) { return .filling(slot) }
        var gained = freeSlabs
        var places = capacity - entries.count
        var victims: [Int32] = []
        for slot in order where gained < slabs(bytes) || places == 0 {
            guard let entry = entries[slot], entry.state == .clean, entry.pins == 0 else {
                continue
            }
            gained += slabs(entry.bytes)
            places += 1
            victims.append(slot)
        }
        guard gained >= slabs(bytes), places > 0 else { return .full }
        evictions += UInt64(victims.count)
        for slot in victims { take(slot) }
        return .slot
    }

    /// Out of sight, and gone if not pinned.
    mutating func take(_ slot: Int32) {
        order.removeAll { $0 == slot }
        if let pins = entries[slot]?.pins, pins > 0 {
            entries[slot]?.state = .condemned
        } else {
            entries[slot] = nil
        }
    }

    mutating func publish(_ slot: Int32, dirty: Bool) {
        guard let key = entries[slot]?.key else { return }
        if let old = visible(key) { take(old) }
        entries[slot]?.state = dirty ? .dirty : .clean
        order.append(slot)
    }

    mutating func unpin(_ slot: Int32) {
        entries[slot]?.pins -= 1
        if entries[slot]?.pins == 0 && entries[slot]?.state == .condemned { entries[slot] = nil }
    }
}

@Suite struct ModelTests {
    @Test(arguments: [UInt64(1), 2, 3, 4, 5, 6])
    func randomOperationsFollowTheModel(seed: UInt64) throws {
        var random = Random(seed)
        let capacity = seed % 2 == 0 ? 12 : 40
        let arena = try makeArena(slabs: 48, residents: capacity)
        var model = ArenaModel(slabCount: 48, capacity: capacity)
        var version: UInt64 = 0
        for step in 0..<4000 {
            let slots = model.entries.keys.sorted()
            let slot = slots.isEmpty ? -1 : slots[random.below(slots.count)]
            switch random.below(14) {
            case 0...4:
                version += 1
                reserve(arena, &model, &random, version, step)
            case 5...7 where slot >= 0 && model.entries[slot]?.state == .filling:
                let dirty = random.below(3) == 0
                arena.publish(ResidentSlot(slot), dirty: dirty)
                model.publish(slot, dirty: dirty)
            case 8 where slot >= 0:
                arena.markClean(ResidentSlot(slot))
                if model.entries[slot]?.state == .dirty { model.entries[slot]?.state = .clean }
            case 9 where slot >= 0 && random.below(2) == 0:
                arena.remove(ResidentSlot(slot))
                model.take(slot)
            case 10 where slot >= 0:
                arena.touch(ResidentSlot(slot))
                move(&model.order, slot, cold: false)
            case 11 where slot >= 0 && random.below(2) == 0:
                arena.demote(ResidentSlot(slot))
                move(&model.order, slot, cold: true)
            case 12 where slot >= 0 && random.below(3) == 0:
                arena.pin(ResidentSlot(slot))
                model.entries[slot]?.pins += 1
            case 13:
                let pinned = slots.filter { (model.entries[$0]?.pins ?? 0) > 0 }
                if !pinned.isEmpty {
                    let which = pinned[random.below(pinned.count)]
                    arena.unpin(ResidentSlot(which))
                    model.unpin(which)
                }
            default: break
            }
            compare(arena, model, step)
        }
        #expect(model.evictions > 100, "the run must have evicted")
    }

    private func reserve(
        _ arena: StagingArena, _ model: inout ArenaModel, _ random: inout Random,
        _ version: UInt64, _ step: Int
    ) {
        let number = random.below(60)
        let bytes = random.below(200) == 0 ? 49 * 4096 : 8 * (1 + random.below(8 * 512))
        let predicted = model.reserve(number, bytes: bytes)
        switch arena.reserve(key(number), info: info(version, bytes: bytes)) {
        case .slot(let new):
            #expect(predicted == .slot, "step \(step)")
            #expect(model.entries[new.index] == nil)
            model.entries[new.index] = .init(
                key: number, version: version, bytes: bytes, state: .filling)
            fill(arena, new)
        case .filling(let other): #expect(predicted == .filling(other.index))
        case .full: #expect(predicted == .full, "step \(step)")
        case .tooLarge: #expect(predicted == .tooLarge)
        }
    }

    private func move(_ order: inout [Int32], _ slot: Int32, cold: Bool) {
        guard order.contains(slot) else { return }
        order.removeAll { $0 == slot }
        if cold { order.insert(slot, at: 0) } else { order.append(slot) }
    }

    private func compare(_ arena: StagingArena, _ model: ArenaModel, _ step: Int) {
        #expect(arena.freeSlabs == model.freeSlabs, "step \(step)")
        #expect(arena.residentCount == model.order.count)
        #expect(arena.evictions == model.evictions, "step \(step)")
        var order: [Int32] = []
        while let next = arena.policy.victim(after: order.last) { order.append(next) }
        #expect(order == model.order, "step \(step)")
        var bytes: [ResidentState: Int] = [:]
        for (slot, entry) in model.entries {
            let there = ResidentSlot(slot)
            bytes[entry.state, default: 0] += entry.bytes
            #expect(arena.state(there) == entry.state)
            #expect(arena.info(there).version == entry.version)
            #expect(isIntact(arena, there), "step \(step) slot \(slot)")
            if entry.state.isVisible {
                #expect(arena.find(key(entry.key))?.slot == there)
                #expect(arena.reader.contains(key(entry.key), now: 1))
                #expect(arena.replacement(there)?.index == model.filling(entry.key))
            }
        }
        #expect(arena.dirtyBytes == bytes[.dirty, default: 0])
        #expect(arena.cleanBytes == bytes[.clean, default: 0])
        for number in 0..<60 where model.visible(number) == nil {
            #expect(!arena.reader.contains(key(number), now: 1))
            #expect(arena.find(key(number))?.slot.index == model.filling(number))
        }
    }

    enum Trace: CaseIterable { case zipf, scan, loop }

    @Test(arguments: Trace.allCases)
    func hitsAreThoseOfAReferenceLRU(trace: Trace) throws {
        let blocks = 64
        // One slab over: the remainder must not break the runs.
        let arena = try makeArena(slabs: blocks * 3 + 1, residents: blocks * 2)
        var reference = ReferenceLRU(capacity: blocks)
        var random = Random(7)
        var weights: [Double] = []
        for rank in 1...400 { weights.append((weights.last ?? 0) + 1 / Double(rank)) }
        var hits = 0
        for step in 0..<20_000 {
            let number =
                switch trace {
                case .zipf: zipf(&random, weights)
                // A hot set with a scan of cold blocks going through it.
                case .scan: step % 3 == 0 ? 1000 + step : random.below(40)
                case .loop: step % 65 == 64 ? random.below(64) : step % 63
                }
            let expected = reference.access(number)
            if let (slot, _) = arena.find(key(number)) {
                #expect(expected)
                hits += 1
                arena.touch(slot)
                #expect(arena.pieces(slot).count == 1)
            } else {
                #expect(!expected)
                let slot = try #require(
                    arena.put(key(number), info(UInt64(step), bytes: 3 * 4096)))
                #expect(arena.pieces(slot).count == 1)
            }
        }
        #expect(hits > 1000 && hits < 20_000)
    }

    private func zipf(_ random: inout Random, _ weights: [Double]) -> Int {
        let at = Double(random.next() >> 11) / Double(1 << 53) * (weights.last ?? 1)
        return weights.firstIndex { $0 > at } ?? 0
    }

    @Test func uniformSizesStayContiguousInChurn() throws {
        let arena = try makeArena(slabs: 5 * 64 + 3, residents: 128)
        var random = Random(11)
        var pinned: [ResidentSlot] = []
        for step in 0..<20_000 {
            let number = random.below(200)
            if let (slot, _) = arena.find(key(number)) {
                switch random.below(4) {
                case 0: arena.remove(slot)
                case 1 where pinned.count < 12:
                    arena.pin(slot)
                    pinned.append(slot)
                    arena.remove(slot)
                default: arena.touch(slot)
                }
            } else {
                let slot = try #require(
                    arena.put(key(number), info(UInt64(step), bytes: 5 * 4096 - 8)))
                #expect(arena.pieces(slot).count == 1)
                #expect(arena.pieces(slot)[0].offset % (5 * 4096) == 0)
            }
            if pinned.count > 0 && random.below(3) == 0 {
                arena.unpin(pinned.remove(at: random.below(pinned.count)))
            }
        }
        #expect(arena.evictions > 100)
        #expect(arena.statistics.scattered == 0)
    }

    @Test func slabMapFollowsAModel() {
        var map = SlabMap(count: 4500)
        var free = [Bool](repeating: true, count: 4500)
        var held: [(start: Int, length: Int)] = []
        var random = Random(3)
        for _ in 0..<20_000 {
            if random.below(2) == 0 {
                let wanted = 1 + random.below(150)
                let available = free.count { $0 }
                let run = map.take(upTo: wanted, hint: random.below(4500))
                #expect((run == nil) == (available == 0))
                guard let run else { continue }
                #expect(run.length > 0 && run.length <= wanted)
                for slab in run.start..<(run.start + run.length) {
                    #expect(free[slab])
                    free[slab] = false
                }
                held.append(run)
            } else if !held.isEmpty {
                let run = held.swapAt(random.below(held.count))
                map.give(start: run.start, length: run.length)
                for slab in run.start..<(run.start + run.length) { free[slab] = true }
            }
            let from = random.below(4500)
            #expect(map.nextFree(from: from) == free[from...].firstIndex(of: true))
        }
        #expect(map.freeCount == free.count { $0 })
    }
}

extension Array {
    /// Takes out the element by putting the last in its place.
    fileprivate mutating func swapAt(_ index: Int) -> Element {
        swapAt(index, count - 1)
        return removeLast()
    }
}
