// KillChild: a real store on real files, working until it is killed; or opened again and looked at
// against the expected state that the last one left.

import BlockIO
import Glibc
import LogStore
import SimulatedDisk
import Staging

/// One operation of a child under way.
private struct KillSlot {
    var key = 0
    var note = KeyNote.nothing
    var busy = false
    var generation: UInt64 = 0
}

final class KillChild: StoreSink {
    private static let maximumBlock = 64 << 10
    private static let depth = 16

    private let state: ExpectedState
    private let store: StagedStore
    private let driver: any BlockDriver
    private var random: SplitMix64
    private var slots = [KillSlot](repeating: KillSlot(), count: depth)
    private var memory: [UnsafeMutableRawPointer] = []
    private var keyMemory: [UnsafeMutableRawPointer] = []
    private let pieces: UnsafeMutablePointer<Piece>
    private var outstanding = 0
    private var space: UInt16?
    private var controlDone = false
    private var lastAnswer = StoreAnswer(token: 0, status: .invalid)
    private let keyCount: Int
    /// Of a child whose device counts what it takes.
    private let journal: RigJournal?

    /// Runs a child's command line; returns its exit code.
    static func run(_ arguments: Arguments) -> Int32 {
        guard let directory = arguments.string("--directory"),
            let path = arguments.string("--state"), let state = ExpectedState(path: path)
        else { Arguments.refuse("kill-child needs --directory and --state") }
        let evicts = arguments.has("--evicts")
        guard
            let child = KillChild(
                state, directory, seed: UInt64(arguments.number("--seed", 1)), evicts: evicts,
                driver: arguments.string("--driver").flatMap { DriverChoice(rawValue: $0) }
                    ?? .automatic,
                journal: arguments.string("--journal").flatMap {
                    RigJournal(path: $0, counter: arguments.string("--counter"))
                })
        else { return 3 }
        if arguments.string("--prefix") != nil {
            return child.verify(prefix: UInt64(arguments.number("--prefix", 0)))
        }
        if arguments.has("--verify") { return child.verify(evicts: evicts) }
        child.work()
        return 0
    }

    private init?(
        _ state: ExpectedState, _ directory: String, seed: UInt64, evicts: Bool,
        driver choice: DriverChoice, journal: RigJournal?
    ) {
        self.state = state
        self.journal = journal
        random = SplitMix64(seed: seed)
        keyCount = evicts ? ExpectedState.keys : 512
        pieces = .allocate(capacity: Self.depth)
        var log = LogStoreConfiguration(
            directories: [directory], capacityBytes: 0, indexEntries: 16_384,
            entropy: (1, 2, 3, 4))
        log.maximumBlockBytes = Self.maximumBlock
        log.minimumSegmentBytes = 1 << 20
        log.groupBytes = 256 << 10
        log.checkpointMinimumBytes = 8 << 20
        log.checkpointShare = 4
        log.holder = "torture \(getpid())"
        // 4096 keys of 32 KiB on average outgrow 24 segments of 3 MiB. In a cache the oldest
        // segment goes though others hold more that is dead, so 512 keys need room for so many
        // puts (some 40 of each key in 256 segments) that none is left in a segment whose turn
        // it is.
        log.capacityBytes = (3 << 20) * UInt64(evicts ? 24 : 256) + (32 << 20)
        let regions = RegionTable()
        do throws(IOError) {
            driver = try makeDriver(choice, regions: regions, depth: 64)
        } catch {
            report("kill-child: no driver: \(error)")
            return nil
        }
        var configuration = StagedConfiguration(
            log: log, stagingBytes: 4 << 20, inclusive: seed % 2 == 0)
        configuration.slabBytes = 64 << 10
        do throws(StoreError) {
            store = try StagedStore.open(configuration, driver: driver, clock: SystemClock())
        } catch {
            report("kill-child: \(error)")
            return nil
        }
        for _ in 0..<Self.depth {
            memory.append(.allocate(byteCount: Self.maximumBlock + 4096, alignment: 4096))
            keyMemory.append(.allocate(byteCount: 16, alignment: 8))
        }
        store.sink = self
        store.openNamespace(
            token: 1 << 40, fields: [("model", "kill")], aligned: false, timeToLive: 0, capBytes: 0)
        while space == nil { step() }
        while !store.isRecovered { step() }
        state[.ready] = 1
    }

