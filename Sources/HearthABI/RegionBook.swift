// RegionBook: the regions that callers registered with one store. The core's own pools are regions
// too, with numbers beside these, so a piece is only followed when its region is in this book.

import BlockIO
import CHearth
import Hearth
import Synchronization

/// A region that a piece may name.
struct KnownRegion: Sendable {
    var region: MemoryRegion
    /// The first byte's address; 0 for device memory.
    var address: UInt

    func holds(offset: UInt64, length: UInt64) -> Bool {
        offset <= region.length && length <= region.length - offset
    }
}

final class RegionBook: Sendable {
    private struct Book {
        var known: [UInt32: KnownRegion] = [:]
    }

    private let book = Mutex(Book())

    func add(_ region: KnownRegion) {
        book.withLock { $0.known[UInt32(region.region.number)] = region }
    }

    func find(_ number: UInt32) -> KnownRegion? { book.withLock { $0.known[number] } }

    /// From here on no operation may name it.
    func remove(_ number: UInt32) throws(Failure) -> KnownRegion {
        let removed = book.withLock { $0.known.removeValue(forKey: number) }
        guard let removed else {
            throw Failure(
                HEARTH_E_HANDLE,
                number == 0
                    ? "Region 0 is this process's memory, which is not registered."
                    : "There is no region \(number) in this store (any more).")
        }
        return removed
    }
}
