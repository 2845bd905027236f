// Tally: how often each fault and each edge of the core was met, summed over all seeds, printed as
// a table. A full run fails when a count that matters is below the least.

import SimulatedDisk

struct Tally: Sendable {
    private(set) var counts: [String: UInt64] = [:]

    mutating func add(_ name: String, _ count: UInt64 = 1) {
        if count > 0 { counts[name, default: 0] += count }
    }

    mutating func add(_ other: Tally) {
        for (name, count) in other.counts { counts[name, default: 0] += count }
    }

    subscript(_ name: String) -> UInt64 { counts[name] ?? 0 }

    /// Edges that a full run has to meet at least a hundred times each.
    static let edges = [
        "reclaimed segments", "evicted blocks", "checkpoints", "sealed segments", "recoveries",
        "checkpoint entries recovered", "footers replayed", "segments scanned", "contested keys",
        "contested lost", "carried records", "relocated bytes", "deletes", "flushes",
        "quarantined blocks", "quarantined segments", "check failures", "read retries",
        "joined reads", "table reads", "allocation failures", "hits from staging",
        "hits from device", "staged reads", "shared reads", "volatile lost", "timed out",
        "cancelled", "released after answer", "leases", "pins", "crashes", "crashes in recovery",
        "clean reopens", "purges", "devices detached", "opens without a member",
        "opens with damage",
        "conflicts", "already present", "wall jumps", "space runs out",
        "prefetched blocks", "prefetched and used", "prefetched and late",
        "prefetched and wasted", "prefetches failed", "prefetches overtaken",
        "prefetches cancelled", "hinted keys overflowed",
        "changes of health", "probes", "scrubbed blocks", "scrub passes", "scrub found rotten",
        "discarded MiB",
    ]

    func table(faults: Bool) -> String {
        var lines: [String] = []
        if faults {
            lines.append("fault kinds hit")
            for kind in FaultKind.allCases {
                lines.append(Self.line("fault \(kind)", counts["fault \(kind)"] ?? 0))
            }
        }
        lines.append("edges")
        for name in Self.edges { lines.append(Self.line(name, counts[name] ?? 0)) }
        lines.append("others")
        let known = Set(Self.edges)
        for name in counts.keys.sorted() where !known.contains(name) && !name.hasPrefix("fault ") {
            lines.append(Self.line(name, counts[name] ?? 0))
        }
        return lines.joined(separator: "\n")
    }

    private static func line(_ name: String, _ count: UInt64) -> String {
        let digits = String(count)
        let width = max(1, 46 - name.utf8.count - digits.utf8.count)
        return "  " + name + String(repeating: " ", count: width) + digits
    }

    /// Names met fewer than `least` times.
    func below(_ least: UInt64, faults: Bool) -> [String] {
        var names = faults ? FaultKind.allCases.map { "fault \($0)" } : []
        names += Self.edges
        return names.filter { (counts[$0] ?? 0) < least }
    }
}
