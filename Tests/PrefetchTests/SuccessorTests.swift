// SuccessorTests: the table beside a plain model of what it says it does (a dictionary of last
// successors and of everybody who followed), and its bounds.

import LogStore
import Testing

@testable import Prefetch

private func fingerprint(_ number: Int) -> Fingerprint {
    var state = UInt64(bitPattern: Int64(number)) &* 0x9E37_79B9_7F4A_7C15
    func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = (state ^ (state >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
    return Fingerprint(hi: next(), lo: next())
}

/// A table over numbered blocks.
private final class Numbered {
    var table: SuccessorTable

    init(entries: Int = 4096) { table = SuccessorTable(entries: entries) }
    deinit { table.deallocate() }

    private func withKey<Result>(
        _ number: Int, _ body: (UnsafeRawBufferPointer) -> Result
    ) -> Result {
        withUnsafeBytes(of: UInt64(bitPattern: Int64(number)).littleEndian, body)
    }

    func put(_ number: Int, after parent: Int? = nil, continues: Bool = false) {
        withKey(number) { key in
            withKey(parent ?? 0) {
                table.put(
                    fingerprint(number), key, namespaceSlot: 1, parent: parent.map(fingerprint),
                    parentKey: $0, continues: continues)
            }
        }
    }

    @discardableResult
    func read(
        _ number: Int, after parent: Int? = nil, continues: Bool = false
    ) -> SuccessorTable.Step {
        withKey(number) {
            table.read(
                fingerprint(number), $0, namespaceSlot: 1, parent: parent.map(fingerprint),
                continues: continues)
        }
    }

    /// All that is predicted now.
    func predictions(_ step: SuccessorTable.Step) -> [Int] {
        var made: [Int] = []
        while case let place = table.predict(step.stream), place >= 0, made.count < 1000 {
            let key = table.key(place)
            #expect(key.count == 8)
            made.append(Int(key.loadUnaligned(as: UInt64.self).littleEndian))
        }
        return made
    }

    func putChain(_ numbers: some Sequence<Int>) {
        var before: Int?
        for number in numbers {
            put(number, after: before)
            before = number
        }
    }
}

private struct Random {
    var state: UInt64
    mutating func below(_ limit: Int) -> Int {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return Int((state >> 33) % UInt64(limit))
    }
}

@Suite struct SuccessorTests {
    @Test func depthGrowsWithConfirmedSteps() {
        let numbered = Numbered()
        numbered.putChain(0..<200)
        var frontier = 0
        for number in 0..<60 {
            let step = numbered.read(number, continues: number > 0)
            #expect(!step.hasStrayed && step.isNew == (number == 0))
            let depth = number < 2 ? 1 : number < 16 ? 8 : 64
            let made = numbered.predictions(step)
            let expected = Array((frontier + 1)..<max(frontier + 1, number + depth + 1))
            #expect(made == expected, "after \(number)")
            frontier = max(frontier, number + depth)
        }
    }

    /// As an engine puts a chain that wants its head to be the one used most recently.
    @Test func aChainPutFromItsEndIsLearnt() {
        let numbered = Numbered()
        for number in (1..<40).reversed() { numbered.put(number, after: number - 1) }
        numbered.put(0)
        let made = (0..<40).flatMap {
            numbered.predictions(numbered.read($0, continues: $0 > 0))
        }
        #expect(made == Array(1..<40))
    }

    @Test func aWrongPredictionIsTakenBackAndDepthStartsAnew() {
        let numbered = Numbered()
        numbered.putChain(0..<100)
        numbered.putChain([20, 1000, 1001, 1002, 1003])
        numbered.putChain([20, 21])
        for number in 0...20 {
            _ = numbered.predictions(numbered.read(number, continues: number > 0))
        }
        let strayed = numbered.read(1000, continues: true)
        #expect(strayed.hasStrayed && !strayed.isNew)
        #expect(numbered.predictions(strayed) == [1001])
        // The last one is what is predicted from now on.
        let again = numbered.read(19)
        _ = numbered.predictions(again)
        #expect(numbered.predictions(numbered.read(20, continues: true)) == [1000])
    }

    @Test func noPredictionOutOfARoot() {
        let numbered = Numbered()
        for chain in 1...4 { numbered.putChain([0, chain * 10, chain * 10 + 1]) }
        #expect(numbered.predictions(numbered.read(0)) == [40])
        // A hash of sixteen places: some of these fall together with the four.
        for chain in 5...12 { numbered.putChain([0, chain * 10, chain * 10 + 1]) }
        #expect(numbered.predictions(numbered.read(0)) == [])
        #expect(numbered.predictions(numbered.read(120)) == [121])
    }

    @Test func strangersAreNotTakenForAChain() {
        let numbered = Numbered()
        // Two readers in turns, neither of which says what follows what.
        let pairs = (0..<40).flatMap { [$0, 1000 + $0 * 7 % 40] }
        for number in pairs {
            #expect(numbered.predictions(numbered.read(number)) == [], "seen once, not told")
        }
    }

    @Test func interleavedReadersKeepTheirStreams() {
        let numbered = Numbered()
        numbered.putChain(0..<50)
        numbered.putChain(1000..<1050)
        var (first, second): ([Int], [Int]) = ([], [])
        for step in 0..<30 {
            first += numbered.predictions(numbered.read(step))
            second += numbered.predictions(numbered.read(1000 + step))
        }
        #expect(first == Array(1..<50))
        #expect(second == Array(1001..<1050))
    }

    @Test func whatIsNotThereEndsAStreamUntilItIsCaughtUp() {
        let numbered = Numbered()
        numbered.putChain(0..<20)
        let step = numbered.read(0)
        #expect(numbered.predictions(step) == [1])
        numbered.table.end(step.stream)
        #expect(numbered.predictions(numbered.read(1, continues: true)) == [2])
    }

    @Test func longKeysAreNotLearnt() {
        let numbered = Numbered()
        let key = [UInt8](repeating: 7, count: 33)
        let step = key.withUnsafeBytes {
            numbered.table.read(
                fingerprint(5), $0, namespaceSlot: 1, parent: nil, continues: false)
        }
        #expect(step.stream == -1 && numbered.table.find(fingerprint(5)) < 0)
    }

    /// Depth 1 on random walks over random trees, against dictionaries.
    @Test(arguments: [1, 2, 3, 4]) func agreesWithAPlainModel(_ seed: Int) {
        let numbered = Numbered(entries: 1 << 14)
        var random = Random(state: UInt64(seed))
        var children: [Int: [Int]] = [:]
        var last: [Int: Int] = [:]
        var followed: [Int: Set<UInt64>] = [:]
        var count = 1
        func follow(_ before: Int, _ after: Int) {
            last[before] = after
            followed[before, default: []].insert(max(1, fingerprint(after).hi) & 15)
        }
        var (predicted, right) = (0, 0)
        for round in 0..<700 {
            // Somebody else's, so that a walk does not seem to go on from the last one's end.
            numbered.read(1_000_000 + round)
            var at = 0
            var before: Int?
            // Down the tree as far as it goes, then some new blocks.
            while true {
                let step = numbered.read(at, continues: before != nil)
                if let before { follow(before, at) }
                let open = (followed[at]?.count ?? 0) <= SuccessorTable.mostFollowers
                let place = numbered.table.predict(step.stream)
                let lead = numbered.table.streams[Int(step.stream)].lead
                if lead == 1, place >= 0 {
                    predicted += 1
                    let key = numbered.table.key(place).loadUnaligned(as: UInt64.self)
                    if open, last[at] == Int(key) { right += 1 }
                } else if place < 0, lead == 0 {
                    predicted += 1
                    if !open || last[at] == nil { right += 1 }
                }
                before = at
                guard let next = children[at], random.below(12) > 0 else { break }
                at = next[random.below(next.count)]
            }
            guard let end = before, count < 1500 else { continue }
            var tail = end
            for _ in 0..<(1 + random.below(6)) {
                children[tail, default: []].append(count)
                numbered.put(count, after: tail)
                follow(tail, count)
                tail = count
                count += 1
            }
        }
        #expect(predicted > 2000)
        #expect(right == predicted)
    }

    /// Far more blocks than places, streams and namespaces of one table: bounded, and what it says
    /// are keys that it was told.
    @Test func aFloodStaysWithinTheTable() {
        let numbered = Numbered(entries: 256)
        var random = Random(state: 9)
        for event in 0..<20_000 {
            let number = random.below(50_000)
            if event % 3 == 0 {
                numbered.put(number, after: random.below(50_000))
            } else {
                let step = numbered.read(
                    number, after: event % 5 == 0 ? number : nil, continues: event % 2 == 0)
                #expect(step.stream >= 0 && step.stream < Int32(SuccessorTable.streams))
                for made in numbered.predictions(step) { #expect(made < 50_000) }
            }
        }
        #expect(SuccessorTable.memoryBytes(entries: 256) < 256 * 64 + (16 << 10))
        #expect(MemoryLayout<SuccessorNode>.stride <= 64)
    }

    @Test func theOldestMakesWay() {
        let numbered = Numbered(entries: 1024)
        for number in 0..<20_000 { numbered.put(number, after: number - 1) }
        let kept = (0..<20_000).filter { numbered.table.find(fingerprint($0)) >= 0 }
        #expect(kept.count == 1024)
        // Sets of eight fill unevenly; the newest blocks are there all the same.
        #expect((19_700..<20_000).allSatisfy { numbered.table.find(fingerprint($0)) >= 0 })
    }
}
