// DeviceModel: a drive as a replay in virtual time takes it, from the words `bw=7g,lat=80us,qd=64`,
// or measured on the disk at hand (`fitted`). Rates are of the model's bytes and decimal, as drives
// are sold.

package struct DeviceModel: Equatable, Sendable {
    /// Bytes a second that reads get at most.
    package var readBandwidth: Double
    /// Bytes a second that writes get at most, on a way of their own.
    package var writeBandwidth: Double
    /// Nanoseconds until the first byte of a request.
    package var latency: UInt64
    /// Requests served at once.
    package var depth: Int

    package static let standard = DeviceModel(
        readBandwidth: 7e9, writeBandwidth: 7e9, latency: 80_000, depth: 64)

    package init(readBandwidth: Double, writeBandwidth: Double, latency: UInt64, depth: Int) {
        self.readBandwidth = readBandwidth
        self.writeBandwidth = writeBandwidth
        self.latency = latency
        self.depth = depth
    }

    /// Parts with commas; what is not told is the standard's, and writes are as fast as reads.
    package init(_ text: String) throws(OptionProblem) {
        self = .standard
        var writes: Double?
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            let words = part.split(
                separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard words.count == 2 else {
                throw OptionProblem("'\(part)' is not bw=rate, wbw=rate, lat=time or qd=n")
            }
            let value = String(words[1])
            switch words[0] {
            case "bw": readBandwidth = try Self.rate(value)
            case "wbw": writes = try Self.rate(value)
            case "lat": latency = try OptionValue.time(value)
            case "qd": depth = Int(try OptionValue.integer(value, in: 1...4096))
            default: throw OptionProblem("'\(words[0])' is not allowed; allowed: bw, wbw, lat, qd")
            }
        }
        writeBandwidth = writes ?? readBandwidth
    }

    /// `7g`, `0.05g`, `200m`, `7GB/s` or plain bytes a second; powers of 1000.
    static func rate(_ text: String) throws(OptionProblem) -> Double {
        var letters = Substring(text.lowercased())
        if letters.hasSuffix("/s") { letters = letters.dropLast(2) }
        if letters.hasSuffix("b") { letters = letters.dropLast() }
        var power = 1.0
        if let last = letters.last, let at = ["k", "m", "g", "t"].firstIndex(of: String(last)) {
            for _ in 0...at { power *= 1000 }
            letters = letters.dropLast()
        }
        guard let number = Double(letters), number > 0, number.isFinite, number * power >= 1 else {
            throw OptionProblem("'\(text)' is not a rate such as 7g, 0.05g or 200m bytes a second")
        }
        return number * power
    }

    package var text: String {
        formatted("bw=%.0f,wbw=%.0f,", readBandwidth, writeBandwidth)
            + "lat=" + formatted("%.1fus", Double(latency) / 1000) + ",qd=\(depth)"
    }
}
