// Traces: both shapes of line, good and bad, gzipped and plain files, joins, the generated
// workload, and the real conversation trace where it is at hand.

import CZlib
import Glibc
import Testing

@testable import BenchKit

/// A file that goes with its test.
struct ScratchDirectory: ~Copyable {
    let path: String
    init() {
        var name = Array("/tmp/hearth-bench-test-XXXXXX".utf8CString)
        precondition(mkdtemp(&name) != nil)
        path = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
    deinit { ReplayDirectory.removeTree(path) }

    func write(_ name: String, _ bytes: [UInt8]) -> String {
        let file = path + "/" + name
        let descriptor = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        precondition(Glibc.write(descriptor, bytes, bytes.count) == bytes.count)
        close(descriptor)
        return file
    }

    func writeGzip(_ name: String, _ text: String) -> String {
        let file = path + "/" + name
        let handle = gzopen(file, "wb")
        let bytes = Array(text.utf8)
        precondition(gzwrite(handle, bytes, UInt32(bytes.count)) == bytes.count)
        gzclose(handle)
        return file
    }
}

/// The shared research files: $HEARTH_SHARED, or `shared` beside the repository.
func sharedFile(_ name: String) -> String? {
    var roots: [String] = []
    if let given = getenv("HEARTH_SHARED") { roots.append(String(cString: given)) }
    let root = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    roots += ["/\(root)/../shared", "/\(root)/../../shared"]
    return roots.map { "\($0)/\(name)" }.first { access($0, R_OK) == 0 }
}

func requests(_ path: String) throws(TraceError) -> [TraceRequest] {
    var reader = try TraceReader(path: path)
    var request = TraceRequest()
    var all: [TraceRequest] = []
    while try reader.next(&request) { all.append(request) }
    return all
}

let conversation = sharedFile("traces/mooncake_conversation.jsonl.gz")

@Suite struct TraceTests {
    private func parse(_ line: String) throws -> TraceRequest {
        var request = TraceRequest(blocks: [99])
        try TraceParser.parse(line, into: &request)
        return request
    }

    @Test func compactLine() throws {
        let request = try parse(#"{"t":3.5,"in":6758,"out":500,"s":-1,"h":[[0,1],[14,3]]}"#)
        #expect(
            request
                == TraceRequest(
                    time: 3.5, inputTokens: 6758, outputTokens: 500, session: -1,
                    blocks: [0, 14, 15, 16]))
    }

