// SharedMapping: anonymous memory behind a descriptor (memfd), mapped once, so that another process
// that is handed the descriptor sees the same bytes. What lies in it holds offsets, never pointers.
// Huge pages are asked for (MFD_HUGETLB, then MADV_HUGEPAGE) and what was granted is told.

import CPlatform
import Glibc

/// Owns one memfd and its mapping; unmapped and closed at the end of its life.
package final class SharedMapping {
    /// How the kernel backs the mapping.
    package enum Pages: String, Sendable {
        case hugeTLB = "hugetlb"
        case transparentHuge = "transparent huge pages"
        case base = "base pages"
    }

    package let descriptor: Int32
    package let base: UnsafeMutableRawPointer
    /// Bytes, a multiple of the page size.
    package let length: Int
    package let pages: Pages

    /// Makes a zero-filled mapping of at least `length` bytes. With `huge`, tries huge pages first.
    package init(name: String, length: Int, huge: Bool) throws(IOError) {
        precondition(length > 0, "a mapping needs a length")
        let hugePage = 2 << 20
        if huge {
            let rounded = (length + hugePage - 1) / hugePage * hugePage
            let fd = hearth_memfd(name, 1)
            if fd >= 0 {
                if ftruncate(fd, rounded) == 0,
                    let address = Self.map(fd, rounded)
                {
                    (descriptor, base, self.length, pages) = (fd, address, rounded, .hugeTLB)
                    return
                }
                _ = Glibc.close(fd)
            }
        }
        let unit = huge ? hugePage : Int(sysconf(Int32(_SC_PAGESIZE)))
        let rounded = (length + unit - 1) / unit * unit
        let fd = hearth_memfd(name, 0)
        guard fd >= 0 else {
            throw IOError(operation: "memfd_create", path: name, errno: errno)
        }
        guard ftruncate(fd, rounded) == 0, let address = Self.map(fd, rounded) else {
            let error = errno
            _ = Glibc.close(fd)
            throw IOError(operation: "mmap", path: name, errno: error)
        }
        let granted = huge && hearth_madvise_huge(address, rounded) == 0
        (descriptor, base, self.length) = (fd, address, rounded)
        pages = granted ? .transparentHuge : .base
    }

    deinit {
        munmap(base, length)
        _ = Glibc.close(descriptor)
    }

    private static func map(_ fd: Int32, _ length: Int) -> UnsafeMutableRawPointer? {
        let address = mmap(nil, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
        return address == UnsafeMutableRawPointer(bitPattern: -1) ? nil : address
    }
}
