// What a store's calls hand to its recorder: batches as they came, before it is decided who serves
// them. Of a block that is read in parts the part with its first byte counts. Only called where
// there is a recorder.

import LogStore
import Staging

extension Store {
    /// Whether what is asked is recorded.
    package var isRecording: Bool { shared.recorder != nil }

    /// Gets of one batch: each key, and whether it is asked for from its first byte on.
    package func recordGets(
        count: Int, in namespace: Namespace,
        _ at: (Int) -> (key: UnsafeRawBufferPointer, isHead: Bool)
    ) {
        guard let recorder = shared.recorder else { return }
        recorder.record(.get, count: count) { index, made in
            let (key, isHead) = at(index)
            guard isHead, (1...512).contains(key.count) else { return false }
            made.id = recorder.hash(namespace.instance, key)
            return true
        }
    }

    /// Puts of one batch: each key, the key before it, which may be empty, and the value's bytes.
    package func recordPuts(
        count: Int, in namespace: Namespace,
        _ at: (Int) -> (key: UnsafeRawBufferPointer, parent: UnsafeRawBufferPointer, bytes: UInt64)
    ) {
        guard let recorder = shared.recorder else { return }
        recorder.record(.put, count: count) { index, made in
            let (key, parent, bytes) = at(index)
            guard (1...512).contains(key.count) else { return false }
            made.id = recorder.hash(namespace.instance, key)
            if (1...512).contains(parent.count) {
                made.parent = recorder.hash(namespace.instance, parent)
            }
            made.bytes = UInt32(clamping: bytes)
            return true
        }
    }

    func recordGets(count: Int, _ namespace: Namespace, _ at: (Int) -> (Key, Selection)) {
        guard let recorder = shared.recorder else { return }
        recorder.record(.get, count: count) { index, made in
            let (key, selection) = at(index)
            guard Self.isValid(key), selection.isHead else { return false }
            made.id = key.bytes.withUnsafeBytes { recorder.hash(namespace.instance, $0) }
            return true
        }
    }

    func recordPuts(_ items: [PutItem], _ namespace: Namespace) {
        guard let recorder = shared.recorder else { return }
        recorder.record(.put, count: items.count) { index, made in
            let item = items[index]
            guard Self.isValid(item.key) else { return false }
            made.id = item.key.bytes.withUnsafeBytes { recorder.hash(namespace.instance, $0) }
            if let parent = item.parent, Self.isValid(parent) {
                made.parent = parent.bytes.withUnsafeBytes {
                    recorder.hash(namespace.instance, $0)
                }
            }
            made.bytes = UInt32(clamping: item.value.byteCount)
            return true
        }
    }
}

extension Selection {
    /// Whether the block's first byte is in it.
    fileprivate var isHead: Bool {
        switch self {
        case .whole: true
        case .shards(let range): range.lowerBound == 0
        case .bytes(let range): range.lowerBound == 0
        }
    }
}
