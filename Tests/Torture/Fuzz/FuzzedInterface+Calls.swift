// The calls beside batches: lookups, hints, listings, namespaces, regions, leases, handles.

import CHearth
import Glibc

extension FuzzedInterface {
    private func span(_ choices: inout Choices) -> hearth_span {
        if choices.below(8) == 0 {
            return hearth_span(
                offset: UInt32(truncatingIfNeeded: choices.word()),
                length: UInt32(truncatingIfNeeded: choices.word()))
        }
        return hearth_span(offset: UInt32(choices.below(40) * 24), length: 24)
    }

    private func handle(_ right: UInt64, _ choices: inout Choices) -> UInt64 {
        choices.below(16) == 0
            ? right ^ 1 << UInt64(choices.below(64))
            : choices.below(32) == 0 ? choices.word() : right
    }

    func look(_ choices: inout Choices) -> String? {
        let count = choices.below(100)
        var keys: [hearth_span] = []
        for _ in 0..<count { keys.append(span(&choices)) }
        var found = [UInt8](repeating: 77, count: count + 1)
        let space = handle(spaces[choices.below(spaces.count)], &choices)
        let used = UInt64(choices.below(8) == 0 ? choices.below(Self.dataBytes) : Self.dataBytes)
        let most = Int64(count)
        if choices.below(3) == 0 {
            var ask = question(&choices)
            let result = hearth_prefix_worth(space, data.base, used, keys, UInt32(count), &ask)
            if result >= 0, ask.present < UInt64(result) || ask.present > UInt64(count) {
                return "prefix worth found \(ask.present) and took \(result)"
            }
            return answer("prefix worth", result, most: most)
        }
        if choices.below(2) == 0 {
            let result = hearth_prefix(space, data.base, used, keys, UInt32(count))
            return answer("prefix", result, most: most)
        }
        let result = hearth_contains(space, data.base, used, keys, UInt32(count), &found)
        guard found[count] == 77, result < 0 || found[..<count].allSatisfy({ $0 <= 1 }) else {
            return "contains wrote what it must not"
        }
        if result >= 0, Int(result) != found[..<count].count(where: { $0 == 1 }) {
            return "contains counted \(result)"
        }
        return answer("contains", result, most: most)
    }

    /// What computing takes, now and then absurd; and what it has taken.
    private func question(_ choices: inout Choices) -> hearth_prefix_ask {
        var ask = hearth_prefix_ask()
        ask.tokens_per_block = UInt32(choices.below(64))
        ask.tokens_per_second = Double(choices.below(3)) * 1000
        for _ in 0..<choices.below(4) {
            let value = choices.word()
            switch choices.below(7) {
            case 0: ask.tokens_per_second = Double(bitPattern: value)
            case 1: ask.tokens_per_block = UInt32(truncatingIfNeeded: value)
            case 2: ask.layers = UInt32(truncatingIfNeeded: value)
            case 3: ask.tokens_after = value
            case 4: ask.starts_in_ns = value
            case 5: ask.loads_in_ns = value
            default: _ = hearth_computed(handle(store, &choices), value, choices.word())
            }
        }
        return ask
    }

    /// The fields of a hint: offset and width.
    private static let hintFields = [
        (0, 8), (8, 8), (16, 8), (24, 8), (32, 4), (36, 4), (40, 4), (44, 4), (48, 4), (52, 4),
        (56, 4), (60, 4), (64, 8),
    ]

    func hint(_ choices: inout Choices) -> String? {
        var hints: [hearth_hint_message] = []
        var total = 0
        for _ in 0..<choices.below(5) {
            var hint = hearth_hint_message()
            hint.space = handle(spaces[choices.below(spaces.count)], &choices)
            hint.kind = UInt32(choices.below(7))
            hint.request = UInt64(choices.below(3))
            hint.session = UInt64(choices.below(3))
            hint.number = UInt32(choices.below(4))
            hint.key_count = UInt32(choices.below(6))
            total += Int(hint.key_count)
            if choices.below(3) == 0 {
                let (at, width) = Self.hintFields[choices.below(Self.hintFields.count)]
                let value = choices.word()
                withUnsafeMutablePointer(to: &hint) {
                    Raw.store(value, width, at: UnsafeMutableRawPointer($0) + at)
                }
            }
            hints.append(hint)
        }
        if choices.below(16) == 0 { total = choices.below(64) }
        var keys: [hearth_span] = []
        for _ in 0..<total { keys.append(span(&choices)) }
        let result = hearth_hint(
            handle(store, &choices), hints, UInt32(hints.count), data.base,
            UInt64(Self.dataBytes), keys, UInt32(total))
        return answer("hint", result, most: Int64(hints.count))
    }

