// The public API end to end on real files: what is put comes back, in every mode and selection,
// and is there again after a reopening.

import Glibc
import Hearth
import Testing

@Suite struct StoreTests {
    @Test func putGetReplaceDeleteReopen() async throws {
        let directory = TemporaryDirectory()
        let store = try await Small.open(directory)
        let space = try await store.namespace(Small.description)
        let first = Payload.bytes("a", count: 10_000)
        let put = await store.putBytes("a", first, in: space)
        #expect(put.status == .stored)
        #expect(put.version > 0)
        #expect(await store.putBytes("a", first, in: space).status == .alreadyPresent)
        let short = [UInt8](first.dropLast())
        #expect(await store.putBytes("a", short, in: space).status == .conflict)
        #expect(await store.value(of: "a", in: space) == first)

        let second = Payload.bytes("a", revision: 1, count: 20_000)
        let replaced = await store.putBytes(
            "a", second, in: space, options: PutOptions(replace: true))
        #expect(replaced.status == .stored)
        #expect(replaced.version > put.version)
        for mode in GetOptions.Mode.allCases {
            let (result, bytes) = await store.getBytes("a", in: space, mode: mode)
            #expect(result.isHit)
            #expect(result.version == replaced.version)
            #expect(bytes == second)
        }

        let kept = Payload.bytes("kept", count: 50_000)
        #expect(await store.putBytes("kept", kept, in: space).isPresent)
        #expect(
            await store.delete(["a", "none"], in: space).map(\.status) == [.deleted, .notFound])
        let (gone, _) = await store.getBytes("a", in: space, mode: .direct)
        #expect(gone.status == .miss)
        #expect(store.contains(["a", "kept"], in: space) == [false, true])
        await store.close()
        #expect(await store.putBytes("b", first, in: space).status == .closed)

