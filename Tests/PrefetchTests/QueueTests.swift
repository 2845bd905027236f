// QueueTests: the queue of wanted blocks under random operations, beside a plain list of what
// should be in it.

import LogStore
import Testing

@testable import Prefetch

@Suite struct QueueTests {
    private struct Wanted: Equatable {
        var number: Int
        var request: UInt64
        var state: BlockState
    }

    private struct Random {
        var state: UInt64
        mutating func below(_ limit: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int((state >> 33) % UInt64(limit))
        }
    }

    private func fingerprint(_ number: Int) -> Fingerprint {
        // Few places of the hash, so that chains are long.
        Fingerprint(hi: UInt64(number) + 1, lo: UInt64(number % 7))
    }

    private func append(
        _ queue: PrefetchQueue, _ request: Int32, _ number: Int, _ state: BlockState
    ) -> Bool {
        withUnsafeBytes(of: UInt64(number)) {
            queue.append(
                request, fingerprint(number), $0, namespaceSlot: 1, instance: 1, .chain, now: 1,
                state: state)
        }
    }

    @Test(arguments: [1, 2, 3]) func agreesWithAPlainList(_ seed: Int) {
        let queue = PrefetchQueue(blocks: 40, requests: 12)
        var random = Random(state: UInt64(seed))
        var model: [Wanted] = []
        var dues: [UInt64: UInt64] = [:]
        for step in 0..<20_000 {
            let (number, id) = (random.below(30), UInt64(1 + random.below(15)))
            switch random.below(8) {
            case 0, 1, 2: wants(queue, &model, &dues, number, id, UInt64(random.below(50)))
            case 3: begins(queue, &model)
            case 4: ends(queue, &model, number, sleeps: random.below(2) == 0)
            case 5: wakes(queue, &model, number)
            case 6:
                let index = queue.find(fingerprint(number))
                if index >= 0, queue.blocks[Int(index)].state == .waiting {
                    queue.sleepWaiting(index)
                    change(&model, number, from: .waiting, to: .dormant)
                }
            default: cancels(queue, &model, id)
            }
            check(queue, model, step)
        }
    }

    private func change(
        _ model: inout [Wanted], _ number: Int, from: BlockState, to: BlockState
    ) {
        guard let at = model.firstIndex(where: { $0.number == number && $0.state == from })
        else {
            Issue.record("block \(number) is not \(from)")
            return
        }
        model[at].state = to
    }

    private func wants(
        _ queue: PrefetchQueue, _ model: inout [Wanted], _ dues: inout [UInt64: UInt64],
        _ number: Int, _ id: UInt64, _ due: UInt64
    ) {
        let requests = Set(model.map(\.request))
        let request = queue.request(id, due: due)
        guard request >= 0 else {
            #expect(requests.count == 12 && !requests.contains(id))
            return
        }
        defer { queue.releaseIfUnused(request) }
        if queue.has(request, fingerprint(number)) {
            #expect(model.contains { $0.number == number && $0.request == id })
            return
        }
        #expect(!model.contains { $0.number == number && $0.request == id })
        let isActive = queue.find(fingerprint(number)) >= 0
        #expect(isActive == model.contains { $0.number == number && $0.state != .dormant })
        if isActive, queue.dormants(fingerprint(number)).count >= PrefetchQueue.dormantsABlock {
            return
        }
        let state: BlockState = isActive ? .dormant : .waiting
        let isTaken = append(queue, request, number, state)
        #expect(isTaken == (model.count < 40))
        if isTaken { model.append(Wanted(number: number, request: id, state: state)) }
    }

    private func begins(_ queue: PrefetchQueue, _ model: inout [Wanted]) {
        let first = queue.first
        guard first >= 0 else {
            #expect(!model.contains { $0.state == .waiting })
            return
        }
        let due = queue.due(first)
        for index in 0..<40 {
            let block = queue.blocks[index]
            if block.request >= 0, block.state == .waiting {
                #expect(queue.requests[Int(block.request)].due >= due)
            }
        }
        let number = Int(queue.key(first).loadUnaligned(as: UInt64.self))
        queue.begin(first)
        change(&model, number, from: .waiting, to: .inFlight)
    }

    private func ends(
        _ queue: PrefetchQueue, _ model: inout [Wanted], _ number: Int, sleeps: Bool
    ) {
        let index = queue.find(fingerprint(number))
        guard index >= 0, queue.blocks[Int(index)].isInFlight else { return }
        if sleeps {
            queue.putToSleep(index)
            change(&model, number, from: .inFlight, to: .dormant)
        } else {
            queue.putBack(index)
            change(&model, number, from: .inFlight, to: .waiting)
        }
    }

    private func wakes(_ queue: PrefetchQueue, _ model: inout [Wanted], _ number: Int) {
        let (count, first) = queue.dormants(fingerprint(number))
        #expect(count == model.filter { $0.number == number && $0.state == .dormant }.count)
        guard first >= 0, queue.find(fingerprint(number)) < 0 else { return }
        let id = queue.requests[Int(queue.blocks[Int(first)].request)].id
        queue.wake(first)
        let at = model.firstIndex { $0.number == number && $0.request == id }
        #expect(at != nil && model[at ?? 0].state == .dormant)
        if let at { model[at].state = .waiting }
    }

    private func cancels(_ queue: PrefetchQueue, _ model: inout [Wanted], _ id: UInt64) {
        let request = queue.findRequest(id)
        #expect((request >= 0) == model.contains { $0.request == id })
        guard request >= 0 else { return }
        queue.retain(request)
        while queue.requests[Int(request)].head >= 0 {
            queue.remove(queue.requests[Int(request)].head)
        }
        while queue.requests[Int(request)].firstDormant >= 0 {
            queue.remove(queue.requests[Int(request)].firstDormant)
        }
        queue.release(request)
        model.removeAll { $0.request == id && $0.state != .inFlight }
    }

    private func check(_ queue: PrefetchQueue, _ model: [Wanted], _ step: Int) {
        let counts = [BlockState.waiting, .inFlight, .dormant].map { state in
            model.filter { $0.state == state }.count
        }
        #expect([queue.waiting, queue.inFlight, queue.dormant] == counts, "step \(step)")
        #expect(queue.requestCount == Set(model.map(\.request)).count, "step \(step)")
        #expect((queue.oldestDormant >= 0) == (counts[2] > 0))
    }

    @Test func aBlockUnderWayIsHandedOver() {
        let queue = PrefetchQueue(blocks: 8, requests: 4)
        let (a, b) = (queue.request(1, due: 10), queue.request(2, due: 20))
        #expect(append(queue, a, 5, .waiting) && append(queue, b, 5, .dormant))
        let index = queue.first
        queue.begin(index)
        queue.handOver(index, to: queue.dormants(fingerprint(5)).first)
        queue.releaseIfUnused(a)
        #expect(queue.findRequest(1) < 0 && queue.requestCount == 1 && queue.dormant == 0)
        #expect(queue.due(index) == 20)
        queue.remove(index)
        queue.releaseIfUnused(b)
        #expect(queue.requestCount == 0)
    }
}
