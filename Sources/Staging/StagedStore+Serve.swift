// Serving: copying what a get asks for out of a stored image in memory, a resident's or a bounce
// buffer's, or leasing it.

import BlockIO
import LogStore
import SegmentFormat

extension StagedStore {
    // MARK: From a resident

    /// Copies what is asked for out of a resident, or leases it.
    func serve(_ index: Int32, _ resident: ResidentSlot, tier: HitTier) {
        guard let arena else { return }
        let slot = operations.slots + Int(index)
        let info = arena.info(resident)
        var made = StoreAnswer(token: slot.pointee.message.token, status: .hit)
        made.tier = tier
        made.version = info.version
        made.length = info.length
        made.shardCount = Int(info.shardCount) + 1
        let pieces = arena.pieces(resident)
        guard let base = pieces.baseAddress, !slot.pointee.abandoned else {
            deliver(index, made)
            return
        }
        let memory = PieceMemory(
            pieces: base, count: pieces.count, regions: log.driver.regions)
        let layout = BlockLayout(
            length: info.length, shardCount: Int(info.shardCount) + 1, aligned: info.aligned)
        withTable(memory, layout) { table in
            guard let selection = residentSelection(index, info, table),
                slot.pointee.message.mode == .lease
                    || selection.count <= destinationBytes(index)
            else {
                made.status = .invalid
                return
            }
            if slot.pointee.message.mode == .lease {
                guard arena.pinLease(resident) else {
                    made.status = .throttled
                    made.retryNanoseconds = 1_000_000
                    return
                }
                made.lease = resident.index
                made.leaseOffset =
                    UInt64(
                        Self.shardOffset(layout, table, selection.firstShard)) + selection.skip
                made.delivered = selection.count
            } else {
                made.delivered = copyOut(
                    index, memory, imageBase: 0, layout, table, selection)
            }
            if made.status == .hit { arena.touch(resident) }
        }
        if made.status == .hit {
            if tier == .staging {
                statistics.hitsStaging += 1
                if !configuration.inclusive,
                    arena.find(slot.pointee.fingerprint.stagingKey)?.state == .clean
                {
                    arena.demote(resident)
                }
            } else {
                statistics.hitsDevice += 1
            }
        } else {
            made.tier = .none
        }
        deliver(index, made)
    }

    func residentSelection(
        _ index: Int32, _ info: ResidentInfo, _ table: UnsafeRawPointer?
    ) -> Selection? {
        let message = operations[index].message
        let shards = Int(info.shardCount) + 1
        let length = UInt64(info.length)
        if message.byteCount > 0 || message.byteOffset > 0 {
            guard message.shardCount == 0, message.byteOffset < length else { return nil }
            let count = message.byteCount == 0 ? length - message.byteOffset : message.byteCount
            guard count <= length - message.byteOffset else { return nil }
            guard let table else {
                return Selection(firstShard: 0, shards: 1, skip: message.byteOffset, count: count)
            }
            let found = Self.covering(table, shards, from: message.byteOffset, count: count)
            return found.shards > 0 ? found : nil
        }
        let count = message.shardCount == 0 ? shards : message.shardCount
        guard message.firstShard >= 0, count > 0, count <= shards,
            message.firstShard <= shards - count,
            message.shardCount != 0 || message.firstShard == 0
        else { return nil }
        var bytes = length
        if let table, count < shards {
            bytes = 0
            for shard in message.firstShard..<(message.firstShard + count) {
                bytes += UInt64(shardLength(table, shard))
            }
        }
        return Selection(firstShard: message.firstShard, shards: count, skip: 0, count: bytes)
    }

    /// The image's shard table in one piece of memory; nil for a block of one shard.
    func withTable(
        _ memory: PieceMemory, _ layout: BlockLayout, _ body: (UnsafeRawPointer?) -> Void
    ) {
        guard layout.hasTable else {
            body(nil)
            return
        }
        withUnsafeTemporaryAllocation(byteCount: layout.tableBytes, alignment: 8) { buffer in
            guard let base = buffer.baseAddress else { return }
            memory.read(at: layout.tableOffset, into: base, count: layout.tableBytes)
            body(UnsafeRawPointer(base))
        }
    }

    static func shardOffset(
        _ layout: BlockLayout, _ table: UnsafeRawPointer?, _ shard: Int
    ) -> Int {
        var offset = layout.dataOffset
        guard let table else { return offset }
        for number in 0..<shard {
            offset += Int(shardLength(table, number))
            if layout.aligned {
                offset =
                    (offset + FormatConstants.pageBytes - 1) & ~(FormatConstants.pageBytes - 1)
            }
        }
        return offset
    }

    /// Copies the selected bytes into the caller's pieces; returns how many.
    func copyOut(
        _ index: Int32, _ memory: PieceMemory, imageBase: Int, _ layout: BlockLayout,
        _ table: UnsafeRawPointer?, _ selection: Selection
    ) -> UInt64 {
        let message = operations[index].message
        guard let pieces = message.pieces else { return 0 }
        var target = PieceCursor(
            pieces: pieces, count: message.pieceCount, regions: log.driver.regions)
        var skip = Int(selection.skip)
        var left = Int(selection.count)
        for shard in selection.firstShard..<(selection.firstShard + selection.shards)
        where left > 0 {
            let length = table.map { Int(shardLength($0, shard)) } ?? Int(layout.length)
            let take = min(max(0, length - skip), left)
            if take > 0 {
                let at = Self.shardOffset(layout, table, shard) + skip - imageBase
                memory.copy(at: at, count: take, into: &target)
            }
            skip = max(0, skip - length)
            left -= take
        }
        return selection.count - UInt64(left)
    }

    func copyFromBounce(_ index: Int32, _ table: UnsafeRawPointer?) -> UInt64 {
        let slot = operations.slots + Int(index)
        let entry = slot.pointee.entry
        let memory = PieceMemory(
            pieces: operations.bouncePiece(index), count: 1, regions: log.driver.regions)
        return copyOut(
            index, memory, imageBase: slot.pointee.bounceBase, log.layout(entry), table,
            slot.pointee.selection)
    }
}
