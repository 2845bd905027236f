// LearntKeeper: the thread that keeps what a store has learnt of returns, and why its blocks are
// gone, in a file each, once a minute while the store is used, and at the end, so that neither a
// restart nor a process that is killed begins with nothing. The owner only copies sums; files are
// this thread's, and the ghosts it reads where they lie.
//
// Invariants: what was learnt before is taken over before the first operation. The last files are
// written before the store's locks are given back, unless the file system takes longer than
// `patience`; a failure is counted as a page's is, and costs what was learnt, nothing else. Ghosts
// are written where many are new, so that they are little beside the blocks that have gone.

import BlockIO
import LogStore
import SegmentFormat
import Synchronization

final class LearntKeeper: Sendable {
    private let shared: SharedStore
    private let directory: String
    /// What the file has: what is no different is not written again.
    private let kept = Mutex<LearntReturns?>(nil)
    private let watch: GhostWatch
    /// What had been noted when the ghosts were written last.
    private let keptGhosts = Atomic<UInt64>(0)
    /// What had been done when the last file was written.
    private let seen = Atomic<UInt64>(0)
    private let thread = Mutex<PageThread?>(nil)

    private static let period: UInt64 = 60_000_000_000
    /// Nanoseconds that closing waits for the last file.
    private static let patience: UInt64 = 1_000_000_000
    /// Departures before the ghosts are written again: a sixteenth of the table.
    private static let newGhosts: UInt64 = 1 << 12

    /// Owner thread: takes over what the store had learnt, and starts the thread. Nil: no directory
    /// of the store is there.
    init?(_ owner: Owner, _ shared: SharedStore) {
        let present = owner.store.log.presentPaths
        guard let first = owner.configuration.directories.first(where: { present.contains($0) })
        else { return nil }
        self.shared = shared
        directory = first
        watch = owner.store.log.ghostWatch
        if let learnt = LearntFile.read(from: directory) { owner.tiered.recall(learnt) }
        if let ghosts = LearntFile.readGhosts(from: directory) { owner.store.log.recall(ghosts) }
        let made = PageThread("hearth-learnt") { [self] in main($0) }
        if made == nil { shared.pageErrors.add(1, ordering: .relaxed) }
        thread.withLock { $0 = made }
    }

    /// Ends the thread and has it write the last file. The engine is shut.
    func end(_ owner: Owner) {
        let learnt = owner.tiered.learnt
        endThread { [self] in
            if let learnt { write(learnt) }
            keepGhosts(ifNew: 1)
        }
    }

    private func endThread(_ last: @escaping @Sendable () -> Void) {
        let thread = thread.withLock { thread in
            defer { thread = nil }
            return thread
        }
        guard let thread else { return last() }
        _ = thread.end(within: Self.patience, last: last)
    }

    private func main(_ thread: PageThread) {
        var next = shared.engine.clock.monotonic &+ Self.period
        while thread.rest(until: next) {
            next = max(next, shared.engine.clock.monotonic) &+ Self.period
            // An owner that has taken nothing since has learnt nothing: it may sleep on. What asks
            // for statistics counts as taken, too, so the file is compared besides.
            guard activity != seen.load(ordering: .relaxed) else { continue }
            let learnt: LearntReturns?? = shared.engine.askAndWait { owner, reply in
                reply(owner.tiered.learnt)
            }
            guard let learnt else { return }
            // After the asking, which is taken as any task is.
            seen.store(activity, ordering: .relaxed)
            if let learnt { write(learnt) }
            keepGhosts(ifNew: Self.newGhosts)
        }
    }

    /// Writes the ghosts where so many are not in the file.
    private func keepGhosts(ifNew least: UInt64) {
        let noted = watch.noted
        guard noted &- keptGhosts.load(ordering: .relaxed) >= least else { return }
        if LearntFile.write(watch.ghosts, to: directory) {
            keptGhosts.store(noted, ordering: .relaxed)
        } else {
            shared.pageErrors.add(1, ordering: .relaxed)
        }
    }

    /// Changes when something may have been learnt.
    private var activity: UInt64 {
        shared.engine.progress.takes &+ shared.caller.withLock { $0.hits }
    }

    private func write(_ learnt: LearntReturns) {
        guard learnt != kept.withLock({ $0 }) else { return }
        if LearntFile.write(learnt, to: directory) {
            kept.withLock { $0 = learnt }
        } else {
            shared.pageErrors.add(1, ordering: .relaxed)
        }
    }
}
