// Reads of resident blocks on the caller's thread, without the owner and without an allocation: the
// block is pinned, copied out, and its touch queued.

import BlockIO
import LogStore
import SegmentFormat
import Staging

extension Session {
    /// Serves a cached get of a whole block, or of a byte range of one that lies in one stretch,
    /// into process memory, if it is resident. Nil: submit it.
    package func copyResident(
        _ operation: StoreOperation, in namespace: Namespace
    ) -> StoreAnswer? {
        let start = engine.clock.monotonic
        guard
            let (answer, key) = residentAnswer(
                operation, in: namespace, now: engine.clock.wallSeconds)
        else { return nil }
        shared.touches.push(key)
        shared.noteHits(
            1, bytes: Int(answer.delivered), nanoseconds: engine.clock.monotonic - start)
        return answer
    }

    /// The same without telling the owner or counting.
    func residentAnswer(
        _ operation: StoreOperation, in namespace: Namespace, now wallSeconds: UInt32
    ) -> (StoreAnswer, StagingKey)? {
        guard operation.kind == .get, operation.mode == .cached, operation.shardCount == 0,
            shared.inclusive, let residents = shared.residents, !namespace.isPurged
        else { return nil }
        let fingerprint = shared.fingerprint(namespace.instance, operation.key)
        let key = StagingKey(hi: fingerprint.hi, lo: fingerprint.lo)
        guard let block = residents.pin(key, now: wallSeconds) else { return nil }
        defer { residents.unpin(block) }
        let info = block.info
        guard !info.aligned || info.shardCount == 0, operation.byteOffset < UInt64(info.length)
        else { return nil }
        let rest = UInt64(info.length) - operation.byteOffset
        let count = operation.byteCount == 0 ? rest : operation.byteCount
        guard count <= rest, var target = ProcessPieces(operation, holding: count) else {
            return nil
        }
        var skip = Int(operation.byteOffset)
        var left = Int(count)
        residents.forEachRun(block) { offset, length in
            let from = min(skip, length)
            let part = min(length - from, left)
            skip -= from
            left -= part
            if part > 0 { target.append(residents.arenaBase + offset + from, part) }
        }
        var answer = StoreAnswer(token: operation.token, status: .hit)
        answer.tier = .staging
        answer.version = info.version
        answer.length = info.length
        answer.delivered = count
        answer.shardCount = Int(info.shardCount) + 1
        return (answer, key)
    }
}

extension Session {
    /// Which keys are present, from memory alone and without an allocation.
    package func contains(
        _ keys: UnsafeBufferPointer<UnsafeRawBufferPointer>, in namespace: Namespace,
        into: UnsafeMutablePointer<Bool>
    ) {
        if namespace.isPurged {
            into.update(repeating: false, count: keys.count)
            return
        }
        let part = 64  // room that is still on the stack
        withUnsafeTemporaryAllocation(of: Fingerprint.self, capacity: part) { room in
            var start = 0
            while start < keys.count {
                let count = min(part, keys.count - start)
                for index in 0..<count {
                    room.initializeElement(
                        at: index,
                        to: shared.fingerprint(namespace.instance, keys[start + index]))
                }
                shared.contains(
                    UnsafeBufferPointer(start: room.baseAddress, count: count), into: into + start)
                start += count
            }
        }
    }

    /// The same for one.
    package func contains(_ key: UnsafeRawBufferPointer, in namespace: Namespace) -> Bool {
        !namespace.isPurged && shared.contains(shared.fingerprint(namespace.instance, key))
    }
}

/// An operation's pieces, written front to back.
private struct ProcessPieces {
    private let pieces: UnsafePointer<BlockIO.Piece>
    private let count: Int
    private var current = 0
    private var filled = 0

    /// Nil when a piece is not process memory, or they hold less.
    init?(_ operation: StoreOperation, holding bytes: UInt64) {
        guard let pieces = operation.pieces else { return nil }
        self.pieces = pieces
        count = operation.pieceCount
        var room: UInt64 = 0
        for index in 0..<count {
            guard pieces[index].region == .process, pieces[index].offset != 0 else { return nil }
            room &+= pieces[index].length
        }
        if room < bytes { return nil }
    }

    mutating func append(_ source: UnsafeRawPointer, _ bytes: Int) {
        var done = 0
        while done < bytes && current < count {
            let part = min(Int(pieces[current].length) - filled, bytes - done)
            let address = UInt(pieces[current].offset) + UInt(filled)
            if part > 0 {
                UnsafeMutableRawPointer(bitPattern: address)?
                    .copyMemory(from: source + done, byteCount: part)
            }
            done += part
            filled += part
            if filled == Int(pieces[current].length) {
                current += 1
                filled = 0
            }
        }
    }
}
