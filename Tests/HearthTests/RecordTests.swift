// RecordTests: what a recorder makes requests of, its bounds, and its file.

import Foundation
import Staging
import Testing

@testable import Hearth

@Suite struct RecordAssemblerTests {
    private static let second: UInt64 = 1_000_000_000

    private func keys(
        _ kind: RecordedKey.Kind, _ ids: [UInt64], at seconds: Double, parent: UInt64 = 0,
        bytes: UInt32 = 0, due: Double = 0, session: UInt64 = 0
    ) -> [RecordedKey] {
        ids.enumerated().map { index, id in
            var made = RecordedKey(kind: kind, isFirst: index == 0, bytes: bytes, id: id)
            made.time = UInt64(seconds * 1e9)
            made.due = UInt64(due * 1e9)
            made.session = session
            if kind == .put { made.parent = index == 0 ? parent : ids[index - 1] }
            return made
        }
    }

    private func assembled(_ events: [[RecordedKey]]) -> [RecordedRequest] {
        var assembler = RecordAssembler(begin: 0)
        for key in events.joined() { assembler.take(key) }
        return assembler.ended(by: .max)
    }

    @Test func whatIsToldGotAndPutIsOneRequest() throws {
        let made = assembled([
            keys(.chain, [1, 2, 3, 4], at: 1, due: 3, session: 77),
            keys(.get, [1, 2], at: 2.5),
            keys(.put, [3, 4, 5], at: 4, parent: 2, bytes: 4096),
        ])
        let request = try #require(made.first)
        #expect(made.count == 1 && request.blocks == [1, 2, 3, 4, 5])
        #expect(request.time == Self.second && request.due == 2 * Self.second)
        #expect((request.hinted, request.got, request.put) == (4, 2, 3))
        #expect(request.bytes == 4096 && request.session == 0)
    }

    @Test func withoutHintsAPutGoesOnWithItsParent() {
        let made = assembled([
            keys(.get, [1, 2], at: 1),
            keys(.get, [1, 2, 3], at: 1.2),
            keys(.put, [4, 5], at: 2, parent: 3),
            keys(.put, [6], at: 2, parent: 5),
            keys(.put, [9], at: 2.5, parent: 8),
        ])
        #expect(made.map(\.blocks) == [[1, 2], [1, 2, 3, 4, 5, 6], [9]])
        #expect(made.map(\.session) == [-1, -1, -1])
    }

    @Test func aMissThatIsPutIsNotAskedForTwice() {
        // The second is another request that finds what the first one put.
        let made = assembled([
            keys(.get, [1, 2], at: 1), keys(.put, [1, 2], at: 2), keys(.get, [1, 2], at: 3),
        ])
        #expect(made.map(\.blocks) == [[1, 2], [1, 2]])
        #expect(made.map(\.put) == [2, 0])
    }

    @Test func sessionsAreNumberedInTheirOrder() {
        let made = assembled([
            keys(.chain, [1], at: 1, session: 900), keys(.chain, [2], at: 2),
            keys(.chain, [3], at: 3, session: 5), keys(.chain, [4], at: 4, session: 900),
        ])
        #expect(made.map(\.session) == [0, -1, 1, 0])
    }

    @Test func requestsAreGivenOutInOrderWhenNothingMoreComes() {
        var assembler = RecordAssembler(begin: 0)
        for key in keys(.get, [1], at: 1) + keys(.get, [2], at: 20) + keys(.put, [3], at: 25) {
            assembler.take(key)
        }
        for key in keys(.put, [4], at: 40, parent: 1) { assembler.take(key) }
        #expect(assembler.ended(by: 60 * Self.second).isEmpty, "the first is not over")
        #expect(assembler.ended(by: 71 * Self.second).map(\.blocks) == [[1, 4], [2], [3]])
        // What is over is not gone on with.
        for key in keys(.put, [5], at: 80, parent: 4) { assembler.take(key) }
        #expect(assembler.ended(by: .max).map(\.blocks) == [[5]])
    }

