// SimulatedMachine: what outlives a process: devices with their directories and files, what of them
// is durable and what only looks so, requests in flight, locks. Drivers come and go on it.
//
// Everything is one value (`MachineState`) of copy-on-write parts, so that `copy()` is cheap and
// many crashes can be tried from one state. Nothing iterates over a dictionary without sorting.
// Used by one thread at a time. A directory is durable as soon as it is made; files in it are not.

import BlockIO
import Glibc

/// A device: everything under one path prefix.
struct DeviceState {
    var prefix: String
    var capacityPages = Int.max
    var usedPages = 0
    var attached = true
    /// Monotonic time until which nothing completes; `UInt64.max` until released.
    var hungUntil: UInt64 = 0
    var slowUntil: UInt64 = 0
    var slowFactor: UInt64 = 1
    /// Set by a test, beside what a plan does.
    var latencyMultiplier: UInt64 = 1
    /// A handle of another incarnation is dead.
    var incarnation: UInt64
    var files: ContiguousArray<SimulatedFile> = []
    var freeFiles: ContiguousArray<Int> = []
    var directories: ContiguousArray<SimulatedDirectory> = []
    var directoryIndex: [String: Int] = [:]

    init(prefix: String, incarnation: UInt64) {
        self.prefix = prefix
        self.incarnation = incarnation
    }

    @inline(__always)
    func isHung(at time: UInt64) -> Bool { hungUntil > time }
}

/// A change that a device has been asked for and has not answered.
struct InFlightEffect {
    var device: Int
    var incarnation: UInt64
    var file: Int
    var effect: FileEffect
    /// Pages of the largest transfer the kernel is given; each may land without the others.
    var unit: Int
}

struct MachineState {
    var devices: ContiguousArray<DeviceState> = []
    var inFlight: ContiguousArray<InFlightEffect?> = []
    var freeInFlight: ContiguousArray<Int> = []
    /// Counts completed effects; orders them over all devices.
    var sequence: UInt64 = 0
    var incarnations: UInt64 = 0
    var keepsPrevious = false
    /// Beyond so many unflushed changes of one file its oldest becomes durable by itself, as a
    /// drive's cache drains.
    var maximumUnflushed = 1024
}

/// A device as it was at some moment, to be brought back later.
package struct DeviceSnapshot {
    fileprivate var device: DeviceState
}

