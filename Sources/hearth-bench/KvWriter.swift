// KvWriter: puts many blocks of one size, as fast as the store takes them, from registered buffers
// of its own: what lays out data before something else is measured.

import BenchKit
import BlockIO
import Glibc
import Hearth
import Staging

final class KvWriter {
    private let kv: KvStore
    private let blockBytes: Int
    private let stride: Int
    private let window: Int
    private let session: Session
    private let region: MemoryRegion
    private let memory: UnsafeMutableRawBufferPointer
    private let keys: KeyRoom
    private let pieces: UnsafeMutablePointer<Piece>
    private let operations: UnsafeMutablePointer<StoreOperation>
    /// Filled, to be handed over as one batch.
    private let queue: UnsafeMutablePointer<StoreOperation>
    private let completions: UnsafeMutableBufferPointer<StoreCompletion>
    /// Shard lengths of every block; empty for blocks of one shard.
    private let shards: UnsafeMutableBufferPointer<UInt32>

    init(_ kv: KvStore, blockBytes: Int, shards count: Int = 1) throws(BenchError) {
        self.kv = kv
        self.blockBytes = blockBytes
        stride = (blockBytes + 4095) / 4096 * 4096
        window = max(4, min(256, (16 << 20) / stride))
        memory = .allocate(byteCount: stride * window, alignment: 2 << 20)
        session = kv.session(window)
        region = try kv.register(memory)
        keys = KeyRoom(capacity: window)
        pieces = .allocate(capacity: window)
        operations = .allocate(capacity: window)
        queue = .allocate(capacity: window)
        queue.initialize(repeating: kv.operation(.put, token: 0, keys[0]), count: window)
        completions = .allocate(capacity: window)
        shards = .allocate(capacity: count > 1 ? count : 0)
        for shard in 0..<shards.count {
            let end = blockBytes * (shard + 1) / count
            shards[shard] = UInt32(end - blockBytes * shard / count)
        }
        for slot in 0..<window {
            (pieces + slot).initialize(
                to: region.corePiece(offset: UInt64(slot * stride), length: UInt64(blockBytes)))
            var made = kv.operation(.put, token: slot, keys[slot])
            made.pieces = UnsafePointer(pieces + slot)
            made.pieceCount = 1
            made.length = UInt32(blockBytes)
            if count > 1 {
                made.shardLengths = shards.baseAddress.map { UnsafePointer($0) }
                made.shardCount = count
            }
            (operations + slot).initialize(to: made)
        }
        completions.initialize(
            repeating: StoreCompletion(token: 0, answer: StoreAnswer(token: 0, status: .done)))
    }

    deinit {
        pieces.deallocate()
        operations.deallocate()
        queue.deallocate()
        completions.deallocate()
        shards.deallocate()
        memory.deallocate()
    }

    /// `fill` makes the bytes of a block and says its counter and namespace.
    func put(
        count: Int,
        fill: (_ number: Int, _ buffer: UnsafeMutableRawBufferPointer) -> (UInt64, UInt64),
        completed: (_ done: Int) -> Void
    ) throws(BenchError) {
        var free = Array((0..<window).reversed())
        var next = 0
        var done = 0
        while done < count {
            var queued = 0
            while next < count, let slot = free.popLast() {
                let buffer = UnsafeMutableRawBufferPointer(
                    rebasing: memory[slot * stride..<slot * stride + blockBytes])
                let (counter, namespace) = fill(next, buffer)
                keys.set(slot, counter, namespace)
                queue[queued] = operations[slot]
                queued += 1
                next += 1
            }
            try hand(queue, queued)
            let polled = session.poll(into: completions, wait: UInt64.max)
            for index in 0..<polled {
                let answer = completions[index].answer
                let slot = Int(completions[index].token)
                switch answer.status {
                case .stored, .alreadyPresent:
                    free.append(slot)
                    done += 1
                case .throttled:
                    usleep(200)
                    try hand(operations + slot, 1)
                default:
                    let code = errorNumber(answer)
                    throw BenchError(
                        "a put ended as \(answer.status): \(errorText(code))", code: code)
                }
            }
            completed(done)
        }
    }

    private func hand(
        _ first: UnsafeMutablePointer<StoreOperation>, _ count: Int
    ) throws(BenchError) {
        let batch = UnsafeBufferPointer(start: UnsafePointer(first), count: count)
        if count == 0 || session.submit(batch) == count { return }
        throw BenchError("the store is closed")
    }

    func finish() { kv.unregister(region) }
}