    @Test func hintsForNobodyHoldNothingForEver() {
        var assembler = RecordAssembler(begin: 0)
        for key in keys(.chain, [1], at: 1, due: 1e9) + keys(.get, [2], at: 2) {
            assembler.take(key)
        }
        #expect(assembler.ended(by: 100 * Self.second).isEmpty)
        #expect(assembler.ended(by: 700 * Self.second).count == 2)
        // However many come, what waits is bounded.
        var given = 0
        for number in 0..<20_000 as Range<UInt64> {
            for key in keys(.chain, [10 + 2 * number, 11 + 2 * number], at: 800, due: 1e9) {
                assembler.take(key)
            }
            given += assembler.ended(by: 801 * Self.second).count
        }
        #expect(given >= 20_000 - RecordAssembler.mostRequests)
        let long = (1_000_000...1_200_000).map { UInt64($0) }
        for key in keys(.get, long, at: 802) { assembler.take(key) }
        let rest = assembler.ended(by: .max)
        #expect(rest.reduce(0) { $0 + $1.blocks.count } >= long.count)
        #expect(rest.allSatisfy { $0.blocks.count <= RecordAssembler.mostBlocks + 1 })
    }
}

@Suite struct RecordTests {
    private func configuration(_ directory: TemporaryDirectory, _ file: String) -> Configuration {
        var made = Small.configuration(directory)
        made.memoryLimitBytes += 32 << 20
        made.recordFile = file
        return made
    }

    private func lines(_ path: String) throws -> [[String: Any]] {
        let text = try String(contentsOfFile: path, encoding: .utf8)
        return try text.split(separator: "\n").map { line in
            let object = try JSONSerialization.jsonObject(with: Data(line.utf8))
            return try #require(object as? [String: Any])
        }
    }

    /// Puts a chain of blocks, asks for it, and tells of it.
    private func use(_ store: Store, _ space: Namespace, _ name: String) async throws {
        let keys = (0..<6).map { Key("\(name)-\($0)") }
        let items = keys.indices.map { index in
            var item = PutItem(
                key: keys[index], bytes: Payload.bytes(keys[index], count: 5000))
            if index > 0 { item.parent = keys[index - 1] }
            return item
        }
        for result in await store.put(items, in: space) { #expect(result.status == .stored) }
        let buffers = keys.map { _ in Buffer(count: 5000) }
        let gets = zip(keys, buffers).map { GetItem(key: $0, into: Memory($1)) }
        for result in await store.get(gets, in: space, options: GetOptions(mode: .cached)) {
            #expect(result.isHit)
        }
        for buffer in buffers { withExtendedLifetime(buffer) {} }
    }

    @Test func aFileTellsRequestsAndNoKeys() async throws {
        let (directory, other) = (TemporaryDirectory(), TemporaryDirectory())
        let file = other.path + "/recorded"
        for round in 0..<2 {
            let store = try await Store.open(configuration(directory, file))
            try await store.waitUntilRecovered()
            let space = try await store.namespace(Small.description)
            try await use(store, space, "secret-name-\(round)")
            let told = try await store.statistics()
            #expect(told.recording.dropped == 0 && told.recording.errors == 0)
            await store.close()
        }
        // A file that is there stays as it is.
        let first = try lines(file)
        let second = try lines(file + ".1")
        for found in [first, second] {
            #expect(found.count == 2, "what was put, and what was asked for")
            for line in found {
                #expect((line["hash_ids"] as? [Any])?.count == 6)
                #expect((line["t"] as? Double ?? -1) >= 0)
            }
            #expect(found[0]["put"] as? Int == 6 && found[0]["bytes"] as? Int == 5000)
            #expect(found[1]["got"] as? Int == 6)
            let ids = found.map { $0["hash_ids"] as? [Int] }
            #expect(ids[0] == ids[1], "one key has one hash in a file")
        }
        #expect(first[0]["hash_ids"] as? [Int] != second[0]["hash_ids"] as? [Int])
        for path in [file, file + ".1"] {
            #expect(try !String(contentsOfFile: path, encoding: .utf8).contains("secret"))
            var information = stat()
            #expect(stat(path, &information) == 0 && information.st_mode & 0o777 == 0o600)
        }
        for path in [file, file + ".1"] { unlink(path) }
    }

    @Test func hintsAreRecordedWithTheirKeys() async throws {
        let (directory, other) = (TemporaryDirectory(), TemporaryDirectory())
        let file = other.path + "/recorded"
        let store = try await Store.open(configuration(directory, file))
        let space = try await store.namespace(Small.description)
        let texts = (0..<3).map { Array("hinted-\($0)".utf8) }
        var hint = Hint(.chain)
        (hint.request, hint.session) = (5, 9)
        hint.due = store.monotonicNanoseconds + 2_000_000_000
        let room = texts.map { text in
            let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: text.count, alignment: 1)
            memory.copyBytes(from: text)
            return memory
        }
        room.map { UnsafeRawBufferPointer($0) }.withUnsafeBufferPointer {
            _ = store.give(hint, in: space, keys: $0)
        }
        for memory in room { memory.deallocate() }
        await store.close()
        let found = try lines(file)
        #expect(found.count == 1 && found[0]["hinted"] as? Int == 3)
        #expect(found[0]["s"] as? Int == 0 && (found[0]["due"] as? Double ?? 0) > 1)
        unlink(file)
    }

