// Support: temporary directories, small stores, and payloads that follow from key and revision.

import Glibc
import Hearth
import Synchronization

/// Told from one task to another.
final class Flag: Sendable {
    private let value = Atomic(false)
    var isSet: Bool { value.load(ordering: .acquiring) }
    func set() { value.store(true, ordering: .releasing) }
}

/// A directory that is gone with the value's last reference.
final class TemporaryDirectory: Sendable {
    let path: String

    init() {
        var template = Array("/var/tmp/hearth-test-XXXXXX".utf8CString)
        path = template.withUnsafeMutableBufferPointer { buffer in
            guard let base = buffer.baseAddress, mkdtemp(base) != nil else {
                fatalError("no temporary directory: errno \(errno)")
            }
            return String(cString: base)
        }
    }

    deinit {
        if let listing = opendir(path) {
            while let entry = readdir(listing) {
                let name = withUnsafeBytes(of: entry.pointee.d_name) { bytes in
                    String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
                }
                if name != "." && name != ".." { unlink(path + "/" + name) }
            }
            closedir(listing)
        }
        rmdir(path)
    }
}

enum Small {
    static let maximumBlock = 64 << 10

    /// Small segments, little memory, quick to make.
    static func configuration(_ directory: TemporaryDirectory) -> Configuration {
        var made = Configuration(directory: directory.path, capacityBytes: 64 << 20)
        made.maximumBlockBytes = maximumBlock
        made.minimumSegmentBytes = 1 << 20
        made.memoryLimitBytes = 96 << 20
        made.indexEntries = 20_000
        made.stagingBytes = 4 << 20
        made.groupBytes = 256 << 10
        made.operationsInFlight = 1024
        return made
    }

    static func open(_ directory: TemporaryDirectory) async throws -> Store {
        let store = try await Store.open(configuration(directory))
        try await store.waitUntilRecovered()
        return store
    }

    static let description = NamespaceDescription([("model", "test"), ("dtype", "bf16")])
}

enum Payload {
    /// Bytes that no other key, revision or place has.
    static func bytes(_ key: Key, revision: Int = 0, count: Int) -> [UInt8] {
        var state: UInt64 = 0x9E37_79B9_7F4A_7C15 &+ UInt64(revision)
        for byte in key.bytes { state = (state ^ UInt64(byte)) &* 0x100_0000_01B3 }
        var made = [UInt8](repeating: 0, count: count)
        for index in 0..<count {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            made[index] = UInt8(truncatingIfNeeded: state)
        }
        return made
    }

    static func key(_ number: Int) -> Key { Key("key-\(number)") }
}

extension Store {
    func putBytes(
        _ key: Key, _ bytes: [UInt8], in namespace: Namespace, shards: [UInt32]? = nil,
        options: PutOptions = PutOptions()
    ) async -> PutResult {
        await put(
            PutItem(key: key, bytes: bytes, shardLengths: shards), in: namespace, options: options)
    }

    func getBytes(
        _ key: Key, in namespace: Namespace, _ selection: Selection = .whole, mode: GetOptions.Mode,
        room: Int = Small.maximumBlock
    ) async -> (GetResult, [UInt8]) {
        let buffer = Buffer(count: room)
        for index in buffer.bytes.indices { buffer.bytes[index] = 0xEE }
        let result = await get(
            GetItem(key: key, into: Memory(buffer), selection), in: namespace,
            options: GetOptions(mode: mode))
        let delivered = result.isHit ? [UInt8](buffer.bytes[..<result.delivered]) : []
        if result.isHit {
            let beyond = buffer.bytes[result.delivered...].allSatisfy { $0 == 0xEE }
            if !beyond {
                // Written beyond what was asked for: never a hit.
                var wrong = result
                wrong.status = .failed
                return (wrong, [])
            }
        }
        return (result, delivered)
    }
}
