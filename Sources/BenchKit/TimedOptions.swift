// TimedOptions: what a replay in time was asked for: whose time, how fast requests come, what the
// server and the device are taken to do, and what the store is to bring early.

package enum TimeChoice: String, CaseIterable, Sendable {
    case virtual
}

package enum PrefetchChoice: String, CaseIterable, Sendable {
    case off
    case chain
    /// Whatever the device holds is there at once: the bound of all prefetching.
    case oracle
}

package struct TimedOptions: Equatable, Sendable {
    /// nil: not in time, as fast as the store goes.
    package var time: TimeChoice?
    package var prefetch: PrefetchChoice?
    package var speed = 1.0
    /// Tokens a second.
    package var prefillRate = 20_000.0
    package var modelBytesPerToken: UInt64 = 128 << 10
    package var load: Double?
    package var device = DeviceModel.standard
    /// nil: told by the trace's fullest request.
    package var blockTokens: Int?
    package var layers = 32
    package init() {}

    /// Whether anything was asked for that only a replay in time does.
    package private(set) var isAsked = false

    package static let names = [
        "time", "prefetch", "speed", "prefill-rate", "model-bytes-per-token", "load",
        "device-model", "block-tokens", "layers",
    ]

    package mutating func set(_ name: String, _ text: String) throws(OptionProblem) {
        isAsked = true
        switch name {
        case "time": time = try OptionValue.choice(text)
        case "prefetch": prefetch = try OptionValue.choice(text)
        case "speed": speed = try Self.number(text, 0.001...1_000_000)
        case "prefill-rate":
            prefillRate = Double(try OptionValue.integer(text, in: 1...1_000_000_000))
        case "model-bytes-per-token":
            modelBytesPerToken = try OptionValue.integer(text, in: 1...(1 << 30))
        case "load": load = try Self.number(text, 0.001...10)
        case "device-model":
            device = try DeviceModel(text)
        case "block-tokens": blockTokens = Int(try OptionValue.integer(text, in: 1...(1 << 20)))
        case "layers": layers = Int(try OptionValue.integer(text, in: 1...4096))
        default: preconditionFailure("no option --\(name)")
        }
    }

    private static func number(
        _ text: String, _ range: ClosedRange<Double>
    ) throws(OptionProblem) -> Double {
        guard let value = Double(text), range.contains(value) else {
            throw OptionProblem(
                "'\(text)' is not a number of " + formatted("%g", range.lowerBound) + " to "
                    + formatted("%g", range.upperBound))
        }
        return value
    }
}