    @Test func theFileIsBoundedAndDropsAreCounted() async throws {
        let (directory, other) = (TemporaryDirectory(), TemporaryDirectory())
        let file = other.path + "/recorded"
        var configuration = configuration(directory, file)
        configuration.recordLimitBytes = 64 << 10
        let store = try await Store.open(configuration)
        let space = try await store.namespace(Small.description)
        let keys = (0..<1000).map { Key("key-\($0)") }
        for _ in 0..<8 {
            let leases = await store.lease(keys, in: space)
            let asked = leases.count
            #expect(asked == keys.count)
        }
        let shared = store.shared
        await store.close()
        let told = try #require(shared.recorder).statistics
        #expect(told.keys == 8000 && told.dropped > 3000 && told.requests < 8)
        var information = stat()
        #expect(stat(file, &information) == 0)
        #expect(information.st_size <= 64 << 10 && UInt64(information.st_size) == told.bytes)
        #expect(try lines(file).count == Int(told.requests))
        unlink(file)
    }

    @Test func moreThanTheBufferHoldsIsDroppedAndCounted() throws {
        let other = TemporaryDirectory()
        let file = other.path + "/recorded"
        let recorder = try Recorder(path: file, limitBytes: 1 << 30)
        recorder.record(.get, count: Recorder.capacity + 1) { number, key in
            key.id = UInt64(number + 1)
            return true
        }
        recorder.record(.get, count: 10) { number, key in
            key.id = UInt64(number + 1)
            return number % 2 == 0
        }
        recorder.end()
        #expect(recorder.statistics.dropped == UInt64(Recorder.capacity + 1))
        #expect(recorder.statistics.keys == 5 && recorder.statistics.requests == 1)
        // After the end nothing is taken.
        recorder.record(.get, count: 1) { _, _ in true }
        #expect(recorder.statistics.keys == 5)
        unlink(file)
    }

    @Test func aFileThatCannotBeMadeIsSaidAtOpen() async throws {
        let directory = TemporaryDirectory()
        let bad = configuration(directory, directory.path + "/none/recorded")
        let error = await #expect(throws: HearthError.self) { _ = try await Store.open(bad) }
        #expect(error?.subject.contains("recordFile") == true && error?.errno == ENOENT)
        // The store is closed again, whole.
        let store = try await Small.open(directory)
        await store.close()
        for (option, change) in [
            ("recordFile", { (made: inout Configuration) in made.recordFile = "" }),
            ("recordLimitBytes", { (made: inout Configuration) in made.recordLimitBytes = 1 }),
        ] {
            var made = Small.configuration(directory)
            change(&made)
            let changed = made
            let refused = #expect(throws: HearthError.self) { _ = try changed.validated() }
            #expect(refused?.subject == option)
        }
    }
}
