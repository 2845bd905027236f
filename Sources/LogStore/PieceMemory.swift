// PieceMemory: the host memory behind a list of pieces, as if it were one stretch of bytes.

import BlockIO
import Glibc
import SegmentFormat

package struct PieceMemory {
    let pieces: UnsafePointer<Piece>
    let count: Int
    let regions: RegionTable

    package init(pieces: UnsafePointer<Piece>, count: Int, regions: RegionTable) {
        self.pieces = pieces
        self.count = count
        self.regions = regions
    }

    /// Calls `body` with each run of host memory in [from, from + count), and its offset from
    /// `from`. False when the pieces end before, or one has no host address.
    @inline(__always)
    private func forEachRun(
        from: Int, count wanted: Int, _ body: (UnsafeMutableRawPointer, Int, Int) -> Void
    ) -> Bool {
        var skip = from
        var done = 0
        for index in 0..<count where done < wanted {
            let length = Int(pieces[index].length)
            if skip >= length {
                skip -= length
                continue
            }
            guard let address = regions.pointer(pieces[index]) else { return false }
            let run = min(length - skip, wanted - done)
            body(address + skip, run, done)
            done += run
            skip = 0
        }
        return done == wanted
    }

    /// CRC32C of a stretch, continued from `seed`; nil when the pieces do not hold it.
    package func checksum(_ seed: UInt32, from: Int, count wanted: Int) -> UInt32? {
        var sum = seed
        let whole = forEachRun(from: from, count: wanted) { address, length, _ in
            sum = Checksum.crc32c(sum, UnsafeRawBufferPointer(start: address, count: length))
        }
        return whole ? sum : nil
    }

    package func read(at: Int, into target: UnsafeMutableRawPointer, count wanted: Int) {
        _ = forEachRun(from: at, count: wanted) { address, length, done in
            (target + done).copyMemory(from: address, byteCount: length)
        }
    }

    /// Whether a stretch holds the same bytes.
    package func equals(at: Int, _ other: UnsafeRawPointer, count wanted: Int) -> Bool {
        var same = true
        let whole = forEachRun(from: at, count: wanted) { address, length, done in
            same = same && memcmp(address, other + done, length) == 0
        }
        return whole && same
    }

    package func write(at: Int, _ source: UnsafeRawPointer, count wanted: Int) {
        _ = forEachRun(from: at, count: wanted) { address, length, done in
            address.copyMemory(from: source + done, byteCount: length)
        }
    }

    /// Copies a stretch into pieces, host or device memory.
    package func copy(at: Int, count wanted: Int, into target: inout PieceCursor) {
        _ = forEachRun(from: at, count: wanted) { address, length, _ in
            target.fill(length, from: address)
        }
    }
}
