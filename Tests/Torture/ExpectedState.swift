// ExpectedState: what a child process has done to a real store, in memory that the parent maps too,
// so that it outlives a SIGKILL of the child. One record a key; the child writes the intent before
// it submits and the end after the answer, each as one word, so that no kill leaves half a note.

import Glibc
import Synchronization

/// A note of one key: an operation (0 nothing known, 1 put, 2 delete), a revision, and for puts the
/// durability.
struct KeyNote: Equatable {
    var operation: UInt64
    var revision: UInt64
    var durability: UInt64

    static let nothing = KeyNote(operation: 0, revision: 0, durability: 0)

    init(operation: UInt64, revision: UInt64, durability: UInt64) {
        self.operation = operation
        self.revision = revision
        self.durability = durability
    }

    init(word: UInt64) {
        operation = word & 3
        durability = word >> 2 & 3
        revision = word >> 4
    }

    var word: UInt64 { operation | durability << 2 | revision << 4 }
}

final class ExpectedState {
    static let keys = 4096
    /// For each key: intent, end, last stored revision (a delete that found nothing leaves it).
    private static let wordsPerKey = 4
    private static let headerWords = 64
    static let bytes = 8 * (headerWords + keys * wordsPerKey)

    enum Header: Int {
        case evicted
        case operations
        case present
        case missing
        case wrong
        case resurrected
        case checked
        case volatileLost
        case ready
        case answered
    }

    private let words: UnsafeMutablePointer<Atomic<UInt64>>

    /// Maps the file, making it when it is not there.
    init?(path: String) {
        let descriptor = open(path, O_RDWR | O_CREAT, 0o600)
        guard descriptor >= 0 else { return nil }
        defer { Glibc.close(descriptor) }
        guard ftruncate(descriptor, Self.bytes) == 0,
            let memory = mmap(
                nil, Self.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0),
            memory != UnsafeMutableRawPointer(bitPattern: -1)
        else { return nil }
        words = memory.bindMemory(
            to: Atomic<UInt64>.self, capacity: Self.bytes / MemoryLayout<UInt64>.stride)
    }

    deinit { munmap(words, Self.bytes) }

    subscript(header: Header) -> UInt64 {
        get { words[header.rawValue].load(ordering: .acquiring) }
        set { words[header.rawValue].store(newValue, ordering: .releasing) }
    }

    private func word(_ key: Int, _ field: Int) -> UnsafeMutablePointer<Atomic<UInt64>> {
        words + (Self.headerWords + key * Self.wordsPerKey + field)
    }

    func intent(_ key: Int) -> KeyNote {
        KeyNote(word: word(key, 0).pointee.load(ordering: .acquiring))
    }
    func end(_ key: Int) -> KeyNote {
        KeyNote(word: word(key, 1).pointee.load(ordering: .acquiring))
    }
    /// The last revision that was certainly stored, whatever came after.
    func lastStored(_ key: Int) -> UInt64 { word(key, 2).pointee.load(ordering: .acquiring) }
    func lastRevision(_ key: Int) -> UInt64 { word(key, 3).pointee.load(ordering: .acquiring) }

    func setIntent(_ key: Int, _ note: KeyNote) {
        if note.operation == 1 { word(key, 3).pointee.store(note.revision, ordering: .releasing) }
        word(key, 0).pointee.store(note.word, ordering: .releasing)
    }
    func setEnd(_ key: Int, _ note: KeyNote) {
        if note.operation == 1 { word(key, 2).pointee.store(note.revision, ordering: .releasing) }
        word(key, 1).pointee.store(note.word, ordering: .releasing)
        word(key, 0).pointee.store(0, ordering: .releasing)
    }
    func clearIntent(_ key: Int) { word(key, 0).pointee.store(0, ordering: .releasing) }
}
