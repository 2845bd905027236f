// OptionValue: fio's spelling of numbers. Sizes: a decimal or 0x number, then k m g t p (powers of
// 1024, as under fio's default kb_base), optionally followed by b; `ki`, `mi` … are powers of 1000
// there, the reverse of the usual, and stay so. Times: a number, then d h m s ms us (or msec,
// usec); seconds without one. Percent where the option allows it.

/// Why a word was refused; the option's name is put in front by whoever knows it.
package struct OptionProblem: Error, Equatable, CustomStringConvertible {
    package var description: String
    package init(_ description: String) { self.description = description }
}

/// Bytes, or a share of something else.
package enum SizeOrShare: Equatable, Sendable {
    case bytes(UInt64)
    /// Percent.
    case share(Double)

    package func resolved(of whole: UInt64) -> UInt64 {
        switch self {
        case .bytes(let count): count
        case .share(let percent): UInt64(max(0, (Double(whole) * percent / 100).rounded()))
        }
    }
}

package enum OptionValue {
    private static func splitNumber(_ text: String) -> (digits: String, suffix: String) {
        if text.hasPrefix("0x") || text.hasPrefix("0X") {
            let digits = text.dropFirst(2).prefix { $0.isHexDigit }
            return ("0x" + digits, String(text.dropFirst(2 + digits.count)).lowercased())
        }
        let digits = text.prefix { ("0"..."9").contains($0) }
        return (String(digits), String(text.dropFirst(digits.count)).lowercased())
    }

    private static func number(_ digits: String) -> UInt64? {
        digits.hasPrefix("0x") ? UInt64(digits.dropFirst(2), radix: 16) : UInt64(digits)
    }

    /// Bytes.
    package static func size(_ text: String) throws(OptionProblem) -> UInt64 {
        let allowed = "a size such as 4096, 4k, 1m or 2g"
        let (digits, suffix) = splitNumber(text)
        guard let value = number(digits) else {
            throw OptionProblem("'\(text)' is not \(allowed)")
        }
        var letters = Substring(suffix)
        if letters.hasSuffix("b") { letters = letters.dropLast() }
        var base: UInt64 = 1024
        if letters.count == 2, letters.hasSuffix("i") {
            base = 1000
            letters = letters.dropLast()
        }
        guard let power = ["", "k", "m", "g", "t", "p"].firstIndex(of: String(letters)) else {
            throw OptionProblem("'\(text)' is not \(allowed)")
        }
        var result = value
        for _ in 0..<power {
            let (product, overflow) = result.multipliedReportingOverflow(by: base)
            guard !overflow else { throw OptionProblem("'\(text)' does not fit in 64 bits") }
            result = product
        }
        return result
    }

    package static func sizeOrShare(_ text: String) throws(OptionProblem) -> SizeOrShare {
        guard text.hasSuffix("%") else { return .bytes(try size(text)) }
        guard let percent = Double(text.dropLast()), percent > 0, percent.isFinite else {
            throw OptionProblem("'\(text)' is not a share such as 5%")
        }
        return .share(percent)
    }

    /// Nanoseconds.
    package static func time(_ text: String) throws(OptionProblem) -> UInt64 {
        let (digits, suffix) = splitNumber(text)
        let units: [String: UInt64] = [
            "": 1_000_000_000, "s": 1_000_000_000, "ms": 1_000_000, "msec": 1_000_000,
            "us": 1000, "usec": 1000, "m": 60_000_000_000, "h": 3_600_000_000_000,
            "d": 86_400_000_000_000,
        ]
        guard let value = number(digits), let unit = units[suffix] else {
            throw OptionProblem("'\(text)' is not a time such as 10, 500ms, 20us, 5m or 1h")
        }
        let (product, overflow) = value.multipliedReportingOverflow(by: unit)
        guard !overflow else { throw OptionProblem("'\(text)' is too long a time") }
        return product
    }

    package static func integer(
        _ text: String, in range: ClosedRange<UInt64>
    ) throws(OptionProblem) -> UInt64 {
        let value = try size(text)
        guard range.contains(value) else {
            throw OptionProblem(
                "\(text) is out of range: \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }

    /// fio's booleans: nothing or 1 is true, 0 is false.
    package static func flag(_ text: String?) throws(OptionProblem) -> Bool {
        switch text {
        case nil, "1": return true
        case "0": return false
        default: throw OptionProblem("'\(text ?? "")' is not allowed; allowed: 0, 1")
        }
    }

    package static func choice<Value: RawRepresentable & CaseIterable>(
        _ text: String, _ type: Value.Type = Value.self
    ) throws(OptionProblem) -> Value where Value.RawValue == String {
        if let value = Value(rawValue: text) { return value }
        let names = Value.allCases.map(\.rawValue)
        let near = nearest(to: text, among: names) ?? ""
        throw OptionProblem(
            "'\(text)' is not allowed; allowed: \(names.joined(separator: ", "))"
                + (editDistance(text, near) <= 2 ? "; did you mean '\(near)'?" : ""))
    }
}
