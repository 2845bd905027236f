// PrefixJudge: what a store knows for deciding how much of a prefix to claim: what its devices
// take, what they have been asked for, and how fast the engine computes. The owner thread brings
// the figures up to date; lookups on any thread ask, and hold a lock for a few copies only. The
// index has what lies on a device that is not read at present: there a prefix ends.

import LogStore
import Synchronization

/// What an engine tells when it asks for a profitable prefix.
package struct PrefixAsk: Sendable {
    package var tokensPerBlock: UInt32
    /// 0: what was learnt.
    package var tokensPerSecond: Double = 0
    /// Tokens after the last key, which are computed anyway.
    package var tokensAfter: UInt64 = 0
    package var layers: UInt32 = 1
    package var startsIn: UInt64 = 0
    package var loadsIn: UInt64 = 0

    package init(tokensPerBlock: UInt32) { self.tokensPerBlock = tokensPerBlock }
}

package struct PrefixCounts: Sendable, Equatable {
    package var asked: UInt64 = 0
    package var presentBlocks: UInt64 = 0
    package var claimedBlocks: UInt64 = 0
    /// Blocks, and bytes on devices, declined as slower than computing them.
    package var declinedBlocks: UInt64 = 0
    package var declinedBytes: UInt64 = 0
    package var probes: UInt64 = 0
    /// Asked without a rate, with none learnt: everything was claimed.
    package var unknownRate: UInt64 = 0

    package init() {}
}

package final class PrefixJudge: Sendable {
    private struct State {
        var devices: PrefixDevices = .init(repeating: DeviceLoad())
        /// A bit for each device that is not read at present.
        var away: UInt32 = 0
        var rate = RecomputeRate()
        var counts = PrefixCounts()
        var readingGain = 0.0
    }

    /// A prefix's weight in `readingGain`.
    private static let learning = 1 / 64.0

    private let state = Mutex(State())

    package init() {}

    /// Owner thread: what the devices take by now, and a bit for each that is not read.
    package func update(_ meters: [ReadMeter], away: UInt32 = 0) {
        state.withLock { state in
            state.away = away
            for device in 0..<min(meters.count, 32) {
                state.devices[device].cost = meters[device].cost
            }
        }
    }

    package func computed(tokens: UInt64, nanoseconds: UInt64) {
        state.withLock { $0.rate.computed(tokens: tokens, nanoseconds: nanoseconds) }
    }

    /// A new block was put.
    package func stored(_ namespaceSlot: UInt16, now: UInt64) {
        state.withLock { $0.rate.stored(namespaceSlot, now: now) }
    }

    /// How many times longer it lately took to compute a block than to read it from a device, 0
    /// before that was known.
    package var readingGain: Double { state.withLock { $0.readingGain } }

    package var counts: PrefixCounts { state.withLock { $0.counts } }

    /// What is known of a device.
    package func cost(_ device: Int) -> ReadCost {
        state.withLock { $0.devices[min(max(device, 0), 31)].cost }
    }

    /// Decides; `find` is asked for one block after the other, until it has none.
    package func decide(
        _ ask: PrefixAsk, namespaceSlot: UInt16, keys: Int, now: UInt64,
        find: (Int) -> PrefixBlock?
    ) -> PrefixDecision {
        let (prefix, _, rate) = weigh(ask, namespaceSlot, keys, now, find)
        return state.withLock { state in
            let made = prefix.decide(&state.devices)
            state.counts.asked += 1
            state.counts.presentBlocks += UInt64(made.present)
            state.counts.claimedBlocks += UInt64(made.blocks)
            state.counts.declinedBlocks += UInt64(made.present - made.blocks)
            state.counts.declinedBytes += made.declinedBytes
            if made.isProbe { state.counts.probes += 1 }
            if prefix.readingGain > 0 {
                let share = state.readingGain == 0 ? 1 : Self.learning
                state.readingGain += share * (min(prefix.readingGain, 1e6) - state.readingGain)
            }
            if rate == 0 { state.counts.unknownRate += 1 }
            return made
        }
    }

    /// What would be decided; nothing is claimed or counted.
    package func forecast(
        _ ask: PrefixAsk, namespaceSlot: UInt16, keys: Int, now: UInt64,
        find: (Int) -> PrefixBlock?
    ) -> PrefixDecision {
        let (prefix, known, _) = weigh(ask, namespaceSlot, keys, now, find)
        var devices = known
        return prefix.decide(&devices)
    }

    private func weigh(
        _ ask: PrefixAsk, _ namespaceSlot: UInt16, _ keys: Int, _ now: UInt64,
        _ find: (Int) -> PrefixBlock?
    ) -> (ProfitablePrefix, PrefixDevices, rate: Double) {
        let (devices, away, rate) = state.withLock {
            ($0.devices, $0.away, Self.rate($0, ask, namespaceSlot))
        }
        var question = PrefixQuestion(now: now, blocks: keys, blockNanoseconds: rate)
        question.tailNanoseconds =
            ask.tokensPerBlock > 0 ? rate * Double(ask.tokensAfter) / Double(ask.tokensPerBlock) : 0
        question.layers = Int(ask.layers)
        question.startsIn = ask.startsIn
        question.loadsIn = ask.loadsIn
        var prefix = ProfitablePrefix(question, devices)
        var number = 0
        while number < keys, let block = find(number),
            block.device < 0 || away & (1 << UInt32(min(block.device, 31))) == 0
        {
            prefix.add(block)
            number += 1
        }
        return (prefix, devices, rate)
    }

    /// Nanoseconds of a block at the most, some thirty years: what is computed from it is a number.
    private static let slowest = 1e18

    private static func rate(_ state: State, _ ask: PrefixAsk, _ slot: UInt16) -> Double {
        let tokens = Double(ask.tokensPerBlock)
        if ask.tokensPerSecond > 0 { return min(slowest, tokens * 1e9 / ask.tokensPerSecond) }
        if state.rate.tokenNanoseconds > 0 {
            return min(slowest, tokens * state.rate.tokenNanoseconds)
        }
        return state.rate.blockNanoseconds(slot)
    }
}
