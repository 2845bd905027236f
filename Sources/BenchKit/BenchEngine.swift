// BenchEngine: what a job measures, behind one small protocol: the store, or a raw file. The target
// is shared by all jobs and may be called from each job's thread; the engines are one a job, made
// and used on that job's thread only.

package enum BenchDirection: UInt8, Sendable, CaseIterable {
    case read
    case write
}

/// One operation of a job. `key` is the number of a block: in the store (name, job, key) is the
/// key's text, in a raw file key x length is the offset.
package struct BenchOperation {
    package var direction: BenchDirection
    /// Comes back with the completion; below the job's depth.
    package var tag: Int
    package var key: UInt64
    /// A put that replaces what is there.
    package var replace: Bool
    /// 4 KiB aligned; the engine's until the completion is reaped.
    package var buffer: UnsafeMutableRawBufferPointer
    /// Byte offset of the buffer in the job's arena.
    package var arenaOffset: UInt64

    package init(
        direction: BenchDirection, tag: Int, key: UInt64, replace: Bool,
        buffer: UnsafeMutableRawBufferPointer, arenaOffset: UInt64
    ) {
        self.direction = direction
        self.tag = tag
        self.key = key
        self.replace = replace
        self.buffer = buffer
        self.arenaOffset = arenaOffset
    }
}

package struct BenchCompletion {
    package var tag: Int
    /// 0 or an errno.
    package var error: Int32
    /// False for a get that missed.
    package var hit: Bool
    /// Where the bytes of a lease are; nil when they are in the operation's buffer. Valid until
    /// `release` of the tag.
    package var leased: UnsafeRawBufferPointer?

    package init(
        tag: Int, error: Int32 = 0, hit: Bool = true, leased: UnsafeRawBufferPointer? = nil
    ) {
        (self.tag, self.error, self.hit, self.leased) = (tag, error, hit, leased)
    }
}

package protocol BenchEngine: AnyObject {
    /// Queues an operation; the job never has more than its depth in flight.
    func submit(_ operation: BenchOperation)
    /// Hands over what was queued, as one batch.
    func flush()
    /// Takes completions; with `wait` at least one, sleeping for it.
    func reap(_ into: UnsafeMutableBufferPointer<BenchCompletion>, wait: Bool) -> Int
    /// Runs `step` on the engine's own thread, first with no completions, then with those that
    /// have come, until it returns false, which it does only with nothing in flight; then returns
    /// true. False, at once: the engine has no such thread, reap instead.
    func drive(_ step: (UnsafeBufferPointer<BenchCompletion>) -> Bool) -> Bool
    /// Gives a leased view back.
    func release(tag: Int)
    /// Makes everything written durable; 0 or an errno.
    func sync() -> Int32
    /// Ends the engine; nothing is in flight.
    func finish()
}

extension BenchEngine {
    package func release(tag: Int) {}

    package func drive(_ step: (UnsafeBufferPointer<BenchCompletion>) -> Bool) -> Bool { false }
}

/// A setup that cannot be had, in words for the user.
package struct BenchError: Error, CustomStringConvertible {
    package var description: String
    /// An errno, 0 for none; goes into the report.
    package var code: Int32
    package init(_ description: String, code: Int32 = 0) {
        (self.description, self.code) = (description, code)
    }
}

package protocol BenchTarget: AnyObject, Sendable {
    /// The engine's name as the report prints it.
    var engineName: String { get }
    /// Whether writes go to ever new keys (the store, inserting), or over the same places again.
    var insertsFreshKeys: Bool { get }
    /// Whether the slat of this engine means something (an asynchronous engine).
    var isAsynchronous: Bool { get }
    /// Opens what the jobs share, and with `layout` writes keys 0 ..< units of each job where they
    /// are absent, each the payload of (namespace, key, revision 0). `progress` gets bytes done
    /// and bytes in all. Returns the operations of one pass of a job.
    func prepare(
        _ options: JobOptions, layout: Bool, progress: (UInt64, UInt64) -> Void
    ) throws(BenchError) -> UInt64
    /// The first key of a job that no earlier run may have stored.
    func firstFreshKey(job: Int) -> UInt64
    /// The engine of one job; `arena` holds its buffers and outlives it.
    func makeEngine(
        job: Int, arena: UnsafeMutableRawBufferPointer
    ) throws(BenchError) -> any BenchEngine
    /// Forgets what was counted so far (the ramp is over).
    func resetStatistics()
    /// What the report adds under "kv" for a job; nil on a raw engine.
    func report(job: Int) -> JSONValue?
    /// Closes what `prepare` opened.
    func close() throws(BenchError)
}
