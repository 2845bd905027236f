// SimulatedFile and SimulatedDirectory: what one inode is now, what of it would survive a crash,
// and the effects between the two, in the order in which they completed.
//
// current = durable + effects, unless a failed sync told a lie. An effect leaves the list when a
// sync that was submitted after its completion has completed, and is in `durable` from then on.

enum FileEffectKind {
    case write
    case allocate
    case punch
}

/// One change of a file that a crash may undo.
struct FileEffect {
    var sequence: UInt64
    var kind: FileEffectKind
    var firstPage: Int
    var count: Int
    /// What a write puts there: `count` pages from page `start` of the extent.
    var extent: Extent?
    var start: Int

    var pages: Range<Int> { firstPage..<(firstPage + count) }
}

struct SimulatedFile {
    var name: String
    /// Index of its directory in the device.
    var directory: Int
    var current = PageTable()
    var durable = PageTable()
    /// What each page held before its last write; kept only for a plan with stale reads.
    var previous = PageTable()
    var size = 0
    var durableSize = 0
    var allocated = PageRanges()
    var durableAllocated = PageRanges()
    var effects: ContiguousArray<FileEffect> = []
    /// Pages that read as EIO until they are rewritten.
    var badPages: Set<Int> = []
    var handles = 0
    /// Whether its pages count in the device's use.
    var charged = true

    init(name: String, directory: Int) {
        self.name = name
        self.directory = directory
    }

    /// Applies an effect to what would survive.
    mutating func makeDurable(_ effect: FileEffect) {
        switch effect.kind {
        case .write:
            durable.put(effect.firstPage, effect.extent, from: effect.start, count: effect.count)
            durableAllocated.insert(effect.pages)
            durableSize = max(durableSize, effect.pages.upperBound * SimulatedPage.bytes)
        case .allocate:
            durableAllocated.insert(effect.pages)
            durableSize = max(durableSize, effect.pages.upperBound * SimulatedPage.bytes)
        case .punch:
            durable.put(effect.firstPage, effect.extent, from: effect.start, count: effect.count)
            durableAllocated.remove(effect.pages)
        }
    }

    /// Forgets everything but what survived.
    mutating func revertToDurable() {
        current = durable
        size = durableSize
        allocated = durableAllocated
        if !effects.isEmpty { effects.removeAll() }
        handles = 0
    }
}

/// One change of a directory that a crash may undo.
struct EntryEffect {
    var sequence: UInt64
    var name: String
    /// The file created, or nil for a removal.
    var file: Int?
}

struct SimulatedDirectory {
    var path: String
    var entries: [String: Int] = [:]
    var durable: [String: Int] = [:]
    var effects: ContiguousArray<EntryEffect> = []
    /// Who holds the lock, and which driver that is.
    var lockHolder: String?
    var lockOwner: UInt64 = 0

    init(path: String) { self.path = path }

    mutating func makeDurable(_ effect: EntryEffect) {
        durable[effect.name] = effect.file
    }

    /// Whether a name, now or after some crash, leads to the file.
    func refers(to file: Int, named name: String) -> Bool {
        entries[name] == file || durable[name] == file
            || effects.contains { $0.file == file }
    }
}
