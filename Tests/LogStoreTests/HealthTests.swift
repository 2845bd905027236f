// The health of a device as a value: what makes it slow, suspect and out, what does not, and what
// brings it back.

import Testing

@testable import LogStore

@Suite struct HealthTests {
    private static let millisecond: UInt64 = 1_000_000

    /// A device that has answered in its usual time for a while.
    private func settled(_ nanoseconds: UInt64 = 100_000) -> DeviceHealth {
        var health = DeviceHealth()
        for _ in 0..<200 { health.answered(nanoseconds, others: nanoseconds, at: 1) }
        #expect(health.grade == .healthy)
        #expect(health.usual == nanoseconds && health.recent == nanoseconds)
        return health
    }

    @Test func lateAnswersMakeItSlowAndGoodOnesHealthy() {
        var health = settled()
        var count = 0
        while health.grade == .healthy, count < 100 {
            health.answered(10 * Self.millisecond, others: 100_000, at: 1)
            count += 1
        }
        #expect(health.grade == .slow && count < 20, "\(count)")
        #expect(health.usual < 2 * Self.millisecond, "what is usual stays: \(health.usual)")
        #expect(health.spells == 1)
        // One good answer among late ones is no recovery.
        for number in 0..<100 {
            let isGood = number % 10 > 0
            health.answered(isGood ? 100_000 : 10 * Self.millisecond, others: 100_000, at: 1)
            #expect(health.grade == .slow)
        }
        for _ in 0..<16 { health.answered(100_000, others: 100_000, at: 1) }
        #expect(health.grade == .healthy)
    }

    @Test func aSingleLateAnswerIsNothing() {
        var health = settled()
        for _ in 0..<50 {
            health.answered(2 * Self.millisecond, others: 100_000, at: 1)
            for _ in 0..<30 { health.answered(100_000, others: 100_000, at: 1) }
            #expect(health.grade == .healthy)
        }
    }

    @Test func aLoadThatSlowsAllSlowsNone() {
        var health = settled()
        for _ in 0..<500 {
            health.answered(20 * Self.millisecond, others: 15 * Self.millisecond, at: 1)
        }
        #expect(health.grade == .healthy)
    }

    @Test func underAMillisecondNobodyIsSlow() {
        var health = settled(20_000)
        for _ in 0..<500 { health.answered(900_000, others: 20_000, at: 1) }
        #expect(health.grade == .healthy)
    }

    @Test func sizeAndQueueAreTakenOut() {
        let alone = DeviceHealth.normalized(90_000, bytes: 4096, underWay: 1)
        #expect(alone == 90_000)
        #expect(DeviceHealth.normalized(900_000, bytes: 1 << 20, underWay: 1) == 100_000)
        #expect(DeviceHealth.normalized(900_000, bytes: 4096, underWay: 256) == 100_000)
        let absurd = DeviceHealth.normalized(UInt64.max, bytes: UInt64.max, underWay: Int.max)
        #expect(absurd < UInt64.max)
    }

    @Test func silence() {
        var health = settled()
        health.silent(DeviceHealth.lateSilence - 1, hasOthers: true, at: 1)
        #expect(health.grade == .healthy)
        health.silent(DeviceHealth.lateSilence, hasOthers: true, at: 1)
        #expect(health.grade == .slow)
        health.silent(DeviceHealth.longSilence, hasOthers: false, at: 1)
        #expect(health.grade == .slow, "there is nowhere else to go")
        health.silent(DeviceHealth.longSilence, hasOthers: true, at: 1)
        #expect(health.grade == .suspect && health.spells == 1)
        health.silent(100 * DeviceHealth.longSilence, hasOthers: true, at: 1)
        #expect(health.grade == .suspect, "silence alone never takes it out")
        // Four probes, then sixteen.
        for _ in 0..<4 { health.answered(100_000, others: 100_000, at: 2) }
        #expect(health.grade == .slow)
        for _ in 0..<16 { health.answered(100_000, others: 100_000, at: 2) }
        #expect(health.grade == .healthy)
    }

