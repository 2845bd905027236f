// RawLoop: random reads with registered buffers and files and nothing else, with or without the
// store's checksum over what was read: what the store's processor time is measured against.

import BenchKit
import BlockIO
import Glibc
import SegmentFormat

/// What a loop moved and used.
struct LoopResult {
    var bytes: UInt64 = 0
    var nanoseconds: UInt64 = 0
    /// Processor time of the whole process.
    var processor: UInt64 = 0

    var processorPerGiB: Double {
        bytes == 0 ? 0 : Double(processor) / 1e9 / (Double(bytes) / Double(1 << 30))
    }

    static func processNanoseconds() -> UInt64 {
        let use = ResourceUse.now(thread: false)
        return UInt64(use.user + use.system)
    }
}

final class RawLoop {
    private let driver: any BlockDriver
    private let files: [(file: FileID, units: UInt64)]
    private let directory: FileID
    private let region: RegionID
    private let memory: UnsafeMutableRawBufferPointer
    private let blockBytes: Int
    private let depth: Int
    private let checksum: Bool
    private let completions: UnsafeMutableBufferPointer<IOCompletion>
    private var random: SeededGenerator
    private var units: UInt64 = 0
    /// Keeps the sums from being thought useless.
    private(set) var sum: UInt32 = 0

    /// Files by name, and how many bytes of each may be read.
    init(
        directory path: String, files names: [(name: String, bytes: UInt64)], blockBytes: Int,
        depth: Int, checksum: Bool, seed: UInt64 = 1
    ) throws(BenchError) {
        self.blockBytes = blockBytes
        self.depth = depth
        self.checksum = checksum
        random = SeededGenerator(seed: seed)
        memory = .allocate(
            byteCount: (blockBytes + 4095) / 4096 * 4096 * depth, alignment: 2 << 20)
        memory.initializeMemory(as: UInt8.self, repeating: 1)
        completions = .allocate(capacity: depth)
        completions.initialize(repeating: IOCompletion(tag: 0, result: 0, deviceNanoseconds: 0))
        do throws(IOError) {
            driver = try makeDriver(.ioUring, regions: RegionTable(), depth: depth)
            directory = try driver.openDirectory(path, create: false)
            var opened: [(file: FileID, units: UInt64)] = []
            for (name, bytes) in names where bytes >= UInt64(blockBytes) {
                let file = try driver.open(directory, name, .existing)
                opened.append((file, bytes / UInt64(blockBytes)))
            }
            files = opened
        } catch {
            throw BenchError(error)
        }
        let added = driver.regions.add(
            Region(kind: .host, base: memory.baseAddress, length: UInt64(memory.count)))
        region = added ?? .process
        if region != .process { driver.register(region) }
        units = files.reduce(0) { $0 + $1.units }
        guard units > 0, region != .process else {
            throw BenchError("\(path): nothing to read blocks of \(blockBytes) bytes from")
        }
    }

    deinit {
        driver.unregister(region)
        for file in files { driver.close(file.file) }
        driver.close(directory)
        driver.shutdown()
        memory.deallocate()
        completions.deallocate()
    }

    private func issue(_ slot: Int) {
        var unit = random.below(units)
        var at = 0
        while unit >= files[at].units {
            unit -= files[at].units
            at += 1
        }
        let stride = memory.count / depth
        let taken = driver.prepare(
            IORequest(
                tag: UInt64(slot), operation: .read, file: files[at].file,
                fileOffset: unit * UInt64(blockBytes),
                piece: Piece(
                    region: region, offset: UInt64(slot * stride), length: UInt64(blockBytes))))
        precondition(taken, "a free slot is a free place in the driver")
    }

    func run(seconds: Double) throws(BenchError) -> LoopResult {
        var result = LoopResult()
        let processor = LoopResult.processNanoseconds()
        let begin = monotonicNanoseconds()
        let end = begin + UInt64(seconds * 1e9)
        let stride = memory.count / depth
        for slot in 0..<depth { issue(slot) }
        var inFlight = depth
        var failure: Int64 = 0
        while inFlight > 0 {
            driver.submit()
            var count = driver.reap(completions)
            if count == 0 {
                driver.wait(until: UInt64.max)
                count = driver.reap(completions)
            }
            let over = monotonicNanoseconds() >= end
            for index in 0..<count {
                let slot = Int(completions[index].tag)
                if completions[index].result != Int64(blockBytes) {
                    failure = completions[index].result
                }
                result.bytes += UInt64(blockBytes)
                if checksum {
                    let start = slot * stride
                    sum ^= Checksum.crc32c(
                        0, UnsafeRawBufferPointer(rebasing: memory[start..<start + blockBytes]))
                }
                if over || failure != 0 { inFlight -= 1 } else { issue(slot) }
            }
        }
        result.nanoseconds = monotonicNanoseconds() - begin
        result.processor = LoopResult.processNanoseconds() - processor
        guard failure == 0 else {
            throw BenchError("a raw read ended as \(failure)", code: Int32(clamping: -failure))
        }
        return result
    }
}
