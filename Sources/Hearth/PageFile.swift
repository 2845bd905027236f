// PageFile: the file `statistics` in the first of a store's directories that is there, as its owner
// writes it: two places in turn, in the page cache, never flushed. Whatever fails here is counted
// and nothing more: the store does not depend on it.
//
// Invariant: a file has one writer. It is made by whoever holds the store's locks, anew, so that a
// last page of an earlier owner that comes late goes into a file that has no name any more.

import Glibc
import LogStore
import SegmentFormat

struct PageFile: ~Copyable {
    private let descriptor: Int32
    private var sequence: UInt64 = 0

    private init(descriptor: Int32) { self.descriptor = descriptor }

    deinit { _ = Glibc.close(descriptor) }

    /// Makes the file, empty. Nil where that is not possible.
    static func make(in directory: String) -> PageFile? {
        // Nor must what an earlier owner wrote, perhaps another version, pass for the newest.
        remove(from: directory)
        let descriptor = open(
            directory + "/" + StoreFiles.statistics,
            O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
        return descriptor >= 0 ? PageFile(descriptor: descriptor) : nil
    }

    /// Removes a page that nobody writes any more, so that it tells nothing that is no longer so.
    static func remove(from directory: String) {
        _ = unlink(directory + "/" + StoreFiles.statistics)
    }

    /// Writes the page into the place that is not the newest one's. False: it could not.
    mutating func write(_ page: StatisticsPage) -> Bool {
        var page = page
        page.sequence = sequence + 1
        guard let bytes = page.encode() else { return false }
        let place = Int(page.sequence % UInt64(StatisticsPage.slots)) * StatisticsPage.slotBytes
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes {
                pwrite(
                    descriptor, $0.baseAddress.map { $0 + done }, bytes.count - done,
                    off_t(place + done))
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return false }
            done += count
        }
        sequence += 1
        return true
    }
}
