// OwnerPage: what the owner of a store tells in the file `statistics`, read without its lock, and
// whether that owner still lives. A page is only trusted as far as its check goes; nothing that is
// wrong with it says anything about the store.

import BlockIO
import Glibc
import LogStore
import SegmentFormat

package struct OwnerPage: Sendable {
    package enum Owner: String, Sendable {
        /// It has the store open.
        case running
        /// Somebody holds the lock and goes on writing pages, but is no process that is seen from
        /// here: it runs in another container.
        case elsewhere
        /// It closed the store.
        case closed
        /// It ended without closing the store.
        case gone
    }

    package let directory: String
    package let page: StatisticsPage
    package let owner: Owner
    /// Seconds since the figures were collected.
    package let age: UInt64

    /// Whether somebody has the store open.
    package var isOpen: Bool { owner == .running || owner == .elsewhere }

    /// Periods after which a page that is not written anew is a sign that its owner stands still: a
    /// sleeping one writes every tenth time.
    private static let stalePeriods: UInt64 = 15

    /// Whether the owner has not written for longer than it should.
    package var isStale: Bool {
        isOpen && age * 1000 > Self.stalePeriods * UInt64(max(1000, page.periodMilliseconds))
    }

    /// Reads the page in a store's directory.
    package static func read(
        _ directory: String, clock: any Clock
    ) throws(StoreError) -> OwnerPage {
        let path = directory + "/" + StoreFiles.statistics
        var page: StatisticsPage?
        // An owner that opens the store makes the file anew before it writes its first page.
        for attempt in 0..<tries where page == nil {
            if attempt > 0 { usleep(20_000) }
            guard attempt == tries - 1 || access(path, F_OK) == 0 || !isOwned(directory) else {
                continue
            }
            page = try whole(in: contents(directory, path), path)
        }
        guard let page else { throw torn(path) }
        return OwnerPage(directory, page, clock)
    }

    private static let tries = 5

    private static func isOwned(_ directory: String) -> Bool {
        HostProcess.isLocked(directory + "/" + StoreFiles.lock)
    }

    private init(_ directory: String, _ page: StatisticsPage, _ clock: any Clock) {
        self.directory = directory
        self.page = page
        let now = clock.wallSeconds
        age = now > page.wallSeconds ? UInt64(now - page.wallSeconds) : 0
        owner = Self.owner(
            of: page, age: age, lock: directory + "/" + StoreFiles.lock)
    }

    private static func owner(of page: StatisticsPage, age: UInt64, lock: String) -> Owner {
        if page.state == .closed { return .closed }
        if page.processStart != 0,
            HostProcess.startTicks(page.process) == page.processStart
        {
            return .running
        }
        // In another container it has another number there. Who holds the lock now may also be a
        // tool, after a crash: then the pages stand still.
        let isFresh = age * 1000 <= stalePeriods * UInt64(max(1000, page.periodMilliseconds))
        return isFresh && HostProcess.isLocked(lock) ? .elsewhere : .gone
    }

    // MARK: The file

    private static func torn(_ path: String) -> StoreError {
        StoreError(
            .input, operation: "read", subject: path,
            advice: "It holds no whole page of statistics. The store is not concerned: its owner "
                + "writes a new page when it opens the store, or while it has it open.")
    }

    /// Nil: perhaps the next attempt.
    private static func whole(
        in bytes: [UInt8], _ path: String
    ) throws(StoreError) -> StatisticsPage? {
        let found: Result<StatisticsPage, FormatError> = bytes.withUnsafeBytes { bytes in
            do throws(FormatError) {
                return .success(try StatisticsPage.newest(in: bytes))
            } catch {
                return .failure(error)
            }
        }
        switch found {
        case .success(let page): return page
        case .failure(.newerFormat(let version)):
            throw StoreError(
                .newerFormat, operation: "read", subject: path,
                advice: "The page is of version \(version), and this program knows "
                    + "\(StatisticsPage.version): use the hearth of the engine's Hearth.")
        case .failure: return nil
        }
    }

    private static func contents(
        _ directory: String, _ path: String
    ) throws(StoreError) -> [UInt8] {
        do {
            return try SmallFile.read(
                path, room: StatisticsPage.slots * StatisticsPage.slotBytes)
        } catch {
            throw refusal(directory, path, error.errno)
        }
    }

    private static func refusal(
        _ directory: String, _ path: String, _ number: Int32
    ) -> StoreError {
        var found = stat()
        let isThere = stat(directory, &found) == 0
        if number == EACCES || number == EPERM {
            let whose = isThere ? "user \(found.st_uid)" : "another user"
            return StoreError(
                .permission, operation: "read", subject: path, errno: number,
                advice: "The store is of \(whose): only that user and root may look at it.")
        }
        guard isThere else {
            return StoreError(
                .missing, operation: "read", subject: directory, errno: number,
                advice: "There is no such directory.")
        }
        guard found.st_mode & S_IFMT == S_IFDIR else {
            return StoreError(
                .notAStore, operation: "read", subject: directory, errno: number,
                advice: "It is no directory: give the store's directory.")
        }
        guard number == ENOENT else {
            return StoreError(
                .input, operation: "read", subject: path, errno: number,
                advice: "The page of statistics cannot be read.")
        }
        var manifest = stat()
        guard stat(directory + "/" + StoreFiles.manifest, &manifest) == 0 else {
            return StoreError(
                .notAStore, operation: "read", subject: directory,
                advice: "No Hearth store: it holds no manifest.")
        }
        return StoreError(
            .missing, operation: "read", subject: path,
            advice: "There is no page of statistics: it lies in the first of the store's "
                + "directories that is there, unless statisticsPeriodSeconds is 0 or no engine "
                + "that writes one has had the store open.")
    }
}