    private func step() {
        if !store.pump() {
            driver.wait(until: min(store.nextDeadline, store.log.clock.monotonic + 2_000_000))
        }
    }

    static func length(_ key: Int, _ revision: UInt64) -> Int {
        let drawn = Payload.mix(UInt64(key) << 32 ^ revision &* 0x9E37)
        return drawn & 3 == 0 ? Int(1 + (drawn >> 8) % 15) << 12 : 1 + Int(drawn >> 8) % 65_535
    }

    static func seed(_ key: Int, _ revision: UInt64) -> UInt64 {
        Payload.seed(namespace: 7, key: key, revision: Int(revision))
    }

    // MARK: Working

    /// Until killed: random puts, gets and deletes, one at a time on each key.
    func work() {
        while true {
            while outstanding < Self.depth { startOne() }
            step()
            state[.evicted] = evictedBefore + store.log.statistics.evictedBlocks
        }
    }

    private lazy var evictedBefore: UInt64 = state[.evicted]

    private func startOne() {
        guard let number = slots.firstIndex(where: { !$0.busy }) else { return }
        let key = random.below(keyCount)
        if slots.contains(where: { $0.busy && $0.key == key }) { return }
        slots[number].busy = true
        slots[number].key = key
        slots[number].generation += 1
        let drawn = random.below(100)
        var operation = prepare(number, key, drawn < 60 ? .put : drawn < 75 ? .delete : .get)
        if drawn < 60 {
            let revision = state.lastRevision(key) + 1
            let durable = drawn < 15
            slots[number].note = KeyNote(
                operation: 1, revision: revision, durability: durable ? 2 : 1)
            let length = Self.length(key, revision)
            Payload.fill(Self.seed(key, revision), from: 0, length, memory[number])
            operation.length = UInt32(length)
            operation.replace = true
            operation.durability = durable ? .durable : .written
            pieces[number].length = UInt64(length)
            state.setIntent(key, slots[number].note)
            journal?.intent(key, slots[number].note)
        } else if drawn < 75 {
            slots[number].note = KeyNote(operation: 2, revision: 0, durability: 0)
            state.setIntent(key, slots[number].note)
            journal?.intent(key, slots[number].note)
        } else {
            slots[number].note = .nothing
        }
        submit(operation)
    }

    private func prepare(_ number: Int, _ key: Int, _ kind: StoreOperationKind) -> StoreOperation {
        keyMemory[number].storeBytes(of: UInt64(key).bigEndian, as: UInt64.self)
        keyMemory[number].storeBytes(of: 0x5EED, toByteOffset: 8, as: UInt64.self)
        var operation = StoreOperation(
            kind: kind, token: slots[number].generation << 16 | UInt64(number),
            namespaceSlot: space ?? 0,
            key: UnsafeRawBufferPointer(start: keyMemory[number], count: 16))
        pieces[number] = Piece(
            region: .process, offset: UInt64(UInt(bitPattern: memory[number])),
            length: UInt64(Self.maximumBlock))
        operation.pieces = UnsafePointer(pieces + number)
        operation.pieceCount = kind == .delete ? 0 : 1
        return operation
    }

    private func submit(_ operation: StoreOperation) {
        outstanding += 1
        while !store.submit(operation) { step() }
    }

    // MARK: Answers

    func answered(_ answer: StoreAnswer) {
        let number = Int(answer.token & 0xFFFF)
        outstanding -= 1
        lastAnswer = answer
        let key = slots[number].key
        let note = slots[number].note
        slots[number].busy = false
        state[.operations] += 1
        switch (note.operation, answer.status) {
        case (1, .stored), (2, .deleted):
            state.setEnd(key, note)
            journal?.end(key, note)
            state[.answered] += 1
        case (2, .notFound): state.setEnd(key, KeyNote(operation: 3, revision: 0, durability: 0))
        case (1, .throttled):
            state.clearIntent(key)
            journal?.nothing(key)
        case (1, _), (2, _):
            report("kill-child: \(answer)")
            exit(4)
        default: if state.ready, answer.status == .hit { checkHit(number, key, answer) }
        }
    }

