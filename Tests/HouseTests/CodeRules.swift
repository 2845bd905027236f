// CodeRules: words that may not stand in code, each with the reason. An exception names a file and
// says why; one that is no longer needed is a violation itself, so that the list cannot go stale.

struct CodeRule: Sendable {
    let pattern: String
    let reason: String
    /// Nil: every module under Sources.
    var modules: Set<String>?
    /// Path to reason.
    var exceptions: [String: String] = [:]
}

enum CodeRules {
    static let rules: [CodeRule] = [
        CodeRule(
            pattern: #"\b(async|await|actor|Task|TaskGroup|AsyncStream|MainActor)\b"#,
            reason: "the core is a pumped state machine; concurrency lives in Hearth",
            modules: ImportRules.core),
        CodeRule(
            pattern: #"\b(Dispatch\w*|DispatchQueue|NSLock|pthread_rwlock_\w+)\b"#,
            reason: "the core has one owner thread", modules: ImportRules.core),
        CodeRule(
            pattern: #"\b(Date\s*\(|ContinuousClock|SuspendingClock|gettimeofday|ftime\b)"#,
            reason: "time comes from Clock", modules: ImportRules.core),
        CodeRule(
            pattern: #"\b(clock_gettime|CLOCK_REALTIME|time\s*\(\s*(nil|&))"#,
            reason: "time comes from Clock; only SystemClock and the drivers may ask the system",
            modules: ["SegmentFormat", "SimulatedDisk", "LogStore", "Staging"],
            exceptions: [
                "Sources/SimulatedDisk/SimulatedDriver.swift":
                    "bounds a real sleep of the owner thread; virtual time does not see it"
            ]),
        CodeRule(
            pattern: #"\bSystemRandomNumberGenerator\b|\.random\s*\(\s*in\b|\.randomElement\s*\("#
                + #"|\.shuffled?\s*\(\s*\)|\b(getrandom|getentropy|arc4random\w*|drand48)\b"#,
            reason: "one seed replays one run: randomness comes from outside",
            modules: ImportRules.core),
        CodeRule(
            pattern: #"\btry!"#, reason: "an error is handled or passed on, never a trap"),
        CodeRule(
            pattern: #"\bfatalError\b"#,
            reason: "a programmer's error is a precondition, an operating error is thrown"),
        CodeRule(
            pattern: #"\bpublic\b|\bopen\s+(class|func|var)\b"#,
            reason: "only Hearth is public; the modules below are for this package",
            modules: ImportRules.core),
    ]

    static func violations(
        path: String, module: String, text: String
    ) throws -> [String] {
        let source = SourceText(text)
        var found: [String] = []
        for rule in rules {
            if let modules = rule.modules, !modules.contains(module) { continue }
            let lines = try matches(rule, source)
            if rule.exceptions[path] != nil {
                if lines.isEmpty {
                    found.append("\(path): the exception from '\(rule.reason)' is not needed")
                }
                continue
            }
            found += lines.map { "\(path):\($0.line): '\($0.text)': \(rule.reason)" }
        }
        return found
    }

    private static func matches(
        _ rule: CodeRule, _ source: SourceText
    ) throws -> [(line: Int, text: Substring)] {
        // Simple boundaries: by Unicode's, `Task.sleep` is one word.
        let expression = try Regex(rule.pattern).wordBoundaryKind(.simple)
        return source.lines.enumerated().compactMap { index, line in
            guard let match = line.firstMatch(of: expression) else { return nil }
            return (index + 1, line[match.range])
        }
    }
}
