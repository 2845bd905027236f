// KeptGhosts: why blocks that are gone are gone, as their store's owner keeps it over restarts in
// the file `ghosts`. Not part of the format on disk: a store without it, or whose file is torn, of
// another version or of another size, is whole and no longer knows why.
//
//   magic u32 | version u16 | zeros u16 | check u64 | length u32 | places u32 | store 16 | 24 zeros
//   places: fingerprint lo u64, mark u64 (seconds(32) | cause(8), 0 for a free place)
//
// Invariant: a decoded value has two words for each place.

package struct KeptGhosts: Equatable, Sendable {
    /// The most bytes that a file has.
    package static let mostBytes = 4 << 20
    package static let version: UInt16 = 1
    static let magic: UInt32 = 0x4847_4C48  // "HLGH"
    static let seed: UInt64 = 0x4768_6F73_7473_4B65
    static let checkOffset = 8
    private static let headerBytes = 64
    private static let placeBytes = 16

    package var store: Identity128
    /// By place: fingerprint and mark in turn.
    package var words: [UInt64]

    package init(store: Identity128, words: [UInt64]) {
        self.store = store
        self.words = words
    }

    /// The file's bytes; nil when they would be too many, or there is half a place.
    package func encode() -> [UInt8]? {
        let length = Self.headerBytes + 8 * words.count
        guard length <= Self.mostBytes, words.count & 1 == 0 else { return nil }
        var made = [UInt8](repeating: 0, count: length)
        made.withUnsafeMutableBytes { bytes in
            bytes.put(Self.magic, 0)
            bytes.put(Self.version, 4)
            bytes.put(UInt32(length), 16)
            bytes.put(UInt32(words.count / 2), 20)
            bytes.put(store, 24)
            for (index, word) in words.enumerated() {
                bytes.put(word, Self.headerBytes + 8 * index)
            }
            bytes.seal(Self.seed, at: Self.checkOffset)
        }
        return made
    }

    /// What a file holds.
    package static func decode(_ file: UnsafeRawBufferPointer) throws(FormatError) -> Self {
        guard file.count >= headerBytes, file.u32(0) == magic else { throw .notHearth }
        let length = Int(file.u32(16))
        guard length >= headerBytes, length <= file.count else { throw .damaged }
        let bytes = UnsafeRawBufferPointer(rebasing: file[..<length])
        guard bytes.verifies(seed, at: checkOffset) else { throw .damaged }
        guard bytes.u16(4) == version else { throw .newerFormat(word: UInt64(bytes.u16(4))) }
        let places = Int(bytes.u32(20))
        guard headerBytes + places * placeBytes == length else { throw .damaged }
        var words: [UInt64] = []
        words.reserveCapacity(2 * places)
        for index in 0..<(2 * places) { words.append(bytes.u64(headerBytes + 8 * index)) }
        return KeptGhosts(store: bytes.identity(24), words: words)
    }
}
