// FormatConstants: the numbers that the on-disk format is built of. docs/FORMAT.md explains them.

package enum FormatConstants {
    package static let pageBytes = 4096
    package static let version: UInt16 = 1
    package static let maxKeyBytes = 512
    package static let maxShards = 4096
    package static let maxBlockBytes = 64 << 20

    /// Versions, generations, epochs and instance ids on disk are below this, so that counting on
    /// from what was read can never overflow.
    static let counterLimit: UInt64 = 1 << 63

    // Magics, little-endian on disk.
    static let segmentMagic: UInt32 = 0x4745_5348  // "HSEG"
    static let descriptorMagic: UInt32 = 0x4353_4448  // "HDSC"
    static let trailerMagic: UInt32 = 0x4C52_5448  // "HTRL"
    static let manifestMagic: UInt32 = 0x4E4D_5448  // "HTMN"
    static let checkpointMagic: UInt32 = 0x504B_4348  // "HCKP"
    static let chunkMagic: UInt32 = 0x4B48_4348  // "HCHK"
    static let endMagic: UInt32 = 0x444E_4348  // "HCND"

    /// Features that this build writes. An unknown bit in the second word makes a store read-only
    /// here, in the third it is refused.
    static let compatible: UInt64 = 0
    static let readOnlyCompatible: UInt64 = 0
    static let incompatible: UInt64 = 1
}

/// Why bytes were not accepted.
package enum FormatError: Error, Equatable, Sendable {
    /// Not a Hearth structure at all.
    case notHearth
    case damaged
    /// Whole, but of another place, life or store.
    case wrongPlace
    case newerFormat(word: UInt64)
    case tooLarge
}

/// A 128-bit id or fingerprint.
package struct Identity128: Hashable, Sendable {
    package var hi: UInt64
    package var lo: UInt64
    package init(hi: UInt64, lo: UInt64) {
        self.hi = hi
        self.lo = lo
    }
}

/// A key of SipHash.
package struct SecretKey: Equatable, Sendable {
    package var k0: UInt64
    package var k1: UInt64
    package init(k0: UInt64, k1: UInt64) {
        self.k0 = k0
        self.k1 = k1
    }
}
