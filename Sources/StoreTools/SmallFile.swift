// SmallFile: a file of known size at most, read whole with plain system calls, for what is looked
// at beside its owner: no lock, no driver.

import BlockIO
import Glibc

enum SmallFile {
    /// The first `room` bytes, or as many as there are.
    static func read(_ path: String, room: Int) throws(IOError) -> [UInt8] {
        // A pipe of that name must not hold anybody up, nor a link lead elsewhere.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
        guard descriptor >= 0 else {
            throw IOError(operation: "open", path: path, errno: errno)
        }
        defer { _ = close(descriptor) }
        var failure: Int32 = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: room) { buffer, count in
            while count < room {
                let some = pread(
                    descriptor, buffer.baseAddress.map { $0 + count }, room - count, off_t(count))
                if some < 0, errno == EINTR { continue }
                if some < 0 { failure = errno }
                if some <= 0 { break }
                count += some
            }
        }
        guard failure == 0 else { throw IOError(operation: "read", path: path, errno: failure) }
        return bytes
    }
}
