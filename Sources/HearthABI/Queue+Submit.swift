// Submitting: a batch is first read as a whole, so that one that cannot be read takes nothing; then
// it goes in parts. Of each part, what is resident is copied on this thread; the keys, pieces and
// shard lengths of the rest are copied into one buffer, and the operations pushed to the owner.

import BlockIO
import CHearth
import Glibc
import Hearth
import LogStore
import Staging
import Synchronization

/// Room for one part of a batch; a queue keeps one for each thread that submits at a time.
final class Scratch {
    static let part = 128
    static let pieces = 64

    let operations: UnsafeMutablePointer<StoreOperation>
    let instances: UnsafeMutablePointer<UInt64>
    let completions: UnsafeMutablePointer<hearth_completion>
    /// Operations of the part that are left for the owner.
    let rest: UnsafeMutablePointer<Int32>
    let rooms: UnsafeMutablePointer<Piece>

    let residents: ResidentBatch

    init(_ session: Session) {
        residents = ResidentBatch(session)
        operations = .allocate(capacity: Self.part)
        instances = .allocate(capacity: Self.part)
        completions = .allocate(capacity: Self.part)
        rest = .allocate(capacity: Self.part)
        rooms = .allocate(capacity: Self.pieces)
    }

    deinit {
        operations.deallocate()
        instances.deallocate()
        completions.deallocate()
        rest.deallocate()
        rooms.deallocate()
    }
}

/// What was looked up last, since a batch mostly names one namespace and one region.
private struct Known {
    let store: OpenStore
    private var spaceHandle: UInt64 = 0
    private var space: OpenNamespace?
    private var regionNumber: UInt32 = 0
    private var region: KnownRegion?

    init(_ store: OpenStore) { self.store = store }

    /// Nil for a namespace that is not there, is purged or of another store.
    mutating func namespace(_ handle: UInt64) -> Namespace? {
        if handle != spaceHandle || space == nil {
            spaceHandle = handle
            space = try? Registry.current.namespaces.find(handle)
            if space?.store !== store { space = nil }
        }
        guard let space, !space.space.isPurged else { return nil }
        return space.space
    }

    mutating func region(_ number: UInt32) -> KnownRegion? {
        if number != regionNumber || region == nil {
            regionNumber = number
            region = store.regions.find(number)
        }
        return region
    }

    mutating func forgetRegion() { region = nil }

    /// The core's form of a piece; nil when it is not within memory that may be used.
    mutating func piece(_ piece: hearth_piece) -> Piece? {
        if piece.region == 0 {
            // No address has the top bit; the core counts bytes in signed numbers.
            let (end, overflow) = piece.offset.addingReportingOverflow(piece.length)
            guard piece.offset != 0, !overflow, end <= UInt64(Int64.max) else { return nil }
            return Piece(region: .process, offset: piece.offset, length: piece.length)
        }
        guard let known = region(piece.region),
            known.holds(offset: piece.offset, length: piece.length)
        else { return nil }
        return known.region.corePiece(offset: piece.offset, length: piece.length)
    }

    /// The same as process memory, for copying on this thread; nil for device memory too.
    mutating func processPiece(_ piece: hearth_piece) -> Piece? {
        guard piece.region != 0 else { return self.piece(piece) }
        guard let known = region(piece.region), known.address != 0,
            known.holds(offset: piece.offset, length: piece.length)
        else { return nil }
        return Piece(
            region: .process, offset: UInt64(known.address) + piece.offset, length: piece.length)
    }
}

extension Queue {
    func submit(
        _ operations: UnsafePointer<hearth_operation>, count: Int, _ data: BatchData
    ) throws(Failure) -> Int {
        try checkOpen()
        try data.check(operations, count)
        var done = 0
        while done < count {
            let part = min(count - done, Scratch.part)
            let taken = submitPart(operations + done, part, data)
            done += taken
            if taken < part { break }
        }
        if done > 0, store.store.isRecording { record(operations, done, data) }
        // A store that has begun to close takes nothing; what was taken before is answered.
        if done == 0 { try checkOpen() }
        return done
    }

