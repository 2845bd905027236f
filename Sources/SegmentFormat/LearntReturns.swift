// LearntReturns: what a store has learnt of when its blocks and sessions come back, as its owner
// keeps it over restarts in the file `learnt`. Not part of the format on disk: a store without it,
// or whose file is torn or of another version, is whole and learns anew.
//
//   magic u32 | version u16 | zeros u16 | check u64 | length u32 | bins u16 | namespaces u16
//   store 16 | returns u64 | trust f32 | block classes u16 | session classes u16
//   namespaces: instance u64, group u8, zeros to 16
//   classes, of blocks and then of sessions: number u16, zeros to 8, sums f32 x 2 x bins
//
// Invariants: a decoded value holds only finite sums that are not negative, of classes that come in
// rising order; what they mean is between whoever learnt and whoever takes it over.

package struct LearntReturns: Equatable, Sendable {
    /// Of one class, by age: returns and time waited, in turn.
    package struct Class: Equatable, Sendable {
        package var number: UInt16
        package var sums: [Float]
        package init(number: UInt16, sums: [Float]) {
            self.number = number
            self.sums = sums
        }
    }

    /// A namespace and the group of classes that its blocks are in.
    package struct Namespace: Equatable, Sendable {
        package var instance: UInt64
        package var group: UInt8
        package init(instance: UInt64, group: UInt8) {
            self.instance = instance
            self.group = group
        }
    }

    /// The most bytes that a file has.
    package static let mostBytes = 1 << 20
    package static let version: UInt16 = 1
    static let magic: UInt32 = 0x5254_4C48  // "HLTR"
    static let seed: UInt64 = 0x4C65_6172_6E74_5265
    static let checkOffset = 8
    private static let headerBytes = 64
    private static let namespaceBytes = 16

    package var store = Identity128(hi: 0, lo: 0)
    /// Ages that are told apart.
    package var bins: UInt16 = 0
    package var namespaces: [Namespace] = []
    package var blocks: [Class] = []
    package var sessions: [Class] = []
    /// Returns of sessions that were seen.
    package var returns: UInt64 = 0
    /// How often told times of return have held, 0 to 1.
    package var trust: Float = 0

    package init() {}

    private static func classBytes(_ bins: Int) -> Int { 8 + 8 * bins }

    /// The file's bytes; nil when they would be too many.
    package func encode() -> [UInt8]? {
        let classBytes = Self.classBytes(Int(bins))
        let length =
            Self.headerBytes + namespaces.count * Self.namespaceBytes
            + (blocks.count + sessions.count) * classBytes
        guard length <= Self.mostBytes, namespaces.count <= UInt16.max,
            (blocks + sessions).allSatisfy({ $0.sums.count == 2 * Int(bins) })
        else { return nil }
        var made = [UInt8](repeating: 0, count: length)
        made.withUnsafeMutableBytes { bytes in
            bytes.put(Self.magic, 0)
            bytes.put(Self.version, 4)
            bytes.put(UInt32(length), 16)
            bytes.put(bins, 20)
            bytes.put(UInt16(namespaces.count), 22)
            bytes.put(store, 24)
            bytes.put(returns, 40)
            bytes.put(trust.bitPattern, 48)
            bytes.put(UInt16(blocks.count), 52)
            bytes.put(UInt16(sessions.count), 54)
            var at = Self.headerBytes
            for namespace in namespaces {
                bytes.put(namespace.instance, at)
                bytes.put(namespace.group, at + 8)
                at += Self.namespaceBytes
            }
            for known in blocks + sessions {
                bytes.put(known.number, at)
                for (place, sum) in known.sums.enumerated() {
                    bytes.put(sum.bitPattern, at + 8 + 4 * place)
                }
                at += classBytes
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
        var made = LearntReturns()
        made.bins = bytes.u16(20)
        made.store = bytes.identity(24)
        made.returns = bytes.u64(40)
        made.trust = Float(bitPattern: bytes.u32(48))
        let count = Int(bytes.u16(22))
        let (blocks, sessions) = (Int(bytes.u16(52)), Int(bytes.u16(54)))
        let classBytes = classBytes(Int(made.bins))
        guard made.trust >= 0, made.trust <= 1,
            headerBytes + count * namespaceBytes + (blocks + sessions) * classBytes == length
        else { throw .damaged }
        var at = headerBytes
        for _ in 0..<count {
            made.namespaces.append(Namespace(instance: bytes.u64(at), group: bytes.u8(at + 8)))
            at += namespaceBytes
        }
        made.blocks = try classes(bytes, at, blocks, Int(made.bins))
        made.sessions = try classes(bytes, at + blocks * classBytes, sessions, Int(made.bins))
        return made
    }

    private static func classes(
        _ bytes: UnsafeRawBufferPointer, _ begin: Int, _ count: Int, _ bins: Int
    ) throws(FormatError) -> [Class] {
        var made: [Class] = []
        made.reserveCapacity(count)
        for index in 0..<count {
            let at = begin + index * classBytes(bins)
            var known = Class(number: bytes.u16(at), sums: [])
            known.sums.reserveCapacity(2 * bins)
            for place in 0..<(2 * bins) {
                let sum = Float(bitPattern: bytes.u32(at + 8 + 4 * place))
                guard sum.isFinite, sum >= 0 else { throw .damaged }
                known.sums.append(sum)
            }
            if let last = made.last, last.number >= known.number { throw .damaged }
            made.append(known)
        }
        return made
    }
}
