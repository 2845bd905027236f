// Rig: a driver of any flavour on a directory of its own, and the waiting that tests do.

import BlockIO
import Glibc
import Testing

/// Every way a host driver can be made; each test runs on all of them.
enum Flavour: String, CaseIterable, CustomTestStringConvertible {
    case uring
    case uringCoop
    case uringPlain
    case uringUnregistered
    case uringShort
    case threads
    case threadsShort

    var testDescription: String { rawValue }
    var isUring: Bool { rawValue.hasPrefix("uring") }

    static let urings = allCases.filter(\.isUring)

    func make(_ regions: RegionTable, depth: Int) throws -> any BlockDriver {
        if !isUring {
            var options = ThreadOptions()
            if self == .threadsShort { options.shortTransferBytes = 12288 }
            return try ThreadDriver(regions: regions, depth: depth, options: options)
        }
        var options = UringOptions()
        switch self {
        case .uringCoop: options.setup = .coopTaskrun
        case .uringPlain: options.setup = .plain
        case .uringUnregistered:
            options.registerFiles = false
            options.registerBuffers = false
        case .uringShort: options.shortTransferBytes = 12288
        default: break
        }
        return try UringDriver(regions: regions, depth: depth, options: options)
    }
}

/// Page-aligned memory for one test.
final class Memory {
    let base: UnsafeMutableRawPointer
    let length: Int

    init(_ length: Int, fill: UInt8 = 0) {
        self.length = length
        base = .allocate(byteCount: length, alignment: 4096)
        memset(base, Int32(fill), length)
    }

    deinit { base.deallocate() }

    /// The process-memory piece of `length` bytes at `offset`.
    func piece(_ offset: Int = 0, _ length: Int? = nil) -> Piece {
        Piece(
            region: .process, offset: UInt64(UInt(bitPattern: base + offset)),
            length: UInt64(length ?? self.length - offset))
    }
}

/// Bytes that differ by place and seed.
func fillPattern(_ base: UnsafeMutableRawPointer, _ length: Int, seed: UInt64) {
    for word in 0..<(length / 8) {
        base.storeBytes(
            of: (UInt64(word) &+ seed &* 0x9e37_79b9) &* 0xff51_afd7_ed55_8ccd,
            toByteOffset: word * 8, as: UInt64.self)
    }
    for byte in (length / 8 * 8)..<length {
        base.storeBytes(
            of: UInt8(truncatingIfNeeded: seed) ^ 0x5a, toByteOffset: byte, as: UInt8.self)
    }
}

func holdsPattern(_ base: UnsafeMutableRawPointer, _ length: Int, seed: UInt64) -> Bool {
    let expected = Memory(max(length, 1))
    fillPattern(expected.base, length, seed: seed)
    return memcmp(base, expected.base, length) == 0
}

final class Rig {
    let regions = RegionTable()
    let driver: any BlockDriver
    let path: String
    let directory: FileID
    let clock = SystemClock()

    init(_ flavour: Flavour, depth: Int = 64, under parent: String = "/tmp") throws {
        driver = try flavour.make(regions, depth: depth)
        path = try Self.makeDirectory(under: parent)
        directory = try driver.openDirectory(path, create: false)
    }

    static func makeDirectory(under parent: String = "/tmp") throws -> String {
        var template = Array((parent + "/hearth-blockio-XXXXXX").utf8CString)
        let made = mkdtemp(&template) != nil
        try #require(made)
        return template.withUnsafeBufferPointer { buffer in
            buffer.baseAddress.map { String(cString: $0) } ?? ""
        }
    }

    deinit {
        if let names = try? driver.list(directory) {
            for name in names { try? driver.remove(directory, name) }
        }
        driver.shutdown()
        rmdir(path)
    }

    func prepare(
        _ tag: UInt64, _ operation: IOOperation, _ file: FileID, _ offset: UInt64, _ piece: Piece,
        deadline: UInt64 = 0
    ) -> Bool {
        driver.prepare(
            IORequest(
                tag: tag, operation: operation, file: file, fileOffset: offset, piece: piece,
                deadline: deadline))
    }

    /// Submits and collects completions until `count` came or ten seconds passed.
    func collect(_ count: Int) -> [IOCompletion] {
        var found: [IOCompletion] = []
        let batch = UnsafeMutableBufferPointer<IOCompletion>.allocate(capacity: 16)
        defer { batch.deallocate() }
        let end = clock.monotonic + 10_000_000_000
        driver.submit()
        while found.count < count, clock.monotonic < end {
            let taken = driver.reap(batch)
            found += batch[..<taken]
            if taken == 0 { driver.wait(until: end) }
        }
        return found
    }

    /// One request from start to end; its result.
    func run(
        _ operation: IOOperation, _ file: FileID, _ offset: UInt64, _ piece: Piece,
        deadline: UInt64 = 0
    ) -> Int64 {
        guard prepare(77, operation, file, offset, piece, deadline: deadline) else { return .min }
        let found = collect(1)
        return found.count == 1 && found[0].tag == 77 ? found[0].result : .min
    }

    /// Nothing more comes within the time.
    func isQuiet(milliseconds: UInt64 = 30) -> Bool {
        let batch = UnsafeMutableBufferPointer<IOCompletion>.allocate(capacity: 16)
        defer { batch.deallocate() }
        driver.wait(until: clock.monotonic + milliseconds * 1_000_000)
        return driver.reap(batch) == 0
    }
}

let noPiece = Piece(region: .process, offset: 0, length: 0)
