// Hints: an engine that tells the truth, errs and floods. Whatever it says, no answer may
// change but in where the bytes come from.

import LogStore
import Prefetch
import SimulatedDisk
import Staging
import Tiering

extension World {
    func hint() {
        guard let tiered, journal == nil else { return }
        let space = random.below(model.namespaces.count)
        // A namespace that was never opened, too.
        let slot =
            random.chance(0.05)
            ? UInt16(random.below(4096)) : model.namespaces[space].slot ?? UInt16(random.below(9))
        var made = Hint(drawKind(), namespaceSlot: slot)
        made.request = UInt64(random.below(6))
        made.session = UInt64(random.below(4))
        let dues: [UInt64] = [0, 1, clock.monotonic, clock.monotonic + 1_000_000_000, .max]
        made.due = dues[random.below(dues.count)]
        made.state = SessionState.allCases[random.below(SessionState.allCases.count)]
        made.step = UInt32(random.below(5))
        made.layer = UInt32(random.below(5))
        made.firstShard = UInt32(random.chance(0.1) ? Int(UInt32.max) : random.below(6))
        made.shardCount = UInt32(random.chance(0.1) ? Int(UInt32.max) : random.below(6))
        made.confidence = UInt32(random.below((1 << 16) + 1))
        tally.add("hints \(made.kind)")
        let needsKeys = made.kind != .cancel && made.kind != .progress
        giveHint(tiered, made, space, needsKeys ? random.below(14) : 0)
    }

    private func drawKind() -> HintKind {
        random.chance(0.5) ? .chain : HintKind.allCases[random.below(HintKind.allCases.count)]
    }

    /// Keys from one on, in a row, as those of a chain.
    private func giveHint(_ tiered: TieredStore, _ hint: Hint, _ space: Int, _ count: Int) {
        let keys = model.namespaces[space].keys.count
        let first = random.below(keys)
        let stride = Payload.maximumKeyBytes
        withUnsafeTemporaryAllocation(byteCount: max(1, count) * stride, alignment: 8) { memory in
            guard let base = memory.baseAddress else { return }
            var list: [UnsafeRawBufferPointer] = []
            for index in 0..<count {
                let key = base + index * stride
                let length = Payload.key((first + index) % keys, into: key)
                list.append(UnsafeRawBufferPointer(start: key, count: length))
            }
            list.withUnsafeBufferPointer { tiered.hint(hint, keys: $0) }
            // The memory is the caller's again: nothing may be looked at later.
            memory.initializeMemory(as: UInt8.self, repeating: 0xEE)
        }
    }

    func collectPrefetching() {
        guard let made = tiered?.prefetchStatistics else { return }
        tally.add("prefetched blocks", made.total.issued)
        tally.add("prefetched and used", made.total.useful)
        tally.add("prefetched and late", made.total.useful - made.total.timely)
        tally.add("prefetched and wasted", made.total.wasted)
        tally.add("prefetches failed", made.total.failed)
        tally.add("prefetches overtaken", made.overtaken)
        tally.add("prefetches cancelled", made.cancelled)
        tally.add("hinted keys overflowed", made.overflowed)
        tally.add("pollution", made.pollution)
        let total = made.total
        if total.useful + total.wasted + total.failed > total.issued || total.timely > total.useful
        {
            fail("prefetches do not add up: \(total)")
        }
    }
}
