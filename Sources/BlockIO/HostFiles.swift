// HostFiles: the control plane that both host drivers share — directories, locks, files.
//
// A FileID is an index into a table of descriptors; an index is reused after `close`. Used on the
// owner thread only. A file is opened direct where STATX_DIOALIGN says so; where the file system
// does not tell, O_DIRECT is tried and 4 KiB alignment assumed; in-memory file systems take the
// flag without meaning it, so they are opened buffered. What was granted is counted and reported.

import CPlatform
import Glibc

/// One open file or directory.
struct HostFile {
    /// -1 when the place is free.
    var descriptor: Int32 = -1
    /// The descriptor whose lock this directory holds, -1 for none.
    var lockDescriptor: Int32 = -1
    var memoryAlignment: UInt32 = 1
    var offsetAlignment: UInt32 = 1
    var isDirect = false
    var isDirectory = false
}

final class HostFiles {
    private(set) var entries: UnsafeMutablePointer<HostFile>
    private(set) var capacity: Int
    /// The name of a file in its directory, or the path of a directory (`parents`: -1). Joined only
    /// for messages: names of up to 15 bytes take no heap memory.
    private var names: [String]
    private var parents: [Int32]
    private var lowestFree = 0
    private(set) var directOpened = 0
    private(set) var bufferedOpened = 0
    private var bufferedReason = ""

    init() {
        capacity = 64
        entries = .allocate(capacity: capacity)
        entries.initialize(repeating: HostFile(), count: capacity)
        names = Array(repeating: "", count: capacity)
        parents = Array(repeating: -1, count: capacity)
    }

    deinit {
        closeAll()
        entries.deallocate()
    }

    /// The open file behind an id, or nil.
    @inline(__always)
    func file(_ id: FileID) -> HostFile? {
        guard id.raw >= 0, Int(id.raw) < capacity, entries[Int(id.raw)].descriptor >= 0 else {
            return nil
        }
        return entries[Int(id.raw)]
    }

    /// How files were opened, in words; empty before the first.
    var grants: String {
        if directOpened + bufferedOpened == 0 { return "" }
        let direct = "; files opened: \(directOpened) direct, \(bufferedOpened) buffered"
        return bufferedOpened == 0 ? direct : direct + " (\(bufferedReason))"
    }

    private func path(_ id: FileID) -> String {
        guard id.raw >= 0, Int(id.raw) < capacity else { return "file \(id.raw)" }
        let (name, parent) = (names[Int(id.raw)], parents[Int(id.raw)])
        return parent < 0 ? name : names[Int(parent)] + "/" + name
    }

    private func error(_ operation: String, _ path: String, _ number: Int32) -> IOError {
        IOError(operation: operation, path: path, errno: number)
    }

    private func add(_ file: HostFile, _ name: String, in parent: FileID?) -> FileID {
        var index = lowestFree
        while index < capacity, entries[index].descriptor >= 0 { index += 1 }
        if index == capacity { grow() }
        entries[index] = file
        names[index] = name
        parents[index] = parent?.raw ?? -1
        lowestFree = index + 1
        return FileID(Int32(index))
    }

    private func grow() {
        let larger = UnsafeMutablePointer<HostFile>.allocate(capacity: capacity * 2)
        larger.update(from: entries, count: capacity)
        (larger + capacity).initialize(repeating: HostFile(), count: capacity)
        entries.deallocate()
        entries = larger
        names += Array(repeating: "", count: capacity)
        parents += Array(repeating: -1, count: capacity)
        capacity *= 2
    }

    private func directory(_ id: FileID, _ operation: String) throws(IOError) -> Int32 {
        guard let file = file(id) else { throw error(operation, path(id), EBADF) }
        guard file.isDirectory else { throw error(operation, path(id), ENOTDIR) }
        return file.descriptor
    }
}

// MARK: - Directories

extension HostFiles {
    func openDirectory(_ path: String, create: Bool) throws(IOError) -> FileID {
        var made = false
        if create {
            made = mkdir(path, 0o700) == 0
            if !made, errno != EEXIST { throw error("mkdir", path, errno) }
        }
        let descriptor = hearth_open_directory(-1, path)
        guard descriptor >= 0 else { throw error("open directory", path, errno) }
        if made {
            // The new name is durable only once its parent is.
            let parent = hearth_open_directory(descriptor, "..")
            let synced = parent >= 0 && fsync(parent) == 0
            let number = errno
            if parent >= 0 { _ = Glibc.close(parent) }
            if !synced {
                _ = Glibc.close(descriptor)
                throw error("sync parent of", path, number)
            }
        }
        return add(HostFile(descriptor: descriptor, isDirectory: true), path, in: nil)
    }

    func lock(_ id: FileID, holder: String) throws(IOError) {
        let parent = try directory(id, "lock")
        let name = path(id) + "/LOCK"
        guard entries[Int(id.raw)].lockDescriptor < 0 else {
            throw IOError(operation: "lock", path: name, errno: EAGAIN, detail: holderText(parent))
        }
        let descriptor = hearth_open_file(parent, "LOCK", 1, 0)
        guard descriptor >= 0 else { throw error("open", name, errno) }
        guard hearth_lock_file(descriptor) == 0 else {
            let number = errno
            _ = Glibc.close(descriptor)
            let held = number == EAGAIN || number == EWOULDBLOCK
            throw IOError(
                operation: "lock", path: name, errno: held ? EAGAIN : number,
                detail: held ? holderText(parent) : "")
        }
        var text = holder
        let written = text.withUTF8 { bytes in
            ftruncate(descriptor, 0) == 0
                && pwrite(descriptor, bytes.baseAddress, bytes.count, 0) == bytes.count
        }
        guard written else {
            let number = errno
            _ = Glibc.close(descriptor)
            throw error("write", name, number == 0 ? EIO : number)
        }
        entries[Int(id.raw)].lockDescriptor = descriptor
    }

