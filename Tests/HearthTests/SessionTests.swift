// The low-level path: batches in, completions out, waiting and limits.

import BlockIO
import LogStore
import Staging
import Testing

@testable import Hearth

@Suite struct SessionTests {
    @Test func submitAndPoll() async throws {
        let directory = TemporaryDirectory()
        let store = try await Small.open(directory)
        let space = try await store.namespace(Small.description)
        let session = store.session(capacity: 8)
        let count = 20
        let buffer = Buffer(count: count * 4096)
        for index in buffer.bytes.indices {
            buffer.bytes[index] = UInt8(truncatingIfNeeded: index / 4096)
        }
        let keys = Buffer(count: count * 8)
        let pieces = UnsafeMutablePointer<BlockIO.Piece>.allocate(capacity: count)
        defer { pieces.deallocate() }
        var operations: [StoreOperation] = []
        for index in 0..<count {
            let at = UnsafeMutableRawBufferPointer(rebasing: keys.bytes[index * 8..<index * 8 + 8])
            at.storeBytes(of: UInt64(index + 1), as: UInt64.self)
            let address = UInt64(UInt(bitPattern: buffer.bytes.baseAddress)) + UInt64(index * 4096)
            pieces.advanced(by: index).initialize(
                to: BlockIO.Piece(region: .process, offset: address, length: 4096))
            var operation = StoreOperation(
                kind: .put, token: UInt64(1000 + index), namespaceSlot: space.slot,
                key: UnsafeRawBufferPointer(at))
            operation.pieces = UnsafePointer(pieces + index)
            operation.pieceCount = 1
            operation.length = 4096
            operations.append(operation)
        }
        var seen = try await drive(session, operations)
        #expect(seen.count == count)
        #expect(seen.allSatisfy { $0.value == .stored })
        for index in buffer.bytes.indices { buffer.bytes[index] = 0 }
        for index in operations.indices {
            operations[index].kind = .get
            operations[index].mode = .direct
        }
        seen = try await drive(session, operations)
        #expect(seen.count == count && seen.allSatisfy { $0.value == .hit })
        #expect(
            buffer.bytes.indices.allSatisfy {
                buffer.bytes[$0] == UInt8(truncatingIfNeeded: $0 / 4096)
            })
        #expect(session.count == 0)
        for index in buffer.bytes.indices { buffer.bytes[index] = 0 }
        for index in operations.indices { operations[index].mode = .cached }
        seen = try await drive(session, operations)
        #expect(seen.allSatisfy { $0.value == .hit })
        // All are resident now: the same without the owner, a range of each.
        for index in operations.indices {
            buffer.bytes[index * 4096] = 0
            operations[index].byteOffset = 100
            operations[index].byteCount = 1
            let answer = session.copyResident(operations[index], in: space)
            #expect(answer?.status == .hit)
            #expect(answer?.delivered == 1)
            #expect(buffer.bytes[index * 4096] == UInt8(index))
            operations[index].byteOffset = 4090
            operations[index].byteCount = 7
            #expect(session.copyResident(operations[index], in: space)?.status == nil)
        }
        var views = operations.map(\.key)
        let strange: [UInt8] = [1, 2]
        let found = strange.withUnsafeBytes { bytes in
            views.append(bytes)
            var found = [Bool](repeating: false, count: views.count)
            views.withUnsafeBufferPointer { views in
                found.withUnsafeMutableBufferPointer { into in
                    if let base = into.baseAddress {
                        session.contains(views, in: space, into: base)
                    }
                }
            }
            return found
        }
        #expect(found == [Bool](repeating: true, count: count) + [false])
        await store.close()
        operations.withUnsafeBufferPointer { #expect(session.submit($0) == 0) }
        withExtendedLifetime(keys) {}
    }

