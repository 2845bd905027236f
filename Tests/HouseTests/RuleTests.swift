// RuleTests: planted violations that each rule must find, and innocent text that it must let pass.

import Testing

@Suite("The rules of the house see")
struct RuleTests {
    @Test(arguments: [
        ("LogStore", "import Foundation"),
        ("LogStore", "import Staging"),
        ("SegmentFormat", "import BlockIO"),
        ("BlockIO", "@preconcurrency import Dispatch"),
        ("Staging", "import struct Foundation.Date"),
        ("SimulatedDisk", "@testable import LogStore"),
        ("Hearth", "package import Foundation"),
        ("Unknown", "let x = 1"),
    ])
    func aForbiddenImport(module: String, text: String) {
        #expect(!ImportRules.violations(path: "x", module: module, text: text).isEmpty)
    }

    @Test func allowedImports() {
        let text =
            "// import Foundation\nimport Glibc\npackage import BlockIO\nlet s = \"import X\"\n"
        #expect(ImportRules.violations(path: "x", module: "LogStore", text: text).isEmpty)
    }

    @Test(arguments: [
        "func f() async {}", "await g()", "actor A {}", "Task { }", "let d = Date()",
        "clock_gettime(CLOCK_MONOTONIC, &t)", "Int.random(in: 0..<5)", "list.shuffled()",
        "var g = SystemRandomNumberGenerator()", "try! f()", "fatalError(\"no\")",
        "DispatchQueue.main", "public struct S {}", "getrandom(p, 8, 0)", "time(nil)",
        "Task.yield()",
    ])
    func aForbiddenWord(text: String) throws {
        #expect(try CodeRules.violations(path: "x", module: "LogStore", text: text).count == 1)
    }

    @Test(arguments: [
        "// async, await, fatalError", "let s = \"Date() and try! here\"", "let asyncness = 1",
        "case .random(let seed):", "/* actor /* Task */ await */ let x = 1",
        "let raw = #\"a \"quoted\" await\"#", "list.shuffle(using: &random)", "clock.monotonic",
        "let text = \"\"\"\n  public Task\n  \"\"\"\nlet x = 1", "try f()",
    ])
    func innocentCode(text: String) throws {
        #expect(try CodeRules.violations(path: "x", module: "LogStore", text: text).isEmpty)
    }

    @Test func codeAfterALiteralIsSeen() throws {
        let text = "let s = \"a \\\" b\"; try! f()\nlet m = \"\"\"\n x\n \"\"\"; fatalError()\n"
        #expect(try CodeRules.violations(path: "x", module: "LogStore", text: text).count == 2)
    }

    @Test func whatOnlyTheCoreMayNot() throws {
        let text = "public func f() async { await g() }"
        #expect(try CodeRules.violations(path: "x", module: "Hearth", text: text).isEmpty)
    }

    @Test func aStaleException() throws {
        let path = try #require(
            CodeRules.rules.flatMap { $0.exceptions.keys }.first { $0.contains("SimulatedDisk") })
        let found = try CodeRules.violations(path: path, module: "SimulatedDisk", text: "let x = 1")
        #expect(found.count == 1)
    }

    private static let header = "// Thing: a file that says what it is.\n"

    @Test func untidyText() {
        let undone = "TO" + "DO"
        let cases = [
            ("a.md", String(repeating: "x", count: 121) + "\n"),
            ("a.md", "text \n"),
            ("a.md", "no line end"),
            ("a.py", "# \(undone): later\n"),
            ("A.swift", "import Glibc\n"),
            ("A.swift", Self.header + String(repeating: "//\n", count: 700)),
        ]
        for (path, text) in cases {
            #expect(TextRules.violations(path: path, text: text).count == 1, "\(path): \(text)")
        }
    }

    @Test func tidyText() {
        let text =
            Self.header + "// https://example.org/" + String(repeating: "x", count: 100)
            + "\n" + String(repeating: "é", count: 100) + "\n"
        #expect(TextRules.violations(path: "A.swift", text: text).isEmpty)
        let table = "| " + String(repeating: "x", count: 100) + " |\n"
        #expect(TextRules.violations(path: "a.md", text: table).isEmpty)
    }

    @Test func brokenLinks() {
        let texts = ["docs/B.md": "# A title, here\n", "README.md": "x"]
        func found(_ text: String) -> Int {
            MarkdownLinks.violations(path: "docs/A.md", text: text) { texts[$0] }.count
        }
        #expect(found("[b](B.md) [r](../README.md) [t](B.md#a-title-here)\n") == 0)
        #expect(found("[e](https://x.org/none) `[code](no.md)`\n```\n[c](no.md)\n```\n") == 0)
        #expect(found("# Own\n[own](#own)\n") == 0)
        #expect(found("[no](C.md)\n") == 1)
        #expect(found("[no](B.md#other) and [out](../../x)\n") == 2)
    }
}
