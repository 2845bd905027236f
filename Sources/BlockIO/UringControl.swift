// UringControl: files and regions of a UringDriver, and their places in the ring's own tables.
//
// A FileID is its place in the ring's file table, as far as that goes. A region takes a run of
// places in the buffer table, one for each GiB; where the kernel refuses (memlock), the region's
// transfers go unregistered, and the grants say so.

import CLiburing
import Glibc

/// Which places of the ring's buffer table belong to which region.
struct UringBuffers {
    /// Bytes behind one place: the kernel's limit for a registered buffer.
    static let bytes: UInt64 = 1 << 30
    static let places = 4096

    private let slots: UnsafeMutablePointer<Int32>
    private let counts: UnsafeMutablePointer<Int32>
    private let taken: UnsafeMutablePointer<Bool>
    /// Whether the ring has a table; 0 places otherwise.
    var granted = false
    /// Why not, or what was refused, in words.
    var refusals: [String] = []

    init() {
        slots = .allocate(capacity: RegionTable.capacity)
        slots.initialize(repeating: -1, count: RegionTable.capacity)
        counts = .allocate(capacity: RegionTable.capacity)
        counts.initialize(repeating: 0, count: RegionTable.capacity)
        taken = .allocate(capacity: Self.places)
        taken.initialize(repeating: false, count: Self.places)
    }

    func deallocate() {
        slots.deallocate()
        counts.deallocate()
        taken.deallocate()
    }

    @inline(__always)
    func firstSlot(_ region: RegionID) -> Int32 { slots[Int(region.raw)] }

    /// The first place of a free run, or nil.
    func run(_ count: Int) -> Int? {
        var start = 0
        while start + count <= Self.places {
            guard let hit = (start..<(start + count)).last(where: { taken[$0] }) else {
                return start
            }
            start = hit + 1
        }
        return nil
    }

    func take(_ start: Int, _ count: Int, for region: RegionID) {
        for place in start..<(start + count) { taken[place] = true }
        slots[Int(region.raw)] = Int32(start)
        counts[Int(region.raw)] = Int32(count)
    }

    /// Gives the region's places back and returns them; empty when it had none.
    func release(_ region: RegionID) -> Range<Int> {
        guard Int(region.raw) < RegionTable.capacity, slots[Int(region.raw)] >= 0 else {
            return 0..<0
        }
        let start = Int(slots[Int(region.raw)])
        let places = start..<(start + Int(counts[Int(region.raw)]))
        for place in places { taken[place] = false }
        slots[Int(region.raw)] = -1
        return places
    }

    var registeredRegions: Int {
        (0..<RegionTable.capacity).reduce(0) { slots[$1] >= 0 ? $0 + 1 : $0 }
    }
}

extension UringDriver {
    /// Makes the ring's empty file and buffer tables, as far as they are granted.
    func registerTables() {
        if options.registerFiles {
            var limit = rlimit()
            let known = getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0
            let capacity = min(known ? Int(clamping: limit.rlim_cur) : 1024, 16384)
            if io_uring_register_files_sparse(io, UInt32(capacity)) == 0 {
                fileTableCapacity = capacity
            }
        }
        if options.registerBuffers {
            let result = io_uring_register_buffers_sparse(io, UInt32(UringBuffers.places))
            buffers.granted = result == 0
            if result != 0 { buffers.refusals.append("buffer table refused, errno \(-result)") }
        }
    }

    var grants: String {
        let fileWords = fileTableCapacity > 0 ? "files registered" : "files not registered"
        var bufferWords = "no buffers registered"
        if buffers.granted, buffers.registeredRegions > 0 {
            bufferWords = "buffers registered for \(buffers.registeredRegions) regions"
        }
        if !buffers.refusals.isEmpty {
            bufferWords += " (" + buffers.refusals.joined(separator: "; ") + ")"
        }
        return "\(setupGrant), \(fileWords), \(bufferWords)\(files.grants)"
    }

    // MARK: Regions

    package func register(_ region: RegionID) {
        guard ring != nil, buffers.granted, region != .process, let entry = regions[region],
            let base = entry.base, entry.length > 0, buffers.firstSlot(region) < 0
        else { return }
        let count = Int((entry.length - 1) / UringBuffers.bytes + 1)
        guard let start = buffers.run(count) else {
            refused(region, "buffer table full")
            return
        }
        for index in 0..<count {
            let offset = UInt64(index) * UringBuffers.bytes
            let length = min(UringBuffers.bytes, entry.length - offset)
            let result =
                options.refuseBuffers
                ? -ENOMEM : setBuffer(start + index, base + Int(offset), length)
            if result < 0 {
                for done in 0..<index { _ = setBuffer(start + done, nil, 0) }
                let why = result == -ENOMEM ? "memlock is short" : "errno \(-result)"
                refused(region, why)
                return
            }
        }
        buffers.take(start, count, for: region)
    }

    private func refused(_ region: RegionID, _ why: String) {
        // Bounded: thousands of refused regions say nothing new.
        if buffers.refusals.count < 8 {
            buffers.refusals.append("region \(region.raw) unregistered: \(why)")
        }
    }

    private func setBuffer(
        _ place: Int, _ base: UnsafeMutableRawPointer?, _ length: UInt64
    ) -> Int32 {
        var vector = iovec(iov_base: base, iov_len: Int(length))
        var tag: UInt64 = 0
        return io_uring_register_buffers_update_tag(io, UInt32(place), &vector, &tag, 1)
    }

    package func unregister(_ region: RegionID) {
        guard ring != nil else { return }
        for place in buffers.release(region) { _ = setBuffer(place, nil, 0) }
    }

    // MARK: Files

    private func setFile(_ file: FileID, _ descriptor: Int32) -> Bool {
        guard ring != nil, Int(file.raw) < fileTableCapacity else { return true }
        var value = descriptor
        return io_uring_register_files_update(io, UInt32(file.raw), &value, 1) == 1
    }

    /// Puts a new file into the ring's table; one the ring refuses is closed again.
    private func adopt(_ file: FileID, _ path: String) throws(IOError) -> FileID {
        guard let entry = files.file(file), setFile(file, entry.descriptor) else {
            files.close(file)
            throw IOError(operation: "register file", path: path, errno: ENOMEM)
        }
        return file
    }

    package func openDirectory(_ path: String, create: Bool) throws(IOError) -> FileID {
        try adopt(files.openDirectory(path, create: create), path)
    }

    package func lock(_ directory: FileID, holder: String) throws(IOError) {
        try files.lock(directory, holder: holder)
    }

    package func list(_ directory: FileID) throws(IOError) -> [String] {
        try files.list(directory)
    }

    package func open(
        _ directory: FileID, _ name: String, _ flags: OpenFlags
    ) throws(IOError) -> FileID {
        try adopt(files.open(directory, name, flags), name)
    }

    package func information(_ file: FileID) throws(IOError) -> FileInformation {
        try files.information(file)
    }

    package func remove(_ directory: FileID, _ name: String) throws(IOError) {
        try files.remove(directory, name)
    }

    package func availableBytes(_ directory: FileID) throws(IOError) -> UInt64 {
        try files.availableBytes(directory)
    }

    package func setWriteHint(_ file: FileID, _ hint: Int32) { files.setWriteHint(file, hint) }

    package func close(_ file: FileID) {
        guard files.file(file) != nil else { return }
        _ = setFile(file, -1)
        files.close(file)
    }
}
