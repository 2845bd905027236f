// Finding: one thing that verifying found: which structure, where it lies, which keys it concerns.
// A finding says where to look and nothing of what to do, so that whoever repairs can take a list
// of them as its work.

import LogStore

package struct Finding: Sendable, Equatable {
    /// What is damaged.
    package enum Structure: String, Sendable, CaseIterable {
        case manifest
        case header
        case trailer
        case footer
        case descriptor
        case value
        case shardTable = "shard table"
        case shard
        case checkpoint
        case index
        case file
        case member
    }

    package enum Severity: String, Sendable {
        /// A checksum or structure that does not hold.
        case damage
        /// Worth knowing, and nothing is lost by it.
        case note
    }

    package struct Key: Sendable, Equatable {
        package var namespace: UInt64
        package var bytes: [UInt8]
        package var version: UInt64
    }

    package var structure: Structure
    package var severity = Severity.damage
    /// The file that it lies in.
    package var path: String
    /// Byte range in the file.
    package var offset: UInt64
    package var length: UInt64
    /// The segment's id, nil outside segments.
    package var segment: UInt32?
    package var generation: UInt64 = 0
    package var text: String
    /// Keys that it concerns, as far as they are known; at most `keyLimit` of them.
    package var keys: [Key] = []
    /// All keys that it concerns, told or not.
    package var keyCount = 0

    /// Keys that one finding tells.
    package static let keyLimit = 64

    package init(
        _ structure: Structure, path: String, offset: UInt64, length: UInt64, _ text: String,
        severity: Severity = .damage, segment: UInt32? = nil, generation: UInt64 = 0
    ) {
        self.structure = structure
        self.severity = severity
        self.path = path
        self.offset = offset
        self.length = length
        self.segment = segment
        self.generation = generation
        self.text = text
    }

    package mutating func add(_ key: Key) {
        keyCount += 1
        if keys.count < Self.keyLimit { keys.append(key) }
    }

    /// By place, so that a run's findings come in the same order whatever threads did.
    static func precedes(_ one: Finding, _ other: Finding) -> Bool {
        (one.segment ?? 0, one.path, one.offset, one.structure.rawValue, one.text)
            < (other.segment ?? 0, other.path, other.offset, other.structure.rawValue, other.text)
    }

    /// One line: structure, place, what.
    package var line: String {
        var place = "\(path) at \(offset)"
        if length > 0 { place += "+\(length)" }
        if let segment { place += " (segment \(segment), generation \(generation))" }
        return "\(severity.rawValue): \(structure.rawValue): \(place): \(text)"
    }
}

/// How a key is shown: as text where all of it is printable, else in hexadecimal.
package enum KeyText {
    package static func of(_ bytes: [UInt8]) -> String {
        let printable = !bytes.isEmpty && bytes.allSatisfy { $0 >= 0x21 && $0 < 0x7F }
        // Text that would read as hexadecimal is shown as such, so that what is shown can be asked
        // for.
        if printable && !bytes.starts(with: [0x30, 0x78]) {
            return String(decoding: bytes, as: UTF8.self)
        }
        return "0x" + hex(bytes)
    }

    package static func hex(_ bytes: [UInt8]) -> String {
        let digits = Array("0123456789abcdef".utf8)
        var text: [UInt8] = []
        text.reserveCapacity(2 * bytes.count)
        for byte in bytes {
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        return String(decoding: text, as: UTF8.self)
    }

    /// The bytes that a key given as `0x…` or as text stands for; nil for bad hexadecimal.
    package static func bytes(_ text: String) -> [UInt8]? {
        guard text.hasPrefix("0x") else { return Array(text.utf8) }
        let digits = Array(text.utf8.dropFirst(2))
        guard !digits.isEmpty, digits.count % 2 == 0 else { return nil }
        func value(_ digit: UInt8) -> UInt8? {
            switch digit {
            case 0x30...0x39: digit - 0x30
            case 0x41...0x46: digit - 0x37
            case 0x61...0x66: digit - 0x57
            default: nil
            }
        }
        var made: [UInt8] = []
        for at in stride(from: 0, to: digits.count, by: 2) {
            guard let high = value(digits[at]), let low = value(digits[at + 1]) else { return nil }
            made.append(high << 4 | low)
        }
        return made
    }
}
