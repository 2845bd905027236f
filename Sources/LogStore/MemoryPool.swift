// MemoryPool: page-aligned host memory registered as one region and handed out as equal chunks:
// group buffers, bounce pages, footers. Nothing is allocated after open.

import BlockIO
import Glibc

package final class MemoryPool {
    package let region: RegionID
    package let base: UnsafeMutableRawPointer
    package let chunkBytes: Int
    package let chunkCount: Int
    private let free: UnsafeMutablePointer<Int32>
    package private(set) var freeCount: Int
    private let driver: any BlockDriver

    private let registered: Bool

    /// Unregistered pools are not pinned: their pages take memory only once they are used.
    package init(
        chunkBytes: Int, chunkCount: Int, driver: any BlockDriver, registered: Bool = true
    ) throws(StoreError) {
        self.registered = registered
        let length = chunkBytes * chunkCount
        let flags = MAP_PRIVATE | MAP_ANONYMOUS
        guard let memory = mmap(nil, length, PROT_READ | PROT_WRITE, flags, -1, 0),
            memory != UnsafeMutableRawPointer(bitPattern: -1)
        else {
            throw StoreError(
                .resource, operation: "open", subject: "\(length) bytes of buffers", errno: errno,
                advice: "Lower the memory limit or the number of group buffers.")
        }
        // Registering touches and pins every page: huge ones are 512 times fewer to fault in and to
        // pin. An unregistered pool is left alone, that it takes no more than what is used.
        if registered, length >= Self.hugeBytes { _ = madvise(memory, length, MADV_HUGEPAGE) }
        guard
            let region = driver.regions.add(
                Region(kind: .host, base: memory, length: UInt64(length)))
        else {
            munmap(memory, length)
            throw StoreError(
                .resource, operation: "open", subject: "the region table",
                advice: "Close other regions first; a store takes \(RegionTable.capacity).")
        }
        self.region = region
        base = memory
        self.chunkBytes = chunkBytes
        self.chunkCount = chunkCount
        self.driver = driver
        free = .allocate(capacity: chunkCount)
        for index in 0..<chunkCount { free[index] = Int32(chunkCount - 1 - index) }
        freeCount = chunkCount
        if registered { driver.register(region) }
    }

    deinit {
        if registered { driver.unregister(region) }
        driver.regions.remove(region)
        munmap(base, chunkBytes * chunkCount)
        free.deallocate()
    }

    private static let hugeBytes = 2 << 20

    package var bytes: Int { chunkBytes * chunkCount }

    /// A free chunk, or -1.
    @inline(__always)
    package func take() -> Int32 {
        guard freeCount > 0 else { return -1 }
        freeCount -= 1
        return free[freeCount]
    }

    @inline(__always)
    package func give(_ chunk: Int32) {
        precondition(freeCount < chunkCount, "a chunk given back twice")
        free[freeCount] = chunk
        freeCount += 1
    }

    /// Lets the system have what lies behind the first `from` bytes of a chunk of an unregistered
    /// pool, whole pages of the system's: read again, they are zero.
    package func discard(_ chunk: Int32, from: Int) {
        let unit = sysconf(Int32(_SC_PAGESIZE))
        let start = (Int(chunk) * chunkBytes + from + unit - 1) / unit * unit
        let end = (Int(chunk) + 1) * chunkBytes / unit * unit
        guard !registered, start < end else { return }
        _ = madvise(base + start, end - start, MADV_DONTNEED)
    }

    @inline(__always)
    package func pointer(_ chunk: Int32) -> UnsafeMutableRawPointer {
        base + Int(chunk) * chunkBytes
    }

    @inline(__always)
    package func piece(_ chunk: Int32, offset: Int = 0, length: Int) -> Piece {
        Piece(
            region: region, offset: UInt64(Int(chunk) * chunkBytes + offset), length: UInt64(length)
        )
    }
}
