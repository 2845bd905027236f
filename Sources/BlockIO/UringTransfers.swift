// UringTransfers: turning requests into kernel transfers and kernel completions into results.
//
// A transfer that comes back short goes on from the last whole multiple of the file's offset
// alignment; three tries that move nothing, or the end of the file, are -EIO. EAGAIN and EINTR are
// tried again, a bounded number of times. A request ends when no transfer of it is outstanding and
// either all of it was issued or it failed.

import CLiburing
import Glibc

extension UringDriver {
    private static let stallLimit: UInt8 = 3
    private static let retryLimit: UInt8 = 64

    // MARK: Out

    /// Puts what can go into the submission queue: first the transfers that go again, then the
    /// submitted requests in their order.
    func issue(_ now: UInt64) {
        while tables.againHead >= 0 {
            let index = Int(tables.againHead)
            guard let entry = entry() else { return }
            tables.againHead = tables.transfers[index].next
            tables.transfers[index].waiting = false
            fill(entry, index)
        }
        if earliestDeadline != .max { expire(now) }
        while tables.released > 0 {
            let index = Int(tables.queue.first)
            if !issue(request: index, now) { return }
            tables.queue.removeFirst()
            tables.released -= 1
            tables.ops[index].queued = false
        }
    }

    /// Issues the rest of one request; false when transfers or submission entries ran out.
    private func issue(request index: Int, _ now: UInt64) -> Bool {
        let op = tables.ops + index
        repeat {
            guard tables.freeTransfer >= 0, let entry = entry() else { return false }
            if op.pointee.started == 0 {
                op.pointee.started = now
                counters.submitted += 1
            }
            let place = Int(tables.freeTransfer)
            let transfer = tables.transfers + place
            tables.freeTransfer = transfer.pointee.next
            transfer.pointee.op = Int32(truncatingIfNeeded: index)
            transfer.pointee.start = op.pointee.issued
            transfer.pointee.done = 0
            transfer.pointee.stalls = 0
            transfer.pointee.retries = 0
            if op.pointee.operation.movesBytes {
                let length = pieceLength(op)
                transfer.pointee.length = length
                op.pointee.issued += UInt64(length)
            } else {
                transfer.pointee.length = 0
                op.pointee.issued = op.pointee.length
            }
            op.pointee.outstanding += 1
            withKernel += 1
            fill(entry, place)
            if op.pointee.issued < op.pointee.length, transfer.pointee.start == 0 {
                counters.splitRequests += 1
            }
        } while op.pointee.issued < op.pointee.length
        return true
    }

    /// The next transfer's length: to the limit, or to the end of a registered buffer if that is
    /// a place where a transfer to this file may end.
    private func pieceLength(_ op: UnsafeMutablePointer<UringOp>) -> UInt32 {
        let length = min(op.pointee.length - op.pointee.issued, UInt64(limits.transferBytes))
        if op.pointee.bufferSlot >= 0 {
            let start = op.pointee.regionOffset + op.pointee.issued
            let room = UringBuffers.bytes - start % UringBuffers.bytes
            if length > room, room % UInt64(op.pointee.offsetAlignment) == 0 {
                return UInt32(room)
            }
        }
        return UInt32(length)
    }

    /// Writes one transfer's submission entry under a new generation.
    private func fill(_ entry: UnsafeMutablePointer<io_uring_sqe>, _ index: Int) {
        let transfer = tables.transfers + index
        let op = tables.ops + Int(transfer.pointee.op)
        transfer.pointee.generation &+= 1
        let descriptor = op.pointee.descriptor
        switch op.pointee.operation {
        case .read, .write:
            fillTransfer(entry, transfer, op)
        case .sync:
            // A directory's new names are not data: they need the whole fsync.
            let dataOnly: UInt32 = op.pointee.isDirectory ? 0 : 1
            io_uring_prep_fsync(entry, descriptor, dataOnly)
        case .allocate:
            io_uring_prep_fallocate(
                entry, descriptor, 0, off_t(op.pointee.fileOffset), off_t(op.pointee.length))
        case .punchHole:
            let punchKeepSize: Int32 = 0x02 | 0x01
            io_uring_prep_fallocate(
                entry, descriptor, punchKeepSize, off_t(op.pointee.fileOffset),
                off_t(op.pointee.length))
        }
        if op.pointee.fixedFile { io_uring_sqe_set_flags(entry, 1) }  // IOSQE_FIXED_FILE
        io_uring_sqe_set_data64(entry, UserData.transfer(index, transfer.pointee.generation))
    }

