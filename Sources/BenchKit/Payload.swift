// Payload: what every stored byte must be. The bytes of a value follow from (namespace, key,
// revision) alone, so that a reader needs no copy to tell right from wrong.
//
// The value is cut into pages of 4 KiB, each a stream of its own (eight xorshift lanes, seeded from
// the value's seed and the page's number), so that any range can be made or checked by itself and
// nothing in it compresses. The first word carries the revision, masked by a word that follows from
// namespace and key only: a reader who does not know the revision can take it from there and then
// hold all other bytes to it.

package enum Payload {
    private typealias Lanes = SIMD8<UInt64>
    package static let pageBytes = 4096

    /// Fills a buffer of any length and alignment.
    package static func fill(
        _ buffer: UnsafeMutableRawBufferPointer, namespace: UInt64, key: UInt64, revision: UInt64
    ) {
        guard let base = buffer.baseAddress else { return }
        let seed = self.seed(namespace, key, revision)
        var offset = 0
        var page: UInt64 = 0
        while offset < buffer.count {
            let count = min(pageBytes, buffer.count - offset)
            fillPage(base + offset, count, lanes(seed, page))
            offset += count
            page += 1
        }
        var first = mask(namespace, key) ^ revision
        withUnsafeBytes(of: &first) { word in
            buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: word.prefix(buffer.count)))
        }
    }

    /// The place of the first byte that is not the payload's, nil when all are right.
    package static func firstMismatch(
        _ buffer: UnsafeRawBufferPointer, namespace: UInt64, key: UInt64, revision: UInt64
    ) -> Int? {
        guard let base = buffer.baseAddress else { return nil }
        var first = mask(namespace, key) ^ revision
        let head = min(8, buffer.count)
        let wrongHead = withUnsafeBytes(of: &first) { word in
            (0..<head).first { word[$0] != buffer[$0] }
        }
        if let wrongHead { return wrongHead }
        let seed = self.seed(namespace, key, revision)
        var offset = 0
        var page: UInt64 = 0
        while offset < buffer.count {
            let count = min(pageBytes, buffer.count - offset)
            let skip = offset == 0 ? head : 0
            if let wrong = mismatchInPage(base + offset, count, lanes(seed, page), skip: skip) {
                return offset + wrong
            }
            offset += count
            page += 1
        }
        return nil
    }

    /// The revision that a value of at least 8 bytes claims to have; any number when the bytes are
    /// not a payload of this key.
    package static func claimedRevision(
        _ buffer: UnsafeRawBufferPointer, namespace: UInt64, key: UInt64
    ) -> UInt64 {
        guard buffer.count >= 8 else { return 0 }
        return buffer.loadUnaligned(as: UInt64.self) ^ mask(namespace, key)
    }

    @inline(__always)
    private static func mask(_ namespace: UInt64, _ key: UInt64) -> UInt64 {
        scrambled(scrambled(namespace) ^ key)
    }

    @inline(__always)
    private static func seed(_ namespace: UInt64, _ key: UInt64, _ revision: UInt64) -> UInt64 {
        scrambled(scrambled(mask(namespace, key) ^ 0x5851_F42D_4C95_7F2D) &+ revision)
    }

    @inline(__always)
    private static func lanes(_ seed: UInt64, _ page: UInt64) -> Lanes {
        let start = scrambled(seed ^ page &* 0x9E37_79B9_7F4A_7C15)
        var state = Lanes()
        // A zero lane would stay zero: the lowest bit is kept set.
        for lane in 0..<8 { state[lane] = scrambled(start &+ UInt64(lane)) | 1 }
        return state
    }

    @inline(__always)
    private static func advance(_ state: inout Lanes) {
        state ^= state &<< 13
        state ^= state &>> 7
        state ^= state &<< 17
    }

    private static func fillPage(_ base: UnsafeMutableRawPointer, _ count: Int, _ start: Lanes) {
        var state = start
        var offset = 0
        while offset + 64 <= count {
            advance(&state)
            base.storeBytes(of: state, toByteOffset: offset, as: Lanes.self)
            offset += 64
        }
        guard offset < count else { return }
        advance(&state)
        withUnsafeBytes(of: &state) { words in
            if let words = words.baseAddress {
                (base + offset).copyMemory(from: words, byteCount: count - offset)
            }
        }
    }

    private static func mismatchInPage(
        _ base: UnsafeRawPointer, _ count: Int, _ start: Lanes, skip: Int
    ) -> Int? {
        var state = start
        var offset = 0
        var difference = Lanes()
        if skip > 0 || count < 64 {
            advance(&state)
            let end = min(64, count)
            let wrong = withUnsafeBytes(of: &state) { expected in
                (skip..<max(skip, end)).first {
                    expected[$0] != base.load(fromByteOffset: $0, as: UInt8.self)
                }
            }
            if let wrong { return wrong }
            offset = end
        }
        while offset + 64 <= count {
            advance(&state)
            difference |= base.loadUnaligned(fromByteOffset: offset, as: Lanes.self) ^ state
            offset += 64
        }
        if difference != Lanes() { return slowMismatch(base, count, start, skip: skip) }
        guard offset < count else { return nil }
        advance(&state)
        return withUnsafeBytes(of: &state) { expected in
            (offset..<count).first {
                expected[$0 - offset] != base.load(fromByteOffset: $0, as: UInt8.self)
            }
        }
    }

    /// Finds the byte once a page is known to be wrong.
    private static func slowMismatch(
        _ base: UnsafeRawPointer, _ count: Int, _ start: Lanes, skip: Int
    ) -> Int? {
        var right = [UInt8](repeating: 0, count: count)
        return right.withUnsafeMutableBytes { right in
            guard let copy = right.baseAddress else { return nil }
            fillPage(copy, count, start)
            return (skip..<count).first {
                right[$0] != base.load(fromByteOffset: $0, as: UInt8.self)
            }
        }
    }
}
