// JobThread: one job's closed loop on one thread. It keeps `depth` operations in flight against its
// engine, handing each refill over as one batch, and takes completions as they come. Everything in
// here belongs to that thread; only the shared board is seen by others. Nothing is allocated in the
// loop except the rare record of a write that completed out of order in a mix.

import Glibc
import Synchronization

/// What the jobs of one run share with whoever watches.
package final class JobBoard: Sendable {
    package let bytesRead = Atomic<UInt64>(0)
    package let bytesWritten = Atomic<UInt64>(0)
    package let operationsRead = Atomic<UInt64>(0)
    package let operationsWritten = Atomic<UInt64>(0)
    package let running = Atomic<Int>(0)
    /// Set when a job failed: the others end.
    package let stop = Atomic<Bool>(false)
    package init() {}
}

package final class JobThread {
    private struct Slot {
        var key: UInt64 = 0
        var revision: UInt64 = 0
        /// The least revision that a read may return.
        var floor: UInt64 = 0
        var start: UInt64 = 0
        var issued: UInt64 = 0
        var direction = BenchDirection.read
        var measured = false
    }

    @exclusivity(unchecked) package private(set) var result = JobResult()
    /// The process's use when measuring began; only job 0 takes it.
    package private(set) var processBaseline = ResourceUse()
    private let options: JobOptions
    private let job: Int
    private let units: UInt64
    private let target: any BenchTarget
    private let board: JobBoard
    private let arena: UnsafeMutableRawBufferPointer
    private let stride: Int
    private let slots: UnsafeMutablePointer<Slot>
    private let free: UnsafeMutablePointer<Int>
    private let completions: UnsafeMutableBufferPointer<BenchCompletion>
    private let batch: UnsafeMutablePointer<Int>
    private let namespace: UInt64
    private let revisionBase: UInt64
    /// Revision issued and completed by key; only where keys are replaced and checked.
    private var issuedRevisions: [UInt32] = []
    private var doneRevisions: [UInt32] = []
    private var plan: JobPlan
    private var freeCount: Int
    private var sampler = RateSampler()
    private var baseline = ResourceUse()

    package init(
        options: JobOptions, job: Int, units: UInt64, target: any BenchTarget, board: JobBoard
    ) {
        self.options = options
        self.job = job
        self.units = units
        self.target = target
        self.board = board
        stride = (Int(options.blockBytes) + 4095) / 4096 * 4096
        let depth = options.depth
        arena = .allocate(byteCount: stride * depth, alignment: 2 << 20)
        slots = .allocate(capacity: depth)
        slots.initialize(repeating: Slot(), count: depth)
        free = .allocate(capacity: depth)
        for index in 0..<depth { free[index] = depth - 1 - index }
        completions = .allocate(capacity: depth)
        completions.initialize(repeating: BenchCompletion(tag: 0))
        batch = .allocate(capacity: depth)
        freeCount = depth
        namespace = options.namespace(job: job)
        revisionBase = wallMilliseconds() << 20
        let fresh = target.insertsFreshKeys
        let base = target.firstFreshKey(job: job)
        plan = JobPlan(
            pattern: options.pattern, readMix: options.readMix, units: units,
            endless: options.timeBased, fresh: fresh,
            freshBase: options.pattern.isMix ? max(base, units) : base,
            seed: options.randomSeed &+ UInt64(job) &* 0x1000_0001)
        if replacing, options.verify {
            issuedRevisions = .init(repeating: 0, count: Int(units))
            doneRevisions = issuedRevisions
        }
        result.name = options.name
        result.job = job
    }

    deinit {
        arena.deallocate()
        slots.deallocate()
        free.deallocate()
        completions.deallocate()
        batch.deallocate()
    }

    private var replacing: Bool {
        options.engine == .kv && options.writeMode == .replace && options.pattern.writes
    }

    /// The thread's body; `ready` waits until every job has its engine.
    package func run(ready: () -> Void) {
        prefault()
        let engine: (any BenchEngine)?
        do throws(BenchError) {
            engine = try target.makeEngine(job: job, arena: arena)
        } catch {
            engine = nil
            result.fail(error.code == 0 ? EIO : error.code, error.description)
            board.stop.store(true, ordering: .relaxed)
        }
        ready()
        if let engine {
            measure(engine)
            engine.finish()
        }
        board.running.subtract(1, ordering: .relaxed)
    }

    /// Bytes that do not compress, in every page, before the clock runs.
    private func prefault() {
        for index in 0..<options.depth {
            Payload.fill(buffer(index), namespace: namespace, key: UInt64(index), revision: 0)
        }
    }

    private func buffer(_ index: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(
            rebasing: arena[index * stride..<index * stride + Int(options.blockBytes)])
    }

    private func measure(_ engine: any BenchEngine) {
        let begin = monotonicNanoseconds()
        beginMeasuring(begin)
        let end = options.runtime == 0 ? UInt64.max : begin + options.rampTime + options.runtime
        loop(engine, rampEnd: begin + options.rampTime, end: end) { [self] in plan.next() }
        let finished = monotonicNanoseconds()
        let measured = max(1, finished - result.started)
        if result.read.operations + result.read.misses > 0 { result.read.runtime = measured }
        if result.write.operations > 0 { result.write.runtime = measured }
        if options.endSync, options.pattern.writes { sync(engine) }
        result.runtime = max(1, monotonicNanoseconds() - result.started)
        if options.verify, options.verifyAfterWrite, !options.pattern.reads { readBack(engine) }
        result.use = ResourceUse.now(thread: true) - baseline
    }

    private func beginMeasuring(_ now: UInt64) {
        let (name, number) = (result.name, result.job)
        result = JobResult()
        (result.name, result.job, result.started) = (name, number, now)
        sampler = RateSampler(now)
        baseline = ResourceUse.now(thread: true)
        if job == 0 {
            processBaseline = ResourceUse.now(thread: false)
            target.resetStatistics()
        }
    }

    /// Reads what a write job wrote and checks it; counted as reads, as fio counts them.
    private func readBack(_ engine: any BenchEngine) {
        var numbers = plan.writtenLately
        let begin = monotonicNanoseconds()
        loop(engine, rampEnd: 0, end: UInt64.max) { [plan] in
            guard let number = numbers.popFirst() else { return nil }
            return JobPlan.Step(direction: .read, key: plan.writtenKey(number))
        }
        if result.read.operations > 0 {
            result.read.runtime = max(1, monotonicNanoseconds() - begin)
        }
    }

    private func sync(_ engine: any BenchEngine) {
        let start = monotonicNanoseconds()
        let code = engine.sync()
        result.syncs += 1
        result.sync.add(monotonicNanoseconds() - start)
        if code != 0 { result.fail(code, "flush: \(errorText(code))") }
    }

    private func loop(
        _ engine: any BenchEngine, rampEnd: UInt64, end: UInt64, next: () -> JobPlan.Step?
    ) {
        var ramping = rampEnd > monotonicNanoseconds()
        var planOver = false
        /// Takes completions and refills; false when all is over.
        func turn(_ ended: UnsafeBufferPointer<BenchCompletion>) -> Bool {
            let now = monotonicNanoseconds()
            if ended.count > 0 { result.completed.addBatch(ended.count) }
            for completion in ended { take(completion, at: now, engine) }
            sampler.note(now, &result)
            while true {
                if ramping, now >= rampEnd {
                    ramping = false
                    beginMeasuring(now)
                }
                if now >= end || board.stop.load(ordering: .relaxed) { planOver = true }
                if !planOver { planOver = !refill(engine, next: next, measured: !ramping) }
                if freeCount < options.depth { return true }
                if planOver { return false }
            }
        }
        if engine.drive(turn) { return }
        var count = 0
        while turn(UnsafeBufferPointer(rebasing: completions[..<count])) {
            count = engine.reap(completions, wait: true)
        }
    }

    /// Fills all free slots and hands them over; false when the plan has ended.
    private func refill(
        _ engine: any BenchEngine, next: () -> JobPlan.Step?, measured: Bool
    ) -> Bool {
        var queued = 0
        var more = true
        while freeCount > 0 {
            guard let step = next() else {
                more = false
                break
            }
            freeCount -= 1
            let tag = free[freeCount]
            let memory = buffer(tag)
            prepare(&slots[tag], step, memory)
            slots[tag].measured = measured
            slots[tag].start = monotonicNanoseconds()
            engine.submit(
                BenchOperation(
                    direction: step.direction, tag: tag, key: step.key, replace: replacing,
                    buffer: memory, arenaOffset: UInt64(tag * stride)))
            result.depth.addDepth(options.depth - freeCount)
            batch[queued] = tag
            queued += 1
        }
        if queued > 0 {
            engine.flush()
            let issued = monotonicNanoseconds()
            for index in 0..<queued { slots[batch[index]].issued = issued }
            result.submitted.addBatch(queued)
        }
        return more
    }

    @inline(__always)
    private func prepare(
        _ slot: inout Slot, _ step: JobPlan.Step, _ memory: UnsafeMutableRawBufferPointer
    ) {
        slot.key = step.key
        slot.direction = step.direction
        slot.revision = 0
        slot.floor = 0
        let tracked = !issuedRevisions.isEmpty && step.key < UInt64(issuedRevisions.count)
        if step.direction == .read {
            if tracked, doneRevisions[Int(step.key)] > 0 {
                slot.floor = revisionBase + UInt64(doneRevisions[Int(step.key)])
            }
            return
        }
        if tracked {
            issuedRevisions[Int(step.key)] += 1
            slot.revision = revisionBase + UInt64(issuedRevisions[Int(step.key)])
        }
        if options.verify {
            Payload.fill(memory, namespace: namespace, key: step.key, revision: slot.revision)
        } else if memory.count >= 16 {
            // Unchecked data only has to differ from block to block.
            memory.storeBytes(of: step.key, as: UInt64.self)
            memory.storeBytes(of: revisionBase, toByteOffset: 8, as: UInt64.self)
        }
    }

    private func take(
        _ completion: BenchCompletion, at now: UInt64, _ engine: any BenchEngine
    ) {
        let slot = slots[completion.tag]
        if completion.error != 0 {
            result.fail(
                completion.error,
                "\(slot.direction) of block \(slot.key): \(errorText(completion.error))")
            board.stop.store(true, ordering: .relaxed)
        } else if slot.direction == .read, !completion.hit {
            if slot.measured { result.read.misses += 1 }
        } else {
            if slot.measured { record(slot, at: now) }
            if slot.direction == .write {
                plan.completed(slot.key)
                if slot.revision > revisionBase {
                    let done = UInt32(slot.revision - revisionBase)
                    doneRevisions[Int(slot.key)] = max(doneRevisions[Int(slot.key)], done)
                }
            } else if options.verify {
                check(completion.leased ?? UnsafeRawBufferPointer(buffer(completion.tag)), slot)
            }
        }
        engine.release(tag: completion.tag)
        free[freeCount] = completion.tag
        freeCount += 1
    }

    @inline(__always)
    private func record(_ slot: Slot, at now: UInt64) {
        let bytes = options.blockBytes
        func add(_ direction: inout DirectionResult) {
            direction.bytes += bytes
            direction.operations += 1
            if target.isAsynchronous { direction.submission.add(slot.issued &- slot.start) }
            // A completion can be reaped in the call that handed it over.
            let completion = now &- min(now, slot.issued)
            direction.completion.add(completion)
            direction.histogram.add(completion)
            direction.total.add(now &- slot.start)
        }
        if slot.direction == .read {
            add(&result.read)
            board.bytesRead.add(bytes, ordering: .relaxed)
            board.operationsRead.add(1, ordering: .relaxed)
        } else {
            add(&result.write)
            board.bytesWritten.add(bytes, ordering: .relaxed)
            board.operationsWritten.add(1, ordering: .relaxed)
        }
        result.steps.add(now &- slot.start)
    }

    private func check(_ bytes: UnsafeRawBufferPointer, _ slot: Slot) {
        let revision = Payload.claimedRevision(bytes, namespace: namespace, key: slot.key)
        let wrong = Payload.firstMismatch(
            bytes, namespace: namespace, key: slot.key, revision: revision)
        let newest =
            slot.key < UInt64(issuedRevisions.count)
            ? revisionBase + UInt64(issuedRevisions[Int(slot.key)]) : UInt64.max
        if wrong == nil, revision >= slot.floor, revision <= newest { return }
        result.verifyErrors += 1
        let place =
            wrong.map { "byte \($0) is wrong (or was written without --verify)" }
            ?? "revision \(revision) is not current"
        result.fail(EILSEQ, "verify: block \(slot.key) of job \(job): \(place)")
        if !issuedRevisions.isEmpty || options.engine != .kv {
            board.stop.store(true, ordering: .relaxed)
        }
    }
}

