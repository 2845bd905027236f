// PutLog: the keys whose put has completed, kept outside the store, 8 bytes little-endian each,
// written with write(2) as each completes. What is in it after a kill -9 is what the store owes; a
// tail of fewer than 8 bytes was never promised and is passed over.

import Glibc

package final class PutLog {
    private let descriptor: Int32
    private let path: String

    package init(path: String) throws(BenchError) {
        self.path = path
        descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else {
            throw BenchError("--put-log=\(path): \(errorText(errno))", code: errno)
        }
    }

    deinit { Glibc.close(descriptor) }

    package func append(_ key: UInt64) throws(BenchError) {
        var bytes = key.littleEndian
        while true {
            let count = write(descriptor, &bytes, 8)
            if count == 8 { return }
            if count < 0, errno == EINTR { continue }
            let code = count < 0 ? errno : ENOSPC
            throw BenchError("--put-log=\(path): \(errorText(code))", code: code)
        }
    }

    /// The keys of a log, each once, in the order of their first entry.
    package static func read(_ path: String) throws(BenchError) -> [UInt64] {
        guard let file = fopen(path, "rbe") else {
            throw BenchError("--verify-log=\(path): \(errorText(errno))", code: errno)
        }
        defer { fclose(file) }
        var keys: [UInt64] = []
        var seen: Set<UInt64> = []
        var buffer = [UInt64](repeating: 0, count: 8192)
        while true {
            let count = fread(&buffer, 8, buffer.count, file)
            for key in buffer[..<count] where seen.insert(UInt64(littleEndian: key)).inserted {
                keys.append(UInt64(littleEndian: key))
            }
            if count < buffer.count { break }
        }
        guard ferror(file) == 0 else {
            throw BenchError("--verify-log=\(path): \(errorText(errno))", code: errno)
        }
        return keys
    }
}
