// The control calls: directories, locks, files. Synchronous and free of faults but for a device
// that is away; names are not durable until their directory is synced.

import BlockIO
import Glibc

extension SimulatedDriver {
    package func openDirectory(_ path: String, create: Bool) throws(IOError) -> FileID {
        let path = SimulatedMachine.normalized(path)
        trace("openDirectory \(path)")
        if isGone { throw IOError(operation: "open", path: path, errno: EIO) }
        let device = machine.device(of: path)
        if !machine.state.devices[device].attached {
            throw IOError(operation: "open", path: path, errno: ENOENT)
        }
        let index: Int
        if let present = machine.state.devices[device].directoryIndex[path] {
            index = present
        } else {
            guard create else { throw IOError(operation: "open", path: path, errno: ENOENT) }
            index = machine.state.devices[device].directories.count
            machine.state.devices[device].directories.append(SimulatedDirectory(path: path))
            machine.state.devices[device].directoryIndex[path] = index
        }
        return addHandle(
            DriverHandle(
                device: device, incarnation: machine.state.devices[device].incarnation,
                isDirectory: true, index: index, exempt: plan.exempt(path)))
    }

    package func lock(_ directory: FileID, holder: String) throws(IOError) {
        let handle = try directoryHandle(directory, "lock", "LOCK")
        let current = machine.state.devices[handle.device].directories[handle.index]
        if let present = current.lockHolder {
            throw IOError(
                operation: "lock", path: current.path + "/LOCK", errno: EAGAIN, detail: present)
        }
        let file = fileIndex(handle, "LOCK") ?? createFile(handle, "LOCK")
        machine.state.devices[handle.device].directories[handle.index].lockHolder = holder
        machine.state.devices[handle.device].directories[handle.index].lockOwner = id
        let extent = Extent(pages: 1)
        memset(extent.bytes, 0, SimulatedPage.bytes)
        extent.bytes.copyMemory(
            from: Array(holder.utf8), byteCount: min(holder.utf8.count, SimulatedPage.bytes))
        machine.write(
            device: handle.device, file: file, firstPage: 0, extent: extent, from: 0, count: 1,
            unit: 1)
    }

    package func list(_ directory: FileID) throws(IOError) -> [String] {
        let handle = try directoryHandle(directory, "list", "")
        return machine.state.devices[handle.device].directories[handle.index].entries.keys.sorted()
    }

    package func open(
        _ directory: FileID, _ name: String, _ flags: OpenFlags
    ) throws(IOError) -> FileID {
        let handle = try directoryHandle(directory, "open", name)
        if name.isEmpty || name.utf8.contains(UInt8(ascii: "/")) {
            throw IOError(operation: "open", path: name, errno: EINVAL)
        }
        let present = fileIndex(handle, name)
        switch (flags, present) {
        case (.existing, nil): throw IOError(operation: "open", path: name, errno: ENOENT)
        case (.exclusive, .some): throw IOError(operation: "open", path: name, errno: EEXIST)
        default: break
        }
        let file = present ?? createFile(handle, name)
        machine.state.devices[handle.device].files[file].handles += 1
        return addHandle(
            DriverHandle(
                device: handle.device, incarnation: handle.incarnation, isDirectory: false,
                index: file, exempt: plan.exempt(name)))
    }

    package func information(_ file: FileID) throws(IOError) -> FileInformation {
        let handle = try liveHandle(file, "statx", "")
        let size =
            handle.isDirectory ? 0 : machine.state.devices[handle.device].files[handle.index].size
        return FileInformation(
            direct: true, memoryAlignment: SimulatedPage.sectorBytes,
            offsetAlignment: SimulatedPage.bytes, size: UInt64(size))
    }

