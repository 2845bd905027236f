// Memory: where a put's bytes come from and a get's bytes go to: a list of pieces of plain process
// memory or of registered regions. The caller keeps it in place until the call returns.

import BlockIO
import Glibc

/// Memory that was registered with a store for I/O. Ends with `Store.unregister`.
public struct MemoryRegion: Sendable, Hashable {
    /// The region's number in its store.
    public let number: Int
    /// Bytes.
    public let length: UInt64
    /// The first byte's address; 0 for device memory.
    let address: UInt

    package var id: RegionID { RegionID(UInt16(truncatingIfNeeded: number)) }
}

/// Page-aligned memory of its own, freed with its last reference.
public final class Buffer: @unchecked Sendable {
    // Unchecked: the address never changes; what lies there is the user's to order, as with any
    // memory that I/O targets.

    /// The memory, aligned to 4 KiB.
    public let bytes: UnsafeMutableRawBufferPointer

    /// Zero-filled memory of this many bytes.
    public init(count: Int) {
        // Whole pages, so that the device may write the last one directly.
        let room = max(4096, (count + 4095) / 4096 * 4096)
        let memory = UnsafeMutableRawPointer.allocate(byteCount: room, alignment: 4096)
        memset(memory, 0, room)
        bytes = UnsafeMutableRawBufferPointer(start: memory, count: count)
    }

    /// A copy of these bytes.
    public convenience init(copying source: some Collection<UInt8>) {
        self.init(count: source.count)
        bytes.copyBytes(from: source)
    }

    deinit { bytes.baseAddress?.deallocate() }
}

/// A list of pieces of memory, in order.
public struct Memory: Sendable {
    /// One run of bytes.
    public struct Piece: Sendable, Equatable {
        let region: UInt16
        let offset: UInt64
        /// Bytes.
        public let length: UInt64
        /// The first byte's address; 0 for device memory.
        let address: UInt

        /// A run of plain memory, which stays valid until the call that uses it returns.
        public init(_ memory: UnsafeRawBufferPointer) {
            address = UInt(bitPattern: memory.baseAddress)
            region = 0
            offset = UInt64(address)
            length = UInt64(memory.count)
        }

        /// A run of a registered region.
        public init(_ region: MemoryRegion, offset: UInt64, length: UInt64) {
            self.region = UInt16(truncatingIfNeeded: region.number)
            self.offset = offset
            self.length = length
            let fits = offset <= region.length && length <= region.length - offset
            address = region.address == 0 || !fits ? 0 : region.address + UInt(offset)
        }

        var core: BlockIO.Piece {
            BlockIO.Piece(region: RegionID(region), offset: offset, length: length)
        }
    }

    /// The pieces, in order.
    public let pieces: [Piece]
    private let owner: Buffer?

    /// These pieces, in order.
    public init(_ pieces: [Piece]) {
        self.pieces = pieces
        owner = nil
    }

    /// One run of plain memory.
    public init(_ memory: UnsafeRawBufferPointer) { self.init([Piece(memory)]) }
    /// One run of plain memory.
    public init(_ memory: UnsafeMutableRawBufferPointer) {
        self.init([Piece(UnsafeRawBufferPointer(memory))])
    }
    /// A run of a registered region.
    public init(_ region: MemoryRegion, offset: UInt64, length: UInt64) {
        self.init([Piece(region, offset: offset, length: length)])
    }
    /// All of a buffer, which is kept alive.
    public init(_ buffer: Buffer) {
        pieces = [Piece(UnsafeRawBufferPointer(buffer.bytes))]
        owner = buffer
    }

    /// Bytes in all.
    public var byteCount: UInt64 { pieces.reduce(0) { $0 &+ $1.length } }

    /// Whether this thread can read and write all of it.
    var isAddressable: Bool { pieces.allSatisfy { $0.address != 0 || $0.length == 0 } }

    /// Copies into the pieces, from `at` bytes after their start.
    func write(at start: Int, _ source: UnsafeRawPointer, count: Int) {
        var skip = start
        var done = 0
        for piece in pieces where done < count {
            let length = Int(piece.length)
            if skip >= length {
                skip -= length
                continue
            }
            let run = min(length - skip, count - done)
            UnsafeMutableRawPointer(bitPattern: piece.address + UInt(skip))?
                .copyMemory(from: source + done, byteCount: run)
            done += run
            skip = 0
        }
    }
}
