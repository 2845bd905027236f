// PumpedStore: the real store, opened by a tool that writes: it pumps the log on its own thread and
// waits for what it asked. The store is opened as it is, whoever made it (see
// LogStoreConfiguration), and closed as its owner would: flushed, with a checkpoint.

import BlockIO
import LogStore
import SegmentFormat

package final class PumpedStore: LogStoreDelegate {
    package let log: LogStore
    private var outcomes: [UInt64: Outcome] = [:]
    private var lastToken: UInt64 = 0
    private var isOpen = true

    /// Nanoseconds without a segment come clean after which the rest is left as it is.
    private static let patience: UInt64 = 30_000_000_000

    /// Opens the store that was just looked at and closed; `blocks` is what its index is to hold.
    /// With `rewriting` nothing is evicted; `leaving` are the damaged segments that blocks are to
    /// be taken out of.
    package init(
        _ manifest: Manifest, _ directories: [String], blocks: Int, driver: any BlockDriver,
        clock: any Clock, holder: String, entropy: (UInt64, UInt64, UInt64, UInt64),
        rewriting: Bool = false, leaving: Set<UInt32> = []
    ) throws(StoreError) {
        var configuration = LogStoreConfiguration(
            manifest: manifest, directories: directories, blocks: blocks, entropy: entropy)
        configuration.holder = holder
        log = try LogStore.open(configuration, driver: driver, clock: clock)
        log.delegate = self
        // Before the first turn, which might evict something.
        if rewriting { log.beginRewriting(leaving: leaving) }
        guard log.manifest.epoch == manifest.epoch else {
            shutDown()
            throw StoreError(
                .input, operation: "open", subject: directories.joined(separator: ", "),
                advice: "Another process opened the store in between: try again.")
        }
        if log.readOnly {
            shutDown()
            throw StoreError(
                .newerFormat, operation: "open", subject: directories.joined(separator: ", "),
                advice: "A newer Hearth has written to it; this one may only read it.")
        }
        while !log.isRecovered { pump() }
    }

    deinit { if isOpen { shutDown() } }

    private func shutDown() {
        isOpen = false
        log.delegate = nil
        log.shutdown()
    }

    // MARK: LogStoreDelegate

    package func finished(_ outcome: Outcome) { outcomes[outcome.token] = outcome }
    package func evicted(_ fingerprint: Fingerprint) {}
    package func holds(namespaceSlot: UInt16) -> Bool { false }

    // MARK: Waiting

    /// One turn; sleeps until something comes when there is nothing to do.
    package func pump() {
        if !log.pump() { log.driver.wait(until: log.clock.monotonic + 2_000_000) }
    }

    package func token() -> UInt64 {
        lastToken += 1
        return lastToken
    }

    /// The outcome of what was asked, if it has come.
    package func take(_ token: UInt64) -> Outcome? { outcomes.removeValue(forKey: token) }

    /// Asks the log for something and waits for the outcome.
    package func ask(_ body: (LogStore, UInt64) -> Void) -> Outcome {
        let token = token()
        body(log, token)
        return outcome(of: token)
    }

    /// Waits for the outcome of what was asked.
    package func outcome(of token: UInt64) -> Outcome {
        while true {
            if let outcome = take(token) { return outcome }
            pump()
        }
    }

    /// Asks, and says what could not be done when it was not.
    package func demand(
        _ operation: String, _ body: (LogStore, UInt64) -> Void
    ) throws(StoreError) {
        let outcome = ask(body)
        guard outcome.status == .done else {
            throw StoreError(
                outcome.status == .noSpace ? .noSpace : .input, operation: operation,
                subject: "the store", errno: outcome.errno,
                advice: "The log could not do it (\(outcome.status)). What was done before stays.")
        }
    }

    /// Lets the segments that hold nothing alive become clean, as far as the devices let them, and
    /// then those of the records that this makes needless. False: something stays as it is.
    package func recycle(progress: () -> Void = {}) -> Bool {
        repeat {
            var reclaimed = log.statistics.reclaimedSegments
            var limit = log.clock.monotonic + Self.patience
            while log.hasVictim || !log.isIdle {
                pump()
                progress()
                if log.statistics.reclaimedSegments != reclaimed {
                    reclaimed = log.statistics.reclaimedSegments
                    limit = log.clock.monotonic + Self.patience
                } else if log.clock.monotonic > limit {
                    return false
                }
            }
        } while log.sealNeedlessRecords()
        return true
    }

    /// Begins something for each of many, as fast as the log takes them, and waits for all. `begin`
    /// is false while there is no room.
    package func askAll<Each>(
        _ all: [Each], _ begin: (LogStore, UInt64, Each) -> Bool
    ) -> [Outcome] {
        let tokens = all.map { each in
            let token = token()
            while !begin(log, token, each) { pump() }
            return token
        }
        return tokens.map { outcome(of: $0) }
    }

    /// Flushes, makes a checkpoint, lets everything come to rest and closes.
    package func close() throws(StoreError) {
        guard isOpen else { return }
        defer { shutDown() }
        try demand("flush") { $0.flush(token: $1, through: UInt64.max) }
        try demand("checkpoint") { $0.checkpoint(token: $1) }
        while !log.isIdle { pump() }
    }
}
