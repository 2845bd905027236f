// JSONText: a JSON document that keeps its order, for what the tools print to programs. Numbers of
// 64 bits are printed whole; text is escaped so that any bytes of a key or a path make valid JSON.

package indirect enum JSONText: Sendable {
    case null
    case flag(Bool)
    case count(UInt64)
    case integer(Int64)
    case number(Double)
    case text(String)
    case array([JSONText])
    case object([(String, JSONText)])
    /// A document that is text already.
    case raw(String)

    package static func count(_ value: Int) -> JSONText { .integer(Int64(value)) }

    package var description: String {
        var out = ""
        write(&out, "")
        return out + "\n"
    }

    private func write(_ out: inout String, _ indent: String) {
        switch self {
        case .null: out += "null"
        case .flag(let value): out += value ? "true" : "false"
        case .count(let value): out += String(value)
        case .integer(let value): out += String(value)
        // JSON has no word for infinity or nothing.
        case .number(let value): out += value.isFinite ? String(value) : "0"
        case .text(let value): Self.quote(value, &out)
        case .raw(let text): out += text
        case .array(let values):
            Self.list(values.map { (nil, $0) }, "[", "]", &out, indent)
        case .object(let members):
            Self.list(members.map { ($0.0, $0.1) }, "{", "}", &out, indent)
        }
    }

    private static func list(
        _ members: [(String?, JSONText)], _ open: String, _ close: String, _ out: inout String,
        _ indent: String
    ) {
        guard !members.isEmpty else {
            out += open + close
            return
        }
        let deeper = indent + "  "
        out += open
        for (number, member) in members.enumerated() {
            out += number == 0 ? "\n" : ",\n"
            out += deeper
            if let name = member.0 {
                quote(name, &out)
                out += ": "
            }
            member.1.write(&out, deeper)
        }
        out += "\n" + indent + close
    }

    private static func quote(_ text: String, _ out: inout String) {
        out += "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case "\n": out += "\\n"
            case "\t": out += "\\t"
            case _ where scalar.value < 0x20 || scalar.value == 0x7F:
                out += "\\u" + Figures.padded(String(scalar.value, radix: 16), 4, with: "0")
            default: out.unicodeScalars.append(scalar)
            }
        }
        out += "\""
    }
}