    package func remove(_ directory: FileID, _ name: String) throws(IOError) {
        let handle = try directoryHandle(directory, "unlink", name)
        guard let file = fileIndex(handle, name) else {
            throw IOError(operation: "unlink", path: name, errno: ENOENT)
        }
        machine.state.sequence += 1
        let effect = EntryEffect(sequence: machine.state.sequence, name: name, file: nil)
        machine.state.devices[handle.device].directories[handle.index].entries[name] = nil
        machine.state.devices[handle.device].directories[handle.index].effects.append(effect)
        machine.state.devices[handle.device].releaseIfUnlinked(file)
    }

    package func availableBytes(_ directory: FileID) throws(IOError) -> UInt64 {
        let handle = try directoryHandle(directory, "statvfs", "")
        return machine.availableBytes(device: handle.device)
    }

    package func close(_ file: FileID) {
        guard let handle = self[file] else {
            preconditionFailure("close of a file that is not open")
        }
        if !isGone { precondition(handle.inFlight == 0, "close with requests in flight") }
        trace(UInt64(bitPattern: Int64(file.raw)) ^ 0xC105E)
        handles[Int(file.raw)] = nil
        if isGone || machine.state.devices[handle.device].incarnation != handle.incarnation {
            return
        }
        if handle.isDirectory {
            let directory = machine.state.devices[handle.device].directories[handle.index]
            if directory.lockHolder != nil, directory.lockOwner == id {
                machine.state.devices[handle.device].directories[handle.index].lockHolder = nil
            }
        } else {
            machine.state.devices[handle.device].files[handle.index].handles -= 1
            machine.state.devices[handle.device].releaseIfUnlinked(handle.index)
        }
    }

    package func register(_ region: RegionID) {
        precondition(regions[region] != nil, "register of a region that is not in the table")
        registered.insert(region.raw)
    }

    package func unregister(_ region: RegionID) { registered.remove(region.raw) }

    // MARK: Handles

    subscript(file: FileID) -> DriverHandle? {
        file.raw >= 0 && Int(file.raw) < handles.count ? handles[Int(file.raw)] : nil
    }

    private func addHandle(_ handle: DriverHandle) -> FileID {
        if let free = handles.firstIndex(where: { $0 == nil }) {
            handles[free] = handle
            return FileID(Int32(free))
        }
        handles.append(handle)
        return FileID(Int32(handles.count - 1))
    }

    private func liveHandle(
        _ file: FileID, _ operation: String, _ name: String
    ) throws(IOError) -> DriverHandle {
        trace(operation)
        trace(name)
        guard let handle = self[file] else {
            throw IOError(operation: operation, path: name, errno: EBADF)
        }
        if isGone || !isReachable(handle) {
            throw IOError(operation: operation, path: name, errno: EIO)
        }
        return handle
    }

    private func directoryHandle(
        _ file: FileID, _ operation: String, _ name: String
    ) throws(IOError) -> DriverHandle {
        let handle = try liveHandle(file, operation, name)
        guard handle.isDirectory else {
            throw IOError(operation: operation, path: name, errno: ENOTDIR)
        }
        return handle
    }

    /// Whether the handle's device is there, and still the one it was opened on.
    @inline(__always)
    func isReachable(_ handle: DriverHandle) -> Bool {
        machine.state.devices[handle.device].attached
            && machine.state.devices[handle.device].incarnation == handle.incarnation
    }

    private func fileIndex(_ directory: DriverHandle, _ name: String) -> Int? {
        machine.state.devices[directory.device].directories[directory.index].entries[name]
    }

    private func createFile(_ directory: DriverHandle, _ name: String) -> Int {
        let fresh = SimulatedFile(name: name, directory: directory.index)
        let index: Int
        if let free = machine.state.devices[directory.device].freeFiles.popLast() {
            index = free
            machine.state.devices[directory.device].files[free] = fresh
        } else {
            index = machine.state.devices[directory.device].files.count
            machine.state.devices[directory.device].files.append(fresh)
        }
        machine.state.sequence += 1
        let effect = EntryEffect(sequence: machine.state.sequence, name: name, file: index)
        machine.state.devices[directory.device].directories[directory.index].entries[name] = index
        machine.state.devices[directory.device].directories[directory.index].effects.append(effect)
        return index
    }
}
