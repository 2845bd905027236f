// PrefillModel: what a request costs the one server that prefills, and what a queue before it makes
// of that. Loading is layer by layer: while one layer is computed the next ones come, so that the
// longer of loading and computing tells, and of the shorter one only one layer's share is seen.

package struct PrefillModel: Equatable, Sendable {
    /// Tokens a second.
    package var rate: Double
    /// Of the model; what loading and computing overlap by.
    package var layers: Int
    /// Tokens of a block.
    package var blockTokens: Int

    package init(rate: Double, layers: Int, blockTokens: Int) {
        self.rate = rate
        self.layers = max(1, layers)
        self.blockTokens = max(1, blockTokens)
    }

    /// Seconds of computing for a prompt of which the first blocks are there. One token is always
    /// computed: the last one's, whose output is asked for.
    package func compute(tokens: Int, cachedBlocks: Int) -> Double {
        Double(max(1, tokens - cachedBlocks * blockTokens)) / rate
    }

    /// Seconds that the server is taken, when its blocks came within `load` seconds of its start.
    package func service(compute: Double, load: Double) -> Double {
        let share = 1 / Double(layers)
        return max(compute + load * share, load + compute * share)
    }

    /// Seconds of the server that loading cost.
    package func stall(compute: Double, load: Double) -> Double {
        load <= 0 ? 0 : service(compute: compute, load: load) - compute
    }

    /// Seconds from arrival to the first token of each request, in order, before one server.
    package static func queue(arrivals: [UInt64], service: [Double]) -> [Double] {
        var free = 0.0
        return arrivals.indices.map { index in
            let arrival = Double(arrivals[index]) / 1e9
            free = max(free, arrival) + service[index]
            return free - arrival
        }
    }
}

/// Mean and percentiles of the times to first token of a run, seconds.
package struct TimeFigures: Equatable, Sendable {
    package var mean = 0.0
    package var median = 0.0
    package var p99 = 0.0

    package init(_ seconds: [Double]) {
        guard !seconds.isEmpty else { return }
        let sorted = seconds.sorted()
        mean = sorted.reduce(0, +) / Double(sorted.count)
        median = Self.percentile(sorted, 0.5)
        p99 = Self.percentile(sorted, 0.99)
    }

    /// The smallest one that so large a share does not exceed.
    private static func percentile(_ sorted: [Double], _ share: Double) -> Double {
        let place = Int((Double(sorted.count) * share).rounded(.up)) - 1
        return sorted[min(max(place, 0), sorted.count - 1)]
    }
}