    /// Tells the recorder what was taken, in runs of one kind and namespace.
    private func record(
        _ operations: UnsafePointer<hearth_operation>, _ count: Int, _ data: BatchData
    ) {
        var known = Known(store)
        var start = 0
        while start < count {
            let (kind, handle) = (operations[start].kind, operations[start].space)
            var end = start + 1
            while end < count, operations[end].kind == kind, operations[end].space == handle {
                end += 1
            }
            let run = operations + start
            if kind == HEARTH_GET.rawValue, let space = known.namespace(handle) {
                store.store.recordGets(count: end - start, in: space) {
                    let isHead = run[$0].first_shard == 0 && run[$0].byte_offset == 0
                    return (data.bytes(run[$0].key), isHead)
                }
            } else if kind == HEARTH_PUT.rawValue, let space = known.namespace(handle) {
                store.store.recordPuts(count: end - start, in: space) {
                    var bytes: UInt64 = 0
                    for index in 0..<Int(run[$0].piece_count) {
                        bytes &+= data.piece(run[$0].pieces, index).length
                    }
                    return (data.bytes(run[$0].key), data.bytes(run[$0].parent), bytes)
                }
            }
            start = end
        }
    }

    private func submitPart(
        _ operations: UnsafePointer<hearth_operation>, _ count: Int, _ data: BatchData
    ) -> Int {
        pthread_mutex_lock(lock)
        let count = phase == .open ? min(count, capacity - used) : 0
        guard count > 0 else {
            pthread_mutex_unlock(lock)
            return 0
        }
        used += count
        submitting += 1
        let scratch = self.scratch.popLast() ?? Scratch(store.session)
        pthread_mutex_unlock(lock)

        var known = Known(store)
        let served = serve(operations, count, data, scratch, &known)

        pthread_mutex_lock(lock)
        for index in 0..<served { addLocal(scratch.completions[index]) }
        let pushed = prepare(operations, rest: count - served, data, scratch, &known)
        let decided = count - pushed
        // With a callback, what was decided here is still to be handed to it.
        underWay.add(
            pushed + (callback == nil ? 0 : decided), ordering: .sequentiallyConsistent)
        pthread_mutex_unlock(lock)

        let lost = push(pushed, scratch)
        pthread_mutex_lock(lock)
        if lost > 0 { takeBack(lost, of: pushed, scratch) }
        self.scratch.append(scratch)
        submitting -= 1
        pthread_mutex_unlock(lock)
        submissionEnded()
        if decided + lost > 0 { announceLocal() }
        return count
    }

    // MARK: On this thread

    /// Copies out what is resident. Returns how many operations ended so; the others' numbers are
    /// left in the scratch.
    private func serve(
        _ operations: UnsafePointer<hearth_operation>, _ count: Int, _ data: BatchData,
        _ scratch: Scratch, _ known: inout Known
    ) -> Int {
        var served = 0
        scratch.residents.begin()
        defer { scratch.residents.end() }
        for index in 0..<count {
            let operation = operations[index]
            if operation.kind == HEARTH_GET.rawValue, operation.mode == HEARTH_CACHED.rawValue,
                let answer = copyResident(operation, data, scratch, &known)
            {
                scratch.completions.advanced(by: served).initialize(
                    to: hearth_completion(answer, tag: operation.tag))
                served += 1
            } else {
                scratch.rest[index - served] = Int32(index)
            }
        }
        return served
    }

    private func copyResident(
        _ operation: hearth_operation, _ data: BatchData, _ scratch: Scratch, _ known: inout Known
    ) -> StoreAnswer? {
        guard operation.flags == 0, operation.shard_count == 0, operation.first_shard == 0,
            Int(operation.piece_count) <= Scratch.pieces,
            (1...512).contains(operation.key.length),
            let space = known.namespace(operation.space)
        else { return nil }
        for index in 0..<Int(operation.piece_count) {
            guard let piece = known.processPiece(data.piece(operation.pieces, index)) else {
                return nil
            }
            scratch.rooms.advanced(by: index).initialize(to: piece)
        }
        var get = StoreOperation(
            kind: .get, token: 0, namespaceSlot: space.slot, key: data.bytes(operation.key))
        get.mode = .cached
        get.pieces = UnsafePointer(scratch.rooms)
        get.pieceCount = Int(operation.piece_count)
        get.byteOffset = operation.byte_offset
        get.byteCount = operation.byte_length
        return scratch.residents.copy(get, in: space)
    }

