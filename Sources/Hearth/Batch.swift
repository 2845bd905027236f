// Batch: one async call's operations, their memory and answers. It owns copies of keys and lists
// while the owner thread follows them, and resumes one continuation when the last operation has
// let go of its memory.

import BlockIO
import LogStore
import Staging

final class Batch: CompletionTarget, @unchecked Sendable {
    // Unchecked: filled by the caller before it is submitted; from then until the continuation is
    // resumed it is the owner thread's; afterwards the caller's again.
    struct Leased: Sendable {
        var slot: Int32
        var runs: [Run]
        var aligned: Bool
    }

    private(set) var operations: [StoreOperation] = []
    private(set) var answers: [StoreAnswer] = []
    /// By operation, where a lease was given.
    private(set) var leases: [Int: Leased] = [:]
    private var remaining = 0
    private var continuation: UnsafeContinuation<Void, Never>?

    private let bytes: UnsafeMutableRawPointer
    private let byteRoom: Int
    private var byteCount = 0
    private let pieces: UnsafeMutablePointer<BlockIO.Piece>
    private let pieceRoom: Int
    private var pieceCount = 0
    private let lengths: UnsafeMutablePointer<UInt32>
    private let lengthRoom: Int
    private var lengthCount = 0

    init(count: Int, keyBytes: Int, pieces pieceRoom: Int = 0, shardLengths: Int = 0) {
        operations.reserveCapacity(count)
        byteRoom = keyBytes
        bytes = .allocate(byteCount: max(1, keyBytes), alignment: 8)
        self.pieceRoom = pieceRoom
        pieces = .allocate(capacity: max(1, pieceRoom))
        lengthRoom = shardLengths
        lengths = .allocate(capacity: max(1, shardLengths))
    }

    deinit {
        bytes.deallocate()
        pieces.deallocate()
        lengths.deallocate()
    }

    // MARK: Filling

    func copy(_ key: Key) -> UnsafeRawBufferPointer {
        let count = key.bytes.count
        precondition(byteCount + count <= byteRoom, "a batch was sized for its keys")
        let target = bytes + byteCount
        key.bytes.withUnsafeBytes { source in
            if let address = source.baseAddress {
                target.copyMemory(from: address, byteCount: count)
            }
        }
        byteCount += count
        return UnsafeRawBufferPointer(start: target, count: count)
    }

    func copy(_ memory: Memory) -> (UnsafePointer<BlockIO.Piece>, Int) {
        let start = pieces + pieceCount
        for piece in memory.pieces {
            precondition(pieceCount < pieceRoom, "a batch was sized for its pieces")
            pieces.advanced(by: pieceCount).initialize(to: piece.core)
            pieceCount += 1
        }
        return (UnsafePointer(start), memory.pieces.count)
    }

    func copy(_ shards: [UInt32]) -> UnsafePointer<UInt32> {
        let start = lengths + lengthCount
        for length in shards {
            precondition(lengthCount < lengthRoom, "a batch was sized for its shards")
            lengths.advanced(by: lengthCount).initialize(to: length)
            lengthCount += 1
        }
        return UnsafePointer(start)
    }

    func operation(_ kind: StoreOperationKind, _ namespace: Namespace, _ key: Key) -> StoreOperation
    {
        StoreOperation(
            kind: kind, token: UInt64(operations.count), namespaceSlot: namespace.slot,
            key: copy(key))
    }

    func append(_ operation: StoreOperation) { operations.append(operation) }

    // MARK: Running

    /// Submits all operations and returns when the last one has ended and let go of its memory.
    func run(_ engine: Engine, _ namespace: Namespace) async {
        let count = operations.count
        guard count > 0 else { return }
        var closed = StoreAnswer(token: 0, status: .failed)
        closed.errno = Self.shutDown
        answers = [StoreAnswer](repeating: closed, count: count)
        remaining = count
        let identity = ObjectIdentifier(self)
        await withTaskCancellationHandler {
            await withUnsafeContinuation { (resumed: UnsafeContinuation<Void, Never>) in
                continuation = resumed
                let taken = operations.withUnsafeBufferPointer {
                    engine.submit($0, to: self, instance: namespace.instance)
                }
                if !taken { resumed.resume() }
                // Cancelled before it was submitted: the handler has run, and found nothing.
                if taken && Task.isCancelled { engine.cancel(identity, 0...UInt64(count - 1)) }
            }
        } onCancel: {
            engine.cancel(identity, 0...UInt64(count - 1))
        }
    }

    private static let shutDown: Int32 = 108

    // MARK: Owner thread

    override func complete(_ completion: StoreCompletion) {
        let number = Int(completion.token)
        if !completion.isRelease {
            answers[number] = completion.answer
            if completion.answer.lease >= 0 {
                let runs = completion.leased.map {
                    Run(offset: Int($0.offset), count: Int($0.length))
                }
                leases[number] = Leased(
                    slot: completion.answer.lease, runs: runs, aligned: completion.leasedAligned)
            }
        }
        if completion.isFinal { remaining -= 1 }
    }

    override func publish() -> Bool {
        guard remaining == 0, let resumed = continuation else { return false }
        continuation = nil
        resumed.resume()
        return true
    }
}
