// The call by which an engine tells what is to come. Hints are advice: they are read, checked and
// counted here, and put into a bounded queue that the store's own thread takes them from.

import CHearth
import Hearth
import Staging

/// `hearth_hint` of hearth.h.
@c(hearth_hint)
public func hearthHint(
    _ store: UInt64, _ hints: UnsafePointer<hearth_hint_message>?, _ count: UInt32,
    _ data: UnsafeRawPointer?, _ dataBytes: UInt64, _ keys: UnsafePointer<hearth_span>?,
    _ keyCount: UInt32
) -> Int64 {
    call { () throws(Failure) in
        let found = try OpenStore.find(store)
        let data = try BatchData(data, dataBytes)
        if keyCount > 0 {
            let keys = try given(keys, "keys")
            for index in 0..<Int(keyCount) { try data.check(keys[index], "keys[\(index)]") }
        }
        var total: UInt64 = 0
        for index in 0..<Int(count) {
            let hint = try given(hints, "hints")[index]
            guard hint.reserved == 0 else {
                throw .argument("hints[\(index)]: its reserved field is not 0.")
            }
            total += UInt64(hint.key_count)
        }
        guard total == UInt64(keyCount) else {
            throw .argument("key_count is \(keyCount), but the hints name \(total) keys in all.")
        }
        var taken = 0
        var place = 0
        for index in 0..<Int(count) {
            guard let hint = hints?[index] else { break }
            let number = Int(hint.key_count)
            if let kind = HintKind(rawValue: hint.kind), isRight(hint, kind, found),
                (0..<number).allSatisfy({ (1...512).contains(keys?[place + $0].length ?? 0) })
            {
                give(hint, kind, found, data, keys, place)
                taken += 1
            }
            place += number
        }
        found.store.noteRefusedHints(Int(count) - taken)
        if taken > 0 { found.store.ringForHints() }
        return Int64(taken)
    }
}

private func isRight(
    _ hint: hearth_hint_message, _ kind: HintKind, _ store: OpenStore
) -> Bool {
    // Keys mean something in a namespace only; a request or a session may come without.
    if hint.key_count > 0 || hint.space != 0 {
        guard let space = try? Registry.current.namespaces.find(hint.space), space.store === store
        else { return false }
    }
    return switch kind {
    case .chain, .touched, .release, .admitted: hint.key_count > 0
    case .evicted: true
    case .pages: hint.key_count > 0 && hint.number > 0 && hint.confidence <= 1 << 16
    case .session: hint.session != 0 && hint.state <= HEARTH_SESSION_CLOSED.rawValue
    case .progress, .cancel: hint.request != 0
    case .ended: hint.key_count > 0 || hint.request != 0
    }
}

/// Hands over one hint, keys `place` on of the call's list being its own.
private func give(
    _ hint: hearth_hint_message, _ kind: HintKind, _ store: OpenStore, _ data: BatchData,
    _ keys: UnsafePointer<hearth_span>?, _ place: Int
) {
    var made = Hint(kind)
    made.request = hint.request
    made.session = hint.session
    if hint.when_ns > 0 {
        let (sum, overflow) = store.store.monotonicNanoseconds.addingReportingOverflow(hint.when_ns)
        made.due = overflow ? .max : sum
    }
    made.state = SessionState(rawValue: hint.state) ?? .open
    made.step = hint.step
    made.layer = hint.layer
    made.firstShard = hint.first
    made.shardCount = hint.number
    made.confidence = hint.confidence
    let space = hint.space == 0 ? nil : try? Registry.current.namespaces.find(hint.space)
    let count = Int(hint.key_count)
    withUnsafeTemporaryAllocation(
        of: UnsafeRawBufferPointer.self, capacity: max(1, count)
    ) { room in
        for index in 0..<count {
            guard let span = keys?[place + index] else { return }
            room.initializeElement(at: index, to: data.bytes(span))
        }
        store.store.give(
            made, in: space?.space, keys: UnsafeBufferPointer(rebasing: room[..<count]))
    }
}