    @inline(__always)
    private func fillTransfer(
        _ entry: UnsafeMutablePointer<io_uring_sqe>,
        _ transfer: UnsafeMutablePointer<UringTransfer>,
        _ op: UnsafeMutablePointer<UringOp>
    ) {
        let inside = transfer.pointee.start + UInt64(transfer.pointee.done)
        let left = transfer.pointee.length - transfer.pointee.done
        let count = UInt32(min(Int(left), options.shortTransferBytes))
        let memory = UnsafeMutableRawPointer(bitPattern: op.pointee.address + UInt(inside))
        let offset = op.pointee.fileOffset + inside
        let descriptor = op.pointee.descriptor
        let write = op.pointee.operation == .write
        if op.pointee.bufferSlot >= 0 {
            let start = op.pointee.regionOffset + inside
            let chunk = start / UringBuffers.bytes
            if chunk == (start + UInt64(left) - 1) / UringBuffers.bytes {
                counters.registeredBufferOps += 1
                let slot = op.pointee.bufferSlot + Int32(truncatingIfNeeded: chunk)
                if write {
                    io_uring_prep_write_fixed(entry, descriptor, memory, count, offset, slot)
                } else {
                    io_uring_prep_read_fixed(entry, descriptor, memory, count, offset, slot)
                }
                return
            }
        }
        counters.unregisteredOps += 1
        if write {
            io_uring_prep_write(entry, descriptor, memory, count, offset)
        } else {
            io_uring_prep_read(entry, descriptor, memory, count, offset)
        }
    }

    // MARK: Back

    /// Takes one kernel completion.
    func complete(_ data: UInt64, _ result: Int32, _ now: UInt64) {
        let index = Int(data & 0xffff_ffff)
        guard index < tables.transferCapacity else {
            if data != UserData.cancel { counters.staleDropped += 1 }
            return
        }
        let transfer = tables.transfers + index
        guard transfer.pointee.op >= 0, !transfer.pointee.waiting,
            transfer.pointee.generation == UInt32(truncatingIfNeeded: data >> 32)
        else {
            counters.staleDropped += 1
            return
        }
        let op = tables.ops + Int(transfer.pointee.op)
        let verdict = judge(transfer, op, result)
        if verdict > 0 {
            transfer.pointee.waiting = true
            transfer.pointee.next = tables.againHead
            tables.againHead = Int32(truncatingIfNeeded: index)
            return
        }
        if verdict < 0, op.pointee.failure == 0 { op.pointee.failure = verdict }
        let owner = Int(transfer.pointee.op)
        transfer.pointee.op = -1
        transfer.pointee.next = tables.freeTransfer
        tables.freeTransfer = Int32(truncatingIfNeeded: index)
        withKernel -= 1
        op.pointee.outstanding -= 1
        if op.pointee.outstanding == 0,
            op.pointee.failure != 0 || op.pointee.issued == op.pointee.length
        {
            finish(owner, now)
        }
    }

    /// 0: the transfer is done; positive: it goes again; negative: it failed with that errno.
    private func judge(
        _ transfer: UnsafeMutablePointer<UringTransfer>, _ op: UnsafeMutablePointer<UringOp>,
        _ result: Int32
    ) -> Int32 {
        if result < 0 {
            if op.pointee.cancelled, result == -EINTR { return -ECANCELED }
            guard result == -EAGAIN || result == -EINTR, !op.pointee.cancelled,
                transfer.pointee.retries < Self.retryLimit
            else { return result }
            transfer.pointee.retries += 1
            return 1
        }
        guard op.pointee.operation.movesBytes else { return 0 }
        let moved = UInt32(result)
        let left = transfer.pointee.length - transfer.pointee.done
        if moved == left { return 0 }
        // More than was asked cannot be; nothing at all is the end of the file.
        if moved > left || (moved == 0 && op.pointee.operation == .read) { return -EIO }
        if op.pointee.cancelled { return -ECANCELED }
        counters.shortResumed += 1
        let alignment = op.pointee.offsetAlignment
        let aligned = moved / alignment * alignment
        if aligned == 0 {
            transfer.pointee.stalls += 1
            return transfer.pointee.stalls < Self.stallLimit ? 1 : -EIO
        }
        transfer.pointee.stalls = 0
        transfer.pointee.done += aligned
        return 1
    }

