// Scans of the index in steps: the records of a checkpoint, and removal by a rule, while inserts
// move entries about between the steps.

import LogStore
import Testing

@Suite struct IndexScanTests {
    /// Copies everything with a buffer of `records`, calling `between` after each step.
    private func copyAll(
        _ index: BlockIndex, records: Int, between: () -> Void = {}
    ) -> (found: [Fingerprint: IndexEntry], written: Int) {
        let bytes = UnsafeMutableRawBufferPointer.allocate(
            byteCount: records * BlockIndex.recordBytes, alignment: 8)
        defer { bytes.deallocate() }
        var found: [Fingerprint: IndexEntry] = [:]
        var bucket = 0
        var written = 0
        while bucket < index.bucketCount {
            let count = index.copyEntries(from: &bucket, into: bytes)
            #expect(count <= records)
            written += count
            for number in 0..<count {
                let record = bytes.baseAddress! + number * BlockIndex.recordBytes
                guard let (fingerprint, entry) = BlockIndex.decode(record: record) else {
                    Issue.record("a record that does not decode")
                    continue
                }
                found[fingerprint] = entry
            }
            between()
        }
        return (found, written)
    }

    @Test(arguments: [8, 9, 100, 5000])
    func copiesEachEntryOnce(records: Int) throws {
        let index = try BlockIndex(capacity: 3000)
        for key in 0..<2900 {
            let fingerprint = keyFingerprint(key)
            #expect(index.insert(fingerprint, derivedEntry(fingerprint, 7)) == .inserted)
        }
        for key in 0..<100 { #expect(index.remove(keyFingerprint(key)) != nil) }
        let (found, written) = copyAll(index, records: records)
        #expect(written == 2800)
        #expect(found.count == 2800)
        for key in 100..<2900 {
            let fingerprint = keyFingerprint(key)
            #expect(found[fingerprint] == derivedEntry(fingerprint, 7))
        }
    }

    /// Residents fill most of the table; churn at the brim makes them move all the time.
    private func crowded(_ capacity: Int, residents: Int) throws -> BlockIndex {
        let index = try BlockIndex(capacity: capacity)
        for key in 0..<residents {
            let fingerprint = keyFingerprint(key)
            #expect(index.insert(fingerprint, derivedEntry(fingerprint, 1)) == .inserted)
        }
        return index
    }

    /// One churn key leaves, another comes; false when that was refused.
    @discardableResult
    private func churn(
        _ index: BlockIndex, _ round: inout Int, _ live: Int, mayRefuse: Bool = false
    ) -> Bool {
        round += 1
        _ = index.remove(keyFingerprint(1_000_000 + round - live))
        let fingerprint = keyFingerprint(1_000_000 + round)
        let result = index.insert(fingerprint, derivedEntry(fingerprint, 1))
        if !mayRefuse { #expect(result == .inserted) }
        return result == .inserted
    }

    @Test(arguments: [1, 40])
    func copyMissesNothingThatMoves(churnPerStep: Int) throws {
        let residents = 19_000
        let index = try crowded(20_000, residents: residents)
        var round = 0
        for _ in 0..<20 {
            let movesBefore = index.moves
            let (found, written) = copyAll(index, records: 24) {
                for _ in 0..<churnPerStep { churn(index, &round, 1000) }
            }
            var missed = 0
            for key in 0..<residents where found[keyFingerprint(key)] == nil { missed += 1 }
            #expect(missed == 0)
            #expect(written >= residents)
            if churnPerStep > 1 { #expect(index.moves - movesBefore > 1000) }
        }
    }

    @Test func movesThatOutrunTheNotesWaitForTheScan() throws {
        // All churn in one pause, beyond 95 %: more moves behind the scan than it can note.
        let residents = 20_000
        let index = try crowded(20_000, residents: residents)
        var round = 0
        var paused = false
        var notes = 0
        var refused = 0
        let (found, _) = copyAll(index, records: index.bucketCount * 4) {
            guard !paused else { return }
            paused = true
            for _ in 0..<60_000 where !churn(index, &round, 700, mayRefuse: true) { refused += 1 }
            notes = index.copyNotes
        }
        #expect(notes >= BlockIndex.notesLimit)
        #expect(refused > 0, "moves behind the scan should have run out")
        var missed = 0
        for key in 0..<residents where found[keyFingerprint(key)] == nil { missed += 1 }
        #expect(missed == 0)
        // With the scan through, there is room again.
        #expect(index.copyNotes == 0)
        for _ in 0..<1000 { churn(index, &round, 500) }
    }

    @Test func sweepRemovesExactlyWhatTheRuleNames() throws {
        let index = try crowded(5000, residents: 4900)
        var bucket = 0
        var steps = 0
        let doomed = { (entry: IndexEntry) in entry.namespaceSlot % 3 == 0 }
        while bucket < index.bucketCount {
            bucket = index.sweep(from: bucket, buckets: 100) { _, entry in doomed(entry) }
            steps += 1
        }
        #expect(bucket == index.bucketCount)
        #expect(steps == (index.bucketCount + 99) / 100)
        var left = 0
        for key in 0..<4900 {
            let fingerprint = keyFingerprint(key)
            let entry = derivedEntry(fingerprint, 1)
            #expect(index.find(fingerprint) == (doomed(entry) ? nil : entry))
            if !doomed(entry) { left += 1 }
        }
        #expect(index.count == left)
        #expect(left < 4500)
    }

    @Test func sweepMissesNothingThatMoves() throws {
        let index = try crowded(20_000, residents: 19_000)
        var round = 0
        for pass in 0..<10 {
            let low = pass * 500
            let doomed = Set((low..<low + 500).map { keyFingerprint($0) })
            var bucket = 0
            while bucket < index.bucketCount {
                bucket = index.sweep(from: bucket, buckets: 4) { fingerprint, _ in
                    doomed.contains(fingerprint)
                }
                for _ in 0..<20 { churn(index, &round, 1000) }
            }
            var missed = 0
            for fingerprint in doomed where index.find(fingerprint) != nil { missed += 1 }
            #expect(missed == 0)
            for key in low..<low + 500 {
                // Put others in their place, to keep the table crowded.
                let other = keyFingerprint(5_000_000 + key)
                #expect(index.insert(other, derivedEntry(other, 1)) == .inserted)
            }
        }
        #expect(index.moves > 10_000)
    }
}
