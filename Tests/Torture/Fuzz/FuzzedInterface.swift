// FuzzedInterface: a store opened through the C interface, and messages to it of which fields are
// changed. Whatever comes, a call answers with a count or a named error, an operation that was
// taken completes once, nothing is written beyond the memory that was given, and the process lives.
//
// What a caller promises is kept, since breaking it is no error that can be found: lists are as
// long as their counts say, and a piece of region 0 lies in memory that the test owns, unless it
// lies in none at all.

import CHearth
import Glibc
import HearthABI

final class FuzzedInterface {
    static let memoryBytes = 1 << 20
    static let guardBytes = 4096
    static let dataBytes = 4096
    static let operations = 8
    private static let queueRoom: UInt32 = 64

    let store: UInt64
    let queue: UInt64
    var spaces: [UInt64] = []
    var region: UInt32 = 0
    private let directory: String
    /// Guard, own memory, guard.
    private let memory = FuzzMemory(memoryBytes + 2 * guardBytes)
    let data = FuzzMemory(dataBytes)
    let list = UnsafeMutablePointer<hearth_operation>.allocate(capacity: operations)
    private let ends = UnsafeMutablePointer<hearth_completion>.allocate(capacity: 64)
    /// How many operations of a tag are still to complete.
    private var open: [UInt64: Int] = [:]
    private var outstanding = 0
    private(set) var counts: [String: Int] = [:]

    var base: UInt64 { UInt64(UInt(bitPattern: memory.base)) + UInt64(Self.guardBytes) }

    init?(directory: String) {
        self.directory = directory
        let options = [
            "capacity=256M", "segment=4M", "max_block=256K", "memory=128M", "staging=32M",
            "index_entries=65536", "statistics_period=0",
        ]
        var words: [UnsafePointer<CChar>?] = options.map { UnsafePointer(strdup($0)) }
        words.append(nil)
        var (store, queue): (UInt64, UInt64) = (0, 0)
        let opened = hearth_open("dir:" + directory, words, &store)
        self.store = store
        guard opened == 0, hearth_queue_open(store, Self.queueRoom, nil, nil, &queue) == 0 else {
            report("fuzz: \(directory): \(String(cString: hearth_error_message()))")
            return nil
        }
        self.queue = queue
        for byte in 0..<memory.bytes.count { memory.bytes[byte] = Self.pattern(byte) }
        var number: UInt32 = 0
        let own = memory.base + Self.guardBytes
        guard hearth_register(store, own, UInt64(Self.memoryBytes), -1, &number) == 0 else {
            report("fuzz: \(String(cString: hearth_error_message()))")
            return nil
        }
        region = number
        for layout in [HEARTH_PACKED, HEARTH_ALIGNED] {
            "model".withCString { name in
                "fuzz\(layout)".withCString { value in
                    var field = hearth_field(name: name, value: value)
                    var space: UInt64 = 0
                    if hearth_namespace_open(store, &field, 1, layout, 0, 0, &space) == 0 {
                        spaces.append(space)
                    }
                }
            }
        }
        guard spaces.count == 2 else {
            report("fuzz: \(String(cString: hearth_error_message()))")
            return nil
        }
    }

    deinit {
        list.deallocate()
        ends.deallocate()
    }

    private static func pattern(_ at: Int) -> UInt8 { UInt8(truncatingIfNeeded: at &* 167 &+ 13) }

    func note(_ name: String) { counts[name, default: 0] += 1 }

    /// Names what a call returned; something else than a count or a known error is a failure.
    func answer(_ call: String, _ result: Int64, most: Int64) -> String? {
        if result >= 0 {
            note(call + " taken")
            return result <= most ? nil : "\(call) returned \(result), more than \(most)"
        }
        guard result >= -13 else { return "\(call) returned \(result)" }
        note(call + " " + String(cString: hearth_error_name(Int32(result))))
        if result == -13 { return "\(call): " + String(cString: hearth_error_message()) }
        return nil
    }

    /// One message, and what it led to. Nil when everything holds.
    func message(_ choices: inout Choices) -> String? {
        let failure: String? =
            switch choices.below(64) {
            case 0..<40: submit(&choices)
            case 40..<50: look(&choices)
            case 50..<57: hint(&choices)
            case 57: listing(&choices)
            case 58...59: cancel(&choices)
            case 60: lease(&choices)
            case 61: describe(&choices)
            case 62: regions(&choices)
            default: handles(&choices)
            }
        if let failure { return failure }
        if let failure = take(waiting: outstanding > Int(Self.queueRoom) / 2) { return failure }
        return guardsHold() ? nil : "bytes beyond the memory that was given were written"
    }

    private func guardsHold() -> Bool {
        let end = Self.guardBytes + Self.memoryBytes
        for at in [0..<Self.guardBytes, end..<(end + Self.guardBytes)] {
            for byte in stride(from: at.lowerBound, to: at.upperBound, by: 61)
            where memory.bytes[byte] != Self.pattern(byte) { return false }
        }
        return true
    }

    // MARK: Batches

    private func submit(_ choices: inout Choices) -> String? {
        let count = 1 + choices.below(Self.operations)
        var used = InterfaceBatch.fill(self, count, &choices)
        if choices.below(16) == 0 { used = choices.below(Self.dataBytes + 1) }
        for _ in 0..<choices.below(4) { InterfaceBatch.smudge(self, count, &choices) }
        guard InterfaceBatch.keepPromises(self, count, used) else { return nil }
        let result = hearth_submit(queue, list, UInt32(count), data.base, UInt64(used))
        if let failure = answer("submit", result, most: Int64(count)) { return failure }
        for number in 0..<Int(max(0, result)) {
            open[list[number].tag, default: 0] += 1
            outstanding += 1
        }
        return nil
    }

    /// Takes completions; waits until none is missing when asked to.
    func take(waiting: Bool) -> String? {
        while outstanding > 0 {
            let wait: UInt64 = waiting ? 20_000_000_000 : 0
            let result = hearth_poll(queue, ends, 64, wait)
            if let failure = answer("poll", result, most: 64) { return failure }
            if result <= 0 {
                return waiting ? "\(outstanding) operations do not complete within 20 s" : nil
            }
            for number in 0..<Int(result) {
                if let failure = completed(ends[number]) { return failure }
            }
        }
        return nil
    }

    private func completed(_ end: hearth_completion) -> String? {
        guard UInt32(end.status) <= HEARTH_DONE.rawValue,
            UInt32(end.reason) <= HEARTH_REASON_DEADLINE.rawValue, end.tier <= 2
        else { return "a completion that means nothing: \(end)" }
        if UInt32(end.flags) & HEARTH_RELEASE != 0 { return nil }
        guard let left = open[end.tag], left > 0 else {
            return "a completion of tag \(end.tag), which nothing under way has"
        }
        open[end.tag] = left > 1 ? left - 1 : nil
        outstanding -= 1
        note("operation " + String(cString: hearth_status_name(UInt32(end.status))))
        if end.lease != 0 {
            var runs = [hearth_run](repeating: hearth_run(), count: 8)
            let held = hearth_lease_runs(store, end.lease, &runs, 8)
            guard held > 0, hearth_lease_end(store, end.lease) == 0 else {
                return "a lease that cannot be read and ended: \(held)"
            }
            note("lease ended")
        }
        return nil
    }

    /// Ends everything; the directory goes, too.
    func close() -> String? {
        let failure = take(waiting: true)
        let result = hearth_close(store)
        KillCommand.removeStore(directory)
        if failure == nil, result != 0 {
            return "closing: " + String(cString: hearth_error_message())
        }
        return failure
    }
}
