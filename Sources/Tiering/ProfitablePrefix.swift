// ProfitablePrefix: how much of a stored prefix is worth loading. Given what the devices take and
// have to do, and what computing a token takes, it finds the prefix with which the request is ready
// first; what is beyond that is computed sooner than it is read. Pure: facts in, a decision out.
//
// The request is ready when its last layer is computed. Layers are loaded in order while the ones
// before are computed, so with a load that has its first layer at `first` and all of them at
// `ready`, and computing that takes C on `layers` layers, that is the later of
//     max(start, first) + C     and     ready + C / layers.
//
// Invariants: the end that is expected with the prefix claimed is never later than with what is in
// memory alone, but for a probe, which is one block; what is expected of a device is made longer by
// the device's own record of being off (`ReadCost.risk`), never shorter. No allocation.

import LogStore

/// One block of a prefix, where it lies and what has to be read of it.
package struct PrefixBlock: Sendable {
    /// 0 for a block that is on its way already: then it waits for what the device has to do.
    package var bytes: UInt32
    /// The member device, -1 for memory.
    package var device: Int

    package init(bytes: UInt32, device: Int) {
        self.bytes = bytes
        self.device = device
    }
}

/// What a device takes, and what has been claimed of it.
package struct DeviceLoad: Sendable {
    package var cost = ReadCost()
    /// When everything claimed so far will have been read, monotonic nanoseconds. What has not been
    /// asked for by then is not waited for.
    package var freeAt: UInt64 = 0
    /// What `cost.begun` will be when everything claimed so far has been asked for.
    package var claimed: UInt64 = 0

    package init() {}
}

package typealias PrefixDevices = InlineArray<32, DeviceLoad>

package struct PrefixQuestion: Sendable {
    /// Monotonic nanoseconds.
    package var now: UInt64
    /// Blocks of the request, found or not; what is not loaded is computed.
    package var blocks: Int
    /// Nanoseconds that it takes to compute one block; 0: not known, everything is claimed.
    package var blockNanoseconds: Double
    /// Nanoseconds of computing that come to those of the blocks: a tail that is no whole block.
    package var tailNanoseconds: Double = 0
    /// Layers that are loaded while earlier ones are computed; 1: nothing is computed before all is
    /// there.
    package var layers: Int = 1
    /// Nanoseconds from now until the engine comes to the request, 0 if that is not known.
    package var startsIn: UInt64 = 0
    /// Nanoseconds from now until the blocks are asked for.
    package var loadsIn: UInt64 = 0

    package init(now: UInt64, blocks: Int, blockNanoseconds: Double) {
        self.now = now
        self.blocks = blocks
        self.blockNanoseconds = blockNanoseconds
    }
}

package struct PrefixDecision: Sendable, Equatable {
    /// Blocks claimed, from the first on.
    package var blocks = 0
    /// Blocks that are there without a gap; those beyond `blocks` are declined.
    package var present = 0
    package var declinedBytes: UInt64 = 0
    /// Nanoseconds from now until what is claimed is expected in memory.
    package var readyIn: UInt64 = 0
    /// Nanoseconds from now until the request is expected to be ready.
    package var endIn: UInt64 = 0
    /// Nanoseconds by which the request is expected to be ready sooner than by computing what is
    /// not in memory.
    package var gain: UInt64 = 0
    /// Claimed to learn what the device takes, at most one block of it.
    package var isProbe = false

    package init() {}
}

