// The index's budgets: bytes for an entry, and time for a batch of 20,000 lookups. Times are held
// to in release builds only; HEARTH_BIG=1 runs the same at 67 million entries.

import Glibc
import LogStore
import Testing

@Suite(.serialized) struct IndexBudgetTests {
    private func measure(_ entries: Int) throws {
        let index = try BlockIndex(capacity: entries)
        var start = testNanoseconds()
        for key in 0..<entries {
            let fingerprint = keyFingerprint(key)
            guard index.insert(fingerprint, derivedEntry(fingerprint, 1)) == .inserted else {
                Issue.record("full at \(key) of \(entries)")
                return
            }
        }
        let insertTime = Double(testNanoseconds() - start) / Double(entries)
        let bytes = Double(index.memoryBytes) / Double(index.count)
        #expect(bytes <= 48)

        let size = 20_000
        var random = SplitMix(1)
        var keys = [Fingerprint](repeating: Fingerprint(hi: 0, lo: 0), count: size)
        var answers = [Bool](repeating: false, count: size)
        var batch: [UInt64] = []
        var absentBatch: [UInt64] = []
        var singles: [UInt64] = []
        var finds: [UInt64] = []
        var wrong = 0
        let reader = index.reader
        for round in 0..<31 {
            // Of four rounds three with all keys present, one with none.
            let absent = round % 4 == 3
            for slot in 0..<size {
                keys[slot] = keyFingerprint(random.below(entries) + (absent ? entries : 0))
            }
            start = testNanoseconds()
            keys.withUnsafeBufferPointer { keys in
                answers.withUnsafeMutableBufferPointer { into in
                    if let into = into.baseAddress { reader.contains(keys, now: 1, into: into) }
                }
            }
            let took = testNanoseconds() - start
            if absent { absentBatch.append(took) } else { batch.append(took) }
            for answer in answers where answer == absent { wrong += 1 }
            for slot in 0..<size { keys[slot] = keyFingerprint(random.below(entries)) }
            start = testNanoseconds()
            for key in keys where !reader.contains(key, now: 1) { wrong += 1 }
            singles.append(testNanoseconds() - start)
            for slot in 0..<size { keys[slot] = keyFingerprint(random.below(entries)) }
            start = testNanoseconds()
            for key in keys where index.find(key) == nil { wrong += 1 }
            finds.append(testNanoseconds() - start)
        }
        #expect(wrong == 0)
        batch.sort()
        absentBatch.sort()
        singles.sort()
        finds.sort()
        func each(_ sorted: [UInt64]) -> Int { Int(sorted[sorted.count / 2]) / size }
        print(
            "index of \(entries): \(bytes) B an entry (\(index.mapping.pages.rawValue)),",
            "insert \(Int(insertTime)) ns, \(index.moves) moves, batch of 20,000 contains",
            "\(Double(batch[12]) / 1e6) ms (best \(Double(batch[0]) / 1e6)),",
            "all absent \(Double(absentBatch[3]) / 1e6) ms,",
            "single contains \(each(singles)) ns, owner's find \(each(finds)) ns")
        #if !DEBUG
            // The best of them: others use the machine too.
            #expect(batch[0] < 2_000_000)
        #endif
    }

    @Test func aMillion() throws { try measure(1_000_000) }

    @Test(.enabled(if: getenv("HEARTH_BIG") != nil))
    func sixtySevenMillion() throws { try measure(67_000_000) }
}
