// RawLayout: makes one raw file fit for a job before it starts: for readers a file with the
// payload in every block, written only where it is absent or too short; for writers a file whose
// space is allocated.

import BlockIO
import Glibc

struct RawLayout {
    static let depth = 8
    let units: UInt64
    let information: FileInformation
    private let driver: any BlockDriver
    private let directory: FileID
    private let file: FileID
    private let options: JobOptions
    private let namespace: UInt64
    private let reads: Bool

    init(
        driver: any BlockDriver, options: JobOptions, job: Int, reads: Bool
    ) throws(IOError) {
        let place = RawTarget.place(options, job: job)
        self.driver = driver
        self.options = options
        self.reads = reads
        namespace = options.namespace(job: job)
        directory = try driver.openDirectory(place.directory, create: false)
        file = try driver.open(directory, place.name, .create)
        information = try driver.information(file)
        let size =
            switch options.size {
            case .bytes(let bytes): bytes
            case .share(let percent): SizeOrShare.share(percent).resolved(of: information.size)
            case nil: information.size
            }
        units = options.units(size: size)
        guard options.blockBytes % UInt64(information.offsetAlignment) == 0 else {
            throw IOError(
                operation: "direct I/O on", path: place.name, errno: EINVAL,
                detail: "--bs must be a multiple of \(information.offsetAlignment)")
        }
    }

    /// Lays out, and closes the file.
    func run(progress: (UInt64) -> Void) throws(IOError) {
        defer {
            driver.close(file)
            driver.close(directory)
        }
        let size = units * options.blockBytes
        guard information.size < size else { return }
        let available = try driver.availableBytes(directory)
        guard size - information.size <= available else {
            throw IOError(
                operation: "laying out \(size) bytes in", path: options.directory, errno: ENOSPC,
                detail: "\(available) bytes are free")
        }
        if reads {
            try fill(progress)
        } else {
            _ = try wait(
                IORequest(
                    tag: 0, operation: .allocate, file: file, fileOffset: 0,
                    piece: Piece(region: .process, offset: 0, length: size)),
                allow: [EOPNOTSUPP, ENOSYS])
        }
    }

    private func wait(_ request: IORequest, allow: [Int32] = []) throws(IOError) -> Int64 {
        guard driver.prepare(request) else {
            throw IOError(operation: "prepare", path: options.name, errno: EBUSY)
        }
        driver.submit()
        var completion = IOCompletion(tag: 0, result: 0, deviceNanoseconds: 0)
        while withUnsafeMutablePointer(
            to: &completion,
            { driver.reap(UnsafeMutableBufferPointer(start: $0, count: 1)) }) == 0
        {
            driver.wait(until: UInt64.max)
        }
        let code = Int32(truncatingIfNeeded: -min(0, completion.result))
        if code != 0, !allow.contains(code) {
            throw IOError(operation: "\(request.operation)", path: options.name, errno: code)
        }
        return completion.result
    }

    private func fill(_ progress: (UInt64) -> Void) throws(IOError) {
        let perWrite = max(1, (1 << 20) / options.blockBytes)
        let stride = Int(perWrite * options.blockBytes)
        let rounded = (stride + 4095) / 4096 * 4096
        let memory = UnsafeMutableRawBufferPointer.allocate(
            byteCount: rounded * Self.depth, alignment: 4096)
        defer { memory.deallocate() }
        let region = driver.regions.add(
            Region(kind: .host, base: memory.baseAddress, length: UInt64(memory.count)))
        guard let region else {
            throw IOError(operation: "region", path: options.name, errno: ENOMEM)
        }
        driver.register(region)
        defer {
            driver.unregister(region)
            driver.regions.remove(region)
        }
        var free = Array(0..<Self.depth)
        var next: UInt64 = 0
        var done: UInt64 = 0
        var failure: Int32 = 0
        var completions = [IOCompletion](
            repeating: IOCompletion(tag: 0, result: 0, deviceNanoseconds: 0), count: Self.depth)
        while (next < units && failure == 0) || free.count < Self.depth {
            while failure == 0, next < units, let slot = free.popLast() {
                let count = min(perWrite, units - next)
                let start = slot * rounded
                let bytes = Int(count * options.blockBytes)
                fillBlocks(memory, at: start, first: next, count: count)
                let request = IORequest(
                    tag: UInt64(slot), operation: .write, file: file,
                    fileOffset: next * options.blockBytes,
                    piece: Piece(region: region, offset: UInt64(start), length: UInt64(bytes)))
                precondition(driver.prepare(request), "a free slot is a free place in the driver")
                next += count
            }
            driver.submit()
            driver.wait(until: UInt64.max)
            let count = completions.withUnsafeMutableBufferPointer { driver.reap($0) }
            for completion in completions[..<count] {
                free.append(Int(completion.tag))
                if completion.result < 0 { failure = Int32(truncatingIfNeeded: -completion.result) }
                done += UInt64(max(0, completion.result))
            }
            progress(done)
        }
        guard failure == 0 else {
            throw IOError(operation: "laying out", path: options.name, errno: failure)
        }
        _ = try wait(
            IORequest(
                tag: 0, operation: .sync, file: file, fileOffset: 0,
                piece: Piece(region: .process, offset: 0, length: 0)))
    }

    private func fillBlocks(
        _ memory: UnsafeMutableRawBufferPointer, at start: Int, first: UInt64, count: UInt64
    ) {
        let size = Int(options.blockBytes)
        for index in 0..<Int(count) {
            let place = start + index * size
            Payload.fill(
                UnsafeMutableRawBufferPointer(rebasing: memory[place..<place + size]),
                namespace: namespace, key: first + UInt64(index), revision: 0)
        }
    }
}
