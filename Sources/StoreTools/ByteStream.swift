// ByteStream: the bytes of an export on their way out or in: a file descriptor with a buffer, or,
// for tests, memory. Reading gives exactly what was asked for, or says that there is no more.

import Glibc
import LogStore

/// Where an export goes.
package protocol ByteSink: AnyObject {
    func write(_ bytes: UnsafeRawBufferPointer) throws(StoreError)
}

/// Where an import comes from.
package protocol ByteSource: AnyObject {
    /// Fills the buffer as far as there are bytes; how many came.
    func read(into buffer: UnsafeMutableRawBufferPointer) throws(StoreError) -> Int
    /// Goes back to the beginning; false where that cannot be.
    func rewind() -> Bool
}

/// Writes to a descriptor, which the caller opened and closes.
package final class DescriptorSink: ByteSink {
    private let descriptor: Int32
    private let path: String
    private let buffer = PageBuffer(bytes: 4 << 20)
    private var used = 0

    package init(descriptor: Int32, path: String) {
        self.descriptor = descriptor
        self.path = path
    }

    package func write(_ bytes: UnsafeRawBufferPointer) throws(StoreError) {
        var done = 0
        while done < bytes.count {
            let count = min(bytes.count - done, buffer.count - used)
            if let from = bytes.baseAddress {
                (buffer.base + used).copyMemory(from: from + done, byteCount: count)
            }
            used += count
            done += count
            if used == buffer.count { try flush() }
        }
    }

    /// Hands over what is still in the buffer.
    package func flush() throws(StoreError) {
        var done = 0
        while done < used {
            let count = Glibc.write(descriptor, buffer.base + done, used - done)
            if count < 0 {
                if errno == EINTR { continue }
                throw StoreError(
                    errno == ENOSPC || errno == EDQUOT ? .noSpace : .input, operation: "write",
                    subject: path, errno: errno, advice: "The export is incomplete.")
            }
            done += count
        }
        used = 0
    }
}

package final class DescriptorSource: ByteSource {
    private let descriptor: Int32
    private let path: String
    private let buffer = PageBuffer(bytes: 4 << 20)
    private var at = 0
    private var end = 0

    package init(descriptor: Int32, path: String) {
        self.descriptor = descriptor
        self.path = path
    }

    package func read(into target: UnsafeMutableRawBufferPointer) throws(StoreError) -> Int {
        var done = 0
        while done < target.count {
            if at == end {
                let count = Glibc.read(descriptor, buffer.base, buffer.count)
                if count < 0 {
                    if errno == EINTR { continue }
                    throw StoreError(
                        .input, operation: "read", subject: path, errno: errno,
                        advice: "The stream cannot be read on.")
                }
                if count == 0 { return done }
                at = 0
                end = count
            }
            let count = min(target.count - done, end - at)
            if let base = target.baseAddress {
                (base + done).copyMemory(from: buffer.base + at, byteCount: count)
            }
            at += count
            done += count
        }
        return done
    }

    package func rewind() -> Bool {
        var found = stat()
        guard fstat(descriptor, &found) == 0, found.st_mode & S_IFMT == S_IFREG,
            lseek(descriptor, 0, SEEK_SET) == 0
        else { return false }
        at = 0
        end = 0
        return true
    }
}

package final class MemoryStream: ByteSink, ByteSource {
    package var bytes: [UInt8]
    package var canRewind = true
    private var at = 0

    package init(_ bytes: [UInt8] = []) { self.bytes = bytes }

    package func write(_ bytes: UnsafeRawBufferPointer) { self.bytes.append(contentsOf: bytes) }

    package func read(into buffer: UnsafeMutableRawBufferPointer) -> Int {
        let count = min(buffer.count, bytes.count - at)
        for number in 0..<count { buffer[number] = bytes[at + number] }
        at += count
        return count
    }

    package func rewind() -> Bool {
        if canRewind { at = 0 }
        return canRewind
    }
}