package struct ProfitablePrefix {
    /// Bytes that claims before this one are taken to ask for yet, at the most.
    private static let mostUnasked: UInt64 = 1 << 60

    private let question: PrefixQuestion
    private let devices: PrefixDevices
    private let starts: Double
    private let loads: Double

    // All times are nanoseconds from now.
    private var asked: InlineArray<32, Double> = .init(repeating: 0)
    private var taken: InlineArray<32, Double> = .init(repeating: 0)
    private var begin = 0.0
    private var ready = 0.0
    private var present = 0
    private var bytes: UInt64 = 0
    private var inMemory = 0
    private var isPlain = true
    private var isOpen = true
    /// How much longer computing a block takes than reading it, of the first one on a device that
    /// is known; 0 for none.
    private(set) var readingGain = 0.0

    private var best = 0
    private var bestEnd: Double
    private var bestReady = 0.0
    private var bestBytes: UInt64 = 0
    /// Blocks up to the first one on a device, and what reading that one takes.
    private var probe = 0
    private var probeBytes: UInt64 = 0
    private var probeDevice = 0
    private var probeReady = 0.0

    package init(_ question: PrefixQuestion, _ devices: PrefixDevices) {
        self.question = question
        self.devices = devices
        starts = Double(question.startsIn)
        loads = Double(question.loadsIn)
        bestEnd = .infinity
        bestEnd = end(0)
    }

    /// The next block of the prefix that is there. False: what follows cannot be claimed.
    @discardableResult
    package mutating func add(_ block: PrefixBlock) -> Bool {
        present += 1
        bytes += block.device < 0 ? 0 : UInt64(block.bytes)
        guard isOpen else { return false }
        if block.device >= 0 {
            let device = min(block.device, 31)
            if readingGain == 0, block.bytes > 0, devices[device].cost.perByte > 0 {
                readingGain =
                    question.blockNanoseconds / (Double(block.bytes) * devices[device].cost.perByte)
            }
            read(device, Double(block.bytes))
            if isPlain {
                isPlain = false
                probe = present
                probeBytes = bytes
                probeDevice = device
                probeReady = ready
            }
            // Nothing is known of the device: one block tells.
            if question.blockNanoseconds > 0, !devices[device].cost.isMeasured {
                isOpen = false
                return false
            }
        }
        let end = end(present)
        if isPlain { inMemory = present }
        if isPlain || question.blockNanoseconds == 0 || end <= bestEnd {
            best = present
            bestEnd = end
            bestReady = ready
            bestBytes = bytes
            taken = asked
        }
        return true
    }

    private mutating func read(_ device: Int, _ count: Double) {
        let cost = devices[device].cost
        asked[device] += count
        let longer = 1 + cost.risk
        let start = backlog(device) * longer
        let from = max(loads, start)
        begin = max(begin, from)
        ready = max(ready, from + (cost.latency + asked[device] * cost.perByte) * longer)
    }

    /// Nanoseconds until a device has read what was asked of it before.
    private func backlog(_ device: Int) -> Double {
        let load = devices[device]
        return Double(load.cost.outstanding + unasked(load)) * load.cost.perByte
    }

    /// Bytes claimed that nobody has asked for yet.
    private func unasked(_ load: DeviceLoad) -> UInt64 {
        load.freeAt > question.now && load.claimed > load.cost.begun
            ? load.claimed - load.cost.begun : 0
    }

    /// When the request is ready with so many blocks loaded.
    private func end(_ loaded: Int) -> Double {
        let compute =
            Double(max(0, question.blocks - loaded)) * question.blockNanoseconds
            + question.tailNanoseconds
        let layers = Double(max(1, question.layers))
        let first = isPlain ? 0 : begin + (ready - begin) / layers
        return max(max(starts, first) + compute, (isPlain ? 0 : ready) + compute / layers)
    }

    /// The decision; `devices` learn what is going to be asked of them.
    package func decide(_ devices: inout PrefixDevices) -> PrefixDecision {
        var made = PrefixDecision()
        made.present = present
        made.blocks = best
        made.readyIn = UInt64(min(bestReady, 1e18))
        made.endIn = UInt64(min(bestEnd, 1e18))
        made.declinedBytes = bytes - bestBytes
        var read = taken
        if best == inMemory, probe > 0, isWorthProbing {
            made.blocks = probe
            made.isProbe = true
            made.readyIn = UInt64(min(probeReady, 1e18))
            made.declinedBytes = bytes - probeBytes
            read[probeDevice] = Double(probeBytes)
        } else if question.blockNanoseconds > 0 {
            let without =
                starts + Double(max(0, question.blocks - inMemory)) * question.blockNanoseconds
                + question.tailNanoseconds
            made.gain = UInt64(min(max(0, without - bestEnd), 1e18))
        }
        for device in 0..<32 where read[device] > 0 {
            let cost = devices[device].cost
            let from = max(loads, backlog(device))
            let until = question.now &+ UInt64(min(from + read[device] * cost.perByte, 1e18))
            // Whoever asks and never loads piles up claims: to a bound.
            let open = min(unasked(devices[device]), Self.mostUnasked) + UInt64(read[device])
            devices[device].claimed = devices[device].cost.begun &+ open
            devices[device].freeAt = max(devices[device].freeAt, until)
        }
        return made
    }

    /// Whether a block that is not worth reading is read all the same, to learn what reading takes
    /// by now: while nothing is known, and later for a thousandth of the time.
    private var isWorthProbing: Bool {
        let cost = devices[probeDevice].cost
        if question.blockNanoseconds == 0 { return false }
        guard cost.isMeasured else { return true }
        guard question.now > cost.updated else { return false }
        return probeReady * 1000 < Double(question.now - cost.updated)
    }
}
