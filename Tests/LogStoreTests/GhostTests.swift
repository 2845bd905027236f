// The ghosts: what is remembered of blocks that are gone, for the owner and for a reader elsewhere
// while the owner writes; memory that is no ghost table is refused.

import Glibc
import SegmentFormat
import Synchronization
import Testing

@testable import LogStore

/// Told from one thread to another.
private final class Flag: Sendable {
    private let value = Atomic(false)
    var isSet: Bool { value.load(ordering: .acquiring) }
    func set() { value.store(true, ordering: .releasing) }
}

@Suite struct GhostTests {
    private func fingerprint(_ number: Int) -> Fingerprint {
        Fingerprint(hi: SplitMix.mix(UInt64(number)), lo: SplitMix.mix(UInt64(number) &+ 1 << 40))
    }

    private func reader(_ table: GhostTable) throws -> GhostReader {
        try #require(GhostReader(base: table.mapping.base, length: table.mapping.length))
    }

    @Test func theNewestOfASetIsRemembered() throws {
        let table = try GhostTable(capacity: 64)
        let reader = try reader(table)
        let one = fingerprint(1)
        #expect(table.find(one) == nil && reader.find(one) == nil)
        table.note(one, .evicted, seconds: 100)
        #expect(reader.find(one)?.departure == .evicted && reader.find(one)?.seconds == 100)
        table.note(one, .deleted, seconds: 0)
        #expect(table.reason(one) == .deleted && reader.find(one)?.seconds == 1)
        // Four more of its set, and it is forgotten.
        for number in 0..<4 {
            #expect(table.find(one) != nil)
            table.note(
                Fingerprint(hi: one.hi, lo: one.lo &+ UInt64(number) &+ 1), .expired, seconds: 5)
        }
        #expect(table.find(one) == nil && reader.find(one) == nil)
        #expect(reader.find(Fingerprint(hi: one.hi, lo: one.lo &+ 1))?.departure == .expired)
    }

    /// What was remembered in an earlier life comes behind what was noted since.
    @Test func whatWasKeptComesBehindWhatIsNew() throws {
        let (before, now) = (try GhostTable(capacity: 64), try GhostTable(capacity: 64))
        let store = Identity128(hi: 1, lo: 2)
        func sibling(_ number: UInt64) -> Fingerprint {
            let one = fingerprint(1)
            return Fingerprint(hi: one.hi, lo: one.lo &+ number)
        }
        // From the oldest: three of one set, and one that is gone for another reason by then.
        for number in 0..<4 as Range<UInt64> {
            before.note(sibling(number), .evicted, seconds: UInt32(10 + number))
        }
        before.note(fingerprint(7), .expired, seconds: 9)
        now.note(sibling(3), .deleted, seconds: 50)
        now.note(sibling(9), .deleted, seconds: 51)
        #expect(before.watch(store).noted == 5 && now.watch(store).noted == 2)
        now.recall(before.watch(store).ghosts.words)
        #expect(now.watch(store).noted == 2, "kept ones are no news")
        #expect(now.reason(sibling(9)) == .deleted && now.reason(sibling(3)) == .deleted)
        #expect(now.find(sibling(2))?.seconds == 12 && now.find(sibling(1))?.seconds == 11)
        #expect(now.find(sibling(0)) == nil, "four fit in a set, and the oldest goes first")
        #expect(now.find(fingerprint(7))?.departure == .expired)
        // A table of another size says nothing.
        let other = try GhostTable(capacity: 256)
        other.recall(before.watch(store).ghosts.words)
        #expect(other.find(fingerprint(7)) == nil)
    }

    @Test func whatIsNoTableIsRefused() throws {
        let table = try GhostTable(capacity: 64)
        let (base, length) = (table.mapping.base, table.mapping.length)
        #expect(GhostReader(base: base, length: 32) == nil)
        #expect(GhostReader(base: base, length: 512) == nil)
        base.storeBytes(of: 3, toByteOffset: 8, as: UInt64.self)
        #expect(GhostReader(base: base, length: length) == nil)
        base.storeBytes(of: 1 << 40, toByteOffset: 8, as: UInt64.self)
        #expect(GhostReader(base: base, length: length) == nil)
        base.storeBytes(of: 0, toByteOffset: 0, as: UInt64.self)
        #expect(GhostReader(base: base, length: length) == nil)
    }

    /// What was noted with a key follows from the key: a reader never pairs it with another's.
    @Test func aReaderNeverSeesAnothersMark() async throws {
        let table = try GhostTable(capacity: 64)
        let reader = try reader(table)
        let ends = Flag()
        @Sendable func departure(_ number: Int) -> Departure { Departure.allCases[number % 3] }
        let looking = Task.detached {
            var (found, wrong, number) = (0, 0, 0)
            while !ends.isSet {
                number = (number + 7) % 1000
                guard let told = reader.find(fingerprint(number)) else { continue }
                found += 1
                if told.departure != departure(number) || told.seconds != UInt32(number + 1) {
                    wrong += 1
                }
            }
            return (found, wrong)
        }
        for round in 0..<2_000_000 {
            let number = round % 1000
            table.note(fingerprint(number), departure(number), seconds: UInt32(number + 1))
        }
        ends.set()
        let (found, wrong) = await looking.value
        #expect(wrong == 0, "of \(found)")
    }
}
