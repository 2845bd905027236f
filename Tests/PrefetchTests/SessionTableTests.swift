// The table of sessions against a plain dictionary, with keys and times at random.

import LogStore
import Testing

@testable import Prefetch

@Suite struct SessionTableTests {
    private struct Dice {
        var state: UInt64
        mutating func next(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int((state >> 33) % UInt64(bound))
        }
    }

    private struct Model {
        var keys: [[UInt8]] = []
        var leaf: UInt64?
        var look: UInt64?
    }

    private func leaf(_ value: UInt64) -> Fingerprint { Fingerprint(hi: value, lo: value &* 7) }

    @Test(arguments: 0..<20) func agreesWithAModel(seed: UInt64) {
        var dice = Dice(state: seed &* 77 &+ 5)
        var table = SessionTable(sessions: 24, keys: 60)
        defer { table.deallocate() }
        var model: [UInt64: Model] = [:]
        for round in 0..<4000 {
            let id = UInt64(1 + dice.next(60))
            let index = table.find(id)
            #expect((index >= 0) == (model[id] != nil))
            switch dice.next(8) {
            case 0, 1:
                if index < 0 {
                    if !table.hasRoom {
                        let oldest = table.oldest
                        model[table.sessions[Int(oldest)].id] = nil
                        table.remove(oldest)
                    }
                    #expect(table.insert(id) >= 0)
                    model[id] = Model()
                }
            case 2, 3:
                guard index >= 0 else { continue }
                let key = [UInt8](repeating: UInt8(dice.next(256)), count: 1 + dice.next(40))
                let taken = key.withUnsafeBytes { table.append($0, to: index) }
                let used = model.values.reduce(0) { $0 + $1.keys.count }
                #expect(taken == (key.count <= SessionKey.longest && used < 60))
                if taken { model[id]?.keys.append(key) }
            case 4:
                guard index >= 0 else { continue }
                table.dropKeys(index)
                model[id]?.keys = []
                model[id]?.leaf = nil
            case 5:
                guard index >= 0 else { continue }
                let value = UInt64(1 + dice.next(1_000_000))
                table.setLeaf(leaf(value), of: index)
                model[id]?.leaf = value
            case 6:
                guard index >= 0 else { continue }
                let time = UInt64(dice.next(1000))
                table.schedule(index, at: time)
                model[id]?.look = time
            default:
                guard index >= 0 else { continue }
                if dice.next(2) == 0 {
                    table.unschedule(index)
                    model[id]?.look = nil
                } else if dice.next(4) == 0 {
                    table.remove(index)
                    model[id] = nil
                } else {
                    table.renew(index)
                }
            }
            guard round % 16 == 0 else { continue }
            #expect(table.count == model.count)
            #expect(table.nextLook == model.values.compactMap(\.look).min() ?? .max)
            for (id, kept) in model { check(table, id, kept) }
        }
    }

    private func check(_ table: SessionTable, _ id: UInt64, _ kept: Model) {
        let index = table.find(id)
        var found: [[UInt8]] = []
        var node = index < 0 ? -1 : table.sessions[Int(index)].firstKey
        while node >= 0 {
            found.append(Array(table.key(node)))
            if node == table.sessions[Int(index)].lastKey { break }
            node = table.keys[Int(node)].next
        }
        #expect(found == kept.keys)
        if let value = kept.leaf {
            let byLeaf = table.find(leaf: leaf(value))
            #expect(byLeaf >= 0 && table.sessions[Int(byLeaf)].leaf == leaf(value))
        }
    }
}
