// RequestQueue: requests that wait, in order: for room in the driver, or for their turn. And the
// read that may still be joined with its neighbour on disk.

import BlockIO

final class RequestQueue {
    private var memory: UnsafeMutablePointer<IORequest>
    private var capacity: Int
    private var head = 0
    private(set) var count = 0

    init(capacity: Int) {
        self.capacity = capacity
        memory = .allocate(capacity: capacity)
    }

    deinit { memory.deallocate() }

    var bytes: Int { capacity * MemoryLayout<IORequest>.stride }

    @inline(__always)
    var isEmpty: Bool { count == 0 }

    func append(_ request: IORequest) {
        if count == capacity { grow() }
        (memory + (head + count) % capacity).initialize(to: request)
        count += 1
    }

    /// Appends a request as several of at most so many bytes; returns how many.
    func append(_ request: IORequest, inSlicesOf bytes: UInt64) -> Int32 {
        var rest = request
        var count: Int32 = 0
        while rest.piece.length > 0 {
            var slice = rest
            slice.piece.length = min(rest.piece.length, bytes)
            append(slice)
            rest.fileOffset += slice.piece.length
            rest.piece.offset += slice.piece.length
            rest.piece.length -= slice.piece.length
            count += 1
        }
        return count
    }

    func popFirst() -> IORequest? {
        guard count > 0 else { return nil }
        let request = memory[head]
        head = (head + 1) % capacity
        count -= 1
        return request
    }

    /// Takes the request with a tag out, if it is there. Rare.
    func remove(tag: UInt64) -> Bool {
        var found = false
        for _ in 0..<count {
            guard let request = popFirst() else { break }
            if request.tag == tag, !found { found = true } else { append(request) }
        }
        return found
    }

    /// Hands over as many as the driver takes.
    func drain(into driver: any BlockDriver) {
        while count > 0 {
            guard driver.prepare(memory[head]) else {
                driver.submit()
                return
            }
            head = (head + 1) % capacity
            count -= 1
        }
    }

    /// Rare: more requests wait than ever before.
    private func grow() {
        let larger = UnsafeMutablePointer<IORequest>.allocate(capacity: capacity * 2)
        for index in 0..<count {
            (larger + index).initialize(to: memory[(head + index) % capacity])
        }
        memory.deallocate()
        memory = larger
        capacity *= 2
        head = 0
    }
}

/// A read request held back for the length of one batch.
struct JoinableRead {
    var request: IORequest?
    /// The last operation of the run.
    var last: Int32 = -1
}
