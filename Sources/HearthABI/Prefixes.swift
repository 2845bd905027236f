// The calls that put computing beside loading: how much of a prefix is worth loading, and how fast
// the engine computes.

import CHearth
import Hearth
import Tiering

/// `hearth_prefix_worth` of hearth.h.
@c(hearth_prefix_worth)
public func hearthPrefixWorth(
    _ space: UInt64, _ data: UnsafeRawPointer?, _ dataBytes: UInt64,
    _ keys: UnsafePointer<hearth_span>?, _ count: UInt32,
    _ ask: UnsafeMutablePointer<hearth_prefix_ask>?
) -> Int64 {
    call { () throws(Failure) in
        let namespace = try OpenNamespace.find(space)
        let list = try KeyList(data, dataBytes, keys, count)
        let ask = try given(ask, "ask")
        let question = try PrefixAsk(ask.pointee)
        let made = namespace.store.store.judgePrefix(
            question, in: namespace.space, count: list.count
        ) { number, body in
            body(list.bytes(number))
        }
        ask.pointee.present = UInt64(made.present)
        ask.pointee.declined_bytes = made.declinedBytes
        ask.pointee.ready_in_ns = made.readyIn
        ask.pointee.gain_ns = made.gain
        ask.pointee.is_probe = made.isProbe ? 1 : 0
        return Int64(made.blocks)
    }
}

extension PrefixAsk {
    fileprivate init(_ ask: hearth_prefix_ask) throws(Failure) {
        guard ask.reserved0 == 0, ask.reserved.0 == 0, ask.reserved.1 == 0 else {
            throw .argument("ask: a reserved field is not 0.")
        }
        guard ask.tokens_per_second >= 0, ask.tokens_per_second.isFinite else {
            throw .argument("ask: tokens_per_second is \(ask.tokens_per_second): a number from 0.")
        }
        guard ask.tokens_per_block > 0 else {
            throw .argument("ask: tokens_per_block is 0.")
        }
        self.init(tokensPerBlock: ask.tokens_per_block)
        tokensPerSecond = ask.tokens_per_second
        tokensAfter = ask.tokens_after
        layers = max(1, ask.layers)
        startsIn = ask.starts_in_ns
        loadsIn = ask.loads_in_ns
    }
}

/// `hearth_computed` of hearth.h.
@c(hearth_computed)
public func hearthComputed(_ store: UInt64, _ tokens: UInt64, _ nanoseconds: UInt64) -> Int32 {
    status { () throws(Failure) in
        let found = try OpenStore.find(store)
        found.store.noteComputed(
            tokens: Int(clamping: tokens), in: .nanoseconds(Int64(clamping: nanoseconds)))
    }
}
