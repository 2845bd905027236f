// PageWriter: the thread that writes a store's page of statistics for tools, once a period. The
// owner only collects the figures, as for anybody who asks for them, and never waits for a file:
// making the texts and writing them is this thread's work, and a file system that stands still
// holds up nobody but it. While the owner sleeps, nothing is asked for and nothing written, but for
// every tenth time, which tells that it lives.
//
// Invariants: the first page is there when the store is open. The last one, marked closed, is
// written before its locks are given back, unless the file system takes longer than `patience` for
// that: then it comes when it can, and whoever opens the store meanwhile has a file of its own.

import BlockIO
import Glibc
import LogStore
import SegmentFormat
import Staging
import Synchronization

final class PageWriter: @unchecked Sendable {
    // Unchecked: the file, `page` and what was seen last are touched by the owner thread before the
    // thread begins, or where there is none, and else by the thread alone.
    private let shared: SharedStore
    private let period: UInt64
    private var file: PageFile
    /// What stays as it is from page to page.
    private var page: StatisticsPage
    private var seen: Activity?
    private var skipped = 0
    private static let mostSkipped = 9

    private var thread: PageThread?
    /// Nanoseconds that closing waits for the last page.
    private static let patience: UInt64 = 1_000_000_000

    /// What tells that there may be something new.
    private struct Activity: Equatable {
        var rests: UInt64
        var takes: UInt64
        var hits: UInt64
        var hints: UInt64
    }

    // MARK: Owner thread

    /// Writes the first page and starts the thread. Nil: there is no page, since none is wanted or
    /// its file cannot be made.
    init?(_ owner: Owner, _ shared: SharedStore) {
        let configuration = owner.configuration
        // That of a member that is absent may be a folder which its device is mounted over.
        let present = owner.store.log.presentPaths
        let here = configuration.directories.filter { present.contains($0) }
        guard let directory = here.first else { return nil }
        // The page of another member's directory is of a time when that one was the first.
        for other in here.dropFirst() { PageFile.remove(from: other) }
        guard configuration.statisticsPeriodSeconds > 0 else {
            PageFile.remove(from: directory)
            return nil
        }
        guard let made = PageFile.make(in: directory) else {
            shared.pageErrors.add(1, ordering: .relaxed)
            return nil
        }
        file = made
        self.shared = shared
        period = UInt64(configuration.statisticsPeriodSeconds * 1e9)
        page = Self.introduction(owner)
        write(owner.statistics(CallerCounts()))
        thread = PageThread("hearth-page") { [self] in main($0) }
        if thread == nil { shared.pageErrors.add(1, ordering: .relaxed) }
    }

    /// Ends the thread and has it write the last page. The engine is shut: whatever the thread has
    /// asked for has been answered.
    func end(_ owner: Owner) {
        let made = shared.completed(owner.statistics(shared.caller.withLock { $0 }))
        guard let thread else { return writeLast(made) }
        _ = thread.end(within: Self.patience) { [self] in writeLast(made) }
        self.thread = nil
    }

    private func writeLast(_ statistics: Statistics) {
        page.state = .closed
        page.descriptors = StatisticsPage.Descriptors()
        write(statistics)
    }

    private static func introduction(_ owner: Owner) -> StatisticsPage {
        var page = StatisticsPage()
        page.process = getpid()
        page.user = geteuid()
        page.processStart = HostProcess.startTicks(page.process) ?? 0
        page.openedSeconds = owner.engine.clock.wallSeconds
        page.periodMilliseconds = UInt32(owner.configuration.statisticsPeriodSeconds * 1000)
        page.store = owner.store.log.manifest.store
        (page.descriptors.index, page.descriptors.ghosts) = owner.store.log.sharedDescriptors
        if let arena = owner.store.arena {
            page.descriptors.residents = arena.sharedTable.descriptor
            page.descriptors.slabs = arena.sharedArena.descriptor
        }
        return page
    }

    // MARK: The thread

    private func main(_ thread: PageThread) {
        var next = shared.engine.clock.monotonic &+ period
        while thread.rest(until: next) {
            next = max(next, shared.engine.clock.monotonic) &+ period
            if let now = activityAsleep, now == seen, skipped < Self.mostSkipped {
                skipped += 1
                continue
            }
            skipped = 0
            guard let made = collect() else { return }
            write(made)
            // A wake-up may end a sleep, and the next one at once: the owner had nothing to do when
            // it answered, so where it has come to by now without taking anything is the same.
            if let now = activityAsleep, now.takes == seen?.takes { seen?.rests = now.rests }
        }
    }

    /// Nil while the owner works.
    private var activityAsleep: Activity? {
        let progress = shared.engine.progress
        return progress.isAsleep
            ? activity(rests: progress.rests, takes: progress.takes) : nil
    }

    private func activity(rests: UInt64, takes: UInt64) -> Activity {
        let hints = shared.hints.statistics
        return Activity(
            rests: rests, takes: takes, hits: shared.caller.withLock { $0.hits },
            hints: hints.byKind.values.reduce(hints.refused, &+))
    }

    /// Asks the owner. Nil: the store is closed.
    private func collect() -> Statistics? {
        let collecting = shared.collecting
        // From before the figures are collected: what comes in between is told with the next page.
        let now = activity(rests: 0, takes: 0)
        let answer: (Statistics?, Activity?)? = shared.engine.askAndWait { owner, reply in
            // Having answered, it goes to sleep once more, unless there is work that came along.
            let progress = owner.engine.progress
            let then = Activity(
                rests: progress.rests &+ 1, takes: progress.takes, hits: now.hits,
                hints: now.hints)
            let isQuiet = owner.isQuiet
            collecting(owner) { reply(($0, isQuiet ? then : nil)) }
        }
        guard let answer, let made = answer.0 else { return nil }
        seen = answer.1
        return shared.completed(made)
    }

    private func write(_ statistics: Statistics) {
        page.monotonic = shared.engine.clock.monotonic
        page.wallSeconds = shared.engine.clock.wallSeconds
        page.json = statistics.json()
        page.prometheus = statistics.prometheus()
        if !file.write(page) { shared.pageErrors.add(1, ordering: .relaxed) }
    }
}
