// RawTarget: the baseline. Each job reads and writes a file of its own, `<name>.<job>.0` as fio
// names it, through the same drivers as the store, with nothing between: what the store may cost is
// measured against this. Data that is to be read and absent or too short is written first, each
// block the payload of (namespace, block, 0). Writes put revision 0 again, so that a later read of
// a checked file can be checked too.

import BlockIO
import Glibc
import Synchronization

package final class RawTarget: BenchTarget {
    private struct State {
        var options = JobOptions()
        var units: UInt64 = 0
        var engineName = ""
        var grants: [Int: String] = [:]
        var direct = true
    }
    private let state = Mutex(State())

    package init() {}

    package var engineName: String { state.withLock { $0.engineName } }
    package var insertsFreshKeys: Bool { false }
    package var isAsynchronous: Bool { true }

    /// Where a job's file is: directory and name.
    static func place(_ options: JobOptions, job: Int) -> (directory: String, name: String) {
        let name = options.filename.isEmpty ? "\(options.name).\(job).0" : options.filename
        guard let slash = name.lastIndex(of: "/") else { return (options.directory, name) }
        let head = String(name[..<slash])
        let tail = String(name[name.index(after: slash)...])
        if name.hasPrefix("/") { return (head.isEmpty ? "/" : head, tail) }
        return (options.directory + "/" + head, tail)
    }

    static func driver(_ options: JobOptions, depth: Int) throws(BenchError) -> any BlockDriver {
        do throws(IOError) {
            return try makeDriver(
                options.engine == .psync ? .threads : .ioUring, regions: RegionTable(),
                depth: depth)
        } catch {
            throw BenchError(error)
        }
    }

    package func prepare(
        _ options: JobOptions, layout: Bool, progress: (UInt64, UInt64) -> Void
    ) throws(BenchError) -> UInt64 {
        let driver = try Self.driver(options, depth: RawLayout.depth)
        defer { driver.shutdown() }
        var units = UInt64.max
        var name = driver.kind.rawValue
        for job in 0..<(options.filename.isEmpty ? options.jobs : 1) {
            do throws(IOError) {
                let layout = try RawLayout(
                    driver: driver, options: options, job: job, reads: layout)
                units = min(units, layout.units)
                name = driver.kind.rawValue + (layout.information.direct ? "" : " (buffered)")
                let total = layout.units * options.blockBytes * UInt64(options.jobs)
                let before = layout.units * options.blockBytes * UInt64(job)
                try layout.run { progress(before + $0, total) }
            } catch {
                throw BenchError(error)
            }
        }
        guard units > 0 else {
            throw BenchError("the file is smaller than one block of \(options.blockBytes) bytes")
        }
        state.withLock {
            $0.options = options
            $0.units = units
            $0.engineName = name
        }
        return units
    }

    package func firstFreshKey(job: Int) -> UInt64 { 0 }

    package func makeEngine(
        job: Int, arena: UnsafeMutableRawBufferPointer
    ) throws(BenchError) -> any BenchEngine {
        let options = state.withLock { $0.options }
        let engine = try RawEngine(options: options, job: job, arena: arena)
        state.withLock { $0.grants[job] = engine.driver.statistics.grants }
        return engine
    }

    package func resetStatistics() {}

    package func report(job: Int) -> JSONValue? {
        let grants = state.withLock { $0.grants[job] }
        return .object([("driver", .text(grants ?? ""))])
    }

    package func close() throws(BenchError) {}
}

extension BenchError {
    package init(_ error: IOError) {
        let detail = error.detail.isEmpty ? "" : " (\(error.detail))"
        self.init(
            "\(error.operation) \(error.path): \(errorText(error.errno))\(detail)",
            code: error.errno)
    }
}

/// One job's file on one driver. Owner thread only.
final class RawEngine: BenchEngine {
    let driver: any BlockDriver
    private let file: FileID
    private let directory: FileID
    private let region: RegionID
    private let blockBytes: UInt64
    private let completions: UnsafeMutableBufferPointer<IOCompletion>

    init(
        options: JobOptions, job: Int, arena: UnsafeMutableRawBufferPointer
    ) throws(BenchError) {
        driver = try RawTarget.driver(options, depth: options.depth)
        blockBytes = options.blockBytes
        let place = RawTarget.place(options, job: job)
        do throws(IOError) {
            directory = try driver.openDirectory(place.directory, create: false)
            file = try driver.open(directory, place.name, .existing)
            let added = driver.regions.add(
                Region(kind: .host, base: arena.baseAddress, length: UInt64(arena.count)))
            region = added ?? .process
            if region != .process { driver.register(region) }
        } catch {
            driver.shutdown()
            throw BenchError(error)
        }
        completions = .allocate(capacity: options.depth)
        completions.initialize(repeating: IOCompletion(tag: 0, result: 0, deviceNanoseconds: 0))
    }

    deinit { completions.deallocate() }

    func submit(_ operation: BenchOperation) {
        let taken = driver.prepare(
            IORequest(
                tag: UInt64(operation.tag),
                operation: operation.direction == .read ? .read : .write, file: file,
                fileOffset: operation.key * blockBytes,
                piece: Piece(region: region, offset: operation.arenaOffset, length: blockBytes)))
        precondition(taken, "the driver's depth is the job's")
    }

    func flush() { driver.submit() }

    func reap(_ into: UnsafeMutableBufferPointer<BenchCompletion>, wait: Bool) -> Int {
        var count = driver.reap(completions)
        while count == 0, wait {
            driver.wait(until: UInt64.max)
            count = driver.reap(completions)
        }
        for index in 0..<count {
            let result = completions[index].result
            let error: Int32 = result < 0 ? Int32(truncatingIfNeeded: -result) : 0
            into[index] = BenchCompletion(tag: Int(completions[index].tag), error: error)
        }
        return count
    }

    func sync() -> Int32 {
        let request = IORequest(
            tag: 0, operation: .sync, file: file, fileOffset: 0,
            piece: Piece(region: .process, offset: 0, length: 0))
        guard driver.prepare(request) else { return EBUSY }
        driver.submit()
        var count = driver.reap(completions)
        while count == 0 {
            driver.wait(until: UInt64.max)
            count = driver.reap(completions)
        }
        return completions[0].result < 0 ? Int32(truncatingIfNeeded: -completions[0].result) : 0
    }

    func finish() {
        if region != .process { driver.unregister(region) }
        driver.close(file)
        driver.close(directory)
        driver.shutdown()
    }
}
