// SimulatedDriver: the driver of a simulated machine, in virtual time. Same contract as the
// others'.
//
// A request is scheduled when it is submitted and has its effect when it is reaped, at or after its
// finish time; time moves only in `wait`. All chance comes from the seed, split by purpose, so the
// same calls give the same completions at the same times: `traceHash` says so. What a kernel would
// refuse is refused (-EINVAL), and what only a driver can see is watched: memory of a write that
// changes between submit and completion is a violation. Owner thread only, but for `wake`.

import BlockIO
import Glibc
import Synchronization

/// A request that was taken and not yet reaped.
struct DriverSlot {
    enum Phase { case free, prepared, submitted }

    var phase = Phase.free
    var request = IORequest(
        tag: 0, operation: .read, file: .none, fileOffset: 0,
        piece: Piece(region: .process, offset: 0, length: 0))
    var device = 0
    var submitTime: UInt64 = 0
    var startTime: UInt64 = 0
    /// The event that finishes it; an event with another number is stale.
    var event: UInt64 = 0
    /// What a write had in memory when it was submitted.
    var extent: Extent?
    var inFlight = -1
    /// Bytes that earlier parts of a short transfer moved.
    var progress = 0
    /// Decided before the device has seen it: an errno, or 0.
    var verdict: Int32 = 0
    var faults: UInt32 = 0
    var faultSeed: UInt64 = 0
    /// Effects completed when a sync was submitted: those it covers.
    var syncSequence: UInt64 = 0
}

struct DriverHandle {
    var device: Int
    var incarnation: UInt64
    var isDirectory: Bool
    /// In the device's files or directories.
    var index: Int
    var exempt: Bool
    var inFlight = 0
}

/// When one device's channels and buses are free.
struct DeviceQueue {
    var channels: ContiguousArray<UInt64>
    var busFree: UInt64 = 0
    var writeBusFree: UInt64 = 0
}

struct DriverEvent {
    var time: UInt64
    var order: UInt64
    var slot: Int

    @inline(__always)
    static func < (left: DriverEvent, right: DriverEvent) -> Bool {
        left.time != right.time ? left.time < right.time : left.order < right.order
    }
}

