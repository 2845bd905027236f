// Hints: what an engine tells of the future. Any thread gives them; the owner applies them, a part
// a turn. Counted by kind here, and by what came of them in the statistics of prefetching.

import LogStore
import Staging
import Synchronization

final class HintCounter: Sendable {
    private struct Counts {
        var taken = [UInt64](repeating: 0, count: HintKind.allCases.count)
        var keys: UInt64 = 0
        var refused: UInt64 = 0
    }

    private let counts = Mutex(Counts())

    func note(_ kind: HintKind, keys: Int) {
        counts.withLock { counts in
            counts.taken[Int(kind.rawValue)] += 1
            counts.keys += UInt64(keys)
        }
    }

    func note(refused: Int) {
        guard refused > 0 else { return }
        counts.withLock { $0.refused += UInt64(refused) }
    }

    var statistics: Statistics.Hints {
        counts.withLock { counts in
            var made = Statistics.Hints()
            for kind in HintKind.allCases where counts.taken[Int(kind.rawValue)] > 0 {
                made.byKind["\(kind)"] = counts.taken[Int(kind.rawValue)]
            }
            made.keys = counts.keys
            made.refused = counts.refused
            return made
        }
    }
}

extension Store {
    /// Gives a hint; `hint.due` is by `monotonicNanoseconds`. Never waits. Whether there was room
    /// for it; what there was none for is counted. A nil namespace is for hints without keys.
    @discardableResult
    package func give(
        _ hint: Hint, in namespace: Namespace?,
        keys: UnsafeBufferPointer<UnsafeRawBufferPointer>
    ) -> Bool {
        var made = hint
        made.namespaceSlot = namespace?.slot ?? 0
        let taken = engine.hints.push(made, instance: namespace?.instance ?? 0, keys: keys)
        shared.hints.note(hint.kind, keys: keys.count)
        if let recorder = shared.recorder, hint.kind == .chain, let namespace {
            recorder.record(
                .chain, count: keys.count, due: hint.due, session: hint.session
            ) { index, key in
                key.id = recorder.hash(namespace.instance, keys[index])
                return true
            }
        }
        return taken
    }

    /// Wakes the owner for what `give` took.
    package func ringForHints() { engine.ring() }

    /// Counts hints that meant nothing.
    package func noteRefusedHints(_ count: Int) { shared.hints.note(refused: count) }
}

/// What the owner has taken of the hints, and how far it has come.
struct HintWork {
    /// Keys that are applied in one turn: some tens of microseconds.
    static let keysATurn = 128
    static let hintsATurn = 64

    var batch = HintBatch()
    var hint = 0
    /// Keys of the hint under way that are done.
    var keysDone = 0
    var length = 0
    var byte = 0

    var isEmpty: Bool { hint >= batch.hints.count }

    /// Calls the body with the next hints and as many of their keys as a turn takes.
    mutating func forEach(
        _ body: (QueuedHint, UnsafeBufferPointer<UnsafeRawBufferPointer>) -> Void
    ) {
        var (hints, keys) = (0, 0)
        while hint < batch.hints.count, hints < Self.hintsATurn, keys < Self.keysATurn {
            let next = batch.hints[hint]
            let count = min(next.keyCount - keysDone, Self.keysATurn - keys)
            var part = next
            part.hint.continues = keysDone > 0
            take(count) { body(part, $0) }
            hints += 1
            keys += count
            keysDone += count
            if keysDone == next.keyCount {
                keysDone = 0
                hint += 1
            }
        }
        if isEmpty {
            batch.removeAll()
            (hint, length, byte) = (0, 0, 0)
        }
    }

    private mutating func take(
        _ count: Int, _ body: (UnsafeBufferPointer<UnsafeRawBufferPointer>) -> Void
    ) {
        let (firstLength, firstByte) = (length, byte)
        var bytes = 0
        for index in 0..<count { bytes += Int(batch.lengths[firstLength + index]) }
        length += count
        byte += bytes
        batch.keys.withUnsafeBytes { memory in
            withUnsafeTemporaryAllocation(
                of: UnsafeRawBufferPointer.self, capacity: max(1, count)
            ) { keys in
                var at = firstByte
                for index in 0..<count {
                    let end = at + Int(batch.lengths[firstLength + index])
                    keys.initializeElement(
                        at: index, to: UnsafeRawBufferPointer(rebasing: memory[at..<end]))
                    at = end
                }
                body(UnsafeBufferPointer(rebasing: keys[..<count]))
            }
        }
    }
}

extension Owner {
    /// Takes the hints that wait, once those taken before are all applied.
    func takeHints() {
        if hintWork.isEmpty { _ = engine.hints.take(&hintWork.batch) }
    }

    /// Applies some of the hints that were taken. Whether there were any.
    func applyHints() -> Bool {
        if hintWork.isEmpty { return false }
        hintWork.forEach { queued, keys in
            // A namespace that was purged since, or whose place is another's by now.
            if queued.instance != 0,
                store.log.namespaces.instance(queued.hint.namespaceSlot) != queued.instance
            {
                return
            }
            tiered.hint(queued.hint, keys: keys)
        }
        return true
    }
}
