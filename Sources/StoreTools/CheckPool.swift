// CheckPool: threads that check what has been read. The reading thread hands jobs over and takes
// them back; a job belongs to one side at a time. With no threads, jobs are checked where they are
// handed over.

import Glibc
import SegmentFormat

/// A value to be checked, somewhere in a job's memory.
struct PlannedImage {
    var page: UInt32
    var pages: UInt32
    var length: UInt32
    var shardCount: Int
    var checksum: UInt32
    var aligned: Bool
    var identity: UInt32
    var isLive: Bool
    var namespace: UInt64
    var version: UInt64
    var key: [UInt8]
    /// False: it could not be read.
    var errno: Int32 = 0

    var end: UInt32 { page + pages }
}

/// A record as it is told apart from others of its segment.
struct RecordMark: Hashable {
    var page: UInt32
    var version: UInt64
    var flags: UInt16
}

/// One stretch of a segment: values, and between them descriptor pages.
final class CheckJob: @unchecked Sendable {
    // Unchecked: belongs to the reading thread, then to the pool, then to the reading thread again;
    // the pool's lock stands between.
    let number: Int
    let firstPage: UInt32
    let pages: UInt32
    var images: [PlannedImage]
    let context: PageContext
    /// Pages between the values are descriptor pages, to be checked too.
    let checksGaps: Bool
    var buffer: PageBuffer?
    var unreadGaps: [(page: UInt32, errno: Int32)] = []

    // Results
    var damage: [(image: Int, damage: ImageDamage)] = []
    var marks: [RecordMark] = []
    var strays: [UInt32] = []
    var descriptorPages: UInt64 = 0

    init(
        number: Int, firstPage: UInt32, pages: UInt32, images: [PlannedImage],
        context: PageContext, checksGaps: Bool
    ) {
        self.number = number
        self.firstPage = firstPage
        self.pages = pages
        self.images = images
        self.context = context
        self.checksGaps = checksGaps
    }

    func run() {
        guard let buffer else { return }
        let pageBytes = FormatConstants.pageBytes
        for (number, image) in images.enumerated() where image.errno == 0 {
            let bytes = buffer.slice(
                Int(image.page - firstPage) * pageBytes, Int(image.pages) * pageBytes)
            let layout = BlockLayout(
                length: image.length, shardCount: image.shardCount, aligned: image.aligned)
            let stored = StoredImage(layout: layout, bytes: bytes)
            if let found = stored.damage(identity: image.identity, checksum: image.checksum) {
                damage.append((number, found))
            }
        }
        if checksGaps { checkGaps(buffer) }
    }

    private func checkGaps(_ buffer: PageBuffer) {
        let unread = Set(unreadGaps.map(\.page))
        var page = firstPage
        var next = 0
        while page < firstPage + pages {
            if next < images.count, images[next].page <= page {
                page = max(page, images[next].end)
                next += 1
                continue
            }
            let bytes = buffer.page(Int(page - firstPage))
            if unread.contains(page) {
                page += 1
                continue
            }
            if var reader = try? DescriptorPageReader(
                page: bytes, context: context, pageNumber: page)
            {
                descriptorPages += 1
                while let view = reader.next() { marks.append(RecordMark(view.descriptor)) }
            } else if RecordReader.isDamaged(bytes, context, page) {
                strays.append(page)
            }
            page += 1
        }
    }
}

extension RecordMark {
    init(_ descriptor: Descriptor) {
        page = descriptor.hasValue ? descriptor.page : 0
        version = descriptor.version
        flags = descriptor.flags.rawValue
    }
}

final class CheckPool: @unchecked Sendable {
    // Unchecked: everything below `lock` is only touched under it.
    private let lock: UnsafeMutablePointer<pthread_mutex_t>
    private let changed: UnsafeMutablePointer<pthread_cond_t>
    private var waiting: [CheckJob] = []
    private var done: [CheckJob] = []
    private var running = 0
    private var isStopping = false
    private var threads: [pthread_t] = []

    init(threads count: Int) {
        lock = .allocate(capacity: 1)
        changed = .allocate(capacity: 1)
        pthread_mutex_init(lock, nil)
        pthread_cond_init(changed, nil)
        for _ in 0..<count { startThread() }
    }

    /// As many as the system gives: fewer only take longer.
    private func startThread() {
        var thread = pthread_t()
        let context = Unmanaged.passRetained(self).toOpaque()
        let failure = pthread_create(
            &thread, nil,
            { context in
                if let context {
                    Unmanaged<CheckPool>.fromOpaque(context).takeRetainedValue().work()
                }
                return nil
            }, context)
        if failure == 0 {
            threads.append(thread)
        } else {
            Unmanaged<CheckPool>.fromOpaque(context).release()
        }
    }

    /// Ends the threads. Every job was taken back.
    func stop() {
        pthread_mutex_lock(lock)
        isStopping = true
        pthread_cond_broadcast(changed)
        pthread_mutex_unlock(lock)
        for thread in threads { pthread_join(thread, nil) }
        threads = []
    }

    deinit {
        pthread_cond_destroy(changed)
        pthread_mutex_destroy(lock)
        changed.deallocate()
        lock.deallocate()
    }

    private func work() {
        pthread_mutex_lock(lock)
        while true {
            if let job = waiting.popLast() {
                running += 1
                pthread_mutex_unlock(lock)
                job.run()
                pthread_mutex_lock(lock)
                running -= 1
                done.append(job)
                pthread_cond_broadcast(changed)
            } else if isStopping {
                break
            } else {
                pthread_cond_wait(changed, lock)
            }
        }
        pthread_mutex_unlock(lock)
    }

    func submit(_ job: CheckJob) {
        if threads.isEmpty {
            job.run()
            done.append(job)
            return
        }
        pthread_mutex_lock(lock)
        waiting.insert(job, at: 0)
        pthread_cond_broadcast(changed)
        pthread_mutex_unlock(lock)
    }

    /// The jobs that are done; with `wait`, at least one where any is under way.
    func take(wait: Bool) -> [CheckJob] {
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        while wait, done.isEmpty, !waiting.isEmpty || running > 0 {
            pthread_cond_wait(changed, lock)
        }
        let taken = done
        done = []
        return taken
    }
}
