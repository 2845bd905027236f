// The call by which an engine tells what is to come. Hints are advice: they are read, checked and
// counted, and cost nothing else.

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
        var taken: [HintKind] = []
        var takenKeys = 0
        var place = 0
        for index in 0..<Int(count) {
            guard let hint = hints?[index] else { break }
            let number = Int(hint.key_count)
            if let kind = HintKind(rawValue: hint.kind), isRight(hint, kind, found),
                (0..<number).allSatisfy({ (1...512).contains(keys?[place + $0].length ?? 0) })
            {
                taken.append(kind)
                takenKeys += number
            }
            place += number
        }
        found.store.noteHints(taken, keys: takenKeys, refused: Int(count) - taken.count)
        return Int64(taken.count)
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
    case .chain, .touched, .release: hint.key_count > 0
    case .pages: hint.key_count > 0 && hint.number > 0 && hint.confidence <= 1 << 16
    case .session: hint.session != 0 && hint.state <= HEARTH_SESSION_CLOSED.rawValue
    case .progress, .cancel: hint.request != 0
    }
}
