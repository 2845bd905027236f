// RepairReport: what repairing a store has done: what was damaged, what was made anew, and which
// blocks are lost, as text for people and as JSON for programs. The JSON's names are part of what
// docs/hearth-tool.md promises.

import SegmentFormat

package struct RepairReport: Sendable {
    /// What was found before anything was changed, and afterwards.
    package var before = VerifyReport()
    package var after = VerifyReport()
    /// The store's id, in hexadecimal.
    package var store = ""
    /// Blocks that are gone: damaged, or with nothing left that tells their keys.
    package var lost: [LostBlock] = []
    /// Blocks that were written anew because something beside them was damaged, and the bytes that
    /// they take on disk.
    package var moved = 0
    package var movedBytes: UInt64 = 0
    /// Segments that were begun anew.
    package var segments = 0
    /// Tombstones and supersedes of which a second copy was written again.
    package var guarded = 0
    /// The store was full before everything had been moved: the rest stays as it was.
    package var isFull = false
    /// Times that the store was opened for it; 0 if nothing was damaged.
    package var rounds = 0
    package init() {}

    /// The store verifies, and nothing was lost on the way.
    package var isWhole: Bool { after.isClean && lost.isEmpty }

    /// Findings of damage that are no more, by structure.
    package var rebuilt: [(structure: Finding.Structure, count: Int)] {
        typealias Rebuilt = (structure: Finding.Structure, count: Int)
        return Finding.Structure.allCases.compactMap { structure -> Rebuilt? in
            let count = before.damage.count { $0.structure == structure }
            let left = after.damage.count { $0.structure == structure }
            return count > left ? (structure, count - left) : nil
        }
    }
}

extension LostBlock {
    /// One line: the key, or where it lay if nothing tells it.
    package var line: String {
        let name = key.map { "key \(KeyText.of($0))" } ?? "a key that nothing tells any more"
        return "lost: \(name), namespace \(namespace), version \(version): "
            + "\(structure.rawValue) in \(path) at \(offset)"
    }

    package var json: JSONText {
        .object([
            ("namespace", .count(namespace)),
            ("key", key.map { .text(KeyText.of($0)) } ?? .null),
            ("hex", key.map { .text(KeyText.hex($0)) } ?? .null), ("version", .count(version)),
            ("structure", .text(structure.rawValue)), ("path", .text(path)),
            ("offset", .count(offset)),
        ])
    }
}

extension RepairReport {
    package var json: JSONText {
        .object([
            ("store", .text(store)), ("clean", .flag(after.isClean)), ("rounds", .count(rounds)),
            ("rebuilt", .object(rebuilt.map { ($0.structure.rawValue, .count($0.count)) })),
            ("lost_blocks", .count(lost.count)), ("lost", .array(lost.map(\.json))),
            ("moved_blocks", .count(moved)), ("moved_bytes", .count(movedBytes)),
            ("renewed_segments", .count(segments)), ("guarded_records", .count(guarded)),
            ("full", .flag(isFull)), ("before", before.json(store: store)),
            ("after", after.json(store: store)),
        ])
    }

    /// What was found, what was done about it, and how the store is now.
    package func text() -> String {
        var out = before.text()
        guard rounds > 0 else { return out + "nothing to repair\n" }
        let parts = rebuilt.map { "\($0.structure.rawValue) \($0.count)" }
        out += "\nrepaired: \(parts.isEmpty ? "nothing" : parts.joined(separator: ", "))\n"
        if segments > 0 {
            out += "begun anew: \(segments) segments; moved out of them: \(moved) blocks, "
            out += "\(Figures.size(movedBytes))\n"
        }
        if guarded > 0 { out += "written a second time again: \(guarded) tombstones\n" }
        for block in lost { out += block.line + "\n" }
        out += lost.isEmpty ? "lost: nothing\n" : "lost: \(lost.count) blocks in all\n"
        if isFull {
            out += "full: what could not be moved stays as it was; delete something, or run "
            out += "hearth compact --order none, and repair again\n"
        }
        return out + "\n" + after.text()
    }
}
