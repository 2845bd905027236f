// JobOptions: one job as fio's command line describes it. Every field carries fio's default; the
// kv_ options are ours and are prefixed so that tools which parse fio's options skip them.

package enum AccessPattern: String, CaseIterable, Sendable {
    case read
    case write
    case randread
    case randwrite
    case randrw
    case rw
    case readwrite

    package var isRandom: Bool { self == .randread || self == .randwrite || self == .randrw }
    package var reads: Bool { self != .write && self != .randwrite }
    package var writes: Bool { self != .read && self != .randread }
    package var isMix: Bool { reads && writes }
    /// The name fio prints.
    package var fioName: String { self == .readwrite ? "rw" : rawValue }
}

package enum EngineChoice: String, CaseIterable, Sendable {
    /// The store.
    case kv
    /// Raw baselines on a file in the directory.
    case ioUring = "io_uring"
    /// The thread driver: one preadv2 or pwritev2 a request, several threads.
    case psync
}

package enum ReadMode: String, CaseIterable, Sendable {
    case direct
    case cached
    case lease
}

/// On which thread a job's loop runs on the store.
package enum CompletionChoice: String, CaseIterable, Sendable {
    /// On the store's own thread, called with what has ended: nobody is woken.
    case inline
    /// On a thread of the job's own, which sleeps until something has ended.
    case polled
}

package enum WriteMode: String, CaseIterable, Sendable {
    case insert
    case replace
}

package enum DurabilityChoice: String, CaseIterable, Sendable {
    case volatile
    case written
    case durable
}

package enum OutputFormat: String, CaseIterable, Sendable {
    case normal
    case json
}

package enum ProgressChoice: String, CaseIterable, Sendable {
    case auto
    case always
    case never
}

package struct JobOptions: Equatable, Sendable {
    package var name = "hearth"
    package var directory = "."
    /// The raw file; empty means `<name>.<job>.0` in the directory, as fio names it.
    package var filename = ""
    package var pattern = AccessPattern.read
    /// Percent of operations that read in a mix.
    package var readMix: UInt64 = 50
    /// Bytes of one operation.
    package var blockBytes: UInt64 = 4096
    package var depth = 1
    package var jobs = 1
    /// Bytes a job covers: of its file, or of live values in the store.
    package var size: SizeOrShare?
    /// Nanoseconds; 0 for none.
    package var runtime: UInt64 = 0
    package var timeBased = false
    /// Nanoseconds before measuring starts.
    package var rampTime: UInt64 = 0
    package var verify = false
    /// Whether a verifying write job reads back at its end.
    package var verifyAfterWrite = true
    package var engine = EngineChoice.kv
    package var readMode = ReadMode.direct
    /// Nil: see `completesInline`.
    package var completion: CompletionChoice?
    package var writeMode = WriteMode.insert
    /// Slab bytes, or a share of the live value bytes of all jobs; nil leaves the store's default.
    package var dram: SizeOrShare?
    package var durability = DurabilityChoice.written
    package var direct = true
    package var groupReporting = false
    package var randomSeed: UInt64 = 0x89AB_CDEF
    package var endSync = false
    package var formats: [OutputFormat] = [.normal]
    /// Where the report goes; empty is standard output.
    package var output = ""
    package var progress = ProgressChoice.auto
    /// The options as given, in order, for the report's "job options".
    package var given: [(name: String, value: String)] = []

    package init() {}

    package static func == (left: JobOptions, right: JobOptions) -> Bool {
        left.given.elementsEqual(right.given) { $0 == $1 }
    }

    /// A job that does more than start reads would hold up all others on the store's thread.
    package var mayCompleteInline: Bool {
        engine == .kv && readMode == .direct && !pattern.writes && !verify && jobs == 1
    }

    /// From 32 KiB on, waking another thread costs more than it takes off the store's.
    package var completesInline: Bool {
        mayCompleteInline && (completion ?? (blockBytes < 32 << 10 ? .polled : .inline)) == .inline
    }

    /// Operations in one pass over the size.
    package func units(size: UInt64) -> UInt64 { size / blockBytes }

    /// What payloads are derived from beside key and revision: the name alone, so that a later run
    /// of the same name can check what an earlier one stored.
    package func namespace(job: Int) -> UInt64 {
        // Jobs that share one file share its contents.
        stableHash("\(name).\(filename.isEmpty ? job : 0)")
    }
}