/// Turns counters into rates, one sample each 500 ms, as fio's bw and iops lines show them.
struct RateSampler {
    private static let interval: UInt64 = 500_000_000
    private var last: UInt64
    private var bytes: (UInt64, UInt64) = (0, 0)
    private var operations: (UInt64, UInt64) = (0, 0)

    init(_ now: UInt64 = 0) { last = now }

    @inline(__always)
    mutating func note(_ now: UInt64, _ result: inout JobResult) {
        guard now &- last >= Self.interval else { return }
        sample(now, &result)
    }

    private mutating func sample(_ now: UInt64, _ result: inout JobResult) {
        let seconds = Double(now - last) / 1e9
        func rate(_ count: UInt64, _ before: UInt64, _ unit: Double) -> UInt64 {
            UInt64(Double(count - min(count, before)) / unit / seconds)
        }
        if result.read.operations > 0 {
            result.read.bandwidth.add(rate(result.read.bytes, bytes.0, 1024))
            result.read.rate.add(rate(result.read.operations, operations.0, 1))
        }
        if result.write.operations > 0 {
            result.write.bandwidth.add(rate(result.write.bytes, bytes.1, 1024))
            result.write.rate.add(rate(result.write.operations, operations.1, 1))
        }
        bytes = (result.read.bytes, result.write.bytes)
        operations = (result.read.operations, result.write.operations)
        last = now
    }
}
