// Region: memory that I/O may target, named by (region, offset, length) instead of a pointer.
//
// Region 0 is the process itself: its offset is an address, and its I/O is never a registered
// buffer. Every other region is registered once, keeps its place until it is removed, and is host
// memory, host memory shared by a descriptor, or device memory. Device memory has no pointer: only
// the driver and the region's own copy functions touch it, so a checksum over it is made in a slab.

/// Names one registered region of a `RegionTable`; 0 is the process's own memory.
package struct RegionID: Hashable, Sendable {
    package var raw: UInt16
    package init(_ raw: UInt16) { self.raw = raw }
    /// Caller memory outside any region; the offset of a piece in it is an address.
    package static let process = RegionID(0)
}

/// What kind of memory a region is.
package enum RegionKind: UInt8, Sendable {
    case host
    case shared
    case device
}

/// A run of bytes in a region: the one way a source or destination of I/O is named.
package struct Piece: Equatable, Sendable {
    package var region: RegionID
    /// Bytes from the region's start; in region 0 an address.
    package var offset: UInt64
    /// Bytes.
    package var length: UInt64

    package init(region: RegionID, offset: UInt64, length: UInt64) {
        self.region = region
        self.offset = offset
        self.length = length
    }
}

/// Copies between a device region and host memory, as the region's owner supplies them (such as a
/// driver API's memcpy). Returns 0 or an errno. Called on the store's owner thread only.
package struct DeviceCopy: Sendable {
    package typealias Function =
        @convention(c) @Sendable (
            _ context: UInt, _ deviceOffset: UInt64, _ host: UnsafeMutableRawPointer, _ length: Int
        ) -> Int32
    package var context: UInt
    package var toDevice: Function
    package var fromDevice: Function

    package init(context: UInt, toDevice: Function, fromDevice: Function) {
        self.context = context
        self.toDevice = toDevice
        self.fromDevice = fromDevice
    }
}

/// One entry of the region table.
package struct Region: @unchecked Sendable {
    // Unchecked: the base is an address whose owner promised, at registration, to keep it mapped
    // until the region is removed; the table itself is only used on the owner thread.
    package var kind: RegionKind
    /// The mapping's first byte; nil for a device region.
    package var base: UnsafeMutableRawPointer?
    package var length: UInt64
    /// The descriptor behind a shared region, -1 for none.
    package var descriptor: Int32
    package var copy: DeviceCopy?

    package init(
        kind: RegionKind, base: UnsafeMutableRawPointer?, length: UInt64, descriptor: Int32 = -1,
        copy: DeviceCopy? = nil
    ) {
        self.kind = kind
        self.base = base
        self.length = length
        self.descriptor = descriptor
        self.copy = copy
    }
}

/// The regions of one store: a fixed table, shared by the core and its driver, changed and read on
/// the owner thread only.
package final class RegionTable {
    /// The most regions a store takes, the process itself included.
    package static let capacity = 1024

    private let entries: UnsafeMutablePointer<Region?>

    package init() {
        entries = .allocate(capacity: Self.capacity)
        entries.initialize(repeating: nil, count: Self.capacity)
        entries[0] = Region(kind: .host, base: nil, length: UInt64.max)
    }

    deinit {
        entries.deinitialize(count: Self.capacity)
        entries.deallocate()
    }

    /// Adds a region in the first free place; nil when the table is full.
    package func add(_ region: Region) -> RegionID? {
        for index in 1..<Self.capacity where entries[index] == nil {
            entries[index] = region
            return RegionID(UInt16(index))
        }
        return nil
    }

    package func remove(_ id: RegionID) {
        precondition(id != .process, "region 0 is the process and cannot be removed")
        entries[Int(id.raw)] = nil
    }

    @inline(__always)
    package subscript(id: RegionID) -> Region? {
        Int(id.raw) < Self.capacity ? entries[Int(id.raw)] : nil
    }

    /// Whether the piece lies inside a registered region (or is process memory with an address).
    package func contains(_ piece: Piece) -> Bool {
        if piece.region == .process { return piece.offset != 0 }
        guard Int(piece.region.raw) < Self.capacity,
            let length = entries[Int(piece.region.raw)]?.length
        else { return false }
        return piece.offset <= length && piece.length <= length - piece.offset
    }

    /// The piece's address, or nil for device memory, which the CPU must not touch.
    @inline(__always)
    package func pointer(_ piece: Piece) -> UnsafeMutableRawPointer? {
        if piece.region == .process {
            return UnsafeMutableRawPointer(bitPattern: UInt(piece.offset))
        }
        guard let base = entries[Int(piece.region.raw)]?.base else { return nil }
        return base + Int(piece.offset)
    }
}
