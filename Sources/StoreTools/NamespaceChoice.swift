// NamespaceChoice: which namespace a person means: its instance number, `field=value` pairs that it
// has, or one of its values. It must be exactly one.

import SegmentFormat

package enum NamespaceChoice {
    package enum Result {
        case one(NamespaceRecord)
        case none
        case several([NamespaceRecord])
    }

    package static func find(_ text: String, among records: [NamespaceRecord]) -> Result {
        if let number = UInt64(text), let found = records.first(where: { $0.instance == number }) {
            return .one(found)
        }
        let words = text.split { $0 == " " || $0 == "," }
        let found = records.filter { record in
            if record.fields.contains(where: { $0.1 == text }) { return true }
            return !words.isEmpty
                && words.allSatisfy { word in
                    record.fields.contains { "\($0.0)=\($0.1)" == word || $0.1 == word }
                }
        }
        if found.count == 1 { return .one(found[0]) }
        return found.isEmpty ? .none : .several(found)
    }

    /// One line of a namespace, to choose by.
    package static func line(_ record: NamespaceRecord) -> String {
        "\(record.instance): " + record.fields.map { "\($0.0)=\($0.1)" }.joined(separator: " ")
    }
}