package final class SimulatedMachine {
    var state = MachineState()
    /// Raised by each crash; drivers of an earlier one are dead.
    package internal(set) var generation: UInt64 = 0
    private var drivers: UInt64 = 0

    /// A machine with one device, which holds every path that no other device does.
    package init() {
        addDevice("")
    }

    private init(state: MachineState, generation: UInt64) {
        self.state = state
        self.generation = generation
    }

    /// A machine in the same state, in-flight requests and all; neither sees what the other does.
    package func copy() -> SimulatedMachine {
        SimulatedMachine(state: state, generation: generation + 1)
    }

    /// Puts everything under `prefix` on a device of its own. Before any directory is made there.
    package func addDevice(_ prefix: String, capacity: UInt64? = nil) {
        let prefix = Self.normalized(prefix)
        state.incarnations += 1
        var device = DeviceState(prefix: prefix, incarnation: state.incarnations)
        if let capacity { device.capacityPages = Int(capacity / UInt64(SimulatedPage.bytes)) }
        state.devices.append(device)
    }

    /// How many unflushed changes of one file there can be before its oldest become durable by
    /// themselves, as a drive's cache drains; 1024 unless set, drained when twice as many.
    package var maximumUnflushed: Int {
        get { state.maximumUnflushed }
        set { state.maximumUnflushed = max(1, newValue) }
    }

    // MARK: Devices

    /// The index of the device that holds the path: the one with the longest matching prefix.
    package func device(of path: String) -> Int {
        let path = Self.normalized(path)
        var best = 0
        var length = -1
        for (index, device) in state.devices.enumerated() {
            let prefix = device.prefix
            let matches = prefix.isEmpty || path == prefix || path.hasPrefix(prefix + "/")
            if matches && prefix.utf8.count > length { (best, length) = (index, prefix.utf8.count) }
        }
        return best
    }

    /// Bytes that the path's device can hold; less than is used means that nothing is free.
    package func setCapacity(_ path: String, bytes: UInt64) {
        let pages = bytes / UInt64(SimulatedPage.bytes)
        state.devices[device(of: path)].capacityPages = Int(clamping: pages)
    }

    package func availableBytes(_ path: String) -> UInt64 {
        availableBytes(device: device(of: path))
    }

    func availableBytes(device: Int) -> UInt64 {
        let free = state.devices[device].capacityPages - state.devices[device].usedPages
        let bytes = max(0, free).multipliedReportingOverflow(by: SimulatedPage.bytes)
        return UInt64(bytes.overflow ? Int.max : bytes.partialValue)
    }

    /// Takes the path's device away: every call there fails until it is attached, also what hung.
    package func detach(_ path: String) {
        let device = device(of: path)
        state.devices[device].attached = false
        state.devices[device].hungUntil = 0
    }

    /// Brings the device back as it was; files that were open work again.
    package func attach(_ path: String) {
        state.devices[device(of: path)].attached = true
    }

    package func isAttached(_ path: String) -> Bool { state.devices[device(of: path)].attached }

    package func snapshot(_ path: String) -> DeviceSnapshot {
        DeviceSnapshot(device: state.devices[device(of: path)])
    }

    /// Brings the path's device back in an earlier state, as after a clean stop then: what was
    /// unflushed counts as written. Files open on it are dead; its locks are free.
    package func restore(_ path: String, _ snapshot: DeviceSnapshot) {
        state.incarnations += 1
        var device = snapshot.device
        device.incarnation = state.incarnations
        device.attached = true
        (device.hungUntil, device.slowUntil) = (0, 0)
        for index in device.files.indices {
            for effect in device.files[index].effects { device.files[index].makeDurable(effect) }
        }
        for index in device.directories.indices {
            for effect in device.directories[index].effects {
                device.directories[index].makeDurable(effect)
            }
        }
        device.settle()
        state.devices[self.device(of: path)] = device
    }

    /// All latencies of the path's device times `factor`.
    package func setLatencyMultiplier(_ path: String, _ factor: UInt64) {
        state.devices[device(of: path)].latencyMultiplier = max(1, factor)
    }

    /// The path's device completes nothing until it is released.
    package func hang(_ path: String) {
        state.devices[device(of: path)].hungUntil = UInt64.max
    }

    package func release(_ path: String) {
        state.devices[device(of: path)].hungUntil = 0
    }

    // MARK: Looking in from outside (tests)

    package func fileNames(_ directory: String) -> [String] {
        guard let place = locate(directory) else { return [] }
        return state.devices[place.device].directories[place.index].entries.keys.sorted()
    }

    package func fileSize(_ directory: String, _ name: String) -> Int? {
        guard let place = locate(directory, name) else { return nil }
        return state.devices[place.device].files[place.index].size
    }

    /// Pages that hold memory in what can be seen of a file.
    package func storedPages(_ directory: String, _ name: String) -> Int {
        guard let place = locate(directory, name) else { return 0 }
        return state.devices[place.device].files[place.index].current.storedPages
    }

    /// Bytes as a read would give them, past any fault; zeros beyond the end.
    package func contents(
        _ directory: String, _ name: String, offset: Int, length: Int
    ) -> [UInt8]? {
        guard let place = locate(directory, name), offset >= 0, length >= 0 else { return nil }
        let first = offset / SimulatedPage.bytes
        let last = (offset + length + SimulatedPage.bytes - 1) / SimulatedPage.bytes
        let scratch = Extent(pages: last - first)
        state.devices[place.device].files[place.index].current.read(
            first, count: last - first, into: scratch.bytes)
        let start = scratch.bytes + (offset - first * SimulatedPage.bytes)
        return [UInt8](UnsafeRawBufferPointer(start: start, count: length))
    }

    /// Turns one stored bit over, in every view of it. False when there is no such byte.
    @discardableResult
    package func flipBit(_ directory: String, _ name: String, offset: Int, bit: Int) -> Bool {
        guard let place = locate(directory, name), offset >= 0,
            offset < state.devices[place.device].files[place.index].size
        else { return false }
        rot(
            device: place.device, file: place.index, page: offset / SimulatedPage.bytes,
            bit: (offset % SimulatedPage.bytes) * 8 + (bit & 7))
        return true
    }

    /// Puts other bytes into one stored page, in every view of it, past any driver. False when
    /// there is no such page.
    @discardableResult
    package func overwrite(
        _ directory: String, _ name: String, page: Int, _ bytes: [UInt8]
    ) -> Bool {
        guard let place = locate(directory, name), bytes.count == SimulatedPage.bytes, page >= 0,
            (page + 1) * SimulatedPage.bytes
                <= state.devices[place.device].files[place.index].size
        else { return false }
        replace(device: place.device, file: place.index, page: page) { fresh in
            bytes.withUnsafeBytes {
                UnsafeMutableRawBufferPointer(start: fresh.bytes, count: $0.count)
                    .copyMemory(from: $0)
            }
        }
        return true
    }

    /// Makes the pages of the range read as EIO until they are rewritten.
    package func breakPages(_ directory: String, _ name: String, offset: Int, length: Int) {
        guard let place = locate(directory, name), offset >= 0, length > 0 else { return }
        let pages = offset / SimulatedPage.bytes...(offset + length - 1) / SimulatedPage.bytes
        state.devices[place.device].files[place.index].badPages.formUnion(pages)
    }

    // MARK: Names

    func newDriver() -> UInt64 {
        drivers += 1
        return (generation << 20) | drivers
    }

    static func normalized(_ path: String) -> String {
        var path = Substring(path)
        while path.count > 1, path.last == "/" { path.removeLast() }
        return path == "/" ? "" : String(path)
    }

    func locate(_ directory: String) -> (device: Int, index: Int)? {
        let device = device(of: directory)
        guard let index = state.devices[device].directoryIndex[Self.normalized(directory)] else {
            return nil
        }
        return (device, index)
    }

    func locate(_ directory: String, _ name: String) -> (device: Int, index: Int)? {
        guard let place = locate(directory),
            let file = state.devices[place.device].directories[place.index].entries[name]
        else { return nil }
        return (place.device, file)
    }
}

