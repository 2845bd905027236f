// Key: the opaque bytes under which a block is stored.

/// A block's key: 1 to 512 bytes, usually a 16- or 32-byte chained hash.
public struct Key: Hashable, Sendable, ExpressibleByStringLiteral, ExpressibleByArrayLiteral {
    /// The longest key, bytes.
    public static let maximumBytes = 512

    /// The key's bytes.
    public let bytes: [UInt8]

    /// A key of these bytes; an empty or overlong one is refused when it is used.
    public init(_ bytes: some Sequence<UInt8>) { self.bytes = [UInt8](bytes) }
    /// The key whose bytes are the text's UTF-8.
    public init(_ text: some StringProtocol) { bytes = [UInt8](text.utf8) }
    /// The key whose bytes are the literal's UTF-8.
    public init(stringLiteral text: String) { bytes = [UInt8](text.utf8) }
    /// The key of these bytes.
    public init(arrayLiteral elements: UInt8...) { bytes = elements }
}
