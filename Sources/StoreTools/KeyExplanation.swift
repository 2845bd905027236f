// KeyExplanation: where a key's block is in one namespace, or why it is not: from the memory of an
// owner that has the store open (OpenStore), or from the log of a closed store (Catalog), told in
// one form.

import LogStore
import SegmentFormat
import Staging

package struct KeyExplanation: Sendable {
    package enum Verdict: String, Sendable {
        case present
        /// There, and past its time: a get misses.
        case expired
        /// There, with a shard that was found damaged: who asks is told that it is not.
        case damaged
        case evicted
        case deleted
        /// Never put, or gone for so long that it is forgotten.
        case absent
        /// The owner stands still in the middle of a change.
        case unknown
    }

    /// The block in the DRAM tier.
    package struct Staging: Sendable {
        /// Dirty: on no device yet. Clean: a copy.
        package var isDirty: Bool
        package var version: UInt64
        package var length: UInt32
        package var shards: Int
        package var expiry: UInt32
        /// Readers that copy from it now, and leases held on it.
        package var pins: Int
        package var leases: Int

        init(_ sight: ResidentSight) {
            isDirty = sight.state == .dirty
            version = sight.info.version
            length = sight.info.length
            shards = Int(sight.info.shardCount) + 1
            expiry = sight.info.expiry
            pins = sight.pins
            leases = sight.leases
        }
    }

    /// The block on its device.
    package struct Device: Sendable {
        package var segment: UInt32
        package var file = ""
        package var offset: UInt64
        package var length: UInt32
        package var shards: Int
        /// Of an open store the low 32 bits, which the index has.
        package var version: UInt64
        package var checksum: UInt32
        package var expiry: UInt32
        /// 0 (nobody came) to 15; nil where it is not known.
        package var heat: UInt8?
        package var isDamaged = false

        init(_ entry: IndexEntry) {
            segment = entry.place.segment
            offset = ClosedStore.offset(page: entry.place.page)
            length = entry.length
            shards = entry.shardCount
            version = UInt64(entry.versionLow)
            checksum = entry.checksum
            expiry = entry.expiry
            heat = entry.heat
            isDamaged = entry.isDamaged
        }

        init(_ record: ListedRecord, file: String) {
            segment = record.segment
            self.file = file
            offset = ClosedStore.offset(page: record.page)
            length = record.length
            shards = record.shards
            version = record.version
            checksum = record.checksum
            expiry = record.expiry
        }
    }

    package let key: [UInt8]
    package let space: NamespaceRecord
    /// Unix seconds at which this was so.
    package let now: UInt32
    package var staging: Staging?
    package var device: Device?
    package var isUnknown = false
    /// What took the block away, and when (unix seconds; 0 where that is not known).
    package var departure: (departure: Departure, seconds: UInt32)?

    init(key: [UInt8], space: NamespaceRecord, now: UInt32) {
        self.key = key
        self.space = space
        self.now = now
    }

    package var verdict: Verdict {
        let expiry = staging?.expiry ?? device?.expiry ?? 0
        if staging != nil || device != nil {
            if expiry != 0 && expiry <= now { return .expired }
            return staging == nil && device?.isDamaged == true ? .damaged : .present
        }
        if isUnknown { return .unknown }
        return switch departure?.departure {
        case .evicted?: .evicted
        case .expired?: .expired
        case .deleted?: .deleted
        case nil: .absent
        }
    }

    /// Whether anything is known of the key here.
    package var isKnown: Bool { verdict != .absent }

    // MARK: Text

    package var text: String {
        var lines = ["namespace \(NamespaceChoice.line(space))", "  \(verdict.rawValue)\(reason)"]
        if let staging {
            let state = staging.isDirty ? "dirty: on no device yet" : "clean: a copy"
            var line = "  staging  \(state), \(Figures.size(UInt64(staging.length)))"
            line += ", \(Self.count(staging.shards, "shard")), version \(staging.version)"
            line += Self.until(staging.expiry)
            if staging.pins > 0 { line += ", \(Self.count(staging.pins, "reader"))" }
            if staging.leases > 0 { line += ", \(Self.count(staging.leases, "lease"))" }
            lines.append(line)
        }
        if let device {
            var line = "  device   \(device.file) at \(device.offset) (segment \(device.segment))"
            line += ", \(Figures.size(UInt64(device.length)))"
            line += ", \(Self.count(device.shards, "shard"))"
            line += ", version \(device.version)" + Self.until(device.expiry)
            if let heat = device.heat { line += ", heat \(heat) of 15" }
            lines.append(line)
        }
        return lines.joined(separator: "\n") + "\n"
    }

    private var reason: String {
        switch verdict {
        case .present: return ""
        case .absent: return ": never put, or gone for longer than is remembered"
        case .unknown: return ": the owner stands still in the middle of a change"
        case .damaged: return ": a shard was found damaged; the next put heals it"
        case .expired where departure == nil || staging != nil || device != nil:
            return ": past its time, and still there"
        case .expired, .evicted, .deleted:
            let seconds = departure?.seconds ?? 0
            return seconds == 0 ? "" : " at " + Figures.time(seconds)
        }
    }

    private static func count(_ number: Int, _ noun: String) -> String {
        "\(number) \(noun)" + (number == 1 ? "" : "s")
    }

    private static func until(_ expiry: UInt32) -> String {
        expiry == 0 ? "" : ", until " + Figures.time(expiry)
    }

    package var json: JSONText {
        var members: [(String, JSONText)] = [
            ("namespace", .count(space.instance)), ("verdict", .text(verdict.rawValue)),
        ]
        if let staging {
            members.append(
                (
                    "staging",
                    .object([
                        ("dirty", .flag(staging.isDirty)), ("version", .count(staging.version)),
                        ("value_bytes", .count(UInt64(staging.length))),
                        ("shards", .count(staging.shards)),
                        ("expires_at", .count(UInt64(staging.expiry))),
                        ("readers", .count(staging.pins)), ("leases", .count(staging.leases)),
                    ])
                ))
        }
        if let device {
            members.append(
                (
                    "device",
                    .object([
                        ("segment", .count(UInt64(device.segment))), ("file", .text(device.file)),
                        ("offset", .count(device.offset)),
                        ("value_bytes", .count(UInt64(device.length))),
                        ("shards", .count(device.shards)), ("version", .count(device.version)),
                        ("checksum", .count(UInt64(device.checksum))),
                        ("expires_at", .count(UInt64(device.expiry))),
                        ("heat", device.heat.map { JSONText.count(Int($0)) } ?? .null),
                        ("damaged", .flag(device.isDamaged)),
                    ])
                ))
        }
        if let departure, staging == nil, device == nil {
            members.append(("gone_at", .count(UInt64(departure.seconds))))
        }
        return .object(members)
    }
}

extension Catalog {
    /// What the log of a closed store knows of a key in these namespaces, at unix seconds `now`.
    package func explain(
        _ key: [UInt8], in spaces: [NamespaceRecord], now: UInt32
    ) throws(StoreError) -> [KeyExplanation] {
        let records = try records(ofKey: key)
        return spaces.map { space in
            var made = KeyExplanation(key: key, space: space, now: now)
            let own = records.filter { $0.namespace == space.instance }
            if let live = own.first(where: \.isLive) {
                made.device = .init(live, file: store.path(live.segment))
            } else if own.first?.kind == "tombstone" {
                made.departure = (.deleted, 0)
            }
            return made
        }
    }
}
