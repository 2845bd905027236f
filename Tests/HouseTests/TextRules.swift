// TextRules: what every written file keeps to, code or prose: 100 columns, no note of work left
// undone, no blanks at a line's end; a Swift file opens by saying what it is and stays short.

enum TextRules {
    static let columns = 100
    static let fileLines = 700

    /// Files whose lines are somebody else's or generated.
    static func isFree(_ path: String) -> Bool {
        path == "LICENSE" || path.contains("/Golden/") || path.hasSuffix(".jsonl")
            || path.hasSuffix(".json") || path.hasSuffix(".hex") || path.hasSuffix(".patch")
    }

    // Written apart, so that this file keeps its own rule.
    static let undone = ["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]

    static func violations(path: String, text: String) -> [String] {
        if isFree(path) { return [] }
        var found: [String] = []
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        for (index, line) in lines.enumerated() {
            let place = "\(path):\(index + 1)"
            // An address cannot be broken, nor can a row of a table; prose may be a little wider.
            let most = path.hasSuffix(".md") ? columns + 20 : columns
            let isTable = path.hasSuffix(".md") && line.hasPrefix("|")
            if line.count > most, !line.contains("://"), !isTable {
                found.append("\(place): \(line.count) columns, at most \(most)")
            }
            if line.last == " " || line.last == "\t" || line.last == "\r" {
                found.append("\(place): blanks at the end of the line")
            }
            for word in undone where contains(line, word: word) {
                found.append("\(place): \(word): do it, or write an issue")
            }
        }
        if !text.isEmpty, !text.hasSuffix("\n") { found.append("\(path): no line end at the end") }
        if path.hasSuffix(".swift") { found += swiftViolations(path: path, lines: lines) }
        return found
    }

    private static func swiftViolations(path: String, lines: [Substring]) -> [String] {
        var found: [String] = []
        let count = lines.last?.isEmpty == true ? lines.count - 1 : lines.count
        if count > fileLines { found.append("\(path): \(count) lines, at most \(fileLines)") }
        let header = lines.prefix { $0.hasPrefix("//") }
            .filter { !$0.hasPrefix("// swift-tools-version") }
        let prose = header.joined(separator: " ").split(separator: " ").filter { $0 != "//" }
        if prose.count < 5, path != "Package.swift" {
            found.append("\(path): does not open with a comment that says what it is")
        }
        return found
    }

    private static func contains(_ line: Substring, word: String) -> Bool {
        line.split { !$0.isLetter && !$0.isNumber && $0 != "_" }.contains { $0 == word }
    }
}