    // MARK: For the owner

    /// Gives what is left slots and memory, under the lock; those that are not right are answered.
    /// Returns the operations to push.
    private func prepare(
        _ operations: UnsafePointer<hearth_operation>, rest: Int, _ data: BatchData,
        _ scratch: Scratch, _ known: inout Known
    ) -> Int {
        guard rest > 0 else { return 0 }
        // Regions are looked up anew under the lock: one that is being unregistered is not there
        // any more, or the operation is there to be seen.
        known.forgetRegion()
        var bytes = 0
        for number in 0..<rest {
            bytes += BatchData.copiedBytes(operations[Int(scratch.rest[number])])
        }
        guard let buffer = memory.take(bytes), let base = memory.memory(buffer) else {
            for number in 0..<rest {
                addLocal(
                    hearth_completion(
                        operations[Int(scratch.rest[number])].tag, HEARTH_FAILED, errno: ENOMEM))
            }
            return 0
        }
        let now = store.store.monotonicNanoseconds
        var copy = MessageCopy(base)
        var pushed = 0
        for number in 0..<rest {
            let operation = operations[Int(scratch.rest[number])]
            guard let space = known.namespace(operation.space),
                var message = copy.message(operation, data, space, now),
                copy.pieces(operation, data, into: &message, { known.piece($0) })
            else {
                addLocal(hearth_completion(operation.tag, HEARTH_INVALID))
                continue
            }
            let slot = takeSlot()
            message.token = UInt64(slot)
            slots[Int(slot)].tag = operation.tag
            slots[Int(slot)].buffer = buffer
            slots[Int(slot)].pieces = message.pieces
            slots[Int(slot)].pieceCount = Int32(message.pieceCount)
            slots[Int(slot)].firstShard = operation.first_shard
            slots[Int(slot)].shardCount = operation.shard_count
            slots[Int(slot)].byteOffset = operation.byte_offset
            slots[Int(slot)].byteCount = operation.byte_length
            memory.addUser(buffer)
            scratch.operations.advanced(by: pushed).initialize(to: message)
            scratch.instances[pushed] = space.instance
            pushed += 1
        }
        if pushed == 0 { memory.give(buffer) }
        return pushed
    }

    /// Pushes runs of one namespace. Returns how many, at the end, were not taken: it is closed.
    private func push(_ count: Int, _ scratch: Scratch) -> Int {
        var start = 0
        while start < count {
            let instance = scratch.instances[start]
            var end = start + 1
            while end < count, scratch.instances[end] == instance { end += 1 }
            let run = UnsafeBufferPointer(start: scratch.operations + start, count: end - start)
            if !target.submit(run, instance: instance) { return count - start }
            start = end
        }
        return 0
    }

    /// Answers what a closed store did not take, under the lock.
    private func takeBack(_ lost: Int, of pushed: Int, _ scratch: Scratch) {
        for index in (pushed - lost)..<pushed {
            let slot = Int32(truncatingIfNeeded: scratch.operations[index].token)
            addLocal(hearth_completion(slots[Int(slot)].tag, HEARTH_FAILED, errno: ESHUTDOWN))
            giveSlot(slot)
        }
        if callback == nil { underWay.subtract(lost, ordering: .sequentiallyConsistent) }
    }
}

extension hearth_completion {
    /// One that was decided on the caller's thread.
    init(_ tag: UInt64, _ status: hearth_status, errno: Int32 = 0) {
        self.init()
        self.tag = tag
        self.status = UInt8(truncatingIfNeeded: status.rawValue)
        system_error = errno
    }
}