package final class SimulatedDriver: BlockDriver {
    package let kind = DriverKind.simulated
    package let limits: DriverLimits
    package let regions: RegionTable
    package internal(set) var statistics = DriverStatistics()

    package let machine: SimulatedMachine
    package let clock: SimulatedClock
    package let plan: FaultPlan
    package let latency: LatencyModel

    /// How often each fault had an effect.
    package internal(set) var faultCounts: [FaultKind: UInt64] = [:]
    /// Of the kinds of which the plan allows one, it has been.
    var singleHasStruck = false
    /// Off: no fault is injected from here on (those that are on the medium stay).
    package var faultsEnabled = true
    /// What the core did wrong with memory, in words.
    package internal(set) var violations: [String] = []
    /// Hash of every call, completion and result in order.
    package internal(set) var traceHash: UInt64 = 0xCBF2_9CE4_8422_2325
    /// Writes, syncs, allocations and punches submitted.
    package internal(set) var boundaryCount = 0
    /// The driver goes dead when `boundaryCount` gets here, with that request in flight; 0 for
    /// never.
    package var crashAfterBoundary = 0
    /// Nothing completes any more and control calls fail: the moment to crash the machine.
    package internal(set) var dead = false
    /// Garbage is put into the destination of a read while it is in flight.
    package var scribblesReads = true
    /// A wait with nothing in flight sleeps for real until `wake`, for an owner on its own thread;
    /// else it returns at once and time goes to the deadline.
    package var blocksWhenIdle = false

    let id: UInt64
    let generation: UInt64
    let slots: UnsafeMutablePointer<DriverSlot>
    var freeSlots: ContiguousArray<Int> = []
    var prepared: ContiguousArray<Int> = []
    var events = EventQueue()
    /// Events of hung devices.
    var held: ContiguousArray<DriverEvent> = []
    var eventCount: UInt64 = 0
    var handles: ContiguousArray<DriverHandle?> = []
    var queues: ContiguousArray<DeviceQueue> = []
    var registered: Set<UInt16> = []
    var faultRandom: SimulatedRandom
    var latencyRandom: SimulatedRandom
    /// For each operation, the kinds that are on and their thresholds of 2^64.
    let activeFaults: ContiguousArray<ContiguousArray<(kind: FaultKind, threshold: UInt64)>>
    private let woken = Atomic<Bool>(false)
    private let sleeper: UnsafeMutablePointer<sem_t>

    package init(
        machine: SimulatedMachine, regions: RegionTable, clock: SimulatedClock,
        faults plan: FaultPlan = .none, latency: LatencyModel = .constant(100_000), seed: UInt64,
        limits: DriverLimits = DriverLimits(depth: 256, transferBytes: 1 << 20)
    ) {
        precondition(limits.depth > 0, "a driver needs a depth")
        precondition(
            limits.transferBytes >= SimulatedPage.bytes
                && limits.transferBytes % SimulatedPage.bytes == 0, "transfers are whole pages")
        (self.machine, self.regions, self.clock) = (machine, regions, clock)
        (self.plan, self.latency, self.limits) = (plan, latency, limits)
        id = machine.newDriver()
        generation = machine.generation
        faultRandom = SimulatedRandom(seed: seed, purpose: .faults)
        latencyRandom = SimulatedRandom(seed: seed, purpose: .latency)
        activeFaults = Self.thresholds(plan)
        slots = .allocate(capacity: limits.depth)
        slots.initialize(repeating: DriverSlot(), count: limits.depth)
        freeSlots = ContiguousArray((0..<limits.depth).reversed())
        sleeper = .allocate(capacity: 1)
        sem_init(sleeper, 0, 0)
        if plan[.staleRead] > 0 { machine.state.keepsPrevious = true }
        statistics.grants = "simulated"
    }

    deinit {
        slots.deinitialize(count: limits.depth)
        slots.deallocate()
        sem_destroy(sleeper)
        sleeper.deallocate()
    }

    private static func thresholds(
        _ plan: FaultPlan
    ) -> ContiguousArray<ContiguousArray<(kind: FaultKind, threshold: UInt64)>> {
        let operations: [IOOperation] = [.read, .write, .sync, .allocate, .punchHole]
        return ContiguousArray(
            operations.map { operation in
                ContiguousArray(
                    FaultKind.allCases.filter { $0.applies(to: operation) && plan[$0] > 0 }.map {
                        let scaled = plan[$0] * 0x1p64
                        return ($0, scaled >= 0x1p64 ? UInt64.max : UInt64(scaled))
                    })
            })
    }

    /// Requests taken and not yet reaped.
    package var inFlight: Int { limits.depth - freeSlots.count }

    /// How often a kind of fault had an effect.
    package func faultCount(_ kind: FaultKind) -> UInt64 { faultCounts[kind] ?? 0 }

    // MARK: Waiting

    package func wait(until deadline: UInt64) {
        statistics.waits += 1
        submit()
        if takeWake() { return }
        let now = clock.monotonic
        if let next = nextEventTime(now: now) {
            if next > now { clock.advance(to: min(next, deadline)) }
            return
        }
        if blocksWhenIdle { sleep(bounded: deadline != UInt64.max) }
        if deadline != UInt64.max, !woken.load(ordering: .acquiring) { clock.advance(to: deadline) }
        _ = takeWake()
    }

    package func wake() {
        if !woken.exchange(true, ordering: .acquiringAndReleasing) { sem_post(sleeper) }
    }

    private func takeWake() -> Bool {
        if !woken.exchange(false, ordering: .acquiringAndReleasing) { return false }
        _ = sem_trywait(sleeper)
        return true
    }

    /// Until woken; a bounded sleep lasts a millisecond of real time at most, since virtual
    /// deadlines come as fast as they are waited for.
    private func sleep(bounded: Bool) {
        while !woken.load(ordering: .acquiring) {
            if !bounded {
                _ = sem_wait(sleeper)
                continue
            }
            var time = timespec()
            clock_gettime(CLOCK_REALTIME, &time)
            time.tv_nsec += 1_000_000
            if time.tv_nsec >= 1_000_000_000 {
                time.tv_nsec -= 1_000_000_000
                time.tv_sec += 1
            }
            if sem_timedwait(sleeper, &time) != 0 { return }
        }
    }

    package func shutdown() {
        if isGone { return }
        precondition(inFlight == 0, "shutdown with requests in flight")
        for index in handles.indices where handles[index] != nil { close(FileID(Int32(index))) }
    }

    /// Dead by a boundary, or by a crash of its machine.
    var isGone: Bool { dead || generation != machine.generation }

    // MARK: Trace

    @inline(__always)
    func trace(_ word: UInt64) {
        var mixed = (traceHash ^ word) &* 0x9E37_79B9_7F4A_7C15
        mixed ^= mixed >> 29
        traceHash = mixed
    }

    func trace(_ text: String) {
        for byte in text.utf8 { trace(UInt64(byte)) }
    }
}

/// A binary heap by time, then order.
struct EventQueue {
    private var heap: ContiguousArray<DriverEvent> = []

    var first: DriverEvent? { heap.first }

    mutating func push(_ event: DriverEvent) {
        heap.append(event)
        var index = heap.count - 1
        while index > 0 {
            let parent = (index - 1) / 2
            if !(heap[index] < heap[parent]) { return }
            heap.swapAt(index, parent)
            index = parent
        }
    }

    mutating func pop() {
        let last = heap.removeLast()
        if heap.isEmpty { return }
        heap[0] = last
        var index = 0
        while true {
            let left = 2 * index + 1
            if left >= heap.count { return }
            let right = left + 1
            let child = right < heap.count && heap[right] < heap[left] ? right : left
            if !(heap[child] < heap[index]) { return }
            heap.swapAt(index, child)
            index = child
        }
    }
}
