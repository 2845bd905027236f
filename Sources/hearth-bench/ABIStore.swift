// ABIStore: a benchmark's store as a C program uses it: opened by endpoint and options, batches of
// messages, completions polled. For rows that set the C interface beside the Swift one.

import BenchKit
import CHearth
import Glibc
import Hearth
import HearthABI

final class ABIStore {
    private(set) var store: hearth_store = 0
    private(set) var space: hearth_namespace = 0

    /// Opens a store with a configuration that another opening of it had.
    init(_ configuration: Configuration) throws(BenchError) {
        let options = [
            "capacity=\(configuration.capacityBytes)",
            "max_block=\(configuration.maximumBlockBytes)",
            "expected_block=\(configuration.expectedBlockBytes)",
            "index_entries=\(configuration.indexEntries ?? 1024)",
            "operations=\(configuration.operationsInFlight)",
            "queue_depth=\(configuration.queueDepth)", "slab=\(configuration.slabBytes)",
            "staging=\(configuration.stagingBytes ?? 0)",
            "staging_mode=\(configuration.stagingMode.rawValue)",
            "table_cache=\(configuration.tableCacheBytes ?? 1 << 20)",
            "memory=\(configuration.memoryLimitBytes)",
        ]
        var words: [UnsafePointer<CChar>?] = options.map { UnsafePointer(strdup($0)) }
        words.append(nil)
        defer { for case let word? in words { free(UnsafeMutableRawPointer(mutating: word)) } }
        let endpoint = "dir:" + configuration.directories.joined(separator: ",")
        try Self.check("open", hearth_open(endpoint, words, &store))
        try Self.check("wait", hearth_wait_recovered(store))
        let status = "bench".withCString { name in
            "hearth-bench".withCString { value in
                var field = hearth_field(name: name, value: value)
                return hearth_namespace_open(store, &field, 1, UInt32(HEARTH_PACKED), 0, 0, &space)
            }
        }
        try Self.check("namespace", status)
    }

    func close() { _ = hearth_close(store) }

    static func check(_ call: String, _ result: some BinaryInteger) throws(BenchError) {
        if result >= 0 { return }
        let message = hearth_error_message().map { String(cString: $0) } ?? ""
        throw BenchError("hearth_\(call): \(message)")
    }
}

/// Gets of blocks of one size through a queue, with room for one batch: for each operation a piece
/// and a key of `KvKey.bytes`.
final class ABIBatch {
    let capacity: Int
    let queue: hearth_queue
    let completions: UnsafeMutablePointer<hearth_completion>
    private let operations: UnsafeMutablePointer<hearth_operation>
    private let data: UnsafeMutableRawPointer
    private let dataBytes: Int
    private(set) var count = 0

    init(_ store: ABIStore, capacity: Int) throws(BenchError) {
        self.capacity = capacity
        var opened: hearth_queue = 0
        try ABIStore.check(
            "queue_open", hearth_queue_open(store.store, UInt32(capacity), nil, nil, &opened))
        queue = opened
        operations = .allocate(capacity: capacity)
        operations.initialize(repeating: hearth_operation(), count: capacity)
        completions = .allocate(capacity: capacity)
        completions.initialize(repeating: hearth_completion(), count: capacity)
        dataBytes = capacity * (24 + KvKey.bytes)
        data = .allocate(byteCount: dataBytes, alignment: 64)
        data.initializeMemory(as: UInt8.self, repeating: 0, count: dataBytes)
        let keys = capacity * 24
        for index in 0..<capacity {
            operations[index].space = store.space
            operations[index].kind = UInt8(HEARTH_GET.rawValue)
            operations[index].pieces = UInt32(24 * index)
            operations[index].piece_count = 1
            operations[index].key = hearth_span(
                offset: UInt32(keys + KvKey.bytes * index), length: UInt32(KvKey.bytes))
        }
    }

    deinit {
        _ = hearth_queue_close(queue)
        operations.deallocate()
        completions.deallocate()
        data.deallocate()
    }

    /// Adds a get of a block into `length` bytes at `offset` of a region, 0 for an address.
    @inline(__always)
    func add(
        tag: Int, key: UInt64, _ keyNamespace: UInt64, region: hearth_region, offset: UInt64,
        length: Int, mode: hearth_mode
    ) {
        operations[count].tag = UInt64(tag)
        operations[count].mode = UInt8(mode.rawValue)
        KvKey.write(key, keyNamespace, to: data + Int(operations[count].key.offset))
        let piece = hearth_piece(
            offset: offset, length: UInt64(length), region: region, reserved: 0)
        data.storeBytes(of: piece, toByteOffset: 24 * count, as: hearth_piece.self)
        count += 1
    }

    /// Submits what was added; false when not all was taken.
    func submit() -> Bool {
        defer { count = 0 }
        return resubmit(count) == Int64(count)
    }

    /// Submits the first operations as they were.
    func resubmit(_ count: Int) -> Int64 {
        hearth_submit(queue, operations, UInt32(count), data, UInt64(dataBytes))
    }
}