        let again = try await Small.open(directory)
        let sameSpace = try await again.namespace(Small.description)
        #expect(await again.value(of: "kept", in: sameSpace) == kept)
        #expect(await again.value(of: "a", in: sameSpace) == nil)
        await again.close()
    }

    @Test(arguments: NamespaceDescription.Layout.allCases)
    func shardsAndByteRanges(_ layout: NamespaceDescription.Layout) async throws {
        let directory = TemporaryDirectory()
        let store = try await Small.open(directory)
        var description = Small.description
        description.layout = layout
        let space = try await store.namespace(description)
        let shards: [UInt32] = [5000, 1, 12_288, 4096, 8191]
        let value = Payload.bytes("s", count: shards.reduce(0) { $0 + Int($1) })
        let put = await store.putBytes("s", value, in: space, shards: shards)
        #expect(put.status == .stored)
        var starts = [0]
        for length in shards { starts.append(starts[starts.count - 1] + Int(length)) }
        var selections: [(Selection, Range<Int>)] = [(.whole, 0..<value.count)]
        for lower in 0..<shards.count {
            for upper in (lower + 1)...shards.count {
                selections.append((.shards(lower..<upper), starts[lower]..<starts[upper]))
            }
        }
        for range in [0..<1, 4999..<5002, 5000..<17_290, value.count - 1..<value.count] {
            selections.append((.bytes(UInt64(range.lowerBound)..<UInt64(range.upperBound)), range))
        }
        for (selection, range) in selections {
            let (direct, bytes) = await store.getBytes("s", in: space, selection, mode: .direct)
            #expect(direct.isHit, "direct \(selection)")
            #expect(direct.shardCount == shards.count)
            #expect(bytes == Array(value[range]), "direct \(selection)")
        }
        // The first of these reads comes from the device, the others from the resident copy.
        for (selection, range) in selections {
            let (cached, bytes) = await store.getBytes("s", in: space, selection, mode: .cached)
            #expect(cached.isHit, "cached \(selection)")
            #expect(bytes == Array(value[range]), "cached \(selection)")
            if let lease = await store.lease("s", in: space, selection: selection) {
                #expect(lease.bytes() == Array(value[range]), "lease \(selection)")
                #expect(lease.blockLength == value.count)
            } else {
                Issue.record("no lease of \(selection)")
            }
        }
        let (resident, _) = await store.getBytes("s", in: space, mode: .cached)
        #expect(resident.tier == .staging)
        for bad in [Selection.shards(0..<0), .shards(4..<6), .bytes(5..<5)] {
            for mode in GetOptions.Mode.allCases {
                let (result, _) = await store.getBytes("s", in: space, bad, mode: mode)
                #expect(result.status == .invalid, "\(bad) \(mode)")
            }
        }
        let beyond = Selection.bytes(0..<UInt64(value.count + 1))
        let (past, _) = await store.getBytes("s", in: space, beyond, mode: .direct)
        #expect(past.status == .invalid)
        let (narrow, _) = await store.getBytes("s", in: space, mode: .direct, room: 100)
        #expect(narrow.status == .invalid)
        await store.close()
    }

    @Test(arguments: [Configuration.Driver.threads, .automatic])
    func batchesFromManyTasks(_ driver: Configuration.Driver) async throws {
        let directory = TemporaryDirectory()
        var configuration = Small.configuration(directory)
        configuration.driver = driver
        let store = try await Store.open(configuration)
        let space = try await store.namespace(Small.description)
        let wrong = await withTaskGroup(of: Int.self) { group in
            for task in 0..<8 {
                group.addTask {
                    var wrong = 0
                    for round in 0..<4 {
                        let keys = (0..<16).map { Payload.key(task * 1000 + round * 16 + $0) }
                        let puts = await store.put(
                            keys.map { PutItem(key: $0, bytes: Payload.bytes($0, count: 9000)) },
                            in: space)
                        wrong += puts.count { !$0.isPresent }
                        let buffers = keys.map { _ in Buffer(count: 12_288) }
                        let gets = await store.get(
                            zip(keys, buffers).map { GetItem(key: $0, into: Memory($1)) },
                            in: space, options: GetOptions(mode: round % 2 == 0 ? .direct : .cached)
                        )
                        for (place, get) in gets.enumerated() {
                            let expected = Payload.bytes(keys[place], count: 9000)
                            if !get.isHit || Array(buffers[place].bytes[..<9000]) != expected {
                                wrong += 1
                            }
                        }
                        if store.longestPrefix(keys + ["none"], in: space) != 16 { wrong += 1 }
                    }
                    return wrong
                }
            }
            return await group.reduce(0, +)
        }
        #expect(wrong == 0)
        let statistics = try await store.statistics()
        #expect(statistics.driver.kind == "threads" || driver == .automatic)
        #expect(statistics.space.sum == statistics.space.capacity)
        await store.close()
    }

    @Test func durabilityClassesAndFlush() async throws {
        let directory = TemporaryDirectory()
        let store = try await Small.open(directory)
        let space = try await store.namespace(Small.description)
        var versions: [UInt64] = []
        for (place, durability) in PutOptions.Durability.allCases.enumerated() {
            let key = Payload.key(place)
            let put = await store.putBytes(
                key, Payload.bytes(key, count: 4096), in: space,
                options: PutOptions(durability: durability))
            #expect(put.status == .stored, "\(durability)")
            versions.append(put.version)
            #expect(await store.value(of: key, in: space) == Payload.bytes(key, count: 4096))
        }
        try await store.flush()
        #expect(await store.durableVersion >= versions[2])
        try await store.checkpoint()
        await store.close()
        await #expect(throws: HearthError.self) { try await store.flush() }
        #expect(await store.durableVersion == 0)
    }

    @Test func purgeEmptiesANamespaceForGood() async throws {
        let directory = TemporaryDirectory()
        let store = try await Small.open(directory)
        let space = try await store.namespace(Small.description)
        let other = try await store.namespace(NamespaceDescription([("model", "other")]))
        #expect(await store.putBytes("k", [1, 2, 3], in: space).isPresent)
        #expect(await store.putBytes("k", [4, 5, 6], in: other).isPresent)
        #expect(await store.value(of: "k", in: other) == [4, 5, 6])
        try await store.purge(space)
        #expect(space.isPurged)
        #expect(store.contains(["k"], in: space) == [false])
        #expect(await store.putBytes("k", [1, 2, 3], in: space).status == .invalid)
        let anew = try await store.namespace(Small.description)
        #expect(store.contains(["k"], in: anew) == [false])
        #expect(await store.value(of: "k", in: anew) == nil)
        #expect(await store.value(of: "k", in: other) == [4, 5, 6])
        await store.close()
    }

    @Test func whatIsNotRightIsInvalid() async throws {
        let directory = TemporaryDirectory()
        let store = try await Small.open(directory)
        let space = try await store.namespace(Small.description)
        let long = Key([UInt8](repeating: 7, count: 513))
        #expect(await store.putBytes(long, [1], in: space).status == .invalid)
        #expect(await store.putBytes([], [1], in: space).status == .invalid)
        #expect(await store.putBytes("e", [], in: space).status == .invalid)
        #expect(await store.putBytes("e", [1, 2], in: space, shards: [1]).status == .invalid)
        #expect(await store.putBytes("e", [1, 2], in: space, shards: []).status == .invalid)
        let large = [UInt8](repeating: 0, count: Small.maximumBlock + 1)
        #expect(await store.putBytes("e", large, in: space).status == .tooLarge)
        let (result, _) = await store.getBytes(long, in: space, mode: .cached)
        #expect(result.status == .invalid)
        #expect(store.contains([long, []], in: space) == [false, false])
        #expect(await store.put([], in: space).isEmpty)
        await store.close()
    }

    @Test func regionsAreReadAndWrittenDirectly() async throws {
        let directory = TemporaryDirectory()
        let store = try await Small.open(directory)
        let space = try await store.namespace(Small.description)
        let buffer = Buffer(count: 1 << 20)
        let region = try await store.register(buffer.bytes)
        let value = Payload.bytes("r", count: 65_536)
        UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[..<65_536]).copyBytes(from: value)
        let put = await store.put(
            PutItem(key: "r", value: Memory(region, offset: 0, length: 65_536)), in: space)
        #expect(put.status == .stored)
        let target = Memory([
            Memory.Piece(region, offset: 131_072, length: 4096),
            Memory.Piece(region, offset: 524_288, length: 61_440),
        ])
        let get = await store.get(GetItem(key: "r", into: target), in: space)
        #expect(get.isHit)
        #expect(Array(buffer.bytes[131_072..<135_168]) == Array(value[..<4096]))
        #expect(Array(buffer.bytes[524_288..<585_728]) == Array(value[4096...]))
        let outside = Memory(region, offset: 1 << 20, length: 65_536)
        #expect(
            await store.get(GetItem(key: "r", into: outside), in: space).status == .invalid)
        await store.unregister(region)
        #expect(await store.get(GetItem(key: "r", into: target), in: space).status == .invalid)
        await store.close()
        withExtendedLifetime(buffer) {}
    }

    @Test func aSecondOpenIsToldWhoHasTheLock() async throws {
        let directory = TemporaryDirectory()
        var configuration = Small.configuration(directory)
        configuration.holder = "the first of two"
        let store = try await Store.open(configuration)
        let error = await #expect(throws: HearthError.self) {
            _ = try await Store.open(Small.configuration(directory))
        }
        #expect(error?.kind == .locked)
        #expect(error?.advice.contains("the first of two") == true)
        await store.close()
        let again = try await Store.open(configuration)
        await again.close()
    }

    @Test func aStoreIsNotOpenedWhereOtherFilesLie() async throws {
        let directory = TemporaryDirectory()
        let file = Glibc.open(directory.path + "/letter.txt", O_CREAT | O_WRONLY, 0o600)
        Glibc.close(file)
        let error = await #expect(throws: HearthError.self) {
            _ = try await Store.open(Small.configuration(directory))
        }
        #expect(error?.kind == .notAStore)
    }
}
