// KvEngine: one job's operations on the store, through a session of its own. Everything an
// operation points to (key, piece) lies at its tag, made once; nothing is allocated in the loop. A
// throttled operation is tried again, so that to the job it only takes longer.
//
// With completions `inline` the job's loop is called back, and runs on the store's owner thread:
// nobody wakes anybody. The job's thread sleeps meanwhile, so that there is one user still.

import BenchKit
import BlockIO
import Dispatch
import Glibc
import Hearth
import LogStore
import Staging
import Synchronization

/// What a job counts; written by its thread only, read by whoever reports.
final class KvCounters: Sendable {
    let hitsDRAM = Atomic<UInt64>(0)
    let hitsSSD = Atomic<UInt64>(0)
    let misses = Atomic<UInt64>(0)
    let stored = Atomic<UInt64>(0)
    let present = Atomic<UInt64>(0)
    let throttled = Atomic<UInt64>(0)
    let scattered = Atomic<UInt64>(0)

    var all: [(String, UInt64)] {
        func value(_ counter: borrowing Atomic<UInt64>) -> UInt64 {
            counter.load(ordering: .relaxed)
        }
        return [
            ("hits_dram", value(hitsDRAM)), ("hits_ssd", value(hitsSSD)),
            ("get_misses", value(misses)), ("puts_stored", value(stored)),
            ("puts_present", value(present)), ("throttled", value(throttled)),
            ("scattered_leases", value(scattered)),
        ]
    }
}

/// How an engine uses the store.
struct KvManner {
    var readMode = GetMode.direct
    var durability = Durability.written
    var blockBytes = 4096
    var depth = 1
    var inline = false

    init(_ options: JobOptions) {
        inline = options.completesInline
        readMode = GetMode(options.readMode)
        durability = Durability(options.durability)
        blockBytes = Int(options.blockBytes)
        depth = options.depth
    }
}

extension GetMode {
    init(_ mode: ReadMode) {
        switch mode {
        case .direct: self = .direct
        case .cached: self = .cached
        case .lease: self = .lease
        }
    }
}

extension Durability {
    init(_ choice: DurabilityChoice) {
        switch choice {
        case .volatile: self = .volatile
        case .written: self = .written
        case .durable: self = .durable
        }
    }
}

final class KvEngine: BenchEngine, @unchecked Sendable {
    // Unchecked: it belongs to the job's thread; while `drive` sleeps there, to the owner thread.
    private let kv: KvStore
    private let session: Session
    /// Of a job that runs on the owner thread; else it goes through the session.
    private let callbacks: CallbackTarget?
    /// The job's loop while it is driven, and what says that it has ended.
    private var step: ((UnsafeBufferPointer<BenchCompletion>) -> Bool)?
    private let over = DispatchSemaphore(value: 0)
    private let taken: UnsafeMutableBufferPointer<BenchCompletion>
    private var takenCount = 0
    private let manner: KvManner
    private let keyNamespace: UInt64
    private let counters: KvCounters
    private let region: MemoryRegion
    private let keys: KeyRoom
    /// By tag.
    private let pieces: UnsafeMutablePointer<Piece>
    private let operations: UnsafeMutablePointer<StoreOperation>
    private let buffers: UnsafeMutablePointer<UnsafeMutableRawBufferPointer>
    private let leases: UnsafeMutablePointer<Int32>
    /// Not yet handed over, in order.
    private let queue: UnsafeMutablePointer<StoreOperation>
    private var queued = 0
    private let completions: UnsafeMutableBufferPointer<StoreCompletion>

    init(
        kv: KvStore, manner: KvManner, keyNamespace: UInt64, counters: KvCounters,
        arena: UnsafeMutableRawBufferPointer
    ) throws(BenchError) {
        self.kv = kv
        self.manner = manner
        self.keyNamespace = keyNamespace
        self.counters = counters
        let depth = manner.depth
        session = kv.session(depth)
        let driven = Driven()
        if manner.inline {
            callbacks = CallbackTarget(
                kv.store, take: { driven.engine?.ended($0) }, taken: { driven.engine?.turned() })
        } else {
            callbacks = nil
        }
        region = try kv.register(arena)
        keys = KeyRoom(capacity: depth)
        pieces = .allocate(capacity: depth)
        let piece = Piece(region: .process, offset: 0, length: 0)
        pieces.initialize(repeating: piece, count: depth)
        operations = .allocate(capacity: depth)
        queue = .allocate(capacity: depth)
        let none = kv.operation(.contains, token: 0, keys[0])
        operations.initialize(repeating: none, count: depth)
        queue.initialize(repeating: none, count: depth)
        buffers = .allocate(capacity: depth)
        buffers.initialize(
            repeating: UnsafeMutableRawBufferPointer(start: nil, count: 0), count: depth)
        leases = .allocate(capacity: depth)
        leases.initialize(repeating: -1, count: depth)
        completions = .allocate(capacity: depth)
        completions.initialize(
            repeating: StoreCompletion(token: 0, answer: StoreAnswer(token: 0, status: .done)))
        taken = .allocate(capacity: depth)
        taken.initialize(repeating: BenchCompletion(tag: 0))
        driven.engine = self
    }

    deinit {
        pieces.deallocate()
        operations.deallocate()
        queue.deallocate()
        buffers.deallocate()
        leases.deallocate()
        completions.deallocate()
        taken.deallocate()
    }

