// Recompute: how much of a stored prefix is worth loading. Computing a block again may be sooner
// than reading it from a device that is slow or has much to do; the store knows what its devices
// take, the engine what computing takes, and a lookup puts the two together. From memory alone, on
// the caller's thread.

import LogStore
import Staging
import Tiering

/// What computing takes, for the question how much of a prefix to load.
public struct Recompute: Sendable, Equatable {
    /// Tokens of one block.
    public var tokensPerBlock: Int
    /// Tokens that the engine prefills in a second. Nil: what `noteComputed` told, or else what the
    /// rate of new blocks lets the store guess.
    public var tokensPerSecond: Double?
    /// Tokens after the last key, which are computed in any case.
    public var tokensAfter = 0
    /// Layers of which later ones are loaded while earlier ones are computed; 1 for an engine that
    /// begins when everything is loaded.
    public var layers = 1
    /// How long the request waits for its turn.
    public var startsIn: Duration = .zero
    /// How long until the blocks are asked for.
    public var loadsIn: Duration = .zero

    /// Blocks of so many tokens, computed so fast.
    public init(tokensPerBlock: Int, tokensPerSecond: Double? = nil) {
        self.tokensPerBlock = tokensPerBlock
        self.tokensPerSecond = tokensPerSecond
    }
}

/// How much of a prefix to load.
public struct PrefixVerdict: Sendable, Equatable {
    /// Keys from the first on whose blocks are worth loading.
    public var blocks = 0
    /// Keys from the first on that are there; those beyond `blocks` are declined as slower than
    /// computing them.
    public var present = 0
    /// Bytes on devices that are declined.
    public var declinedBytes: UInt64 = 0
    /// When what is worth loading is expected in memory, from now.
    public var readyIn: Duration = .zero
    /// How much sooner the request is expected to be ready than with nothing read from a device.
    public var gain: Duration = .zero
    /// One block that is read to learn what reading takes by now.
    public var isProbe = false

    /// Nothing is there.
    public init() {}
}

extension Store {
    /// How many keys from the first on are worth loading, from memory alone: those that are there
    /// without a gap and come sooner than they are computed. Whoever asks is expected to load them.
    public func longestPrefix(
        _ keys: [Key], in namespace: Namespace, against recompute: Recompute
    ) -> PrefixVerdict {
        if namespace.isPurged || keys.isEmpty { return PrefixVerdict() }
        return PrefixVerdict(
            judgePrefix(PrefixAsk(recompute), in: namespace, count: keys.count) { number, body in
                keys[number].bytes.withUnsafeBytes(body)
            })
    }

    /// Tells that the engine has prefilled so many tokens in so long, for questions without a rate.
    public func noteComputed(tokens: Int, in duration: Duration) {
        shared.judge.computed(
            tokens: UInt64(max(0, tokens)), nanoseconds: duration.wholeNanoseconds)
    }

    /// The decision; `key` gives the bytes of a key to its body. Without `claims` it is only asked
    /// what would be decided, and nothing is counted as about to be read.
    package func judgePrefix(
        _ ask: PrefixAsk, in namespace: Namespace, count: Int, claims: Bool = true,
        _ key: (Int, (UnsafeRawBufferPointer) -> Fingerprint) -> Fingerprint
    ) -> PrefixDecision {
        if namespace.isPurged { return PrefixDecision() }
        let wall = engine.clock.wallSeconds
        let shared = shared
        let find = { (number: Int) in
            shared.prefixBlock(
                key(number) { shared.fingerprint(namespace.instance, $0) }, now: wall)
        }
        let (slot, now) = (namespace.slot, engine.clock.monotonic)
        return claims
            ? shared.judge.decide(ask, namespaceSlot: slot, keys: count, now: now, find: find)
            : shared.judge.forecast(ask, namespaceSlot: slot, keys: count, now: now, find: find)
    }
}

extension SharedStore {
    /// Where a block lies that could be claimed; nil: it is not there.
    func prefixBlock(_ fingerprint: Fingerprint, now wallSeconds: UInt32) -> PrefixBlock? {
        if residents?.contains(fingerprint.stagingKey, now: wallSeconds) == true {
            return PrefixBlock(bytes: 0, device: -1)
        }
        guard let entry = index.find(fingerprint), !entry.isDamaged,
            entry.expiry == 0 || wallSeconds < entry.expiry
        else { return nil }
        return PrefixBlock(
            bytes: entry.length, device: SegmentTable.device(entry.place.segment))
    }
}

extension PrefixAsk {
    init(_ recompute: Recompute) {
        self.init(tokensPerBlock: UInt32(clamping: recompute.tokensPerBlock))
        // What is no rate counts as none told.
        let rate = recompute.tokensPerSecond ?? 0
        tokensPerSecond = rate.isFinite && rate > 0 ? rate : 0
        tokensAfter = UInt64(max(0, recompute.tokensAfter))
        layers = UInt32(clamping: max(1, recompute.layers))
        startsIn = recompute.startsIn.wholeNanoseconds
        loadsIn = recompute.loadsIn.wholeNanoseconds
    }
}

extension PrefixVerdict {
    init(_ core: PrefixDecision) {
        blocks = core.blocks
        present = core.present
        declinedBytes = core.declinedBytes
        readyIn = .nanoseconds(Int64(clamping: core.readyIn))
        gain = .nanoseconds(Int64(clamping: core.gain))
        isProbe = core.isProbe
    }
}

extension Duration {
    /// 0 for what is negative; no more than some 30 years.
    fileprivate var wholeNanoseconds: UInt64 {
        let (seconds, attoseconds) = components
        if seconds < 0 || attoseconds < 0 { return 0 }
        return UInt64(min(seconds, 1_000_000_000)) * 1_000_000_000
            + UInt64(attoseconds / 1_000_000_000)
    }
}

extension Statistics {
    /// Lookups that asked how much of a prefix is worth loading.
    public struct Prefixes: Sendable, Equatable {
        /// Lookups.
        public var asked: UInt64 = 0
        /// Blocks that were there without a gap.
        public var presentBlocks: UInt64 = 0
        /// Of these, blocks worth loading.
        public var claimedBlocks: UInt64 = 0
        /// Of these, blocks declined as slower than computing them.
        public var declinedBlocks: UInt64 = 0
        /// Bytes on devices of those declined.
        public var declinedBytes: UInt64 = 0
        /// Blocks claimed to learn what reading takes.
        public var probes: UInt64 = 0
        /// Lookups without a rate, and none learnt: everything there was claimed.
        public var unknownRate: UInt64 = 0

        /// Nothing.
        public init() {}
    }
}

extension Statistics.Prefixes {
    init(_ core: PrefixCounts) {
        asked = core.asked
        presentBlocks = core.presentBlocks
        claimedBlocks = core.claimedBlocks
        declinedBlocks = core.declinedBlocks
        declinedBytes = core.declinedBytes
        probes = core.probes
        unknownRate = core.unknownRate
    }

    func write(_ text: inout some StatisticsText) {
        text.object {
            $0.number("asked", asked)
            $0.number("presentBlocks", presentBlocks)
            $0.number("claimedBlocks", claimedBlocks)
            $0.number("declinedBlocks", declinedBlocks)
            $0.number("declinedBytes", declinedBytes)
            $0.number("probes", probes)
            $0.number("unknownRate", unknownRate)
        }
    }
}
