// MessageMemory: where what operations point to is copied: one buffer for the operations that are
// submitted together, given back when the last of them has been told of. Buffers are kept by size,
// so that a queue in use allocates nothing.

import Glibc

struct MessageBuffer {
    let memory: UnsafeMutableRawPointer
    let count: Int
    fileprivate let sizeClass: Int
    /// Operations that still point into it.
    var users = 0
    var nextFree: Int32 = -1
}

/// Not thread-safe: used under its queue's lock.
struct MessageMemory: ~Copyable {
    private static let smallest = 12
    private static let classes = 9

    private var buffers: [MessageBuffer?] = []
    private var freePlaces: [Int32] = []
    /// First kept buffer of each size.
    private var kept = [Int32](repeating: -1, count: classes)

    deinit {
        for case let buffer? in buffers { free(buffer.memory) }
    }

    /// A buffer of at least so many bytes, 16-aligned; nil when the system has no memory.
    mutating func take(_ bytes: Int) -> Int32? {
        let bits = max(Self.smallest, Int.bitWidth - max(bytes - 1, 1).leadingZeroBitCount)
        let sizeClass = bits - Self.smallest
        if sizeClass < Self.classes, kept[sizeClass] >= 0 {
            let place = kept[sizeClass]
            kept[sizeClass] = buffers[Int(place)]?.nextFree ?? -1
            return place
        }
        let count = sizeClass < Self.classes ? 1 << bits : bytes
        guard let memory = malloc(count) else { return nil }
        let buffer = MessageBuffer(memory: memory, count: count, sizeClass: sizeClass)
        if let place = freePlaces.popLast() {
            buffers[Int(place)] = buffer
            return place
        }
        buffers.append(buffer)
        return Int32(buffers.count - 1)
    }

    func memory(_ place: Int32) -> UnsafeMutableRawPointer? { buffers[Int(place)]?.memory }

    mutating func addUser(_ place: Int32) { buffers[Int(place)]?.users += 1 }

    /// One operation less points into the buffer; the last one gives it back.
    mutating func release(_ place: Int32) {
        guard place >= 0, let users = buffers[Int(place)]?.users else { return }
        buffers[Int(place)]?.users = users - 1
        if users <= 1 { give(place) }
    }

    /// Gives back a buffer that nobody uses.
    mutating func give(_ place: Int32) {
        guard let buffer = buffers[Int(place)] else { return }
        if buffer.sizeClass < Self.classes {
            buffers[Int(place)]?.users = 0
            buffers[Int(place)]?.nextFree = kept[buffer.sizeClass]
            kept[buffer.sizeClass] = place
        } else {
            free(buffer.memory)
            buffers[Int(place)] = nil
            freePlaces.append(place)
        }
    }
}