extension DeviceState {
    /// Makes what is durable all there is: after a crash, or a clean stop whose effects were
    /// applied.
    mutating func settle() {
        for index in directories.indices {
            directories[index].entries = directories[index].durable
            directories[index].effects.removeAll()
            directories[index].lockHolder = nil
        }
        usedPages = 0
        for index in files.indices {
            files[index].revertToDurable()
            let name = files[index].name
            let directory = files[index].directory
            if directory >= 0, directories[directory].entries[name] == index {
                files[index].charged = true
                usedPages += files[index].allocated.count
            } else if directory >= 0 {
                discard(index)
            }
        }
    }

    /// Gives the inode's slot back.
    mutating func discard(_ index: Int) {
        files[index] = SimulatedFile(name: "", directory: -1)
        freeFiles.append(index)
    }

    /// Returns the pages of a file that no name leads to and nobody has open, and its slot when no
    /// crash could bring it back.
    mutating func releaseIfUnlinked(_ index: Int) {
        let directory = files[index].directory
        let name = files[index].name
        guard directory >= 0, files[index].handles == 0,
            directories[directory].entries[name] != index
        else { return }
        if files[index].charged {
            usedPages -= files[index].allocated.count
            files[index].charged = false
        }
        if !directories[directory].refers(to: index, named: name) { discard(index) }
    }
}
