// Devices that go, come back, slow down and hang, and device memory.

import BlockIO
import Glibc
import SimulatedDisk
import Testing

@Suite("Several devices, and device memory")
struct DeviceTests {
    private func two() -> (Rig, FileID, FileID) {
        let machine = SimulatedMachine()
        machine.addDevice("/a")
        machine.addDevice("/b", capacity: 1 << 20)
        let rig = Rig(machine: machine)
        return (rig, rig.durableFile(in: "/a/store"), rig.durableFile(in: "/b/store"))
    }

    @Test func pathsHaveDevices() {
        let (rig, _, _) = two()
        #expect(rig.machine.device(of: "/a/store") == 1)
        #expect(rig.machine.device(of: "/ab") == 0)
        #expect(rig.machine.device(of: "/b") == 2)
        #expect(rig.machine.availableBytes("/b") == (1 << 20) - 16 * 4096)
    }

    @Test func aDetachedDeviceFailsAndComesBackAsItWas() throws {
        let (rig, first, second) = two()
        rig.write(first, page: 0, 1)
        rig.start(.write, first, at: 4096, piece: rig.piece(0, 4096))
        rig.machine.detach("/a")
        #expect(rig.drain().map(\.result) == [-Int64(EIO)])
        #expect(rig.read(first, page: 0) == nil)
        #expect(
            errnoOf { () throws(IOError) in
                _ = try rig.driver.openDirectory("/a/store", create: true)
            } == ENOENT)
        #expect(errnoOf { () throws(IOError) in _ = try rig.driver.information(first) } == EIO)
        #expect(rig.write(second, page: 0, 2) == 4096)
        rig.machine.attach("/a")
        #expect(rig.read(first, page: 0) == filled(1))
    }

    @Test func aStaleDeviceComesBack() throws {
        let (rig, first, second) = two()
        rig.write(first, page: 0, 1)
        let snapshot = rig.machine.snapshot("/a")
        rig.write(first, page: 0, 2)
        rig.write(second, page: 0, 2)
        rig.sync(first)
        rig.machine.restore("/a", snapshot)
        #expect(rig.read(first, page: 0) == nil, "the old file is dead")
        let directory = try rig.driver.openDirectory("/a/store", create: false)
        let again = try rig.driver.open(directory, "f", .existing)
        #expect(rig.read(again, page: 0) == filled(1))
        #expect(rig.read(second, page: 0) == filled(2))
        rig.driver.close(first)
        rig.driver.close(again)
    }

    @Test func aSlowDeviceSlowsOnlyItself() {
        let (rig, first, second) = two()
        rig.machine.setLatencyMultiplier("/a", 10)
        rig.start(.read, first, piece: rig.piece(0, 4096))
        rig.start(.read, second, piece: rig.piece(4096, 4096))
        #expect(rig.drain().map(\.deviceNanoseconds) == [100_000, 1_000_000])
    }

    @Test func aHungDeviceHoldsItsRequestsUntilReleased() {
        let (rig, first, second) = two()
        rig.machine.hang("/a")
        let stuck = rig.start(.read, first, piece: rig.piece(0, 4096))
        let fine = rig.start(.read, second, piece: rig.piece(4096, 4096))
        #expect(rig.drain(bound: 5).map(\.tag) == [fine])
        rig.driver.wait(until: rig.clock.monotonic + 60_000_000_000)
        #expect(rig.driver.inFlight == 1)
        rig.machine.release("/a")
        let done = rig.drain()
        #expect(done.map(\.tag) == [stuck])
        #expect(done.first?.deviceNanoseconds ?? 0 >= 60_000_000_000)
    }

    @Test func deviceMemoryIsTransferredWithoutTheCPU() throws {
        let device = try FakeDeviceMemory(length: 1 << 20)
        let rig = Rig()
        let file = rig.durableFile()
        guard let region = rig.regions.add(device.region) else { fatalError("no region") }
        rig.driver.register(region)
        device.fill(offset: 8192, filled(0x3C))
        rig.start(.write, file, piece: Piece(region: region, offset: 8192, length: 4096))
        #expect(rig.drain().first?.result == 4096)
        #expect(rig.machine.contents("/d", "f", offset: 0, length: 4096) == filled(0x3C))
        rig.start(.read, file, piece: Piece(region: region, offset: 65_536, length: 4096))
        #expect(rig.drain().first?.result == 4096)
        #expect(device.bytes(offset: 65_536, count: 4096) == filled(0x3C))
        #expect(device.bytes(offset: 65_536 + 4096, count: 1) == [0])
        #expect(device.copies == 0)
        #expect(rig.driver.statistics.registeredBufferOps == 2)
        let copy = try #require(device.region.copy)
        #expect(copy.fromDevice(copy.context, 65_536, rig.memory, 4096) == 0)
        #expect(rig.memory.load(as: UInt8.self) == 0x3C)
        memset(rig.memory, 9, 512)
        #expect(copy.toDevice(copy.context, 0, rig.memory, 512) == 0)
        #expect(device.bytes(offset: 0, count: 513) == filled(9, 512) + [0])
        #expect(copy.toDevice(copy.context, (1 << 20) - 1, rig.memory, 2) == EFAULT)
        #expect(device.copies == 3)
    }

    @Test func theCPUCannotTouchDeviceMemory() throws {
        let device = try FakeDeviceMemory(length: 1 << 20)
        #expect(device.region.base == nil)
        let start = String(UInt(bitPattern: device.protected), radix: 16)
        let maps = try #require(fopen("/proc/self/maps", "r"))
        defer { fclose(maps) }
        var line = [CChar](repeating: 0, count: 1024)
        var permissions = ""
        while fgets(&line, Int32(line.count), maps) != nil {
            let text = String(decoding: line.prefix { $0 != 0 }.map(UInt8.init), as: UTF8.self)
            if text.hasPrefix(start + "-") {
                permissions = String(text.split(separator: " ").dropFirst().first ?? "")
            }
        }
        #expect(permissions == "---s")
    }

    /// A device region that is not a fake one is reached by its copy functions.
    @Test func unknownDeviceMemoryIsBounced() throws {
        let rig = Rig()
        let file = rig.durableFile()
        let copy = DeviceCopy(
            context: UInt(bitPattern: rig.memory),
            toDevice: { context, offset, host, length in
                guard let base = UnsafeMutableRawPointer(bitPattern: context) else { return EFAULT }
                memcpy(base + Int(offset), host, length)
                return 0
            },
            fromDevice: { context, offset, host, length in
                guard let base = UnsafeMutableRawPointer(bitPattern: context) else { return EFAULT }
                memcpy(host, base + Int(offset), length)
                return 0
            })
        let region = try #require(
            rig.regions.add(Region(kind: .device, base: nil, length: 65_536, copy: copy)))
        memset(rig.memory, 0x21, 4096)
        rig.start(.write, file, piece: Piece(region: region, offset: 0, length: 4096))
        #expect(rig.drain().first?.result == 4096)
        rig.start(.read, file, piece: Piece(region: region, offset: 8192, length: 4096))
        #expect(rig.drain().first?.result == 4096)
        #expect((rig.memory + 8192 + 4095).load(as: UInt8.self) == 0x21)
        #expect(rig.driver.violations.isEmpty)
    }
}
