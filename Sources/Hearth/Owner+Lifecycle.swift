// The beginning and the end of an owner thread: open, waiting for recovery, close. Closing refuses
// new operations, lets those under way end, flushes, makes a checkpoint, and only then closes
// files.

import BlockIO
import Glibc
import LogStore
import Prefetch
import Staging
import Tiering

struct Lifecycle {
    enum Phase {
        case open
        /// New operations are refused; those under way end.
        case draining
        case flushing
        case checkpointing
        /// The last I/O ends.
        case settling
        case closed
    }

    var phase = Phase.open
    var waitingForRecovery: [@Sendable (Bool) -> Void] = []
    var waitingForClose: [@Sendable () -> Void] = []

    var refuses: Bool { phase != .open }

    mutating func recovered() {
        for waiter in waitingForRecovery { waiter(true) }
        waitingForRecovery = []
    }
}

extension Owner {
    func waitForRecovery(_ done: @escaping @Sendable (Bool) -> Void) {
        if store.isRecovered {
            done(true)
        } else if lifecycle.phase != .open {
            done(false)
        } else {
            lifecycle.waitingForRecovery.append(done)
        }
    }

    func beginClose(_ done: @escaping @Sendable () -> Void) {
        lifecycle.waitingForClose.append(done)
        guard lifecycle.phase == .open else { return }
        lifecycle.phase = .draining
        tiered.beginClose()
    }

    func advanceClosing() {
        switch lifecycle.phase {
        case .draining:
            guard isQuiet || leaveSilent() else { return }
            lifecycle.phase = .flushing
            let token = control { [unowned self] _ in startCheckpoint() }
            store.flush(token: token, through: UInt64.max)
        case .settling:
            guard isQuiet || leaveSilent() else { return }
            lifecycle.phase = .closed
        default: break
        }
    }

    private func startCheckpoint() {
        lifecycle.phase = .checkpointing
        if store.log.readOnly {
            lifecycle.phase = .settling
            return
        }
        let token = control { [unowned self] _ in lifecycle.phase = .settling }
        store.checkpoint(token: token)
    }
}

/// What opening hands to the thread that asked.
struct OpenedEngine: Sendable {
    var shared: SharedStore
    var configuration: Configuration
}

/// A thread of its own for one store, from open to close.
final class OwnerThread: Sendable {
    private let configuration: Configuration
    private let opened: @Sendable (Result<OpenedEngine, HearthError>) -> Void

    private init(
        _ configuration: Configuration,
        _ opened: @escaping @Sendable (Result<OpenedEngine, HearthError>) -> Void
    ) {
        self.configuration = configuration
        self.opened = opened
    }

    /// Starts the thread; `opened` is called once, from it (or from here when there is no thread).
    static func start(
        _ configuration: Configuration,
        _ opened: @escaping @Sendable (Result<OpenedEngine, HearthError>) -> Void
    ) {
        let reference = Unmanaged.passRetained(OwnerThread(configuration, opened))
        var thread = pthread_t()
        let failure = pthread_create(
            &thread, nil,
            { argument in
                if let argument {
                    Unmanaged<OwnerThread>.fromOpaque(argument).takeRetainedValue().main()
                }
                return nil
            }, reference.toOpaque())
        guard failure == 0 else {
            reference.release()
            opened(
                .failure(
                    HearthError(
                        .resource, operation: "open", subject: "the owner thread", errno: failure,
                        advice: "The process may start no more threads: raise its limit.")))
            return
        }
        pthread_detach(thread)
    }

    private func main() {
        Self.nameThread("hearth-owner")
        let driver: any BlockDriver
        do throws(IOError) {
            let choice: DriverChoice =
                switch configuration.driver {
                case .automatic: .automatic
                case .ioUring: .ioUring
                case .threads: .threads
                }
            driver = try makeDriver(
                choice, regions: RegionTable(), depth: configuration.queueDepth)
        } catch {
            opened(.failure(HearthError(driver: error)))
            return
        }
        let (closers, remnant) = serve(driver)
        if let remnant {
            // The kernel may still write where these requests point: memory stays, and the driver
            // with it.
            _ = Unmanaged.passRetained(remnant)
        } else {
            driver.shutdown()
        }
        for closer in closers { closer() }
    }

    /// What tools show the thread as. Glibc's call for it is hidden from Swift's module.
    static func nameThread(_ name: StaticString) {
        let file = Glibc.open("/proc/thread-self/comm", O_WRONLY | O_CLOEXEC)
        guard file >= 0 else { return }
        _ = Glibc.write(file, name.utf8Start, name.utf8CodeUnitCount)
        _ = Glibc.close(file)
    }