    /// Ends a request: one completion, its place freed.
    func finish(_ index: Int, _ now: UInt64) {
        let op = tables.ops + index
        if op.pointee.queued { unqueue(index) }
        if op.pointee.deadline != 0 {
            deadlines -= 1
            if deadlines == 0 { earliestDeadline = .max }
        }
        let failure = op.pointee.failure
        let result =
            failure != 0
            ? Int64(failure) : op.pointee.operation.movesBytes ? Int64(op.pointee.length) : 0
        let elapsed =
            op.pointee.started != 0 && now > op.pointee.started ? now - op.pointee.started : 0
        count(result)
        tables.ready.append(
            IOCompletion(tag: op.pointee.tag, result: result, deviceNanoseconds: elapsed))
        op.pointee.used = false
        op.pointee.nextFree = tables.freeOp
        tables.freeOp = Int32(truncatingIfNeeded: index)
    }

    /// Ends a request that never got a place: refused, or of no length.
    func finishWithoutSlot(_ tag: UInt64, _ problem: Int32) {
        count(Int64(-problem))
        tables.ready.append(
            IOCompletion(tag: tag, result: Int64(-problem), deviceNanoseconds: 0))
    }

    private func count(_ result: Int64) {
        counters.completed += 1
        if result < 0 {
            counters.failed += 1
            if result == Int64(-ECANCELED) || result == Int64(-ETIME) { counters.cancelled += 1 }
        }
    }

    // MARK: Giving up

    package func cancel(tag: UInt64) {
        guard ring != nil else { return }
        for index in 0..<limits.depth
        where tables.ops[index].used && tables.ops[index].tag == tag {
            giveUp(index, -ECANCELED)
        }
        flush()
    }

    /// Gives up the requests whose time is over; looks at them only when one may be due.
    func expire(_ now: UInt64) {
        guard now >= earliestDeadline else { return }
        var next = UInt64.max
        for index in 0..<limits.depth
        where tables.ops[index].used && tables.ops[index].deadline != 0
            && !tables.ops[index].cancelled
        {
            let deadline = tables.ops[index].deadline
            if deadline <= now {
                giveUp(index, tables.ops[index].started == 0 ? -ETIME : -ECANCELED)
            } else {
                next = min(next, deadline)
            }
        }
        earliestDeadline = next
    }

    /// Ends a request that the kernel does not have; asks the kernel, once, for one that it has.
    func giveUp(_ index: Int, _ reason: Int32) {
        let op = tables.ops + index
        guard op.pointee.used, !op.pointee.cancelled else { return }
        op.pointee.cancelled = true
        // Whatever was not issued will not be.
        if op.pointee.issued < op.pointee.length, op.pointee.failure == 0 {
            op.pointee.failure = reason
        }
        if op.pointee.outstanding == 0 {
            if op.pointee.failure == 0 { op.pointee.failure = reason }
            finish(index, 0)
            return
        }
        if op.pointee.queued { unqueue(index) }
        for place in 0..<tables.transferCapacity where tables.transfers[place].op == Int32(index) {
            if tables.transfers[place].waiting { continue }
            guard let entry = entry() else { continue }
            let data = UserData.transfer(place, tables.transfers[place].generation)
            io_uring_prep_cancel64(entry, data, 0)
            io_uring_sqe_set_data64(entry, UserData.cancel)
        }
    }

    private func unqueue(_ index: Int) {
        for position in 0..<tables.queue.count where tables.queue[position] == Int32(index) {
            tables.queue.remove(at: position)
            if position < tables.released { tables.released -= 1 }
            tables.ops[index].queued = false
            return
        }
    }
}
