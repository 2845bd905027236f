// LearntFile: the file `learnt` in the first of a store's directories that is there, read when the
// store is opened and put in its place whole, by renaming, never flushed: a torn one is found by
// its check, and costs what was learnt.

import Glibc
import LogStore
import SegmentFormat

enum LearntFile {
    /// Nil: there is none that says anything.
    static func read(from directory: String) -> LearntReturns? {
        let descriptor = open(
            directory + "/" + StoreFiles.learnt, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
        guard descriptor >= 0 else { return nil }
        defer { _ = Glibc.close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: LearntReturns.mostBytes)
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
        return bytes.withUnsafeBytes {
            try? LearntReturns.decode(UnsafeRawBufferPointer(rebasing: $0[..<length]))
        }
    }

    /// False: it could not be written; what was there is still there.
    static func write(_ learnt: LearntReturns, to directory: String) -> Bool {
        guard let bytes = learnt.encode() else { return false }
        let name = directory + "/" + StoreFiles.learnt
        let made = name + ".new"
        let descriptor = open(
            made, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0o600)
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
