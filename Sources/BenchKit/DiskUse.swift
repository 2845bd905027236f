// DiskUse: what the block device under a directory did during a run, from the kernel's counters, as
// fio's "Disk stats". A directory on no block device (tmpfs, overlay) has none.

import Glibc

package struct DiskUse: Sendable {
    package var name: String
    package var reads: UInt64
    package var readMerges: UInt64
    package var readTicks: UInt64
    package var writes: UInt64
    package var writeMerges: UInt64
    package var writeTicks: UInt64
    package var queueTicks: UInt64
    /// Percent.
    package var busy: Double
}

struct DiskWatch {
    private let path: String?
    private let name: String
    private let before: [UInt64]
    private let begin = monotonicNanoseconds()

    init(path directory: String) {
        var information = stat()
        guard stat(directory, &information) == 0 else {
            (path, name, before) = (nil, "", [])
            return
        }
        let device = UInt64(information.st_dev)
        let major = (device >> 8) & 0xFFF | (device >> 32) & ~0xFFF
        let minor = device & 0xFF | (device >> 12) & ~0xFF
        let link = "/sys/dev/block/\(major):\(minor)"
        let counters = Self.read(link + "/stat")
        path = counters.count >= 11 ? link + "/stat" : nil
        before = counters
        guard let resolved = realpath(link, nil) else {
            name = "\(major):\(minor)"
            return
        }
        let text = String(cString: resolved)
        Glibc.free(resolved)
        name = text.split(separator: "/").last.map(String.init) ?? text
    }

    func finish() -> [DiskUse] {
        guard let path else { return [] }
        let after = Self.read(path)
        guard after.count >= 11 else { return [] }
        func change(_ index: Int) -> UInt64 { after[index] &- before[index] }
        let milliseconds = max(1, Double(monotonicNanoseconds() - begin) / 1e6)
        return [
            DiskUse(
                name: name, reads: change(0), readMerges: change(1), readTicks: change(3),
                writes: change(4), writeMerges: change(5), writeTicks: change(7),
                queueTicks: change(10), busy: min(100, 100 * Double(change(9)) / milliseconds))
        ]
    }

    private static func read(_ path: String) -> [UInt64] {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return [] }
        defer { Glibc.close(descriptor) }
        var buffer = [UInt8](repeating: 0, count: 512)
        let count = Glibc.read(descriptor, &buffer, buffer.count)
        guard count > 0 else { return [] }
        return String(decoding: buffer[..<count], as: UTF8.self)
            .split(whereSeparator: \.isWhitespace).compactMap { UInt64($0) }
    }
}
