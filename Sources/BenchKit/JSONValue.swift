// JSONValue: a JSON tree that keeps its order and prints as fio does: two spaces a level, ` : `
// between key and value, floats with six digits.

package enum JSONValue: Equatable, Sendable {
    case integer(Int64)
    case unsigned(UInt64)
    case number(Double)
    case text(String)
    case flag(Bool)
    case array([JSONValue])
    case object([(String, JSONValue)])

    package static func == (left: JSONValue, right: JSONValue) -> Bool {
        left.description == right.description
    }

    package var description: String {
        var out = ""
        write(to: &out, indent: "")
        return out
    }

    /// The value under a key of an object.
    package subscript(_ key: String) -> JSONValue? {
        guard case .object(let members) = self else { return nil }
        return members.first { $0.0 == key }?.1
    }

    /// A number of any kind.
    package var double: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .unsigned(let value): Double(value)
        case .number(let value): value
        default: nil
        }
    }

    private func write(to out: inout String, indent: String) {
        switch self {
        case .integer(let value): out += String(value)
        case .unsigned(let value): out += String(value)
        // JSON has no word for infinity or nothing.
        case .number(let value): out += value.isFinite ? formatted("%f", value) : "0.000000"
        case .flag(let value): out += value ? "true" : "false"
        case .text(let value): Self.quote(value, to: &out)
        case .array(let values):
            Self.list(values.map { ("", $0) }, "[", "]", to: &out, indent: indent)
        case .object(let members):
            Self.list(members, "{", "}", to: &out, indent: indent)
        }
    }

    private static func list(
        _ members: [(String, JSONValue)], _ open: String, _ close: String, to out: inout String,
        indent: String
    ) {
        guard !members.isEmpty else {
            out += open + close
            return
        }
        let deeper = indent + "  "
        out += open + "\n"
        for (index, member) in members.enumerated() {
            out += deeper
            if open == "{" {
                quote(member.0, to: &out)
                out += " : "
            }
            member.1.write(to: &out, indent: deeper)
            out += index + 1 < members.count ? ",\n" : "\n"
        }
        out += indent + close
    }

    private static func quote(_ text: String, to out: inout String) {
        out += "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case "\n": out += "\\n"
            case "\t": out += "\\t"
            case _ where scalar.value < 0x20: out += formatted("\\u%04x", scalar.value)
            default: out.unicodeScalars.append(scalar)
            }
        }
        out += "\""
    }
}
