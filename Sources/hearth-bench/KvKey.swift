// KvKey: the 32 bytes under which a block of a benchmark is stored: the namespace number, the
// counter, and 16 bytes that follow from both. So every run of the same name finds the same keys.

import BenchKit
import Hearth

enum KvKey {
    static let bytes = 32

    static func write(
        _ counter: UInt64, _ namespace: UInt64, to place: UnsafeMutableRawPointer
    ) {
        place.storeBytes(of: namespace.littleEndian, as: UInt64.self)
        place.storeBytes(of: counter.littleEndian, toByteOffset: 8, as: UInt64.self)
        let mixed = scrambled(namespace ^ scrambled(counter))
        place.storeBytes(of: mixed.littleEndian, toByteOffset: 16, as: UInt64.self)
        place.storeBytes(of: scrambled(mixed).littleEndian, toByteOffset: 24, as: UInt64.self)
    }

    static func key(_ counter: UInt64, _ namespace: UInt64) -> Key {
        withUnsafeTemporaryAllocation(byteCount: bytes, alignment: 8) { place in
            if let base = place.baseAddress { write(counter, namespace, to: base) }
            return Key(UnsafeRawBufferPointer(place))
        }
    }
}

/// Room for keys that operations point to.
final class KeyRoom {
    let base: UnsafeMutableRawPointer
    let capacity: Int

    init(capacity: Int) {
        self.capacity = capacity
        base = .allocate(byteCount: max(1, capacity) * KvKey.bytes, alignment: 64)
    }

    deinit { base.deallocate() }

    @inline(__always)
    subscript(_ index: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: base + index * KvKey.bytes, count: KvKey.bytes)
    }

    @inline(__always)
    func set(_ index: Int, _ counter: UInt64, _ namespace: UInt64) {
        KvKey.write(counter, namespace, to: base + index * KvKey.bytes)
    }
}
