// TimedOptions: what a replay in time was asked for: whose time, how fast requests come, what the
// server and the device are taken to do, and what the store is to bring early.

package enum TimeChoice: String, CaseIterable, Sendable {
    /// The machine's own, on a store of files.
    case real
    case virtual
}

package enum PrefetchChoice: String, CaseIterable, Sendable {
    case off
    case chain
    /// What followed a block the last time; nothing is announced, and blocks are asked for one by
    /// one.
    case successor
    /// Chains of sessions that are expected back.
    case session
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
    /// Whether it was told.
    package private(set) var modelBytesGiven = false
    /// Several are played one after the other.
    package var loads: [Double] = []
    /// A page with plots goes there.
    package var report: String?
    package var device = DeviceModel.standard
    /// Whether it was told.
    package private(set) var deviceGiven = false
    /// Fitted to the disk of the directory, before anything is played.
    package private(set) var deviceFitted = false
    /// nil: told by the trace's fullest request.
    package var blockTokens: Int?
    package var layers = 32
    package var claim = ClaimChoice.profitable
    /// Steps of decoding instead of a trace of requests.
    package var decode: DecodeChoice?
    package init() {}

    /// Whether anything was asked for that only a replay in time does.
    package private(set) var isAsked = false

    package static let names = [
        "time", "prefetch", "speed", "prefill-rate", "model-bytes-per-token", "load",
        "device-model", "block-tokens", "layers", "claim", "decode", "report",
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
            modelBytesGiven = true
        case "load":
            for word in text.split(separator: ",", omittingEmptySubsequences: false) {
                loads.append(try Self.number(String(word), 0.001...10))
            }
        case "report": report = text
        case "device-model":
            deviceFitted = text == "fitted"
            if !deviceFitted { device = try DeviceModel(text) }
            deviceGiven = true
        case "block-tokens": blockTokens = Int(try OptionValue.integer(text, in: 1...(1 << 20)))
        case "layers": layers = Int(try OptionValue.integer(text, in: 1...4096))
        case "claim": claim = try OptionValue.choice(text)
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
