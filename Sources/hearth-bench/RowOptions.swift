// RowOptions: the words of `hearth-bench row NAME`: `--name=value` pairs, of which each row knows
// its own. A wrong one is a usage error that names the nearest.

import BenchKit

struct RowOptions {
    private var values: [String: String] = [:]

    /// `known`: the names that the row takes, beside --output-format.
    init(_ words: ArraySlice<String>, known: [String]) throws(UsageError) {
        let names = known + ["output-format"]
        for word in words {
            let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            let name = parts[0].hasPrefix("--") ? String(parts[0].dropFirst(2)) : ""
            guard names.contains(name) else {
                let near = nearest(to: String(parts[0].drop { $0 == "-" }), among: names) ?? "help"
                throw UsageError("unknown option '\(word)'; the nearest is '--\(near)'")
            }
            guard parts.count == 2 else { throw UsageError("--\(name) needs a value: --\(name)=…") }
            values[name] = String(parts[1])
        }
    }

    private func converted<Value>(
        _ name: String, _ body: (String) throws(OptionProblem) -> Value
    ) throws(UsageError) -> Value? {
        guard let text = values[name] else { return nil }
        do throws(OptionProblem) {
            return try body(text)
        } catch {
            throw UsageError("--\(name): \(error)")
        }
    }

    func size(_ name: String, default value: UInt64) throws(UsageError) -> UInt64 {
        let given = try converted(name) { (text) throws(OptionProblem) in
            try OptionValue.size(text)
        }
        if given == 0 { throw UsageError("--\(name): 0 is too small") }
        return given ?? value
    }

    func integer(
        _ name: String, default value: UInt64, in range: ClosedRange<UInt64>
    ) throws(UsageError) -> UInt64 {
        try converted(name) { (text) throws(OptionProblem) in
            try OptionValue.integer(text, in: range)
        } ?? value
    }

    func text(_ name: String) throws(UsageError) -> String {
        guard let text = values[name], !text.isEmpty else {
            throw UsageError("--\(name) is needed")
        }
        return text
    }

    func word(_ name: String, default value: String, of allowed: [String]) throws(UsageError)
        -> String
    {
        let word = values[name] ?? value
        guard allowed.contains(word) else {
            throw UsageError("--\(name): allowed: " + allowed.joined(separator: ", "))
        }
        return word
    }
}
