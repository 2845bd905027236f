// TimedOptions: what a replay in time was asked for: whose time, how fast requests come, what the
// server and the device are taken to do, and what the store is to bring early.

package enum TimeChoice: String, CaseIterable, Sendable {
    case virtual
}

package enum PrefetchChoice: String, CaseIterable, Sendable {
    case off
    case chain
    /// What followed a block the last time; nothing is announced, and blocks are asked for one by
    /// one.
    case successor
    /// Pages of the layers after the one that is decoded.
    case layer
    case all
    /// Whatever the device holds is there at once: the bound of all prefetching.
    case oracle
}

extension PrefetchChoice {
    /// Whether engines announce their requests, if nothing else is said.
    package var announces: Bool { self == .chain || self == .all }
}

/// Where the picks of a decoding come from.
package enum DecodeChoice: Equatable, Sendable {
    case generated(DecodeOptions)
    case file(String)

    /// `gen`, `gen:parts`, or a file.
    package init(_ text: String) throws(OptionProblem) {
        if text == "gen" {
            self = .generated(DecodeOptions())
        } else if text.hasPrefix("gen:") {
            self = .generated(try DecodeOptions(String(text.dropFirst(4))))
        } else if text.isEmpty {
            throw OptionProblem("gen:steps=n,overlap=x/y or a file")
        } else {
            self = .file(text)
        }
    }

    package var text: String {
        switch self {
        case .generated(let options): options.text
        case .file(let path): path
        }
    }
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
    /// Steps of decoding instead of a trace of requests.
    package var decode: DecodeChoice?
    package init() {}

    /// Whether anything was asked for that only a replay in time does.
    package private(set) var isAsked = false

    package static let names = [
        "time", "prefetch", "speed", "prefill-rate", "model-bytes-per-token", "load",
        "device-model", "block-tokens", "layers", "decode",
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
        case "decode": decode = try DecodeChoice(text)
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
