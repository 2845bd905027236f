// Rig: a machine, a driver and aligned memory, with calls that wait for their completion.

import BlockIO
import Glibc
import SimulatedDisk

final class Rig {
    static let page = 4096
    let machine: SimulatedMachine
    let clock: SimulatedClock
    let regions = RegionTable()
    let driver: SimulatedDriver
    let memory: UnsafeMutableRawPointer
    static let memoryBytes = 1 << 20
    private var tags: UInt64 = 0

    init(
        machine: SimulatedMachine = SimulatedMachine(), clock: SimulatedClock = SimulatedClock(),
        faults: FaultPlan = .none, latency: LatencyModel = .constant(100_000), seed: UInt64 = 1,
        limits: DriverLimits = DriverLimits(depth: 64, transferBytes: 256 << 10)
    ) {
        self.machine = machine
        self.clock = clock
        driver = SimulatedDriver(
            machine: machine, regions: regions, clock: clock, faults: faults, latency: latency,
            seed: seed, limits: limits)
        memory = .allocate(byteCount: Self.memoryBytes, alignment: 4096)
        memset(memory, 0, Self.memoryBytes)
    }

    deinit { memory.deallocate() }

    /// A piece of the rig's memory.
    func piece(_ at: Int, _ length: Int) -> Piece {
        Piece(
            region: .process, offset: UInt64(UInt(bitPattern: memory + at)), length: UInt64(length))
    }

    @discardableResult
    func start(
        _ operation: IOOperation, _ file: FileID, at offset: Int = 0, piece: Piece,
        deadline: UInt64 = 0
    ) -> UInt64 {
        tags += 1
        let request = IORequest(
            tag: tags, operation: operation, file: file, fileOffset: UInt64(offset), piece: piece,
            deadline: deadline)
        precondition(driver.prepare(request), "the queue is full")
        driver.submit()
        return tags
    }

    /// Completions until nothing is in flight, or `bound` waits have passed.
    func drain(bound: Int = 10_000) -> [IOCompletion] {
        var all: [IOCompletion] = []
        let empty = IOCompletion(tag: 0, result: 0, deviceNanoseconds: 0)
        var buffer = [IOCompletion](repeating: empty, count: 32)
        var waits = 0
        while driver.inFlight > 0, waits < bound, !driver.dead {
            driver.wait(until: UInt64.max)
            waits += 1
            let count = buffer.withUnsafeMutableBufferPointer { driver.reap($0) }
            all.append(contentsOf: buffer.prefix(count))
        }
        return all
    }

    /// Does one operation and returns its result.
    @discardableResult
    func perform(
        _ operation: IOOperation, _ file: FileID, at offset: Int = 0, length: Int = 0
    ) -> Int64 {
        let tag = start(operation, file, at: offset, piece: piece(0, length))
        return drain().first { $0.tag == tag }?.result ?? Int64.min
    }

    /// Writes pages filled with a byte.
    @discardableResult
    func write(_ file: FileID, page: Int, pages: Int = 1, _ byte: UInt8) -> Int64 {
        memset(memory, Int32(byte), pages * Self.page)
        return perform(.write, file, at: page * Self.page, length: pages * Self.page)
    }

    @discardableResult
    func sync(_ file: FileID) -> Int64 { perform(.sync, file) }

    /// Reads pages; nil on an error.
    func read(_ file: FileID, page: Int, pages: Int = 1) -> [UInt8]? {
        let length = pages * Self.page
        let result = perform(.read, file, at: page * Self.page, length: length)
        guard result == Int64(length) else { return nil }
        return [UInt8](UnsafeRawBufferPointer(start: memory, count: length))
    }

    /// A durable, preallocated file in a directory, for what follows.
    func durableFile(_ name: String = "f", pages: Int = 16, in path: String = "/d") -> FileID {
        guard let directory = try? driver.openDirectory(path, create: true),
            let file = try? driver.open(directory, name, .create)
        else { fatalError("no file") }
        let fill: [Int64] = [
            perform(.allocate, file, length: pages * Self.page), sync(file), sync(directory),
        ]
        precondition(fill == [0, 0, 0], "setup failed")
        return file
    }
}

func filled(_ byte: UInt8, _ count: Int = Rig.page) -> [UInt8] {
    [UInt8](repeating: byte, count: count)
}

func errnoOf(_ body: () throws(IOError) -> Void) -> Int32 {
    do throws(IOError) {
        try body()
        return 0
    } catch { return error.errno }
}
