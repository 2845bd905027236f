// RecordTests: what comes through the C interface is recorded, in batches as they were submitted.

import CHearth
import Glibc
import HearthABI
import Testing

@Suite struct RecordTests {
    /// Keys of 8 bytes behind each other, then the pieces of the operations.
    private final class Data {
        static let blocks = 4
        static let valueBytes = 4096
        let memory = UnsafeMutableRawPointer.allocate(byteCount: 1024, alignment: 64)
        let value = UnsafeMutableRawPointer.allocate(
            byteCount: blocks * valueBytes, alignment: 4096)

        init() {
            memory.initializeMemory(as: UInt8.self, repeating: 0, count: 1024)
            value.initializeMemory(
                as: UInt8.self, repeating: 3, count: Self.blocks * Self.valueBytes)
            for block in 0..<Self.blocks {
                let key = UInt64(0x4141_4141_4141_4100) | UInt64(block)
                memory.storeBytes(of: key, toByteOffset: 8 * block, as: UInt64.self)
                let piece = hearth_piece(
                    offset: UInt64(UInt(bitPattern: value + block * Self.valueBytes)),
                    length: UInt64(Self.valueBytes), region: 0, reserved: 0)
                memory.storeBytes(of: piece, toByteOffset: 256 + 24 * block, as: hearth_piece.self)
            }
        }

        deinit {
            memory.deallocate()
            value.deallocate()
        }

        static func key(_ block: Int) -> hearth_span {
            hearth_span(offset: UInt32(8 * block), length: 8)
        }
    }

    private func run(
        _ queue: hearth_queue, _ space: hearth_namespace, _ data: Data, _ kind: hearth_kind,
        _ blocks: Range<Int>
    ) -> Int {
        var operations = blocks.map { block in
            var made = hearth_operation()
            made.tag = UInt64(block)
            made.space = space
            made.kind = UInt8(kind.rawValue)
            made.mode = UInt8(HEARTH_CACHED.rawValue)
            made.key = Data.key(block)
            if kind == HEARTH_PUT, block > 0 { made.parent = Data.key(block - 1) }
            made.pieces = UInt32(256 + 24 * block)
            made.piece_count = 1
            return made
        }
        let taken = hearth_submit(queue, &operations, UInt32(operations.count), data.memory, 1024)
        guard taken == Int64(operations.count) else { return -1 }
        var completions = [hearth_completion](repeating: hearth_completion(), count: 8)
        var ended = 0
        while ended < operations.count {
            ended += Int(hearth_poll(queue, &completions, 8, UInt64.max))
        }
        return ended
    }

    @Test func batchesOfTheInterfaceAreRecorded() throws {
        var name = Array("/var/tmp/hearth-abi-rec-XXXXXX".utf8CString)
        try #require(mkdtemp(&name) != nil)
        let folder = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        defer {
            _ = system("rm -rf '\(folder)'")
        }
        let options = [
            "capacity=256M", "memory=128M", "segment=4M", "max_block=64K", "index_entries=4096",
            "staging=16M", "record=\(folder)/trace", "record_limit=1M",
        ]
        var words: [UnsafePointer<CChar>?] = options.map { UnsafePointer(strdup($0)) }
        words.append(nil)
        defer { for case let word? in words { free(UnsafeMutableRawPointer(mutating: word)) } }
        var store: hearth_store = 0
        try #require(hearth_open("dir:\(folder)/store", words, &store) == 0)
        var space: hearth_namespace = 0
        let opened = "model".withCString { field in
            var field = hearth_field(name: field, value: field)
            return hearth_namespace_open(store, &field, 1, 0, 0, 0, &space)
        }
        try #require(opened == 0)
        var queue: hearth_queue = 0
        try #require(hearth_queue_open(store, 16, nil, nil, &queue) == 0)
        let data = Data()
        #expect(run(queue, space, data, HEARTH_PUT, 0..<2) == 2)
        // Found, and gone on with; the first two are resident, and yet they are recorded in order.
        #expect(run(queue, space, data, HEARTH_GET, 0..<2) == 2)
        #expect(run(queue, space, data, HEARTH_PUT, 2..<4) == 2)
        // A queued request tells its chain.
        var hint = hearth_hint_message()
        hint.space = space
        (hint.request, hint.session, hint.when_ns) = (7, 8, 1_000_000_000)
        hint.kind = HEARTH_HINT_CHAIN.rawValue
        hint.key_count = 4
        let keys = (0..<4).map(Data.key)
        #expect(hearth_hint(store, &hint, 1, data.memory, 1024, keys, 4) == 1)
        #expect(hearth_close(store) == 0)

        let file = try #require(fopen(folder + "/trace", "r"))
        var bytes = [UInt8](repeating: 0, count: 1 << 16)
        let count = fread(&bytes, 1, bytes.count, file)
        fclose(file)
        let lines = String(decoding: bytes[..<count], as: UTF8.self).split(separator: "\n")
        try #require(lines.count == 3)
        let ids = lines.map { line -> [Substring] in
            let list = line.drop { $0 != "[" }.dropFirst().prefix { $0 != "]" }
            return list.split(separator: ",")
        }
        #expect(ids.map(\.count) == [2, 4, 4])
        #expect(Array(ids[1].prefix(2)) == ids[0] && ids[1] == ids[2])
        #expect(lines[0].contains("\"got\":0,\"put\":2,\"bytes\":4096"))
        #expect(lines[1].contains("\"got\":2,\"put\":2"))
        #expect(lines[2].contains("\"s\":0,\"hinted\":4,\"due\":"))
        #expect(!lines.joined().contains("AAAA"))
    }
}
