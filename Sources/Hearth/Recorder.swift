// Recorder: what is asked of a store and hinted to it, written to a file from which
// `hearth-bench replay` plays it, so that a store can be sized on one's own traffic. Opt-in. Keys
// are not written, only salted hashes of them: the salt is random, of this file alone, and never
// leaves the process, so that neither keys nor what two files have in common can be told.
//
// Callers put what they do into a buffer of fixed size, under a lock that is held for as long as
// hashing takes, without an allocation; a thread of its own takes the buffer by a swap, makes
// requests of it, and writes.
//
// Invariants: memory and file are bounded, and what has no room is dropped and counted; nothing
// that fails here is an error to whoever uses the store.

import BlockIO
import Glibc
import SegmentFormat
import Synchronization

/// One key of something that was asked or told.
struct RecordedKey: Sendable {
    enum Kind: UInt8, Sendable {
        case get
        case put
        /// What a queued request will read.
        case chain
    }

    var kind = Kind.get
    /// The first of those that came together.
    var isFirst = false
    /// Of the value, 0 where it is not known.
    var bytes: UInt32 = 0
    /// Salted hashes of the key and of that of the block before it; 0 for none.
    var id: UInt64 = 0
    var parent: UInt64 = 0
    /// Monotonic nanoseconds.
    var time: UInt64 = 0
    /// Of a chain: when it is needed, in the same clock, 0 for not known; and its session.
    var due: UInt64 = 0
    var session: UInt64 = 0
}

final class Recorder: @unchecked Sendable {
    // Unchecked: what changes is only touched under the lock, or by the one thread that writes.

    /// Keys that wait to be taken: with `period`, 600,000 a second.
    static let capacity = 32_768
    /// Of memory: two buffers, and what the thread keeps of requests that are not over.
    static let memoryBytes =
        2 * capacity * MemoryLayout<RecordedKey>.stride + RecordAssembler.memoryBytes
    /// Nanoseconds between two looks of the thread.
    private static let period: UInt64 = 50_000_000
    /// Nanoseconds that closing waits for the rest to be written.
    private static let patience: UInt64 = 2_000_000_000
    /// Hashes that JSON's numbers hold.
    private static let mask: UInt64 = (1 << 53) - 1

    private let salt: SecretKey
    private let clock = SystemClock()
    private let lock: UnsafeMutablePointer<pthread_mutex_t>
    private var filling: UnsafeMutablePointer<RecordedKey>
    private var emptied: UnsafeMutablePointer<RecordedKey>
    private var count = 0
    private var dropped: UInt64 = 0
    private var isClosed = false

    // The thread's own.
    private var assembler: RecordAssembler
    private var file: RecordFile
    private let figures = Mutex(Statistics.Recording())
    private var thread: PageThread?

    /// Makes the file and starts the thread.
    init(path: String, limitBytes: UInt64) throws(HearthError) {
        var random = SystemRandomNumberGenerator()
        salt = SecretKey(k0: random.next(), k1: random.next())
        file = try RecordFile(path, limitBytes: limitBytes)
        assembler = RecordAssembler(begin: SystemClock().monotonic)
        lock = .allocate(capacity: 1)
        pthread_mutex_init(lock, nil)
        filling = .allocate(capacity: Self.capacity)
        emptied = .allocate(capacity: Self.capacity)
        filling.initialize(repeating: RecordedKey(), count: Self.capacity)
        emptied.initialize(repeating: RecordedKey(), count: Self.capacity)
        thread = PageThread("hearth-record") { [unowned self] thread in
            while thread.rest(until: clock.monotonic &+ Self.period) { drain() }
        }
        if thread == nil {
            throw HearthError(
                .resource, operation: "open", subject: "the recording thread", errno: EAGAIN,
                advice: "The process may start no more threads: raise its limit.")
        }
    }

    deinit {
        pthread_mutex_destroy(lock)
        lock.deallocate()
        filling.deallocate()
        emptied.deallocate()
    }

    // MARK: Any thread

    /// The salted hash of a key; never 0.
    @inline(__always)
    func hash(_ instance: UInt64, _ key: UnsafeRawBufferPointer) -> UInt64 {
        max(1, SipHash.hash128(salt, instance, key).lo & Self.mask)
    }

    /// Records keys that came together. `fill` completes each one, and says whether it counts.
    func record(
        _ kind: RecordedKey.Kind, count number: Int, due: UInt64 = 0, session: UInt64 = 0,
        _ fill: (Int, inout RecordedKey) -> Bool
    ) {
        var made = RecordedKey()
        (made.kind, made.time) = (kind, clock.monotonic)
        (made.due, made.session, made.isFirst) = (due, session, true)
        let blank = made
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        guard !isClosed, count + number <= Self.capacity else {
            dropped += UInt64(number)
            return
        }
        for index in 0..<number {
            guard fill(index, &made) else { continue }
            filling[count] = made
            count += 1
            made = blank
            made.isFirst = false
        }
    }

    /// What came of it so far.
    var statistics: Statistics.Recording { figures.withLock { $0 } }

    // MARK: The thread

    private func drain() {
        pthread_mutex_lock(lock)
        swap(&filling, &emptied)
        let taken = count
        count = 0
        let dropped = dropped
        pthread_mutex_unlock(lock)
        for index in 0..<taken { assembler.take(emptied[index]) }
        write(assembler.ended(by: clock.monotonic), keys: taken, dropped: dropped)
    }

    private func write(_ requests: [RecordedRequest], keys: Int, dropped: UInt64) {
        for request in requests { file.append(request) }
        file.flush()
        figures.withLock {
            $0.file = file.path
            $0.keys += UInt64(keys)
            $0.requests = file.requests
            $0.bytes = file.bytes
            $0.dropped = dropped + file.keysDropped
            $0.errors = file.errors
        }
    }

    // MARK: The owner, at the end

    /// Takes nothing from here on, and writes what there is.
    func end() {
        pthread_mutex_lock(lock)
        isClosed = true
        pthread_mutex_unlock(lock)
        _ = thread?.end(within: Self.patience) { [self] in
            drain()
            write(assembler.ended(by: .max), keys: 0, dropped: statistics.dropped)
            file.close()
        }
        thread = nil
    }
}

extension Statistics {
    /// What a recorder wrote (``Configuration/recordFile``).
    public struct Recording: Sendable, Equatable {
        /// Where it is written; empty where nothing is recorded.
        public var file = ""
        /// Keys that were asked for, put or hinted, and taken.
        public var keys: UInt64 = 0
        /// Requests written.
        public var requests: UInt64 = 0
        /// Bytes written.
        public var bytes: UInt64 = 0
        /// Keys for which there was no room in memory or in the file.
        public var dropped: UInt64 = 0
        /// Writes that failed; what they held is lost.
        public var errors: UInt64 = 0

        /// Nothing.
        public init() {}
    }
}

extension Statistics.Recording {
    func write(_ text: inout some StatisticsText) {
        text.object {
            $0.number("keys", keys)
            $0.number("requests", requests)
            $0.number("bytes", bytes)
            $0.number("dropped", dropped)
            $0.number("errors", errors)
            if !file.isEmpty { $0.string("file", file) }
        }
    }
}