    func released(_ token: UInt64) {}
    func controlled(_ outcome: Outcome) {
        if outcome.token == 1 << 40 { space = UInt16(truncatingIfNeeded: outcome.version) }
    }
    func happened(_ event: StoreEvent) {}

    private func checkHit(_ number: Int, _ key: Int, _ answer: StoreAnswer) {
        let revision =
            state.end(key).operation == 1 ? state.end(key).revision : state.lastStored(key)
        guard Self.length(key, revision) == Int(answer.length),
            Payload.matches(Self.seed(key, revision), from: 0, Int(answer.length), memory[number])
        else {
            if verifying { return }
            state[.wrong] += 1
            report("kill-child: wrong bytes of key \(key), revision \(revision): \(answer)")
            exit(5)
        }
    }

    private var verifying = false

    // MARK: Verifying

    /// Looks at every key, notes what was found as the new expected state, and closes.
    func verify(evicts: Bool) -> Int32 {
        verifying = true
        for key in 0..<keyCount {
            slots[0].busy = true
            slots[0].key = key
            slots[0].note = .nothing
            slots[0].generation += 1
            submit(prepare(0, key, .get))
            while outstanding > 0 { step() }
            judge(key, lastAnswer, evicts: evicts)
        }
        close()
        return state[.wrong] + state[.resurrected] > 0 ? 5 : 0
    }

    /// Looks at every key of a store as it was after so many writes of its device, and closes.
    func verify(prefix: UInt64) -> Int32 {
        guard let journal else { return 3 }
        verifying = true
        var found = 0
        for (key, allowed) in journal.allowed(keys: keyCount, prefix: prefix).enumerated() {
            slots[0].busy = true
            slots[0].key = key
            slots[0].note = .nothing
            slots[0].generation += 1
            submit(prepare(0, key, .get))
            while outstanding > 0 { step() }
            let isRight =
                lastAnswer.status == .hit
                ? allowed.revisions.contains { holds(key, $0, lastAnswer) }
                : lastAnswer.status == .miss && allowed.absent
            if lastAnswer.status == .hit { found += 1 }
            if !isRight {
                report("rig: after \(prefix) writes key \(key) is \(lastAnswer), not \(allowed)")
                state[.wrong] += 1
            }
        }
        say("rig: \(found) of \(keyCount) keys after \(prefix) writes, \(state[.wrong]) wrong")
        close()
        return state[.wrong] > 0 ? 5 : 0
    }

    private func close() {
        store.beginClose()
        while !store.isIdle { step() }
        store.shutdown()
        driver.shutdown()
    }

    /// Whether the first slot's memory has this revision of the key.
    private func holds(_ key: Int, _ revision: UInt64, _ answer: StoreAnswer) -> Bool {
        Self.length(key, revision) == Int(answer.length)
            && Payload.matches(Self.seed(key, revision), from: 0, Int(answer.length), memory[0])
    }

    private func judge(_ key: Int, _ answer: StoreAnswer, evicts: Bool) {
        let end = state.end(key)
        let intent = state.intent(key)
        let last = state.lastStored(key)
        state[.checked] += 1
        if answer.status == .hit {
            state[.present] += 1
            // In flight: either way. An eviction may be undone by a kill, a delete never.
            var allowed: [UInt64] = intent.operation == 1 ? [intent.revision] : []
            if end.operation == 1 { allowed.append(end.revision) }
            if end.operation == 3, evicts { allowed.append(last) }
            for revision in allowed where holds(key, revision, answer) {
                state.setEnd(key, KeyNote(operation: 1, revision: revision, durability: 1))
                return
            }
            state[end.operation == 2 ? .resurrected : .wrong] += 1
            report("kill: key \(key) has what it cannot: end \(end), intent \(intent), \(answer)")
            return
        }
        if answer.status != .miss {
            state[.wrong] += 1
            report("kill: key \(key): \(answer)")
        }
        if end.operation == 1, intent.operation != 2 {
            state[.missing] += 1
            if !evicts {
                report("kill: key \(key) is lost: end \(end), intent \(intent), \(answer)")
            }
        }
        let gone: UInt64 = end.operation == 2 || intent.operation == 2 ? 2 : 3
        state.setEnd(
            key, KeyNote(operation: end.operation == 0 ? 0 : gone, revision: 0, durability: 0))
    }
}

extension ExpectedState {
    var ready: Bool { self[.ready] == 1 }
}
