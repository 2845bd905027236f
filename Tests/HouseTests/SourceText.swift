// SourceText: a Swift source with its comments and the contents of its string literals blanked out,
// so that a rule about code is not upset by prose. Lines keep their numbers and columns.
//
// What stands in an interpolation is blanked with its literal: rules see a little less code there,
// never more.

struct SourceText {
    /// The code alone, by line.
    let lines: [Substring]

    init(_ text: String) {
        var blanker = Blanker(Array(text.unicodeScalars))
        blanker.run()
        var code = String.UnicodeScalarView()
        code.append(contentsOf: blanker.scalars)
        lines = String(code).split(separator: "\n", omittingEmptySubsequences: false)
    }
}

private struct Blanker {
    var scalars: [Unicode.Scalar]
    private var position = 0

    init(_ scalars: [Unicode.Scalar]) { self.scalars = scalars }

    private func starts(_ text: String, at place: Int) -> Bool {
        var place = place
        for scalar in text.unicodeScalars {
            guard place < scalars.count, scalars[place] == scalar else { return false }
            place += 1
        }
        return true
    }

    /// Blanks `count` scalars from here on, but line ends.
    private mutating func blank(_ count: Int = 1) {
        for _ in 0..<count where position < scalars.count {
            if scalars[position] != "\n" { scalars[position] = " " }
            position += 1
        }
    }

    mutating func run() {
        while position < scalars.count {
            if starts("//", at: position) {
                while position < scalars.count, scalars[position] != "\n" { blank() }
            } else if starts("/*", at: position) {
                blockComment()
            } else if let pounds = literalStart() {
                literal(pounds: pounds)
            } else {
                position += 1
            }
        }
    }

    /// Comments nest in Swift.
    private mutating func blockComment() {
        var depth = 0
        while position < scalars.count {
            if starts("/*", at: position) {
                depth += 1
                blank(2)
            } else if starts("*/", at: position) {
                depth -= 1
                blank(2)
                if depth == 0 { return }
            } else {
                blank()
            }
        }
    }

    /// The number of pounds of a literal that starts here; nil for none.
    private func literalStart() -> Int? {
        var place = position
        while place < scalars.count, scalars[place] == "#" { place += 1 }
        return starts("\"", at: place) ? place - position : nil
    }

    private mutating func literal(pounds: Int) {
        let tail = String(repeating: "#", count: pounds)
        let multiline = starts("\"\"\"", at: position + pounds)
        let quote = multiline ? "\"\"\"" : "\""
        blank(pounds + quote.unicodeScalars.count)
        while position < scalars.count {
            if starts("\\" + tail, at: position) {
                blank(2 + pounds)
            } else if starts(quote + tail, at: position) {
                blank(quote.unicodeScalars.count + pounds)
                return
            } else if !multiline, scalars[position] == "\n" {
                return
            } else {
                blank()
            }
        }
    }
}
