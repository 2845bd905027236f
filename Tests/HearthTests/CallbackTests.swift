// Completions called back on the owner thread, where what follows is submitted from.

import BlockIO
import LogStore
import Staging
import Synchronization
import Testing

@testable import Hearth

@Suite struct CallbackTests {
    /// What is called back, and what it submits; used on the owner thread only until `over`.
    private final class Chain: @unchecked Sendable {
        var target: CallbackTarget?
        var underWay = 0
        var operation: StoreOperation
        var left: Int
        var statuses: [Status] = []
        var mostUnderWay = 0
        let over = AsyncStream.makeStream(of: Void.self)

        init(_ operation: StoreOperation, count: Int) {
            self.operation = operation
            left = count
        }

        func next() {
            guard left > 0 else {
                if underWay == 0 { over.continuation.finish() }
                return
            }
            left -= 1
            operation.token += 1
            underWay += 1
            let taken = withUnsafePointer(to: operation) {
                target?.submit(UnsafeBufferPointer(start: $0, count: 1), instance: 0)
            }
            #expect(taken == true)
        }

        func take(_ completion: StoreCompletion) {
            statuses.append(completion.answer.status)
            underWay -= 1
            next()
            mostUnderWay = max(mostUnderWay, underWay)
        }
    }

    @Test func whatIsCalledBackSubmitsWhatFollows() async throws {
        let directory = TemporaryDirectory()
        let store = try await Small.open(directory)
        let space = try await store.namespace(Small.description)
        let value = Payload.bytes("k", count: 4096)
        #expect(await store.putBytes("k", value, in: space).status == .stored)
        let key = Buffer(copying: Key("k").bytes)
        let target = Buffer(count: 4096)
        let piece = UnsafeMutablePointer<BlockIO.Piece>.allocate(capacity: 1)
        defer { piece.deallocate() }
        let address = UInt64(UInt(bitPattern: target.bytes.baseAddress))
        piece.initialize(to: BlockIO.Piece(region: .process, offset: address, length: 4096))
        var operation = StoreOperation(
            kind: .get, token: 0, namespaceSlot: space.slot, key: UnsafeRawBufferPointer(key.bytes))
        operation.pieces = UnsafePointer(piece)
        operation.pieceCount = 1
        let chain = Chain(operation, count: 100)
        let turns = Atomic<Int>(0)
        chain.target = CallbackTarget(
            store, take: { chain.take($0) }, taken: { turns.add(1, ordering: .relaxed) })
        #expect(
            store.perform {
                chain.next()
                chain.next()
            })
        for await _ in chain.over.stream {}
        #expect(chain.statuses == [Status](repeating: .hit, count: 100))
        #expect(chain.mostUnderWay == 2)
        #expect([UInt8](target.bytes) == value)
        #expect((50...100).contains(turns.load(ordering: .relaxed)))
        chain.target = nil
        await store.close()
        withExtendedLifetime(key) {}
    }
}
