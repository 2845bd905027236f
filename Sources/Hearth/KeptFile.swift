// KeptFile: a small file in a directory of a store that its owner keeps over restarts and nothing
// depends on: read when the store is opened, and put in its place whole, by renaming, never
// flushed. A torn one is found by the check of what is in it.

import Glibc

enum KeptFile {
    /// Its bytes, at most so many; empty where there is none. No link is followed, no pipe waited
    /// for.
    static func read(_ name: String, from directory: String, most: Int) -> [UInt8] {
        let descriptor = open(
            directory + "/" + name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
        guard descriptor >= 0 else { return [] }
        defer { _ = Glibc.close(descriptor) }
        var information = stat()
        guard fstat(descriptor, &information) == 0 else { return [] }
        var bytes = [UInt8](repeating: 0, count: max(0, min(Int(information.st_size), most)))
        var length = 0
        while length < bytes.count {
            let room = bytes.count - length
            let count = bytes.withUnsafeMutableBytes {
                Glibc.read(descriptor, $0.baseAddress.map { $0 + length }, room)
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { break }
            length += count
        }
        bytes.removeLast(bytes.count - length)
        return bytes
    }

    /// False: it could not be written; what was there is still there.
    static func write(_ bytes: [UInt8], _ file: String, to directory: String) -> Bool {
        let name = directory + "/" + file
        let made = name + ".new"
        let descriptor = open(
            made, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0o600)
        guard descriptor >= 0 else { return false }
        var done = 0
        while done < bytes.count {
            let rest = bytes.count - done
            let count = bytes.withUnsafeBytes {
                Glibc.write(descriptor, $0.baseAddress.map { $0 + done }, rest)
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { break }
            done += count
        }
        _ = Glibc.close(descriptor)
        guard done == bytes.count, rename(made, name) == 0 else {
            _ = unlink(made)
            return false
        }
        return true
    }
}
