// FaultPlan: which faults a run injects, each with its own probability per operation. What each
// kind does is said here, how in SimulatedDriver+Faults.

import BlockIO

package enum FaultKind: UInt8, CaseIterable, Sendable {
    /// A write lands with one bit wrong.
    case bitFlip
    /// A stored bit of what is being read turned over, for good.
    case bitRot
    /// A cluster of 4 KiB pages reads as EIO from now on, until rewritten.
    case latentSectorError
    /// Only some 512-byte sectors land; reported as success.
    case tornWrite
    /// Reported as success, nothing lands.
    case lostWrite
    /// Lands at another place of the same or another open file.
    case misdirectedWrite
    /// Gives what lies at another place of the file.
    case misdirectedRead
    /// Gives what the first differing page held before its last write.
    case staleRead
    /// Part of the transfer first, the rest resumed by the driver.
    case shortIO
    /// EAGAIN from the device, retried by the driver.
    case again
    /// A write or allocation fails with ENOSPC.
    case noSpace
    /// A write, allocation or punch fails with EIO; a part of the write may have landed.
    case ioError
    /// One read fails with EIO; the next may succeed.
    case readError
    /// A sync fails with EIO once; each unflushed change is then durable, or visible but lost at
    /// the next crash, or reverted. A later sync succeeds all the same.
    case syncError
    /// Delayed by up to eight times its latency, so that later requests overtake it.
    case reorder
    /// A hundred times its latency.
    case lateCompletion
    /// The device is slow for a while.
    case slowDevice
    /// The device completes nothing for a while.
    case hungDevice

    /// Changes only when a completion comes, never what it says; exempt files have these too.
    package var isTiming: Bool {
        switch self {
        case .shortIO, .again, .reorder, .lateCompletion, .slowDevice, .hungDevice: true
        default: false
        }
    }

    func applies(to operation: IOOperation) -> Bool {
        switch self {
        case .bitFlip, .tornWrite, .lostWrite, .misdirectedWrite: operation == .write
        case .bitRot, .latentSectorError, .misdirectedRead, .staleRead, .readError:
            operation == .read
        case .shortIO: operation == .read || operation == .write
        case .noSpace: operation == .write || operation == .allocate
        case .ioError: operation != .read && operation != .sync
        case .syncError: operation == .sync
        case .again, .reorder, .lateCompletion, .slowDevice, .hungDevice: true
        }
    }

    @inline(__always)
    var bit: UInt32 { 1 << UInt32(rawValue) }
}

package struct FaultPlan: Sendable {
    private var probabilities: [Double]
    /// Whether a file (by name) or directory (by path) is spared all faults but those of timing, so
    /// that a plan stays solvable; asked once, at open.
    package var exempt: @Sendable (String) -> Bool
    /// How long a slow spell or hang that the plan started lasts.
    package var slowNanoseconds: UInt64 = 1_000_000_000
    package var hangNanoseconds: UInt64 = 5_000_000_000
    package var slowFactor: UInt64 = 20
    /// Holes read as anything, not as zeros: noise, what was there, or zeros, page by page. No
    /// fault: a device that is told to forget may do that, and nobody may read it.
    package var holesAreNoise = false
    /// A misdirected write that is longer stays in its file.
    package var mostPagesAstray = Int.max
    /// Of these kinds one fault strikes in all, and then none any more.
    package private(set) var single: UInt32 = 0

    package init(exempt: @escaping @Sendable (String) -> Bool = { _ in false }) {
        probabilities = Array(repeating: 0, count: FaultKind.allCases.count)
        self.exempt = exempt
    }

    package static let none = FaultPlan()

    /// Probability per operation that the kind applies to.
    package subscript(kind: FaultKind) -> Double {
        get { probabilities[Int(kind.rawValue)] }
        set { probabilities[Int(kind.rawValue)] = newValue }
    }

    /// Lets only one fault of these kinds strike.
    package mutating func allowOne(of kinds: [FaultKind]) {
        single = kinds.reduce(0) { $0 | $1.bit }
    }

    /// A plan of its own for each seed: every kind in `kinds` is on in half the plans, with a
    /// probability drawn up to `ceiling`; hangs and slow spells stay a hundred times rarer.
    package static func swarm(
        seed: UInt64, kinds: [FaultKind] = FaultKind.allCases, ceiling: Double = 0.1,
        exempt: @escaping @Sendable (String) -> Bool = { _ in false }
    ) -> FaultPlan {
        var plan = FaultPlan(exempt: exempt)
        var random = SimulatedRandom(seed: seed, purpose: .faults)
        for kind in kinds {
            let on = random.chance(0.5)
            let probability = Double(random.next() >> 11) * 0x1p-53 * ceiling
            if !on { continue }
            let rare = kind == .hungDevice || kind == .slowDevice
            plan[kind] = rare ? probability / 100 : probability
        }
        return plan
    }
}
