// MarkdownLinks: the links of a Markdown file to files of this repository and to headings, as
// GitHub names them. Links elsewhere are nobody's to check without a network.

enum MarkdownLinks {
    struct Link {
        let line: Int
        let target: String
    }

    /// `[text](target)` and `![text](target)` outside of code.
    static func links(in text: String) -> [Link] {
        var found: [Link] = []
        for (index, line) in prose(text).enumerated() {
            var rest = line[...]
            while let open = rest.range(of: "](") {
                rest = rest[open.upperBound...]
                guard let close = rest.firstIndex(of: ")") else { break }
                let target = rest[..<close].split(separator: " ").first ?? ""
                found.append(Link(line: index + 1, target: String(target)))
                rest = rest[rest.index(after: close)...]
            }
        }
        return found
    }

    /// The names under which a file's headings can be reached.
    static func anchors(in text: String) -> Set<String> {
        var found: Set<String> = []
        for line in prose(text, keepsCode: true) where line.hasPrefix("#") {
            let title = line.drop { $0 == "#" }
            guard title.first == " " else { continue }
            var slug = ""
            for character in title.dropFirst().lowercased() {
                if character.isLetter || character.isNumber || "-_".contains(character) {
                    slug.append(character)
                } else if character == " " {
                    slug.append("-")
                }
            }
            var unique = slug
            var count = 0
            while !found.insert(unique).inserted {
                count += 1
                unique = "\(slug)-\(count)"
            }
        }
        return found
    }

    /// The lines, those of fenced code emptied and spans of code cut out.
    private static func prose(_ text: String, keepsCode: Bool = false) -> [String] {
        var fenced = false
        return text.split(separator: "\n", omittingEmptySubsequences: false).map { line in
            let trimmed = line.drop { $0 == " " }
            if trimmed.hasPrefix("```") || trimmed.hasPrefix("~~~") {
                fenced.toggle()
                return ""
            }
            if fenced { return "" }
            if keepsCode { return String(line) }
            let parts = line.split(separator: "`", omittingEmptySubsequences: false)
            return parts.enumerated().filter { $0.offset % 2 == 0 }.map { String($0.element) }
                .joined(separator: " ")
        }
    }

    /// A relative target as a path from the root; nil when it leads out of the repository.
    static func resolve(_ target: String, from path: String) -> String? {
        var parts =
            target.hasPrefix("/") ? [] : path.split(separator: "/").dropLast().map(String.init)
        for part in target.split(separator: "/") {
            if part == "." { continue }
            if part == ".." {
                guard !parts.isEmpty else { return nil }
                parts.removeLast()
            } else {
                parts.append(String(part))
            }
        }
        return parts.joined(separator: "/")
    }

    static func isElsewhere(_ target: String) -> Bool {
        target.contains("://") || target.hasPrefix("mailto:") || target.hasPrefix("doc:")
    }

    /// `text(of:)` gives the text of a file by path, nil where there is none; a folder is "".
    static func violations(
        path: String, text: String, textOf: (String) -> String?
    ) -> [String] {
        links(in: text).compactMap { link in
            if isElsewhere(link.target) { return nil }
            let parts = link.target.split(
                separator: "#", maxSplits: 1, omittingEmptySubsequences: false)
            let place = "\(path):\(link.line)"
            var target = text
            if let file = parts.first, !file.isEmpty {
                guard let resolved = resolve(String(file), from: path), let there = textOf(resolved)
                else { return "\(place): no file at '\(link.target)'" }
                target = there
            }
            guard parts.count == 2, !anchors(in: target).contains(String(parts[1])) else {
                return nil
            }
            return "\(place): no heading for '\(link.target)'"
        }
    }
}
