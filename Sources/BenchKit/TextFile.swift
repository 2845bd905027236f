// TextFile: a whole file as text.

import Glibc

package enum TextFile {
    /// No file that is read whole is longer.
    private static let mostBytes = 1 << 30

    package static func read(_ path: String) throws(BenchError) -> String {
        guard let file = fopen(path, "rbe") else {
            throw BenchError("\(path): \(errorText(errno))", code: errno)
        }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = fread(&buffer, 1, buffer.count, file)
            bytes.append(contentsOf: buffer[..<count])
            guard bytes.count <= mostBytes else { throw BenchError("\(path): too long") }
            if count < buffer.count { break }
        }
        guard ferror(file) == 0 else {
            throw BenchError("\(path): \(errorText(errno))", code: errno)
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
