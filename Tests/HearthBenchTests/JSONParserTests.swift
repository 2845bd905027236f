// Reading back what the reports print, and the interval of a median.

import BenchKit
import Testing

@Suite("JSON and intervals")
struct JSONParserTests {
    @Test("What is printed is read back")
    func roundTrip() {
        let tree = JSONValue.object([
            ("a", .unsigned(UInt64.max)), ("b", .integer(-3)), ("c", .number(1.5)),
            ("d", .array([.flag(true), .flag(false), .text("q\"\\\n\t\u{1}é")])),
            ("e", .object([])), ("f", .array([])),
        ])
        #expect(JSONValue(parsing: tree.description) == tree)
    }

    @Test("What is no JSON is nil", arguments: [
        "", "{", "[1,]", "{\"a\"}", "{\"a\":1}x", "tru", "\"open", "{1:2}", "\"\\u12\"", "-", "[1 2]",
        String(repeating: "[", count: 10_000),
    ])
    func refuses(text: String) { #expect(JSONValue(parsing: text) == nil) }

    @Test("The interval holds the median and narrows with the spread")
    func interval() {
        let wide = Bootstrap.interval((0..<40).map { 1 + Double($0 % 8) / 10 })
        #expect(wide.low <= wide.median && wide.median <= wide.high && wide.low < wide.high)
        let narrow = Bootstrap.interval((0..<40).map { 1 + Double($0 % 8) / 1000 })
        #expect(narrow.high - narrow.low < wide.high - wide.low)
        #expect(Bootstrap.interval([2]) == Interval(median: 2, low: 2, high: 2))
        #expect(Bootstrap.median([3, 1, 2]) == 2 && Bootstrap.median([4, 1]) == 2.5)
    }
}
