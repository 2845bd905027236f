// ImportRules: which module may import which. Imports run downwards only, and what the core links
// is liburing and ISA-L: a module that is not listed for another one may not be imported there.

enum ImportRules {
    /// Part of the platform, not of the layering.
    static let platform: Set<String> = ["Glibc", "Synchronization"]

    /// The modules that hold the store's state machine: no Foundation, no async, no wall time.
    static let core: Set<String> = [
        "SegmentFormat", "BlockIO", "SimulatedDisk", "LogStore", "Staging", "Heat", "Prefetch",
        "Tiering",
    ]

    static let allowed: [String: Set<String>] = [
        "SegmentFormat": ["CISAL"],
        "BlockIO": ["CLiburing", "CPlatform"],
        "SimulatedDisk": ["BlockIO", "CPlatform"],
        "LogStore": ["SegmentFormat", "BlockIO", "CPlatform"],
        "Staging": ["LogStore", "BlockIO", "SegmentFormat"],
        "Heat": ["Staging", "LogStore", "SegmentFormat"],
        "Prefetch": ["Heat", "Staging", "LogStore", "BlockIO", "SegmentFormat"],
        "Tiering": ["Prefetch", "Heat", "Staging", "LogStore", "BlockIO", "SegmentFormat"],
        "Hearth": [
            "Tiering", "Prefetch", "Heat", "Staging", "LogStore", "BlockIO", "SegmentFormat",
        ],
        "BenchKit": ["Heat", "Staging", "BlockIO", "SegmentFormat", "CPlatform", "CZlib"],
        "StoreTools": ["Staging", "LogStore", "BlockIO", "SegmentFormat"],
        "hearth-cli": ["StoreTools", "LogStore", "BlockIO", "SegmentFormat", "ArgumentParser"],
        "HearthABI": [
            "CHearth", "CPlatform", "Hearth", "Tiering", "Staging", "LogStore", "BlockIO",
        ],
        "hearth-bench": [
            "Hearth", "HearthABI", "CHearth", "BenchKit", "StoreTools", "Tiering", "Prefetch",
            "Heat", "Staging", "LogStore", "BlockIO", "SimulatedDisk", "SegmentFormat",
            "CPlatform", "ArgumentParser", "CMeasure", "Dispatch",
        ],
    ]

    /// The modules that a source imports, with line numbers.
    static func imports(of source: SourceText) -> [(line: Int, module: String)] {
        let kinds: Set<Substring> = [
            "struct", "class", "enum", "protocol", "func", "var", "let", "typealias",
        ]
        var found: [(Int, String)] = []
        for (index, line) in source.lines.enumerated() {
            var words = line.split { $0 == " " || $0 == "\t" || $0 == ";" }[...]
            // Attributes and access levels come before the word, a kind may come after it.
            while let word = words.first, word != "import" {
                let access = ["public", "package", "internal", "fileprivate", "private"]
                guard word.hasPrefix("@") || access.contains(String(word)) else { break }
                words.removeFirst()
            }
            guard words.first == "import" else { continue }
            words.removeFirst()
            if let word = words.first, kinds.contains(word) { words.removeFirst() }
            guard let name = words.first else { continue }
            found.append((index + 1, String(name.split(separator: ".")[0])))
        }
        return found
    }

    static func violations(path: String, module: String, text: String) -> [String] {
        guard let allowed = allowed[module] else {
            return ["\(path): module \(module) has no import rule; add it to ImportRules"]
        }
        return imports(of: SourceText(text)).compactMap { line, name in
            allowed.contains(name) || platform.contains(name)
                ? nil : "\(path):\(line): \(module) may not import \(name)"
        }
    }
}