    @Test func aDeviceOfSlowAnswersIsNotSilentSoon() {
        var health = DeviceHealth()
        for _ in 0..<200 { health.answered(30 * Self.millisecond, others: 0, at: 1) }
        #expect(health.grade == .healthy)
        health.silent(400 * Self.millisecond, hasOthers: true, at: 1)
        #expect(health.grade == .healthy)
        health.silent(500 * Self.millisecond, hasOthers: true, at: 1)
        #expect(health.grade == .slow)
    }

    /// Nothing says yet that a minute is late; with others beside it, nobody waits to find out.
    @Test func whatIsAloneIsKnownBeforeItIsJudged() {
        var health = DeviceHealth()
        health.silent(60_000 * Self.millisecond, hasOthers: false, at: 1)
        #expect(health.grade == .healthy)
        for _ in 0..<200 { health.answered(4_000 * Self.millisecond, others: 0, at: 1) }
        health.silent(60_000 * Self.millisecond, hasOthers: false, at: 1)
        #expect(health.grade == .healthy && health.spells == 0)
        health.silent(64_000 * Self.millisecond, hasOthers: false, at: 1)
        #expect(health.grade == .slow)
        var other = DeviceHealth()
        other.silent(DeviceHealth.lateSilence, hasOthers: true, at: 1)
        #expect(other.grade == .slow)
    }

    @Test func errorsInARow() {
        var health = settled()
        func fail(_ count: Int, hasOthers: Bool, at now: UInt64 = 5) {
            for _ in 0..<count {
                health.failed(isGone: false, counts: true, hasOthers: hasOthers, at: now)
            }
        }
        fail(7, hasOthers: true)
        health.answered(100_000, others: 0, at: 5)
        fail(7, hasOthers: true)
        #expect(health.grade == .healthy && health.errors == 14)
        fail(1, hasOthers: true)
        #expect(health.grade == .suspect)
        // Not before its time, which doubles.
        let second = DeviceHealth.leastHold
        for _ in 0..<20 { health.answered(100_000, others: 0, at: 4 + second) }
        #expect(health.grade == .suspect)
        health.answered(100_000, others: 0, at: 5 + second)
        #expect(health.grade == .slow)
        fail(8, hasOthers: true, at: 10 * second)
        #expect(health.grade == .suspect)
        for _ in 0..<20 { health.answered(100_000, others: 0, at: 11 * second) }
        #expect(health.grade == .suspect)
        for _ in 0..<4 { health.answered(100_000, others: 0, at: 12 * second) }
        #expect(health.grade == .slow)
    }

    @Test func out() {
        var alone = settled()
        for _ in 0..<31 { alone.failed(isGone: false, counts: true, hasOthers: false, at: 1) }
        #expect(alone.grade == .healthy)
        alone.failed(isGone: false, counts: true, hasOthers: false, at: 1)
        #expect(alone.grade == .out && alone.nextProbe == nil)
        for _ in 0..<100 { alone.answered(1, others: 1, at: UInt64.max / 2) }
        #expect(alone.grade == .out)
        var gone = settled()
        gone.failed(isGone: true, counts: false, hasOthers: true, at: 1)
        #expect(gone.grade == .out)
        var patient = settled()
        for _ in 0..<100 { patient.failed(isGone: false, counts: false, hasOthers: true, at: 1) }
        #expect(patient.grade == .healthy && patient.errors == 100)
    }

    @Test func probesComeRarerUntilOneIsAnswered() {
        var health = settled()
        #expect(health.nextProbe == nil)
        health.silent(DeviceHealth.longSilence, hasOthers: true, at: 1000)
        var waits: [UInt64] = []
        var now: UInt64 = 1000
        for _ in 0..<8 {
            let next = health.nextProbe ?? 0
            waits.append((next - now) / Self.millisecond)
            now = next
            health.probed(at: now)
        }
        #expect(waits == [100, 100, 200, 400, 800, 1600, 3200, 3200])
        health.answered(100_000, others: 0, at: now)
        health.probed(at: now)
        #expect(health.nextProbe == now + DeviceHealth.probeInterval)
        #expect(health.probes == 9)
    }
}