    /// A batch of puts and, behind them, gets: of a block that is there, which waits for none of
    /// the puts, and of the one put last.
    @Test func getsDoNotWaitForPutsOfOthers() async throws {
        let directory = TemporaryDirectory()
        let store = try await Small.open(directory)
        let space = try await store.namespace(Small.description)
        let (count, length) = (32, Small.maximumBlock)
        let session = store.session(capacity: 64)
        let bytes = Buffer(count: (count + 2) * length)
        let keys = Buffer(count: count * 8)
        let pieces = UnsafeMutablePointer<BlockIO.Piece>.allocate(capacity: count + 2)
        defer { pieces.deallocate() }
        for index in bytes.bytes.indices {
            bytes.bytes[index] = UInt8(truncatingIfNeeded: index / length)
        }
        func operation(_ kind: StoreOperationKind, _ key: Int, memory: Int) -> StoreOperation {
            let at = UnsafeMutableRawBufferPointer(rebasing: keys.bytes[key * 8..<key * 8 + 8])
            at.storeBytes(of: UInt64(key + 1), as: UInt64.self)
            let address =
                UInt64(UInt(bitPattern: bytes.bytes.baseAddress)) + UInt64(memory * length)
            (pieces + memory).initialize(
                to: BlockIO.Piece(region: .process, offset: address, length: UInt64(length)))
            var made = StoreOperation(
                kind: kind, token: UInt64(memory), namespaceSlot: space.slot,
                key: UnsafeRawBufferPointer(at))
            made.pieces = UnsafePointer(pieces + memory)
            made.pieceCount = 1
            made.length = kind == .put ? UInt32(length) : 0
            made.mode = .cached
            made.durability = .volatile
            return made
        }
        #expect(try await drive(session, [operation(.put, 0, memory: 0)]) == [0: .stored])
        var batch = (1..<count).map { operation(.put, $0, memory: $0) }
        batch.append(operation(.get, 0, memory: count))
        batch.append(operation(.get, count - 1, memory: count + 1))
        nonisolated(unsafe) let operations = batch
        let seen = try await Task.detached {
            let room = UnsafeMutableBufferPointer<StoreCompletion>.allocate(capacity: count + 1)
            defer { room.deallocate() }
            #expect(operations.withUnsafeBufferPointer { session.submit($0) } == count + 1)
            var seen: [(UInt64, Status, waited: UInt64)] = []
            while seen.count < count + 1 {
                let polled = session.poll(into: room, wait: 10_000_000_000)
                try #require(polled > 0)
                seen += room[..<polled].filter { !$0.isRelease }.map {
                    ($0.token, $0.answer.status, $0.queueNanoseconds)
                }
            }
            return seen
        }.value
        // Which starts first, not which ends first: the block may be on the disk only by now.
        let get = try #require(seen.first { $0.0 == UInt64(count) })
        let lastPut = try #require(seen.first { $0.0 == UInt64(count - 1) })
        #expect(get.1 == .hit && get.waited < lastPut.waited)
        #expect(seen.first { $0.0 == UInt64(count + 1) }?.1 == .hit)
        #expect(seen.allSatisfy { $0.1 == .stored || $0.1 == .hit })
        #expect(bytes.bytes[count * length] == 0)
        #expect(bytes.bytes[(count + 2) * length - 1] == UInt8(count - 1))
        await store.close()
        withExtendedLifetime(keys) {}
    }

    /// Submits as there is room, and polls, on a thread of its own.
    private func drive(
        _ session: Session, _ operations: [StoreOperation]
    ) async throws -> [UInt64: Status] {
        try await Task.detached {
            var seen: [UInt64: Status] = [:]
            let room = UnsafeMutableBufferPointer<StoreCompletion>.allocate(capacity: 3)
            defer { room.deallocate() }
            var next = 0
            while seen.count < operations.count {
                let taken = operations[next...].withUnsafeBufferPointer { session.submit($0) }
                try #require(session.count <= session.capacity)
                next += taken
                let polled = session.poll(into: room, wait: 10_000_000_000)
                try #require(polled > 0)
                for completion in room[..<polled] where !completion.isRelease {
                    seen[completion.token] = completion.answer.status
                }
            }
            return seen
        }.value
    }

    @Test func pollComesBackWithNothing() async throws {
        let directory = TemporaryDirectory()
        let store = try await Small.open(directory)
        let session = store.session(capacity: 8)
        let room = UnsafeMutableBufferPointer<StoreCompletion>.allocate(capacity: 3)
        defer { room.deallocate() }
        let start = ContinuousClock.now
        #expect(session.poll(into: room) == 0)
        #expect(session.poll(into: room, wait: 20_000_000) == 0)
        #expect(ContinuousClock.now - start >= .milliseconds(19))
        await store.close()
    }
}
