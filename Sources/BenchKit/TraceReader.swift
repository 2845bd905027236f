// TraceReader: a trace file as a stream of requests. Plain or gzipped is told from the bytes (zlib
// reads both); lines may be of any length up to a bound; empty lines are passed over. A file that
// ends within a gzip member is an error, not a short trace.

import CZlib
import Glibc

package struct TraceReader: TraceSource, ~Copyable {
    /// No line of a sound trace is longer.
    package static let maxLineBytes = 64 << 20

    private let path: String
    private var file: gzFile?
    private var buffer: [UInt8]
    private var start = 0
    private var end = 0
    private var line = 0
    private var ended = false

    package var description: String { path }

    package init(path: String) throws(TraceError) {
        self.path = path
        buffer = .init(repeating: 0, count: 1 << 18)
        file = gzopen(path, "rbe")
        guard file != nil else {
            throw TraceError(file: path, problem: "cannot be opened: \(errorText(errno))")
        }
        var information = stat()
        if stat(path, &information) == 0, information.st_mode & S_IFMT == S_IFDIR {
            throw TraceError(file: path, problem: "is a directory")
        }
        gzbuffer(file, 1 << 18)
    }

    deinit {
        if let file { gzclose(file) }
    }

    package mutating func rewind() throws(TraceError) {
        guard gzrewind(file) == 0 else {
            throw TraceError(file: path, problem: "cannot be read again (a pipe?)")
        }
        (start, end, line, ended) = (0, 0, 0, false)
    }

    package mutating func next(_ request: inout TraceRequest) throws(TraceError) -> Bool {
        while let range = try nextLine() {
            line += 1
            let result: Result<Bool, TraceParser.Problem> = buffer.withUnsafeBytes { bytes in
                let text = UnsafeRawBufferPointer(rebasing: bytes[range])
                if text.allSatisfy({ $0 == 32 || $0 == 9 || $0 == 13 }) { return .success(false) }
                do throws(TraceParser.Problem) {
                    try TraceParser.parse(text, into: &request)
                    return .success(true)
                } catch {
                    return .failure(error)
                }
            }
            switch result {
            case .success(true): return true
            case .success(false): continue
            case .failure(let problem):
                throw TraceError(
                    file: path, line: line, problem: "column \(problem.column): \(problem.text)")
            }
        }
        return false
    }

    /// The place in the buffer of the next line without its newline; nil at the end.
    private mutating func nextLine() throws(TraceError) -> Range<Int>? {
        var searched = start
        while true {
            let newline = buffer.withUnsafeBytes { bytes -> Int? in
                guard end > searched, let base = bytes.baseAddress,
                    let hit = memchr(base + searched, 10, end - searched)
                else { return nil }
                return UnsafeRawPointer(hit) - base
            }
            if let newline {
                defer { start = newline + 1 }
                return start..<newline
            }
            searched = end
            if ended {
                guard start < end else { return nil }
                defer { start = end }
                return start..<end
            }
            if start > 0 {
                buffer.withUnsafeMutableBytes { bytes in
                    if let base = bytes.baseAddress {
                        _ = memmove(base, base + start, end - start)
                    }
                }
                searched -= start
                end -= start
                start = 0
            }
            if end == buffer.count {
                guard buffer.count < Self.maxLineBytes else {
                    throw TraceError(
                        file: path, line: line + 1,
                        problem: "expected a line below \(Self.maxLineBytes) bytes")
                }
                buffer.append(contentsOf: repeatElement(0, count: buffer.count))
            }
            try fill()
        }
    }

    private mutating func fill() throws(TraceError) {
        let from = end
        let count = buffer.withUnsafeMutableBytes { bytes -> Int32 in
            guard let base = bytes.baseAddress else { return -1 }
            return gzread(file, base + from, UInt32(bytes.count - from))
        }
        if count > 0 {
            end += Int(count)
            return
        }
        var code: Int32 = 0
        let text = gzerror(file, &code)
        guard count == 0, code == Z_OK || code == Z_STREAM_END else {
            let message = text.map { String(cString: $0) } ?? ""
            throw TraceError(
                file: path, line: line + 1,
                problem: code == Z_ERRNO ? errorText(errno) : "damaged gzip data: \(message)")
        }
        ended = true
    }
}