    func listing(_ choices: inout Choices) -> String? {
        var cursor = choices.below(2) == 0 ? 0 : choices.word()
        let room = 1 + choices.below(16)
        var entries = [hearth_entry](repeating: hearth_entry(), count: room + 1)
        entries[room].reserved = 77
        let bytes = choices.below(1024)
        var keys = [UInt8](repeating: 77, count: bytes + 1)
        let result = hearth_list(
            handle(spaces[0], &choices), &cursor, &entries, UInt32(room), &keys, UInt64(bytes))
        guard entries[room].reserved == 77, keys[bytes] == 77 else {
            return "list wrote beyond its room"
        }
        for entry in entries.prefix(Int(max(0, result)))
        where Int(entry.key.offset) + Int(entry.key.length) > bytes {
            return "list told a key beyond its room"
        }
        return answer("list", result, most: Int64(room))
    }

    func cancel(_ choices: inout Choices) -> String? {
        let first = choices.word()
        let result = hearth_cancel(handle(queue, &choices), first, choices.word())
        return answer("cancel", Int64(result), most: 0)
    }

    func lease(_ choices: inout Choices) -> String? {
        let lease = choices.word()
        var runs = [hearth_run](repeating: hearth_run(), count: 2)
        if choices.below(2) == 0 {
            return answer("lease runs", hearth_lease_runs(store, lease, &runs, 2), most: 1 << 20)
        }
        return answer("lease end", Int64(hearth_lease_end(store, lease)), most: 0)
    }

    /// Now and then a namespace with a description of noise.
    func describe(_ choices: inout Choices) -> String? {
        guard choices.below(8) == 0 else { return nil }
        let count = 1 + choices.below(3)
        var texts: [[CChar]] = []
        for _ in 0..<(2 * count) {
            let long = choices.below(16) == 0
            var text = choices.bytes(choices.below(long ? 6000 : 12))
            if choices.below(2) == 0 { text = text.map { $0 & 0x7F | 0x40 } }
            texts.append(text.map { CChar(bitPattern: $0) } + [0])
        }
        let pointers = texts.map { strdup($0) }
        defer { for pointer in pointers { free(pointer) } }
        let fields = (0..<count).map {
            hearth_field(name: pointers[2 * $0], value: pointers[2 * $0 + 1])
        }
        var space: UInt64 = 0
        let layout = choices.below(8) == 0 ? choices.word32() : UInt32(choices.below(2))
        let result = hearth_namespace_open(
            store, fields, UInt32(count), layout, choices.word32(), choices.word(), &space)
        if let failure = answer("namespace open", Int64(result), most: 0) { return failure }
        guard result == 0 else { return space == 0 ? nil : "a handle that was not given" }
        let end =
            choices.below(2) == 0 ? hearth_namespace_purge(space) : hearth_namespace_close(space)
        return answer("namespace end", Int64(end), most: 0)
    }

    /// The region goes and comes back, or one that cannot be is asked for.
    func regions(_ choices: inout Choices) -> String? {
        if choices.below(2) == 0 {
            let wrong = UInt32(truncatingIfNeeded: choices.word())
            if wrong == region { return nil }
            return answer("unregister", Int64(hearth_unregister(store, wrong)), most: 0)
        }
        guard choices.below(8) == 0 else { return nil }
        if let failure = take(waiting: true) { return failure }
        let result = hearth_unregister(store, region)
        if let failure = answer("unregister", Int64(result), most: 0) { return failure }
        guard result == 0 else { return nil }
        let again = hearth_register(
            store, UnsafeMutableRawPointer(bitPattern: UInt(base)), UInt64(Self.memoryBytes), -1,
            &region)
        return again == 0 ? nil : "the region does not come back"
    }

    func handles(_ choices: inout Choices) -> String? {
        let wrong = choices.word()
        if wrong == store || wrong == queue || spaces.contains(wrong) { return nil }
        let results = [
            hearth_flush(wrong, 0), hearth_close(wrong), hearth_queue_close(wrong),
            hearth_namespace_purge(wrong), hearth_namespace_close(wrong), hearth_event_fd(wrong),
        ]
        note("wrong handle")
        return results.allSatisfy { $0 == -1 } ? nil : "handle \(wrong) gives \(results)"
    }
}
