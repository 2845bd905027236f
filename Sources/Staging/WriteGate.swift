// WriteGate: whoever decides which puts are written to a device. Asked once for each put of a key
// that no device has, on the owner thread, from inside `submit` and `pump`; it must not call back.

package protocol WriteGate: AnyObject {
    /// Whether the block is written. `keyHash` is of the key alone: ranks of one model, which have
    /// namespaces of their own, ask with the same. `again`: it is in memory alone and is put once
    /// more, or its class is one that memory alone does not do for.
    func admits(keyHash: UInt64, bytes: UInt32, again: Bool) -> Bool
}

/// A hash of a key without its namespace or the store's secret, the same in every process.
package func keyHash(_ key: UnsafeRawBufferPointer) -> UInt64 {
    var hash: UInt64 = 0x9E37_79B9_7F4A_7C15 ^ UInt64(key.count)
    var at = 0
    while at < key.count {
        var word: UInt64 = 0
        let count = min(8, key.count - at)
        withUnsafeMutableBytes(of: &word) {
            $0.copyMemory(from: UnsafeRawBufferPointer(rebasing: key[at..<(at + count)]))
        }
        hash = (hash ^ UInt64(littleEndian: word)) &* 0xBF58_476D_1CE4_E5B9
        hash ^= hash >> 29
        at += count
    }
    hash = (hash ^ (hash >> 32)) &* 0x94D0_49BB_1331_11EB
    return hash ^ (hash >> 31)
}