    @Test func mooncakeLine() throws {
        let request = try parse(
            #" { "timestamp" : 27482, "input_length": 6955, "output_length": 52, "#
                + #""hash_ids": [46, 47, 18446744073709551615], "x": {"a": [1, "\"]", null]}} "#)
        #expect(request.time == 27.482 && request.inputTokens == 6955)
        #expect(request.outputTokens == 52 && request.session == -1)
        #expect(request.blocks == [46, 47, UInt64.max])
        #expect(try parse(#"{"hash_ids":[]}"#).blocks.isEmpty)
    }

    @Test(arguments: [
        ("", "expected '{', found the end of the line"),
        ("[]", "expected '{', found '['"),
        ("{}", "expected \"h\" or \"hash_ids\""),
        (#"{"t":1}"#, "expected \"h\" or \"hash_ids\""),
        (#"{"t":x,"h":[]}"#, "expected a number, found 'x'"),
        (#"{"t":1"h":[]}"#, "expected '}', found '\"'"),
        (#"{"h":[[1]]}"#, "expected ',', found ']'"),
        (#"{"h":[[1,0]]}"#, "expected a run of 1"),
        (#"{"h":[[1,99999999999]]}"#, "expected a run of 1"),
        (#"{"h":[[18446744073709551615,2]]}"#, "expected a run of 1"),
        (#"{"h":[[-1,2]]}"#, "expected a block id, found '-'"),
        (#"{"h":[[1,2]"#, "expected ']', found the end"),
        (#"{"hash_ids":[1,]}"#, "expected a block id, found ']'"),
        (#"{"hash_ids":[18446744073709551616]}"#, "expected a block id below 2^64"),
        (#"{"h":[],"h":[]}"#, "expected one list of blocks"),
        (#"{"h":[]} x"#, "expected the end of the line, found 'x'"),
        (#"{"in":1e99,"h":[]}"#, "expected a number of tokens"),
        (#"{"h":[],"y":tru}"#, "expected a value"),
        (#"{"h\"#, "expected '\"', found the end"),
    ])
    func badLines(line: String, says: String) {
        #expect {
            _ = try parse(line)
        } throws: { error in (error as? TraceParser.Problem)?.text.contains(says) == true }
    }

    /// What is left of a prompt is a block, or is none, or the trace contradicts itself.
    @Test func tokensOfABlockAreFound() {
        var random = SeededGenerator(seed: 5)
        for tokens in [16, 64, 512, 2048] {
            for rest in [true, false] {
                var size = BlockSize()
                #expect(size.tokens == 0)
                for _ in 0..<2000 {
                    let input = tokens + Int(random.next() % 2_000_000)
                    let blocks = rest ? (input + tokens - 1) / tokens : input / tokens
                    size.observe(tokens: input, blocks: blocks)
                }
                size.observe(tokens: 0, blocks: 3)
                size.observe(tokens: 5, blocks: 0)
                #expect(size.tokens == tokens, "\(tokens), rest \(rest)")
                size.observe(tokens: 20 * tokens, blocks: 1)
                size.observe(tokens: tokens, blocks: 20)
                #expect(size.tokens == tokens, "\(tokens), contradicted")
            }
        }
        var single = BlockSize()
        single.observe(tokens: 700, blocks: 2)
        #expect(single.tokens == 352)
    }

    @Test func damagedLinesNeverTrap() throws {
        let line = Array(
            #"{"t":1.5,"in":7,"out":5,"s":2,"h":[[0,1],[14,3]],"z":[{"q":"\\"}]}"#.utf8)
        var random = SeededGenerator(seed: 4)
        var good = 0
        for round in 0..<20_000 {
            var damaged = line
            for _ in 0...random.below(3) {
                damaged[Int(random.below(UInt64(line.count)))] = UInt8(random.below(256))
            }
            if round % 3 == 0 { damaged.removeLast(Int(random.below(UInt64(line.count)))) }
            var request = TraceRequest()
            let parsed = damaged.withUnsafeBytes { (try? TraceParser.parse($0, into: &request)) }
            if parsed != nil { good += 1 }
        }
        #expect(good > 0 && good < 20_000)
    }

    @Test func files() throws {
        let scratch = ScratchDirectory()
        var text = ""
        for index in 0..<5000 { text += #"{"t":\#(index),"h":[[\#(index * 10),7]]}"# + "\n" }
        // A line far over the read buffer, an empty one, and no newline at the end.
        let long = (0..<100_000).map { String($0) }.joined(separator: ",")
        text += "\r\n{\"timestamp\":1,\"hash_ids\":[\(long)]}"
        let plain = try requests(scratch.write("plain", Array(text.utf8)))
        #expect(plain.count == 5001)
        #expect(plain[4999].blocks == Array(49_990..<49_997))
        #expect(plain[5000].blocks.count == 100_000 && plain[5000].time == 0.001)
        #expect(try requests(scratch.writeGzip("packed.gz", text)) == plain)
    }

    @Test func fileErrorsNameFileAndLine() throws {
        let scratch = ScratchDirectory()
        let bad = scratch.write("bad", Array("{\"h\":[]}\n\n{\"h\":[}\n".utf8))
        #expect {
            _ = try requests(bad)
        } throws: { error in
            "\(error)" == "\(bad):3: column 7: expected '[', found '}'"
        }
        #expect(throws: TraceError.self) { _ = try requests("\(scratch.path)/absent") }
        #expect(throws: TraceError.self) { _ = try requests(scratch.path) }
        let whole = scratch.writeGzip(
            "whole.gz", String(repeating: "{\"h\":[[1,2]]}\n", count: 9999))
        var bytes: [UInt8] = .init(repeating: 0, count: 1 << 16)
        let descriptor = open(whole, O_RDONLY)
        let count = read(descriptor, &bytes, bytes.count)
        close(descriptor)
        let cut = scratch.write("cut.gz", Array(bytes[..<(count / 2)]))
        #expect(throws: TraceError.self) { _ = try requests(cut) }
        var flipped = Array(bytes[..<count])
        flipped[count - 5] ^= 1
        #expect(throws: TraceError.self) { _ = try requests(scratch.write("flipped.gz", flipped)) }
    }

    @Test func joins() {
        var request = TraceRequest(blocks: Array(10..<20))
        request.join(4)
        #expect(request.blocks == [13, 17, 19])
        request.join(1)
        #expect(request.blocks == [13, 17, 19])
        request.blocks = []
        request.join(8)
        #expect(request.blocks.isEmpty)
    }

    @Test func generatorRepeats() throws {
        var options = ChatWorkload.Options()
        options.sessions = 200
        func all(_ options: ChatWorkload.Options) throws -> [TraceRequest] {
            var chat = ChatWorkload(options)
            var request = TraceRequest()
            var all: [TraceRequest] = []
            while try chat.next(&request) { all.append(request) }
            var again: [TraceRequest] = []
            try chat.rewind()
            while try chat.next(&request) { again.append(request) }
            #expect(all == again)
            return all
        }
        let first = try all(options)
        #expect(try all(options) == first)
        #expect(first.map(\.time) == first.map(\.time).sorted())
        options.seed = 2
        #expect(try all(options) != first)
    }

    /// Each block has one predecessor, as an id stands for a whole prefix.
    @Test func generatorChains() throws {
        var options = ChatWorkload.Options()
        options.sessions = 500
        var chat = ChatWorkload(options)
        var parents: [UInt64: UInt64] = [:]
        var request = TraceRequest()
        var conflicts = 0
        while try chat.next(&request) {
            #expect(request.blocks.first == 0)
            for (parent, block) in zip(request.blocks, request.blocks.dropFirst()) {
                if parents.updateValue(parent, forKey: block) ?? parent != parent { conflicts += 1 }
            }
        }
        #expect(conflicts == 0 && parents.count > 1000)
    }

    /// Near the conversation trace: 12,031 requests, 288,500 accesses, 182,790 unique, .366
    /// reusable.
    @Test func generatorStatistics() throws {
        var chat = ChatWorkload(.init())
        let summary = try TraceSummary(&chat, join: 1, requests: nil)
        #expect(abs(Double(summary.requests) / 12_031 - 1) < 0.05)
        #expect(abs(Double(summary.accesses) / 288_500 - 1) < 0.08)
        #expect(abs(Double(summary.unique) / 182_790 - 1) < 0.08)
        #expect(abs(summary.ceiling - 0.366) < 0.02)
        var lengths: [Int] = []
        var last: [Int: Double] = [:]
        var gaps: [Double] = []
        var request = TraceRequest()
        while try chat.next(&request) {
            lengths.append(request.blocks.count)
            if let before = last[request.session] { gaps.append(request.time - before) }
            last[request.session] = request.time
        }
        lengths.sort()
        gaps.sort()
        #expect((12...16).contains(lengths[lengths.count / 2]))
        #expect((65...90).contains(lengths[lengths.count * 95 / 100]))
        #expect((105...140).contains(gaps[gaps.count / 2]))
    }

    @Test(arguments: [1.0, 3.0, 10.0]) func generatorTurns(turns: Double) throws {
        var options = ChatWorkload.Options()
        options.sessions = 2000
        options.turns = turns
        var chat = ChatWorkload(options)
        let summary = try TraceSummary(&chat, join: 1, requests: nil)
        // Long sessions end early where a prompt reaches the context's end.
        #expect(abs(Double(summary.requests) / 2000 / turns - 1) < 0.3)
    }

    @Test(.enabled(if: conversation != nil, "the shared traces are not beside the repository"))
    func conversationTrace() throws {
        var reader = try TraceReader(path: #require(conversation))
        let summary = try TraceSummary(&reader, join: 1, requests: nil)
        #expect(summary.requests == 12_031 && summary.accesses == 288_500)
        #expect(summary.unique == 182_790)
        #expect(abs(summary.ceiling - 0.366) < 0.0005)
        let part = try TraceSummary(&reader, join: 8, requests: 100)
        #expect(part.requests == 100 && part.accesses < 100 * 30)
    }
}
