// PageFile: the file `statistics` in a store's first directory, as its owner writes it: two places
// in turn, in the page cache, never flushed. Whatever fails here is counted and nothing more: the
// store does not depend on it.
//
// Invariant: it is open only while the store's locks are held, so that there is one writer.

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
        let descriptor = open(
            directory + "/" + StoreFiles.statistics,
            O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0o600)
        guard descriptor >= 0 else { return nil }
        // What an earlier owner wrote, perhaps another version, must not pass for the newest.
        guard ftruncate(descriptor, 0) == 0 else {
            _ = Glibc.close(descriptor)
            return nil
        }
        return PageFile(descriptor: descriptor)
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