    /// Opens and runs the store; on return nothing of it refers to the driver any more, but for a
    /// store that a silent device still has requests of.
    private func serve(
        _ driver: any BlockDriver
    ) -> (closers: [@Sendable () -> Void], remnant: StagedStore?) {
        let engine = Engine()
        let store: TieredStore
        do throws(StoreError) {
            store = try TieredStore.open(
                configuration.tiered, driver: driver, clock: engine.clock)
        } catch {
            opened(.failure(HearthError(error)))
            return ([], nil)
        }
        if configuration.openMode == .strict {
            while !store.isRecovered || !store.isIdle {
                if !store.pump() { driver.wait(until: engine.clock.monotonic + 10_000_000) }
            }
            if let failure = store.staged.log.recoveryFailure {
                store.shutdown()
                opened(.failure(HearthError(failure)))
                return ([], nil)
            }
        }
        let recorder: Recorder?
        do throws(HearthError) {
            recorder = try configuration.recordFile.map { path throws(HearthError) in
                try Recorder(path: path, limitBytes: configuration.recordLimitBytes)
            }
        } catch {
            store.shutdown()
            opened(.failure(error))
            return ([], nil)
        }
        let owner = Owner(
            engine: engine, driver: driver, store: store, configuration: configuration)
        engine.setDriver(driver)
        let shared = SharedStore(engine: engine, store: store, recorder: recorder)
        let learnt = LearntKeeper(owner, shared)
        let page = PageWriter(owner, shared)
        opened(.success(OpenedEngine(shared: shared, configuration: configuration)))
        owner.run()
        owner.endRest()
        recorder?.end()
        learnt?.end(owner)
        page?.end(owner)
        for waiter in owner.lifecycle.waitingForRecovery { waiter(false) }
        for sink in owner.eventSinks { sink.end() }
        engine.setDriver(nil)
        let remnant = store.staged.log.leavesRequests ? store.staged : nil
        store.shutdown()
        return (owner.lifecycle.waitingForClose, remnant)
    }
}

extension Configuration {
    var staged: StagedConfiguration {
        var made = StagedConfiguration(
            log: core(entries: effectiveIndexEntries, tables: effectiveTableCacheBytes),
            stagingBytes: stagingBytes ?? 0, inclusive: stagingMode == .inclusive)
        made.slabBytes = slabBytes
        return made
    }
}

extension Configuration {
    var tiered: TieredConfiguration {
        var made = TieredConfiguration(staged)
        made.prefetch = prefetching(slabs: (stagingBytes ?? 0) / slabBytes)
        made.staged.keepsParts = made.prefetch.predictors.contains(.layer)
        made.engine = engineTier
        made.overload = overload == .memory ? .staysInMemory : .waits
        made.writeMoment = writeMoment == .again ? .secondTouch : .insert
        made.writeBudget = writeBudgetBytesPerDay
        return made
    }

    /// A place for each block that the engine can hold, within a 64th of the memory limit.
    var engineTier: EngineTierConfiguration {
        var made = EngineTierConfiguration()
        made.capacity = engineMemoryBytes
        made.highWatermark = engineHighWatermark
        made.lowWatermark = engineLowWatermark
        let blocks = Int(clamping: engineMemoryBytes / UInt64(max(1, expectedBlockBytes)))
        made.blocks = max(1 << 10, min(blocks, memoryLimitBytes / (64 * 16)))
        return made
    }

    /// Tables in proportion to what they could ever bring in.
    func prefetching(slabs: Int) -> PrefetchConfiguration {
        var made = PrefetchConfiguration()
        made.predictors = prefetch.predictors
        made.picks = max(1 << 10, min(1 << 17, memoryLimitBytes / (64 * 16)))
        made.successors = max(1 << 10, min(effectiveIndexEntries, memoryLimitBytes / (32 * 64)))
        made.sessions = max(1 << 8, min(1 << 12, memoryLimitBytes / (256 * 128)))
        made.sessionKeys = max(1 << 12, min(1 << 17, memoryLimitBytes / (64 * 48)))
        made.blocks = min(1 << 15, max(1 << 10, 2 * slabs))
        made.requests = min(1 << 12, max(1 << 8, made.blocks / 8))
        return made
    }
}

extension Configuration.Prefetch {
    var predictors: PredictorSet {
        switch self {
        case .off: []
        case .chain: .chain
        case .successor: .successor
        case .layer: [.layer, .pages]
        case .session: .session
        case .all: .all
        }
    }
}
