// DeviceHealth: how well one device answers, judged by its latency, by how long it has been silent,
// and by its errors. A value without I/O or a clock of its own; every time is handed in, monotonic
// nanoseconds.
//
//            answers late, or silent for a moment           silent for long, or errors in a row
//   healthy -------------------------------------> slow ---------------------------------------+
//      ^                                            | ^                                        v
//      +--------------------------------------------+ +-------------------------------- suspect
//          16 answers in a row in good time             4 of them, not before its time       |
//                                                                                             v
//                                                             gone, or many errors in a row: out
//
//  - slow: new values are written to other devices; it is read, and takes records.
//  - suspect: takes no writes, and what lies on it is a miss; only probes are read from it.
//  - out: for the rest of the run.
//
// What "late" is follows from what the device was like before and from what the others are like: a
// load that makes all of them slower makes none of them slow. Latencies are taken by size and queue
// before they are compared.
//
// Invariants: without another device to go to nothing is worse than slow by latency or silence
// (there is nothing to gain); `out` is never left.

package struct DeviceHealth: Sendable {
    package enum Grade: UInt8, Sendable, CaseIterable {
        case healthy
        case slow
        case suspect
        case out
    }

    /// Nobody is slow below this, nanoseconds.
    package static let leastLate: UInt64 = 1_000_000
    /// Late is so many times what is usual here, and so many times what the others take.
    static let lateFactor: UInt64 = 8
    static let peerFactor: UInt64 = 4
    /// Late averages in a row that make a device slow, and answers before any judgement.
    static let lateInRow = 8
    static let leastAnswers: UInt64 = 16
    /// Answers in good time in a row that make it better.
    static let goodForHealthy = 16
    static let goodForSlow = 4
    /// Silence, with requests under way, that makes a device slow at least, and suspect.
    package static let lateSilence: UInt64 = 50_000_000
    package static let longSilence: UInt64 = 1_000_000_000
    /// Errors in a row that make it suspect, and out.
    static let errorsForSuspect = 8
    static let errorsForOut = 32
    /// How long a device stays suspect for errors at least; doubled each time it is so again.
    static let leastHold: UInt64 = 1_000_000_000
    static let longestHold: UInt64 = 64_000_000_000
    /// Between two probes; doubled by each that is not answered in good time.
    static let probeInterval: UInt64 = 100_000_000
    static let longestProbeInterval: UInt64 = 3_200_000_000

    package private(set) var grade = Grade.healthy
    /// Mean latency of late, and of always while healthy, by size and queue; nanoseconds.
    package private(set) var recent: UInt64 = 0
    package private(set) var usual: UInt64 = 0
    package private(set) var answers: UInt64 = 0
    package private(set) var errors: UInt64 = 0
    package private(set) var probes: UInt64 = 0
    /// How often it has left `healthy`.
    package private(set) var spells: UInt64 = 0
    package private(set) var errorsInRow = 0
    private var late = 0
    private var good = 0
    private var hold = DeviceHealth.leastHold
    private var heldUntil: UInt64 = 0
    private var interval = DeviceHealth.probeInterval
    private var probeAt: UInt64 = 0

    package init() {}

    // MARK: What happened

    /// A latency as one request of little data alone would have had it: a long one takes its time,
    /// and many at once wait for each other.
    package static func normalized(
        _ nanoseconds: UInt64, bytes: UInt64, underWay: Int
    ) -> UInt64 {
        nanoseconds / (1 + bytes >> 17) / (1 + UInt64(clamping: underWay) >> 5)
    }

    /// A request was answered. `others` is the mean latency of the best of the other devices, 0
    /// where there is none to compare with.
    package mutating func answered(_ nanoseconds: UInt64, others: UInt64, at now: UInt64) {
        errorsInRow = 0
        answers += 1
        if grade == .out { return }
        let limit = limit(others)
        recent = Self.mean(recent, nanoseconds, of: min(answers, 8))
        if grade == .healthy {
            // What it is like is learnt before it is judged.
            let isKnown = answers >= Self.leastAnswers
            late = isKnown && recent > limit ? late + 1 : 0
            if late >= Self.lateInRow {
                worsen(.slow, at: now)
            } else if !isKnown || recent <= limit {
                usual = Self.mean(usual, nanoseconds, of: min(answers, 1024))
            }
            return
        }
        good = nanoseconds <= limit ? good + 1 : 0
        if good > 0 { interval = Self.probeInterval }
        if grade == .suspect, good >= Self.goodForSlow, now >= heldUntil {
            grade = .slow
            good = 0
        } else if grade == .slow, good >= Self.goodForHealthy {
            grade = .healthy
            late = 0
            recent = nanoseconds
        }
    }

    /// Requests are under way, and none has been answered for so long.
    package mutating func silent(_ nanoseconds: UInt64, hasOthers: Bool, at now: UInt64) {
        if nanoseconds >= Self.longSilence, hasOthers {
            worsen(.suspect, at: now)
        } else if nanoseconds >= max(Self.lateSilence, 2 * Self.lateFactor * usual),
            hasOthers || answers >= Self.leastAnswers
        {
            // One that is alone is known before it is judged: it may always be like that.
            worsen(.slow, at: now)
        }
    }

    /// A request has failed. `counts`: towards errors in a row.
    package mutating func failed(isGone: Bool, counts: Bool, hasOthers: Bool, at now: UInt64) {
        errors += 1
        good = 0
        if counts { errorsInRow += 1 }
        if isGone || errorsInRow >= Self.errorsForOut {
            worsen(.out, at: now)
        } else if errorsInRow >= Self.errorsForSuspect, hasOthers, grade != .suspect {
            worsen(.suspect, at: now)
            heldUntil = now &+ hold
            hold = min(2 * hold, Self.longestHold)
        }
    }

    // MARK: Probes

    /// When a probe is wanted next; nil while the device is healthy, or out.
    package var nextProbe: UInt64? { grade == .slow || grade == .suspect ? probeAt : nil }

    package mutating func probed(at now: UInt64) {
        probes += 1
        probeAt = now &+ interval
        interval = min(2 * interval, Self.longestProbeInterval)
    }

    // MARK: Inside

    /// What is still in good time.
    private func limit(_ others: UInt64) -> UInt64 {
        let own = usual * Self.lateFactor
        let peers = others * Self.peerFactor
        return max(Self.leastLate, own, peers)
    }

    private mutating func worsen(_ worse: Grade, at now: UInt64) {
        guard worse.rawValue > grade.rawValue else { return }
        if grade == .healthy { spells += 1 }
        grade = worse
        good = 0
        late = 0
        interval = Self.probeInterval
        probeAt = now &+ interval
    }

    private static func mean(_ old: UInt64, _ new: UInt64, of count: UInt64) -> UInt64 {
        if new >= old { return old + (new - old) / count }
        return old - (old - new) / count
    }
}
