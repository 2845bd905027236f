// TraceParser: one line of a trace, in either of two shapes, which it tells apart by the keys:
//
//   {"t": seconds, "in": n, "out": n, "s": session, "h": [[first, length], ...]}
//   {"timestamp": milliseconds, "input_length": n, "output_length": n, "hash_ids": [id, ...]}
//
// Written by hand for these lines, since a trace has millions of ids. Keys may come in any order;
// keys not listed are skipped whatever their value; only the blocks must be there.

package struct TraceParser {
    /// What was expected and where; becomes a `TraceError` with file and line.
    package struct Problem: Error, Equatable {
        package var column: Int
        package var text: String
    }

    /// Blocks of one request; a longer line is damage, not a prompt.
    package static let maxBlocks = 1 << 22

    private var bytes: UnsafeRawBufferPointer
    private var place = 0

    private init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    /// Parses a line (without its newline) into `request`, reusing its array.
    package static func parse(
        _ line: UnsafeRawBufferPointer, into request: inout TraceRequest
    ) throws(Problem) {
        var parser = TraceParser(line)
        request.time = 0
        request.inputTokens = 0
        request.outputTokens = 0
        request.session = -1
        request.blocks.removeAll(keepingCapacity: true)
        try parser.object(&request)
    }

    package static func parse(_ line: String, into request: inout TraceRequest) throws(Problem) {
        var line = line
        let result: Result<Void, Problem> = line.withUTF8 { bytes in
            do throws(Problem) {
                try parse(UnsafeRawBufferPointer(bytes), into: &request)
                return .success(())
            } catch {
                return .failure(error)
            }
        }
        try result.get()
    }

    private func expected(_ what: String) -> Problem {
        let found =
            place < bytes.count
            ? "'\(Character(Unicode.Scalar(bytes[place])))'" : "the end of the line"
        return Problem(column: place + 1, text: "expected \(what), found \(found)")
    }

    private mutating func skipSpace() {
        while place < bytes.count, bytes[place] == 32 || bytes[place] == 9 || bytes[place] == 13 {
            place += 1
        }
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        skipSpace()
        guard place < bytes.count, bytes[place] == byte else { return false }
        place += 1
        return true
    }

    private mutating func require(_ byte: UInt8) throws(Problem) {
        guard take(byte) else { throw expected("'\(Character(Unicode.Scalar(byte)))'") }
    }

    private mutating func object(_ request: inout TraceRequest) throws(Problem) {
        var hasBlocks = false
        try require(UInt8(ascii: "{"))
        if !take(UInt8(ascii: "}")) {
            repeat {
                let key = try quoted()
                try require(UInt8(ascii: ":"))
                switch key {
                case "t": request.time = try number()
                case "timestamp": request.time = try number() / 1000
                case "in", "input_length": request.inputTokens = try count()
                case "out", "output_length": request.outputTokens = try count()
                case "s": request.session = try count()
                case "h", "hash_ids":
                    guard !hasBlocks else { throw expected("one list of blocks") }
                    hasBlocks = true
                    if key == "h" { try runs(&request.blocks) } else { try ids(&request.blocks) }
                default: try skipValue(depth: 0)
                }
            } while take(UInt8(ascii: ","))
            try require(UInt8(ascii: "}"))
        }
        skipSpace()
        guard place == bytes.count else { throw expected("the end of the line") }
        guard hasBlocks else {
            throw Problem(column: 1, text: "expected \"h\" or \"hash_ids\" with the blocks")
        }
    }

    private mutating func quoted() throws(Problem) -> String {
        try require(UInt8(ascii: "\""))
        let start = place
        while place < bytes.count, bytes[place] != UInt8(ascii: "\"") {
            // An escaped byte is never a quote that ends the text.
            place += bytes[place] == UInt8(ascii: "\\") ? 2 : 1
        }
        guard place < bytes.count else {
            place = bytes.count
            throw expected("'\"'")
        }
        defer { place += 1 }
        return String(decoding: bytes[start..<place], as: UTF8.self)
    }

    @inline(__always)
    private mutating func id() throws(Problem) -> UInt64 {
        skipSpace()
        let start = place
        var value: UInt64 = 0
        while place < bytes.count {
            let digit = bytes[place] &- 48
            guard digit < 10 else { break }
            let (tens, over) = value.multipliedReportingOverflow(by: 10)
            let (sum, carry) = tens.addingReportingOverflow(UInt64(digit))
            guard !over, !carry else {
                place = start
                throw expected("a block id below 2^64")
            }
            value = sum
            place += 1
        }
        guard place > start else { throw expected("a block id") }
        return value
    }

    private mutating func number() throws(Problem) -> Double {
        skipSpace()
        let start = place
        while place < bytes.count, "+-.0123456789eE".utf8.contains(bytes[place]) { place += 1 }
        guard let value = Double(String(decoding: bytes[start..<place], as: UTF8.self)),
            value.isFinite
        else {
            place = start
            throw expected("a number")
        }
        return value
    }

    private mutating func count() throws(Problem) -> Int {
        let value = try number()
        guard let whole = Int(exactly: value.rounded(.towardZero)) else {
            throw expected("a number of tokens")
        }
        return whole
    }

    private mutating func runs(_ blocks: inout [UInt64]) throws(Problem) {
        try require(UInt8(ascii: "["))
        if take(UInt8(ascii: "]")) { return }
        repeat {
            try require(UInt8(ascii: "["))
            let first = try id()
            try require(UInt8(ascii: ","))
            let length = try id()
            guard length >= 1, length <= UInt64(Self.maxBlocks - blocks.count),
                first <= UInt64.max - length
            else { throw expected("a run of 1 to \(Self.maxBlocks) blocks") }
            blocks.append(contentsOf: first..<first + length)
            try require(UInt8(ascii: "]"))
        } while take(UInt8(ascii: ","))
        try require(UInt8(ascii: "]"))
    }

    private mutating func ids(_ blocks: inout [UInt64]) throws(Problem) {
        try require(UInt8(ascii: "["))
        if take(UInt8(ascii: "]")) { return }
        repeat {
            guard blocks.count < Self.maxBlocks else {
                throw expected("at most \(Self.maxBlocks) blocks")
            }
            blocks.append(try id())
        } while take(UInt8(ascii: ","))
        try require(UInt8(ascii: "]"))
    }

    private mutating func skipValue(depth: Int) throws(Problem) {
        skipSpace()
        guard place < bytes.count, depth < 32 else { throw expected("a value") }
        switch bytes[place] {
        case UInt8(ascii: "\""): _ = try quoted()
        case UInt8(ascii: "["), UInt8(ascii: "{"):
            let object = bytes[place] == UInt8(ascii: "{")
            let close = object ? UInt8(ascii: "}") : UInt8(ascii: "]")
            place += 1
            if take(close) { return }
            repeat {
                if object {
                    _ = try quoted()
                    try require(UInt8(ascii: ":"))
                }
                try skipValue(depth: depth + 1)
            } while take(UInt8(ascii: ","))
            try require(close)
        default:
            let start = place
            while place < bytes.count, !",]} \t".utf8.contains(bytes[place]) { place += 1 }
            let word = String(decoding: bytes[start..<place], as: UTF8.self)
            if !["true", "false", "null"].contains(word), Double(word) == nil {
                place = start
                throw expected("a value")
            }
        }
    }
}
