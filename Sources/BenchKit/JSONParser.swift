// JSONParser: reads a JSON document into the tree that the reports are made of. For what our own
// programs print; nesting is bounded, and anything that is not JSON is nil.

extension JSONValue {
    package init?(parsing text: String) {
        var parser = JSONParser(Array(text.utf8))
        guard let value = parser.value(depth: 0), parser.isAtEnd else { return nil }
        self = value
    }
}

private struct JSONParser {
    private let bytes: [UInt8]
    private var at = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    private static let deepest = 64

    var isAtEnd: Bool {
        mutating get {
            skipSpace()
            return at == bytes.count
        }
    }

    private mutating func skipSpace() {
        while at < bytes.count, [0x20, 0x0A, 0x0D, 0x09].contains(bytes[at]) { at += 1 }
    }

    private mutating func take(_ character: Character) -> Bool {
        skipSpace()
        guard at < bytes.count, bytes[at] == character.asciiValue else { return false }
        at += 1
        return true
    }

    private mutating func word(_ text: String) -> Bool {
        let wanted = Array(text.utf8)
        guard bytes[at...].starts(with: wanted) else { return false }
        at += wanted.count
        return true
    }

    mutating func value(depth: Int) -> JSONValue? {
        skipSpace()
        guard depth < Self.deepest, at < bytes.count else { return nil }
        switch bytes[at] {
        case UInt8(ascii: "{"): return object(depth)
        case UInt8(ascii: "["): return array(depth)
        case UInt8(ascii: "\""): return string().map(JSONValue.text)
        case UInt8(ascii: "t"): return word("true") ? .flag(true) : nil
        case UInt8(ascii: "f"): return word("false") ? .flag(false) : nil
        default: return number()
        }
    }

    private mutating func object(_ depth: Int) -> JSONValue? {
        at += 1
        var members: [(String, JSONValue)] = []
        if take("}") { return .object([]) }
        repeat {
            skipSpace()
            guard at < bytes.count, bytes[at] == UInt8(ascii: "\""), let name = string(),
                take(":"), let member = value(depth: depth + 1)
            else { return nil }
            members.append((name, member))
        } while take(",")
        return take("}") ? .object(members) : nil
    }

    private mutating func array(_ depth: Int) -> JSONValue? {
        at += 1
        var elements: [JSONValue] = []
        if take("]") { return .array([]) }
        repeat {
            guard let element = value(depth: depth + 1) else { return nil }
            elements.append(element)
        } while take(",")
        return take("]") ? .array(elements) : nil
    }

    private mutating func string() -> String? {
        at += 1
        var text: [UInt8] = []
        while at < bytes.count {
            let byte = bytes[at]
            at += 1
            if byte == UInt8(ascii: "\"") { return String(decoding: text, as: UTF8.self) }
            guard byte == UInt8(ascii: "\\") else {
                text.append(byte)
                continue
            }
            guard at < bytes.count else { return nil }
            let escape = bytes[at]
            at += 1
            switch escape {
            case UInt8(ascii: "n"): text.append(0x0A)
            case UInt8(ascii: "t"): text.append(0x09)
            case UInt8(ascii: "r"): text.append(0x0D)
            case UInt8(ascii: "u"):
                guard at + 4 <= bytes.count,
                    let code = UInt32(
                        String(decoding: bytes[at..<at + 4], as: UTF8.self), radix: 16),
                    let scalar = Unicode.Scalar(code)
                else { return nil }
                at += 4
                text.append(contentsOf: String(Character(scalar)).utf8)
            default: text.append(escape)
            }
        }
        return nil
    }

    private mutating func number() -> JSONValue? {
        let start = at
        while at < bytes.count, "+-.eE0123456789".utf8.contains(bytes[at]) { at += 1 }
        let text = String(decoding: bytes[start..<at], as: UTF8.self)
        if let count = UInt64(text) { return .unsigned(count) }
        if let count = Int64(text) { return .integer(count) }
        return Double(text).map(JSONValue.number)
    }
}