    private func holderText(_ parent: Int32) -> String {
        let descriptor = hearth_open_file(parent, "LOCK", 0, 0)
        guard descriptor >= 0 else { return "" }
        defer { _ = Glibc.close(descriptor) }
        let text = String(unsafeUninitializedCapacity: 1024) { buffer in
            max(0, pread(descriptor, buffer.baseAddress, 1024, 0))
        }
        return text
    }

    /// The names in the directory, sorted so that a run does not depend on hash order.
    func list(_ id: FileID) throws(IOError) -> [String] {
        let descriptor = try directory(id, "list")
        var capacity = 64 << 10
        while true {
            let names = UnsafeMutablePointer<CChar>.allocate(capacity: capacity)
            defer { names.deallocate() }
            let needed = Int(hearth_directory_entries(descriptor, names, Int64(capacity)))
            guard needed >= 0 else { throw error("list", path(id), errno) }
            if needed > capacity {
                capacity = needed + (64 << 10)
                continue
            }
            var found: [String] = []
            var position = 0
            while position < needed {
                found.append(String(cString: names + position))
                position += strlen(names + position) + 1
            }
            return found.sorted()
        }
    }

    func remove(_ id: FileID, _ name: String) throws(IOError) {
        let descriptor = try directory(id, "remove")
        guard unlinkat(descriptor, name, 0) == 0 else {
            throw error("remove", path(id) + "/" + name, errno)
        }
    }

    func availableBytes(_ id: FileID) throws(IOError) -> UInt64 {
        let descriptor = try directory(id, "statvfs")
        var found = statvfs()
        guard fstatvfs(descriptor, &found) == 0 else { throw error("statvfs", path(id), errno) }
        let (bytes, overflow) = UInt64(found.f_bavail)
            .multipliedReportingOverflow(by: UInt64(found.f_frsize))
        return overflow ? .max : bytes
    }
}

// MARK: - Files

extension HostFiles {
    func open(_ id: FileID, _ name: String, _ flags: OpenFlags) throws(IOError) -> FileID {
        let parent = try directory(id, "open")
        let how: Int32 =
            switch flags {
            case .existing: 0
            case .create: 1
            case .exclusive: 2
            }
        // First without O_DIRECT: a refused O_CREAT|O_DIRECT can leave the file behind.
        // A String passed as it is would be copied to the heap first.
        let plain = name.withCString { hearth_open_file(parent, $0, how, 0) }
        guard plain >= 0 else { throw error("open", path(id) + "/" + name, errno) }
        var memory: UInt32 = 4096
        var offset: UInt32 = 4096
        let told = hearth_direct_alignment(plain, &memory, &offset)
        var reason = ""
        if told == 0 {
            reason = "the file system reports no direct I/O"
        } else if told < 0, hearth_in_memory(plain) == 1 {
            reason = "in-memory file system"
        } else {
            let direct = name.withCString { hearth_open_file(parent, $0, 0, 1) }
            if direct >= 0 {
                _ = Glibc.close(plain)
                directOpened += 1
                return add(
                    HostFile(
                        descriptor: direct, memoryAlignment: memory, offsetAlignment: offset,
                        isDirect: true), name, in: id)
            }
            reason = "O_DIRECT refused, errno \(errno)"
        }
        bufferedOpened += 1
        bufferedReason = reason
        return add(HostFile(descriptor: plain), name, in: id)
    }

    func information(_ id: FileID) throws(IOError) -> FileInformation {
        guard let file = file(id) else { throw error("stat", path(id), EBADF) }
        var found = stat()
        guard fstat(file.descriptor, &found) == 0 else { throw error("stat", path(id), errno) }
        return FileInformation(
            direct: file.isDirect, memoryAlignment: Int(file.memoryAlignment),
            offsetAlignment: Int(file.offsetAlignment), size: UInt64(max(0, found.st_size)))
    }

    func setWriteHint(_ id: FileID, _ hint: Int32) {
        if let file = file(id) { _ = hearth_write_hint(file.descriptor, hint) }
    }

    func close(_ id: FileID) {
        guard let file = file(id) else { return }
        if file.lockDescriptor >= 0 {
            hearth_unlock_file(file.lockDescriptor)
            _ = Glibc.close(file.lockDescriptor)
        }
        _ = Glibc.close(file.descriptor)
        entries[Int(id.raw)] = HostFile()
        names[Int(id.raw)] = ""
        lowestFree = min(lowestFree, Int(id.raw))
    }

    func closeAll() {
        for index in 0..<capacity where entries[index].descriptor >= 0 {
            close(FileID(Int32(index)))
        }
    }
}

// MARK: - Requests

extension HostFiles {
    /// The errno for which a request cannot be tried at all, or 0. Whatever passes can be added up
    /// without overflow.
    @inline(__always)
    func refusal(of request: IORequest, _ regions: RegionTable) -> Int32 {
        guard file(request.file) != nil else { return EBADF }
        if request.operation == .sync { return 0 }
        let piece = request.piece
        let (end, overflow) = request.fileOffset.addingReportingOverflow(piece.length)
        if overflow || end > UInt64(Int64.max) { return EINVAL }
        if !request.operation.movesBytes { return 0 }
        guard regions.contains(piece),
            !piece.offset.addingReportingOverflow(piece.length).overflow
        else { return EFAULT }
        // Device memory: only its own copy functions may touch it.
        guard regions.pointer(piece) != nil else { return EOPNOTSUPP }
        return 0
    }
}

extension IOOperation {
    @inline(__always)
    var movesBytes: Bool { self == .read || self == .write }
}
