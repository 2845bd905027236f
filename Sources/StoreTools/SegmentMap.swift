// SegmentMap: a page of HTML with a map of a store's segments, one square each: by live share, and
// by age. It stands alone: its styles and drawings are in it, and it asks for nothing from
// elsewhere.

import LogStore
import SegmentFormat

package enum SegmentMap {
    private static let cell = 14
    private static let columns = 64

    package static func html(_ summary: StoreSummary) -> String {
        let manifest = summary.manifest
        let title = "Hearth store \(Figures.identity(manifest.store))"
        var out = """
            <!DOCTYPE html>
            <html lang="en">
            <head>
            <meta charset="utf-8">
            <title>\(escaped(title))</title>
            <style>
            body { font: 14px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 960px;
                   padding: 0 1em; color: #1b1f24; background: #fff; }
            h1 { font-size: 1.3em; } h2 { font-size: 1.05em; margin-top: 1.8em; }
            table { border-collapse: collapse; margin: .6em 0; }
            td, th { padding: .15em .9em .15em 0; text-align: right; }
            td:first-child, th:first-child { text-align: left; }
            svg { display: block; margin: .5em 0; } rect.s { stroke: #fff; stroke-width: 1; }
            .bar { display: flex; height: 18px; margin: .6em 0; } .bar i { display: block; }
            small { color: #57606a; }
            @media (prefers-color-scheme: dark) {
              body { color: #e6edf3; background: #0d1117; } rect.s { stroke: #0d1117; }
              small { color: #8b949e; } }
            </style>
            </head>
            <body>
            <h1>\(escaped(title))</h1>

            """
        out += "<p>\(manifest.mode == StoreMode.store.rawValue ? "Store" : "Cache") mode, "
        out += "\(Figures.size(manifest.capacityBytes)) in \(summary.segments.count) segments of "
        out += "\(Figures.size(manifest.segmentBytes)); \(summary.blocks) blocks, "
        out += "\(Figures.size(summary.valueBytes)) of values.</p>\n"
        out += space(summary)
        out += "<h2>Live share</h2>\n"
        out += "<p><small>Each square is a segment, by number, member by member; white holds "
        out += "nothing alive, dark blue nothing dead. Outlines: grey not made, green clean, "
        out += "orange open.</small></p>\n"
        out += map(summary) { shade($0, summary.liveShare($0)) }
        out += "<h2>Age by generation</h2>\n"
        out += "<p><small>Dark red is the life begun last, pale the oldest.</small></p>\n"
        let oldest = summary.segments.map { summary.age($0) }.max() ?? 0
        out += map(summary) { info in
            guard info.generation != 0 else { return nil }
            let young = oldest == 0 ? 1 : 1 - Double(summary.age(info)) / Double(oldest)
            return mix((253, 224, 210), (152, 20, 28), young)
        }
        out += namespaces(summary)
        return out + "</body>\n</html>\n"
    }

    private static func space(_ summary: StoreSummary) -> String {
        let space = summary.space
        let parts: [(String, UInt64, String)] = [
            ("live", space.live, "#0b5cad"), ("dead", space.dead, "#a8c7e8"),
            ("free", space.free, "#d8dee4"), ("open", space.open, "#f2b25c"),
            ("metadata", space.metadata, "#8a63c9"), ("reserve", space.reserve, "#b7bdc5"),
            ("quarantined", space.quarantined, "#cf3f3f"),
        ]
        var out = "<h2>Space</h2>\n<div class=\"bar\">"
        for (name, bytes, color) in parts where bytes > 0 {
            let share = Double(bytes) / Double(max(1, space.capacity)) * 100
            out += "<i title=\"\(name): \(Figures.size(bytes))\" style=\"width:"
            out += "\(Figures.decimal(share, 3))%;background:\(color)\"></i>"
        }
        out += "</div>\n<table>\n"
        for (name, bytes, color) in parts {
            out += "<tr><td><span style=\"color:\(color)\">&#9632;</span> \(name)</td><td>"
            out += "\(Figures.size(bytes))</td><td>"
            out += "\(Figures.percent(bytes, of: space.capacity))</td></tr>\n"
        }
        return out + "</table>\n"
    }

    private static func map(
        _ summary: StoreSummary, _ color: (SegmentInfo) -> String?
    ) -> String {
        var out = ""
        for member in summary.members {
            let own = summary.segments.filter { SegmentTable.device($0.id) == member.index }
            guard !own.isEmpty else { continue }
            let rows = (own.count + columns - 1) / columns
            out += "<p><small>member \(member.index) \(escaped(member.path))</small></p>\n"
            out += "<svg width=\"\(columns * cell)\" height=\"\(rows * cell)\" role=\"img\">\n"
            for (number, info) in own.enumerated() {
                let x = number % columns * cell
                let y = number / columns * cell
                out += "<rect class=\"s\" x=\"\(x)\" y=\"\(y)\" width=\"\(cell)\""
                out += " height=\"\(cell)\""
                out += " fill=\"\(color(info) ?? "#eceff2")\"\(outline(info))><title>"
                out += "segment \(info.id): \(info.state.rawValue), generation \(info.generation), "
                out += "age \(summary.age(info)), \(info.liveBlocks) live blocks, "
                out += "\(Figures.decimal(100 * summary.liveShare(info), 1)) % live"
                out += "</title></rect>\n"
            }
            out += "</svg>\n"
        }
        return out
    }

    private static func outline(_ info: SegmentInfo) -> String {
        switch info.state {
        case .open: " style=\"stroke:#f2952c;stroke-width:2\""
        case .clean: " style=\"stroke:#3f9c55\""
        case .unusable: " style=\"stroke:#cf3f3f;stroke-width:2\""
        case .uncreated, .absent: " style=\"stroke:#c9d1d9\""
        case .sealed: ""
        }
    }

    private static func shade(_ info: SegmentInfo, _ share: Double) -> String? {
        switch info.state {
        case .uncreated, .absent: nil
        case .clean: "#ffffff"
        case .open, .sealed, .unusable: mix((255, 255, 255), (8, 69, 148), share)
        }
    }

    private static func mix(
        _ one: (Int, Int, Int), _ other: (Int, Int, Int), _ share: Double
    ) -> String {
        let part = max(0, min(1, share))
        func channel(_ from: Int, _ to: Int) -> Int { from + Int(Double(to - from) * part) }
        return "rgb(\(channel(one.0, other.0)),\(channel(one.1, other.1)),"
            + "\(channel(one.2, other.2)))"
    }

    private static func namespaces(_ summary: StoreSummary) -> String {
        guard !summary.spaces.isEmpty else { return "" }
        var out = "<h2>Namespaces</h2>\n<table>\n<tr><th>fields</th><th>instance</th>"
        out += "<th>blocks</th><th>bytes</th><th>expired</th></tr>\n"
        for space in summary.spaces {
            out += "<tr><td>\(escaped(space.name))</td><td>\(space.record.instance)</td><td>"
            out += "\(space.blocks)</td><td>\(Figures.size(space.bytes))</td><td>"
            out += "\(space.expired)</td></tr>\n"
        }
        return out + "</table>\n"
    }

    private static func escaped(_ text: String) -> String {
        var out = ""
        for character in text.unicodeScalars {
            switch character {
            case "&": out += "&amp;"
            case "<": out += "&lt;"
            case ">": out += "&gt;"
            case "\"": out += "&quot;"
            default: out.unicodeScalars.append(character)
            }
        }
        return out
    }
}
