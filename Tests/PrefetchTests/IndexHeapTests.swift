// The heap of numbers with keys, held against a list that is searched.

import Testing

@testable import Prefetch

@Suite struct IndexHeapTests {
    @Test(arguments: [1, 2, 3] as [UInt64]) func itGivesTheLeast(seed: UInt64) {
        let capacity = 40
        var heap = IndexHeap(capacity: capacity)
        defer { heap.deallocate() }
        var model: [Int32: (key: UInt64, order: UInt64)] = [:]
        var state = seed
        func draw(_ below: UInt64) -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return (state >> 33) % below
        }
        for step in 0..<5000 {
            let index = Int32(draw(UInt64(capacity)))
            if draw(3) == 0 {
                heap.remove(index)
                model[index] = nil
            } else {
                // Few keys, so that many are equal.
                let key = draw(10)
                heap.set(index, key: key, order: UInt64(step))
                model[index] = (key, UInt64(step))
            }
            let least = model.min {
                ($0.value.key, $0.value.order) < ($1.value.key, $1.value.order)
            }
            #expect(heap.first == least?.key ?? -1)
            #expect(heap.firstKey == least?.value.key ?? .max)
            #expect(heap.contains(index) == (model[index] != nil))
        }
    }
}
