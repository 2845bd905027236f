// LayerClock: where requests are in their decoding, as engines tell, and how long a layer takes. A
// bounded table by hash: a request that is overwritten is one more that nothing is known of.

package struct LayerClock {
    private struct Place {
        var request: UInt64 = 0
        var step: UInt32 = 0
        var layer: UInt32 = 0
        var time: UInt64 = 0
        var isUsed = false
    }

    package static let capacity = 256
    /// A pause longer than that is none of computing.
    private static let longestLayer: UInt64 = 1_000_000_000

    private let places: UnsafeMutablePointer<Place>
    /// Nanoseconds of a layer, 0 before any was seen.
    package private(set) var layerTime: UInt64 = 0

    package init() {
        places = .allocate(capacity: Self.capacity)
        places.initialize(repeating: Place(), count: Self.capacity)
    }

    package func deallocate() { places.deallocate() }

    package static var memoryBytes: Int { capacity * MemoryLayout<Place>.stride }

    private func place(_ request: UInt64) -> UnsafeMutablePointer<Place> {
        places + Int((request &* 0x9E37_79B9_7F4A_7C15) >> 56)
    }

    /// The request is at a layer; the layer that it was at before, if it is another.
    package mutating func progress(
        _ request: UInt64, step: UInt32, layer: UInt32, now: UInt64
    ) -> UInt32? {
        let place = place(request)
        let old = place.pointee
        place.pointee = Place(request: request, step: step, layer: layer, time: now, isUsed: true)
        guard old.isUsed, old.request == request, old.layer != layer || old.step != step else {
            return nil
        }
        if old.step == step, layer > old.layer, now > old.time {
            let each = (now - old.time) / UInt64(layer - old.layer)
            if each < Self.longestLayer {
                layerTime = layerTime == 0 ? each : layerTime - layerTime / 8 + each / 8
            }
        }
        return old.layer
    }

    /// Layers from where the request is to that one; 1 if nothing is known.
    package func distance(_ request: UInt64, step: UInt32, layer: UInt32) -> Int {
        let place = place(request).pointee
        guard place.isUsed, place.request == request, place.step == step, layer > place.layer
        else { return 1 }
        return Int(min(layer - place.layer, 64))
    }

    package func forget(_ request: UInt64) {
        let place = place(request)
        if place.pointee.request == request { place.pointee.isUsed = false }
    }
}
