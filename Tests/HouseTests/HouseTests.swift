// HouseTests: the rules of this house, held by tests: which module may import which, what may not
// stand in the core, how files look, and that links lead somewhere. RuleTests shows that each rule
// catches a planted violation, since a rule that finds nothing may be blind.

import Foundation
import Testing

@Suite("The house")
struct HouseTests {
    private let files: [RepositoryFile]

    init() throws {
        files = try Repository.files()
        try #require(files.count > 50, "the repository was not found at \(Repository.root.path)")
    }

    private var sources: [RepositoryFile] {
        files.filter { $0.isSwift && $0.path.hasPrefix("Sources/") }
    }

    private func expectNone(_ violations: [String]) {
        for violation in violations { Issue.record("\(violation)") }
    }

    @Test func importsRunDownwards() throws {
        expectNone(
            sources.flatMap {
                ImportRules.violations(path: $0.path, module: $0.module ?? "", text: $0.text)
            })
    }

    @Test func everyModuleOfTheCoreIsThere() {
        let modules = Set(sources.compactMap(\.module))
        for module in ImportRules.allowed.keys { #expect(modules.contains(module)) }
    }

    @Test func theCoreKeepsItsBans() throws {
        expectNone(
            try sources.flatMap {
                try CodeRules.violations(path: $0.path, module: $0.module ?? "", text: $0.text)
            })
    }

    @Test func exceptionsNameFilesThatExist() {
        for rule in CodeRules.rules {
            for path in rule.exceptions.keys {
                #expect(Repository.exists(path), "exception for a file that is gone: \(path)")
            }
        }
    }

    @Test func textIsTidy() {
        expectNone(files.flatMap { TextRules.violations(path: $0.path, text: $0.text) })
    }

    @Test func linksLeadSomewhere() {
        let texts = Dictionary(uniqueKeysWithValues: files.map { ($0.path, $0.text) })
        let markdown = files.filter { $0.path.hasSuffix(".md") }
        #expect(markdown.count >= 5)
        expectNone(
            markdown.flatMap { file in
                MarkdownLinks.violations(path: file.path, text: file.text) { path in
                    texts[path] ?? (Repository.exists(path) ? "" : nil)
                }
            })
    }

    @Test func theTopLevelHoldsOnlyWhatBelongsThere() throws {
        let allowed: Set<String> = [
            ".ci", ".gitignore", ".swift-format", "ARCHITECTURE.md", "CHANGELOG.md",
            "CONTRIBUTING.md", "DESIGN.md", "LICENSE", "Makefile", "NOTICE", "Package.swift",
            "README.md", "SECURITY.md", "Sources", "Tests", "bench", "bindings", "docs", "tools",
        ]
        for name in try Repository.topLevel() {
            #expect(allowed.contains(name), "'\(name)' does not belong at the top level")
        }
        let needed = allowed.subtracting(["DESIGN.md", "NOTICE"])
        for name in needed { #expect(Repository.exists(name), "'\(name)' is missing") }
    }

    @Test func scriptsCanBeRun() {
        for file in files where file.text.hasPrefix("#!") {
            let path = Repository.root.appendingPathComponent(file.path).path
            #expect(FileManager.default.isExecutableFile(atPath: path), "\(file.path)")
        }
    }
}