    func submit(_ operation: BenchOperation) {
        let tag = operation.tag
        keys.set(tag, operation.key, keyNamespace)
        pieces[tag] = region.corePiece(
            offset: operation.arenaOffset, length: UInt64(operation.buffer.count))
        let isRead = operation.direction == .read
        var made = kv.operation(isRead ? .get : .put, token: tag, keys[tag])
        made.pieces = UnsafePointer(pieces + tag)
        made.pieceCount = 1
        if isRead {
            made.mode = manner.readMode
        } else {
            made.length = UInt32(operation.buffer.count)
            made.durability = manner.durability
            made.replace = operation.replace
        }
        operations[tag] = made
        buffers[tag] = operation.buffer
        enqueue(made)
    }

    private func enqueue(_ operation: StoreOperation) {
        queue[queued] = operation
        queued += 1
    }

    func flush() {
        guard queued > 0 else { return }
        let batch = UnsafeBufferPointer(start: queue, count: queued)
        let isTaken =
            callbacks?.submit(batch, instance: kv.namespace.instance)
            ?? (session.submit(batch) == queued)
        precondition(isTaken, "the session holds a job's depth, and the store is open")
        queued = 0
    }

    func reap(_ into: UnsafeMutableBufferPointer<BenchCompletion>, wait: Bool) -> Int {
        while true {
            let polled = session.poll(into: completions, wait: wait ? UInt64.max : 0)
            var count = 0
            for index in 0..<polled {
                if let made = take(completions[index]) {
                    into[count] = made
                    count += 1
                }
            }
            if queued > 0 {
                // All of these were throttled: the store needs a moment, not another try at once.
                var pause = timespec(tv_sec: 0, tv_nsec: 200_000)
                nanosleep(&pause, nil)
                flush()
            }
            if count > 0 || !wait { return count }
        }
    }

    func drive(_ body: (UnsafeBufferPointer<BenchCompletion>) -> Bool) -> Bool {
        guard manner.inline else { return false }
        withoutActuallyEscaping(body) { body in
            step = body
            let runs = kv.store.perform { [self] in advance(0) }
            precondition(runs, "the store is open while a job runs")
            over.wait()
        }
        return true
    }

    // Owner thread

    fileprivate func ended(_ completion: StoreCompletion) {
        guard let made = take(completion) else { return }
        taken[takenCount] = made
        takenCount += 1
    }

    fileprivate func turned() {
        let count = takenCount
        takenCount = 0
        if count > 0 { advance(count) } else { flush() }
    }

    private func advance(_ count: Int) {
        guard isOver(count) else { return }
        step = nil
        over.signal()
    }

    /// Apart, so that no reference to the job's loop is left when the job's thread goes on.
    @inline(never)
    private func isOver(_ count: Int) -> Bool {
        guard let step else { return false }
        return !step(UnsafeBufferPointer(rebasing: taken[..<count]))
    }

    /// Nil: to be tried again.
    private func take(_ completion: StoreCompletion) -> BenchCompletion? {
        let tag = Int(completion.token)
        let answer = completion.answer
        switch answer.status {
        case .throttled:
            counters.throttled.add(1, ordering: .relaxed)
            enqueue(operations[tag])
            return nil
        case .hit:
            if answer.tier == .staging {
                counters.hitsDRAM.add(1, ordering: .relaxed)
            } else {
                counters.hitsSSD.add(1, ordering: .relaxed)
            }
            return delivered(tag, completion)
        case .miss:
            counters.misses.add(1, ordering: .relaxed)
            return BenchCompletion(tag: tag, hit: false)
        case .stored:
            counters.stored.add(1, ordering: .relaxed)
            return BenchCompletion(tag: tag)
        case .alreadyPresent:
            counters.present.add(1, ordering: .relaxed)
            return BenchCompletion(tag: tag)
        default:
            return BenchCompletion(tag: tag, error: errorNumber(answer))
        }
    }

    private func delivered(_ tag: Int, _ completion: StoreCompletion) -> BenchCompletion {
        let isWhole = completion.answer.delivered == UInt64(manner.blockBytes)
        guard completion.answer.lease >= 0 else {
            return BenchCompletion(tag: tag, error: isWhole ? 0 : EIO)
        }
        leases[tag] = completion.answer.lease
        if let bytes = kv.leased(completion) {
            return BenchCompletion(tag: tag, error: isWhole ? 0 : EIO, leased: bytes)
        }
        counters.scattered.add(1, ordering: .relaxed)
        let copied = kv.copy(completion, into: buffers[tag])
        return BenchCompletion(tag: tag, error: isWhole && copied ? 0 : EIO)
    }

    func release(tag: Int) {
        guard leases[tag] >= 0 else { return }
        session.endLease(leases[tag])
        leases[tag] = -1
    }

    func sync() -> Int32 {
        do throws(BenchError) {
            try kv.flush()
            return 0
        } catch {
            return error.code == 0 ? EIO : error.code
        }
    }

    func finish() { kv.unregister(region) }
}

/// The engine that is called back: made after what calls it.
private final class Driven: @unchecked Sendable {
    // Unchecked: set before the first operation is submitted, read by the owner thread after.
    weak var engine: KvEngine?
}
