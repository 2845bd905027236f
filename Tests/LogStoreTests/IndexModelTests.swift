// The block index against a dictionary, at its limits, and through its record format.

import BlockIO
import Glibc
import LogStore
import Testing

@Suite struct IndexModelTests {
    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func agreesWithADictionary(seed: UInt64) throws {
        var random = SplitMix(seed)
        let keys = 3000
        let index = try BlockIndex(capacity: 2000)
        var model: [Int: IndexEntry] = [:]
        var inserts = 0, replaces = 0, removes = 0, updates = 0, hits = 0, misses = 0
        for step in 0..<60_000 {
            let key = random.below(keys)
            let fingerprint = keyFingerprint(key)
            let entry = derivedEntry(fingerprint, UInt32(step))
            switch random.below(10) {
            case 0...3 where model.count < 2000 || model[key] != nil:
                let expected: BlockIndex.InsertResult = model[key] == nil ? .inserted : .replaced
                #expect(index.insert(fingerprint, entry) == expected)
                if expected == .inserted { inserts += 1 } else { replaces += 1 }
                model[key] = entry
            case 4, 5:
                let removed = index.remove(fingerprint)
                #expect(removed == model[key])
                if removed != nil { removes += 1 }
                model[key] = nil
            case 6:
                #expect(index.update(fingerprint, entry) == (model[key] != nil))
                if model[key] != nil {
                    model[key] = entry
                    updates += 1
                }
            case 7:
                if random.below(4) == 0 {
                    #expect(index.markDamaged(fingerprint) == (model[key] != nil))
                    model[key]?.flags |= IndexEntry.damagedFlag
                } else {
                    index.warm(fingerprint)
                    if let heat = model[key]?.heat, heat < 15 { model[key]?.flags += 1 }
                }
                if random.below(2000) == 0 {
                    _ = index.cool(from: 0, buckets: index.bucketCount)
                    for (key, entry) in model {
                        let damaged = entry.flags & IndexEntry.damagedFlag
                        model[key]?.flags = damaged | entry.heat / 2
                    }
                }
            default:
                let found = index.find(fingerprint)
                #expect(found == model[key])
                #expect(index.reader.find(fingerprint) == model[key])
                if found == nil { misses += 1 } else { hits += 1 }
            }
            #expect(index.count == model.count)
        }
        for key in 0..<keys {
            let found = index.find(keyFingerprint(key))
            #expect(found == model[key])
        }
        #expect(index.reader.count == model.count)
        #expect(min(inserts, replaces, removes, updates, hits, misses) > 1000)
        index.removeAll()
        #expect(index.count == 0)
        for key in 0..<keys { #expect(index.find(keyFingerprint(key)) == nil) }
    }

    @Test(arguments: [1, 7, 8, 50, 1000, 30_000])
    func holdsItsCapacity(capacity: Int) throws {
        let index = try BlockIndex(capacity: capacity)
        for key in 0..<capacity {
            let fingerprint = keyFingerprint(key)
            guard index.insert(fingerprint, derivedEntry(fingerprint, 1)) == .inserted else {
                Issue.record("full at \(key) of \(capacity)")
                return
            }
        }
        #expect(index.count == capacity)
        for key in 0..<capacity {
            let fingerprint = keyFingerprint(key)
            #expect(index.find(fingerprint) == derivedEntry(fingerprint, 1))
        }
        if capacity >= 30_000 { #expect(index.moves > 100) }
    }

    @Test func saysFullAndKeepsWhatItHas() throws {
        let index = try BlockIndex(capacity: 5000)
        let slots = index.bucketCount * 8
        var held: [Int] = []
        var refused: [Int] = []
        for key in 0..<slots + 500 {
            let fingerprint = keyFingerprint(key)
            switch index.insert(fingerprint, derivedEntry(fingerprint, 3)) {
            case .inserted: held.append(key)
            case .full: refused.append(key)
            case .replaced: Issue.record("a new key cannot replace")
            }
        }
        #expect(refused.count >= 500)
        #expect(index.count == held.count)
        // The search is bounded, but the table is all but full when it gives up for the first time.
        #expect(Double(refused[0]) > 0.97 * Double(slots))
        for key in held {
            #expect(index.find(keyFingerprint(key)) == derivedEntry(keyFingerprint(key), 3))
        }
        for key in refused { #expect(index.find(keyFingerprint(key)) == nil) }
        // A full table still overwrites, and takes a new key when one leaves.
        let first = keyFingerprint(held[0])
        #expect(index.insert(first, derivedEntry(first, 4)) == .replaced)
        #expect(index.find(first) == derivedEntry(first, 4))
        #expect(index.remove(first) == derivedEntry(first, 4))
        #expect(index.insert(first, derivedEntry(first, 5)) == .inserted)
    }

    @Test func refusesAnImpossibleCapacity() {
        #expect(throws: IOError.self) { _ = try BlockIndex(capacity: 0) }
        #expect(throws: IOError.self) { _ = try BlockIndex(capacity: .max) }
    }

    @Test func expiryIsRespected() throws {
        let index = try BlockIndex(capacity: 100)
        var fingerprints: [Fingerprint] = []
        for key in 0..<90 {
            let fingerprint = keyFingerprint(key)
            var entry = derivedEntry(fingerprint, 1)
            entry.expiry = UInt32(key)
            #expect(index.insert(fingerprint, entry) == .inserted)
            fingerprints.append(fingerprint)
        }
        let reader = index.reader
        var answers = [Bool](repeating: false, count: 90)
        fingerprints.withUnsafeBufferPointer { keys in
            answers.withUnsafeMutableBufferPointer { into in
                reader.contains(keys, now: 40, into: into.baseAddress!)
            }
        }
        for key in 0..<90 {
            let expected = key == 0 || key > 40
            #expect(answers[key] == expected)
            #expect(reader.contains(fingerprints[key], now: 40) == expected)
            #expect(reader.find(fingerprints[key])?.isExpired(at: 40) == !expected)
        }
        #expect(reader.contains(fingerprints[89], now: .max) == false)
    }

    @Test func batchAgreesWithSingle() throws {
        let index = try BlockIndex(capacity: 5000)
        for key in 0..<5000 {
            let fingerprint = keyFingerprint(key)
            _ = index.insert(fingerprint, derivedEntry(fingerprint, 1))
        }
        // Keys that share hi, or hi and buckets, with others, besides present and absent ones.
        var fingerprints = (0..<10_000).map { keyFingerprint($0) }
        for key in 0..<200 {
            let original = keyFingerprint(key)
            fingerprints.append(Fingerprint(hi: original.hi, lo: original.lo ^ 1))
            fingerprints.append(Fingerprint(hi: 0, lo: original.lo))
        }
        var twin = keyFingerprint(1)
        twin.lo ^= 1
        let entry = derivedEntry(twin, 9)
        #expect(index.insert(twin, entry) == .inserted)
        #expect(index.find(twin) == entry)
        #expect(index.find(keyFingerprint(1)) == derivedEntry(keyFingerprint(1), 1))
        // What is damaged is found, but does not count as there.
        for number in stride(from: 0, to: fingerprints.count, by: 5) {
            index.markDamaged(fingerprints[number])
        }
        for size in [0, 1, 31, 32, 33, fingerprints.count] {
            var answers = [Bool](repeating: false, count: size + 1)
            fingerprints.withUnsafeBufferPointer { keys in
                answers.withUnsafeMutableBufferPointer { into in
                    let part = UnsafeBufferPointer(rebasing: keys[..<size])
                    index.reader.contains(part, now: 1, into: into.baseAddress!)
                }
            }
            for number in 0..<size {
                let found = index.find(fingerprints[number])
                let present = found.map { !$0.isDamaged } ?? false
                #expect(answers[number] == present)
                #expect(index.reader.contains(fingerprints[number], now: 1) == present)
            }
            #expect(answers[size] == false)
        }
    }

    @Test func garbageDecodesToNilOrSomethingValid() {
        var random = SplitMix(99)
        var decoded = 0
        let record = UnsafeMutableRawPointer.allocate(byteCount: 48, alignment: 8)
        defer { record.deallocate() }
        for round in 0..<50_000 {
            // Unaligned, as in a buffer read from disk.
            let start = record + round % 8
            for word in 0..<5 {
                start.storeBytes(of: random.next(), toByteOffset: word * 8, as: UInt64.self)
            }
            if round % 5 == 0 { start.storeBytes(of: 0, as: UInt64.self) }
            if let (fingerprint, entry) = BlockIndex.decode(record: start) {
                decoded += 1
                #expect(fingerprint.hi != 0 && entry.isValid)
            } else {
                let hi = start.loadUnaligned(as: UInt64.self)
                let length = start.loadUnaligned(fromByteOffset: 24, as: UInt64.self) >> 37
                #expect(hi == 0 || length == 0 || length > 64 << 20)
            }
        }
        #expect(decoded > 10_000)
        for word in 0..<5 { record.storeBytes(of: 0, toByteOffset: word * 8, as: UInt64.self) }
        #expect(BlockIndex.decode(record: record) == nil)
        record.storeBytes(of: 1, as: UInt64.self)
        #expect(BlockIndex.decode(record: record) == nil, "a length of 0")
    }

    @Test func everyFieldKeepsItsExtremes() throws {
        let index = try BlockIndex(capacity: 10)
        let low = IndexEntry(
            place: Place(segment: 0, page: 0), length: 1, shardCount: 1, namespaceSlot: 0,
            versionLow: 0, checksum: 0, expiry: 0, flags: 0)
        let high = IndexEntry(
            place: Place(segment: 0xF_FFFF, page: 0xF_FFFF), length: 64 << 20, shardCount: 4096,
            namespaceSlot: 4095, versionLow: .max, checksum: .max, expiry: .max, flags: 31)
        let ends = [Fingerprint(hi: 0, lo: 0), Fingerprint(hi: .max, lo: .max)]
        for fingerprint in ends {
            for entry in [low, high] {
                _ = index.insert(fingerprint, entry)
                #expect(index.find(fingerprint) == entry)
                #expect(index.reader.lookup(fingerprint) == .found(entry))
            }
        }
        #expect(index.count == 2)
        var invalid = high
        invalid.length += 1
        #expect(!invalid.isValid)
        invalid = low
        invalid.length = 0
        #expect(!invalid.isValid)
        invalid = high
        invalid.shardCount = 4097
        #expect(!invalid.isValid)
        invalid = high
        invalid.place.page += 1
        #expect(!invalid.isValid)
    }
}
