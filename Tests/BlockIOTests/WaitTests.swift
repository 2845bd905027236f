// WaitTests: waiting, waking, deadlines and cancelling.

import BlockIO
import Glibc
import Synchronization
import Testing

/// Carries a driver to the thread that wakes it: `wake` is the one call any thread may make.
private struct Waker: @unchecked Sendable {
    let driver: any BlockDriver
}

private func onThread(_ body: @escaping @Sendable () -> Void) -> pthread_t {
    final class Box {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
    var thread = pthread_t()
    pthread_create(
        &thread, nil,
        { context in
            if let context { Unmanaged<Box>.fromOpaque(context).takeRetainedValue().body() }
            return nil
        }, Unmanaged.passRetained(Box(body)).toOpaque())
    return thread
}

@Suite struct WaitTests {
    @Test(arguments: Flavour.allCases)
    func waitEndsAtItsTime(_ flavour: Flavour) throws {
        let rig = try Rig(flavour)
        let start = rig.clock.monotonic
        rig.driver.wait(until: start + 30_000_000)
        let elapsed = rig.clock.monotonic - start
        #expect(elapsed >= 30_000_000 && elapsed < 5_000_000_000)
        rig.driver.wait(until: 0)
        #expect(rig.driver.statistics.waits == 2)
    }

    @Test(arguments: Flavour.allCases)
    func waitSleepsInsteadOfSpinning(_ flavour: Flavour) throws {
        let rig = try Rig(flavour)
        var before = timespec()
        var after = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before)
        rig.driver.wait(until: rig.clock.monotonic + 100_000_000)
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after)
        let used =
            (after.tv_sec - before.tv_sec) * 1_000_000_000 + after.tv_nsec - before.tv_nsec
        #expect(used < 20_000_000)
    }

    @Test(arguments: Flavour.allCases)
    func wakeBeforeWaitEndsTheNextOneOnly(_ flavour: Flavour) throws {
        let rig = try Rig(flavour)
        rig.driver.wake()
        rig.driver.wake()
        let start = rig.clock.monotonic
        rig.driver.wait(until: start + 5_000_000_000)
        #expect(rig.clock.monotonic - start < 1_000_000_000)
        let second = rig.clock.monotonic
        rig.driver.wait(until: second + 30_000_000)
        #expect(rig.clock.monotonic - second >= 30_000_000)
    }

    @Test(arguments: Flavour.allCases)
    func wakeFromAnotherThread(_ flavour: Flavour) throws {
        let rig = try Rig(flavour)
        let waker = Waker(driver: rig.driver)
        let rounds = 2000
        let asked = Atomic<Int>(0)
        let seen = Atomic<Int>(0)
        let thread = withUnsafePointer(to: asked) { asked in
            withUnsafePointer(to: seen) { seen in
                let askedAddress = UInt(bitPattern: asked)
                let seenAddress = UInt(bitPattern: seen)
                return onThread {
                    guard let asked = UnsafePointer<Atomic<Int>>(bitPattern: askedAddress),
                        let seen = UnsafePointer<Atomic<Int>>(bitPattern: seenAddress)
                    else { return }
                    for round in 1...rounds {
                        asked.pointee.store(round, ordering: .sequentiallyConsistent)
                        waker.driver.wake()
                        // Every other wake races with the sleeper going to sleep.
                        while seen.pointee.load(ordering: .acquiring) < round { sched_yield() }
                        if round % 100 == 0 { usleep(500) }
                    }
                }
            }
        }
        let start = rig.clock.monotonic
        var last = 0
        while last < rounds, rig.clock.monotonic - start < 20_000_000_000 {
            rig.driver.wait(until: rig.clock.monotonic + 2_000_000_000)
            last = asked.load(ordering: .sequentiallyConsistent)
            seen.store(last, ordering: .releasing)
        }
        #expect(last == rounds)
        // A lost wake would have slept its two seconds out.
        #expect(rig.clock.monotonic - start < 2_000_000_000)
        seen.store(rounds, ordering: .releasing)
        pthread_join(thread, nil)
    }

    @Test(arguments: Flavour.allCases)
    func deadlineBeforeTheKernelIsETIME(_ flavour: Flavour) throws {
        let rig = try Rig(flavour)
        let file = try rig.driver.open(rig.directory, "data", .create)
        let memory = Memory(4096, fill: 3)
        #expect(rig.run(.write, file, 0, memory.piece()) == 4096)
        let late = rig.clock.monotonic
        #expect(rig.run(.read, file, 0, memory.piece(), deadline: late) == Int64(-ETIME))
        #expect(rig.isQuiet())
        // Prepared, never submitted, and its time passes.
        let soon = rig.clock.monotonic + 5_000_000
        #expect(rig.prepare(5, .read, file, 0, memory.piece(), deadline: soon))
        usleep(10_000)
        let batch = UnsafeMutableBufferPointer<IOCompletion>.allocate(capacity: 4)
        defer { batch.deallocate() }
        #expect(rig.driver.reap(batch) == 1)
        #expect(batch[0].tag == 5 && batch[0].result == Int64(-ETIME))
        // One with time enough is not touched.
        let far = rig.clock.monotonic + 60_000_000_000
        #expect(rig.run(.read, file, 0, memory.piece(), deadline: far) == 4096)
        #expect(rig.driver.statistics.cancelled == 2)
    }

    @Test(arguments: Flavour.allCases)
    func cancelBeforeSubmitIsECANCELED(_ flavour: Flavour) throws {
        let rig = try Rig(flavour, depth: 4)
        let file = try rig.driver.open(rig.directory, "data", .create)
        let memory = Memory(4096 * 4, fill: 3)
        for tag in 0..<4 as Range<UInt64> {
            #expect(rig.prepare(tag, .write, file, tag * 4096, memory.piece(0, 4096)))
        }
        rig.driver.cancel(tag: 1)
        rig.driver.cancel(tag: 1)
        rig.driver.cancel(tag: 1000)
        let found = rig.collect(4)
        #expect(Set(found.map(\.tag)) == [0, 1, 2, 3])
        for completion in found {
            #expect(completion.result == (completion.tag == 1 ? Int64(-ECANCELED) : 4096))
        }
        #expect(rig.isQuiet())
        // The places are whole again.
        for tag in 0..<4 as Range<UInt64> {
            #expect(rig.prepare(tag, .read, file, 0, memory.piece(0, 4096)))
        }
        #expect(rig.collect(4).allSatisfy { $0.result == 4096 })
    }

    @Test(arguments: Flavour.urings)
    func inFlightIsCancelledByTagAndByDeadline(_ flavour: Flavour) throws {
        let rig = try Rig(flavour)
        // An empty pipe: a read of it stays with the kernel until it is cancelled.
        #expect(mkfifo(rig.path + "/pipe", 0o600) == 0)
        let pipe = try rig.driver.open(rig.directory, "pipe", .existing)
        let memory = Memory(8192)
        #expect(rig.prepare(1, .read, pipe, 0, memory.piece(0, 4096)))
        rig.driver.submit()
        #expect(rig.isQuiet())
        rig.driver.cancel(tag: 1)
        let first = rig.collect(1)
        #expect(first.map(\.tag) == [1] && first[0].result == Int64(-ECANCELED))

        let start = rig.clock.monotonic
        let deadline = start + 40_000_000
        #expect(
            rig.run(.read, pipe, 0, memory.piece(0, 4096), deadline: deadline)
                == Int64(-ECANCELED))
        let elapsed = rig.clock.monotonic - start
        #expect(elapsed >= 40_000_000 && elapsed < 5_000_000_000)
        #expect(rig.isQuiet())
        #expect(rig.driver.statistics.cancelled == 2)
        // Shutdown with one in flight lets go of its memory and does not hang.
        #expect(rig.prepare(2, .read, pipe, 0, memory.piece(0, 4096)))
        rig.driver.submit()
    }

    @Test(arguments: Flavour.allCases)
    func everyRequestEndsOnceUnderCancelsAndDeadlines(_ flavour: Flavour) throws {
        let rig = try Rig(flavour, depth: 16)
        let file = try rig.driver.open(rig.directory, "data", .create)
        let length = 2 << 20
        let memory = Memory(length * 16)
        #expect(rig.run(.write, file, 0, memory.piece(0, length)) == Int64(length))
        var random = SystemRandomNumberGenerator()
        var live = Set<UInt64>()
        var next: UInt64 = 0
        var ended = 0
        let batch = UnsafeMutableBufferPointer<IOCompletion>.allocate(capacity: 5)
        defer { batch.deallocate() }
        let end = rig.clock.monotonic + 20_000_000_000
        while ended < 400, rig.clock.monotonic < end {
            while live.count < 16, next < 400 {
                let soon = rig.clock.monotonic + UInt64.random(in: 0..<2_000_000, using: &random)
                let piece = memory.piece(Int(next % 16) * length, length >> Int(next % 3 * 4))
                #expect(
                    rig.prepare(
                        next, .read, file, 0, piece, deadline: next % 3 == 0 ? soon : 0))
                live.insert(next)
                next += 1
            }
            if Bool.random(using: &random) { rig.driver.submit() }
            if let victim = live.randomElement(using: &random) { rig.driver.cancel(tag: victim) }
            rig.driver.wait(until: rig.clock.monotonic + 1_000_000)
            for completion in batch[..<rig.driver.reap(batch)] {
                #expect(live.remove(completion.tag) != nil)
                let allowed = [Int64(-ETIME), Int64(-ECANCELED)]
                #expect(completion.result > 0 || allowed.contains(completion.result))
                ended += 1
            }
        }
        #expect(ended == 400 && live.isEmpty)
        #expect(rig.isQuiet())
        #expect(rig.driver.statistics.completed == 401)
    }
}
