// FakeDeviceMemory: stands in for GPU memory. One memfd, mapped twice: an alias that only the
// "device" uses (simulated drivers, and the copy functions), and an address the CPU would take for
// the region's own, on which any access faults. So code that touches device memory is found out.

import BlockIO
import CPlatform
import Glibc
import Synchronization

package final class FakeDeviceMemory {
    /// Bytes.
    package let length: Int
    /// Where a CPU would look for the region: nothing may be read or written there.
    package let protected: UnsafeMutableRawPointer
    private let alias: UnsafeMutableRawPointer
    private let descriptor: Int32

    /// Mappings of regions that are alive, by the alias's address (which is the copy context).
    private static let registry = Mutex<[UInt: Entry]>([:])

    private struct Entry {
        var length: Int
        var copies: UInt64
    }

    package init(length: Int) throws(IOError) {
        let descriptor = hearth_memfd("fake-device", 0)
        guard descriptor >= 0 else {
            throw IOError(operation: "memfd_create", path: "fake-device", errno: errno)
        }
        guard ftruncate(descriptor, length) == 0,
            let alias = mmap(nil, length, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0),
            alias != UnsafeMutableRawPointer(bitPattern: -1)
        else {
            let error = errno
            _ = Glibc.close(descriptor)
            throw IOError(operation: "mmap", path: "fake-device", errno: error)
        }
        guard let protected = mmap(nil, length, PROT_NONE, MAP_SHARED, descriptor, 0),
            protected != UnsafeMutableRawPointer(bitPattern: -1)
        else {
            let error = errno
            munmap(alias, length)
            _ = Glibc.close(descriptor)
            throw IOError(operation: "mmap", path: "fake-device", errno: error)
        }
        (self.length, self.alias, self.protected) = (length, alias, protected)
        self.descriptor = descriptor
        Self.registry.withLock {
            $0[UInt(bitPattern: alias)] = Entry(length: length, copies: 0)
        }
    }

    deinit {
        let context = UInt(bitPattern: alias)
        Self.registry.withLock { _ = $0.removeValue(forKey: context) }
        munmap(alias, length)
        munmap(protected, length)
        _ = Glibc.close(descriptor)
    }

    /// The region to add to a table. It must not outlive this object.
    package var region: Region {
        Region(
            kind: .device, base: nil, length: UInt64(length),
            copy: DeviceCopy(
                context: UInt(bitPattern: alias),
                toDevice: { context, offset, host, length in
                    guard let place = FakeDeviceMemory.place(context, offset, length, copy: true)
                    else { return EFAULT }
                    place.copyMemory(from: host, byteCount: length)
                    return 0
                },
                fromDevice: { context, offset, host, length in
                    guard let place = FakeDeviceMemory.place(context, offset, length, copy: true)
                    else { return EFAULT }
                    host.copyMemory(from: place, byteCount: length)
                    return 0
                }))
    }

    /// How often the copy functions were called: device transfers do not count.
    package var copies: UInt64 {
        let context = UInt(bitPattern: alias)
        return Self.registry.withLock { $0[context]?.copies ?? 0 }
    }

    /// Fills device memory, as a kernel running there would.
    package func fill(offset: Int, _ bytes: [UInt8]) {
        precondition(offset >= 0 && offset + bytes.count <= length, "outside the device memory")
        bytes.withUnsafeBytes { source in
            if let base = source.baseAddress {
                (alias + offset).copyMemory(from: base, byteCount: source.count)
            }
        }
    }

    package func bytes(offset: Int, count: Int) -> [UInt8] {
        precondition(offset >= 0 && offset + count <= length, "outside the device memory")
        return [UInt8](UnsafeRawBufferPointer(start: alias + offset, count: count))
    }

    /// Where the device finds a run of a live fake region; nil for any other context.
    static func place(
        _ context: UInt, _ offset: UInt64, _ length: Int, copy: Bool
    ) -> UnsafeMutableRawPointer? {
        let size = registry.withLock { entries -> Int? in
            guard let entry = entries[context] else { return nil }
            if copy { entries[context]?.copies += 1 }
            return entry.length
        }
        guard let size, length >= 0, offset <= UInt64(size), UInt64(length) <= UInt64(size) - offset
        else { return nil }
        return UnsafeMutableRawPointer(bitPattern: context).map { $0 + Int(offset) }
    }
}
