// What a store has learnt of returns, and why its blocks are gone, is there again when it is opened
// anew, and is nothing that an opening depends on.

import Foundation
import SegmentFormat
import Testing

@testable import Hearth

@Suite struct LearntTests {
    private func path(_ directory: TemporaryDirectory) -> String { directory.path + "/learnt" }

    private func read(_ directory: TemporaryDirectory) -> LearntReturns? {
        LearntFile.read(from: directory.path)
    }

    /// Opens, reads ten blocks so often that something is learnt, and closes.
    private func use(_ directory: TemporaryDirectory, rounds: Int) async throws -> UInt64 {
        let store = try await Small.open(directory)
        let space = try await store.namespace(Small.description)
        for number in 0..<10 {
            let key = Payload.key(number)
            _ = await store.putBytes(key, Payload.bytes(key, count: 4096), in: space)
        }
        for round in 0..<rounds {
            let key = Payload.key(round % 10)
            let (result, bytes) = await store.getBytes(key, in: space, mode: .cached)
            #expect(result.isHit && bytes == Payload.bytes(key, count: 4096))
        }
        let errors = try await store.statistics().trouble.pageErrors
        await store.close()
        return errors
    }

    /// Returns that were observed.
    private func returns(_ learnt: LearntReturns) -> Float {
        learnt.blocks.reduce(0) { sum, known in
            sum + stride(from: 0, to: known.sums.count, by: 2).reduce(0) { $0 + known.sums[$1] }
        }
    }

    @Test func theNextOpeningGoesOnFromIt() async throws {
        let directory = TemporaryDirectory()
        #expect(try await use(directory, rounds: 300) == 0)
        let first = try #require(read(directory))
        #expect(returns(first) > 200 && first.namespaces.count == 1)
        // Little is used in the second life: what is known is of the first.
        #expect(try await use(directory, rounds: 1) == 0)
        let second = try #require(read(directory))
        #expect(returns(second) > 0.9 * returns(first))
        #expect(second.namespaces == first.namespaces && second.store == first.store)
        let names = try FileManager.default.contentsOfDirectory(atPath: directory.path)
        #expect(!names.contains("learnt.new"))
    }

    @Test func whatIsNoneIsPassedOver() async throws {
        let directory = TemporaryDirectory()
        #expect(try await use(directory, rounds: 300) == 0)
        let whole = try #require(FileManager.default.contents(atPath: path(directory)))
        let url = URL(fileURLWithPath: path(directory))
        // Damaged, empty, far too long, another store's.
        var torn = whole
        torn[70] ^= 1
        var other = try #require(read(directory))
        other.store = Identity128(hi: 1, lo: 2)
        let foreign = try #require(other.encode())
        for wrong in [torn, Data(), Data(count: 3 << 20), Data(foreign)] {
            try wrong.write(to: url)
            #expect(try await use(directory, rounds: 1) == 0)
            let now = try #require(read(directory))
            #expect(returns(now) < 20, "nothing of the first life is left")
            #expect(now.store != other.store)
        }
        // A link is not followed, nor is a pipe waited for.
        let elsewhere = directory.path + "/elsewhere"
        try whole.write(to: URL(fileURLWithPath: elsewhere))
        try FileManager.default.removeItem(at: url)
        try FileManager.default.createSymbolicLink(
            atPath: path(directory), withDestinationPath: elsewhere)
        #expect(try await use(directory, rounds: 1) == 0)
        #expect(returns(try #require(read(directory))) < 20)
        #expect(FileManager.default.contents(atPath: elsewhere) == whole)
        try FileManager.default.removeItem(at: url)
        #expect(mkfifo(path(directory), 0o600) == 0)
        #expect(try await use(directory, rounds: 1) == 0)
        #expect(read(directory) != nil)
    }

    @Test func whatCannotBeWrittenIsCounted() async throws {
        let directory = TemporaryDirectory()
        #expect(try await use(directory, rounds: 1) == 0)
        let made = directory.path + "/learnt.new"
        try FileManager.default.createDirectory(atPath: made, withIntermediateDirectories: false)
        #expect(LearntFile.write(LearntReturns(), to: directory.path) == false)
        let before = try #require(read(directory))
        #expect(try await use(directory, rounds: 300) == 0)
        #expect(read(directory) == before, "the old one stays")
        // The last page is written after it, and tells.
        let file = try #require(
            FileManager.default.contents(atPath: directory.path + "/statistics"))
        let page = try file.withUnsafeBytes { try StatisticsPage.newest(in: $0) }
        let figures = try JSONSerialization.jsonObject(with: Data(page.json.utf8))
        let trouble = (figures as? [String: Any])?["trouble"] as? [String: Any]
        #expect(trouble?["pageErrors"] as? Int == 1)
    }

    // MARK: Why blocks are gone

    /// Opens, asks for the key of a block, and closes.
    private func miss(_ directory: TemporaryDirectory, _ number: Int) async throws -> GetResult {
        let store = try await Small.open(directory)
        let space = try await store.namespace(Small.description)
        let (result, _) = await store.getBytes(Payload.key(number), in: space, mode: .direct)
        await store.close()
        return result
    }

    /// A store in which two blocks were put, and one of them deleted.
    private func withOneDeleted() async throws -> TemporaryDirectory {
        let directory = TemporaryDirectory()
        let store = try await Small.open(directory)
        let space = try await store.namespace(Small.description)
        for number in 0..<2 {
            let key = Payload.key(number)
            _ = await store.putBytes(key, Payload.bytes(key, count: 4096), in: space)
        }
        _ = await store.delete([Payload.key(1)], in: space)
        await store.close()
        return directory
    }

    @Test func whyBlocksAreGoneIsKnownInTheNextLife() async throws {
        let directory = try await withOneDeleted()
        for _ in 0..<2 {
            #expect(try await miss(directory, 1).miss == .deleted)
            #expect(try await miss(directory, 2).miss == .neverPut)
            #expect(try await miss(directory, 0).isHit)
        }
        let names = try FileManager.default.contentsOfDirectory(atPath: directory.path)
        #expect(names.contains("ghosts") && !names.contains("ghosts.new"))
    }

    @Test func ghostsThatAreNoneArePassedOver() async throws {
        let directory = try await withOneDeleted()
        let url = URL(fileURLWithPath: directory.path + "/ghosts")
        let whole = try Data(contentsOf: url)
        var torn = whole
        torn[whole.count / 2] ^= 1
        var other = try #require(LearntFile.readGhosts(from: directory.path))
        let mine = other
        other.store = Identity128(hi: 1, lo: 2)
        let smaller = KeptGhosts(store: mine.store, words: Array(mine.words[..<64]))
        let causeless = KeptGhosts(
            store: mine.store, words: mine.words.map { $0 & 0xFF == 3 ? $0 | 0xFF : $0 })
        for wrong in [other, smaller, causeless].compactMap({ $0.encode() }).map({ Data($0) })
            + [torn, Data(), Data(count: 20 << 20)]
        {
            try wrong.write(to: url)
            #expect(try await miss(directory, 1).miss == .neverPut)
            #expect(try await miss(directory, 0).isHit)
        }
        try whole.write(to: url)
        #expect(try await miss(directory, 1).miss == .deleted)
    }
}
