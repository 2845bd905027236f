// RaisedReads: waiting prefetches that became demand reads because somebody was faster, by
// fingerprint, until the read ends: when each was asked for and who had predicted it. A bounded
// table by hash; what is overwritten there costs one figure of lateness.

import LogStore

struct RaisedRead {
    var hi: UInt64 = 0
    var lo: UInt64 = 0
    /// When the demand came; 0 for an empty place.
    var since: UInt64 = 0
    var predictor = PredictorKind.chain
}

struct RaisedReads {
    static let capacity = 4096
    private let places: UnsafeMutablePointer<RaisedRead>

    init() {
        places = .allocate(capacity: Self.capacity)
        places.initialize(repeating: RaisedRead(), count: Self.capacity)
    }

    func deallocate() { places.deallocate() }

    static var memoryBytes: Int { capacity * MemoryLayout<RaisedRead>.stride }

    @inline(__always)
    private func place(_ fingerprint: Fingerprint) -> UnsafeMutablePointer<RaisedRead> {
        places + Int(fingerprint.lo % UInt64(Self.capacity))
    }

    func insert(_ fingerprint: Fingerprint, _ predictor: PredictorKind, now: UInt64) {
        place(fingerprint).pointee = RaisedRead(
            hi: fingerprint.hi, lo: fingerprint.lo, since: max(1, now), predictor: predictor)
    }

    /// Takes it out; nil if it was not raised.
    @inline(__always)
    func remove(_ fingerprint: Fingerprint) -> RaisedRead? {
        let found = place(fingerprint).pointee
        guard found.since != 0, found.hi == fingerprint.hi, found.lo == fingerprint.lo else {
            return nil
        }
        place(fingerprint).pointee.since = 0
        return found
    }
}
