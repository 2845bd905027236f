// RigJournal: what a child did, in order, in a file outside the file system under test, each note
// with how many writes the device below had taken by then; and what may be found, by that, on the
// device as it was after some prefix of its writes.

import Glibc
import Synchronization

final class RigJournal {
    private enum Kind: UInt64 {
        case intent
        case end
        /// The operation had no effect.
        case nothing
    }

    private static let recordBytes = 32
    private let descriptor: Int32
    private let counter: UnsafeMutablePointer<Atomic<UInt64>>?

    /// Opens or makes the journal. `counter` is the file in which the device counts what it took;
    /// nil for reading only.
    init?(path: String, counter name: String?) {
        descriptor = open(path, name == nil ? O_RDONLY : O_RDWR | O_CREAT | O_APPEND, 0o600)
        guard descriptor >= 0 else { return nil }
        guard let name else {
            counter = nil
            return
        }
        let file = open(name, O_RDWR)
        defer { Glibc.close(file) }
        let page = mmap(nil, 4096, PROT_READ, MAP_SHARED, file, 0)
        guard file >= 0, let page, page != UnsafeMutableRawPointer(bitPattern: -1) else {
            return nil
        }
        counter = page.bindMemory(to: Atomic<UInt64>.self, capacity: 1)
    }

    deinit { Glibc.close(descriptor) }

    private func note(_ kind: Kind, _ key: Int, _ note: KeyNote) {
        let stamp = counter?.pointee.load(ordering: .sequentiallyConsistent) ?? 0
        var record = (stamp, UInt64(key), note.word, kind.rawValue)
        let written = withUnsafeBytes(of: &record) { write(descriptor, $0.baseAddress, $0.count) }
        precondition(written == Self.recordBytes, "the journal cannot be written")
    }

    func intent(_ key: Int, _ what: KeyNote) { note(.intent, key, what) }
    func end(_ key: Int, _ what: KeyNote) { note(.end, key, what) }
    func nothing(_ key: Int) { note(.nothing, key, .nothing) }

    /// What may be found of each key on the device after `prefix` of its writes.
    func allowed(keys: Int, prefix: UInt64) -> [Allowed] {
        var made = [Allowed](repeating: Allowed(), count: keys)
        var intents = [KeyNote](repeating: .nothing, count: keys)
        var record: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
        lseek(descriptor, 0, SEEK_SET)
        while withUnsafeMutableBytes(
            of: &record, { Glibc.read(descriptor, $0.baseAddress, $0.count) }) == Self.recordBytes
        {
            let (stamp, number, word, kind) = record
            let key = Int(number)
            guard key < keys, stamp <= prefix, let kind = Kind(rawValue: kind) else { continue }
            switch kind {
            case .intent:
                intents[key] = KeyNote(word: word)
                made[key].mayBe(intents[key])
            case .end: made[key].mustBe(KeyNote(word: word))
            case .nothing: break
            }
        }
        return made
    }
}

/// What of one key may be found.
struct Allowed {
    /// Nothing.
    private(set) var absent = true
    private(set) var revisions: [UInt64] = []

    /// An operation was begun: it may have happened.
    mutating func mayBe(_ note: KeyNote) {
        if note.operation == 1 { revisions.append(note.revision) }
        if note.operation == 2 { absent = true }
    }

    /// An operation was acknowledged. What it made durable cannot be lost; nothing before it can
    /// come back.
    mutating func mustBe(_ note: KeyNote) {
        if note.operation == 1, note.durability == 2 {
            absent = false
            revisions = [note.revision]
        } else if note.operation == 2 {
            absent = true
            revisions = []
        }
    }
}
